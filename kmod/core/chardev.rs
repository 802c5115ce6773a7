// SPDX-License-Identifier: GPL-2.0

//! `/dev/ringfence`: what a buffer is, and which heaps there are.
//!
//! The structures are those of `include/uapi/ringfence.h`. They may grow at
//! their end: the size in the command number is what the caller knows of them.

use core::mem::offset_of;

use crate::{
    bindings::{
        ringfence_buffer_info,
        ringfence_heap_info,
        RINGFENCE_IOC_MAGIC,
        RINGFENCE_NAME_SIZE, //
    },
    dma_buf::DmaBuf,
    registry, //
};
use kernel::{
    fs::File,
    ioctl::{
        _IOC_DIR,
        _IOC_NR,
        _IOC_SIZE,
        _IOC_TYPE, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserSlice,
        UserSliceReader, //
    },
    uapi, //
};

pub(crate) const OPTIONS: MiscDeviceOptions = MiscDeviceOptions { name: c"ringfence" };

const READ_WRITE: u32 = uapi::_IOC_READ | uapi::_IOC_WRITE;
const BUFFER_INFO: u32 = 0;
const HEAP_INFO: u32 = 1;

type Name = [c_char; RINGFENCE_NAME_SIZE as usize];

/// An argument that may grow at its end.
///
/// # Safety
///
/// The type must have no padding, and every bit pattern must be valid.
unsafe trait Argument: Default {
    /// Bytes of the inputs, which every caller must know.
    const INPUTS: usize;
}

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_buffer_info {
    const INPUTS: usize = offset_of!(Self, flags);
}

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_heap_info {
    const INPUTS: usize = offset_of!(Self, flags);
}

/// [`Argument`] as bytes.
#[repr(transparent)]
struct Bytes<T: Argument>(T);

// SAFETY: `Argument` promises that every bit pattern is valid.
unsafe impl<T: Argument> FromBytes for Bytes<T> {}
// SAFETY: `Argument` promises that there is no padding.
unsafe impl<T: Argument> AsBytes for Bytes<T> {}

pub(crate) struct RingfenceDevice;

#[vtable]
impl MiscDevice for RingfenceDevice {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        Ok(KBox::new(Self, GFP_KERNEL)?.into())
    }

    fn ioctl(_device: Pin<&Self>, _file: &File, command: u32, address: usize) -> Result<isize> {
        if _IOC_TYPE(command) != RINGFENCE_IOC_MAGIC || _IOC_DIR(command) != READ_WRITE {
            return Err(ENOTTY);
        }
        let size = _IOC_SIZE(command);
        match _IOC_NR(command) {
            BUFFER_INFO => answer(address, size, buffer_info),
            HEAP_INFO => answer(address, size, heap_info),
            _ => Err(ENOTTY),
        }
    }
}

/// Reads an argument of the caller's size, and writes it back as `work` left it.
fn answer<T: Argument>(
    address: usize,
    size: usize,
    work: impl FnOnce(&mut T) -> Result,
) -> Result<isize> {
    let (mut reader, mut writer) =
        UserSlice::new(UserPtr::from_addr(address), size).reader_writer();
    let mut argument = read(&mut reader, size)?;
    work(&mut argument.0)?;
    let bytes = argument.as_bytes();
    writer.write_slice(bytes.get(..size).unwrap_or(bytes))?;
    Ok(0)
}

/// Reads what the caller knows of the argument; the rest is zero.
fn read<T: Argument>(reader: &mut UserSliceReader, size: usize) -> Result<Bytes<T>> {
    if size < T::INPUTS {
        return Err(EINVAL);
    }
    let mut argument = Bytes(T::default());
    let bytes = argument.as_bytes_mut();
    let known = bytes.len().min(size);
    reader.read_slice(bytes.get_mut(..known).ok_or(EINVAL)?)?;
    // What this kernel does not know must not mean anything.
    while !reader.is_empty() {
        let mut tail = [0; 64];
        let length = tail.len().min(reader.len());
        let tail = tail.get_mut(..length).ok_or(EINVAL)?;
        reader.read_slice(tail)?;
        if tail.iter().any(|&byte| byte != 0) {
            return Err(E2BIG);
        }
    }
    Ok(argument)
}

fn buffer_info(argument: &mut ringfence_buffer_info) -> Result {
    if argument.pad != 0 {
        return Err(EINVAL);
    }
    let buffer = DmaBuf::get(argument.fd)?;
    let info = buffer.info()?;
    argument.flags = info.flags;
    argument.size = buffer.size() as u64;
    argument.handle = info.handle;
    argument.use_case = info.use_case;
    set_name(&mut argument.heap, info.heap.name());
    Ok(())
}

fn heap_info(argument: &mut ringfence_heap_info) -> Result {
    if argument.pad != 0 {
        return Err(EINVAL);
    }
    let heap = registry::nth(argument.index as usize).ok_or(ENOENT)?;
    let info = heap.info();
    argument.flags = info.flags;
    argument.size = info.size;
    argument.free = info.free;
    argument.largest_free = info.largest_free;
    argument.quarantined = info.quarantined;
    argument.protected_bytes = info.protected_bytes;
    argument.buffers = info.buffers;
    argument.use_case = info.use_case;
    argument.alignment = info.alignment;
    set_name(&mut argument.name, heap.name());
    Ok(())
}

/// Writes a heap's name, of which the registry has checked the length, and zeros
/// behind it.
fn set_name(field: &mut Name, name: &CStr) {
    let bytes = name.to_bytes();
    for (index, slot) in field.iter_mut().enumerate() {
        *slot = bytes.get(index).copied().unwrap_or(0);
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_chardev)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_the_uapi_says() {
        assert_eq!(size_of::<ringfence_buffer_info>(), 32 + 64);
        assert_eq!(offset_of!(ringfence_buffer_info, handle), 16);
        assert_eq!(offset_of!(ringfence_buffer_info, heap), 32);
        assert_eq!(size_of::<ringfence_heap_info>(), 64 + 64);
        assert_eq!(offset_of!(ringfence_heap_info, buffers), 48);
        assert_eq!(offset_of!(ringfence_heap_info, name), 64);
    }

    #[test]
    fn a_name_is_padded_with_zeros() {
        let mut field: Name = [0xff; RINGFENCE_NAME_SIZE as usize];
        set_name(&mut field, c"camera");
        assert_eq!(&field[..7], b"camera\0");
        assert_eq!(field[RINGFENCE_NAME_SIZE as usize - 1], 0);
    }
}
