// SPDX-License-Identifier: GPL-2.0

//! `/dev/ringfence`: what a buffer is, which heaps there are, allocation with
//! wishes, and cache maintenance of a part of a buffer.
//!
//! The structures are those of `include/uapi/ringfence.h`. They may grow at
//! their end: the size in the command number is what the caller knows of them.

use core::mem::offset_of;

use crate::{
    attachment::Direction,
    bindings::{
        ringfence_alloc,
        ringfence_buffer_info,
        ringfence_heap_info,
        ringfence_sync,
        DMA_BUF_SYNC_END,
        DMA_BUF_SYNC_RW,
        RINGFENCE_ALLOC_NO_WAIT,
        RINGFENCE_ALLOC_TOP_DOWN,
        RINGFENCE_IOC_MAGIC,
        RINGFENCE_NAME_SIZE, //
    },
    dma_buf::DmaBuf,
    registry::{
        self,
        Abilities, //
    },
    scatter_list::Turn, //
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
    uapi, //
};

mod alloc;
mod argument;

use argument::{
    answer,
    Argument, //
};

pub(crate) const OPTIONS: MiscDeviceOptions = MiscDeviceOptions { name: c"ringfence" };

const READ_WRITE: u32 = uapi::_IOC_READ | uapi::_IOC_WRITE;
const BUFFER_INFO: u32 = 0;
const HEAP_INFO: u32 = 1;
const ALLOC: u32 = 2;
const SYNC: u32 = 3;

type Name = [c_char; RINGFENCE_NAME_SIZE as usize];

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_buffer_info {
    const NEEDED: usize = offset_of!(Self, flags);
}

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_heap_info {
    const NEEDED: usize = offset_of!(Self, flags);
}

// SAFETY: The structure consists of integers without holes between them.
unsafe impl Argument for ringfence_sync {
    const NEEDED: usize = size_of::<Self>();
}

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
            ALLOC => alloc::ioctl(address, size),
            SYNC => answer(address, size, sync),
            _ => Err(ENOTTY),
        }
    }
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
    if argument.pad != 0 || argument.pad2 != 0 {
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
    let account = heap.account();
    argument.used = account.used;
    argument.high_water = account.high_water;
    argument.allocations = account.allocations;
    argument.failures = account.failures;
    if let Some(abilities) = heap.abilities() {
        argument.granule = abilities.granule;
        argument.max_alignment = abilities.max_alignment;
        argument.alloc_flags = alloc_flags(&abilities);
    }
    Ok(())
}

/// Begins or ends the CPU's access to a part of a buffer.
fn sync(argument: &mut ringfence_sync) -> Result {
    let flags = argument.flags;
    if flags & !(DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END) != 0 {
        return Err(EINVAL);
    }
    let direction = Direction::of_sync(flags).ok_or(EINVAL)?;
    let turn = if flags & DMA_BUF_SYNC_END == 0 {
        Turn::Cpu
    } else {
        Turn::Device
    };
    let offset = usize::try_from(argument.offset).map_err(|_| EINVAL)?;
    let length = usize::try_from(argument.length).map_err(|_| EINVAL)?;
    DmaBuf::get(argument.fd)?.sync(offset, length, direction, turn)
}

/// What can be asked for beside properties, as flags.
fn alloc_flags(abilities: &Abilities) -> u32 {
    let flag = |able: bool, flag: u32| if able { flag } else { 0 };
    flag(abilities.top_down, RINGFENCE_ALLOC_TOP_DOWN)
        | flag(abilities.no_wait, RINGFENCE_ALLOC_NO_WAIT)
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
        assert_eq!(size_of::<ringfence_heap_info>(), 64 + 64 + 56);
        assert_eq!(offset_of!(ringfence_heap_info, buffers), 48);
        assert_eq!(offset_of!(ringfence_heap_info, name), 64);
        assert_eq!(offset_of!(ringfence_heap_info, alloc_flags), 176);
        assert_eq!(size_of::<ringfence_alloc>(), 56);
        assert_eq!(offset_of!(ringfence_alloc, fd), 48);
        assert_eq!(size_of::<ringfence_sync>(), 24);
    }

    #[test]
    fn a_name_is_padded_with_zeros() {
        let mut field: Name = [0xff; RINGFENCE_NAME_SIZE as usize];
        set_name(&mut field, c"camera");
        assert_eq!(&field[..7], b"camera\0");
        assert_eq!(field[RINGFENCE_NAME_SIZE as usize - 1], 0);
    }
}
