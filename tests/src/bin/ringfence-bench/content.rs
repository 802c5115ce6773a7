// SPDX-License-Identifier: MIT OR Apache-2.0

//! What decrypting into protected memory costs, beside AES-CTR over the trusted
//! application's own memory; and the calls of the secure world that a film takes.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use ringfence::buffer::{Buffer, Handle};
use ringfence::control::Control;
use ringfence::error::Error;
use ringfence::heap::Heap;
use ringfence::play::pace::Rate;
use ringfence::play::player::{Memory, Plan, Player};
use ringfence::play::Movie;
use ringfence::proto::message::{DecryptSample, Message, Pattern, Scheme, Subsample, MAX_SAMPLE};
use ringfence::secure::SecureSession;
use ringfence_tests::bench::{ContentFigures, Counter, FilmFigures};
use ringfence_tests::content::Content;
use ringfence_tests::guest::ta::{self, expect_done, Ta};

use crate::counter;

/// Where the host has put content.
pub const SHARE: &str = "/mnt/share";

/// How often each command is measured.
const ROUNDS: u32 = 20;

/// Buffers of one heap.
pub struct OneHeap<'h>(pub &'h str);

impl Memory for OneHeap<'_> {
    fn allocate(&mut self, size: u64) -> Result<(Buffer, Handle), Error> {
        let buffer = Heap::open(self.0)?.allocate(size)?;
        let handle = Control::open()?.buffer(&buffer)?.protected_handle()?;
        Ok((buffer, handle))
    }
}

/// A message in a file of the share.
fn read<M: Message>(name: &Path) -> anyhow::Result<M> {
    ta::message(&Path::new(SHARE).join(name))
}

/// A session of the trusted application that has the device key, and the known key.
pub fn session(content: &Content) -> anyhow::Result<Ta> {
    let mut ta = Ta::open()?;
    expect_done(ta.provision(&read(&content.provision)?), "PROVISION")?;
    let licence = read(&content.known.licence)?;
    expect_done(ta.load_licence(&licence), "LOAD_LICENCE")?;
    Ok(ta)
}

/// Measures buffers of one heap.
pub fn measure(counter: &Counter, heap: &str) -> anyhow::Result<ContentFigures> {
    let content = Content::read(Path::new(SHARE))?;
    let mut ta = session(&content)?;
    let (_buffer, handle) = OneHeap(heap).allocate(MAX_SAMPLE as u64)?;

    let median = |call: &mut dyn FnMut() -> _| counter::median(counter, ROUNDS, call);
    let plain = median(&mut || expect_done(ta.cipher(MAX_SAMPLE as u32), "CIPHER"))?;
    // What is decrypted makes no difference.
    let sample = vec![0x5a; MAX_SAMPLE];
    let mut of = |scheme, pattern| {
        let request = DecryptSample {
            key_id: content.known.key_id,
            scheme,
            iv: [0; 16],
            used: 0,
            pattern,
            offset: 0,
            subsamples: [Subsample {
                clear: 0,
                encrypted: MAX_SAMPLE as u32,
            }]
            .into_iter()
            .collect(),
        };
        median(&mut || {
            let outcome = ta.decrypt_sample(handle.raw(), &request, &sample);
            expect_done(outcome, "DECRYPT_SAMPLE").map(drop)
        })
    };
    Ok(ContentFigures {
        bytes: MAX_SAMPLE as u64,
        rounds: ROUNDS,
        plain,
        cenc: of(Scheme::Cenc, Pattern::default())?,
        cbcs: of(Scheme::Cbcs, Pattern { crypt: 1, skip: 9 })?,
        film: film(&content, heap)?,
    })
}

/// Plays a film as far as decryption, and counts.
fn film(content: &Content, heap: &str) -> anyhow::Result<FilmFigures> {
    let film = content.films.first().context("no film")?;
    let mut file = File::open(Path::new(SHARE).join(&film.mp4))?;
    let movie = Movie::read(&mut file)?;
    let licence = read(&film.licence)?;
    let mut session = SecureSession::open()?;
    session.load_licence(&licence)?;
    let key_id = licence.key_id;
    let mut player = Player::new(movie, file, key_id, session, None, &mut OneHeap(heap))?;
    let plan = Plan {
        from: 0,
        frames: None,
        rate: Rate::Max,
    };
    let report = player.play(&plan, |_, _| {})?;
    Ok(FilmFigures {
        frames: report.decrypted as u64,
        bytes: report.bytes,
        secure_calls: report.secure_calls,
        most_secure_calls: report.most_secure_calls,
        within_bounds: report.within_bounds,
    })
}
