// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads a film: an MP4 file whose video track is encrypted as ISO/IEC 23001-7 says.
//!
//! The tables are read by the crate `mp4-atom`; what it does not know, the boxes of
//! the encryption, by [`super::protection`]. Nothing is taken on trust: what the
//! tables come to is checked against the file before anything is played.

use std::io::{Read, Seek};

use mp4_atom::{Co64, FourCC, Hdlr, Mdhd, Stco, Stsc, Stsz, StszSamples, Stts};

use super::boxes::{find, BoxError, Kind, Node, Outline, Problem};
use super::protection::{Encryption, Protection};

/// Samples of a film at most: ten hours at 30 a second.
pub const MAX_SAMPLES: usize = 1 << 20;

/// A film: its video track.
#[derive(Debug, Clone)]
pub struct Movie {
    /// Pixels in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// What the samples are when decrypted (`frma`).
    pub codec: Kind,
    /// Units of time in a second.
    pub timescale: u32,
    /// How it is encrypted.
    pub protection: Protection,
    /// The samples, in decoding order.
    pub samples: Vec<Sample>,
}

/// A sample of the video track: a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it is, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// When it is decoded, in units of the [timescale](Movie::timescale).
    pub time: u64,
    /// How it is encrypted.
    pub encryption: Encryption,
}

impl Movie {
    /// Reads a film's description.
    ///
    /// # Errors
    ///
    /// With the box that is wrong, and where it is.
    pub fn read(film: &mut (impl Read + Seek)) -> Result<Self, BoxError> {
        let outline = Outline::read(film)?;
        let moov = outline.node();
        let boxes = moov.children(0)?;
        if let Some(mvex) = find(&boxes, b"mvex") {
            return Err(mvex.unsupported("a film in fragments"));
        }
        for trak in boxes.iter().filter(|node| node.kind.0 == *b"trak") {
            let mdia = trak.child(b"mdia")?;
            let handler: Hdlr = mdia.child(b"hdlr")?.read()?;
            if handler.handler == FourCC::new(b"vide") {
                return Self::of_track(trak, &mdia, outline.length, film);
            }
        }
        Err(moov.contradiction("there is no video track in it"))
    }

    fn of_track(
        trak: &Node<'_>,
        mdia: &Node<'_>,
        length: u64,
        film: &mut (impl Read + Seek),
    ) -> Result<Self, BoxError> {
        let mdhd = mdia.child(b"mdhd")?;
        let timescale = mdhd.read::<Mdhd>()?.timescale;
        if timescale == 0 {
            return Err(mdhd.contradiction("no units of time in a second"));
        }
        let stbl = mdia.child(b"minf")?.child(b"stbl")?;
        let entry = Entry::read(&stbl.child(b"stsd")?)?;
        let table = stbl.children(0)?;
        let sizes = sizes(&stbl.child(b"stsz")?)?;
        let times = times(&stbl.child(b"stts")?, sizes.len())?;
        let chunks = Chunks::read(&stbl, &table, sizes.len())?;
        let encryptions =
            entry
                .protection
                .samples(&trak.children(0)?, &table, &sizes, &chunks.samples, film)?;
        let offsets = chunks.place(&sizes, length)?;
        let samples = (sizes.iter().zip(times))
            .zip(offsets.into_iter().zip(encryptions))
            .map(|((&size, time), (offset, encryption))| Sample {
                offset,
                size,
                time,
                encryption,
            })
            .collect::<Vec<_>>();
        let wrong = samples.iter().enumerate().find_map(|(number, sample)| {
            match sample.encryption.subsamples(sample.size) {
                Ok(_) => None,
                Err(sum) => Some((number, sample.size, sum)),
            }
        });
        if let Some((number, size, sum)) = wrong {
            let said_in = find(&table, b"senc").unwrap_or(stbl);
            return Err(said_in.contradiction(format!(
                "the subsamples of sample {number} make up {sum} bytes, while stsz has {size}"
            )));
        }
        Ok(Self {
            width: entry.width,
            height: entry.height,
            codec: entry.codec,
            timescale,
            protection: entry.protection,
            samples,
        })
    }
}

/// The track's sample description.
struct Entry {
    width: u16,
    height: u16,
    codec: Kind,
    protection: Protection,
}

impl Entry {
    fn read(stsd: &Node<'_>) -> Result<Self, BoxError> {
        // Version, flags, and the number of entries.
        let entries = stsd.children(8)?;
        let [entry] = entries.as_slice() else {
            return Err(stsd.unsupported(format!("a track of {} descriptions", entries.len())));
        };
        if entry.kind.0 != *b"encv" {
            return Err(entry.unsupported("a film that is not encrypted"));
        }
        // Of a VisualSampleEntry: six bytes reserved, reference, 16 bytes predefined.
        let mut fields = entry.fields();
        fields.bytes(24)?;
        let (width, height) = (fields.u16()?, fields.u16()?);
        if width == 0 || height == 0 {
            return Err(entry.contradiction(format!("pictures of {width}x{height} pixels")));
        }
        // Resolutions, frame count, name, depth: up to 78 bytes.
        let parts = entry.children(78)?;
        let sinf =
            find(&parts, b"sinf").ok_or_else(|| entry.error(Problem::Without(Kind(*b"sinf"))))?;
        Ok(Self {
            width,
            height,
            codec: Kind(sinf.child(b"frma")?.fields().array()?),
            protection: Protection::read(&sinf)?,
        })
    }
}

/// The samples' sizes.
fn sizes(stsz: &Node<'_>) -> Result<Vec<u32>, BoxError> {
    let sizes = match stsz.read::<Stsz>()?.samples {
        StszSamples::Different { sizes } => sizes,
        StszSamples::Identical { count, size } => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            vec![size; count.min(MAX_SAMPLES + 1)]
        }
    };
    if sizes.len() > MAX_SAMPLES {
        return Err(stsz.unsupported(format!("a film of more than {MAX_SAMPLES} samples")));
    }
    match sizes.iter().position(|size| *size == 0) {
        Some(empty) => Err(stsz.contradiction(format!("sample {empty} is empty"))),
        None if sizes.is_empty() => Err(stsz.contradiction("no samples")),
        None => Ok(sizes),
    }
}

/// When each sample is decoded.
fn times(stts: &Node<'_>, count: usize) -> Result<Vec<u64>, BoxError> {
    let mut times = Vec::with_capacity(count);
    let mut now = 0u64;
    for entry in stts.read::<Stts>()?.entries {
        for _ in 0..entry.sample_count {
            if times.len() == count {
                return Err(
                    stts.contradiction(format!("more samples than stsz, which has {count}"))
                );
            }
            times.push(now);
            // At most 2^20 times 2^32.
            now += u64::from(entry.sample_delta);
        }
    }
    match times.len() == count {
        true => Ok(times),
        false => {
            Err(stts.contradiction(format!("{} samples, while stsz has {count}", times.len())))
        }
    }
}

/// The track's chunks: where each is, and how many samples it has.
struct Chunks<'m> {
    offsets: Vec<u64>,
    samples: Vec<usize>,
    /// The box that says where they are.
    place: Node<'m>,
}

impl<'m> Chunks<'m> {
    fn read(stbl: &Node<'m>, table: &[Node<'m>], count: usize) -> Result<Self, BoxError> {
        let (place, offsets) = match find(table, b"co64") {
            Some(place) => (place, place.read::<Co64>()?.entries),
            None => {
                let place = stbl.child(b"stco")?;
                let offsets: Stco = place.read()?;
                (place, offsets.entries.into_iter().map(u64::from).collect())
            }
        };
        let stsc = stbl.child(b"stsc")?;
        let entries = stsc.read::<Stsc>()?.entries;
        let mut samples = Vec::with_capacity(offsets.len().min(count));
        let mut left = count;
        for (index, entry) in entries.iter().enumerate() {
            if entry.sample_description_index != 1 {
                return Err(stsc.contradiction(format!(
                    "description {}, of one that there is",
                    entry.sample_description_index
                )));
            }
            let is_next = usize::try_from(entry.first_chunk) == Ok(samples.len() + 1);
            if !is_next || entry.samples_per_chunk == 0 {
                return Err(stsc.contradiction(format!(
                    "{} samples in chunk {} come after chunk {}",
                    entry.samples_per_chunk,
                    entry.first_chunk,
                    samples.len()
                )));
            }
            let next = match entries.get(index + 1) {
                Some(next) => next.first_chunk,
                None => u32::MAX,
            };
            let last = usize::try_from(next)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            while samples.len() < last.min(offsets.len()) {
                let own = usize::try_from(entry.samples_per_chunk)
                    .unwrap_or(usize::MAX)
                    .min(left);
                samples.push(own);
                left -= own;
            }
        }
        if left > 0 || samples.len() != offsets.len() {
            return Err(stsc.contradiction(format!(
                "{} samples in {} chunks, while there are {count} in {}",
                count - left,
                samples.len(),
                offsets.len()
            )));
        }
        Ok(Self {
            offsets,
            samples,
            place,
        })
    }

    /// Where each sample is, in a file of `length` bytes.
    fn place(&self, sizes: &[u32], length: u64) -> Result<Vec<u64>, BoxError> {
        let mut offsets = Vec::with_capacity(sizes.len());
        let mut sizes = sizes.iter();
        for (&start, &samples) in self.offsets.iter().zip(&self.samples) {
            let mut next = start;
            for &size in sizes.by_ref().take(samples) {
                let end = next.saturating_add(size.into());
                if end > length {
                    return Err(self.place.error(Problem::Outside {
                        sample: offsets.len(),
                        end,
                        length,
                    }));
                }
                offsets.push(next);
                next = end;
            }
        }
        Ok(offsets)
    }
}
