// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cutting encrypted content into pieces that fit a decrypt command.
//!
//! Content is encrypted with AES-CTR: the counter block is one 128-bit
//! big-endian number that counts up by one each 16 bytes. A piece that starts
//! a whole number of blocks further on so has a counter that is known without
//! the pieces before it.

use std::io::{self, Read};

/// Bytes in an AES block.
pub const BLOCK: usize = 16;

/// Bytes in a piece unless the caller says otherwise: few commands, and a
/// modest part of the memory that normal and secure world share.
pub const DEFAULT_PIECE: usize = 1 << 20;

/// The counter block `blocks` blocks after `counter`.
pub fn advance(counter: [u8; BLOCK], blocks: u64) -> [u8; BLOCK] {
    u128::from_be_bytes(counter)
        .wrapping_add(u128::from(blocks))
        .to_be_bytes()
}

/// One decrypt command's share of the content.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Counter block of its first byte.
    pub counter: [u8; BLOCK],
    /// Where its first byte goes, in bytes from where the content goes.
    pub offset: u64,
    /// Its ciphertext; only the last piece may end inside a block.
    pub ciphertext: &'a [u8],
}

/// Reads ciphertext piece by piece.
#[derive(Debug)]
pub struct Pieces<R> {
    source: R,
    buffer: Vec<u8>,
    counter: [u8; BLOCK],
    offset: u64,
}

impl<R: Read> Pieces<R> {
    /// Cuts what `source` gives into pieces of `size` bytes, rounded up to
    /// whole blocks; `counter` belongs to the first byte.
    pub fn new(source: R, counter: [u8; BLOCK], size: usize) -> Self {
        Self {
            source,
            buffer: vec![0; size.max(1).next_multiple_of(BLOCK)],
            counter,
            offset: 0,
        }
    }

    /// The next piece, or `None` at the end of the content.
    ///
    /// # Errors
    ///
    /// Those of reading the source.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        let mut filled = 0;
        while filled < self.buffer.len() {
            match self.source.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        let piece = Piece {
            counter: self.counter,
            offset: self.offset,
            ciphertext: &self.buffer[..filled],
        };
        self.counter = advance(self.counter, (filled / BLOCK) as u64);
        self.offset += filled as u64;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_carries_through_all_its_bytes() {
        assert_eq!(advance([0; 16], 1)[15], 1);
        let mut low = [0; 16];
        low[8..].fill(0xff);
        let mut carried = [0; 16];
        carried[7] = 1;
        assert_eq!(advance(low, 1), carried);
        assert_eq!(advance([0xff; 16], 1), [0; 16]);
        assert_eq!(advance(advance([7; 16], 1000), 24), advance([7; 16], 1024));
    }

    fn cut(length: usize, size: usize) -> Vec<(u64, usize, u8)> {
        let content = vec![0; length];
        let mut pieces = Pieces::new(content.as_slice(), [0; 16], size);
        let mut seen = Vec::new();
        while let Some(piece) = pieces.next_piece().unwrap() {
            seen.push((piece.offset, piece.ciphertext.len(), piece.counter[15]));
        }
        seen
    }

    #[test]
    fn pieces_are_whole_blocks_but_for_the_last() {
        assert_eq!(cut(0, 32), []);
        assert_eq!(cut(1, 32), [(0, 1, 0)]);
        assert_eq!(cut(32, 32), [(0, 32, 0)]);
        assert_eq!(cut(70, 32), [(0, 32, 0), (32, 32, 2), (64, 6, 4)]);
        assert_eq!(cut(33, 17), [(0, 32, 0), (32, 1, 2)], "size is rounded up");
        assert_eq!(cut(17, 0), [(0, 16, 0), (16, 1, 1)], "and never zero");
    }

    /// A source that gives three bytes at a time.
    struct Dribble(usize);

    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let given = self.0.min(3).min(buffer.len());
            self.0 -= given;
            Ok(given)
        }
    }

    #[test]
    fn short_reads_make_no_short_pieces() {
        let mut pieces = Pieces::new(Dribble(40), [0; 16], 32);
        assert_eq!(pieces.next_piece().unwrap().unwrap().ciphertext.len(), 32);
        assert_eq!(pieces.next_piece().unwrap().unwrap().ciphertext.len(), 8);
        assert_eq!(pieces.next_piece().unwrap(), None);
    }
}
