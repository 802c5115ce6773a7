// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frame by frame through decryption and decoding to the screen.
//!
//! A player owns its buffers: one for the bitstream of a frame, and, when it
//! decodes, two for pictures, so that one can be on the screen while the other is
//! made. However it ends, they go back with it.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use ringfence_proto::message::DecryptSample;
use serde::Serialize;

use super::cut::cut;
use super::mp4::Movie;
use super::pace::{Pace, Rate, Verdict};
use crate::buffer::{Buffer, Handle};
use crate::error::Error;

/// Bytes of a sample at most.
pub const MAX_BITSTREAM: u64 = 16 << 20;

/// Bytes of a pixel: XRGB8888.
const PIXEL: u32 = 4;

/// A film, or a request, that can't be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A licence for something else.
    #[error("the film's key is {}, and the licence is for {}; take the film's own licence", hex::encode(.film), hex::encode(.licence))]
    WrongKey {
        /// Names the film's key.
        film: [u8; 16],
        /// Names the licence's key.
        licence: [u8; 16],
    },
    /// A sample that the buffer does not hold.
    #[error("frame {frame} has {size} bytes, and {most} can be taken at most")]
    TooLong {
        /// Number of the frame, from 0.
        frame: usize,
        /// Its bytes.
        size: u32,
        /// Bytes at most.
        most: u64,
    },
    /// Subsamples that don't make up their sample.
    #[error("the subsamples of frame {frame} make up {sum} bytes, and it has {size}")]
    Subsamples {
        /// Number of the frame, from 0.
        frame: usize,
        /// Bytes of all subsamples.
        sum: u64,
        /// Bytes of the frame.
        size: u32,
    },
    /// Frames that the film has not.
    #[error("the film has {count} frames, from 0; frame {frame} is none of them")]
    NoFrame {
        /// The frame asked for.
        frame: usize,
        /// Frames of the film.
        count: usize,
    },
    /// A codec that the decoder does not know.
    #[error("the decoder takes motion JPEG (mp4v, jpeg, mjpg), and the film is {0}; --no-decode decrypts it all the same")]
    Codec(super::boxes::Kind),
}

/// Where a protected buffer comes from.
pub trait Memory {
    /// A buffer of at least `size` bytes, and its name in the secure world.
    ///
    /// # Errors
    ///
    /// Those of allocation.
    fn allocate(&mut self, size: u64) -> Result<(Buffer, Handle), Error>;
}

/// What decrypts.
pub trait Decrypt {
    /// Decrypts a sample, or a piece of one, into a buffer; the bytes written.
    ///
    /// # Errors
    ///
    /// Those of the secure world.
    fn decrypt_sample(
        &mut self,
        handle: Handle,
        request: &DecryptSample,
        sample: &[u8],
    ) -> Result<u64, Error>;
}

/// What decodes.
pub trait Decode {
    /// Decodes the first `length` bytes of the buffer `source` into `picture`.
    ///
    /// # Errors
    ///
    /// Those of the secure world.
    fn decode(&mut self, source: Handle, length: u32, picture: &Picture) -> Result<(), Error>;
}

/// What shows.
pub trait Screen {
    /// Shows a frame, and keeps it until the next one.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn show(&mut self, frame: &Frame<'_>) -> Result<(), Error>;
}

/// Where a picture goes: to the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Names the buffer.
    pub handle: Handle,
    /// Bytes from one line to the next.
    pub stride: u32,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

/// A decoded frame, at the start of its buffer.
#[derive(Debug)]
pub struct Frame<'b> {
    /// The buffer.
    pub buffer: &'b Buffer,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub stride: u32,
}

/// Something that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The buffer of this frame holds its plaintext; it is not decoded.
    Decrypted {
        /// Number of the frame, from 0.
        frame: usize,
    },
    /// The frame is decoded, and on the screen if there is one.
    Shown {
        /// Number of the frame, from 0.
        frame: usize,
    },
    /// The frame was left out.
    Dropped {
        /// Number of the frame, from 0.
        frame: usize,
        /// How late it was.
        late: Duration,
    },
}

/// What has been done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Frames that were shown, or could have been: the player may be without a
    /// screen.
    pub shown: usize,
    /// Frames that were decrypted only.
    pub decrypted: usize,
    /// Frames that were left out, because they came too late.
    pub dropped: usize,
    /// Bytes of samples that went through decryption.
    pub bytes: u64,
    /// Calls of the secure world for all frames.
    pub secure_calls: u64,
    /// Calls of the secure world for the frame that took most.
    pub most_secure_calls: u64,
    /// Whether every frame took at most four calls, and one for each MiB that was
    /// begun.
    pub within_bounds: bool,
    /// Milliseconds that playing took, pauses left out.
    pub milliseconds: u64,
}

/// Which frames are played, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The first frame.
    pub from: usize,
    /// So many frames; `None` for all that are left.
    pub frames: Option<usize>,
    /// How fast.
    pub rate: Rate,
}

/// What makes and shows pictures.
pub struct Pictures {
    /// What decodes.
    pub decoder: Box<dyn Decode>,
    /// What shows, if anything.
    pub screen: Option<Box<dyn Screen>>,
}

/// A film on its way.
pub struct Player<R, D> {
    movie: Movie,
    film: R,
    // Before the buffers: what is on the screen is let go of first.
    pictures: Option<Shown>,
    decrypt: D,
    bitstream: Buffer,
    handle: Handle,
    /// The sample's ciphertext.
    sample: Vec<u8>,
    report: Report,
}

/// What is decoded, and to where.
struct Shown {
    decoder: Box<dyn Decode>,
    screen: Option<Box<dyn Screen>>,
    frames: [(Buffer, Picture); 2],
    next: usize,
}

impl<R: Read + Seek, D: Decrypt> Player<R, D> {
    /// A player of `movie`, which was read from `film`. `decrypt` must have loaded
    /// the key that `licence` names.
    ///
    /// # Errors
    ///
    /// [`Error::Play`] if it can't be played, or those of the allocations.
    pub fn new(
        movie: Movie,
        film: R,
        licence: [u8; 16],
        decrypt: D,
        pictures: Option<Pictures>,
        memory: &mut dyn Memory,
    ) -> Result<Self, Error> {
        if movie.protection.key_id != licence {
            return Err(PlayError::WrongKey {
                film: movie.protection.key_id,
                licence,
            }
            .into());
        }
        if pictures.is_some() && !matches!(&movie.codec.0, b"mp4v" | b"jpeg" | b"mjpg") {
            return Err(PlayError::Codec(movie.codec).into());
        }
        let most = match pictures {
            Some(_) => ringfence_proto::message::MAX_SAMPLE as u64,
            None => MAX_BITSTREAM,
        };
        let sizes = movie.samples.iter().map(|sample| sample.size);
        let largest = sizes.clone().max().unwrap_or(0);
        if u64::from(largest) > most {
            let frame = sizes.clone().position(|size| size == largest).unwrap_or(0);
            return Err(PlayError::TooLong {
                frame,
                size: largest,
                most,
            }
            .into());
        }
        let (bitstream, handle) = memory.allocate(largest.into())?;
        let pictures = match pictures {
            Some(Pictures { decoder, screen }) => {
                let (width, height) = (u32::from(movie.width), u32::from(movie.height));
                let stride = width * PIXEL;
                let mut frame = || -> Result<(Buffer, Picture), Error> {
                    let size = u64::from(stride) * u64::from(height);
                    let (buffer, handle) = memory.allocate(size)?;
                    let picture = Picture {
                        handle,
                        stride,
                        width,
                        height,
                    };
                    Ok((buffer, picture))
                };
                Some(Shown {
                    decoder,
                    screen,
                    frames: [frame()?, frame()?],
                    next: 0,
                })
            }
            None => None,
        };
        Ok(Self {
            movie,
            film,
            pictures,
            decrypt,
            bitstream,
            handle,
            sample: Vec::new(),
            report: Report {
                within_bounds: true,
                ..Report::default()
            },
        })
    }

    /// The film.
    pub fn movie(&self) -> &Movie {
        &self.movie
    }

    /// The buffer that bitstreams are decrypted into, and its name in the secure
    /// world.
    pub fn bitstream(&self) -> (&Buffer, Handle) {
        (&self.bitstream, self.handle)
    }

    /// The buffers that pictures are decoded into, in turns; none if it does not
    /// decode.
    pub fn frames(&self) -> impl Iterator<Item = &Buffer> {
        let frames = self.pictures.iter().flat_map(|shown| &shown.frames);
        frames.map(|(buffer, _)| buffer)
    }

    /// Decrypts a frame into the bitstream buffer; its bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Film`] when it can't be read, and those of the secure world.
    pub fn decrypt(&mut self, frame: usize) -> Result<u32, Error> {
        self.decrypt_counted(frame).map(|(size, _)| size)
    }

    /// As [`decrypt`](Self::decrypt), with the number of secure calls.
    fn decrypt_counted(&mut self, frame: usize) -> Result<(u32, u64), Error> {
        let count = self.movie.samples.len();
        let sample = self
            .movie
            .samples
            .get(frame)
            .ok_or(PlayError::NoFrame { frame, count })?;
        let subsamples =
            sample
                .encryption
                .subsamples(sample.size)
                .map_err(|sum| PlayError::Subsamples {
                    frame,
                    sum,
                    size: sample.size,
                })?;
        self.sample.clear();
        self.film
            .seek(SeekFrom::Start(sample.offset))
            .and_then(|_| {
                let size = u64::from(sample.size);
                let mut film = (&mut self.film).take(size);
                film.read_to_end(&mut self.sample)
            })
            .map_err(Error::Ciphertext)?;
        if self.sample.len() as u64 != u64::from(sample.size) {
            return Err(Error::Ciphertext(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let pieces = cut(
            &self.movie.protection,
            sample.encryption.iv,
            &subsamples,
            &self.sample,
        );
        for piece in &pieces {
            let bytes = &self.sample[piece.range.clone()];
            let written = self
                .decrypt
                .decrypt_sample(self.handle, &piece.request, bytes)?;
            if written != bytes.len() as u64 {
                return Err(Error::Answer("not every byte was written"));
            }
        }
        self.report.bytes += u64::from(sample.size);
        Ok((sample.size, pieces.len() as u64))
    }

    /// Decrypts a frame, and decodes it if that is wanted.
    fn prepare(&mut self, frame: usize) -> Result<(), Error> {
        let (size, mut calls) = self.decrypt_counted(frame)?;
        if let Some(shown) = &mut self.pictures {
            let (_, picture) = &shown.frames[shown.next];
            shown.decoder.decode(self.handle, size, picture)?;
            calls += 1;
        }
        self.report.secure_calls += calls;
        self.report.most_secure_calls = self.report.most_secure_calls.max(calls);
        let allowed = 4 + u64::from(size).div_ceil(1 << 20);
        self.report.within_bounds &= calls <= allowed;
        Ok(())
    }

    /// Shows the frame that was prepared last.
    fn present(&mut self, frame: usize) -> Result<Event, Error> {
        let Some(shown) = &mut self.pictures else {
            self.report.decrypted += 1;
            return Ok(Event::Decrypted { frame });
        };
        let (buffer, picture) = &shown.frames[shown.next];
        if let Some(screen) = &mut shown.screen {
            screen.show(&Frame {
                buffer,
                width: picture.width,
                height: picture.height,
                stride: picture.stride,
            })?;
        }
        shown.next = (shown.next + 1) % shown.frames.len();
        self.report.shown += 1;
        Ok(Event::Shown { frame })
    }

    /// Plays the frames of a plan, and tells `each` of every one. The time that
    /// `each` takes does not count.
    ///
    /// # Errors
    ///
    /// Those of the first frame that fails.
    pub fn play(
        &mut self,
        plan: &Plan,
        mut each: impl FnMut(&Self, Event),
    ) -> Result<Report, Error> {
        let frames = self.range(plan)?;
        let time = |player: &Self, frame: usize| player.movie.samples[frame].time;
        let first = time(self, frames.start);
        let pace = Pace::new(plan.rate, self.movie.timescale, first);
        let mut start = Instant::now();
        for frame in frames.clone() {
            let next = Some(frame + 1).filter(|next| *next < frames.end);
            let next = next.map(|next| time(self, next));
            let (index, own) = (frame - frames.start, time(self, frame));
            let event = match pace.judge(index, own, next, start.elapsed()) {
                Verdict::Drop(late) => {
                    self.report.dropped += 1;
                    Event::Dropped { frame, late }
                }
                Verdict::Wait(_) => {
                    self.prepare(frame)?;
                    thread::sleep(pace.wait(index, own, start.elapsed()));
                    self.present(frame)?
                }
            };
            let told = Instant::now();
            each(self, event);
            start += told.elapsed();
        }
        let took = start.elapsed().as_millis();
        self.report.milliseconds += u64::try_from(took).unwrap_or(u64::MAX);
        Ok(self.report)
    }

    /// The frames of a plan.
    fn range(&self, plan: &Plan) -> Result<Range<usize>, Error> {
        let count = self.movie.samples.len();
        let end = match plan.frames {
            Some(frames) => plan.from.saturating_add(frames),
            None => count,
        };
        if plan.from >= count {
            let frame = plan.from;
            return Err(PlayError::NoFrame { frame, count }.into());
        }
        if end > count {
            let frame = end - 1;
            return Err(PlayError::NoFrame { frame, count }.into());
        }
        Ok(plan.from..end)
    }
}
