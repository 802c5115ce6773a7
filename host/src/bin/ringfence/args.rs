// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand};
use hex::FromHex;
use ringfence::error::Error;
use ringfence::fallback::{Policy, Property};
use ringfence::play::pace::Rate;
use ringfence::profile;

use crate::exit;

/// Memory that is set aside at boot, and fenced off by the secure world where
/// asked: shows the heaps, allocates from them, decrypts into them.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP)]
pub struct Args {
    /// Print JSON, one document, sizes in bytes.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the heaps, and what their buffers are like.
    Heaps,
    /// Allocate buffers, say what they are, and give them back at the end.
    Alloc {
        /// Where they come from.
        #[command(flatten)]
        from: From,
        /// Bytes of each; K, M and G are powers of 1024.
        #[arg(long, value_parser = size)]
        size: u64,
        /// So many buffers: all of them, or none; shown as a list.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        count: Option<u16>,
        /// Show how long each allocation took.
        #[arg(long)]
        timings: bool,
        /// Show the secure world's name for the buffer as well; whoever
        /// knows it can have content decrypted into the buffer.
        #[arg(long)]
        show_handle: bool,
        /// How long to keep it.
        #[command(flatten)]
        hold: Hold,
    },
    /// Say what a buffer is that a process has open.
    Info {
        /// The buffer's file descriptor: a number, inherited by this command,
        /// or a path /proc/PID/fd/NUMBER.
        buffer: BufferName,
        /// Show the secure world's name for the buffer as well.
        #[arg(long)]
        show_handle: bool,
    },
    /// Bring the device key that licences are sealed under; the trusted application
    /// keeps it in secure storage.
    Provision {
        /// The device key, sealed for the trusted application.
        file: PathBuf,
    },
    /// Decrypt a file into a new protected buffer, in the secure world.
    Decrypt {
        /// The file: AES-128-CTR ciphertext.
        file: PathBuf,
        /// The licence: the content key, wrapped for the trusted application.
        #[arg(long)]
        licence: PathBuf,
        /// The protected heap that the buffer comes from.
        #[arg(long, default_value = "protected-video")]
        heap: String,
        /// The counter block of the file's first byte, 32 hexadecimal digits.
        #[arg(long, default_value = "00000000000000000000000000000000", value_parser = block)]
        counter: [u8; 16],
        /// The content key's name, 32 hexadecimal digits, if it is not the
        /// licence's.
        #[arg(long, value_parser = block)]
        key_id: Option<[u8; 16]>,
        /// How long to keep the buffer.
        #[command(flatten)]
        hold: Hold,
    },
    /// Play an encrypted film: an MP4 file by ISO/IEC 23001-7, whose frames are
    /// decrypted and decoded by the secure world, and shown by a device.
    Play(Play),
    /// Show how full the heaps are, and whether the secure world answers.
    Status,
}

/// What is played, and how.
#[derive(Debug, Clone, ClapArgs)]
pub struct Play {
    /// The film.
    pub file: PathBuf,
    /// The licence for its key.
    #[arg(long)]
    pub licence: PathBuf,
    /// The device key to bring first, sealed for the trusted application.
    #[arg(long)]
    pub provision: Option<PathBuf>,
    /// The protected heap that its buffers come from.
    #[arg(long, default_value = "protected-video")]
    pub heap: String,
    /// The device that shows it; nothing is shown without one.
    #[arg(long, value_name = "DEVICE", conflicts_with = "no_decode")]
    pub display: Option<PathBuf>,
    /// Decrypt the frames only.
    #[arg(long)]
    pub no_decode: bool,
    /// The first frame to play, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from: usize,
    /// How many frames to play, instead of all.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub frames: Option<usize>,
    /// How fast: auto for the film's own rate, max, or frames a second.
    #[arg(long, default_value = "auto")]
    pub fps: Rate,
    /// Say on standard output what becomes of every frame, and where the buffers
    /// are.
    #[arg(long)]
    pub events: bool,
    /// Wait for a line on standard input after these frames.
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    pub pause_at: Vec<usize>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Which heaps may serve.
#[derive(Debug, Clone, ClapArgs)]
#[group(skip)]
pub struct From {
    /// The wanted heap.
    #[arg(
        long = "from",
        visible_alias = "heap",
        value_name = "HEAP",
        required_unless_present = "profile"
    )]
    wanted: Option<String>,
    /// A heap to go on with when those before it have no room; may be repeated.
    #[arg(long, value_name = "HEAP", requires = "wanted")]
    fallback: Vec<String>,
    /// The heaps and requirements of /etc/ringfence/PROFILE.toml, or of the file at a path with a
    /// slash in it.
    #[arg(long, conflicts_with_all = ["wanted", "require"])]
    profile: Option<String>,
    /// What a buffer must be, whichever heap it comes from: contiguous, protected or cpu-access; may
    /// be repeated.
    #[arg(long, value_name = "PROPERTY")]
    require: Vec<Property>,
}

impl From {
    /// What the options come to.
    pub fn policy(&self) -> Result<Policy, Error> {
        match &self.profile {
            Some(name) => profile::load(name),
            None => Ok(Policy::new(
                self.wanted.iter().chain(&self.fallback).map(String::as_str),
                self.require.iter().copied(),
            )?),
        }
    }
}

/// How long a buffer is kept.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(multiple = false)]
pub struct Hold {
    /// Keep the buffer for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub hold: Option<u64>,
    /// Keep the buffer until standard input ends.
    #[arg(long)]
    pub hold_until_stdin: bool,
}

/// Names a buffer: which process has it open, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferName {
    /// The process; `None` for this one.
    pub pid: Option<u32>,
    /// The file descriptor's number there.
    pub fd: i32,
}

impl FromStr for BufferName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "neither a file descriptor's number nor /proc/PID/fd/NUMBER";
        let (pid, fd) = match text.strip_prefix("/proc/") {
            None => (None, text),
            Some(rest) => {
                let (pid, fd) = rest.split_once("/fd/").ok_or(WRONG)?;
                let pid = match pid {
                    "self" => None,
                    pid => Some(pid.parse().map_err(|_| WRONG)?),
                };
                (pid, fd)
            }
        };
        let fd = fd.parse().map_err(|_| WRONG)?;
        if fd < 0 || pid == Some(0) {
            return Err(WRONG);
        }
        Ok(Self { pid, fd })
    }
}

fn size(text: &str) -> Result<u64, parse_size::Error> {
    parse_size::Config::new().with_binary().parse_size(text)
}

fn block(text: &str) -> Result<[u8; 16], hex::FromHexError> {
    <[u8; 16]>::from_hex(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("64M").unwrap(), 64 << 20);
        assert_eq!(size("64MiB").unwrap(), 64 << 20);
        assert_eq!(size("4096").unwrap(), 4096);
        assert_eq!(size("0").unwrap(), 0);
        for wrong in ["", "M", "-1", "1X", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn blocks_are_32_digits() {
        assert_eq!(block(&"0f".repeat(16)).unwrap(), [15; 16]);
        for wrong in ["", "00", &"0g".repeat(16), &"00".repeat(17)] {
            assert!(block(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn buffers_are_named_by_number_or_path() {
        let name = |text: &str| text.parse::<BufferName>();
        assert_eq!(name("3"), Ok(BufferName { pid: None, fd: 3 }));
        assert_eq!(name("/proc/self/fd/3"), Ok(BufferName { pid: None, fd: 3 }));
        assert_eq!(
            name("/proc/77/fd/3"),
            Ok(BufferName {
                pid: Some(77),
                fd: 3
            })
        );
        for wrong in ["", "-1", "x", "/proc/77", "/proc/0/fd/1", "/proc/7/fd/-1"] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn heaps_come_from_options_or_a_profile() {
        let parse = |more: &[&str]| {
            let mut words = vec!["ringfence", "alloc", "--size", "1M"];
            words.extend(more);
            Args::try_parse_from(words)
        };
        let args = parse(&[
            "--from",
            "camera",
            "--fallback",
            "cma",
            "--fallback",
            "system",
        ]);
        let Command::Alloc { from, .. } = args.unwrap().command else {
            panic!("another command");
        };
        assert_eq!(from.policy().unwrap().heaps(), ["camera", "cma", "system"]);
        assert!(parse(&["--heap", "camera"]).is_ok());
        assert!(parse(&["--profile", "camera"]).is_ok());
        for wrong in [
            &[][..],
            &["--fallback", "system"],
            &["--from", "camera", "--profile", "camera"],
            &["--from", "camera", "--require", "fast"],
            &["--from", "camera", "--count", "0"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_film_is_played_with_a_licence() {
        let parse = |more: &[&str]| {
            let mut words = vec!["ringfence", "play", "film.mp4"];
            words.extend(more);
            Args::try_parse_from(words)
        };
        assert!(parse(&[]).is_err());
        let args = parse(&["--licence", "l", "--fps", "max", "--pause-at", "3,7"]).unwrap();
        let Command::Play(play) = args.command else {
            panic!("another command");
        };
        assert_eq!((play.fps, play.pause_at), (Rate::Max, vec![3, 7]));
        for wrong in [
            &["--licence", "l", "--frames", "0"][..],
            &["--licence", "l", "--fps", "0"],
            &["--licence", "l", "--no-decode", "--display", "/dev/x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_buffer_is_held_in_one_way_at_most() {
        let parse = |more: &[&str]| {
            let mut words = vec!["ringfence", "alloc", "--heap", "camera", "--size", "1M"];
            words.extend(more);
            Args::try_parse_from(words)
        };
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--hold", "3"]).is_ok());
        assert!(parse(&["--hold", "3", "--hold-until-stdin"]).is_err());
    }
}
