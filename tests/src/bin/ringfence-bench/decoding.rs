// SPDX-License-Identifier: MIT OR Apache-2.0

//! What decoding a frame costs in the secure world, beside the same library in a
//! program of Linux.

use std::hint::black_box;
use std::path::Path;

use anyhow::Context;
use jpeg_encoder::SamplingFactor;
use ringfence::buffer::{Buffer, Handle};
use ringfence::control::Control;
use ringfence::heap::Heap;
use ringfence::proto::decoder::PIXEL;
use ringfence::proto::message::{Decode, DecryptSample, Pattern, Scheme, Subsample};
use ringfence_tests::bench::{Counter, DecodingFigures, Spread};
use ringfence_tests::content::Content;
use ringfence_tests::guest::decoder::{Decoder, Picture};
use ringfence_tests::guest::ta::{expect_done, Ta};

use crate::content::{read, SHARE};
use crate::counter;

/// How often each call is measured.
const ROUNDS: u32 = 20;

/// The frame.
const WIDTH: u16 = 640;
const HEIGHT: u16 = 360;

fn allocate(heap: &str, size: u64) -> anyhow::Result<(Buffer, Handle)> {
    let buffer = Heap::open(heap)?.allocate(size)?;
    let handle = Control::open()?.buffer(&buffer)?.protected_handle()?;
    Ok((buffer, handle))
}

/// Measures buffers of one heap.
pub fn measure(counter: &Counter, heap: &str) -> anyhow::Result<DecodingFigures> {
    let picture = Picture::coloured(WIDTH, HEIGHT, SamplingFactor::F_2_2)?;
    let length = u32::try_from(picture.bytes.len())?;
    let stride = PIXEL * u32::from(WIDTH);
    let (_source, source) = allocate(heap, length.into())?;
    let (_frame, frame) = allocate(heap, (stride * u32::from(HEIGHT)).into())?;

    let content = Content::read(Path::new(SHARE))?;
    let mut ta = Ta::open()?;
    expect_done(ta.provision(&read(&content.provision)?), "PROVISION")?;
    let licence = read(&content.known.licence)?;
    expect_done(ta.load_licence(&licence), "LOAD_LICENCE")?;
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

    let median = |call: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<u64> {
        let mut calls = Vec::new();
        // The first one fills caches of both worlds.
        for round in 0..=ROUNDS {
            let start = counter::now();
            call()?;
            let end = counter::now();
            if round > 0 {
                calls.push((end - start) * counter.instructions_per_step);
            }
        }
        Ok(Spread::of(calls).context("no rounds")?.median)
    };
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
