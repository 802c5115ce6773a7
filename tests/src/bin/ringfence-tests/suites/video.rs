// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is on the screen, and who can read it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::proto::command::result;
use ringfence_tests::guest::cinema::Player;
use ringfence_tests::guest::debug::RangeLine;
use ringfence_tests::guest::display::{self, Display, Show, PATH};
use ringfence_tests::guest::host::{Host, Look};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{expect_code, expect_done, Ta};
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info, module};
use ringfence_tests::host_port::digest;
use ringfence_tests::screening::{self, Screening, LIKENESS, SCREENING};
use rustix::io::Errno;

use super::protect::handle;
use super::region::{self, CAMERA, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("a_picture_in_open_memory_is_shown", open_memory),
    (
        "a_protected_picture_is_shown_that_linux_cant_read",
        protected_memory,
    ),
    ("a_flip_lets_go_of_the_picture_before", flips),
    ("closing_makes_the_screen_black", closing),
    ("one_clients_end_leaves_anothers_picture", two_clients),
    ("a_display_unbound_while_showing_lets_go", unbound),
    ("wrong_pictures_are_refused_and_change_nothing", refused),
    (
        "films_that_break_off_leave_nothing_and_the_next_one_plays",
        broken_off,
    ),
];

/// The whole scenario searches all memory, for which the debug kernel takes a minute.
pub fn on_this_kernel() -> &'static [Test] {
    match debug::is_debug_kernel() {
        true => &[],
        false => &[(
            "an_encrypted_film_is_on_the_screen_and_nowhere_else",
            whole_scenario,
        )],
    }
}

const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;

/// Bytes of a picture.
const SIZE: u64 = 4 * WIDTH as u64 * HEIGHT as u64;

/// The heap of memory in one piece that the CPU can use.
const CMA: &str = "default_cma_region";

/// How the screen looks when nothing is shown.
fn black() -> Look {
    uniform(32, 32, 0)
}

/// A picture of one grey.
fn uniform(width: u32, height: u32, grey: u8) -> Look {
    Look {
        width,
        height,
        digest: digest(&vec![grey; 3 * (width * height) as usize]),
    }
}

/// Red, green and blue of a pixel of the test picture, no two lines alike.
fn pixel(x: u32, y: u32) -> [u8; 3] {
    [x as u8, y as u8, (x * y / 7 + 3 * y) as u8]
}

/// A buffer with the test picture in it, `lead` bytes from its start, with lines of
/// `stride` bytes; and how it looks.
fn painted(lead: u64, stride: u32) -> anyhow::Result<(Buffer, Look)> {
    let size = (lead + u64::from(stride) * u64::from(HEIGHT)).next_multiple_of(4096);
    let buffer = allocation::allocate_size(&allocation::open(CMA)?, size)?;
    let mut bytes = vec![0xee; size as usize];
    let mut colours = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let [red, green, blue] = pixel(x, y);
            let at = lead as usize + (y * stride + 4 * x) as usize;
            bytes[at..at + 4].copy_from_slice(&[blue, green, red, 0]);
            colours.extend([red, green, blue]);
        }
    }
    let words = bytes.chunks_exact(8).map(|word| {
        // The chunks have eight bytes.
        u64::from_ne_bytes(word.try_into().unwrap_or_default())
    });
    Mapping::new(&buffer, size as usize)?.write(words);
    let look = Look {
        width: WIDTH,
        height: HEIGHT,
        digest: digest(&colours),
    };
    Ok((buffer, look))
}

/// Fails unless the screen looks like this.
fn expect_look(expected: Look, what: &str) -> anyhow::Result<()> {
    let seen = Host::open()?.picture(&what.replace(' ', "-"))?;
    anyhow::ensure!(seen == expected, "{what}: {seen:x?}, not {expected:x?}");
    Ok(())
}

fn open_memory() -> anyhow::Result<()> {
    let display = Display::open()?;
    expect_look(black(), "before")?;
    for (lead, stride) in [(0, 4 * WIDTH), (4, 4 * WIDTH), (4096, 4 * WIDTH + 64)] {
        let (buffer, look) = painted(lead, stride)?;
        display.show(Show {
            stride,
            offset: lead,
            ..Show::new(&buffer, WIDTH, HEIGHT)
        })?;
        // The display has a reference of its own.
        drop(buffer);
        expect_look(look, &format!("painted {lead} {stride}"))?;
    }
    Ok(())
}

/// Buffers that live in a heap.
fn live(heap: &str) -> anyhow::Result<u64> {
    Ok(heap_info(heap)?.buffers.into())
}

fn protected_memory() -> anyhow::Result<()> {
    let display = Display::open()?;
    let mut ta = Ta::open()?;
    // The trusted application fills those for video only.
    for grey in [0x53, 0xa1] {
        let (buffer, range) = region::allocate(VIDEO, SIZE)?;
        expect_done(ta.fill(handle(&buffer)?, grey), "FILL")?;
        display.show(Show::new(&buffer, WIDTH, HEIGHT))?;
        expect_look(uniform(WIDTH, HEIGHT, grey), &format!("grey {grey}"))?;
        // The very memory that is on the screen.
        expect_killed(range.page(0), "the first lines on the screen")?;
        expect_killed(range.last_page(), "the last lines on the screen")?;
        drop(buffer);
        expect_killed(range.page(0), "while only the screen has it")?;
        expect_look(uniform(WIDTH, HEIGHT, grey), &format!("still {grey}"))?;
    }
    // Another heap that lists the display, of which nobody can fill anything.
    let (buffer, range) = region::allocate(UI, SIZE)?;
    display.show(Show::new(&buffer, WIDTH, HEIGHT))?;
    expect_look(uniform(WIDTH, HEIGHT, 0), "user interface")?;
    expect_killed(range.page(0), "the user interface")?;
    Ok(())
}

fn flips() -> anyhow::Result<()> {
    let display = Display::open()?;
    let mut ta = Ta::open()?;
    for grey in 1..=20 {
        let (buffer, range) = region::allocate(VIDEO, SIZE)?;
        expect_done(ta.fill(handle(&buffer)?, grey), "FILL")?;
        display.show(Show::new(&buffer, WIDTH, HEIGHT))?;
        drop(buffer);
        anyhow::ensure!(live(VIDEO)? == 1, "flip {grey}: {}", live(VIDEO)?);
        expect_killed(range.page(0), "on the screen")?;
    }
    expect_look(uniform(WIDTH, HEIGHT, 20), "the last flip")?;
    let last = debug::ranges(VIDEO)?;
    let (buffer, _) = painted(0, 4 * WIDTH)?;
    display.show(Show::new(&buffer, WIDTH, HEIGHT))?;
    anyhow::ensure!(live(VIDEO)? == 0, "the last flip keeps its buffer");
    for line in last {
        expect_zero(line.range, "after the last flip")?;
    }
    Ok(())
}

fn closing() -> anyhow::Result<()> {
    let display = Display::open()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    expect_done(Ta::open()?.fill(handle(&buffer)?, 0x77), "FILL")?;
    display.show(Show::new(&buffer, WIDTH, HEIGHT))?;
    drop(buffer);
    drop(display);
    anyhow::ensure!(live(VIDEO)? == 0, "a closed display keeps its buffer");
    expect_zero(range, "after closing")?;
    expect_look(black(), "after closing")
}

fn two_clients() -> anyhow::Result<()> {
    let (one, other) = (Display::open()?, Display::open()?);
    let (buffer, look) = painted(0, 4 * WIDTH)?;
    one.show(Show::new(&buffer, WIDTH, HEIGHT))?;
    drop(other);
    expect_look(look, "another has gone")?;
    drop(one);
    expect_look(black(), "both have gone")
}

fn unbound() -> anyhow::Result<()> {
    let display = Display::open()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    expect_done(Ta::open()?.fill(handle(&buffer)?, 0x66), "FILL")?;
    let show = Show::new(&buffer, WIDTH, HEIGHT);
    display.show(show)?;
    display::unbind()?;
    let outcome = display.show(show);
    let opened = OpenOptions::new().write(true).open(PATH);
    let look = Host::open()?.picture("unbound");
    expect_killed(range.page(0), "while this process has it")?;
    drop(buffer);
    let (left, zero) = (live(VIDEO)?, expect_zero(range, "after the display"));
    display::bind()?;
    expect_errno(outcome, Errno::NODEV, "a picture without a display")?;
    anyhow::ensure!(opened.is_err(), "a display that is gone can be opened");
    anyhow::ensure!(look? == black(), "the screen of a display that is gone");
    anyhow::ensure!(left == 0, "an unbound display keeps its buffer");
    zero?;
    // The old file is of the old device; a new one shows pictures again.
    let (buffer, look) = painted(0, 4 * WIDTH)?;
    let show = Show::new(&buffer, WIDTH, HEIGHT);
    expect_errno(display.show(show), Errno::NODEV, "the old file")?;
    let again = Display::open()?;
    again.show(show)?;
    drop(display);
    expect_look(look, "bound again")?;
    drop(again);
    // And the module comes and goes.
    module::unload(display::MODULE)?;
    expect_look(black(), "unloaded")
}

fn refused() -> anyhow::Result<()> {
    let display = Display::open()?;
    let (shown, look) = painted(0, 4 * WIDTH)?;
    display.show(Show::new(&shown, WIDTH, HEIGHT))?;
    let (buffer, _) = region::allocate(CAMERA, SIZE.next_multiple_of(4096))?;
    let good = Show::new(&buffer, WIDTH, HEIGHT);
    let (inval, range) = (Errno::INVAL, Errno::RANGE);
    let scattered = allocation::allocate_size(&allocation::open("system")?, 16 << 20)?;
    let file = File::open("/proc/self/exe")?;
    let cases = [
        ("flags", Show { flags: 1, ..good }, inval),
        (
            "format",
            Show {
                format: u32::from_le_bytes(*b"AR24"),
                ..good
            },
            inval,
        ),
        ("no width", Show { width: 0, ..good }, inval),
        ("narrow", Show { width: 15, ..good }, inval),
        (
            "wide",
            Show {
                width: 16001,
                stride: u32::MAX & !3,
                ..good
            },
            inval,
        ),
        (
            "widest",
            Show {
                width: u32::MAX,
                ..good
            },
            inval,
        ),
        ("no height", Show { height: 0, ..good }, inval),
        (
            "high",
            Show {
                height: u32::MAX,
                ..good
            },
            inval,
        ),
        (
            "short lines",
            Show {
                stride: 4 * WIDTH - 4,
                ..good
            },
            inval,
        ),
        (
            "odd lines",
            Show {
                stride: 4 * WIDTH + 2,
                ..good
            },
            inval,
        ),
        ("odd offset", Show { offset: 2, ..good }, inval),
        ("no file", Show { fd: -1, ..good }, Errno::BADF),
        (
            "no buffer",
            Show {
                fd: file.as_raw_fd(),
                ..good
            },
            inval,
        ),
        (
            "beyond the end",
            Show {
                height: HEIGHT + 100,
                ..good
            },
            range,
        ),
        (
            "long lines",
            Show {
                stride: 4 * WIDTH + 1024,
                ..good
            },
            range,
        ),
        (
            "longest lines",
            Show {
                stride: u32::MAX & !3,
                ..good
            },
            range,
        ),
        (
            "far offset",
            Show {
                offset: u64::MAX & !3,
                ..good
            },
            range,
        ),
        (
            "offset",
            Show {
                offset: 1 << 20,
                ..good
            },
            range,
        ),
        (
            "pieces",
            Show {
                fd: scattered.as_fd().as_raw_fd(),
                ..good
            },
            Errno::OPNOTSUPP,
        ),
    ];
    for (what, show, errno) in cases {
        expect_errno(display.show(show), errno, what)?;
    }
    let other = allocation::ioctl_sized(&display.0, 0xB7, 1, &mut [0; 32]);
    expect_errno(other, Errno::NOTTY, "another ioctl")?;
    let long = allocation::ioctl_sized(&display.0, 0xB7, 0, &mut [0; 40]);
    expect_errno(long, Errno::NOTTY, "a longer structure")?;
    expect_look(look, "after all that")
}

/// Where the host has put a film.
const SHARE: &str = "/mnt/share";

/// Starts the film, and waits until its first stop.
fn film() -> anyhow::Result<(Player, Screening)> {
    let folder = Path::new(SHARE);
    let screening: Screening = screening::read(&folder.join(SCREENING)).context("no film")?;
    let mut player = Player::start(folder, &screening, &screening.licence)?;
    player.until(screening.pauses[0])?;
    Ok((player, screening))
}

/// Fails unless the film's memory comes back as zeros, and the screen is black.
fn expect_nothing_left(memory: &[RangeLine], what: &str) -> anyhow::Result<()> {
    deadline::until(Duration::from_secs(30), what, || {
        Ok((live(VIDEO)? == 0).then_some(()))
    })?;
    for line in memory {
        expect_zero(line.range, what)?;
    }
    expect_look(black(), what)
}

fn broken_off() -> anyhow::Result<()> {
    module::load(display::MODULE)?;

    let (player, _) = film()?;
    let memory = debug::ranges(VIDEO)?;
    anyhow::ensure!(memory.len() == 3, "a player with {memory:x?}");
    drop(player);
    expect_nothing_left(&memory, "killed")?;

    let (mut player, screening) = film()?;
    let memory = debug::ranges(VIDEO)?;
    display::unbind()?;
    let look = Host::open()?.picture("unbound-film");
    let ending = player.go_on().and_then(|()| player.end());
    display::bind()?;
    let ending = ending?;
    anyhow::ensure!(look? == black(), "the screen of a display that is gone");
    anyhow::ensure!(!ending.status.success(), "it plays on: {ending:?}");
    anyhow::ensure!(ending.complaint.contains("show a frame"), "{ending:?}");
    expect_nothing_left(&memory, "without a display")?;

    let (mut player, _) = film()?;
    let memory = debug::ranges(VIDEO)?;
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    player.go_on()?;
    let ending = player.end()?;
    anyhow::ensure!(!ending.status.success(), "it plays on: {ending:?}");
    expect_nothing_left(&memory, "panicked")?;

    let (mut player, _) = film()?;
    let name = Screening::picture(screening.pauses[0]);
    let mut host = Host::open()?;
    host.picture(&name)?;
    let psnr = host.compare(&name, &Screening::original(screening.pauses[0]))?;
    anyhow::ensure!(psnr >= LIKENESS, "the next film: {psnr:.1} dB");
    for &pause in &screening.pauses[1..] {
        player.go_on()?;
        player.until(pause)?;
    }
    player.go_on()?;
    let ending = player.end()?;
    anyhow::ensure!(ending.status.success(), "{ending:?}");
    Ok(())
}

/// The scenario `video`, with a short film.
fn whole_scenario() -> anyhow::Result<()> {
    let output = Command::new("ringfence-scenario")
        .arg("video")
        .arg(Path::new(SHARE).join(SCREENING))
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
