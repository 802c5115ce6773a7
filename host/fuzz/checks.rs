// SPDX-License-Identifier: MIT OR Apache-2.0

//! What must hold for any file at all; shared by the fuzz target and by the tests
//! that damage films.

use std::io::Cursor;

use ringfence::play::cut::cut;
use ringfence::play::{BoxError, Movie};
use ringfence::proto::message::{MAX_SAMPLE, MAX_SUBSAMPLES};

/// Reads a film: what it says to be there is there, and is asked for in commands that the
/// trusted application takes.
pub fn read(film: &[u8]) -> Result<Movie, BoxError> {
    let movie = Movie::read(&mut Cursor::new(film))?;
    for sample in &movie.samples {
        let start = usize::try_from(sample.offset).expect("inside the file");
        let bytes = film[start..]
            .get(..sample.size as usize)
            .expect("a sample inside the file");
        let encryption = &sample.encryption;
        let subsamples = encryption
            .subsamples(sample.size)
            .expect("subsamples that make up their sample");
        let mut end = 0;
        for piece in cut(&movie.protection, encryption.iv, &subsamples, bytes) {
            let range = piece.range;
            assert_eq!(range.start, end, "a gap between two commands");
            assert!((1..=MAX_SAMPLE).contains(&range.len()), "{range:?}");
            assert!((1..=MAX_SUBSAMPLES).contains(&piece.request.subsamples.len()));
            end = range.end;
        }
        assert_eq!(end, bytes.len(), "the commands make up the sample");
    }
    Ok(movie)
}
