// SPDX-License-Identifier: MIT OR Apache-2.0

//! Good pictures come out as they went in, wherever their lines are to lie.

mod samples;

use ringfence_decoder::frame::Layout;
use ringfence_decoder::picture::decode;
use ringfence_decoder::refusal::PictureError;
use samples::{Form, SAMPLINGS};

/// Decodes into a frame with so many bytes of padding at each line's end.
fn decoded(form: &Form, padding: u32) -> Vec<u8> {
    let (width, height) = (form.width.into(), form.height.into());
    let layout = Layout::new(width, height, 4 * width + padding).expect("a layout");
    let mut frame = vec![0x5a; layout.size()];
    assert_eq!(
        decode(&form.encode()[..], &mut frame, &layout),
        Ok(()),
        "{form:?}"
    );
    frame
}

/// Fails unless a frame looks like the picture.
fn expect_likeness(form: &Form, frame: &[u8], stride: usize) {
    // What coarse chrominance costs shows most in the smallest pictures.
    let least = match (form.sampling, form.width.min(form.height)) {
        (None, _) => 45.0,
        (Some(jpeg_encoder::SamplingFactor::F_1_1), _) => 38.0,
        (_, ..8) => 18.0,
        _ => 29.0,
    };
    let likeness = form.likeness(frame, stride);
    assert!(likeness >= least, "{form:?}: {likeness:.1} dB");
}

#[test]
fn every_size_and_sampling() {
    for (width, height) in [
        (1, 1),
        (1, 40),
        (40, 1),
        (3, 2),
        (7, 9),
        (8, 8),
        (15, 17),
        (16, 16),
        (17, 33),
        (33, 40),
        (127, 61),
        (320, 180),
    ] {
        for sampling in SAMPLINGS {
            let form = Form {
                sampling,
                ..Form::of(width, height)
            };
            expect_likeness(&form, &decoded(&form, 0), 4 * usize::from(width));
        }
    }
}

#[test]
fn restart_markers_change_nothing() {
    for restart in [1, 2, 7, 40] {
        let form = Form {
            restart,
            ..Form::of(97, 83)
        };
        let plain = Form::of(97, 83);
        assert_ne!(form.encode(), plain.encode());
        assert!(decoded(&form, 0) == decoded(&plain, 0), "{form:?}");
    }
}

#[test]
fn lines_lie_at_their_stride_with_zeros_between() {
    for sampling in SAMPLINGS {
        let form = Form {
            sampling,
            ..Form::of(45, 38)
        };
        let packed = decoded(&form, 0);
        for padding in [4, 12, 76, 400] {
            let frame = decoded(&form, padding);
            let lines = frame.chunks(4 * 45 + padding as usize);
            assert_eq!(lines.len(), 38);
            for (line, expected) in lines.zip(packed.chunks(4 * 45)) {
                assert!(&line[..4 * 45] == expected);
                assert!(line[4 * 45..].iter().all(|byte| *byte == 0));
            }
        }
    }
}

/// A bitstream is fed to the codec in pieces; this one takes many.
#[test]
fn a_picture_as_large_as_a_frame_can_be() {
    let form = Form {
        quality: 98,
        ..Form::of(2048, 512)
    };
    assert!(form.encode().len() > 200_000);
    expect_likeness(&form, &decoded(&form, 0), 4 * 2048);
}

#[test]
fn what_follows_a_picture_does_not_matter() {
    let form = Form::of(24, 24);
    let mut bytes = form.encode();
    let layout = Layout::new(24, 24, 96).expect("a layout");
    let mut frame = vec![0; layout.size()];
    bytes.extend([0, 0, 0xff, 0xd8, 0xff, 0xc4, 1, 2, 3]);
    assert_eq!(decode(&bytes[..], &mut frame, &layout), Ok(()));
    assert!(frame == decoded(&form, 0));
}

#[test]
fn a_picture_of_another_size_writes_nothing() {
    let bytes = Form::of(24, 16).encode();
    for (width, height) in [
        (23, 16),
        (25, 16),
        (24, 15),
        (24, 17),
        (16, 24),
        (2048, 512),
    ] {
        let layout = Layout::new(width, height, 4 * width).expect("a layout");
        let mut frame = vec![0x5a; layout.size()];
        assert_eq!(
            decode(&bytes[..], &mut frame, &layout),
            Err(PictureError::OtherSize(24, 16))
        );
        assert!(frame.iter().all(|byte| *byte == 0x5a));
    }
}
