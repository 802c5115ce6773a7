// SPDX-License-Identifier: GPL-2.0

//! Free blocks by size: one exact index per alignment class.
//!
//! A class keys a block by its *usable length*: the granules from the block's first position that
//! is aligned to the class, to its end. So a block fits a request of the class if and only if its
//! key is at least the request's size, and the search is exact.
//!
//! An index is a list of blocks per key, and a bitmap of the keys whose list is not empty. Above
//! the bitmap of class 0 stand two levels of summary, so that the smallest key that is large
//! enough is three words away. The other classes borrow from it. The keys that a block has in two
//! classes differ by less than the larger alignment: by less than a group in class 1, and by less
//! than a row in class 2. So where class 0 has a block, class 1 has it in the same group or the
//! one before, and class 2 in the same row or the one before; there is no need for class 1 to have
//! a summary of groups, nor for class 2 to have one of rows.
//!
//! # Glossary
//!
//! - *Slot*: a key minus one. The last slot holds every block that is as large or larger. A block
//!   without usable length has a slot past them all.
//! - *Group*: 64 slots, one word of the bitmap.
//! - *Row*: 64 groups, one word of a summary.

#[cfg(test)]
extern crate std;

use super::blocks::{
    Record,
    NONE, //
};

/// Number of alignment classes: 4 KiB, 64 KiB and 2 MiB, or the granule where that is larger.
const CLASSES: usize = 3;

/// Number of exact keys: 1 GiB of 4 KiB granules.
pub(super) const KEYS: usize = 1 << 18;

/// Slots in a group.
pub(super) const KEYS_PER_GROUP: usize = 64;

/// Number of rows.
const ROWS: usize = KEYS / KEYS_PER_GROUP / 64;

/// Slot of the blocks that have the largest key, or would have a larger one.
pub(super) const LAST_SLOT: u32 = KEYS as u32 - 1;

/// Part of the index of free blocks, opaque to the caller who provides the memory.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which slots of this group have a block, for each class.
    slots: [u64; CLASSES],
    /// First block of each slot's list, for each class; meaningless without the slot's bit.
    heads: [[u32; KEYS_PER_GROUP]; CLASSES],
}

impl Default for Group {
    fn default() -> Self {
        Self {
            slots: [0; CLASSES],
            heads: [[NONE; KEYS_PER_GROUP]; CLASSES],
        }
    }
}

/// A free block's place in the index.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// Slot in each class.
    slots: [u32; CLASSES],
    /// Neighbours in the slot's list, for each class.
    neighbours: [Neighbours; CLASSES],
}

impl Links {
    pub(super) const NONE: Self = Self {
        slots: [NONE; CLASSES],
        neighbours: [Neighbours::NONE; CLASSES],
    };
}

/// The neighbours of a block in a list.
#[derive(Clone, Copy, Debug)]
struct Neighbours {
    next: u32,
    previous: u32,
}

impl Neighbours {
    const NONE: Self = Self {
        next: NONE,
        previous: NONE,
    };
}

/// The indices of all classes.
///
/// # Invariants
///
/// - A block is in the list of its slot in each class if and only if it is free and the slot
///   exists.
/// - A slot's bit is set if and only if its list is not empty; a summary's bit is set if and only
///   if the word below it is not zero.
#[derive(Debug)]
pub(super) struct Index {
    /// Minus the alignment of each class in granules: what aligns a position downwards.
    alignments: [u32; CLASSES],
    /// Which groups of class 0 have a block: a word for each row.
    groups: [u64; ROWS],
    /// Which groups of class 2 have a block.
    groups_2: [u64; ROWS],
    /// Which rows of class 0 have a block.
    rows: u64,
}

/// Returns the word with the bit of number `index` set.
const fn bit(index: u32) -> u64 {
    1 << (index & 63)
}

/// Returns the word with the bits from number `index` upwards set.
const fn from(index: u32) -> u64 {
    u64::MAX << (index & 63)
}

/// Returns the word with the bits above number `index` set.
const fn above(index: u32) -> u64 {
    from(index) << 1
}

/// Returns the row of a slot.
const fn row(slot: u32) -> usize {
    (slot >> 12) as usize % ROWS
}

/// Clears the bit of number `index`, which is set, and tells whether it was the only one.
#[inline(always)]
fn clear(word: &mut u64, index: u32) -> bool {
    let bits = *word;
    if bits & bits.wrapping_sub(1) != 0 {
        *word = bits & !bit(index);
        return false;
    }
    *word = 0;
    true
}

/// Returns the first block of the smallest slot of a group that is among `slots`.
#[inline(always)]
fn head<const CLASS: usize>(group: &Group, slots: u64) -> Option<u32> {
    let slots = group.slots[CLASS] & slots;
    let head = group.heads[CLASS][slots.trailing_zeros() as usize % KEYS_PER_GROUP];
    (slots != 0).then_some(head)
}

impl Index {
    /// Makes the indices of no block.
    ///
    /// `granule_shift` is the granule's logarithm.
    pub(super) fn new(granule_shift: u32, groups: &mut [Group]) -> Self {
        groups.fill(Group::default());
        let alignment = |bytes: u32| (bytes >> granule_shift).max(1).wrapping_neg();
        Self {
            alignments: [1 << 12, 1 << 16, 1 << 21].map(alignment),
            groups: [0; ROWS],
            groups_2: [0; ROWS],
            rows: 0,
        }
    }

    /// Returns the alignment of each class in granules, minus one.
    pub(super) fn masks(&self) -> [u32; CLASSES] {
        self.alignments.map(|alignment| !alignment)
    }

    /// Returns the slot of a block in a class.
    ///
    /// `back` is minus the block's start: aligned downwards, it is minus the first aligned
    /// position. Positions are below 2^26, so that the slot of a block without usable length is a
    /// small negative number.
    #[inline(always)]
    fn slot<const CLASS: usize>(&self, back: u32, end: u32) -> u32 {
        let aligned = match CLASS {
            0 => back,
            _ => back & self.alignments[CLASS],
        };
        let slot = end.wrapping_sub(1).wrapping_add(aligned) as i32;
        slot.min(LAST_SLOT as i32) as u32
    }

    /// Adds a free block, whose record has its start and end.
    #[inline(always)]
    pub(super) fn insert(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
        start: u32,
        end: u32,
    ) {
        let back = start.wrapping_neg();
        self.insert_class::<0>(records, groups, block, self.slot::<0>(back, end));
        self.insert_class::<1>(records, groups, block, self.slot::<1>(back, end));
        self.insert_class::<2>(records, groups, block, self.slot::<2>(back, end));
    }

    #[inline(always)]
    fn insert_class<const CLASS: usize>(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
        slot: u32,
    ) {
        let Some(record) = records.get_mut(block as usize) else {
            return;
        };
        record.links.slots[CLASS] = slot;
        let Some(group) = groups.get_mut(slot as usize / KEYS_PER_GROUP) else {
            return;
        };
        let slots = group.slots[CLASS];
        let head = &mut group.heads[CLASS][slot as usize % KEYS_PER_GROUP];
        if slots & bit(slot) != 0 {
            let second = core::mem::replace(head, block);
            record.links.neighbours[CLASS] = Neighbours {
                next: second,
                previous: NONE,
            };
            if let Some(record) = records.get_mut(second as usize) {
                record.links.neighbours[CLASS].previous = block;
            }
            return;
        }
        *head = block;
        group.slots[CLASS] = slots | bit(slot);
        record.links.neighbours[CLASS] = Neighbours::NONE;
        match CLASS {
            0 => {
                self.groups[row(slot)] |= bit(slot >> 6);
                self.rows |= bit(slot >> 12);
            }
            2 => self.groups_2[row(slot)] |= bit(slot >> 6),
            _ => (),
        }
    }

    /// Takes a free block out.
    #[inline(always)]
    pub(super) fn remove(&mut self, records: &mut [Record], groups: &mut [Group], block: u32) {
        self.remove_class::<0>(records, groups, block);
        self.remove_class::<1>(records, groups, block);
        self.remove_class::<2>(records, groups, block);
    }

    #[inline(always)]
    fn remove_class<const CLASS: usize>(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
    ) {
        let Some(record) = records.get(block as usize) else {
            return;
        };
        let slot = record.links.slots[CLASS];
        let neighbours = record.links.neighbours[CLASS];
        let Some(group) = groups.get_mut(slot as usize / KEYS_PER_GROUP) else {
            return;
        };
        let Neighbours { next, previous } = neighbours;
        if let Some(record) = records.get_mut(previous as usize) {
            record.links.neighbours[CLASS].next = next;
            if let Some(record) = records.get_mut(next as usize) {
                record.links.neighbours[CLASS].previous = previous;
            }
            return;
        }
        if let Some(record) = records.get_mut(next as usize) {
            record.links.neighbours[CLASS].previous = NONE;
            group.heads[CLASS][slot as usize % KEYS_PER_GROUP] = next;
            return;
        }
        let slots = &mut group.slots[CLASS];
        match CLASS {
            0 => {
                if clear(slots, slot) && clear(&mut self.groups[row(slot)], slot >> 6) {
                    self.rows &= !bit(slot >> 12);
                }
            }
            2 => {
                if clear(slots, slot) {
                    self.groups_2[row(slot)] &= !bit(slot >> 6);
                }
            }
            _ => *slots &= !bit(slot),
        }
    }

    /// Returns the first block of the smallest slot that is at least `slot`, in the class whose
    /// alignment in granules is `mask` + 1; [`NONE`] without such a block or class.
    #[inline(always)]
    pub(super) fn find(&self, groups: &[Group], slot: u32, mask: u32) -> u32 {
        let [class_0, class_1, class_2] = self.alignments;
        let found = if !mask == class_0 {
            self.find_0(groups, slot)
        } else if !mask == class_1 {
            self.find_1(groups, slot)
        } else if !mask == class_2 {
            self.find_2(groups, slot)
        } else {
            None
        };
        found.unwrap_or(NONE)
    }

    #[inline(always)]
    fn find_0(&self, groups: &[Group], slot: u32) -> Option<u32> {
        let group = slot >> 6;
        head::<0>(groups.get(group as usize)?, from(slot)).or_else(|| {
            let group = self.next_group(group)?;
            head::<0>(groups.get(group as usize)?, u64::MAX)
        })
    }

    #[inline(always)]
    fn find_1(&self, groups: &[Group], slot: u32) -> Option<u32> {
        let first = slot >> 6;
        let found = head::<1>(groups.get(first as usize)?, from(slot));
        if found.is_some() {
            return found;
        }
        // The blocks of the next group of class 0 may be too short here, and in the group that was
        // looked at; those of the group after that one are not.
        let mut group = first;
        for _ in 0..2 {
            group = self.next_group(group)?;
            let before = group.wrapping_sub(1);
            if before > first {
                let found = head::<1>(groups.get(before as usize)?, u64::MAX);
                if found.is_some() {
                    return found;
                }
            }
            let found = head::<1>(groups.get(group as usize)?, u64::MAX);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    #[inline(always)]
    fn find_2(&self, groups: &[Group], slot: u32) -> Option<u32> {
        let group = slot >> 6;
        let found = head::<2>(groups.get(group as usize)?, from(slot));
        if found.is_some() {
            return found;
        }
        let mut found = self.groups_2[row(slot)] & above(group);
        let mut at = slot >> 12;
        if found == 0 {
            // As in class 1, with rows instead of groups.
            let first = at;
            let mut next = first;
            for _ in 0..2 {
                next = self.next_row(next)?;
                at = next.wrapping_sub(1);
                if at > first {
                    found = self.groups_2[at as usize % ROWS];
                    if found != 0 {
                        break;
                    }
                }
                at = next;
                found = self.groups_2[at as usize % ROWS];
                if found != 0 {
                    break;
                }
            }
        }
        let group = at << 6 | found.trailing_zeros();
        head::<2>(groups.get(group as usize)?, u64::MAX)
    }

    /// Returns the first row of class 0 after `row` that has a block.
    #[inline(always)]
    fn next_row(&self, row: u32) -> Option<u32> {
        let rows = self.rows & above(row);
        (rows != 0).then_some(rows.trailing_zeros())
    }

    /// Returns the first group of class 0 after `group` that has a block.
    #[inline(always)]
    fn next_group(&self, group: u32) -> Option<u32> {
        let mut row = group >> 6;
        let mut groups = self.groups[row as usize % ROWS] & above(group);
        if groups == 0 {
            row = self.next_row(row)?;
            groups = self.groups[row as usize % ROWS];
        }
        Some(row << 6 | groups.trailing_zeros())
    }

    /// Returns the blocks of the last slot of class 0.
    ///
    /// There are at most 64, for each has 2^18 granules of a region's 2^24.
    pub(super) fn largest<'a>(
        &self,
        records: &'a [Record],
        groups: &[Group],
    ) -> impl Iterator<Item = u32> + 'a {
        let after = |block: u32| {
            let next = records.get(block as usize)?.links.neighbours[0].next;
            (next != NONE).then_some(next)
        };
        core::iter::successors(self.find_0(groups, LAST_SLOT), move |&block| after(block))
    }

    /// Returns a block of the largest slot of class 0 that has one.
    pub(super) fn large(&self, groups: &[Group]) -> Option<u32> {
        let row = self.rows.checked_ilog2()?;
        let group = row << 6 | self.groups[row as usize % ROWS].checked_ilog2()?;
        let group = groups.get(group as usize)?;
        let slot = group.slots[0].checked_ilog2()?;
        Some(group.heads[0][slot as usize % KEYS_PER_GROUP])
    }

    /// Returns a block's slots in all classes.
    #[cfg(any(test, kani))]
    pub(super) fn slots(&self, start: u32, end: u32) -> [u32; CLASSES] {
        let back = start.wrapping_neg();
        [
            self.slot::<0>(back, end),
            self.slot::<1>(back, end),
            self.slot::<2>(back, end),
        ]
    }

    /// Returns the blocks of each slot of a class, and checks the summaries and the way back.
    #[cfg(test)]
    pub(super) fn content(
        &self,
        records: &[Record],
        groups: &[Group],
        class: usize,
    ) -> std::collections::BTreeMap<u32, std::vec::Vec<u32>> {
        let mut content = std::collections::BTreeMap::new();
        for (number, group) in (0u32..).zip(groups) {
            let (row, in_row) = ((number >> 6) as usize, bit(number));
            let summary = match class {
                0 => Some(self.groups[row]),
                2 => Some(self.groups_2[row]),
                _ => None,
            };
            if let Some(summary) = summary {
                assert_eq!(summary & in_row != 0, group.slots[class] != 0);
            }
            for slot in (0..64).filter(|&slot| group.slots[class] & bit(slot) != 0) {
                let mut blocks = std::vec::Vec::new();
                let (mut previous, mut block) = (NONE, group.heads[class][slot as usize]);
                while let Some(record) = records.get(block as usize) {
                    assert_eq!(record.links.neighbours[class].previous, previous);
                    assert_eq!(record.links.slots[class], number << 6 | slot);
                    blocks.push(block);
                    (previous, block) = (block, record.links.neighbours[class].next);
                }
                blocks.sort_unstable();
                content.insert(number << 6 | slot, blocks);
            }
        }
        for (row, groups) in (0..).zip(self.groups) {
            assert_eq!(self.rows & bit(row) != 0, groups != 0);
        }
        content
    }
}
