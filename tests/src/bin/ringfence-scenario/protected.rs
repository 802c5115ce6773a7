// SPDX-License-Identifier: MIT OR Apache-2.0

//! The main scenario: a clip is decrypted where Linux can't look.
//!
//! Every line of the report is measured in this run. The plaintext never is in
//! the normal world, so its presence is proven by a digest that the secure
//! world takes under the job's key, and its absence everywhere else by the
//! host, which searches the machine's whole memory from outside.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use ringfence::buffer::{Buffer, BufferInfo};
use ringfence::content::{advance, BLOCK};
use ringfence::control::Control;
use ringfence::heap::{Heap, HeapInfo};
use ringfence::proto::message::{DigestRequest, Licence};
use ringfence::secure::{Encryption, SecureSession};
use ringfence_tests::guest::host::Host;
use ringfence_tests::guest::memory::{self, Outcome, PhysicalRange};
use ringfence_tests::guest::ta::{self, Ta};
use ringfence_tests::guest::{debug, dma_buf, heap_info};
use ringfence_tests::job::{Digest, Job};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::report::{mib, Report};

/// A buffer of the clip.
struct Part {
    buffer: Buffer,
    info: BufferInfo,
    range: PhysicalRange,
    content: Range<u64>,
    digest: Digest,
}

/// Plays the job. An error means that it could not be played to its end; what
/// was seen otherwise is in the report.
pub fn play(path: &Path) -> anyhow::Result<Report> {
    let job = Job::read(path)?;
    let folder = path.parent().context("a job file has a folder")?;
    let provision = ta::message(&folder.join(&job.provision))?;
    let licence = ta::message(&folder.join(&job.licence))?;
    let ciphertext = File::open(folder.join(&job.ciphertext)).context("the clip")?;
    let before = heap_info(&job.heap)?;

    let mut report = Report::new("A clip is decrypted where Linux can't look");
    report.say("clip", &job.title);
    report.say("ciphertext", format!("{} bytes, AES-128-CTR", job.size));

    report.part("Buffers, allocated by Linux from the carveout");
    let parts = allocate(&job, &mut report)?;
    let ranges: Vec<_> = parts.iter().map(|part| part.range).collect();

    report.part("Content, decrypted by the trusted application");
    SecureSession::open()?.provision(&provision)?;
    decrypt(&job, &licence, &ciphertext, &parts, &mut report)?;
    digests(&job, &parts, &mut report)?;

    report.part("Attempts to look");
    attempts(&parts, &before, &mut report);
    let mut host = Host::open()?;
    let expected = host.search(&job.needles, &ranges).and_then(|seen| {
        let inside = seen.only_inside("the plaintext")?;
        Ok(format!(
            "{inside} pieces of plaintext inside the buffers, 0 elsewhere"
        ))
    });
    report.promise("search of the machine's memory", expected);

    report.part("After close()");
    drop(parts);
    report.promise("the same pages read as", zeros(&ranges));
    let gone = host.search(&job.needles, &[]).and_then(|seen| {
        seen.none_outside("the plaintext")?;
        Ok("no plaintext anywhere".into())
    });
    report.promise("search of the machine's memory", gone);
    report.promise("heap", as_before(&before));
    Ok(report)
}

fn allocate(job: &Job, report: &mut Report) -> anyhow::Result<Vec<Part>> {
    let control = Control::open()?;
    let heap = Heap::open(&job.heap)?;
    let mut parts = Vec::new();
    for (content, digest) in job.contents().zip(&job.digests) {
        let start = Instant::now();
        let (buffer, range) = debug::locate(&job.heap, || Ok(heap.allocate(job.buffer_size)?))?;
        let took = start.elapsed();
        let info = control.buffer(&buffer)?;
        let outcome = info
            .protected_handle()
            .map_err(anyhow::Error::from)
            .and_then(|handle| {
                anyhow::ensure!(info.protected && !info.cpu_access, "{info:?}");
                anyhow::ensure!(info.size == job.buffer_size, "{info:?}");
                Ok(format!(
                    "{} of {}, use case {}, handle {:#018x}, pages {:#x}-{:#x}, {} ms",
                    mib(info.size),
                    info.heap,
                    info.use_case,
                    handle.raw(),
                    range.start,
                    range.end() - 1,
                    took.as_millis(),
                ))
            });
        report.promise(&format!("buffer {}", parts.len() + 1), outcome);
        parts.push(Part {
            buffer,
            info,
            range,
            content,
            digest: *digest,
        });
    }
    Ok(parts)
}

fn decrypt(
    job: &Job,
    licence: &Licence,
    mut ciphertext: &File,
    parts: &[Part],
    report: &mut Report,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut session = SecureSession::open()?;
    session.load_licence(licence)?;
    let mut total = 0;
    for part in parts {
        ciphertext.seek(SeekFrom::Start(part.content.start))?;
        total += session.decrypt_in_pieces(
            part.info.protected_handle()?,
            0,
            Encryption {
                key_id: job.key_id,
                counter: advance(job.counter, part.content.start / BLOCK as u64),
            },
            ciphertext.take(part.content.end - part.content.start),
            usize::try_from(job.piece_size)?,
        )?;
    }
    let took = start.elapsed();
    let outcome = match total == job.size {
        true => Ok(format!(
            "{total} bytes in pieces of {}, {} ms",
            job.piece_size,
            took.as_millis()
        )),
        false => Err(anyhow::anyhow!("{total} bytes of {}", job.size)),
    };
    report.promise("decrypted", outcome);
    Ok(())
}

fn digests(job: &Job, parts: &[Part], report: &mut Report) -> anyhow::Result<()> {
    let mut ta = Ta::open()?;
    for (number, part) in (1..).zip(parts) {
        let request = DigestRequest {
            key: job.digest_key,
            offset: 0,
            length: part.content.end - part.content.start,
        };
        let digest = ta.digest(part.info.protected_handle()?.raw(), &request);
        let outcome = match digest {
            Ok(digest) if digest == part.digest.0 => Ok(format!(
                "HMAC-SHA256 {}… as expected",
                hex::encode(&digest[..8])
            )),
            Ok(digest) => Err(anyhow::anyhow!(
                "HMAC-SHA256 {}…, not {}…",
                hex::encode(&digest[..8]),
                hex::encode(&part.digest.0[..8])
            )),
            Err(code) => Err(anyhow::anyhow!("no digest: {code:#010x}")),
        };
        report.promise(&format!("the plaintext is in buffer {number}"), outcome);
    }
    Ok(())
}

fn attempts(parts: &[Part], heap: &HeapInfo, report: &mut Report) {
    report.promise("mmap", mmap_refused(parts));
    report.promise("/dev/mem, first and last pages", readers_killed(parts));
    report.promise("/dev/mem, a free page beside them", neighbour(parts, heap));
}

fn mmap_refused(parts: &[Part]) -> anyhow::Result<String> {
    for (number, part) in (1..).zip(parts) {
        match dma_buf::map(&part.buffer, 4096, 0, ProtFlags::READ, MapFlags::SHARED) {
            Err(Errno::PERM) => {}
            Err(errno) => anyhow::bail!("buffer {number}: {errno}, not EPERM"),
            Ok(()) => anyhow::bail!("buffer {number} can be mapped"),
        }
    }
    Ok(format!(
        "refused by the kernel for {} of {} buffers: EPERM",
        parts.len(),
        parts.len()
    ))
}

fn readers_killed(parts: &[Part]) -> anyhow::Result<String> {
    let mut signals = Vec::new();
    for part in parts {
        for page in [part.range.page(0), part.range.last_page()] {
            signals.push(memory::expect_killed(page, "a protected page")?);
        }
    }
    let killed = signals.len();
    signals.dedup();
    let [signal] = signals.as_slice() else {
        anyhow::bail!("readers were killed by different signals: {signals:?}");
    };
    Ok(format!(
        "{killed} readers, {killed} killed by the CPU's refusal: signal {signal}"
    ))
}

/// The same look at a page that is not protected: it must be possible, or the
/// readers above were killed for another reason.
fn neighbour(parts: &[Part], heap: &HeapInfo) -> anyhow::Result<String> {
    let end = parts
        .iter()
        .map(|part| part.range.end())
        .max()
        .context("no buffers")?;
    let start = parts
        .iter()
        .map(|part| part.range.start)
        .min()
        .context("no buffers")?;
    anyhow::ensure!(heap.free > end - start, "the buffers fill the heap");
    let taken = debug::ranges(&heap.name)?;
    let page = [end, start.wrapping_sub(memory::PAGE)]
        .map(|start| PhysicalRange {
            start,
            size: memory::PAGE,
        })
        .into_iter()
        .find(|page| !taken.iter().any(|line| line.range.start == page.start))
        .context("no free neighbour")?;
    match memory::read(page)? {
        Outcome::Read { .. } => Ok(format!("reader of {:#x} lives: it is open", page.start)),
        other => anyhow::bail!("{:#x}: {other:?}", page.start),
    }
}

fn zeros(ranges: &[PhysicalRange]) -> anyhow::Result<String> {
    let mut total = 0;
    for range in ranges {
        memory::expect_zero(*range, "after close()")?;
        total += range.size;
    }
    Ok(format!("zeros, all {total} bytes of them"))
}

/// Fails unless a heap is as it was, and all of it free.
pub fn as_before(before: &HeapInfo) -> anyhow::Result<String> {
    let after = heap_info(&before.name)?;
    anyhow::ensure!(after == *before, "{after:?}, not {before:?}");
    anyhow::ensure!(after.protected_bytes == 0, "{after:?}");
    anyhow::ensure!(after.quarantined == 0, "{after:?}");
    anyhow::ensure!(after.free == after.size, "{after:?}");
    Ok(format!(
        "{} of {} free, 0 bytes protected, 0 in quarantine, 0 buffers",
        mib(after.free),
        mib(after.size)
    ))
}
