// SPDX-License-Identifier: GPL-2.0

//! Allocation with wishes, from the first heap that can fulfil all of them.
//!
//! What was asked for is never traded for something else: a heap that can't do it
//! refuses, and the next one is asked.

use super::argument::{
    self,
    Argument,
    Bytes, //
};
use crate::{
    bindings::{
        ringfence_alloc,
        O_ACCMODE,
        O_CLOEXEC,
        RINGFENCE_ALLOC_MAX_HEAPS,
        RINGFENCE_ALLOC_NO_WAIT,
        RINGFENCE_ALLOC_TOP_DOWN,
        RINGFENCE_NAME_SIZE,
        RINGFENCE_NOT_TRIED, //
    },
    dma_buf::DmaBuf,
    registry::{
        self,
        Request,
        PROPERTIES, //
    }, //
};
use kernel::{
    fs::file::FileDescriptorReservation,
    page::page_align,
    prelude::*,
    uaccess::{
        UserSlice,
        UserSliceWriter, //
    }, //
};

const NAME_SIZE: usize = RINGFENCE_NAME_SIZE as usize;
const MAX_HEAPS: usize = RINGFENCE_ALLOC_MAX_HEAPS as usize;

const FLAGS: u32 = PROPERTIES | RINGFENCE_ALLOC_TOP_DOWN | RINGFENCE_ALLOC_NO_WAIT;
const FD_FLAGS: u32 = O_CLOEXEC | O_ACCMODE;

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_alloc {
    // Nobody must get a file that he does not learn of.
    const NEEDED: usize = size_of::<Self>();
}

/// `RINGFENCE_IOCTL_ALLOC`.
pub(super) fn ioctl(address: usize, size: usize) -> Result<isize> {
    let (mut reader, mut writer) =
        UserSlice::new(UserPtr::from_addr(address), size).reader_writer();
    let mut argument: Bytes<ringfence_alloc> = argument::read(&mut reader, size)?;
    let call = &mut argument.0;
    let request = request(call)?;
    let names = Names::read(call)?;

    let mut outcomes = Outcomes::new(names.count());
    let served = serve(&names, &request, call.flags & PROPERTIES, &mut outcomes);
    let (buffer, index) = match served {
        Ok(served) => served,
        Err(error) => {
            outcomes.write(call.outcomes)?;
            return Err(error);
        }
    };
    let fd = FileDescriptorReservation::get_unused_fd_flags(call.fd_flags)?;
    // CAST: A file descriptor is not negative, and an index is small.
    call.fd = fd.reserved_fd() as i32;
    call.index = index as u32;
    outcomes.write(call.outcomes)?;
    argument::write(&mut writer, &argument, size)?;
    // From here on nothing fails: the caller knows the number.
    fd.fd_install(buffer.file());
    Ok(0)
}

/// What the heaps are asked for.
fn request(call: &ringfence_alloc) -> Result<Request> {
    if call.fd != 0
        || call.pad != 0
        || call.index != 0
        || call.flags & !FLAGS != 0
        || call.fd_flags & !FD_FLAGS != 0
        || (call.alignment != 0 && !call.alignment.is_power_of_two())
    {
        return Err(EINVAL);
    }
    let size = usize::try_from(call.size).map_err(|_| EINVAL)?;
    let size = page_align(size).filter(|&size| size != 0).ok_or(EINVAL)?;
    Ok(Request {
        size,
        fd_flags: call.fd_flags,
        alignment: call.alignment,
        top_down: call.flags & RINGFENCE_ALLOC_TOP_DOWN != 0,
        no_wait: call.flags & RINGFENCE_ALLOC_NO_WAIT != 0,
    })
}

/// Asks one heap after the other; answers with the buffer, and which heap it is of.
fn serve(
    names: &Names,
    request: &Request,
    required: u32,
    outcomes: &mut Outcomes,
) -> Result<(DmaBuf, usize)> {
    let mut first = None;
    for index in 0..names.count() {
        let outcome = match registry::find(names.get(index)?) {
            Some(heap) => heap.allocate(request, required),
            None => Err(ENOENT),
        };
        match outcome {
            Ok(buffer) => {
                outcomes.set(index, 0);
                return Ok((buffer, index));
            }
            Err(error) => {
                outcomes.set(index, -error.to_errno());
                if error == EINTR {
                    return Err(error);
                }
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or(EINVAL))
}

/// The names of the heaps, in order of preference, as bytes.
struct Names(KVec<u8>);

impl Names {
    /// Copies the names, once, and checks their form.
    fn read(call: &ringfence_alloc) -> Result<Self> {
        let count = call.heap_count as usize;
        if count == 0 || count > MAX_HEAPS {
            return Err(EINVAL);
        }
        let address = usize::try_from(call.heaps).map_err(|_| EFAULT)?;
        let mut bytes = KVec::new();
        UserSlice::new(UserPtr::from_addr(address), count * NAME_SIZE)
            .read_all(&mut bytes, GFP_KERNEL)?;
        let names = Self(bytes);
        for index in 0..count {
            if names.get(index)?.is_empty() {
                return Err(EINVAL);
            }
        }
        Ok(names)
    }

    fn count(&self) -> usize {
        self.0.len() / NAME_SIZE
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it does not end within its bytes.
    fn get(&self, index: usize) -> Result<&CStr> {
        let bytes = self.0.chunks_exact(NAME_SIZE).nth(index).ok_or(EINVAL)?;
        CStr::from_bytes_until_nul(bytes).map_err(|_| EINVAL)
    }
}

/// What came of each heap.
struct Outcomes {
    values: [i32; MAX_HEAPS],
    count: usize,
}

impl Outcomes {
    fn new(count: usize) -> Self {
        Self {
            values: [RINGFENCE_NOT_TRIED; MAX_HEAPS],
            count: count.min(MAX_HEAPS),
        }
    }

    fn set(&mut self, index: usize, outcome: i32) {
        if let Some(value) = self.values.get_mut(index) {
            *value = outcome;
        }
    }

    /// Writes them to where the caller wants them, if it does.
    fn write(&self, address: u64) -> Result {
        if address == 0 {
            return Ok(());
        }
        let address = usize::try_from(address).map_err(|_| EFAULT)?;
        let length = self.count * size_of::<i32>();
        let mut writer: UserSliceWriter =
            UserSlice::new(UserPtr::from_addr(address), length).writer();
        self.values
            .iter()
            .take(self.count)
            .try_for_each(|value| writer.write(value))
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_alloc)]
mod tests {
    use super::*;
    use kernel::page::PAGE_SIZE;

    fn good() -> ringfence_alloc {
        ringfence_alloc {
            size: 1,
            heap_count: 1,
            ..ringfence_alloc::default()
        }
    }

    fn refused(change: fn(&mut ringfence_alloc)) -> bool {
        let mut call = good();
        change(&mut call);
        request(&call).err() == Some(EINVAL)
    }

    #[test]
    fn sizes_are_whole_pages() {
        assert_eq!(request(&good()).map(|request| request.size), Ok(PAGE_SIZE));
        assert!(refused(|call| call.size = 0));
        assert!(refused(|call| call.size = u64::MAX));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert!(refused(|call| call.flags = 0x40000));
        assert!(refused(|call| call.flags = 0x100));
        assert!(refused(|call| call.fd_flags = 0o4000));
        assert!(refused(|call| call.fd = 1));
        assert!(refused(|call| call.index = 1));
        assert!(refused(|call| call.pad = 1));
    }

    #[test]
    fn alignments_are_powers_of_two() {
        assert!(refused(|call| call.alignment = 3));
        assert!(refused(|call| call.alignment = 0x1_1000));
        let mut call = good();
        call.alignment = 1 << 63;
        assert_eq!(request(&call).map(|request| request.alignment), Ok(1 << 63));
    }

    #[test]
    fn a_name_ends_within_its_bytes() -> Result {
        let mut bytes = KVec::from_elem(b'x', NAME_SIZE, GFP_KERNEL)?;
        bytes.extend_from_slice(b"camera\0", GFP_KERNEL)?;
        bytes.resize(2 * NAME_SIZE, 0, GFP_KERNEL)?;
        let names = Names(bytes);
        assert_eq!(names.count(), 2);
        assert!(names.get(0).is_err());
        assert!(names.get(1)? == c"camera");
        assert!(names.get(2).is_err());
        Ok(())
    }
}
