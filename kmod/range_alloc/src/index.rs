// SPDX-License-Identifier: GPL-2.0

//! Free blocks by size: one exact index per alignment class.
//!
//! A class keys a block by its *usable length*: the granules from the block's first address that
//! is aligned to the class, to its end. So a block fits a request of the class if and only if its
//! key is at least the request's size, and the search is exact.
//!
//! An index is a list of blocks per key, and a bitmap of the keys whose list is not empty. Two
//! levels of summary stand above the bitmap, so the smallest key that is large enough is three
//! words away.
//!
//! Glossary: a *slot* is a key minus one; slots 0 to 2^18 - 1 exist, and the last one holds every
//! block that is as large or larger. A block with no usable length has a slot past them all. A
//! *group* is 64 slots: one word of the bitmap, and its lists.

use super::blocks::{
    Record,
    NONE, //
};

/// Number of alignment classes: 4 KiB, 64 KiB and 2 MiB, or the granule where that is larger.
pub(super) const CLASSES: usize = 3;

/// Number of exact keys: 1 GiB of 4 KiB granules.
pub(super) const KEYS: usize = 1 << 18;

/// Slots in a group.
pub(super) const KEYS_PER_GROUP: usize = 64;

/// Slot of the blocks that have the largest key, or would have a larger one.
pub(super) const LAST_SLOT: u32 = KEYS as u32 - 1;

/// Part of the index of free blocks, opaque to the caller who provides the memory.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which slots of this group have a block.
    slots: [u64; CLASSES],
    /// Which groups have a slot with a block: group `g`'s bit is in group `g / 64`.
    groups: [u64; CLASSES],
    /// First block of each slot's list.
    heads: [[u32; KEYS_PER_GROUP]; CLASSES],
}

impl Default for Group {
    fn default() -> Self {
        Self {
            slots: [0; CLASSES],
            groups: [0; CLASSES],
            heads: [[NONE; KEYS_PER_GROUP]; CLASSES],
        }
    }
}

/// A block's place in a class: its neighbours in the list of its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    next: u32,
    prev: u32,
    slot: u32,
}

impl Link {
    pub(super) const UNLINKED: Self = Self {
        next: NONE,
        prev: NONE,
        slot: NONE,
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
    /// Alignment of each class in granules, minus one.
    masks: [u32; CLASSES],
    /// Which words of groups' bits are not zero.
    top: [u64; CLASSES],
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

impl Index {
    /// Makes the indices of no block.
    ///
    /// `granule_shift` is the granule's logarithm.
    pub(super) fn new(granule_shift: u32, groups: &mut [Group]) -> Self {
        groups.fill(Group::default());
        let mask = |class: u64| ((class >> granule_shift) as u32).saturating_sub(1);
        Self {
            masks: [0, mask(64 << 10), mask(2 << 20)],
            top: [0; CLASSES],
        }
    }

    /// Returns the smallest class that is aligned to `mask` + 1 granules or better.
    pub(super) fn class_for(&self, mask: u32) -> Option<usize> {
        self.masks.iter().position(|&class| class >= mask)
    }

    /// Returns the alignment of a class in granules, minus one.
    pub(super) fn mask(&self, class: usize) -> u32 {
        self.masks.get(class).copied().unwrap_or(0)
    }

    /// Returns the slot of a block in a class.
    #[inline(always)]
    fn slot(&self, class: usize, start: u32, end: u32) -> u32 {
        let aligned = (start.wrapping_sub(1) | self.masks[class]).wrapping_add(1);
        // Ends are below 2^26, so a block without usable length gives a small negative number.
        let slot = end.wrapping_sub(aligned).wrapping_sub(1) as i32;
        slot.min(LAST_SLOT as i32) as u32
    }

    /// Adds a free block.
    #[inline(always)]
    pub(super) fn insert(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
        start: u32,
        end: u32,
    ) {
        for class in 0..CLASSES {
            self.insert_class(class, records, groups, block, self.slot(class, start, end));
        }
    }

    #[inline(always)]
    fn insert_class(
        &mut self,
        class: usize,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
        slot: u32,
    ) {
        let next = match groups.get_mut(slot as usize / KEYS_PER_GROUP) {
            Some(group) => {
                let head = &mut group.heads[class][slot as usize % KEYS_PER_GROUP];
                core::mem::replace(head, block)
            }
            None => NONE,
        };
        if let Some(record) = records.get_mut(block as usize) {
            record.links[class] = Link {
                next,
                prev: NONE,
                slot,
            };
        }
        if let Some(record) = records.get_mut(next as usize) {
            record.links[class].prev = block;
            return;
        }
        if let Some(group) = groups.get_mut(slot as usize / KEYS_PER_GROUP) {
            group.slots[class] |= bit(slot);
            if let Some(summary) = groups.get_mut(slot as usize >> 12) {
                summary.groups[class] |= bit(slot >> 6);
            }
            self.top[class] |= bit(slot >> 12);
        }
    }

    /// Takes a free block out.
    #[inline(always)]
    pub(super) fn remove(&mut self, records: &mut [Record], groups: &mut [Group], block: u32) {
        for class in 0..CLASSES {
            self.remove_class(class, records, groups, block);
        }
    }

    #[inline(always)]
    fn remove_class(
        &mut self,
        class: usize,
        records: &mut [Record],
        groups: &mut [Group],
        block: u32,
    ) {
        let Some(record) = records.get(block as usize) else {
            return;
        };
        let Link { next, prev, slot } = record.links[class];
        let Some(group) = groups.get_mut(slot as usize / KEYS_PER_GROUP) else {
            return;
        };
        if let Some(before) = records.get_mut(prev as usize) {
            before.links[class].next = next;
            if let Some(after) = records.get_mut(next as usize) {
                after.links[class].prev = prev;
            }
            return;
        }
        group.heads[class][slot as usize % KEYS_PER_GROUP] = next;
        if let Some(after) = records.get_mut(next as usize) {
            after.links[class].prev = NONE;
            return;
        }
        group.slots[class] &= !bit(slot);
        if group.slots[class] != 0 {
            return;
        }
        if let Some(summary) = groups.get_mut(slot as usize >> 12) {
            summary.groups[class] &= !bit(slot >> 6);
            if summary.groups[class] == 0 {
                self.top[class] &= !bit(slot >> 12);
            }
        }
    }

    /// Returns the first block of the smallest slot that is at least `slot`.
    #[inline(always)]
    pub(super) fn find(&self, groups: &[Group], class: usize, slot: u32) -> Option<u32> {
        let first = slot as usize / KEYS_PER_GROUP;
        let group = groups.get(first)?;
        let slots = group.slots.get(class)? & from(slot);
        if slots != 0 {
            return head(group, class, slots.trailing_zeros());
        }
        let mut word = slot >> 12;
        let mut found = groups.get(word as usize)?.groups.get(class)? & above(slot >> 6);
        if found == 0 {
            let words = self.top.get(class)? & above(word);
            if words == 0 {
                return None;
            }
            word = words.trailing_zeros();
            found = *groups.get(word as usize)?.groups.get(class)?;
        }
        let group = groups.get((word << 6 | found.trailing_zeros()) as usize)?;
        head(group, class, group.slots.get(class)?.trailing_zeros())
    }

    /// Returns the blocks of the last slot.
    pub(super) fn last<'a>(
        &self,
        records: &'a [Record],
        groups: &[Group],
        class: usize,
    ) -> impl Iterator<Item = u32> + 'a {
        let exists = move |block: u32| (block != NONE).then_some(block);
        let first = self.find(groups, class, LAST_SLOT);
        core::iter::successors(first, move |&block| {
            exists(records.get(block as usize)?.links.get(class)?.next)
        })
    }

    /// Returns the first block of the largest slot that has one.
    pub(super) fn find_longest(&self, groups: &[Group], class: usize) -> Option<u32> {
        let word = self.top.get(class)?.checked_ilog2()?;
        let found = groups.get(word as usize)?.groups.get(class)?;
        let group = groups.get((word << 6 | found.checked_ilog2()?) as usize)?;
        head(group, class, group.slots.get(class)?.checked_ilog2()?)
    }

    /// Returns the length of the longest free run, in granules.
    ///
    /// A region has at most 64 blocks of the last slot, for each has 2^18 granules of its 2^24.
    pub(super) fn longest(&self, records: &[Record], groups: &[Group]) -> u32 {
        let Some(longest) = self.find_longest(groups, 0) else {
            return 0;
        };
        let length = |block: u32| records.get(block as usize).map_or(0, Record::len);
        self.last(records, groups, 0)
            .map(length)
            .fold(length(longest), u32::max)
    }
}

/// Returns the first block of a slot of a group.
#[inline(always)]
fn head(group: &Group, class: usize, slot: u32) -> Option<u32> {
    let heads = group.heads.get(class)?;
    Some(heads[slot as usize % KEYS_PER_GROUP])
}
