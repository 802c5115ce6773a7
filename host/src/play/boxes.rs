// SPDX-License-Identifier: MIT OR Apache-2.0

//! The boxes of an MP4 file (ISO/IEC 14496-12), and where each lies: an error names
//! the box and its place in the file.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use mp4_atom::{Atom, FourCC};

/// Largest `moov` that is read, in bytes: hours of film.
pub const MAX_MOVIE: u64 = 64 << 20;

/// A film that can't be played, and where it says so.
#[derive(Debug, thiserror::Error)]
#[error("box {kind:?} at byte {offset}: {problem}")]
pub struct BoxError {
    /// Type of the box, or of the one that should be there.
    pub kind: Kind,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a box.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file, or the box around it, ends before it.
    #[error("ends at byte {end}, but what it is in ends at byte {limit}; the file is cut short or damaged")]
    CutShort {
        /// Where it ends.
        end: u64,
        /// Where that ends which it is in.
        limit: u64,
    },
    /// A size that no box has.
    #[error("a size of {0} bytes, which is less than its head")]
    Size(u64),
    /// A box that must be there is not.
    #[error("has no {0:?} in it")]
    Without(Kind),
    /// Its content is not what its type says.
    #[error("malformed: {0}")]
    Malformed(#[from] mp4_atom::Error),
    /// Its content ends too early.
    #[error("{0} bytes more are needed for its content")]
    Short(usize),
    /// It is larger than any that is read.
    #[error("{size} bytes; at most {most} are read")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The most.
        most: u64,
    },
    /// What it holds does not fit what another box says.
    #[error("{0}")]
    Contradiction(String),
    /// A form that this player does not know.
    #[error("{0} can't be played")]
    Unsupported(String),
    /// A sample that is not in the file.
    #[error("sample {sample} ends at byte {end}, but the file at byte {length}; it is cut short or damaged")]
    Outside {
        /// Number of the sample, from 0.
        sample: usize,
        /// Where it ends.
        end: u64,
        /// Where the file ends.
        length: u64,
    },
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Read(#[source] io::Error),
}

/// Type of a box.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub [u8; 4]);

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl From<FourCC> for Kind {
    fn from(kind: FourCC) -> Self {
        Self(kind.into())
    }
}

/// A box in memory.
#[derive(Debug, Clone, Copy)]
pub struct Node<'m> {
    /// Its type.
    pub kind: Kind,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// What is behind its head.
    pub body: &'m [u8],
    /// Where that begins.
    pub body_offset: u64,
}

impl<'m> Node<'m> {
    /// An error that names this box.
    pub fn error(&self, problem: Problem) -> BoxError {
        BoxError {
            kind: self.kind,
            offset: self.offset,
            problem,
        }
    }

    /// An error about what another box says.
    pub fn contradiction(&self, what: impl Into<String>) -> BoxError {
        self.error(Problem::Contradiction(what.into()))
    }

    /// An error about a form that is not known.
    pub fn unsupported(&self, what: impl Into<String>) -> BoxError {
        self.error(Problem::Unsupported(what.into()))
    }

    /// The boxes in it, which begin `skip` bytes behind its head.
    ///
    /// # Errors
    ///
    /// If one of them does not fit.
    pub fn children(&self, skip: usize) -> Result<Vec<Node<'m>>, BoxError> {
        let mut rest = match self.body.get(skip..) {
            Some(rest) => rest,
            None => return Err(self.error(Problem::Short(skip - self.body.len()))),
        };
        let end = self.body_offset + self.body.len() as u64;
        let mut nodes = Vec::new();
        // Less than a head is padding.
        while rest.len() >= 8 {
            let offset = end - rest.len() as u64;
            let head = Head::of(rest, offset)?;
            let size = head.size.unwrap_or(rest.len() as u64);
            let length = usize::try_from(size).unwrap_or(usize::MAX);
            let Some((whole, after)) = rest.split_at_checked(length) else {
                return Err(head.error(Problem::CutShort {
                    end: offset.saturating_add(size),
                    limit: end,
                }));
            };
            nodes.push(Node {
                kind: head.kind,
                offset,
                body: &whole[head.length..],
                body_offset: offset + head.length as u64,
            });
            rest = after;
        }
        Ok(nodes)
    }

    /// The first box of this type in it.
    ///
    /// # Errors
    ///
    /// If there is none, or a box in it does not fit.
    pub fn child(&self, kind: &[u8; 4]) -> Result<Node<'m>, BoxError> {
        find(&self.children(0)?, kind).ok_or_else(|| self.error(Problem::Without(Kind(*kind))))
    }

    /// Its content.
    ///
    /// # Errors
    ///
    /// If it is not what the type says.
    pub fn read<A: Atom>(&self) -> Result<A, BoxError> {
        let mut body = self.body;
        A::decode_body(&mut body).map_err(|error| self.error(error.into()))
    }

    /// A reader of its content, for boxes that nobody else reads.
    pub fn fields(self) -> Fields<'m> {
        Fields {
            node: self,
            rest: self.body,
        }
    }
}

/// The first box of this type.
pub fn find<'m>(nodes: &[Node<'m>], kind: &[u8; 4]) -> Option<Node<'m>> {
    nodes.iter().find(|node| node.kind.0 == *kind).copied()
}

/// Reads a box field by field.
#[derive(Debug, Clone)]
pub struct Fields<'m> {
    /// The box.
    pub node: Node<'m>,
    rest: &'m [u8],
}

impl<'m> Fields<'m> {
    /// The next bytes.
    ///
    /// # Errors
    ///
    /// If the box ends before them.
    pub fn bytes(&mut self, count: usize) -> Result<&'m [u8], BoxError> {
        match self.rest.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.node.error(Problem::Short(count - self.rest.len()))),
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// If the box ends before them.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BoxError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// If the box ends before it.
    pub fn u8(&mut self) -> Result<u8, BoxError> {
        self.array().map(|[byte]| byte)
    }

    /// The next two bytes.
    ///
    /// # Errors
    ///
    /// If the box ends before them.
    pub fn u16(&mut self) -> Result<u16, BoxError> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes.
    ///
    /// # Errors
    ///
    /// If the box ends before them.
    pub fn u32(&mut self) -> Result<u32, BoxError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Version and flags of a full box.
    ///
    /// # Errors
    ///
    /// If the box ends before them.
    pub fn version_and_flags(&mut self) -> Result<(u8, u32), BoxError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0xff_ffff))
    }
}

/// Head of a box.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: Kind,
    offset: u64,
    /// Bytes of the head.
    length: usize,
    /// Bytes of the box; `None` up to the end of what it is in.
    size: Option<u64>,
}

impl Head {
    /// Reads the head at the start of `bytes`.
    fn of(bytes: &[u8], offset: u64) -> Result<Self, BoxError> {
        let cut_short = |needs: u64| BoxError {
            kind: Kind(*b"    "),
            offset,
            problem: Problem::CutShort {
                end: offset.saturating_add(needs),
                limit: offset.saturating_add(bytes.len() as u64),
            },
        };
        let (Some(size), Some(kind)) = (bytes.first_chunk::<4>(), bytes.get(4..8)) else {
            return Err(cut_short(8));
        };
        let kind = Kind(kind.try_into().expect("4 bytes"));
        let (length, size) = match u32::from_be_bytes(*size) {
            0 => (8, None),
            1 => {
                let Some(large) = bytes.get(8..16) else {
                    return Err(cut_short(16));
                };
                let large: [u8; 8] = large.try_into().expect("8 bytes");
                (16, Some(u64::from_be_bytes(large)))
            }
            small => (8, Some(u64::from(small))),
        };
        let head = Self {
            kind,
            offset,
            length,
            size,
        };
        match size {
            Some(size) if size < length as u64 => Err(head.error(Problem::Size(size))),
            _ => Ok(head),
        }
    }

    fn error(&self, problem: Problem) -> BoxError {
        BoxError {
            kind: self.kind,
            offset: self.offset,
            problem,
        }
    }
}

/// The outermost boxes of a file: the movie's description, and how long the file is.
#[derive(Debug)]
pub struct Outline {
    /// Content of `moov`.
    pub movie: Vec<u8>,
    /// Where `moov` is, in bytes from the start of the file.
    pub range: Range<u64>,
    /// Bytes of the file.
    pub length: u64,
}

impl Outline {
    /// Reads the heads of all boxes, and `moov`.
    ///
    /// # Errors
    ///
    /// If a box does not fit into the file, or there is no `moov`.
    pub fn read(film: &mut (impl Read + Seek)) -> Result<Self, BoxError> {
        let at = |offset: u64| {
            move |source: io::Error| BoxError {
                kind: Kind(*b"    "),
                offset,
                problem: Problem::Read(source),
            }
        };
        let length = film.seek(SeekFrom::End(0)).map_err(at(0))?;
        let mut offset = 0;
        let mut found = None;
        while offset < length {
            film.seek(SeekFrom::Start(offset)).map_err(at(offset))?;
            let mut start = Vec::new();
            film.take(16).read_to_end(&mut start).map_err(at(offset))?;
            let head = Head::of(&start, offset)?;
            let end = offset.saturating_add(head.size.unwrap_or(length - offset));
            if end > length {
                return Err(head.error(Problem::CutShort { end, limit: length }));
            }
            if head.kind.0 == *b"moov" && found.is_none() {
                let body = offset + head.length as u64;
                let size = end - body;
                if size > MAX_MOVIE {
                    let most = MAX_MOVIE;
                    return Err(head.error(Problem::TooLarge { size, most }));
                }
                film.seek(SeekFrom::Start(body)).map_err(at(body))?;
                let mut movie = Vec::new();
                film.take(size).read_to_end(&mut movie).map_err(at(body))?;
                if movie.len() as u64 != size {
                    let limit = body + movie.len() as u64;
                    return Err(head.error(Problem::CutShort { end, limit }));
                }
                found = Some((movie, offset..end));
            }
            offset = end;
        }
        let (movie, range) = found.ok_or(BoxError {
            kind: Kind(*b"moov"),
            offset: length,
            problem: Problem::Contradiction("is nowhere in the file".into()),
        })?;
        Ok(Self {
            movie,
            range,
            length,
        })
    }

    /// `moov`.
    pub fn node(&self) -> Node<'_> {
        Node {
            kind: Kind(*b"moov"),
            offset: self.range.start,
            body: &self.movie,
            body_offset: self.range.end - self.movie.len() as u64,
        }
    }
}
