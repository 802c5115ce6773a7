// SPDX-License-Identifier: GPL-2.0

//! What is done to the subjects: the same calls for each.

use ringfence_range_alloc::{Placement, Request};

use super::{
    random::Random,
    subject::{Subject, GRANULE},
    Recorder,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Calls that are measured of a trace.
const MEASURED: usize = 2000;

/// A sequence of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Every size and alignment in an empty region.
    Empty,
    /// Every other granule live, and one hole at the end that fits.
    Checkerboard,
    /// Camera buffers: a few sizes, many times, all freed and allocated again.
    Camera,
    /// Video frames and bitstreams of many sizes at an occupancy in percent.
    Video(u8),
    /// States and calls that lead this allocator through its longest paths.
    Adversarial,
}

impl Workload {
    pub const ALL: [Self; 7] = [
        Self::Empty,
        Self::Checkerboard,
        Self::Camera,
        Self::Video(70),
        Self::Video(90),
        Self::Video(95),
        Self::Adversarial,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Checkerboard => "checkerboard",
            Self::Camera => "camera",
            Self::Video(70) => "video-70",
            Self::Video(90) => "video-90",
            Self::Video(_) => "video-95",
            Self::Adversarial => "adversarial",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|workload| workload.name() == name)
    }

    /// Returns how many ranges are live at once, at most.
    pub fn max_live(self, region: u64) -> usize {
        match self {
            Self::Checkerboard => (region / GRANULE / checkerboard_tile(region)) as usize,
            Self::Camera | Self::Video(_) => (region / (256 * KIB)) as usize,
            Self::Empty | Self::Adversarial => 64,
        }
    }

    pub fn run<S: Subject>(self, recorder: &mut Recorder<S>, region: u64) {
        match self {
            Self::Empty => empty(recorder, region),
            Self::Checkerboard => checkerboard(recorder, region),
            Self::Camera => {
                // 8 MP raw, 1080p and 720p previews in NV12, statistics.
                let sizes = [(16 * MIB, 4), (3110400, 8), (1382400, 8), (64 * KIB, 16)];
                trace(recorder, region, 60, &sizes);
            }
            Self::Video(percent) => {
                // 4K and 1080p frames in P010 and NV12, bitstreams, metadata.
                let sizes = [
                    (24883200, 1),
                    (12441600, 2),
                    (6220800, 4),
                    (3133440, 16),
                    (2 * MIB, 8),
                    (MIB, 8),
                    (96 * KIB, 4),
                    (4 * KIB, 4),
                ];
                trace(recorder, region, percent, &sizes);
            }
            Self::Adversarial => adversarial(recorder, region),
        }
    }
}

impl Random {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn empty<S: Subject>(recorder: &mut Recorder<S>, region: u64) {
    let sizes = (12..=30).flat_map(|shift| [1 << shift, (1 << shift) + GRANULE]);
    for size in sizes.filter(|&size| size <= region / 2) {
        for align in [4 * KIB, 64 * KIB, 2 * MIB] {
            for placement in [Placement::Bottom, Placement::Top] {
                let token = recorder.alloc(Request {
                    size,
                    align,
                    placement,
                });
                recorder.free(token.expect("the region is empty"));
            }
        }
    }
}

/// Tiles of the checkerboard in granules: a granule, up to 2^20 of them.
fn checkerboard_tile(region: u64) -> u64 {
    (region / GRANULE).div_ceil(1 << 20)
}

fn checkerboard<S: Subject>(recorder: &mut Recorder<S>, region: u64) {
    let tile = checkerboard_tile(region);
    recorder.subject.checkerboard(region, tile, 4 * tile);
    let request = Request {
        size: 2 * tile * GRANULE,
        align: GRANULE,
        placement: Placement::Bottom,
    };
    let token = recorder.alloc(request);
    recorder.free(token.expect("one hole fits"));
}

/// Fills a region to `percent`, then frees and allocates at random about that occupancy.
fn trace<S: Subject>(recorder: &mut Recorder<S>, region: u64, percent: u8, sizes: &[(u64, usize)]) {
    let mut random = Random(region ^ u64::from(percent));
    let weighted: Vec<u64> = sizes
        .iter()
        .flat_map(|&(size, weight)| std::iter::repeat_n(size, weight))
        .filter(|&size| size <= region / 8)
        .collect();
    let aligns = [4 * KIB, 4 * KIB, 64 * KIB, 64 * KIB, 2 * MIB];
    let goal = region / 100 * u64::from(percent);
    let mut live: Vec<(S::Token, u64)> = Vec::new();
    let mut used = 0;
    let mut measured = 0;
    // Turn all buffers over about once before measuring, so that the state is a used one.
    let mut settled = 0;
    let mut full = false;
    while measured < MEASURED {
        let measure = full && settled >= live.len();
        let size = random.pick(&weighted);
        if used + size <= goal {
            let request = Request {
                size,
                align: random.pick(&aligns),
                placement: random.pick(&[Placement::Bottom, Placement::Bottom, Placement::Top]),
            };
            let token = if measure {
                measured += 1;
                recorder.alloc(request)
            } else {
                recorder.subject.alloc(request)
            };
            match token {
                Some(token) => {
                    live.push((token, size));
                    used += size.next_multiple_of(GRANULE);
                }
                // A gap too fragmented: make another.
                None => full = true,
            }
        }
        if used + size > goal || full && random.below(2) == 0 {
            full = true;
            settled += 1;
            let (token, size) = live.swap_remove(random.below(live.len() as u64) as usize);
            used -= size.next_multiple_of(GRANULE);
            if measure {
                measured += 1;
                recorder.free(token);
            } else {
                recorder.subject.free(token);
            }
        }
    }
}

/// Walks through states with a few holes, whose sizes lie about the limits of the index' words;
/// allocates what splits a hole twice, and frees what joins two of them.
fn adversarial<S: Subject>(recorder: &mut Recorder<S>, region: u64) {
    let granules = region / GRANULE;
    let mut random = Random(region);
    let mut measured = 0;
    while measured < 2 * MEASURED {
        let holes = holes(&mut random, granules);
        let Some(mut walls) = walls(&mut recorder.subject, &holes, granules) else {
            return;
        };
        let (_, size) = random.pick(&holes);
        let off = [
            0,
            1,
            2,
            15,
            16,
            17,
            500,
            511,
            512,
            513,
            1024,
            size / 2,
            size - 1,
        ];
        let request = Request {
            size: size.saturating_sub(random.pick(&off)).max(1) * GRANULE,
            align: random.pick(&[4 * KIB, 64 * KIB, 64 * KIB, 2 * MIB, 2 * MIB, 2 * MIB]),
            placement: random.pick(&[Placement::Bottom, Placement::Top, Placement::Top]),
        };
        if let Some(token) = recorder.alloc(request) {
            recorder.free(token);
            measured += 1;
        }
        measured += 1 + walls.len();
        while !walls.is_empty() {
            recorder.free(walls.swap_remove(random.below(walls.len() as u64) as usize));
        }
    }
}

/// Returns a few holes, as start and size in granules.
///
/// About half of them are twins of the one before: of the same key in one class, or in all.
fn holes(random: &mut Random, granules: u64) -> Vec<(u64, u64)> {
    let most = 2 + random.below(5);
    let longest = granules / (most + 1);
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut at: u64 = random.pick(&[0, 1, 2, 15, 16, 17, 511, 512, 513]);
    while holes.len() as u64 != most {
        let (start, size) = match holes.last() {
            Some(&(start, size)) if random.below(2) == 0 => {
                let align: u64 = random.pick(&[1, 16, 512]);
                let key = size + start - start.next_multiple_of(align).min(start + size);
                let start = at.next_multiple_of(512) + random.pick(&[start % 512, 0, 1, 15, 500]);
                let size = key + start.next_multiple_of(align) - start;
                (start, size.max(1))
            }
            _ => {
                let word = random.pick(&[1, 16, 64, 512, 4096, 8192, 65536, longest]);
                let about = word * random.pick(&[1, 1, 1, 2, 3, 5]);
                let off = random.pick(&[0, 0, 1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513]);
                let size = match random.below(2) {
                    0 => about + off,
                    _ => about.saturating_sub(off).max(1),
                };
                (at, size.min(longest))
            }
        };
        if start + size >= granules {
            break;
        }
        holes.push((start, size));
        at = start + size + 1 + random.below(granules / 100);
    }
    holes
}

/// Makes all that is not a hole live.
fn walls<S: Subject>(
    subject: &mut S,
    holes: &[(u64, u64)],
    granules: u64,
) -> Option<Vec<S::Token>> {
    let mut walls = Vec::new();
    let mut at = 0;
    for &(start, size) in holes.iter().chain([&(granules, 0)]) {
        if at < start {
            walls.push(subject.hold(at, start - at)?);
        }
        at = start + size;
    }
    Some(walls)
}
