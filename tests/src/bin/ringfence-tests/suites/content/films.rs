// SPDX-License-Identifier: MIT OR Apache-2.0

//! Films, played frame by frame, and what happens when that ends early.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::{Buffer, Handle};
use ringfence::control::Control;
use ringfence::error::Error;
use ringfence::heap::Heap;
use ringfence::play::pace::Rate;
use ringfence::play::player::{Memory, Plan, Player};
use ringfence::play::Movie;
use ringfence::proto::command::result;
use ringfence::proto::message::DigestRequest;
use ringfence::secure::SecureSession;
use ringfence_tests::content::Film;
use ringfence_tests::guest::memory::{expect_killed, expect_zero, PhysicalRange};
use ringfence_tests::guest::ta::{expect_code, expect_done, Ta};
use ringfence_tests::guest::{deadline, debug, heap_info};
use serde_json::Value;

use super::super::fixture::{path, read_message};
use super::super::region::VIDEO;
use super::prepared;

/// Buffers of the heap for video.
struct Video;

impl Memory for Video {
    fn allocate(&mut self, size: u64) -> Result<(Buffer, Handle), Error> {
        let buffer = Heap::open(VIDEO)?.allocate(size)?;
        let handle = Control::open()?.buffer(&buffer)?.protected_handle()?;
        Ok((buffer, handle))
    }
}

type TestPlayer<R> = Player<R, SecureSession>;

/// A player in a session of its own, which decrypts only.
fn player(film: &Film, licence: &Path) -> anyhow::Result<TestPlayer<File>> {
    player_of(File::open(path(&film.mp4)?)?, licence)
}

fn player_of<R: Read + Seek>(mut film: R, licence: &Path) -> anyhow::Result<TestPlayer<R>> {
    let movie = Movie::read(&mut film)?;
    let licence = read_message(licence)?;
    let mut session = SecureSession::open()?;
    session.load_licence(&licence)?;
    Ok(Player::new(
        movie,
        film,
        licence.key_id,
        session,
        None,
        &mut Video,
    )?)
}

/// Whether the bitstream buffer holds this frame's plaintext.
fn holds<R>(ta: &mut Ta, player: &TestPlayer<R>, film: &Film, frame: usize) -> anyhow::Result<bool>
where
    R: Read + Seek,
{
    let expected = film.frames.get(frame).context("no such frame")?;
    let request = DigestRequest {
        key: film.digest_key,
        offset: 0,
        length: expected.size.into(),
    };
    let (_, handle) = player.bitstream();
    let seen = expect_done(ta.digest(handle.raw(), &request), "DIGEST")?;
    Ok(seen == expected.digest.0)
}

pub fn a_film_plays() -> anyhow::Result<()> {
    let content = prepared()?;
    let mut ta = Ta::open()?;
    if let Some(film) = content.films.first() {
        let mut player = player(film, &film.licence)?;
        let movie = player.movie();
        anyhow::ensure!(movie.samples.len() == film.frames.len(), "{movie:?}");
        let size = (u32::from(movie.width), u32::from(movie.height));
        anyhow::ensure!(size == (film.width, film.height), "{size:?}");
        anyhow::ensure!(movie.codec.0 == *b"mp4v", "{:?}", movie.codec);
        let plan = Plan {
            from: 0,
            frames: None,
            rate: Rate::Max,
        };
        let mut seen = Ok(0);
        let report = player.play(&plan, |player, _| {
            let frame = *seen.as_ref().unwrap_or(&0);
            let next = holds(&mut ta, player, film, frame).and_then(|holds| {
                anyhow::ensure!(holds, "frame {frame} is another");
                Ok(frame + 1)
            });
            if seen.is_ok() {
                seen = next;
            }
        })?;
        let count = film.frames.len();
        anyhow::ensure!(seen? == count, "not every frame was seen");
        anyhow::ensure!(
            report.decrypted == count && report.dropped == 0,
            "{report:?}"
        );
        let bytes: u64 = film.frames.iter().map(|frame| u64::from(frame.size)).sum();
        anyhow::ensure!(report.bytes == bytes, "{report:?}");
        anyhow::ensure!(
            report.most_secure_calls == 1 && report.within_bounds,
            "{report:?}"
        );
        // It goes back as well as forth.
        player.decrypt(0)?;
        anyhow::ensure!(holds(&mut ta, &player, film, 0)?, "frame 0 is another");
        anyhow::ensure!(!holds(&mut ta, &player, film, 1)?, "every digest is right");
    }
    Ok(())
}

/// Plays a film, as far as a few pictures, with the command.
fn play(film: &Film, licence: &Path) -> anyhow::Result<std::process::Output> {
    let output = Command::new("ringfence")
        .args(["--json", "play", &path(&film.mp4)?])
        .args(["--licence", &path(licence)?])
        .args(["--fps", "max", "--frames", "4"])
        .output();
    output.context("ringfence")
}

pub fn a_film_is_decoded() -> anyhow::Result<()> {
    let content = prepared()?;
    let film = content.films.first().context("no film")?;
    let output = play(film, &film.licence)?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {error}", output.status);
    let said: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    for (key, value) in [
        ("frames", film.frames.len()),
        ("shown", 4),
        ("dropped", 0),
        ("secure_calls", 8),
        ("most_secure_calls", 2),
    ] {
        anyhow::ensure!(said[key] == value, "{key}: {said}");
    }
    anyhow::ensure!(said["within_bounds"] == true, "{said}");
    // What another key makes of it is no picture.
    let output = play(film, &film.wrong_licence)?;
    let error = String::from_utf8_lossy(&output.stderr);
    let is_told = !output.status.success() && error.contains("key or the film may be wrong");
    anyhow::ensure!(is_told, "a wrong key: {}: {error}", output.status);
    Ok(())
}

pub fn a_wrong_key_gives_nothing() -> anyhow::Result<()> {
    let content = prepared()?;
    let film = content.films.first().context("no film")?;
    let mut ta = Ta::open()?;
    let mut player = player(film, &film.wrong_licence)?;
    for frame in 0..4 {
        player.decrypt(frame)?;
        anyhow::ensure!(
            !holds(&mut ta, &player, film, frame)?,
            "frame {frame} by a wrong key"
        );
    }
    Ok(())
}

pub fn two_films_stay_apart() -> anyhow::Result<()> {
    let content = prepared()?;
    let [one, other] = content.films.as_slice() else {
        anyhow::bail!("not two films");
    };
    let mut first = player(one, &one.licence)?;
    let mut second = player(other, &other.licence)?;
    let mut ta = Ta::open()?;
    for frame in 0..6 {
        first.decrypt(frame)?;
        second.decrypt(frame)?;
        anyhow::ensure!(
            holds(&mut ta, &first, one, frame)?,
            "frame {frame} of the first"
        );
        anyhow::ensure!(
            holds(&mut ta, &second, other, frame)?,
            "frame {frame} of the second"
        );
    }
    // The key of the one is unknown in the session of the other.
    let mut film = File::open(path(&one.mp4)?)?;
    let movie = Movie::read(&mut film)?;
    let mut session = SecureSession::open()?;
    session.load_licence(&read_message(&other.licence)?)?;
    let key_id = movie.protection.key_id;
    let mut stranger = Player::new(movie, film, key_id, session, None, &mut Video)?;
    match stranger.decrypt(0) {
        Err(error) if error.to_string().contains("unknown handle or key") => {}
        outcome => anyhow::bail!("a key of another session: {outcome:?}"),
    }
    drop(first);
    second.decrypt(1)?;
    anyhow::ensure!(
        holds(&mut ta, &second, other, 1)?,
        "the second, when the first is gone"
    );
    Ok(())
}

/// Where the first box of this type begins.
fn place(film: &[u8], kind: &[u8; 4]) -> anyhow::Result<usize> {
    let found = film.windows(4).position(|bytes| bytes == kind);
    found
        .and_then(|place| place.checked_sub(4))
        .with_context(|| format!("no {}", kind.escape_ascii()))
}

pub fn damaged_films_say_why() -> anyhow::Result<()> {
    const DAMAGED: &str = "/tmp/damaged.mp4";
    let content = prepared()?;
    let [one, other] = content.films.as_slice() else {
        anyhow::bail!("not two films");
    };
    let whole = fs::read(path(&one.mp4)?)?;
    let at = |kind| place(&whole, kind);
    let changed = |place: usize, byte: u8| {
        let mut film = whole.clone();
        film[place] = byte;
        film
    };
    let stsz = at(b"stsz")?;
    let senc = at(b"senc")?;
    // The type of its content: `cenc` becomes `cens`.
    let schm = at(b"schm")?;
    let cases: [(&str, Vec<u8>, String); 9] = [
        ("nothing", Vec::new(), "moov".into()),
        (
            "half a film",
            whole[..whole.len() / 2].to_vec(),
            "mdat".into(),
        ),
        (
            "the last byte",
            whole[..whole.len() - 1].to_vec(),
            "moov".into(),
        ),
        (
            "more samples",
            changed(stsz + 19, 200),
            format!("stsz at byte {stsz}"),
        ),
        (
            "other samples in senc",
            changed(senc + 15, 3),
            format!("senc at byte {senc}"),
        ),
        (
            "another scheme",
            changed(schm + 15, b's'),
            format!("schm at byte {schm}"),
        ),
        (
            "no encryption",
            {
                let encv = at(b"encv")?;
                changed(encv + 4, b'x')
            },
            "not encrypted".into(),
        ),
        (
            "a sample outside",
            changed(stsz + 20, 0x7f),
            "sample 0".into(),
        ),
        (
            "chunks outside",
            {
                let stco = at(b"stco")?;
                changed(stco + 16, 0x7f)
            },
            "stco".into(),
        ),
    ];
    let licence = path(&one.licence)?;
    let run = |file: &str, licence: &str| {
        let arguments = [
            "play",
            file,
            "--licence",
            licence,
            "--no-decode",
            "--fps",
            "max",
        ];
        Command::new("ringfence").args(arguments).output()
    };
    for (what, film, says) in &cases {
        fs::write(DAMAGED, film)?;
        let output = run(DAMAGED, &licence)?;
        let error = String::from_utf8_lossy(&output.stderr);
        let is_told = output.status.code() == Some(5) && error.contains(says.as_str());
        anyhow::ensure!(
            is_told,
            "{what}: {}, without {says:?}: {error}",
            output.status
        );
    }
    fs::remove_file(DAMAGED)?;
    let film = path(&one.mp4)?;
    for (what, licence, says) in [
        (
            "another film's licence",
            &other.licence,
            "film's own licence",
        ),
        ("an expired licence", &content.expired, "has ended"),
        (
            "a licence of another device",
            &content.of_renewed,
            "another device",
        ),
    ] {
        let output = run(&film, &path(licence)?)?;
        let error = String::from_utf8_lossy(&output.stderr);
        let is_told = output.status.code() == Some(5) && error.contains(says);
        anyhow::ensure!(is_told, "{what}: {}: {error}", output.status);
    }
    // Cut short after it was opened: in memory, so that the player does not see it.
    let mut film = Cursor::new(whole);
    let movie = Movie::read(&mut film)?;
    film.get_mut().truncate(200);
    let licence = read_message(&one.licence)?;
    let mut session = SecureSession::open()?;
    session.load_licence(&licence)?;
    let mut player = Player::new(movie, film, licence.key_id, session, None, &mut Video)?;
    match player.decrypt(3) {
        Err(Error::Ciphertext(_)) => Ok(()),
        outcome => anyhow::bail!("a film that was cut short meanwhile: {outcome:?}"),
    }
}

/// A `ringfence play` that waits in the middle of a film.
struct Paused {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Paused {
    fn start(film: &Film) -> anyhow::Result<Self> {
        let mut child = Command::new("ringfence")
            .arg("play")
            .arg(path(&film.mp4)?)
            .args(["--licence", &path(&film.licence)?])
            .args(["--fps", "max", "--events", "--pause-at", "2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("ringfence")?;
        let output = child.stdout.take().context("no standard output")?;
        let mut paused = Self {
            child,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        while !line.starts_with("paused at 2") {
            line.clear();
            let read = paused.output.read_line(&mut line)?;
            anyhow::ensure!(read > 0, "it ended before the pause");
        }
        Ok(paused)
    }

    /// Where its buffers are.
    fn ranges(&self) -> anyhow::Result<Vec<PhysicalRange>> {
        let own = debug::ranges(VIDEO)?
            .into_iter()
            .filter(|line| line.pid == self.child.id())
            .map(|line| line.range)
            .collect::<Vec<_>>();
        // One for bitstreams, two for pictures.
        anyhow::ensure!(own.len() == 3, "{} buffers", own.len());
        Ok(own)
    }
}

/// Waits until all memory of the heap is back, and looks that it is zero.
fn all_is_back(ranges: &[PhysicalRange]) -> anyhow::Result<()> {
    deadline::until(Duration::from_secs(20), "the buffers come back", || {
        let info = heap_info(VIDEO)?;
        let is_back = info.buffers == 0 && info.free == info.size && info.protected_bytes == 0;
        Ok(is_back.then_some(()))
    })?;
    let mut each = ranges.iter();
    each.try_for_each(|range| expect_zero(*range, "after the end of the player"))
}

/// Plays a film to its end.
fn next_film_plays(film: &Film) -> anyhow::Result<()> {
    let mut ta = Ta::open()?;
    let mut player = player(film, &film.licence)?;
    for frame in [0, film.frames.len() - 1] {
        player.decrypt(frame)?;
        anyhow::ensure!(
            holds(&mut ta, &player, film, frame)?,
            "frame {frame} of the next film"
        );
    }
    Ok(())
}

pub fn a_killed_player_leaves_nothing() -> anyhow::Result<()> {
    let content = prepared()?;
    let film = content.films.first().context("no film")?;
    let mut paused = Paused::start(film)?;
    let ranges = paused.ranges()?;
    for range in &ranges {
        expect_killed(range.page(0), "a film's buffer")?;
    }
    paused.child.kill()?;
    paused.child.wait()?;
    all_is_back(&ranges)?;
    next_film_plays(film)
}

pub fn a_panic_ends_a_film() -> anyhow::Result<()> {
    let content = prepared()?;
    let film = content.films.first().context("no film")?;
    let mut paused = Paused::start(film)?;
    let ranges = paused.ranges()?;
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    // Still fenced, and the player finds its session dead.
    expect_killed(ranges[0].page(0), "after the panic")?;
    drop(paused.child.stdin.take());
    let output = paused.child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    let is_told = output.status.code() == Some(6) && error.contains("crashed");
    anyhow::ensure!(is_told, "{}: {error}", output.status);
    all_is_back(&ranges)?;
    next_film_plays(film)
}
