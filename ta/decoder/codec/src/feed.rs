// SPDX-License-Identifier: MIT OR Apache-2.0

//! The codec's view of a bitstream: the header's segments that were kept, then
//! the entropy-coded data, then the end.
//!
//! Entropy-coded data may hold stuffed bytes and restart markers (T.81, B.1.1.5
//! and E.1.4). It ends with the marker for the picture's end; at any other
//! marker the codec is told of an end as well, and the picture is refused.

extern crate alloc;

use alloc::vec::Vec;

use zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZSeekFrom};

use crate::Source;

/// Bytes of tables and headers that a picture may have: each of the eight
/// Huffman tables and the four quantization tables once, and room to spare.
pub const MAX_KEPT: usize = 4096;

/// Bytes that stay in the buffer for the codec to go back to; it goes back by
/// four at most.
const HISTORY: usize = 8;

/// How entropy-coded data ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the marker for it.
    Picture,
    /// With another one.
    Marker,
    /// With the bitstream.
    Source,
}

/// What the codec reads from.
pub struct Feed<'s> {
    source: &'s dyn Source,
    /// The next byte of the source.
    next: usize,
    /// The header's segments first, later pieces of entropy-coded data.
    bytes: [u8; HISTORY + MAX_KEPT],
    /// Bytes that there are in `bytes`.
    length: usize,
    /// The next one of these.
    position: usize,
    /// Bytes that were in `bytes` earlier.
    gone: u64,
    /// Whether the last byte taken from the source was 0xff, which says what
    /// the one after it is.
    prefix: bool,
    end: Option<End>,
    /// Whether a byte was asked for after the end.
    overrun: bool,
}

impl<'s> Feed<'s> {
    /// The view of a bitstream whose header comes down to `kept`, and whose
    /// entropy-coded data begins at `scan`.
    pub fn new(source: &'s dyn Source, kept: &[u8], scan: usize) -> Self {
        let mut bytes = [0; HISTORY + MAX_KEPT];
        bytes[..kept.len()].copy_from_slice(kept);
        Self {
            source,
            next: scan,
            bytes,
            length: kept.len(),
            position: 0,
            gone: 0,
            prefix: false,
            end: None,
            overrun: false,
        }
    }

    /// Takes more of the source, after what is in the buffer.
    fn refill(&mut self) {
        let drop = self.position.saturating_sub(HISTORY);
        self.bytes.copy_within(drop..self.length, 0);
        self.gone += drop as u64;
        self.position -= drop;
        self.length -= drop;

        let start = self.length;
        let taken = self.source.copy(self.next, &mut self.bytes[start..]);
        self.next += taken;
        self.length += taken;
        for index in start..self.length {
            let byte = self.bytes[index];
            match (self.prefix, byte) {
                (true, 0x00 | 0xd0..=0xd7) => self.prefix = false,
                (true, 0xd9) => {
                    self.length = index + 1;
                    self.end = Some(End::Picture);
                    return;
                }
                (true, 0xff) => (),
                (true, _) => {
                    self.length = index;
                    self.end = Some(End::Marker);
                    return;
                }
                (false, _) => self.prefix = byte == 0xff,
            }
        }
        if taken == 0 {
            self.end = Some(End::Source);
        }
    }

    /// Whether there are so many bytes, after taking more if need be.
    fn has(&mut self, count: usize) -> bool {
        loop {
            if self.length - self.position >= count {
                return true;
            }
            if self.end.is_some() || count > MAX_KEPT {
                return false;
            }
            self.refill();
        }
    }

    /// Reads what the codec has left, and says how the picture ended.
    pub fn finish(&mut self) -> End {
        loop {
            if let Some(end) = self.end {
                return end;
            }
            self.position = self.length;
            self.refill();
        }
    }
}

impl ZByteReaderTrait for &mut Feed<'_> {
    #[inline]
    fn read_byte_no_error(&mut self) -> u8 {
        if !self.has(1) {
            self.overrun = true;
            return 0;
        }
        let byte = self.bytes[self.position];
        self.position += 1;
        byte
    }

    #[inline]
    fn read_exact_bytes(&mut self, buf: &mut [u8]) -> Result<(), ZByteIoError> {
        self.peek_exact_bytes(buf)?;
        self.position += buf.len();
        Ok(())
    }

    fn read_bytes(&mut self, buf: &mut [u8]) -> Result<usize, ZByteIoError> {
        let count = self.peek_bytes(buf)?;
        self.position += count;
        Ok(count)
    }

    fn peek_bytes(&mut self, buf: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.has(buf.len());
        let from = &self.bytes[self.position..self.length];
        let count = from.len().min(buf.len());
        buf[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    #[inline]
    fn peek_exact_bytes(&mut self, buf: &mut [u8]) -> Result<(), ZByteIoError> {
        if !self.has(buf.len()) {
            return Err(ZByteIoError::NotEnoughBytes(
                self.length - self.position,
                buf.len(),
            ));
        }
        buf.copy_from_slice(&self.bytes[self.position..][..buf.len()]);
        Ok(())
    }

    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        const REFUSED: ZByteIoError = ZByteIoError::SeekError("only near by");
        let ZSeekFrom::Current(distance) = from else {
            return Err(REFUSED);
        };
        let distance = isize::try_from(distance).map_err(|_| REFUSED)?;
        self.position = self
            .position
            .checked_add_signed(distance)
            .filter(|position| *position <= self.length)
            .ok_or(REFUSED)?;
        self.z_position()
    }

    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        Ok(self.overrun)
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        Ok(self.gone + self.position as u64)
    }

    fn read_remaining(&mut self, _: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        Err(ZByteIoError::Generic("a picture is not read whole"))
    }
}
