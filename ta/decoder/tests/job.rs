// SPDX-License-Identifier: MIT OR Apache-2.0

//! DECODE on simulated memory: what is refused before anything is mapped, what is
//! mapped, and that nothing stays so.

mod samples;

use std::ptr::NonNull;

use proptest::prelude::*;
use ringfence_decoder::job::{decode, Memory};
use ringfence_decoder::refusal::{PictureError, Refusal};
use ringfence_proto::command::result;
use ringfence_proto::message::Decode;
use ringfence_ta::windows::Range;
use samples::Form;

const PAGE: u64 = 4096;
const SOURCE: u64 = 0x5001;
const FRAME: u64 = 0xf001;
const START: [u64; 2] = [0x8000_0000, 0x8100_0000];

/// What happens to the buffers while the command runs.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Nothing,
    /// They are released after so many answers to RESOLVE.
    ReleasedAfter(usize),
    /// They are released, and others get their place, after so many.
    MovedAfter(usize),
    /// The so-manieth MAP is refused.
    Busy(usize),
}

/// Two buffers in a machine with nothing else.
struct Machine {
    buffers: [Vec<u8>; 2],
    fate: Fate,
    resolved: usize,
    maps: usize,
    mapped: Vec<(NonNull<u8>, u64)>,
}

impl Machine {
    fn new(source: &[u8], offset: usize, frame_pages: u64) -> Self {
        let size = (offset + source.len()).div_ceil(PAGE as usize) * PAGE as usize;
        let mut buffer = vec![0; size];
        buffer[offset..offset + source.len()].copy_from_slice(source);
        Self {
            buffers: [buffer, vec![0x5a; (frame_pages * PAGE) as usize]],
            fate: Fate::Nothing,
            resolved: 0,
            maps: 0,
            mapped: Vec::new(),
        }
    }
}

// SAFETY: Windows are parts of vectors that are neither moved nor used otherwise
// while they are mapped.
unsafe impl Memory for Machine {
    fn resolve(&mut self, handle: u64) -> Result<Range, Refusal> {
        let index = match handle {
            SOURCE => 0,
            FRAME => 1,
            _ => return Err(Refusal::Tee(result::ITEM_NOT_FOUND)),
        };
        self.resolved += 1;
        let mut start = START[index];
        match self.fate {
            Fate::ReleasedAfter(count) if self.resolved > count => {
                return Err(Refusal::Tee(result::ITEM_NOT_FOUND));
            }
            Fate::MovedAfter(count) if self.resolved > count => start += 0x1000_0000,
            _ => (),
        }
        Range::new(start, self.buffers[index].len() as u64).ok_or(Refusal::SecureWorld)
    }

    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal> {
        assert!(start.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && size != 0);
        self.maps += 1;
        if self.fate == Fate::Busy(self.maps) {
            return Err(Refusal::Tee(result::BUSY));
        }
        let index = usize::from(start >= START[1]);
        let offset = (start - START[index]) as usize;
        let bytes = &mut self.buffers[index][offset..][..size as usize];
        let address = NonNull::from(bytes).cast();
        self.mapped.push((address, size));
        Ok(address)
    }

    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal> {
        let index = self
            .mapped
            .iter()
            .position(|window| *window == (address, size))
            .expect("a window");
        self.mapped.swap_remove(index);
        Ok(())
    }
}

const FORM: Form = Form::of(45, 38);

fn request(source: &[u8]) -> Decode {
    Decode {
        source_offset: 0,
        source_length: source.len() as u32,
        frame: FRAME,
        frame_offset: 0,
        stride: 192,
        width: 45,
        height: 38,
    }
}

#[test]
fn a_picture_goes_where_it_is_to_go() {
    let source = FORM.encode();
    for (source_offset, frame_offset) in [(0, 0), (1, 4), (4095, 4096), (5000, 4092)] {
        let mut machine = Machine::new(&source, source_offset, 4);
        let request = Decode {
            source_offset: source_offset as u64,
            frame_offset,
            ..request(&source)
        };
        let mut last = false;
        let outcome = decode(&mut machine, SOURCE, &request, || last = true);
        assert_eq!(outcome, Ok((45, 38)));
        assert!(last && machine.mapped.is_empty());
        let (before, rest) = machine.buffers[1].split_at(frame_offset as usize);
        let (frame, behind) = rest.split_at(192 * 38);
        assert!(FORM.likeness(frame, 192) > 29.0);
        assert!(before.iter().chain(behind).all(|byte| *byte == 0x5a));
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_mapped() {
    let source = FORM.encode();
    let good = request(&source);
    let size = Machine::new(&source, 0, 2).buffers[0].len() as u64;
    let cases = [
        (Decode { width: 0, ..good }, Refusal::Layout),
        (Decode { height: 0, ..good }, Refusal::Layout),
        (
            Decode {
                stride: 176,
                ..good
            },
            Refusal::Layout,
        ),
        (
            Decode {
                stride: 193,
                ..good
            },
            Refusal::Layout,
        ),
        (
            Decode {
                stride: u32::MAX - 3,
                ..good
            },
            Refusal::Layout,
        ),
        (
            Decode {
                height: u32::MAX,
                ..good
            },
            Refusal::Layout,
        ),
        (
            Decode {
                frame_offset: 2,
                ..good
            },
            Refusal::Layout,
        ),
        (
            Decode {
                source_length: 0,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                source_length: (1 << 20) + 1,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                source_length: u32::MAX,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                source_offset: size,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                source_offset: u64::MAX,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                source_offset: u64::MAX - 10,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                frame_offset: 2 * PAGE - 192 * 38 + 4,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                frame_offset: 2 * PAGE,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                frame_offset: u64::MAX - 3,
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (
            Decode {
                frame_offset: 0u64.wrapping_sub(192 * 38),
                ..good
            },
            Refusal::OutOfBounds,
        ),
        (Decode { height: 43, ..good }, Refusal::OutOfBounds),
        (
            Decode {
                frame: SOURCE,
                ..good
            },
            Refusal::SameBuffer,
        ),
        (
            Decode { frame: 0, ..good },
            Refusal::Tee(result::ITEM_NOT_FOUND),
        ),
        (
            Decode { frame: 77, ..good },
            Refusal::Tee(result::ITEM_NOT_FOUND),
        ),
    ];
    for (request, refusal) in cases {
        let mut machine = Machine::new(&source, 0, 2);
        let outcome = decode(&mut machine, SOURCE, &request, || panic!("done"));
        assert_eq!(outcome, Err(refusal), "{request:?}");
        assert_eq!(machine.maps, 0);
    }
}

/// Between the answer to RESOLVE and the end of MAP a buffer may be released,
/// and another one be made in its place.
#[test]
fn a_handle_that_is_released_meanwhile_opens_nothing() {
    let source = FORM.encode();
    for fate in [
        Fate::ReleasedAfter(2),
        Fate::ReleasedAfter(3),
        Fate::MovedAfter(2),
        Fate::MovedAfter(3),
    ] {
        let mut machine = Machine::new(&source, 0, 2);
        machine.fate = fate;
        let outcome = decode(&mut machine, SOURCE, &request(&source), || panic!("done"));
        assert_eq!(
            outcome.map_err(|error| error.code()),
            Err(result::ITEM_NOT_FOUND)
        );
        assert!(machine.mapped.is_empty());
        assert!(machine.buffers[1].iter().all(|byte| *byte == 0x5a));
    }
}

#[test]
fn a_buffer_that_is_in_use_is_busy() {
    let source = FORM.encode();
    for nth in 1..=2 {
        let mut machine = Machine::new(&source, 0, 2);
        machine.fate = Fate::Busy(nth);
        let outcome = decode(&mut machine, SOURCE, &request(&source), || panic!("done"));
        assert_eq!(outcome, Err(Refusal::Tee(result::BUSY)));
        assert!(machine.mapped.is_empty());
    }
}

#[test]
fn a_bad_picture_leaves_nothing_mapped() {
    let source = FORM.encode();
    let mut machine = Machine::new(&source[..source.len() - 40], 0, 2);
    let request = Decode {
        source_length: source.len() as u32 - 40,
        ..request(&source)
    };
    let outcome = decode(&mut machine, SOURCE, &request, || panic!("done"));
    assert_eq!(outcome, Err(Refusal::Picture(PictureError::Truncated)));
    assert!(machine.mapped.is_empty());
}

proptest! {
    /// Whatever the numbers are: no panic, nothing stays mapped, and nothing but
    /// the frame is written.
    #[test]
    fn any_request_is_safe(
        source_offset in prop_oneof![0..9000u64, any::<u64>()],
        source_length in prop_oneof![0..9000u32, any::<u32>()],
        frame_offset in prop_oneof![0..9000u64, any::<u64>()],
        stride in prop_oneof![170..200u32, any::<u32>()],
        width in prop_oneof![44..47u32, any::<u32>()],
        height in prop_oneof![37..40u32, any::<u32>()],
    ) {
        let source = FORM.encode();
        let mut machine = Machine::new(&source, 0, 2);
        let request = Decode {
            source_offset, source_length, frame: FRAME, frame_offset, stride, width, height,
        };
        let _ = decode(&mut machine, SOURCE, &request, || ());
        prop_assert!(machine.mapped.is_empty());
        let first = usize::try_from(frame_offset).unwrap_or(usize::MAX);
        let last = first.saturating_add(stride as usize * height as usize);
        for (index, byte) in machine.buffers[1].iter().enumerate() {
            prop_assert!(*byte == 0x5a || (first..last).contains(&index));
        }
    }
}
