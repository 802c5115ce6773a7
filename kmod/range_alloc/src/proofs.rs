// SPDX-License-Identifier: GPL-2.0

//! A property of the arithmetic of keys, which the tests check over many values and Kani, where it
//! is installed, over all.

use super::index::Index;

/// Panics unless the slot of a block in each class is its usable length there.
///
/// `start` and `length` are in granules of `1 << shift` bytes.
pub(super) fn slots_are_usable_lengths(index: &Index, shift: u32, start: u32, length: u32) {
    let slots = index.slots(start, start + length);
    for (class, slot) in [4u32 << 10, 64 << 10, 2 << 20].into_iter().zip(slots) {
        let alignment = (class >> shift).max(1);
        let usable = (start + length).saturating_sub(start.next_multiple_of(alignment));
        match usable {
            0 => assert!(slot >= 1 << 18, "{start} {length}"),
            _ => assert_eq!(slot, usable.min(1 << 18) - 1, "{start} {length}"),
        }
    }
}

#[cfg(kani)]
mod harnesses {
    use super::*;

    /// All blocks of all regions, for every granule from 4 KiB to 4 MiB.
    #[kani::proof]
    fn keys_are_usable_lengths() {
        let shift: u32 = kani::any();
        let (start, length): (u32, u32) = (kani::any(), kani::any());
        kani::assume((12..=22).contains(&shift));
        kani::assume(start <= 1 << 24 && (1..=1 << 24).contains(&length));
        slots_are_usable_lengths(&Index::new(shift, &mut []), shift, start, length);
    }
}
