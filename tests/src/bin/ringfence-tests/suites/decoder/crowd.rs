// SPDX-License-Identifier: MIT OR Apache-2.0

//! Several decoders, beside the other application.

use std::sync::{Mutex, PoisonError};
use std::thread;

use jpeg_encoder::SamplingFactor;
use ringfence::proto::command::result;
use ringfence::proto::decoder::MAX_SESSIONS;
use ringfence_tests::guest::decoder::{Decoder, Picture};
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{expect_code, expect_done, Ta};

use super::super::fixture::Fixture;
use super::super::protect::handle;
use super::super::region::{self, VIDEO};
use super::stage::{open, Stage, PLAIN};

/// As many decoders as there may be leave the other application what it needs to
/// come back after a panic, and end as they began.
pub fn limited() -> anyhow::Result<()> {
    let picture = Picture::coloured(64, 64, SamplingFactor::F_2_2)?;
    let mut stage = Stage::new(64 << 10, 64 << 10)?;
    let mut others: Vec<_> = (1..MAX_SESSIONS)
        .map(|_| open())
        .collect::<anyhow::Result<_>>()?;
    expect_code(Decoder::open(), result::OUT_OF_MEMORY, "one too many")?;
    anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
    let request = stage.request(&picture, picture.bytes.len(), PLAIN);
    for other in &mut others {
        expect_done(other.decode(stage.source_handle, &request), "DECODE")?;
    }
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    let (buffer, range) = region::allocate(VIDEO, 1 << 20)?;
    expect_killed(range.page(0), "a buffer made after the panic")?;
    drop(buffer);
    expect_zero(range, "after release")?;
    // A place that is given back is there for the next.
    for _ in 0..3 {
        others.pop();
        others.push(open()?);
    }
    expect_code(Decoder::open(), result::OUT_OF_MEMORY, "one too many")
}

/// The applications call each other, and Linux calls each of them: nobody waits for
/// ever, and nobody gets another's picture.
pub fn at_once() -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    // Who allocates finds out where by comparing what there was before.
    let turn = Mutex::new(());
    let turn = || turn.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = &turn;
    let decodes = |width: u16, sampling| {
        move || -> anyhow::Result<()> {
            let picture = Picture::coloured(width, 120, sampling)?;
            let mut stage = {
                let _turn = turn();
                Stage::new(256 << 10, 1 << 20)?
            };
            for round in 0..ROUNDS {
                let good = stage.decode(&picture, &picture.bytes, PLAIN)?;
                anyhow::ensure!(good, "round {round}: refused");
            }
            Ok(())
        }
    };
    let decrypts = || -> anyhow::Result<()> {
        let fixture = Fixture::read()?;
        for _ in 0..ROUNDS {
            let (buffer, _) = {
                let _turn = turn();
                region::allocate(VIDEO, fixture.ciphertext.len() as u64)?
            };
            fixture.decrypt(&mut Ta::open()?, handle(&buffer)?)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = [
            scope.spawn(decodes(160, SamplingFactor::F_2_2)),
            scope.spawn(decodes(200, SamplingFactor::F_1_1)),
            scope.spawn(decrypts),
        ];
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

/// A decoder whose neighbour has panicked finds the next instance, in which
/// buffers have new handles.
pub fn outlives() -> anyhow::Result<()> {
    let picture = Picture::coloured(64, 48, SamplingFactor::F_1_1)?;
    let mut stage = Stage::new(64 << 10, 64 << 10)?;
    anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
    let old = stage.request(&picture, picture.bytes.len(), PLAIN);
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    expect_code(
        stage.decoder.decode(stage.source_handle, &old),
        result::ITEM_NOT_FOUND,
        "handles from before the panic",
    )?;
    stage.source_handle = handle(&stage.source)?;
    stage.frame_handle = handle(&stage.frame)?;
    let request = stage.request(&picture, picture.bytes.len(), PLAIN);
    let outcome = stage.decoder.decode(stage.source_handle, &request);
    expect_done(outcome, "handles of the next instance")?;
    stage.ta = Ta::open()?;
    let frame = picture.expected(&picture.bytes, request.stride);
    stage.expect_frame(&expect_done(frame, "the library")?, 0)
}
