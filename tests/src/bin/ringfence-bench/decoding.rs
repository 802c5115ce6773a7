// SPDX-License-Identifier: MIT OR Apache-2.0

//! What decoding a frame costs in the secure world, beside the same library in a
//! program of Linux.

use std::hint::black_box;
use std::path::Path;

use jpeg_encoder::SamplingFactor;
use ringfence::play::player::Memory;
use ringfence::proto::decoder::PIXEL;
use ringfence::proto::message::{Decode, DecryptSample, Pattern, Scheme, Subsample};
use ringfence_tests::bench::{Counter, DecodingFigures};
use ringfence_tests::content::Content;
use ringfence_tests::guest::decoder::{Decoder, Picture};
use ringfence_tests::guest::ta::expect_done;

use crate::content::{session, OneHeap, SHARE};
use crate::counter;

/// How often each call is measured.
const ROUNDS: u32 = 20;

/// The frame.
const WIDTH: u16 = 640;
const HEIGHT: u16 = 360;

/// Measures buffers of one heap.
pub fn measure(counter: &Counter, heap: &str) -> anyhow::Result<DecodingFigures> {
    let picture = Picture::coloured(WIDTH, HEIGHT, SamplingFactor::F_2_2)?;
    let length = u32::try_from(picture.bytes.len())?;
    let stride = PIXEL * u32::from(WIDTH);
    let (_source, source) = OneHeap(heap).allocate(length.into())?;
    let (_frame, frame) = OneHeap(heap).allocate((stride * u32::from(HEIGHT)).into())?;

    let content = Content::read(Path::new(SHARE))?;
    let mut ta = session(&content)?;
    let sample = DecryptSample {
        key_id: content.known.key_id,
        scheme: Scheme::Cenc,
        iv: [0; 16],
        used: 0,
        pattern: Pattern::default(),
        offset: 0,
        subsamples: [Subsample {
            clear: length,
            encrypted: 0,
        }]
        .into_iter()
        .collect(),
    };
    let put = ta.decrypt_sample(source.raw(), &sample, &picture.bytes);
    expect_done(put, "DECRYPT_SAMPLE")?;

    let median = |call: &mut dyn FnMut() -> _| counter::median(counter, ROUNDS, call);
    let mut decoder = expect_done(Decoder::open(), "a session of the decoder")?;
    let request = Decode {
        source_offset: 0,
        source_length: length,
        frame: frame.raw(),
        frame_offset: 0,
        stride,
        width: WIDTH.into(),
        height: HEIGHT.into(),
    };
    let whole =
        median(&mut || expect_done(decoder.decode(source.raw(), &request), "DECODE").map(drop))?;
    // The same, but for the picture: one byte of a bitstream is none.
    let nothing = Decode {
        source_length: 1,
        ..request
    };
    let around = median(&mut || {
        let outcome = decoder.decode(source.raw(), &nothing);
        anyhow::ensure!(outcome.is_err(), "a byte was decoded");
        Ok(())
    })?;
    let library = median(&mut || {
        let frame = picture.expected(black_box(&picture.bytes), stride);
        expect_done(black_box(frame), "the library").map(drop)
    })?;
    Ok(DecodingFigures {
        width: WIDTH.into(),
        height: HEIGHT.into(),
        bytes: length.into(),
        rounds: ROUNDS,
        whole,
        around,
        library,
    })
}
