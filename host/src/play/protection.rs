// SPDX-License-Identifier: MIT OR Apache-2.0

//! What ISO/IEC 23001-7 (Common Encryption) adds to a track: which key and scheme,
//! and for each sample an IV and what of it is clear.

use std::io::{Read, Seek, SeekFrom};

use mp4_atom::{Saio, Saiz};
use ringfence_proto::message::{KeyId, Pattern, Scheme, Subsample};

use super::boxes::{find, BoxError, Fields, Node, Problem};

/// How a track is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Names the key of all samples.
    pub key_id: KeyId,
    /// The scheme.
    pub scheme: Scheme,
    /// Which blocks are encrypted.
    pub pattern: Pattern,
    /// Bytes of each sample's IV: 8, 16, or 0 if all samples have the same.
    iv_size: u8,
    /// The IV of all samples, if they have the same.
    constant_iv: [u8; 16],
}

/// How a sample is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// First counter block, or IV.
    pub iv: [u8; 16],
    /// What is clear and what encrypted; none if all of it is encrypted.
    pub subsamples: Vec<Subsample>,
}

impl Protection {
    /// Reads `sinf`, the description of an encrypted track's protection.
    ///
    /// # Errors
    ///
    /// For a scheme that is not known, and for damaged boxes.
    pub fn read(sinf: &Node<'_>) -> Result<Self, BoxError> {
        let schm = sinf.child(b"schm")?;
        let mut fields = schm.fields();
        fields.version_and_flags()?;
        let scheme = match &fields.array()? {
            b"cenc" => Scheme::Cenc,
            b"cbcs" => Scheme::Cbcs,
            other => {
                let name = other.escape_ascii();
                return Err(schm.unsupported(format!("a film of scheme {name}")));
            }
        };
        let tenc = sinf.child(b"schi")?.child(b"tenc")?;
        let mut fields = tenc.fields();
        let (version, _) = fields.version_and_flags()?;
        let [_, blocks, is_protected, iv_size] = fields.array()?;
        let key_id = fields.array()?;
        let pattern = match version {
            0 => Pattern::default(),
            1 => Pattern {
                crypt: blocks >> 4,
                skip: blocks & 15,
            },
            other => return Err(tenc.unsupported(format!("version {other}"))),
        };
        let is_pattern = match scheme {
            Scheme::Cenc => pattern == Pattern::default(),
            Scheme::Cbcs => pattern.crypt > 0 || pattern.skip == 0,
        };
        if !is_pattern {
            let Pattern { crypt, skip } = pattern;
            return Err(tenc.contradiction(format!(
                "a pattern of {crypt} encrypted and {skip} clear blocks, which {scheme:?} has not"
            )));
        }
        if is_protected != 1 {
            return Err(tenc.unsupported("a track that is not encrypted by itself"));
        }
        let mut constant_iv = [0; 16];
        match iv_size {
            8 | 16 => {}
            0 => {
                let size = usize::from(fields.u8()?);
                if size != 8 && size != 16 {
                    return Err(tenc.contradiction(format!("a constant IV of {size} bytes")));
                }
                constant_iv[..size].copy_from_slice(fields.bytes(size)?);
            }
            other => return Err(tenc.contradiction(format!("IVs of {other} bytes"))),
        }
        Ok(Self {
            key_id,
            scheme,
            pattern,
            iv_size,
            constant_iv,
        })
    }

    /// Reads how each of a track's samples is encrypted.
    ///
    /// `trak` and `stbl` are where this is said, `sizes` the samples' sizes, and
    /// `chunks` how many samples each chunk has.
    ///
    /// # Errors
    ///
    /// If it is not said for every sample, or does not fit the sample.
    pub fn samples(
        &self,
        trak: &[Node<'_>],
        stbl: &[Node<'_>],
        sizes: &[u32],
        chunks: &[usize],
        film: &mut (impl Read + Seek),
    ) -> Result<Vec<Encryption>, BoxError> {
        if let Some(groups) = stbl.iter().find(|node| {
            matches!(&node.kind.0, b"sbgp" | b"sgpd") && node.body.get(4..8) == Some(b"seig")
        }) {
            return Err(groups.unsupported("a film whose key changes"));
        }
        let of_sample = match find(stbl, b"senc").or_else(|| find(trak, b"senc")) {
            Some(senc) => self.in_senc(senc, sizes.len())?,
            None => match find(stbl, b"saiz") {
                Some(saiz) => self.elsewhere(saiz, stbl, sizes.len(), chunks, film)?,
                None if self.iv_size == 0 => {
                    let whole = Encryption {
                        iv: self.constant_iv,
                        subsamples: Vec::new(),
                    };
                    vec![whole; sizes.len()]
                }
                None => {
                    let around = stbl.first().or(trak.first());
                    let offset = around.map_or(0, |node| node.offset);
                    return Err(BoxError {
                        kind: super::boxes::Kind(*b"senc"),
                        offset,
                        problem: Problem::Contradiction(
                            "is not there, nor is saiz: nothing says the samples' IVs".into(),
                        ),
                    });
                }
            },
        };
        Ok(of_sample)
    }

    /// Reads the IVs and subsamples of all samples from `senc`.
    fn in_senc(&self, senc: Node<'_>, count: usize) -> Result<Vec<Encryption>, BoxError> {
        const USE_SUBSAMPLES: u32 = 2;
        let mut fields = senc.fields();
        let (version, flags) = fields.version_and_flags()?;
        if version != 0 {
            return Err(senc.unsupported(format!("version {version}")));
        }
        let said = fields.u32()?;
        if usize::try_from(said) != Ok(count) {
            return Err(senc.contradiction(format!("{said} samples, while stsz has {count}")));
        }
        (0..count)
            .map(|_| self.sample(&mut fields, flags & USE_SUBSAMPLES != 0))
            .collect()
    }

    /// Reads the IVs and subsamples of all samples from where `saio` says, which has
    /// one place for all of them or one for each chunk.
    fn elsewhere(
        &self,
        saiz: Node<'_>,
        stbl: &[Node<'_>],
        count: usize,
        chunks: &[usize],
        film: &mut (impl Read + Seek),
    ) -> Result<Vec<Encryption>, BoxError> {
        let sizes: Saiz = saiz.read()?;
        if usize::try_from(sizes.sample_count) != Ok(count) {
            return Err(saiz.contradiction(format!(
                "{} samples, while stsz has {count}",
                sizes.sample_count
            )));
        }
        let size = |sample: usize| match sizes.default_sample_info_size {
            0 => sizes.sample_info_size.get(sample).copied().unwrap_or(0),
            same => same,
        };
        let saio = find(stbl, b"saio").ok_or_else(|| {
            saiz.contradiction("there is no saio to say where what it describes is")
        })?;
        let places: Saio = saio.read()?;
        let groups = match places.offsets.len() {
            1 => vec![count],
            several if several == chunks.len() => chunks.to_vec(),
            other => {
                return Err(
                    saio.contradiction(format!("{other} places for {} chunks", chunks.len()))
                )
            }
        };
        let mut of_sample = Vec::with_capacity(count);
        for (place, samples) in places.offsets.into_iter().zip(groups) {
            let first = of_sample.len();
            let length: u64 = (first..first + samples).map(|n| u64::from(size(n))).sum();
            film.seek(SeekFrom::Start(place))
                .map_err(|error| saio.error(Problem::Read(error)))?;
            let mut bytes = Vec::new();
            film.take(length)
                .read_to_end(&mut bytes)
                .map_err(|error| saio.error(Problem::Read(error)))?;
            // Errors name saio, and the place that it gives.
            let mut rest = bytes.as_slice();
            for sample in first..first + samples {
                let info = usize::from(size(sample));
                let Some((own, after)) = rest.split_at_checked(info) else {
                    return Err(saio.error(Problem::Short(info - rest.len())));
                };
                rest = after;
                let node = Node { body: own, ..saio };
                let is_divided = info > usize::from(self.iv_size);
                of_sample.push(self.sample(&mut node.fields(), is_divided)?);
            }
        }
        Ok(of_sample)
    }

    /// Reads one sample's IV and subsamples.
    fn sample(&self, fields: &mut Fields<'_>, is_divided: bool) -> Result<Encryption, BoxError> {
        let mut iv = self.constant_iv;
        if self.iv_size > 0 {
            let size = usize::from(self.iv_size);
            iv[..size].copy_from_slice(fields.bytes(size)?);
        }
        let mut subsamples = Vec::new();
        if is_divided {
            for _ in 0..fields.u16()? {
                subsamples.push(Subsample {
                    clear: fields.u16()?.into(),
                    encrypted: fields.u32()?,
                });
            }
        }
        Ok(Encryption { iv, subsamples })
    }
}

impl Protection {
    /// What a track says whose samples all have the same IV, or one that is told by
    /// other means.
    pub const fn constant(key_id: KeyId, scheme: Scheme, pattern: Pattern) -> Self {
        Self {
            key_id,
            scheme,
            pattern,
            iv_size: 0,
            constant_iv: [0; 16],
        }
    }
}

impl Encryption {
    /// What is clear and what encrypted in a sample of `size` bytes.
    ///
    /// # Errors
    ///
    /// The bytes that the subsamples make up, if they are not so many.
    pub fn subsamples(&self, size: u32) -> Result<Vec<Subsample>, u64> {
        if self.subsamples.is_empty() {
            return Ok(vec![Subsample {
                clear: 0,
                encrypted: size,
            }]);
        }
        let sum = self
            .subsamples
            .iter()
            .map(|part| u64::from(part.clear) + u64::from(part.encrypted))
            .sum();
        match sum == u64::from(size) {
            true => Ok(self.subsamples.clone()),
            false => Err(sum),
        }
    }
}
