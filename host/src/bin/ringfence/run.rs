// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each command does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::error::Error;
use ringfence::fallback::Allocator;
use ringfence::heap;
use ringfence::proto::message::{self, Licence, Provision};
use ringfence::status::Status;

use crate::args::{Args, BufferName, Command, Hold};
use crate::play;
use crate::show::{self, Allocated, AnyHeap, Decrypted, Shown};

/// Carries out a command line.
pub fn run(args: &Args) -> Result<(), Error> {
    match &args.command {
        Command::Heaps => {
            show::heaps(&heaps()?, args.json);
            Ok(())
        }
        Command::Alloc {
            from,
            size,
            count,
            timings,
            show_handle,
            hold: how_long,
        } => {
            let allocator = Allocator::new(&from.policy()?)?;
            let mut buffers = Vec::new();
            let mut shown = Vec::new();
            for _ in 0..count.unwrap_or(1) {
                let start = Instant::now();
                let allocation = allocator.allocate(*size)?;
                let took = start.elapsed();
                shown.push(Allocated {
                    buffer: describe(&allocation.buffer, *show_handle)?,
                    refused: allocation.refused,
                    nanoseconds: timings.then_some(took.as_nanos()),
                });
                buffers.push(allocation.buffer);
            }
            match (count, shown.as_slice()) {
                (None, [one]) => show::allocated(one, args.json),
                _ => show::all_allocated(&shown, args.json),
            }
            hold(how_long);
            Ok(())
        }
        Command::Info {
            buffer,
            show_handle,
        } => {
            let buffer = take(*buffer)?;
            let info = Control::open()?.buffer(&buffer)?;
            show::buffer(&Shown::new(info, *show_handle), args.json);
            Ok(())
        }
        Command::Decrypt {
            file,
            licence,
            heap,
            counter,
            key_id,
            hold: how_long,
        } => {
            let licence = read_licence(licence)?;
            let key_id = key_id.unwrap_or(licence.key_id);
            let (_buffer, decrypted) = decrypt(file, &licence, heap, key_id, *counter)?;
            show::decrypted(&decrypted, args.json);
            hold(how_long);
            Ok(())
        }
        Command::Play(what) => play::play(what, args.json),
        Command::Provision { file } => provision(&read_provision(file)?),
        Command::Status => {
            show::status(&Status::read()?, args.json);
            Ok(())
        }
    }
}

/// Every heap of the system; those that the driver knows with their figures.
fn heaps() -> Result<Vec<AnyHeap>, Error> {
    let mut ours = match Control::open() {
        Ok(control) => control.heaps_with_history()?,
        // The other heaps are there without it.
        Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(heap::names()?
        .into_iter()
        .map(|name| {
            let place = ours.iter().position(|(info, _)| info.name == name);
            let (ringfence, history) = place.map(|place| ours.swap_remove(place)).unzip();
            AnyHeap {
                ringfence,
                history,
                name,
            }
        })
        .collect())
}

/// Describes a buffer of any heap; of a foreign one there is only its fd.
fn describe(buffer: &Buffer, show_handle: bool) -> Result<Shown, Error> {
    let pid = process::id();
    let fd = buffer.as_fd().as_raw_fd();
    let shown = match Control::open().and_then(|control| control.buffer(buffer)) {
        Ok(info) => Shown::new(info, show_handle),
        Err(Error::Foreign) => Shown::foreign(),
        Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Shown::foreign()
        }
        Err(error) => return Err(error),
    };
    Ok(shown.at(format!("/proc/{pid}/fd/{fd}")))
}

fn take(name: BufferName) -> Result<Buffer, Error> {
    Buffer::of_process(name.pid.unwrap_or_else(process::id), name.fd)
}

/// Reads a licence.
pub fn read_licence(path: &Path) -> Result<Licence, Error> {
    message::decode(&read(path)?).map_err(Error::Licence)
}

/// Reads a sealed device key.
pub fn read_provision(path: &Path) -> Result<Provision, Error> {
    message::decode(&read(path)?).map_err(Error::Provision)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Opens a file, and says how many bytes it has.
pub fn open(path: &Path) -> Result<(File, u64), Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
fn decrypt(
    file: &Path,
    licence: &Licence,
    heap: &str,
    key_id: [u8; 16],
    counter: [u8; 16],
) -> Result<(Buffer, Decrypted), Error> {
    use ringfence::heap::Heap;
    use ringfence::secure::{Encryption, SecureSession};

    let (ciphertext, size) = open(file)?;
    let mut session = SecureSession::open()?;
    session.load_licence(licence)?;
    let buffer = Heap::open(heap)?.allocate(size)?;
    let info = Control::open()?.buffer(&buffer)?;
    let bytes = session.decrypt(
        info.protected_handle()?,
        0,
        Encryption { key_id, counter },
        ciphertext,
    )?;
    let fd = buffer.as_fd().as_raw_fd();
    let shown = Shown::new(info, false).at(format!("/proc/{}/fd/{fd}", process::id()));
    Ok((
        buffer,
        Decrypted {
            bytes,
            buffer: shown,
        },
    ))
}

#[cfg(not(all(feature = "tee", target_arch = "aarch64")))]
fn decrypt(
    file: &Path,
    _licence: &Licence,
    _heap: &str,
    _key_id: [u8; 16],
    _counter: [u8; 16],
) -> Result<(Buffer, Decrypted), Error> {
    open(file)?;
    Err(Error::WithoutTee)
}

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
fn provision(provision: &Provision) -> Result<(), Error> {
    ringfence::secure::SecureSession::open()?.provision(provision)
}

#[cfg(not(all(feature = "tee", target_arch = "aarch64")))]
fn provision(_provision: &Provision) -> Result<(), Error> {
    Err(Error::WithoutTee)
}

/// Waits as long as the buffer is wanted.
fn hold(how_long: &Hold) {
    // A reader at the other end of a pipe must see the report before the wait.
    let _ = io::stdout().flush();
    if let Some(seconds) = how_long.hold {
        thread::sleep(Duration::from_secs(seconds));
    }
    if how_long.hold_until_stdin {
        // Whatever ends the copy ends the wait.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
    }
}
