// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder: pictures from one protected buffer to another, hostile ones, and
//! what it may not do.

mod bounds;
mod crowd;
mod stage;

use jpeg_encoder::SamplingFactor;
use ringfence::proto::command::result;
use ringfence::proto::decoder::{MAX_FRAME, MAX_SOURCE};
use ringfence_tests::guest::decoder::Picture;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{expect_code, expect_done};

use super::Test;
use stage::{open, Place, Stage, PLAIN};

pub const TESTS: &[Test] = &[
    ("pictures_of_every_kind_are_decoded", every_kind),
    ("a_frame_of_the_largest_size", largest_frame),
    ("a_frame_can_lie_anywhere_in_its_buffer", anywhere),
    ("hostile_bitstreams_are_refused_and_survived", hostile),
    (
        "a_picture_of_another_kind_or_size_is_told_apart",
        told_apart,
    ),
    ("a_panic_leaves_everything_releasable", panic),
    ("wrong_requests_are_refused", bounds::wrong_requests),
    (
        "handles_that_do_not_name_a_video_buffer",
        bounds::wrong_handles,
    ),
    (
        "the_decoder_may_map_and_no_more",
        bounds::no_more_than_mapping,
    ),
    ("only_the_decoder_learns_where_a_buffer_is", bounds::resolve),
    ("a_buffer_has_one_user_at_a_time", bounds::one_user),
    (
        "a_buffer_closed_while_it_is_mapped",
        bounds::closed_while_mapped,
    ),
    ("decoders_are_limited_and_apart", crowd::limited),
    ("two_decoders_and_a_decryption_at_once", crowd::at_once),
    (
        "the_decoder_outlives_the_other_application",
        crowd::outlives,
    ),
];

const PAGE: u64 = 4096;

/// One of the decoder's own test pictures.
macro_rules! stored {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../ta/decoder/fuzz/seeds/picture/",
                $name,
                ".jpg"
            )),
        )
    };
}

/// All of them, those of ffmpeg's included.
const STORED: [(&str, &[u8]); 9] = [
    stored!("colour-420"),
    stored!("colour-422"),
    stored!("colour-440"),
    stored!("colour-444"),
    stored!("ffmpeg-420"),
    stored!("ffmpeg-422"),
    stored!("ffmpeg-444"),
    stored!("grey"),
    stored!("restart"),
];

fn pictures() -> anyhow::Result<Vec<Picture>> {
    STORED
        .iter()
        .map(|(name, bytes)| Picture::stored(name, bytes))
        .collect()
}

/// What is decoded can't be read, and is gone when it is released.
fn every_kind() -> anyhow::Result<()> {
    let mut stage = Stage::new(64 << 10, 1 << 20)?;
    for picture in pictures()? {
        let good = stage.decode(&picture, &picture.bytes, PLAIN)?;
        anyhow::ensure!(good, "{} was refused", picture.name);
    }
    let picture = Picture::coloured(640, 360, SamplingFactor::F_2_2)?;
    let good = stage.decode(&picture, &picture.bytes, PLAIN)?;
    anyhow::ensure!(good, "{} was refused", picture.name);
    for range in [stage.source_range, stage.frame_range] {
        expect_killed(range.page(0), "first page")?;
        expect_killed(range.last_page(), "last page")?;
    }
    let ranges = [stage.source_range, stage.frame_range];
    drop(stage);
    for range in ranges {
        expect_zero(range, "after release")?;
    }
    Ok(())
}

fn largest_frame() -> anyhow::Result<()> {
    let mut stage = Stage::new(MAX_SOURCE.into(), MAX_FRAME.into())?;
    let picture = Picture::coloured(2048, 512, SamplingFactor::F_2_1)?;
    anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
    // As many bytes as a bitstream can have, most of them behind the picture.
    let picture = Picture::coloured(48, 32, SamplingFactor::F_2_1)?;
    let mut bytes = picture.bytes.clone();
    bytes.resize(MAX_SOURCE as usize, 0xff);
    anyhow::ensure!(stage.decode(&picture, &bytes, PLAIN)?, "refused");
    Ok(())
}

fn anywhere() -> anyhow::Result<()> {
    const SIZE: u64 = 256 << 10;
    let mut stage = Stage::new(64 << 10, SIZE)?;
    let [picture, ..] = &pictures()?[..] else {
        anyhow::bail!("no picture");
    };
    for (source_offset, frame_offset, padding) in [
        (1, 4, 4),
        (4095, 4092, 0),
        (5000, 8192, 108),
        (60_000, 100_004, 64),
    ] {
        let place = Place {
            source_offset,
            frame_offset,
            padding,
        };
        expect_done(stage.ta.fill(stage.frame_handle, 0x5a), "FILL")?;
        let good = stage.decode(picture, &picture.bytes, place)?;
        anyhow::ensure!(good, "{place:?}: refused");
        // All of the buffer: nothing is written before the frame, and nothing behind.
        let stride = 4 * picture.width + padding;
        let frame = picture.expected(&picture.bytes, stride);
        let frame = expect_done(frame, "the library")?;
        let mut whole = vec![0x5a; SIZE as usize];
        whole[frame_offset as usize..][..frame.len()].copy_from_slice(&frame);
        stage.expect_frame(&whole, 0)?;
    }
    Ok(())
}

/// Copies with some bits flipped, some bytes missing; the same every time. What
/// the decoder answers must be what the library says of the same bytes.
fn hostile() -> anyhow::Result<()> {
    const COPIES: usize = 4;
    let mut stage = Stage::new(64 << 10, 64 << 10)?;
    let mut random = fastrand::Rng::with_seed(0x0dec_0de5);
    let (mut decoded, mut refused) = (0, 0);
    let pictures = pictures()?;
    for picture in &pictures {
        for _ in 0..COPIES {
            let mut bytes = picture.bytes.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..5) {
                    0 => bytes[at] ^= 1 << random.u8(..8),
                    1 => bytes[at] = random.u8(..),
                    2 => bytes.insert(at, 0xff),
                    3 => bytes.truncate(at.max(1)),
                    _ => {
                        let other = &pictures[random.usize(..pictures.len())].bytes;
                        bytes.truncate(at.max(1));
                        bytes.extend_from_slice(&other[random.usize(..other.len())..]);
                    }
                }
            }
            match stage.decode(picture, &bytes, PLAIN)? {
                true => decoded += 1,
                false => refused += 1,
            }
            let good = stage.decode(picture, &picture.bytes, PLAIN)?;
            anyhow::ensure!(good, "{} is refused after a hostile one", picture.name);
        }
    }
    anyhow::ensure!(
        decoded > 3 && refused > 10,
        "{decoded} decoded, {refused} refused"
    );
    Ok(())
}

fn told_apart() -> anyhow::Result<()> {
    use ringfence::proto::decoder::result::{BAD_FORMAT, OTHER_SIZE, UNSUPPORTED};

    let mut stage = Stage::new(64 << 10, 64 << 10)?;
    let picture = Picture::coloured(48, 32, SamplingFactor::F_2_2)?;
    let frame_header = picture.bytes.windows(2).position(|two| two == [0xff, 0xc0]);
    let at = frame_header.unwrap_or_default() + 1;
    let changed = |offset: usize, byte: u8| {
        let mut bytes = picture.bytes.clone();
        bytes[at + offset] = byte;
        bytes
    };
    for (what, bytes, code) in [
        ("progressive", changed(0, 0xc2), UNSUPPORTED),
        ("arithmetic", changed(0, 0xc9), UNSUPPORTED),
        ("12 bits", changed(3, 12), UNSUPPORTED),
        ("wide", changed(6, 0xff), UNSUPPORTED),
        ("another height", changed(5, 31), OTHER_SIZE),
        ("no picture", vec![0; 500], BAD_FORMAT),
        (
            "half of one",
            picture.bytes[..picture.bytes.len() / 2].to_vec(),
            BAD_FORMAT,
        ),
    ] {
        expect_done(stage.put(&bytes, 0), "DECRYPT")?;
        let request = stage.request(&picture, bytes.len(), PLAIN);
        expect_code(
            stage.decoder.decode(stage.source_handle, &request),
            code,
            what,
        )?;
    }
    anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
    Ok(())
}

fn panic() -> anyhow::Result<()> {
    let picture = Picture::coloured(64, 64, SamplingFactor::F_2_2)?;
    let mut witness = Stage::new(64 << 10, 64 << 10)?;
    for released_first in [false, true] {
        let mut stage = Stage::new(64 << 10, 64 << 10)?;
        anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
        expect_done(stage.decoder.doom(), "DOOM")?;
        let request = stage.request(&picture, picture.bytes.len(), PLAIN);
        let source = stage.source_handle;
        expect_code(
            stage.decoder.decode(source, &request),
            result::TARGET_DEAD,
            "a picture that is the last",
        )?;
        expect_code(
            stage.decoder.decode(source, &request),
            result::TARGET_DEAD,
            "the one after it",
        )?;
        // Nothing is mapped, and nobody else has noticed.
        expect_done(stage.ta.hold(source, 0, 1), "HOLD")?;
        expect_done(stage.ta.let_go(), "LET_GO")?;
        anyhow::ensure!(witness.decode(&picture, &picture.bytes, PLAIN)?, "refused");
        if !released_first {
            stage.decoder = open()?;
            anyhow::ensure!(stage.decode(&picture, &picture.bytes, PLAIN)?, "refused");
        }
        let ranges = [stage.source_range, stage.frame_range];
        for range in ranges {
            expect_killed(range.page(0), "after the panic")?;
        }
        drop(stage);
        for range in ranges {
            expect_zero(range, "after release")?;
        }
    }
    Ok(())
}
