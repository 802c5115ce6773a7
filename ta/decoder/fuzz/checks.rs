// SPDX-License-Identifier: MIT OR Apache-2.0

//! What must hold for any bitstream at all; shared by the fuzz target and by the
//! tests that feed it seeds and damaged pictures.

use ringfence_decoder::frame::Layout;
use ringfence_decoder::header::Header;
use ringfence_decoder::picture::decode;
use ringfence_decoder::refusal::PictureError;

/// Bytes before and behind a frame, which must stay as they are.
const GUARD: usize = 8192;
/// What is there.
const UNTOUCHED: u8 = 0xa5;

/// Decodes a bitstream as if its own header had told the size; `run` runs the
/// codec.
pub fn decode_guarded(
    bytes: &[u8],
    run: impl FnOnce(&mut dyn FnMut()),
) -> Result<(), PictureError> {
    let header = Header::read(bytes);
    let padding = 4 * (bytes.len() % 3) as u32;
    let layout = header.as_ref().ok().and_then(|header| {
        let (width, height) = (header.width.into(), header.height.into());
        Layout::new(width, height, 4 * width + padding).ok()
    });
    let small = Layout::new(16, 16, 64).expect("a layout");
    let (layout, fits) = layout.map_or((small, false), |layout| (layout, true));

    let mut memory = vec![UNTOUCHED; layout.size() + 2 * GUARD];
    let frame = &mut memory[GUARD..][..layout.size()];
    let mut outcome = None;
    run(&mut || outcome = Some(decode(bytes, frame, &layout)));
    let outcome = outcome.expect("it ran");

    let (before, rest) = memory.split_at(GUARD);
    let (frame, behind) = rest.split_at(layout.size());
    let untouched = |byte: &u8| *byte == UNTOUCHED;
    assert!(before.iter().all(untouched), "bytes before the frame");
    assert!(behind.iter().all(untouched), "bytes behind the frame");
    match header {
        Err(error) => assert_eq!(outcome, Err(error), "refused by its header"),
        Ok(header) if !fits => assert_eq!(
            outcome,
            Err(PictureError::OtherSize(header.width, header.height))
        ),
        Ok(_) if outcome.is_ok() => check_pixels(frame, &layout),
        Ok(_) => (),
    }
    outcome
}

/// Every pixel of a decoded frame is there, and zeros between the lines.
fn check_pixels(frame: &[u8], layout: &Layout) {
    for line in frame.chunks(layout.size() / layout.height()) {
        let (pixels, padding) = line.split_at(4 * layout.width());
        assert!(pixels.chunks(4).all(|pixel| pixel[3] == u8::MAX), "pixels");
        assert!(padding.iter().all(|byte| *byte == 0), "padding");
    }
}
