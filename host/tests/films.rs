// SPDX-License-Identifier: MIT OR Apache-2.0

//! Films as files: what is read of a good one, and that no file, however damaged,
//! is read as anything else than a film or an error that names a box.
//!
//! With `RINGFENCE_WRITE_SEEDS=1` in the environment the fuzz target's seeds are
//! written instead of compared.

#[path = "../fuzz/checks.rs"]
mod checks;

#[path = "../../ta/proto/fuzz/seeds.rs"]
#[expect(dead_code, reason = "proptest has numbers of its own")]
mod stored;

use std::collections::BTreeMap;
use std::path::Path;

use checks::read;
use proptest::prelude::*;
use ringfence::play::boxes::{Kind, Problem};
use ringfence::play::mp4::MAX_SAMPLES;
use ringfence::proto::message::{Pattern, Scheme, Subsample};

/// A box.
fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let size = u32::try_from(body.len() + 8).expect("a small box");
    [&size.to_be_bytes(), &kind[..], &body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// What a test changes in a film.
#[derive(Clone)]
struct Recipe {
    scheme: [u8; 4],
    tenc: Vec<u8>,
    senc: Option<Vec<u8>>,
    /// `saiz` and `saio`, whose place is given from the start of `mdat`'s content.
    elsewhere: Option<(Vec<u8>, u32)>,
    stsz: Vec<u8>,
    stsc: Vec<u8>,
    stts: Vec<u8>,
    entry: [u8; 4],
    handler: [u8; 4],
    more: Vec<u8>,
    content: Vec<u8>,
}

/// Bytes of each sample.
const SIZES: [u32; 3] = [100, 37, 5];

impl Default for Recipe {
    /// Three samples in two chunks, with IVs of eight bytes.
    fn default() -> Self {
        let ivs: Vec<u8> = (1..=3u64).flat_map(|n| n.to_be_bytes()).collect();
        Self {
            scheme: *b"cenc",
            tenc: [&words(&[0])[..], &[0, 0, 1, 8], &[0xab; 16]].concat(),
            senc: Some([words(&[0, 3]), ivs].concat()),
            elsewhere: None,
            stsz: words(&[0, 0, 3, SIZES[0], SIZES[1], SIZES[2]]),
            stsc: words(&[0, 2, 1, 2, 1, 2, 1, 1]),
            stts: words(&[0, 1, 3, 40]),
            entry: *b"encv",
            handler: *b"vide",
            more: Vec::new(),
            content: (0..=255).collect(),
        }
    }
}

impl Recipe {
    fn film(&self) -> Vec<u8> {
        let ftyp = boxed(b"ftyp", &[b"isom", &[0; 4]]);
        let start = u32::try_from(ftyp.len() + 8).expect("small");
        let mut entry = vec![0; 78];
        entry[7] = 1;
        entry[24..28].copy_from_slice(&[2, 128, 1, 104]);
        let sinf = boxed(
            b"sinf",
            &[
                &boxed(b"frma", &[b"mp4v"]),
                &boxed(b"schm", &[&words(&[0]), &self.scheme, &words(&[0x1_0000])]),
                &boxed(b"schi", &[&boxed(b"tenc", &[&self.tenc])]),
            ],
        );
        let entry = boxed(&self.entry, &[&entry, &sinf]);
        let mut table = [
            boxed(b"stsd", &[&words(&[0, 1]), &entry]),
            boxed(b"stts", &[&self.stts]),
            boxed(b"stsc", &[&self.stsc]),
            boxed(b"stsz", &[&self.stsz]),
            // The second chunk begins a little behind the first.
            boxed(b"stco", &[&words(&[0, 2, start, start + 150])]),
            self.more.clone(),
        ]
        .concat();
        if let Some(senc) = &self.senc {
            table.extend(boxed(b"senc", &[senc]));
        }
        if let Some((saiz, place)) = &self.elsewhere {
            table.extend(boxed(b"saiz", &[saiz]));
            table.extend(boxed(b"saio", &[&words(&[0, 1, start + place])]));
        }
        let hdlr = [&words(&[0, 0]), &self.handler[..], &[0; 13]].concat();
        let mdhd = words(&[0, 0, 0, 1000, 120, 0x55c4_0000]);
        let trak = boxed(
            b"trak",
            &[&boxed(
                b"mdia",
                &[
                    &boxed(b"mdhd", &[&mdhd]),
                    &boxed(b"hdlr", &[&hdlr]),
                    &boxed(b"minf", &[&boxed(b"stbl", &[&table])]),
                ],
            )],
        );
        let mdat = boxed(b"mdat", &[&self.content]);
        [ftyp, mdat, boxed(b"moov", &[&trak])].concat()
    }
}

/// The error of a film, as text.
fn refused(recipe: &Recipe) -> String {
    match read(&recipe.film()) {
        Ok(movie) => panic!("it is a film: {movie:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_film_is_read() {
    let film = Recipe::default().film();
    let movie = read(&film).expect("a film");
    assert_eq!((movie.width, movie.height), (640, 360));
    assert_eq!(movie.codec, Kind(*b"mp4v"));
    assert_eq!(movie.timescale, 1000);
    assert_eq!(movie.protection.key_id, [0xab; 16]);
    assert_eq!(movie.protection.scheme, Scheme::Cenc);
    let places: Vec<_> = movie
        .samples
        .iter()
        .map(|sample| (sample.offset, sample.size, sample.time))
        .collect();
    let start = 24;
    assert_eq!(
        places,
        [(start, 100, 0), (start + 100, 37, 40), (start + 150, 5, 80)]
    );
    let second = &movie.samples[1].encryption;
    assert_eq!(second.iv, [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(second.subsamples.is_empty());
}

/// What is said of one sample: its IV, and its subsamples.
fn info(iv: u8, parts: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = [&[iv; 8][..], &(parts.len() as u16).to_be_bytes()].concat();
    for (clear, encrypted) in parts {
        bytes.extend(clear.to_be_bytes());
        bytes.extend(encrypted.to_be_bytes());
    }
    bytes
}

fn infos() -> [Vec<u8>; 3] {
    [
        info(1, &[(10, 60), (30, 0)]),
        info(2, &[(0, 37)]),
        info(3, &[(5, 0)]),
    ]
}

/// A film whose samples have subsamples.
fn with_subsamples(infos: &[Vec<u8>; 3]) -> Recipe {
    Recipe {
        senc: Some([words(&[2, 3]), infos.concat()].concat()),
        ..Recipe::default()
    }
}

/// The same, told elsewhere in the file.
fn with_subsamples_elsewhere() -> Recipe {
    let content = Recipe::default().content;
    let place = content.len() as u32;
    Recipe {
        senc: None,
        elsewhere: Some((
            [&words(&[0])[..], &[0], &words(&[3]), &[22, 16, 16]].concat(),
            place,
        )),
        content: [content, infos().concat()].concat(),
        ..Recipe::default()
    }
}

/// A film whose samples have the same IV.
fn with_constant_iv() -> Recipe {
    let tenc = [
        &words(&[0x0100_0000])[..],
        &[0, 0x19, 1, 0],
        &[0xab; 16],
        &[16],
        &[7; 16],
    ];
    Recipe {
        scheme: *b"cbcs",
        tenc: tenc.concat(),
        senc: None,
        ..Recipe::default()
    }
}

/// The fuzz target's seeds, by name.
fn seeds() -> [(&'static str, Recipe); 4] {
    [
        ("plain", Recipe::default()),
        ("subsamples", with_subsamples(&infos())),
        ("subsamples-elsewhere", with_subsamples_elsewhere()),
        ("constant-iv", with_constant_iv()),
    ]
}

#[test]
fn seeds_are_what_recipes_make() {
    let made: BTreeMap<_, _> = seeds().map(|(name, recipe)| (name, recipe.film())).into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/film");
    for (name, seed) in stored::check(&folder, &made) {
        assert!(read(&seed).is_ok(), "{name}");
    }
}

#[test]
fn subsamples_are_read_with_the_sample() {
    let movie = read(&with_subsamples(&infos()).film()).expect("a film");
    let first = Subsample {
        clear: 10,
        encrypted: 60,
    };
    assert_eq!(movie.samples[0].encryption.subsamples[0], first);
    assert_eq!(movie.samples[2].encryption.iv[..8], [3; 8]);

    let other = read(&with_subsamples_elsewhere().film()).expect("a film");
    for (one, other) in movie.samples.iter().zip(&other.samples) {
        assert_eq!(one.encryption, other.encryption);
    }

    // Subsamples that overflow their sample, and 32 bits.
    for parts in [[(10, 61), (30, 0)], [(u16::MAX, u32::MAX); 2]] {
        let [_, second, third] = infos();
        let error = refused(&with_subsamples(&[info(1, &parts), second, third]));
        assert!(
            error.contains("senc") && error.contains("sample 0"),
            "{error}"
        );
    }
}

#[test]
fn a_constant_iv_is_every_samples() {
    let movie = read(&with_constant_iv().film()).expect("a film");
    assert_eq!(movie.protection.scheme, Scheme::Cbcs);
    assert_eq!(movie.protection.pattern, Pattern { crypt: 1, skip: 9 });
    assert!(movie.samples.iter().all(|s| s.encryption.iv == [7; 16]));
}

#[test]
fn what_is_wrong_is_told_with_its_box_and_place() {
    let good = Recipe::default();
    let cases: [(Recipe, &str, &str); 14] = [
        (
            Recipe {
                handler: *b"soun",
                ..good.clone()
            },
            "moov",
            "no video track",
        ),
        (
            Recipe {
                entry: *b"mp4v",
                ..good.clone()
            },
            "mp4v",
            "not encrypted",
        ),
        (
            Recipe {
                scheme: *b"cens",
                ..good.clone()
            },
            "schm",
            "scheme cens",
        ),
        (
            Recipe {
                tenc: good.tenc[..20].to_vec(),
                ..good.clone()
            },
            "tenc",
            "4 bytes more",
        ),
        (
            Recipe {
                tenc: [&words(&[0])[..], &[0, 0, 1, 9], &[0; 16]].concat(),
                ..good.clone()
            },
            "tenc",
            "IVs of 9 bytes",
        ),
        (
            Recipe {
                tenc: [&words(&[0])[..], &[0, 0, 0, 8], &[0; 16]].concat(),
                ..good.clone()
            },
            "tenc",
            "not encrypted by itself",
        ),
        (
            Recipe {
                senc: None,
                ..good.clone()
            },
            "senc",
            "is not there",
        ),
        (
            Recipe {
                senc: Some(words(&[0, 4, 0, 0])),
                ..good.clone()
            },
            "senc",
            "4 samples",
        ),
        (
            Recipe {
                senc: Some(words(&[0, 3, 0, 0])),
                ..good.clone()
            },
            "senc",
            "bytes more",
        ),
        (
            Recipe {
                stsz: words(&[0, 0, 3, 100, 37, 0]),
                ..good.clone()
            },
            "stsz",
            "sample 2 is empty",
        ),
        (
            Recipe {
                stsz: words(&[0, 0, 3, 100, 37, 10_000]),
                ..good.clone()
            },
            "stco",
            "sample 2 ends",
        ),
        (
            Recipe {
                stsc: words(&[0, 1, 1, 1, 1]),
                ..good.clone()
            },
            "stsc",
            "2 samples in 2 chunks",
        ),
        (
            Recipe {
                stts: words(&[0, 1, 2, 40]),
                ..good.clone()
            },
            "stts",
            "2 samples",
        ),
        (
            Recipe {
                more: boxed(b"sbgp", &[&words(&[0]), b"seig", &words(&[0])]),
                ..good.clone()
            },
            "sbgp",
            "key changes",
        ),
    ];
    for (recipe, kind, says) in &cases {
        let error = refused(recipe);
        assert!(
            error.starts_with(&format!("box {kind} at byte ")),
            "{error}"
        );
        assert!(error.contains(says), "{says:?}: {error}");
    }
}

#[test]
fn a_film_that_is_cut_short_anywhere_is_refused() {
    let film = Recipe::default().film();
    for length in 0..film.len() {
        let error = read(&film[..length]).expect_err("a part of a film");
        assert!(
            matches!(
                error.problem,
                Problem::CutShort { .. } | Problem::Contradiction(_)
            ),
            "{length}: {error}"
        );
    }
}

#[test]
fn counts_beyond_reason_take_no_memory() {
    let cases = [
        Recipe {
            stsz: words(&[0, 1, u32::MAX]),
            ..Recipe::default()
        },
        Recipe {
            stsz: words(&[0, 0, u32::MAX]),
            ..Recipe::default()
        },
        Recipe {
            stts: words(&[0, 1, u32::MAX, u32::MAX]),
            ..Recipe::default()
        },
        Recipe {
            stsc: words(&[0, u32::MAX, 1, 2, 1]),
            ..Recipe::default()
        },
        Recipe {
            senc: Some(words(&[0, u32::MAX])),
            ..Recipe::default()
        },
    ];
    for recipe in &cases {
        refused(recipe);
    }
    let error = refused(&cases[0]);
    assert!(error.contains(&MAX_SAMPLES.to_string()), "{error}");
    let large = [&[0, 0, 0, 1][..], b"moov", &u64::MAX.to_be_bytes()].concat();
    assert!(matches!(
        read(&large).expect_err("a huge box").problem,
        Problem::CutShort { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damage_is_read_as_more_than_the_file_has(
        seed in prop::sample::select(Vec::from(seeds().map(|(name, _)| name))),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let recipe = seeds().into_iter().find(|(name, _)| *name == seed);
        let mut film = recipe.expect("it is one of them").1.film();
        for (place, byte) in changes {
            *place.get_mut(&mut film[..]) = byte;
        }
        if is_cut {
            film.truncate(cut.index(film.len()));
        }
        // The checks are in there.
        let _ = read(&film);
    }

    #[test]
    fn random_bytes_are_no_film(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
        let moov = boxed(b"moov", &[&bytes]);
        prop_assert!(read(&moov).is_err());
    }
}
