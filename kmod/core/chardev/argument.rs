// SPDX-License-Identifier: GPL-2.0

//! Arguments of ioctls that may grow at their end.

use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// An argument that may grow at its end.
///
/// # Safety
///
/// The type must have no padding, and every bit pattern must be valid.
pub(super) unsafe trait Argument: Default {
    /// Bytes that every caller must know: the inputs, and what it can't do without
    /// of the rest.
    const NEEDED: usize;
}

/// [`Argument`] as bytes.
#[repr(transparent)]
pub(super) struct Bytes<T: Argument>(pub(super) T);

// SAFETY: `Argument` promises that every bit pattern is valid.
unsafe impl<T: Argument> FromBytes for Bytes<T> {}
// SAFETY: `Argument` promises that there is no padding.
unsafe impl<T: Argument> AsBytes for Bytes<T> {}

/// Reads an argument of the caller's size, and writes it back as `work` left it.
pub(super) fn answer<T: Argument>(
    address: usize,
    size: usize,
    work: impl FnOnce(&mut T) -> Result,
) -> Result<isize> {
    let (mut reader, mut writer) =
        UserSlice::new(UserPtr::from_addr(address), size).reader_writer();
    let mut argument = read(&mut reader, size)?;
    work(&mut argument.0)?;
    write(&mut writer, &argument, size)?;
    Ok(0)
}

/// Reads what the caller knows of the argument; the rest is zero.
pub(super) fn read<T: Argument>(reader: &mut UserSliceReader, size: usize) -> Result<Bytes<T>> {
    if size < T::NEEDED {
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

/// Writes what the caller knows of the argument.
pub(super) fn write<T: Argument>(
    writer: &mut UserSliceWriter,
    argument: &Bytes<T>,
    size: usize,
) -> Result {
    let bytes = argument.as_bytes();
    writer.write_slice(bytes.get(..size).unwrap_or(bytes))
}
