// SPDX-License-Identifier: MIT OR Apache-2.0

//! How many windows of a barrier a set of fenced ranges takes.
//!
//! A window covers one stretch of any length. Ranges that touch each other
//! share one, whatever their use cases: a window says only that the normal
//! world is kept out.

use core::num::NonZeroU32;

use crate::extent::Extent;

/// The stretches that sorted, disjoint extents make, of which none touches
/// another.
fn stretches(extents: impl Iterator<Item = Extent>) -> usize {
    let mut count = 0;
    let mut end = None;
    for extent in extents {
        if end != Some(extent.start()) {
            count += 1;
        }
        end = Some(extent.end());
    }
    count
}

/// Whether `windows` are enough for sorted, disjoint extents.
pub fn suffice(windows: Option<NonZeroU32>, extents: impl Iterator<Item = Extent>) -> bool {
    match windows {
        None => true,
        Some(windows) => {
            usize::try_from(windows.get()).is_ok_and(|windows| stretches(extents) <= windows)
        }
    }
}

/// Sorted extents, and another one that overlaps none of them, in its place.
pub fn with(extents: impl Iterator<Item = Extent>, added: Extent) -> impl Iterator<Item = Extent> {
    let mut extents = extents.peekable();
    let mut added = Some(added);
    core::iter::from_fn(move || match (extents.peek(), added) {
        (Some(next), Some(extent)) if next.start() > extent.start() => added.take(),
        (None, Some(_)) => added.take(),
        _ => extents.next(),
    })
}

/// Extents without one of them.
pub fn without(
    extents: impl Iterator<Item = Extent>,
    removed: Extent,
) -> impl Iterator<Item = Extent> {
    extents.filter(move |extent| *extent != removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::GRANULE;

    fn pages(first: u64, count: u64) -> Extent {
        Extent::new(first * GRANULE, count * GRANULE).expect("an extent")
    }

    fn needed(extents: &[Extent]) -> usize {
        stretches(extents.iter().copied())
    }

    #[test]
    fn ranges_that_touch_share_a_window() {
        assert_eq!(needed(&[]), 0);
        assert_eq!(needed(&[pages(0, 2), pages(2, 1), pages(3, 9)]), 1);
        assert_eq!(needed(&[pages(0, 2), pages(3, 1), pages(4, 1)]), 2);
    }

    #[test]
    fn a_range_between_two_joins_or_parts_them() {
        let outer = [pages(0, 2), pages(3, 2)];
        let all: Vec<_> = with(outer.into_iter(), pages(2, 1)).collect();
        assert_eq!(all, [pages(0, 2), pages(2, 1), pages(3, 2)]);
        assert_eq!(needed(&all), 1);
        assert_eq!(stretches(without(all.into_iter(), pages(2, 1))), 2);
        let last: Vec<_> = with(outer.into_iter(), pages(8, 1)).collect();
        assert_eq!(last.last(), Some(&pages(8, 1)));
        let first: Vec<_> = with(outer[1..].iter().copied(), pages(0, 1)).collect();
        assert_eq!(first, [pages(0, 1), pages(3, 2)]);
    }

    #[test]
    fn a_barrier_without_windows_to_count_has_enough() {
        let extents = [pages(0, 1), pages(2, 1)];
        assert!(suffice(None, extents.into_iter()));
        assert!(suffice(NonZeroU32::new(2), extents.into_iter()));
        assert!(!suffice(NonZeroU32::new(1), extents.into_iter()));
    }
}
