// SPDX-License-Identifier: MIT OR Apache-2.0
//! What connects this process and the guest: consoles, ports, and the terminal.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::Result;

use super::console::Console;
use super::machine::Arguments;
use super::pictures::Album;
use super::ports::Port;
use super::qmp::Monitor;
use super::search::Needles;
use super::terminal::{self, RawTerminal};
use super::witness::Witness;
use super::{pass_on, Event, Sink, Stream};

/// The terminal of an interactive guest.
pub enum Screen {
    /// A command runs: there is none.
    None,
    /// In use until it is dropped.
    Open {
        /// Takes the terminal's size.
        resize: UnixStream,
        /// Keeps the terminal in raw mode.
        _raw: Option<RawTerminal>,
    },
}

impl Screen {
    /// Tells the guest the terminal's new size.
    pub fn resize(&self) {
        if let Self::Open { resize, .. } = self {
            let (rows, columns) = terminal::size();
            // The guest may not have opened the port yet, and takes the size at its start.
            let _ = (&mut &*resize).write_all(format!("{rows} {columns}\n").as_bytes());
        }
    }
}

/// What both worlds print.
pub struct Consoles {
    /// Linux, after the firmware.
    pub normal: Arc<Mutex<Console>>,
    /// OP-TEE.
    pub secure: Arc<Mutex<Console>>,
}

/// The connections to QEMU: our ends are read by threads, the others are inherited by QEMU.
#[derive(Default)]
pub struct Wires {
    inherited: Vec<OwnedFd>,
    readers: Vec<JoinHandle<()>>,
}

impl Wires {
    fn socket(&mut self, arguments: &mut Arguments, id: &str) -> Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        arguments.socket(id, theirs.as_raw_fd());
        self.inherited.push(theirs.into());
        Ok(ours)
    }

    fn port(&mut self, arguments: &mut Arguments, port: Port) -> Result<UnixStream> {
        let ours = self.socket(arguments, port.id())?;
        arguments.option(
            "-device",
            format!("virtserialport,chardev={},name={}", port.id(), port.name()),
        );
        Ok(ours)
    }

    fn read(&mut self, mut socket: UnixStream, mut take: impl FnMut(&[u8]) + Send + 'static) {
        self.readers.push(thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = socket.read(&mut buffer) {
                take(&buffer[..length]);
            }
        }));
    }

    /// The normal and the secure world's serial ports.
    pub fn consoles(
        &mut self,
        arguments: &mut Arguments,
        directory: &Path,
        events: &Sender<Event>,
    ) -> Result<Consoles> {
        Ok(Consoles {
            normal: self.console(arguments, "console", directory, events)?,
            secure: self.console(arguments, "secure", directory, events)?,
        })
    }

    fn console(
        &mut self,
        arguments: &mut Arguments,
        id: &str,
        directory: &Path,
        events: &Sender<Event>,
    ) -> Result<Arc<Mutex<Console>>> {
        let console = Arc::new(Mutex::new(Console::new(
            &directory.join(format!("{id}.log")),
        )?));
        let socket = self.socket(arguments, id)?;
        arguments.option("-serial", format!("chardev:{id}"));
        let (watched, events) = (Arc::clone(&console), events.clone());
        self.read(socket, move |bytes| {
            match watched.lock().expect("no holder panics").take(bytes) {
                Ok(false) => {}
                Ok(true) => {
                    // Nobody listens any more when the boot has just ended.
                    let _ = events.send(Event::Crash);
                }
                Err(error) => eprintln!("a console's log can't be written: {error}"),
            }
        });
        Ok(console)
    }

    /// The port on which the guest's first process says how the command ended.
    pub fn status(&mut self, arguments: &mut Arguments, events: &Sender<Event>) -> Result<()> {
        let mut port = self.port(arguments, Port::Status)?;
        let events = events.clone();
        let mut partial = Vec::new();
        self.readers.push(thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length @ 1..) = port.read(&mut buffer) {
                partial.extend_from_slice(&buffer[..length]);
                while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = partial.drain(..=end).collect();
                    // Nobody listens any more when the boot has just ended.
                    let _ = events.send(Event::Status(String::from_utf8_lossy(&line).into_owned()));
                }
            }
            let _ = events.send(Event::Gone);
        }));
        Ok(())
    }

    /// The port over which the guest asks the host about what can't be seen from inside: its memory,
    /// and its screen.
    pub fn host(
        &mut self,
        arguments: &mut Arguments,
        memory: &OwnedFd,
        needles: &[Needles],
        album: Album,
    ) -> Result<()> {
        let port = self.port(arguments, Port::Host)?;
        let monitor = Monitor::new(self.socket(arguments, "monitor")?)?;
        arguments.screen("monitor");
        let mut witness = Witness {
            memory: memory.as_fd().try_clone_to_owned()?,
            needles: needles.to_vec(),
            monitor,
            album,
        };
        self.readers
            .push(thread::spawn(move || witness.serve(port)));
        Ok(())
    }

    /// The command's output.
    pub fn output(&mut self, arguments: &mut Arguments, sink: &Sink) -> Result<()> {
        for (port, stream) in [(Port::Output, Stream::Output), (Port::Error, Stream::Error)] {
            let socket = self.port(arguments, port)?;
            let sink = Arc::clone(sink);
            self.read(socket, move |bytes| sink(stream, bytes));
        }
        Ok(())
    }

    /// The terminal: keys go to the guest, its output comes here.
    pub fn screen(&mut self, arguments: &mut Arguments) -> Result<Screen> {
        let screen = self.socket(arguments, "screen")?;
        arguments.option("-device", "virtconsole,chardev=screen");
        let mut keys = screen.try_clone()?;
        self.read(screen, |bytes| pass_on(Stream::Output, bytes));
        let resize = self.port(arguments, Port::Resize)?;
        let raw = RawTerminal::enter()?;
        // Not joined: it waits for a key when everything else has ended.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
                if keys.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
        Ok(Screen::Open { resize, _raw: raw })
    }

    /// The ends that QEMU inherits.
    pub fn inherited(&self) -> &[OwnedFd] {
        &self.inherited
    }

    /// Closes the ends that QEMU has inherited, so that its end is seen.
    pub fn close_inherited(&mut self) {
        self.inherited.clear();
    }

    /// Waits until everything that QEMU wrote has been read.
    pub fn join(self) {
        for reader in self.readers {
            // A reader that panicked has said so on standard error.
            let _ = reader.join();
        }
    }
}
