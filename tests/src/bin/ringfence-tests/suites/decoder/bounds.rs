// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the decoder refuses, what others refuse it, and that no two have a buffer
//! mapped at a time.

use jpeg_encoder::SamplingFactor;
use optee_teec::ParamNone;
use ringfence::control::Control;
use ringfence::proto::command::{self, result};
use ringfence::proto::firewall;
use ringfence::proto::message::Decode;
use ringfence_tests::guest::debug;
use ringfence_tests::guest::decoder::Picture;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{self, answer, expect_code, expect_done, number, Ta};

use super::super::protect::handle;
use super::super::region::{self, RECORD, UI, VIDEO};
use super::super::settled;
use super::stage::{open, Stage, PLAIN};
use super::PAGE;

const SIZE: u64 = 64 << 10;

fn small() -> anyhow::Result<Picture> {
    Picture::coloured(48, 32, SamplingFactor::F_2_2)
}

pub fn wrong_requests() -> anyhow::Result<()> {
    let mut stage = Stage::new(SIZE, SIZE)?;
    let picture = small()?;
    expect_done(stage.put(&picture.bytes, 0), "DECRYPT")?;
    let source = stage.source_handle;
    let good = stage.request(&picture, picture.bytes.len(), PLAIN);
    let size = u64::from(good.stride * good.height);
    let cases = [
        Decode { width: 0, ..good },
        Decode { height: 0, ..good },
        Decode {
            stride: 188,
            ..good
        },
        Decode {
            stride: 194,
            ..good
        },
        Decode {
            stride: u32::MAX - 3,
            ..good
        },
        Decode {
            width: 1 << 30,
            ..good
        },
        Decode {
            width: 1 << 30,
            stride: 0,
            ..good
        },
        Decode {
            height: u32::MAX,
            ..good
        },
        Decode {
            height: 1 << 28,
            stride: 1 << 8,
            ..good
        },
        Decode {
            source_length: 0,
            ..good
        },
        Decode {
            source_length: u32::MAX,
            ..good
        },
        Decode {
            source_length: SIZE as u32 + 1,
            ..good
        },
        Decode {
            source_offset: SIZE,
            ..good
        },
        Decode {
            source_offset: u64::MAX,
            ..good
        },
        Decode {
            source_offset: u64::MAX - 100,
            ..good
        },
        Decode {
            frame_offset: 2,
            ..good
        },
        Decode {
            frame_offset: SIZE - size + 4,
            ..good
        },
        Decode {
            frame_offset: SIZE,
            ..good
        },
        Decode {
            frame_offset: u64::MAX - 3,
            ..good
        },
        Decode {
            frame_offset: 0u64.wrapping_sub(size),
            ..good
        },
        // Frame and bitstream in one buffer, also where they would not overlap.
        Decode {
            frame: source,
            ..good
        },
        Decode {
            frame: source,
            frame_offset: SIZE / 2,
            ..good
        },
    ];
    for request in cases {
        expect_code(
            stage.decoder.decode(source, &request),
            result::BAD_PARAMETERS,
            &format!("{request:?}"),
        )?;
    }
    let message = ta::encoded(&good);
    for length in 0..message.len() {
        expect_code(
            stage.decoder.decode_message(source, &message[..length]),
            result::BAD_PARAMETERS,
            "a message cut short",
        )?;
    }
    let long = [&message[..], &[0; 3000]].concat();
    expect_code(
        stage.decoder.decode_message(source, &long),
        result::BAD_PARAMETERS,
        "a message with bytes behind it",
    )?;
    // The last place where the frame fits.
    let last = Decode {
        frame_offset: SIZE - size,
        ..good
    };
    expect_done(stage.decoder.decode(source, &last), "the last place").map(drop)
}

pub fn wrong_handles() -> anyhow::Result<()> {
    let mut stage = Stage::new(SIZE, SIZE)?;
    let picture = small()?;
    expect_done(stage.put(&picture.bytes, 0), "DECRYPT")?;
    let (source, frame) = (stage.source_handle, stage.frame_handle);
    let good = stage.request(&picture, picture.bytes.len(), PLAIN);
    for unknown in [0, 1, u64::MAX, source ^ 1, frame ^ (1 << 63)] {
        expect_code(
            stage.decoder.decode(unknown, &good),
            result::ITEM_NOT_FOUND,
            "an unknown bitstream",
        )?;
        let request = Decode {
            frame: unknown,
            ..good
        };
        expect_code(
            stage.decoder.decode(source, &request),
            result::ITEM_NOT_FOUND,
            "an unknown frame",
        )?;
    }
    for heap in [UI, RECORD] {
        let (buffer, _) = region::allocate(heap, SIZE)?;
        let other = handle(&buffer)?;
        expect_code(
            stage.decoder.decode(other, &good),
            result::ACCESS_DENIED,
            &format!("a bitstream in {heap}"),
        )?;
        let request = Decode {
            frame: other,
            ..good
        };
        expect_code(
            stage.decoder.decode(source, &request),
            result::ACCESS_DENIED,
            &format!("a frame in {heap}"),
        )?;
    }
    // A buffer that is released takes its handle with it, and the one that comes in
    // its place has another.
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let released = handle(&buffer)?;
    let request = Decode {
        frame: released,
        ..good
    };
    expect_done(stage.decoder.decode(source, &request), "before its release")?;
    drop(buffer);
    expect_code(
        stage.decoder.decode(source, &request),
        result::ITEM_NOT_FOUND,
        "a released frame",
    )?;
    expect_zero(range, "after release")?;
    let (_next, _) = region::allocate(VIDEO, SIZE)?;
    expect_code(
        stage.decoder.decode(source, &request),
        result::ITEM_NOT_FOUND,
        "a released frame, when there is another in its place",
    )?;
    expect_done(stage.decoder.decode(source, &good), "the good ones").map(drop)
}

pub fn no_more_than_mapping() -> anyhow::Result<()> {
    let mut stage = Stage::new(SIZE, SIZE)?;
    let range = stage.source_range;
    let beside = region::free_neighbour(VIDEO, stage.frame_range)?;
    for command in [
        firewall::PROTECT,
        firewall::UNPROTECT,
        firewall::LIST,
        firewall::INFO,
        firewall::NAME,
        firewall::FORGET,
        firewall::SCRUB,
        firewall::METER,
        firewall::INJECT,
        0,
        u32::MAX,
    ] {
        for range in [range, beside] {
            expect_code(
                stage.decoder.ask(command, range.start, range.size),
                result::ACCESS_DENIED,
                &format!("command {command:#x} of the firewall"),
            )?;
        }
    }
    let (ui, ui_range) = region::allocate(UI, SIZE)?;
    for (what, start, code) in [
        (
            "for a user interface",
            ui_range.start,
            result::ACCESS_DENIED,
        ),
        ("that is open", beside.start, result::ITEM_NOT_FOUND),
        ("of OP-TEE", 0x0e10_0000, result::ITEM_NOT_FOUND),
    ] {
        expect_code(
            stage.decoder.ask(firewall::MAP, start, PAGE),
            code,
            &format!("memory {what}"),
        )?;
    }
    expect_killed(ui_range.page(0), "the user interface")?;
    expect_killed(range.page(0), "the bitstream")?;
    drop(ui);
    // The way works.
    expect_done(stage.decoder.ask(firewall::MAP, range.start, PAGE), "MAP")
}

/// Neither user space nor another application may ask; that another application is
/// refused is among the attacks.
pub fn resolve() -> anyhow::Result<()> {
    let stage = Stage::new(SIZE, SIZE)?;
    for handle in [stage.source_handle, stage.frame_handle, 0, 77] {
        expect_code(
            Ta::open()?.invoke(
                command::RESOLVE,
                number(handle),
                answer(),
                answer(),
                ParamNone,
            ),
            result::ACCESS_DENIED,
            "RESOLVE",
        )?;
    }
    Ok(())
}

pub fn one_user() -> anyhow::Result<()> {
    let mut stage = Stage::new(SIZE, SIZE)?;
    let picture = small()?;
    anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
    let (source, frame) = (stage.source_handle, stage.frame_handle);
    let request = stage.request(&picture, picture.bytes.len(), PLAIN);
    let mut other = open()?;
    for held in [source, frame] {
        // Any part of it, also one that the decoder would not touch.
        expect_done(stage.ta.hold(held, SIZE - 1, 1), "HOLD")?;
        expect_code(
            stage.decoder.decode(source, &request),
            result::BUSY,
            "what the other application has mapped",
        )?;
        expect_done(stage.ta.let_go(), "LET_GO")?;

        expect_done(other.hold(held), "HOLD of the other decoder")?;
        expect_code(
            stage.decoder.decode(source, &request),
            result::BUSY,
            "what the other decoder has mapped",
        )?;
        expect_code(stage.ta.hold(held, 0, 1), result::BUSY, "HOLD")?;
        if held == source {
            expect_code(stage.put(&picture.bytes, 0), result::BUSY, "DECRYPT")?;
        }
        // Its session closes, and its windows are gone.
        other = open()?;
        expect_done(stage.decoder.decode(source, &request), "DECODE")?;
    }
    // A decoder's own windows are in its way no more than before.
    expect_done(stage.decoder.hold(frame), "HOLD")?;
    expect_done(stage.decoder.decode(source, &request), "DECODE").map(drop)
}

pub fn closed_while_mapped() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let mut decoder = open()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let raw = handle(&buffer)?;
    expect_done(decoder.hold(raw), "HOLD")?;
    drop(buffer);
    region::expect_waiting(VIDEO, range)?;
    expect_killed(range.page(0), "mapped, first page")?;
    debug::retry(VIDEO)?;
    expect_killed(range.last_page(), "mapped, last page")?;
    // The handle has gone with the buffer.
    expect_code(decoder.hold(raw), result::ITEM_NOT_FOUND, "HOLD")?;
    drop(decoder);
    settled(&before)?;
    expect_zero(range, "after release")
}
