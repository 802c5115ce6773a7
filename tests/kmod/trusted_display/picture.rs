// SPDX-License-Identifier: GPL-2.0

//! What a program asks for, and whether it makes sense.

use kernel::{
    prelude::*,
    transmute::FromBytes, //
};

/// `DRM_FORMAT_XRGB8888`.
pub(crate) const XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

/// Bytes of a pixel.
const PIXEL: u32 = 4;

/// What `ramfb` takes; it ignores the rest without saying so.
const WIDTHS: core::ops::RangeInclusive<u32> = 16..=16000;
const HEIGHTS: core::ops::RangeInclusive<u32> = 16..=12000;

/// `struct ringfence_display_show`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Show {
    pub(crate) fd: i32,
    width: u32,
    height: u32,
    stride: u32,
    format: u32,
    flags: u32,
    offset: u64,
}

const _: () = assert!(size_of::<Show>() == 32);

// SAFETY: The structure consists of integers.
#[allow(unsafe_code)]
unsafe impl FromBytes for Show {}

/// A picture in memory, as `ramfb` wants it.
#[derive(Clone, Copy)]
pub(crate) struct Picture {
    /// Address for the device.
    pub(crate) address: u64,
    /// Pixels.
    pub(crate) width: u32,
    /// Lines.
    pub(crate) height: u32,
    /// Bytes from one line to the next.
    pub(crate) stride: u32,
}

impl Show {
    /// Judges everything but whether the picture lies within its buffer.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(crate) fn check(&self) -> Result {
        let aligned = self.stride % PIXEL == 0 && self.offset % u64::from(PIXEL) == 0;
        let sized = WIDTHS.contains(&self.width) && HEIGHTS.contains(&self.height);
        // It can't overflow: the width is bounded.
        let wide = sized && self.stride >= PIXEL * self.width;
        if self.flags == 0 && self.format == XRGB8888 && aligned && wide {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Where it is in a buffer of `size` bytes at `start`, in the device's view.
    ///
    /// # Errors
    ///
    /// `ERANGE` when it does not lie within the buffer.
    pub(crate) fn locate(&self, start: u64, size: u64) -> Result<Picture> {
        let bytes = u64::from(self.stride) * u64::from(self.height);
        let end = self.offset.checked_add(bytes).ok_or(ERANGE)?;
        if end > size {
            return Err(ERANGE);
        }
        Ok(Picture {
            address: start.checked_add(self.offset).ok_or(ERANGE)?,
            width: self.width,
            height: self.height,
            stride: self.stride,
        })
    }
}
