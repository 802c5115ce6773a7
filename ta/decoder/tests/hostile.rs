// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bitstreams that were made to do harm: nothing panics, nothing but the frame is
//! written, and memory is bounded.
//!
//! With `RINGFENCE_WRITE_SEEDS=1` in the environment the fuzz target's seeds are
//! written instead of compared.

mod samples;

#[path = "../fuzz/checks.rs"]
mod checks;

#[path = "../../proto/fuzz/seeds.rs"]
mod stored;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use ringfence_decoder::picture::MEMORY;
use ringfence_decoder::refusal::PictureError;
use samples::{Form, SAMPLINGS};
use stored::Numbers;

/// Damaged copies of each seed.
const MUTATIONS: usize = 60;

/// Counts what each thread has on the heap.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let now = NOW.get() + change;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: It hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: By the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: By the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decodes under all checks; returns the heap that it took, too.
fn decoded(bytes: &[u8]) -> (Result<(), PictureError>, usize) {
    let mut peak = 0;
    let outcome = checks::decode_guarded(bytes, |decode| {
        let before = NOW.get();
        PEAK.set(before);
        decode();
        peak = usize::try_from(PEAK.get() - before).expect("a peak");
    });
    assert!(peak <= MEMORY, "{peak} bytes of heap");
    (outcome, peak)
}

/// Pictures that are small enough to be damaged in every place.
fn forms() -> BTreeMap<&'static str, Form> {
    let [full, half, low, quarter, grey] = SAMPLINGS;
    let of = |sampling, width, height| Form {
        sampling,
        quality: 60,
        ..Form::of(width, height)
    };
    BTreeMap::from([
        ("colour-444.jpg", of(full, 20, 19)),
        ("colour-422.jpg", of(half, 33, 16)),
        ("colour-440.jpg", of(low, 16, 40)),
        ("colour-420.jpg", of(quarter, 37, 34)),
        ("grey.jpg", of(grey, 23, 9)),
        (
            "restart.jpg",
            Form {
                restart: 2,
                ..of(quarter, 48, 33)
            },
        ),
    ])
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/picture")
}

fn seeds() -> BTreeMap<String, Vec<u8>> {
    stored::stored(&folder())
}

#[test]
fn seeds_are_what_the_encoder_says() {
    let made = forms()
        .into_iter()
        .map(|(name, form)| (name, form.encode()));
    stored::check(&folder(), &made.collect());
}

/// Those from elsewhere as well: from ffmpeg, which makes tables of its own for
/// each picture, and has its own way to say how dense chrominance is.
#[test]
fn seeds_are_good_pictures() {
    let seeds = seeds();
    assert!(seeds.keys().any(|name| name.starts_with("ffmpeg")));
    for (name, seed) in seeds {
        assert_eq!(decoded(&seed).0, Ok(()), "{name}");
    }
}

#[test]
fn a_picture_cut_anywhere_is_refused() {
    for (name, seed) in seeds() {
        for length in 0..seed.len() {
            assert!(decoded(&seed[..length]).0.is_err(), "{name} to {length}");
        }
    }
}

#[test]
fn what_is_near_the_seeds_does_no_harm() {
    let seeds: Vec<_> = seeds().into_values().collect();
    let mut numbers = Numbers::new();
    let (mut good, mut refused) = (0, 0);
    for seed in &seeds {
        for _ in 0..MUTATIONS {
            let mut bytes = seed.clone();
            for _ in 0..=numbers.below(4) {
                let at = numbers.below(bytes.len());
                match numbers.below(5) {
                    0 => bytes[at] ^= 1 << numbers.below(8),
                    1 => bytes[at] = numbers.below(256) as u8,
                    2 => bytes.truncate(at.max(1)),
                    3 => bytes.insert(at, 0xff),
                    _ => {
                        let other = &seeds[numbers.below(seeds.len())];
                        let from = numbers.below(other.len());
                        bytes.truncate(at);
                        bytes.extend_from_slice(&other[from..]);
                        bytes.push(0);
                    }
                }
            }
            match decoded(&bytes).0 {
                Ok(()) => good += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(good > 0 && refused > 0, "{good} decoded, {refused} refused");
}

/// Every bit of every header, one after the other.
#[test]
fn a_header_with_any_bit_flipped_does_no_harm() {
    for seed in seeds().values() {
        let scan = seed
            .windows(2)
            .position(|bytes| bytes == [0xff, 0xda])
            .expect("a scan");
        for bit in 0..(scan + 14) * 8 {
            let mut bytes = seed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decoded(&bytes);
        }
    }
}

#[test]
fn the_widest_pictures_stay_within_the_bound() {
    let mut most = 0;
    for sampling in SAMPLINGS {
        for height in [1, 8, 17, 40] {
            let form = Form {
                sampling,
                ..Form::of(2048, height)
            };
            let (outcome, peak) = decoded(&form.encode());
            assert_eq!(outcome, Ok(()), "{form:?}");
            most = most.max(peak);
        }
    }
    // The bound is not a wish: much of it is used.
    assert!(most > MEMORY / 2, "{most} bytes");
}

#[test]
fn memory_does_not_grow_with_the_height() {
    let take = |height| decoded(&Form::of(640, height).encode()).1;
    assert_eq!(take(64), take(1200));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decoded(&bytes);
    }

    #[test]
    fn any_scan_behind_a_good_header_does_no_harm(
        width in 1..80u16,
        height in 1..80u16,
        sampling in 0..SAMPLINGS.len(),
        restart in 0..3u16,
        scan in prop::collection::vec(any::<u8>(), 0..3000),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let form = Form {
            sampling: SAMPLINGS[sampling],
            restart,
            ..Form::of(width, height)
        };
        let mut bytes = form.encode();
        let start = bytes.windows(2).position(|two| two == [0xff, 0xda]).expect("a scan");
        bytes.truncate(start + 14);
        bytes.extend(scan);
        bytes.extend([0xff, 0xd9]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decoded(&bytes);
    }
}
