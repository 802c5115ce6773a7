// SPDX-License-Identifier: MIT OR Apache-2.0

//! What DECODE does: which memory it may touch, and for how long.

use core::ptr::NonNull;
use core::slice;

use ringfence_proto::decoder::{MAX_SOURCE, PIXEL};
use ringfence_proto::message::Decode;
use ringfence_ta::windows::{Range, Window};

use crate::frame::Layout;
use crate::picture;
use crate::refusal::Refusal;
use crate::source::Mapped;

/// Bytes that one window can map: what the firewall maps at most.
const MAX_WINDOW: u64 = 4 << 20;

/// The rest of the secure world.
///
/// # Safety
///
/// What [`map`](Self::map) returns must point to as many bytes as were asked
/// for, readable and writable until [`unmap`](Self::unmap) is called with them,
/// and overlapping nothing else that the program uses. As long as any of a range
/// is mapped the range must be there, and nobody but devices may write to it.
pub unsafe trait Memory {
    /// The range that a handle names, if it is for secure video.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the other application's result.
    fn resolve(&mut self, handle: u64) -> Result<Range, Refusal>;

    /// Maps `size` bytes at physical address `start`, both page-aligned and
    /// inside one range.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal>;

    /// Takes back what [`map`](Self::map) returned for the same size.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    ///
    /// # Safety
    ///
    /// Nothing may touch the bytes any more.
    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal>;
}

/// Windows while they are mapped. Dropping this unmaps them, however the command
/// ends.
///
/// # Invariants
///
/// Each address is what `memory` returned for the window's size, and is mapped.
struct Windows<'m, M: Memory> {
    memory: &'m mut M,
    mapped: [Option<(NonNull<u8>, Window)>; 2],
}

impl<'m, M: Memory> Windows<'m, M> {
    const fn new(memory: &'m mut M) -> Self {
        // INVARIANT: nothing is mapped.
        Self {
            memory,
            mapped: [None; 2],
        }
    }

    /// Maps another window; returns the bytes in it that are meant. They are
    /// valid until this is dropped.
    fn map(&mut self, window: Window) -> Result<NonNull<[u8]>, Refusal> {
        let [.., place] = &mut self.mapped;
        if place.is_some() {
            return Err(Refusal::SecureWorld);
        }
        let skip = usize::try_from(window.skip).map_err(|_| Refusal::OutOfBounds)?;
        let length = usize::try_from(window.length).map_err(|_| Refusal::OutOfBounds)?;
        let address = self.memory.map(window.start, window.size)?;
        // INVARIANT: just mapped.
        *place = Some((address, window));
        self.mapped.rotate_right(1);
        // SAFETY: a window's bytes lie within it (`skip + length <= size`), and as
        // many are mapped at the address.
        let first = unsafe { address.add(skip) };
        Ok(NonNull::slice_from_raw_parts(first, length))
    }
}

impl<M: Memory> Drop for Windows<'_, M> {
    /// # Panics
    ///
    /// If the firewall does not unmap its own window. The panic ends this
    /// instance, and the window goes with its address space.
    fn drop(&mut self) {
        for (address, window) in self.mapped.into_iter().flatten() {
            // SAFETY: by the type invariant it is mapped, and no pointer from
            // `map` is used after this value.
            let outcome = unsafe { self.memory.unmap(address, window.size) };
            if let Err(refusal) = outcome {
                panic!("window cannot be unmapped: {refusal}");
            }
        }
    }
}

/// The one window that shows `length` bytes of a range from `offset` on.
fn window(range: &Range, offset: u64, length: u64) -> Result<Window, Refusal> {
    range
        .span(offset, length)
        .and_then(|span| span.window(MAX_WINDOW))
        .map_err(|_| Refusal::OutOfBounds)
}

/// Decodes one picture; returns its width and height. `at_last` runs when that is
/// done and all is still mapped.
///
/// # Errors
///
/// [`Refusal::Layout`], [`Refusal::OutOfBounds`], [`Refusal::SameBuffer`],
/// [`Refusal::UnknownHandle`], [`Refusal::Picture`], or what the rest of the
/// secure world says.
pub fn decode<M: Memory>(
    memory: &mut M,
    source: u64,
    request: &Decode,
    at_last: impl FnOnce(),
) -> Result<(u32, u32), Refusal> {
    let layout = Layout::new(request.width, request.height, request.stride)?;
    if request.source_length > MAX_SOURCE {
        return Err(Refusal::OutOfBounds);
    }
    if !request.frame_offset.is_multiple_of(PIXEL.into()) {
        return Err(Refusal::Layout);
    }
    if source == request.frame {
        return Err(Refusal::SameBuffer);
    }
    let ranges = (memory.resolve(source)?, memory.resolve(request.frame)?);
    let from = window(
        &ranges.0,
        request.source_offset,
        request.source_length.into(),
    )?;
    // CAST: at most `MAX_FRAME`.
    let to = window(&ranges.1, request.frame_offset, layout.size() as u64)?;

    let mut windows = Windows::new(memory);
    let from = windows.map(from)?;
    let to = windows.map(to)?;
    // A handle that was released meanwhile names nothing, and never will again:
    // what is mapped now is what the handles name, and stays as it is while it
    // is mapped.
    let memory = &mut *windows.memory;
    let still = (memory.resolve(source)?, memory.resolve(request.frame)?);
    if still != ranges {
        return Err(Refusal::UnknownHandle);
    }

    // SAFETY: the bytes are mapped, readable, until `windows` goes.
    let from = unsafe { Mapped::new(from) };
    // SAFETY: the bytes are mapped, readable and writable, until `windows` goes,
    // and overlap nothing else. Nobody writes to them but devices, if any: what
    // they hold is written and moved, and decides nothing.
    let to = unsafe { slice::from_raw_parts_mut(to.cast::<u8>().as_ptr(), to.len()) };
    picture::decode(&from, to, &layout)?;
    at_last();
    Ok((request.width, request.height))
}
