// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ringfence play`.

use ringfence::error::Error;

use crate::args::Play;

/// Plays a film.
#[cfg(not(all(feature = "tee", target_arch = "aarch64")))]
pub fn play(what: &Play, _json: bool) -> Result<(), Error> {
    crate::run::open(&what.file)?;
    Err(Error::WithoutTee)
}

/// Plays a film.
#[cfg(all(feature = "tee", target_arch = "aarch64"))]
pub fn play(what: &Play, json: bool) -> Result<(), Error> {
    secure::play(what, json)
}

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
mod secure {
    use std::io::{self, BufRead, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::process;

    use ringfence::buffer::{Buffer, Handle};
    use ringfence::control::Control;
    use ringfence::decoder::Decoder;
    use ringfence::error::Error;
    use ringfence::heap::Heap;
    use ringfence::play::display::Display;
    use ringfence::play::player::{Memory, Pictures, Plan, Player, Screen};
    use ringfence::play::{Event, Movie, Report};
    use ringfence::secure::SecureSession;
    use serde::Serialize;

    use crate::args::Play;
    use crate::run::{open, read_licence, read_provision};
    use crate::show::{print, print_json, size};

    /// Buffers of one heap.
    struct OneHeap {
        heap: Heap,
        control: Control,
    }

    impl Memory for OneHeap {
        fn allocate(&mut self, size: u64) -> Result<(Buffer, Handle), Error> {
            let buffer = self.heap.allocate(size)?;
            let handle = self.control.buffer(&buffer)?.protected_handle()?;
            Ok((buffer, handle))
        }
    }

    pub fn play(what: &Play, json: bool) -> Result<(), Error> {
        let licence = read_licence(&what.licence)?;
        let (mut film, _) = open(&what.file)?;
        let movie = Movie::read(&mut film).map_err(|error| Error::Film {
            path: what.file.clone(),
            error,
        })?;
        let mut session = SecureSession::open()?;
        if let Some(provision) = &what.provision {
            session.provision(&read_provision(provision)?)?;
        }
        session.load_licence(&licence)?;
        let mut memory = OneHeap {
            heap: Heap::open(&what.heap)?,
            control: Control::open()?,
        };
        let pictures = pictures(what)?;
        let key_id = licence.key_id;
        let mut player = Player::new(movie, film, key_id, session, pictures, &mut memory)?;
        if what.events {
            let path = |buffer: &Buffer| {
                let fd = buffer.as_fd().as_raw_fd();
                format!("/proc/{}/fd/{fd}", process::id())
            };
            show_place("bitstream", &path(player.bitstream().0));
            player
                .frames()
                .for_each(|frame| show_place("frame", &path(frame)));
        }
        let plan = Plan {
            from: what.from,
            frames: what.frames,
            rate: what.fps,
        };
        let report = player.play(&plan, |_, event| tell(what, event))?;
        let movie = player.movie();
        let played = Played {
            width: movie.width,
            height: movie.height,
            frames: movie.samples.len(),
            report,
        };
        show_played(&played, json);
        Ok(())
    }

    /// Tells of a frame, and waits if that is wanted. Frames that are dropped are
    /// told of in any case.
    fn tell(what: &Play, event: Event) {
        let frame = match event {
            Event::Decrypted { frame } | Event::Shown { frame } => frame,
            Event::Dropped { frame, late } => {
                eprintln!("frame {frame} dropped, {} ms late", late.as_millis());
                frame
            }
        };
        if what.events {
            show_event(event);
        }
        if what.pause_at.contains(&frame) {
            // Whoever waits for this reads a pipe.
            let _ = writeln!(io::stdout(), "paused at {frame}");
            let _ = io::stdout().flush();
            // Whatever ends the line ends the wait.
            let _ = io::stdin().lock().read_line(&mut String::new());
        }
    }

    fn pictures(what: &Play) -> Result<Option<Pictures>, Error> {
        if what.no_decode {
            return Ok(None);
        }
        let screen = what.display.as_deref().map(Display::open).transpose()?;
        Ok(Some(Pictures {
            decoder: Box::new(Decoder::open()?),
            screen: screen.map(|screen| Box::new(screen) as Box<dyn Screen>),
        }))
    }

    /// What a film has come to.
    #[derive(Debug, Serialize)]
    struct Played {
        /// Pixels in a line.
        width: u16,
        /// Lines.
        height: u16,
        /// Frames of the film.
        frames: usize,
        /// What was done.
        #[serde(flatten)]
        report: Report,
    }

    /// Shows what a film has come to.
    fn show_played(played: &Played, json: bool) {
        if json {
            return print_json(played);
        }
        let Played {
            width,
            height,
            frames,
            report,
        } = played;
        print(&format!(
            "{width}x{height}, {frames} frames: {} shown, {} decrypted only, {} dropped; {} decrypted, \
             {} secure calls, at most {} for a frame; {} ms",
            report.shown,
            report.decrypted,
            report.dropped,
            size(report.bytes),
            report.secure_calls,
            report.most_secure_calls,
            report.milliseconds,
        ));
    }

    /// Shows what becomes of a frame.
    fn show_event(event: Event) {
        print(&match event {
            Event::Decrypted { frame } => format!("frame {frame} decrypted"),
            Event::Shown { frame } => format!("frame {frame} shown"),
            Event::Dropped { frame, late } => {
                format!("frame {frame} dropped, {} ms late", late.as_millis())
            }
        });
    }

    /// Shows where a buffer of a film is.
    fn show_place(what: &str, path: &str) {
        print(&format!("{what} buffer {path}"));
    }
}
