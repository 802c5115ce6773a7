// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cutting a sample into commands: each takes so many bytes and subsamples at most.

use std::ops::Range;

use ringfence_proto::message::{
    DecryptSample, Pattern, Scheme, Subsample, MAX_SAMPLE, MAX_SUBSAMPLES,
};

use super::protection::Protection;

/// Bytes of a block.
const BLOCK: usize = 16;

/// One command's share of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What the command says of it.
    pub request: DecryptSample,
    /// Which bytes of the sample it is.
    pub range: Range<usize>,
}

/// Cuts `sample`, which goes to the start of a buffer. Its subsamples must make up
/// all of it.
pub fn cut(
    protection: &Protection,
    iv: [u8; BLOCK],
    subsamples: &[Subsample],
    sample: &[u8],
) -> Vec<Piece> {
    cut_at(protection, iv, subsamples, sample, MAX_SAMPLE)
}

/// As [`cut`], with pieces of at most `most` bytes; at least a pattern's period.
fn cut_at(
    protection: &Protection,
    iv: [u8; BLOCK],
    subsamples: &[Subsample],
    sample: &[u8],
    most: usize,
) -> Vec<Piece> {
    let mut cutter = Cutter {
        protection,
        iv,
        most,
        encrypted: 0,
        start: 0,
        pending: Vec::new(),
        length: 0,
        chain: None,
        pieces: Vec::new(),
    };
    for subsample in subsamples {
        cutter.add(*subsample, sample);
    }
    cutter.flush();
    cutter.pieces
}

struct Cutter<'p> {
    protection: &'p Protection,
    iv: [u8; BLOCK],
    most: usize,
    /// Encrypted bytes before the pending piece, for the counter.
    encrypted: u64,
    /// Where the pending piece begins in the sample.
    start: usize,
    pending: Vec<Subsample>,
    /// Bytes of it.
    length: usize,
    /// Of `cbcs`: the block before the pending piece, which goes on in the middle of
    /// a subsample.
    chain: Option<[u8; BLOCK]>,
    pieces: Vec<Piece>,
}

impl Cutter<'_> {
    /// Adds a subsample, in as many parts as it takes.
    fn add(&mut self, subsample: Subsample, sample: &[u8]) {
        let mut clear = bytes(subsample.clear);
        let mut encrypted = bytes(subsample.encrypted);
        let unit = match (self.protection.scheme, self.protection.pattern) {
            (Scheme::Cenc, _) => 1,
            (Scheme::Cbcs, Pattern { crypt: 0, .. }) => BLOCK,
            (Scheme::Cbcs, Pattern { crypt, skip }) => {
                (usize::from(crypt) + usize::from(skip)) * BLOCK
            }
        };
        while clear > 0 || encrypted > 0 {
            if self.length == self.most || self.pending.len() == MAX_SUBSAMPLES {
                self.flush();
            }
            let room = self.most - self.length;
            let part_clear = clear.min(room);
            let room = room - part_clear;
            let part_encrypted = match encrypted <= room {
                true => encrypted,
                false => room - room % unit,
            };
            if part_clear == 0 && part_encrypted == 0 {
                // What is left of the piece does not take a unit.
                self.flush();
                continue;
            }
            self.pending.push(Subsample {
                clear: part_clear as u32,
                encrypted: part_encrypted as u32,
            });
            self.length += part_clear + part_encrypted;
            clear -= part_clear;
            encrypted -= part_encrypted;
            let is_cut = encrypted > 0 && part_encrypted > 0;
            let was_chained = self.chain.is_some();
            if is_cut || was_chained {
                let end = self.start + self.length;
                self.flush();
                if is_cut && self.protection.scheme == Scheme::Cbcs {
                    let skip = usize::from(self.protection.pattern.skip) * BLOCK;
                    let last = sample[..end - skip].last_chunk();
                    self.chain = Some(*last.expect("a whole unit was added"));
                }
            }
        }
    }

    /// Ends the pending piece.
    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let chain = self.chain.take();
        let (iv, used) = match self.protection.scheme {
            Scheme::Cenc => (
                advance(self.iv, self.encrypted / BLOCK as u64),
                (self.encrypted % BLOCK as u64) as u8,
            ),
            Scheme::Cbcs => (chain.unwrap_or(self.iv), 0),
        };
        let added = pending.iter().map(|part| u64::from(part.encrypted));
        self.encrypted += added.sum::<u64>();
        let end = self.start + self.length;
        self.pieces.push(Piece {
            request: DecryptSample {
                key_id: self.protection.key_id,
                scheme: self.protection.scheme,
                iv,
                used,
                pattern: self.protection.pattern,
                offset: self.start as u64,
                subsamples: pending.into_iter().collect(),
            },
            range: self.start..end,
        });
        self.start = end;
        self.length = 0;
    }
}

/// The counter block `blocks` blocks after `counter`: its second half counts, and
/// wraps around by itself.
fn advance(mut counter: [u8; BLOCK], blocks: u64) -> [u8; BLOCK] {
    let (_, low) = counter.split_at_mut(BLOCK / 2);
    let count = u64::from_be_bytes((&*low).try_into().expect("8 bytes"));
    low.copy_from_slice(&count.wrapping_add(blocks).to_be_bytes());
    counter
}

fn bytes(count: u32) -> usize {
    usize::try_from(count).expect("32 bits fit the machines that this runs on")
}

#[cfg(test)]
mod tests {
    use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher};
    use aes::Aes128;
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 16] = *b"a content key 01";

    /// Applies AES to the bytes that a request says are encrypted.
    fn crypt(request: &DecryptSample, bytes: &mut [u8], encrypts: bool) {
        let mut rest = bytes;
        // The crate counts in all 128 bits; no test counts so far.
        let mut stream = ctr::Ctr128BE::<Aes128>::new(&KEY.into(), &request.iv.into());
        stream.apply_keystream(&mut vec![0; usize::from(request.used)]);
        for subsample in &request.subsamples {
            let (_, after) = rest.split_at_mut(subsample.clear as usize);
            let (encrypted, after) = after.split_at_mut(subsample.encrypted as usize);
            rest = after;
            if request.scheme == Scheme::Cenc {
                stream.apply_keystream(encrypted);
                continue;
            }
            let (run, period) = match request.pattern {
                Pattern { crypt: 0, .. } => (16, 16),
                Pattern { crypt, skip } => (
                    usize::from(crypt) * 16,
                    (usize::from(crypt) + usize::from(skip)) * 16,
                ),
            };
            let mut encryptor = cbc::Encryptor::<Aes128>::new(&KEY.into(), &request.iv.into());
            let mut decryptor = cbc::Decryptor::<Aes128>::new(&KEY.into(), &request.iv.into());
            for stretch in encrypted.chunks_mut(period) {
                for block in stretch
                    .get_mut(..run)
                    .into_iter()
                    .flat_map(|b| b.chunks_mut(16))
                {
                    let mut one: [u8; 16] = (&*block).try_into().expect("16 bytes");
                    match encrypts {
                        true => encryptor.encrypt_block((&mut one).into()),
                        false => decryptor.decrypt_block((&mut one).into()),
                    }
                    block.copy_from_slice(&one);
                }
            }
        }
    }

    fn protection(scheme: Scheme, pattern: Pattern) -> Protection {
        Protection::constant([1; 16], scheme, pattern)
    }

    /// Encrypts whole, cuts, decrypts piece by piece.
    fn comes_back(
        protection: &Protection,
        subsamples: &[(u32, u32)],
        most: usize,
    ) -> Result<Vec<Piece>, TestCaseError> {
        let subsamples: Vec<_> = subsamples
            .iter()
            .map(|&(clear, encrypted)| Subsample { clear, encrypted })
            .collect();
        let total: u32 = subsamples.iter().map(|s| s.clear + s.encrypted).sum();
        let plaintext: Vec<u8> = (0..total)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let iv = *b"an iv of 16 by\0\0";
        let mut sample = plaintext.clone();
        let mut rest = 0;
        // Of the crate's list only so much fits; so does the encryption, in turns.
        if protection.scheme == Scheme::Cbcs {
            for part in &subsamples {
                let length = (part.clear + part.encrypted) as usize;
                let whole = request(protection, iv, &[*part]);
                crypt(&whole, &mut sample[rest..rest + length], true);
                rest += length;
            }
        } else {
            let mut stream = ctr::Ctr128BE::<Aes128>::new(&KEY.into(), &iv.into());
            for part in &subsamples {
                rest += part.clear as usize;
                let encrypted = part.encrypted as usize;
                stream.apply_keystream(&mut sample[rest..rest + encrypted]);
                rest += encrypted;
            }
        }
        let pieces = cut_at(protection, iv, &subsamples, &sample, most);
        let mut next = 0;
        for piece in &pieces {
            prop_assert_eq!(piece.range.start, next);
            prop_assert_eq!(piece.request.offset, next as u64);
            prop_assert!(piece.range.len() <= most);
            let sum: u32 = piece
                .request
                .subsamples
                .iter()
                .map(|s| s.clear + s.encrypted)
                .sum();
            prop_assert_eq!(piece.range.len(), sum as usize);
            crypt(&piece.request, &mut sample[piece.range.clone()], false);
            next = piece.range.end;
        }
        prop_assert_eq!(next, sample.len());
        prop_assert!(sample == plaintext);
        Ok(pieces)
    }

    fn request(protection: &Protection, iv: [u8; 16], subsamples: &[Subsample]) -> DecryptSample {
        DecryptSample {
            key_id: protection.key_id,
            scheme: protection.scheme,
            iv,
            used: 0,
            pattern: protection.pattern,
            offset: 0,
            subsamples: subsamples.iter().copied().collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn cenc_comes_back_in_pieces(
            subsamples in prop::collection::vec((0..50u32, 0..200u32), 0..200),
            most in 1..2000usize,
        ) {
            let protection = protection(Scheme::Cenc, Pattern::default());
            comes_back(&protection, &subsamples, most)?;
        }

        #[test]
        fn cbcs_comes_back_in_pieces(
            subsamples in prop::collection::vec((0..50u32, 0..900u32), 0..100),
            (crypt, skip) in prop::sample::select(vec![(0, 0), (1, 0), (1, 9), (5, 5), (3, 1)]),
            more in 0..2000usize,
        ) {
            let pattern = Pattern { crypt, skip };
            comes_back(&protection(Scheme::Cbcs, pattern), &subsamples, 160 + more)?;
        }
    }

    #[test]
    fn what_fits_is_one_piece() {
        let protection = protection(Scheme::Cenc, Pattern::default());
        let pieces = comes_back(&protection, &[(3, 5), (0, 8)], 16).expect("comes back");
        assert_eq!(pieces.len(), 1);
        let many = [(1, 1); MAX_SUBSAMPLES + 1];
        let pieces = comes_back(&protection, &many, MAX_SAMPLE).expect("comes back");
        assert_eq!(pieces.len(), 2);
        let large = [(7, 2 * MAX_SAMPLE as u32)];
        let pieces = comes_back(&protection, &large, MAX_SAMPLE).expect("comes back");
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn the_counting_half_wraps_by_itself() {
        let mut counter = [0xff; 16];
        counter[0] = 1;
        let wrapped = advance(counter, 1);
        assert_eq!(wrapped[..8], counter[..8]);
        assert_eq!(wrapped[8..], [0; 8]);
    }
}
