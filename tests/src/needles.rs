// SPDX-License-Identifier: MIT OR Apache-2.0

//! Byte strings that can be looked for by somebody who does not know them.
//!
//! Whoever searches a machine's memory from inside must not have what it looks
//! for in that memory. So it gets no needles but keyed images of them: of every
//! aligned word that a needle can show in memory, and one of the whole needle. The
//! images of words are a bijection under a secret key, so that words of memory are
//! compared in a multiplication and a look at a bitmap, and the image of the
//! needle settles what passes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Bytes of a needle.
pub const NEEDLE_SIZE: usize = 16;

/// Bytes of a word of memory.
const WORD: usize = 8;

/// Distinct byte values that a needle has at least: what has fewer may be in memory
/// by chance.
const VARIETY: usize = 10;

/// Bits of the bitmap's index.
const INDEX_BITS: u32 = 20;

/// The keys of a set, random for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Of words.
    pub mask: u64,
    /// Of words; made odd.
    pub factor: u64,
    /// Of needles, made odd.
    pub weights: [u64; 2],
}

impl Keys {
    /// The image of a word.
    #[inline]
    fn word(&self, word: u64) -> u64 {
        (word ^ self.mask).wrapping_mul(self.factor | 1)
    }

    /// The image of a needle: no bijection, so that it can't be undone.
    fn needle(&self, needle: &[u8; NEEDLE_SIZE]) -> u64 {
        let halves = u128::from_le_bytes(*needle);
        let mixed = [halves as u64, (halves >> 64) as u64]
            .iter()
            .zip(self.weights)
            .map(|(half, weight)| u128::from(half ^ self.mask) * u128::from(weight | 1))
            .fold(0, u128::wrapping_add);
        (mixed >> 64) as u64 ^ mixed as u64
    }
}

/// A needle in disguise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needle {
    /// What it is of: an index into [`Set::names`].
    pub of: usize,
    /// Images of its words at each offset at which an aligned one can begin.
    pub words: [u64; WORD],
    /// Its image.
    pub image: u64,
}

/// What is looked for together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The keys.
    pub keys: Keys,
    /// What the needles are of.
    pub names: Vec<String>,
    /// The needles.
    pub needles: Vec<Needle>,
}

/// Whether a byte string is not in memory by chance.
pub fn is_telling(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() >= VARIETY
}

impl Set {
    /// A set without needles.
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            names: Vec::new(),
            needles: Vec::new(),
        }
    }

    /// Adds needles of one thing; answers its index.
    pub fn add<'n>(
        &mut self,
        name: &str,
        needles: impl IntoIterator<Item = &'n [u8; NEEDLE_SIZE]>,
    ) -> usize {
        let of = self.names.len();
        self.names.push(name.to_owned());
        let keys = self.keys;
        let disguised = needles.into_iter().map(|needle| Needle {
            of,
            words: std::array::from_fn(|offset| {
                let word = needle[offset..].first_chunk().copied();
                keys.word(word.map_or(0, u64::from_le_bytes))
            }),
            image: keys.needle(needle),
        });
        self.needles.extend(disguised);
        of
    }
}

/// A set made ready for a search.
#[derive(Debug)]
pub struct Matcher<'s> {
    set: &'s Set,
    bitmap: Vec<u64>,
    /// By the image of a word: which needles have it, and where.
    places: HashMap<u64, Vec<(usize, usize)>>,
}

impl<'s> Matcher<'s> {
    /// Prepares a search.
    pub fn new(set: &'s Set) -> Self {
        let mut this = Self {
            set,
            bitmap: vec![0; 1 << (INDEX_BITS - 6)],
            places: HashMap::new(),
        };
        for (number, needle) in set.needles.iter().enumerate() {
            for (offset, word) in needle.words.into_iter().enumerate() {
                let (slot, bit) = Self::index(word);
                this.bitmap[slot] |= bit;
                this.places.entry(word).or_default().push((number, offset));
            }
        }
        this
    }

    /// Where the bitmap has an image's bit.
    #[inline]
    fn index(image: u64) -> (usize, u64) {
        let index = image >> (u64::BITS - INDEX_BITS);
        ((index >> 6) as usize, 1 << (index & 63))
    }

    /// Looks at words of memory, which follow each other: `read` answers the one
    /// at an index below `count`. Calls `found` with the needle's number and the
    /// offset of its first byte from that of the first word, for each needle that
    /// lies wholly within.
    #[inline]
    pub fn scan(
        &self,
        count: usize,
        read: impl Fn(usize) -> u64,
        mut found: impl FnMut(usize, usize),
    ) {
        for index in 0..count {
            let word = read(index);
            if word == 0 {
                continue;
            }
            let image = self.set.keys.word(word);
            let (slot, bit) = Self::index(image);
            // The slot has fewer bits than the bitmap has words.
            if self.bitmap[slot & ((1 << (INDEX_BITS - 6)) - 1)] & bit != 0 {
                self.settle(image, index, count, &read, &mut found);
            }
        }
    }

    /// Looks at the bytes around a word whose image may be one of the set's.
    #[cold]
    fn settle(
        &self,
        image: u64,
        index: usize,
        count: usize,
        read: impl Fn(usize) -> u64,
        mut found: impl FnMut(usize, usize),
    ) {
        for &(number, offset) in self.places.get(&image).into_iter().flatten() {
            let Some(start) = (index * WORD).checked_sub(offset) else {
                continue;
            };
            if start + NEEDLE_SIZE > count * WORD {
                continue;
            }
            let bytes = std::array::from_fn(|byte| {
                let at = start + byte;
                read(at / WORD).to_le_bytes()[at % WORD]
            });
            if self.set.keys.needle(&bytes) == self.set.needles[number].image {
                found(number, start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys {
        mask: 0x0123_4567_89ab_cdef,
        factor: 0x9e37_79b9_7f4a_7c15,
        weights: [0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9],
    };

    const NEEDLE: [u8; NEEDLE_SIZE] = *b"a needle, so hid";

    fn search(set: &Set, bytes: &[u8]) -> Vec<(usize, usize)> {
        let words: Vec<u64> = bytes
            .chunks_exact(WORD)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let mut all = Vec::new();
        Matcher::new(set).scan(
            words.len(),
            |index| words[index],
            |needle, at| all.push((needle, at)),
        );
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn a_needle_is_found_at_every_offset() {
        let mut set = Set::new(KEYS);
        set.add("others", [b"0123456789abcdef", b"fedcba9876543210"]);
        set.add("it", [&NEEDLE]);
        for at in 0..=64 - NEEDLE_SIZE {
            let mut bytes = vec![0x5a; 64];
            bytes[at..at + NEEDLE_SIZE].copy_from_slice(&NEEDLE);
            assert_eq!(search(&set, &bytes), [(2, at)], "at {at}");
            bytes[at + 3] ^= 1;
            assert_eq!(search(&set, &bytes), [], "spoiled at {at}");
        }
    }

    #[test]
    fn a_needle_that_sticks_out_is_not_found() {
        let mut set = Set::new(KEYS);
        set.add("it", [&NEEDLE]);
        assert_eq!(search(&set, &NEEDLE[..8]), []);
        assert_eq!(search(&set, &NEEDLE[8..]), []);
    }

    #[test]
    fn a_set_does_not_show_what_it_looks_for() {
        let mut set = Set::new(KEYS);
        set.add("it", [&NEEDLE]);
        let mut bytes = Vec::new();
        for needle in &set.needles {
            bytes.extend(needle.words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(needle.image.to_le_bytes());
        }
        assert_eq!(search(&set, &bytes), []);
        let text = serde_json::to_string(&set).unwrap();
        assert!(!text.contains("so hid"));
    }

    #[test]
    fn what_may_be_there_by_chance_is_no_needle() {
        assert!(is_telling(&NEEDLE));
        assert!(!is_telling(&[0; NEEDLE_SIZE]));
        assert!(!is_telling(b"abcabcabcabcabca"));
    }
}
