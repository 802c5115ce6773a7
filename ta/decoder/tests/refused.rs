// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each kind of picture that is not decoded, and what is said of it.

mod samples;

use jpeg_encoder::{ColorType, Encoder};
use ringfence_decoder::frame::Layout;
use ringfence_decoder::picture::decode;
use ringfence_decoder::refusal::{Feature, PictureError};
use samples::{pixels, Form, SAMPLINGS};

use PictureError::{Malformed, NotAPicture, Truncated, Unsupported};

fn refused(bytes: &[u8]) -> PictureError {
    let layout = Layout::new(32, 24, 128).expect("a layout");
    let mut frame = vec![0; layout.size()];
    decode(bytes, &mut frame, &layout).expect_err("refused")
}

fn good() -> Vec<u8> {
    Form::of(32, 24).encode()
}

/// Where the first segment with this marker begins.
fn segment(bytes: &[u8], marker: u8) -> usize {
    let mut at = 2;
    while bytes[at + 1] != marker {
        at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
    at
}

/// The good picture with a byte of a segment changed.
fn changed(marker: u8, offset: usize, byte: u8) -> Vec<u8> {
    let mut bytes = good();
    let at = segment(&bytes, marker) + offset;
    bytes[at] = byte;
    bytes
}

/// The good picture with bytes put before a segment.
fn inserted(marker: u8, bytes: &[u8]) -> Vec<u8> {
    let mut picture = good();
    let at = segment(&picture, marker);
    picture.splice(at..at, bytes.iter().copied());
    picture
}

const SOF: u8 = 0xc0;
const DHT: u8 = 0xc4;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;

#[test]
fn no_picture() {
    for bytes in [&[][..], &[0xff], &[0xff, 0xd9], b"GIF89a", &[0; 100]] {
        assert_eq!(refused(bytes), NotAPicture, "{bytes:x?}");
    }
}

#[test]
fn other_processes() {
    let mut progressive = Vec::new();
    let mut encoder = Encoder::new(&mut progressive, 90);
    encoder.set_progressive(true);
    encoder
        .encode(&pixels(32, 24), 32, 24, ColorType::Rgb)
        .expect("a picture");
    assert_eq!(refused(&progressive), Unsupported(Feature::Process(2)));
    for number in (1..16u8).filter(|number| ![4, 8, 12].contains(number)) {
        let bytes = changed(SOF, 1, 0xc0 + number);
        assert_eq!(refused(&bytes), Unsupported(Feature::Process(number)));
    }
    // Tables for arithmetic coding.
    let bytes = inserted(SOF, &[0xff, 0xcc, 0, 4, 0, 0]);
    assert_eq!(refused(&bytes), Unsupported(Feature::Process(9)));
}

#[test]
fn other_samples_and_colours() {
    for bits in [2, 12, 16] {
        let bytes = changed(SOF, 4, bits);
        assert_eq!(refused(&bytes), Unsupported(Feature::Precision(bits)));
    }
    let mut cmyk = Vec::new();
    Encoder::new(&mut cmyk, 90)
        .encode(&[7; 32 * 24 * 4], 32, 24, ColorType::Cmyk)
        .expect("a picture");
    let error = refused(&cmyk);
    assert!(
        [Feature::Components(4), Feature::ColourSpace].contains(&match error {
            Unsupported(feature) => feature,
            error => panic!("{error}"),
        })
    );
    // Adobe's segment says that there is no transform.
    let adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0";
    let bytes = inserted(SOF, adobe);
    assert_eq!(refused(&bytes), Unsupported(Feature::ColourSpace));
    // Components named after the colours.
    let mut bytes = good();
    let (frame, scan) = (segment(&bytes, SOF), segment(&bytes, SOS));
    for (index, name) in b"RGB".iter().enumerate() {
        bytes[frame + 10 + 3 * index] = *name;
        bytes[scan + 5 + 2 * index] = *name;
    }
    assert_eq!(refused(&bytes), Unsupported(Feature::ColourSpace));
}

#[test]
fn other_densities() {
    for density in [0x00, 0x01, 0x10, 0x13, 0x31, 0x41, 0x14, 0x44, 0xff] {
        let bytes = changed(SOF, 11, density);
        assert_eq!(refused(&bytes), Unsupported(Feature::Sampling));
    }
    for density in [0x00, 0x21, 0x12, 0x22] {
        let bytes = changed(SOF, 14, density);
        assert_eq!(refused(&bytes), Unsupported(Feature::Sampling));
    }
}

#[test]
fn sizes_that_cannot_be() {
    let sized = |width: u16, height: u16| {
        let mut bytes = good();
        let at = segment(&bytes, SOF) + 5;
        bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
        refused(&bytes)
    };
    assert_eq!(sized(2049, 24), Unsupported(Feature::Width(2049)));
    assert_eq!(sized(u16::MAX, 24), Unsupported(Feature::Width(u16::MAX)));
    assert_eq!(sized(32, 0), Unsupported(Feature::Height));
    assert_eq!(sized(0, 24), Malformed("lines without pixels"));
    assert_eq!(sized(32, 25), PictureError::OtherSize(32, 25));
}

#[test]
fn several_scans() {
    assert_eq!(
        refused(&changed(SOS, 4, 1)),
        Unsupported(Feature::Scans),
        "one component of three"
    );
    assert!(matches!(refused(&changed(SOS, 12, 5)), Malformed(_)));
    let mut apart = Vec::new();
    let mut encoder = Encoder::new(&mut apart, 90);
    // This encoder has one scan for each component then.
    encoder.set_optimized_huffman_tables(true);
    encoder
        .encode(&pixels(32, 24), 32, 24, ColorType::Rgb)
        .expect("a picture");
    assert_eq!(refused(&apart), Unsupported(Feature::Scans));
    // A second scan behind the first, which has all.
    let mut bytes = good();
    bytes.truncate(bytes.len() - 2);
    let scan = segment(&bytes, SOS);
    bytes.extend_from_within(scan..);
    bytes.extend([0xff, 0xd9]);
    assert_eq!(refused(&bytes), Malformed("a marker inside the scan"));
}

#[test]
fn segments_that_break_the_format() {
    let bad = |bytes: Vec<u8>| matches!(refused(&bytes), Malformed(_));
    assert!(bad(changed(SOF, 3, 16)), "a frame header too short");
    let name = good()[segment(&good(), SOF) + 10];
    assert!(bad(changed(SOF, 13, name)), "two components of one name");
    assert!(bad(changed(SOS, 3, 13)), "a scan header too long");
    assert!(bad(changed(SOS, 5, 9)), "a scan of an unknown component");
    assert!(bad(changed(DQT, 4, 0x34)), "a table of an unknown form");
    assert!(bad(changed(DHT, 5, 0xff)), "codes that do not exist");
    assert!(bad(inserted(SOF, &[0xff, 0xdd, 0, 2])), "no interval");
    assert!(bad(inserted(SOF, &[0xff, 0xfe, 0, 1])), "length 1");
    assert!(bad(inserted(SOF, &[0x00])), "no marker");
    assert!(bad(inserted(SOF, &[0xff, 0xd8])), "a start in the middle");
    assert!(bad(inserted(SOF, &[0xff, 0xd9])), "an end before the scan");
    let mut two = good();
    let at = segment(&two, SOF);
    two.splice(at..at, two[at..at + 19].to_vec());
    assert!(bad(two), "two frame headers");
    let comment = [&[0xff, 0xfe, 0xff, 0xff][..], &[0; 0xfffd]].concat();
    let bytes = inserted(SOF, &comment);
    let layout = Layout::new(32, 24, 128).expect("a layout");
    assert_eq!(
        decode(&bytes[..], &mut vec![0; layout.size()], &layout),
        Ok(()),
        "a long comment is none of these"
    );
}

/// Of tables without end none gets as far as the codec.
#[test]
fn tables_without_end() {
    let mut bytes = good();
    let at = segment(&bytes, DQT);
    let table = bytes[at..at + 69].to_vec();
    for _ in 0..100 {
        bytes.splice(at..at, table.iter().copied());
    }
    assert_eq!(
        refused(&bytes),
        Malformed("more tables than a picture can use")
    );
}

#[test]
fn a_header_without_a_scan_is_cut_short() {
    for sampling in SAMPLINGS {
        let bytes = Form {
            sampling,
            ..Form::of(32, 24)
        }
        .encode();
        let scan = segment(&bytes, SOS);
        for length in 2..scan {
            assert_eq!(refused(&bytes[..length]), Truncated, "{length}");
        }
    }
}

#[test]
fn every_refusal_has_a_sentence() {
    for error in [
        NotAPicture,
        Malformed("somewhere"),
        Truncated,
        PictureError::OtherSize(640, 360),
        Unsupported(Feature::Process(2)),
        Unsupported(Feature::Precision(12)),
        Unsupported(Feature::Components(4)),
        Unsupported(Feature::ColourSpace),
        Unsupported(Feature::Sampling),
        Unsupported(Feature::Scans),
        Unsupported(Feature::Width(5000)),
        Unsupported(Feature::Height),
    ] {
        assert!(error.to_string().len() > 5);
    }
    assert!(PictureError::OtherSize(640, 360)
        .to_string()
        .contains("640 x 360"));
}
