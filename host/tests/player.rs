// SPDX-License-Identifier: MIT OR Apache-2.0

//! The player over a secure world that only takes notes.

use std::cell::RefCell;
use std::fs::File;
use std::io::Cursor;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use ringfence::buffer::{Buffer, Handle};
use ringfence::error::Error;
use ringfence::play::boxes::Kind;
use ringfence::play::mp4::Sample;
use ringfence::play::pace::Rate;
use ringfence::play::player::{
    Decode, Decrypt, Frame, Memory, Picture, Pictures, Plan, PlayError, Player, Screen,
    MAX_BITSTREAM,
};
use ringfence::play::protection::{Encryption, Protection};
use ringfence::play::{Event, Movie};
use ringfence::proto::message::{DecryptSample, Pattern, Scheme, Subsample};

const KEY_ID: [u8; 16] = [7; 16];

/// What has happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Note {
    Allocated(u64),
    Decrypted { handle: u64, bytes: Vec<u8> },
    Decoded { length: u32, frame: u64 },
    Shown { width: u32, stride: u32 },
}

/// Everything around the player.
#[derive(Clone, Default)]
struct Notes {
    notes: Rc<RefCell<Vec<Note>>>,
    /// Allocations after which there is no room.
    room: Option<usize>,
    decoding_takes: Duration,
}

impl Notes {
    fn add(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    fn taken(&self) -> Vec<Note> {
        self.notes.take()
    }
}

impl Memory for Notes {
    fn allocate(&mut self, size: u64) -> Result<(Buffer, Handle), Error> {
        let mut notes = self.notes.borrow_mut();
        if self.room == Some(notes.len()) {
            return Err(Error::Malformed("no room"));
        }
        notes.push(Note::Allocated(size));
        let file = OwnedFd::from(File::open("/dev/null").expect("there is one"));
        let handle = Handle::new(notes.len() as u64).expect("not zero");
        Ok((Buffer::from(file), handle))
    }
}

impl Decrypt for Notes {
    fn decrypt_sample(
        &mut self,
        handle: Handle,
        _: &DecryptSample,
        sample: &[u8],
    ) -> Result<u64, Error> {
        self.add(Note::Decrypted {
            handle: handle.raw(),
            bytes: sample.to_vec(),
        });
        Ok(sample.len() as u64)
    }
}

impl Decode for Notes {
    fn decode(&mut self, source: Handle, length: u32, picture: &Picture) -> Result<(), Error> {
        assert_eq!(source.raw(), 1);
        std::thread::sleep(self.decoding_takes);
        self.add(Note::Decoded {
            length,
            frame: picture.handle.raw(),
        });
        Ok(())
    }
}

impl Screen for Notes {
    fn show(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        self.add(Note::Shown {
            width: frame.width,
            stride: frame.stride,
        });
        Ok(())
    }
}

/// A film of samples of 4 bytes, a thousand of them a second.
fn movie(count: u64) -> Movie {
    Movie {
        width: 10,
        height: 5,
        codec: Kind(*b"mp4v"),
        timescale: 1000,
        protection: Protection::constant(KEY_ID, Scheme::Cenc, Pattern::default()),
        samples: (0..count)
            .map(|index| Sample {
                offset: 4 * index,
                size: 4,
                time: index,
                encryption: Encryption {
                    iv: [0; 16],
                    subsamples: Vec::new(),
                },
            })
            .collect(),
    }
}

type TestPlayer = Player<Cursor<Vec<u8>>, Notes>;

fn player(movie: Movie, notes: &Notes, decodes: bool) -> Result<TestPlayer, Error> {
    let pictures = decodes.then(|| Pictures {
        decoder: Box::new(notes.clone()),
        screen: Some(Box::new(notes.clone())),
    });
    let film = Cursor::new((0..=255).collect());
    Player::new(
        movie,
        film,
        KEY_ID,
        notes.clone(),
        pictures,
        &mut notes.clone(),
    )
}

const ALL: Plan = Plan {
    from: 0,
    frames: None,
    rate: Rate::Max,
};

#[test]
fn each_frame_is_decrypted_decoded_and_shown_in_turns() {
    let notes = Notes::default();
    let mut player = player(movie(3), &notes, true).expect("a player");
    assert_eq!(notes.taken(), [4, 200, 200].map(Note::Allocated));
    let mut events = Vec::new();
    let report = player
        .play(&ALL, |_, event| events.push(event))
        .expect("played");
    let expected: Vec<Note> = [(0u8, 2), (4, 3), (8, 2)]
        .into_iter()
        .flat_map(|(first, frame)| {
            [
                Note::Decrypted {
                    handle: 1,
                    bytes: (first..first + 4).collect(),
                },
                Note::Decoded { length: 4, frame },
                Note::Shown {
                    width: 10,
                    stride: 40,
                },
            ]
        })
        .collect();
    assert_eq!(notes.taken(), expected);
    assert_eq!(events, [0, 1, 2].map(|frame| Event::Shown { frame }));
    assert_eq!((report.shown, report.dropped), (3, 0));
    assert_eq!((report.secure_calls, report.most_secure_calls), (6, 2));
    assert!(report.within_bounds);
    assert_eq!(report.bytes, 12);
}

#[test]
fn frames_that_are_too_late_are_left_out_and_told() {
    let notes = Notes {
        decoding_takes: Duration::from_millis(20),
        ..Notes::default()
    };
    let mut player = player(movie(12), &notes, true).expect("a player");
    let mut dropped = 0;
    let plan = Plan {
        rate: Rate::Film,
        ..ALL
    };
    let report = player
        .play(&plan, |_, event| {
            dropped += usize::from(matches!(event, Event::Dropped { .. }));
        })
        .expect("played");
    assert!(report.shown >= 2, "the first and the last: {report:?}");
    assert_eq!(report.dropped, dropped);
    assert_eq!(report.shown + report.dropped, 12);
    assert!(dropped >= 5, "{report:?}");
}

#[test]
fn waiting_for_somebody_makes_no_frame_late() {
    let notes = Notes::default();
    let mut slow = movie(3);
    slow.timescale = 50;
    let mut player = player(slow, &notes, false).expect("a player");
    let plan = Plan {
        rate: Rate::Film,
        ..ALL
    };
    let report = player
        .play(&plan, |_, _| std::thread::sleep(Duration::from_millis(60)))
        .expect("played");
    assert_eq!((report.decrypted, report.dropped), (3, 0), "{report:?}");
}

#[test]
fn a_part_of_a_film_is_its_own_frames() {
    let notes = Notes::default();
    let mut player = player(movie(5), &notes, false).expect("a player");
    let mut play = |from, frames| {
        let plan = Plan {
            from,
            frames,
            ..ALL
        };
        let mut seen = Vec::new();
        player
            .play(&plan, |_, event| seen.push(event))
            .map(|_| seen)
    };
    let frames = |range: std::ops::Range<usize>| -> Vec<Event> {
        range.map(|frame| Event::Decrypted { frame }).collect()
    };
    assert_eq!(play(3, None).expect("two frames"), frames(3..5));
    assert_eq!(play(1, Some(2)).expect("two frames"), frames(1..3));
    for (from, some) in [(5, None), (4, Some(2)), (usize::MAX, Some(usize::MAX))] {
        assert!(matches!(
            play(from, some),
            Err(Error::Play(PlayError::NoFrame { count: 5, .. }))
        ));
    }
}

#[test]
fn what_can_not_be_played_allocates_nothing() {
    let notes = Notes::default();
    let mut another_key = movie(1);
    another_key.protection = Protection::constant([8; 16], Scheme::Cenc, Pattern::default());
    let mut long = movie(2);
    long.samples[1].size = u32::try_from(MAX_BITSTREAM).expect("32 bits") + 1;
    let mut long_to_decode = movie(1);
    long_to_decode.samples[0].size = (1 << 20) + 1;
    let mut other_codec = movie(1);
    other_codec.codec = Kind(*b"avc1");
    let says = |movie: &Movie, decodes| match player(movie.clone(), &notes, decodes) {
        Ok(_) => panic!("it can be played"),
        Err(error) => error.to_string(),
    };
    let error = says(&another_key, false);
    assert!(error.contains(&"08".repeat(16)) && error.contains(&"07".repeat(16)));
    assert!(says(&long, false).contains("frame 1 has 16777217 bytes"));
    assert!(says(&long_to_decode, true).contains("frame 0 has 1048577 bytes"));
    assert!(says(&other_codec, true).contains("avc1"));
    assert!(notes.taken().is_empty());
    assert!(player(other_codec, &notes, false).is_ok(), "decrypts it");
}

#[test]
fn no_room_for_a_frame_is_an_error() {
    let notes = Notes {
        room: Some(2),
        ..Notes::default()
    };
    assert!(player(movie(1), &notes, true).is_err());
}

#[test]
fn subsamples_that_lie_and_films_that_end_are_errors() {
    let notes = Notes::default();
    let mut lying = movie(1);
    lying.samples[0].encryption.subsamples = vec![Subsample {
        clear: 1,
        encrypted: 1,
    }];
    let outcome = player(lying, &notes, false).expect("a player").decrypt(0);
    assert!(matches!(
        outcome,
        Err(Error::Play(PlayError::Subsamples { sum: 2, .. }))
    ));
    let mut ended = movie(1);
    ended.samples[0].offset = 254;
    let outcome = player(ended, &notes, false).expect("a player").decrypt(0);
    assert!(matches!(outcome, Err(Error::Ciphertext(_))));
}
