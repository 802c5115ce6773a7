// SPDX-License-Identifier: MIT OR Apache-2.0

//! The scenario `video`: an encrypted film is played, its pictures are on the
//! screen, and nobody in Linux can have them.
//!
//! The player stops at some pictures. While one stands on the screen the host takes
//! a picture of that, compares it with the original, and looks where in the whole
//! machine's memory pieces of the film are; and root in this Linux tries what it
//! can to get at them.

use std::path::Path;

use anyhow::Context;
use ringfence_tests::guest::cinema::{self, Ending, Player, BITSTREAM, FRAME};
use ringfence_tests::guest::host::Host;
use ringfence_tests::guest::memory::{self, PhysicalRange};
use ringfence_tests::guest::search::{self, Planted};
use ringfence_tests::guest::{debug, display, dma_buf, heap_info, module};
use ringfence_tests::needles::Set;
use ringfence_tests::screening::{self, Screening, Seen, Sight, LIKENESS, SEEN};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::protected::as_before;
use crate::report::Report;

/// Heap of everything that must not be seen.
const HEAP: &str = "protected-video";

/// Of so many pages of the film's memory one is read.
const EVERY: usize = 16;

/// Plays the film. An error means that it could not be played to its end; what was
/// seen otherwise is in the report.
pub fn play(path: &Path) -> anyhow::Result<Report> {
    let screening: Screening = screening::read(path).with_context(|| path.display().to_string())?;
    let folder = path.parent().context("a screening has a folder")?;
    let mut set: Set = screening::read(&folder.join(&screening.needles)).context("the needles")?;
    module::load(display::MODULE)?;
    let before = heap_info(HEAP)?;
    let mut host = Host::open()?;

    let mut report = Report::new("An encrypted film is played where Linux can't look");
    report.say("film", &screening.title);
    report.say(
        "pictures",
        format!(
            "{} of {} by {} pixels, JPEG, encrypted as ISO/IEC 23001-7 says",
            screening.frames, screening.width, screening.height
        ),
    );

    report.part("At its own rate");
    let ending = cinema::at_its_rate(folder, &screening)?;
    report.promise("player", summary(&ending));

    let mut player = Player::start(folder, &screening, &screening.licence)?;
    let mut seen = Seen::default();
    let mut memory = Vec::new();
    for (number, &frame) in screening.pauses.iter().enumerate() {
        player.until(frame)?;
        report.part(format!("Picture {frame} on the screen"));
        let sight = look(&mut host, &player, frame, &mut report)?;
        memory.extend(sight.memory.iter().copied());
        seen.sights.push(sight);
        if number == 0 {
            let last = screening.pauses[screening.pauses.len() - 1];
            report.promise("the same, against another", other(&mut host, frame, last));
            attack(&player, &mut report);
            search(&screening, &mut set, &mut host, &player, &mut report)?;
            places(&player, &mut report)?;
        }
        player.go_on()?;
    }
    let ending = player.end()?;
    report.part("At the film's end");
    report.promise("player", summary(&ending));
    memory.sort_unstable();
    memory.dedup();
    report.promise("the film's memory reads as", zeros(&memory));
    let needles = &screening.host_needles;
    let gone = host.search(needles, &[]).and_then(|seen| {
        seen.none_outside("the film")?;
        Ok("no piece of the film anywhere".into())
    });
    report.promise("search from outside", gone);
    report.promise("heap", as_before(&before));

    report.part("With a licence for another key");
    report.promise("player", wrong_key(folder, &screening));
    report.promise("screen", no_match(&screening, &mut host));
    report.promise("heap", as_before(&before));
    screening::write(&folder.join(SEEN), &seen).context(SEEN)?;
    Ok(report)
}

/// The protected memory that the player has.
fn memory_of(player: &Player) -> anyhow::Result<Vec<PhysicalRange>> {
    let lines = debug::ranges(HEAP)?.into_iter();
    let ranges: Vec<_> = lines
        .filter(|line| line.pid == player.pid())
        .map(|line| line.range)
        .collect();
    anyhow::ensure!(!ranges.is_empty(), "the player has no protected memory");
    Ok(ranges)
}

/// Has a picture taken and compared, and has its memory read.
fn look(
    host: &mut Host,
    player: &Player,
    frame: u32,
    report: &mut Report,
) -> anyhow::Result<Sight> {
    let name = Screening::picture(frame);
    let taken = host.picture(&name)?;
    let psnr = host.compare(&name, &Screening::original(frame))?;
    let what = format!("{} by {} pixels, {psnr:.1} dB", taken.width, taken.height);
    let outcome = match psnr >= LIKENESS {
        true => Ok(format!("{what} from the original")),
        false => Err(anyhow::anyhow!("{what}: not the original")),
    };
    report.promise("the screen, seen from outside", outcome);
    let ranges = memory_of(player)?;
    let mut sight = Sight {
        frame,
        psnr,
        memory: ranges
            .iter()
            .map(|range| (range.start, range.size))
            .collect(),
        readers: 0,
        killed: 0,
    };
    for range in &ranges {
        for index in (0..range.size / memory::PAGE).step_by(EVERY) {
            sight.readers += 1;
            if memory::is_refusal(memory::read(range.page(index))?) {
                sight.killed += 1;
            }
        }
    }
    let what = format!("{} of {} readers killed", sight.killed, sight.readers);
    let outcome = match sight.killed == sight.readers {
        true => Ok(what),
        false => Err(anyhow::anyhow!(what)),
    };
    report.promise("/dev/mem, the film's memory", outcome);
    Ok(sight)
}

/// Says where each byte lives, and who can read it there.
fn places(player: &Player, report: &mut Report) -> anyhow::Result<()> {
    let of = |what| -> anyhow::Result<String> {
        let ranges = player.memory(HEAP, what)?;
        let texts = ranges
            .iter()
            .map(|range| format!("{:#x}-{:#x}", range.start, range.end() - 1));
        Ok(texts.collect::<Vec<_>>().join(", "))
    };
    report.part("Where each byte lives");
    report.row("", "where", "who can read it");
    report.row(
        "the film, encrypted",
        "its file, the page cache, the player",
        "everybody",
    );
    report.row(
        "its key",
        "the trusted application",
        "the trusted application",
    );
    report.row(
        "the picture, compressed",
        &of(BITSTREAM)?,
        "the trusted applications, the display",
    );
    report.row(
        "the picture, and the one before",
        &of(FRAME)?,
        "the trusted applications, the display",
    );
    Ok(())
}

/// The comparison can fail: a picture is not like another of the same film.
fn other(host: &mut Host, frame: u32, another: u32) -> anyhow::Result<String> {
    let psnr = host.compare(&Screening::picture(frame), &Screening::original(another))?;
    anyhow::ensure!(psnr < LIKENESS, "{psnr:.1} dB from picture {another}");
    Ok(format!("{psnr:.1} dB from picture {another}"))
}

fn attack(player: &Player, report: &mut Report) {
    report.promise("mmap of the player's buffers", stolen_mapped(player));
    report.promise("CPU access to them", stolen_accessed(player));
    report.promise("the player's own memory", no_mapping(player));
}

fn stolen_mapped(player: &Player) -> anyhow::Result<String> {
    let buffers = player.buffers()?;
    anyhow::ensure!(!buffers.is_empty(), "the player has no buffers");
    for buffer in &buffers {
        match dma_buf::map(buffer, 4096, 0, ProtFlags::READ, MapFlags::SHARED) {
            Err(Errno::PERM) => {}
            Err(errno) => anyhow::bail!("{errno}, not EPERM"),
            Ok(()) => anyhow::bail!("a buffer can be mapped"),
        }
    }
    Ok(format!(
        "{} descriptors taken, all refused: EPERM",
        buffers.len()
    ))
}

fn stolen_accessed(player: &Player) -> anyhow::Result<String> {
    /// `DMA_BUF_SYNC_READ`.
    const READ: u64 = 1;
    let buffers = player.buffers()?;
    for buffer in &buffers {
        match dma_buf::sync(buffer, READ) {
            Err(Errno::ACCESS) => {}
            Err(errno) => anyhow::bail!("{errno}, not EACCES"),
            Ok(()) => anyhow::bail!("a buffer can be accessed"),
        }
    }
    Ok("refused: EACCES".into())
}

/// The player itself has none of its buffers mapped.
fn no_mapping(player: &Player) -> anyhow::Result<String> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", player.pid()))?;
    let mapped = maps.lines().filter(|line| line.contains("dmabuf")).count();
    anyhow::ensure!(mapped == 0, "{mapped} buffers are mapped");
    Ok(format!(
        "no buffer among its {} mappings",
        maps.lines().count()
    ))
}

/// Searches the machine's memory, from outside and from inside.
fn search(
    screening: &Screening,
    set: &mut Set,
    host: &mut Host,
    player: &Player,
    report: &mut Report,
) -> anyhow::Result<()> {
    let film = set.names.len();
    let ranges = memory_of(player)?;
    let seen = host.search(&screening.host_needles, &ranges);
    let outside = seen.and_then(|seen| {
        let inside = seen.only_inside("the film")?;
        Ok(format!(
            "{inside} pieces of the film in protected memory, 0 elsewhere"
        ))
    });
    report.promise("search from outside", outside);

    let planted = Planted::plant()?;
    let decoys = planted.add_to(set);
    let findings = search::search(set)?;
    let pieces = set.needles.len() - decoys.len();
    let film: usize = (0..film).map(|thing| findings.of(set, thing)).sum();
    let outcome = match film {
        0 => Ok(format!(
            "{} MiB of memory for {pieces} pieces of film: none, {} s",
            findings.bytes >> 20,
            findings.took.as_secs()
        )),
        film => Err(anyhow::anyhow!(
            "{film} pieces of film, first: {:x?}",
            findings.found.first()
        )),
    };
    report.promise("search by root", outcome);
    for (thing, name) in decoys {
        let outcome = match findings.of(set, thing) {
            0 => Err(anyhow::anyhow!("the search does not find it")),
            _ => Ok("found, as it must".into()),
        };
        report.promise(&format!("  planted in {name}"), outcome);
    }
    Ok(())
}

/// What the player says of itself.
fn summary(ending: &Ending) -> anyhow::Result<String> {
    anyhow::ensure!(
        ending.status.success(),
        "{}: {}",
        ending.status,
        ending.complaint.trim()
    );
    let last = ending.output.trim().lines().last();
    Ok(last.context("it says nothing")?.to_owned())
}

fn zeros(memory: &[(u64, u64)]) -> anyhow::Result<String> {
    let mut total = 0;
    for &(start, size) in memory {
        memory::expect_zero(PhysicalRange { start, size }, "after the film")?;
        total += size;
    }
    Ok(format!("zeros, all {total} bytes of it"))
}

/// Plays the film with a key that is not its own: it must end with an error.
fn wrong_key(folder: &Path, screening: &Screening) -> anyhow::Result<String> {
    let mut player = Player::start(folder, screening, &screening.wrong_licence)?;
    let first = *screening.pauses.first().context("no pauses")?;
    match player.until(first) {
        Ok(()) => anyhow::bail!("it shows pictures"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// The screen does not look like the film.
fn no_match(screening: &Screening, host: &mut Host) -> anyhow::Result<String> {
    host.picture("wrong-key")?;
    for &frame in &screening.pauses {
        if let Ok(psnr) = host.compare("wrong-key", &Screening::original(frame)) {
            anyhow::ensure!(psnr < LIKENESS, "{psnr:.1} dB from picture {frame}");
        }
    }
    Ok("no picture of the film".into())
}
