// SPDX-License-Identifier: GPL-2.0

//! What is measured: this allocator, and the one that all others use.

use ringfence_range_alloc::{Geometry, Handle, Placement, Request};

use super::owned::{ranges, Ranges};

/// The granule of all measurements, in bytes.
pub const GRANULE: u64 = 4096;

/// Where all regions start.
const BASE: u64 = 1 << 30;

/// Something that allocates ranges.
pub trait Subject {
    /// What a range is freed by.
    type Token: Copy;

    /// Makes an allocator of `region` bytes from [`BASE`] on.
    fn new(region: u64, max_live: usize) -> Self;

    fn alloc(&mut self, request: Request) -> Option<Self::Token>;

    fn free(&mut self, token: Self::Token);

    /// Allocates the range at a place in granules; `None` if the subject has no such call.
    fn hold(&mut self, start: u64, granules: u64) -> Option<Self::Token>;

    /// Makes every other tile live, but not the last ones before the region's end.
    ///
    /// A tile is `tile` granules, and the hole at the end `hole` granules.
    fn checkerboard(&mut self, region: u64, tile: u64, hole: u64) {
        let tiles = region / GRANULE / tile;
        let request = Request {
            size: tile * GRANULE,
            align: GRANULE,
            placement: Placement::Bottom,
        };
        let tokens: Vec<_> = (0..tiles).map(|_| self.alloc(request)).collect();
        let first = tiles - hole / tile;
        for (number, token) in (0..).zip(tokens) {
            if number % 2 == 1 || number >= first {
                self.free(token.expect("as many as fit"));
            }
        }
    }
}

/// This allocator.
pub struct Ringfence(Ranges);

impl Subject for Ringfence {
    type Token = Handle;

    fn new(region: u64, max_live: usize) -> Self {
        let geometry = Geometry {
            base: BASE,
            size: region,
            granule: GRANULE,
        };
        Self(ranges(geometry, max_live))
    }

    fn alloc(&mut self, request: Request) -> Option<Handle> {
        Some(self.0.alloc(request).ok()?.handle)
    }

    fn free(&mut self, token: Handle) {
        self.0.free(token).expect("a live range");
    }

    fn hold(&mut self, start: u64, granules: u64) -> Option<Handle> {
        let range = self.0.alloc_at(BASE + start * GRANULE, granules * GRANULE);
        Some(range.expect("a free place").handle)
    }
}

/// The search of Linux' gen_pool, from its documented algorithm: first fit over a bitmap with a
/// bit for each granule, looking for the next clear bit, and for the next set one after it.
///
/// Without the atomic operations and the list of chunks, so it costs less than the real one.
pub struct GenPool {
    live: Vec<u64>,
    bits: u64,
}

impl GenPool {
    /// Returns the first bit from `at` on that is `set`, or `end`.
    #[inline(never)]
    fn next(&self, at: u64, end: u64, set: bool) -> u64 {
        if at >= end {
            return end;
        }
        let flip = if set { 0 } else { u64::MAX };
        let mut index = (at / 64) as usize;
        let mut word = (self.live[index] ^ flip) & (u64::MAX << (at % 64));
        while word == 0 {
            index += 1;
            if index as u64 * 64 >= end {
                return end;
            }
            word = self.live[index] ^ flip;
        }
        (index as u64 * 64 + u64::from(word.trailing_zeros())).min(end)
    }

    #[inline(never)]
    fn set(&mut self, start: u64, count: u64, live: bool) {
        let (mut at, end) = (start, start + count);
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            let word = &mut self.live[(at / 64) as usize];
            *word = if live { *word | mask } else { *word & !mask };
            at += bits;
        }
    }
}

impl Subject for GenPool {
    type Token = (u64, u64);

    fn new(region: u64, _max_live: usize) -> Self {
        let bits = region / GRANULE;
        Self {
            live: vec![0; bits.div_ceil(64) as usize],
            bits,
        }
    }

    fn alloc(&mut self, request: Request) -> Option<(u64, u64)> {
        let count = request.size.div_ceil(GRANULE);
        let mask = request.align.div_ceil(GRANULE) - 1;
        let mut from = 0;
        loop {
            let start = (self.next(from, self.bits, false) + mask) & !mask;
            let end = start + count;
            if end > self.bits {
                return None;
            }
            let used = self.next(start, end, true);
            if used >= end {
                self.set(start, count, true);
                return Some((start, count));
            }
            from = used + 1;
        }
    }

    fn free(&mut self, (start, count): (u64, u64)) {
        self.set(start, count, false);
    }

    fn hold(&mut self, start: u64, granules: u64) -> Option<(u64, u64)> {
        self.set(start, granules, true);
        Some((start, granules))
    }

    /// By granules, whatever the tile: this is its worst case.
    fn checkerboard(&mut self, _region: u64, _tile: u64, hole: u64) {
        self.live.fill(0x5555_5555_5555_5555);
        self.set(self.bits - hole, hole, false);
    }
}
