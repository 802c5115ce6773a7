// SPDX-License-Identifier: MIT OR Apache-2.0

//! Secure storage when its clients are killed, or tee-supplicant itself.
//!
//! Whoever asks for secure storage here is a process of its own: this one can wait
//! for it with an end, and kill it.

use std::fs;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ringfence::proto::message::Licence;
use ringfence_tests::guest::ta::{expect_done, Ta};
use ringfence_tests::guest::{allocation, deadline, supplicant};
use rustix::process::{kill_process, Signal};

use super::super::fixture::read_message;
use super::super::region::VIDEO;
use super::prepared;

/// First argument of a client; the second one says what it does.
const CLIENT: &str = "--client-of-secure-storage";

/// Has the application ask secure storage for all that it needs, again and again.
const ASK: &str = "ask";
/// Uses all there is.
const USE: &str = "use";
/// Does so when the application has forgotten all it knew.
const USE_ANEW: &str = "use-anew";

/// After this a client hangs: more than the slowest machine takes.
const HANGING: Duration = Duration::from_secs(60);
/// In this time everything must work again.
const RECOVERY: Duration = Duration::from_secs(120);

/// The client's part, if the arguments are those of one.
pub fn child(arguments: &[String]) -> Option<ExitCode> {
    let [first, what] = arguments else {
        return None;
    };
    if first != CLIENT {
        return None;
    }
    let outcome = match what.as_str() {
        ASK => ask(),
        USE => use_all(),
        USE_ANEW => use_anew(),
        _ => Err(anyhow::anyhow!("{CLIENT}: not {what}")),
    };
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn ask() -> anyhow::Result<()> {
    let ending: Licence = read_message(&prepared()?.ending.licence)?;
    let mut ta = Ta::open()?;
    for _ in 0..8 {
        expect_done(ta.forget(), "FORGET")?;
        // This fails while the supplicant comes and goes.
        let _ = ta.load_licence(&ending);
    }
    Ok(())
}

fn use_anew() -> anyhow::Result<()> {
    expect_done(Ta::open()?.forget(), "FORGET")?;
    use_all()
}

fn use_all() -> anyhow::Result<()> {
    let content = prepared()?;
    let ending: Licence = read_message(&content.ending.licence)?;
    let known: Licence = read_message(&content.known.licence)?;
    let mut ta = Ta::open()?;
    expect_done(ta.load_licence(&ending), "a licence with an end")?;
    expect_done(ta.load_licence(&known), "one without")?;
    let buffer = allocation::allocate_size(&allocation::open(VIDEO)?, 1 << 20)?;
    drop(buffer);
    Ok(())
}

/// A client, killed when this is dropped.
struct Client(Child);

impl Client {
    fn start(what: &str) -> anyhow::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args([CLIENT, what])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits until tee-supplicant is at work for it, or it has ended; answers whether the
    /// former.
    fn waits_for_supplicant(&mut self) -> anyhow::Result<bool> {
        let wchan = format!("/proc/{}/wchan", self.0.id());
        deadline::until(HANGING, "a client in secure storage", || {
            let waits = fs::read_to_string(&wchan)? == "optee_supp_thrd_req";
            let ended = self.0.try_wait()?.is_some();
            Ok((waits || ended).then_some(waits))
        })
    }

    /// Waits for its end.
    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        deadline::until(HANGING, "a client ends", || Ok(self.0.try_wait()?))
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.end().map(drop)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended, and be waited for already.
        let _ = self.0.kill();
        let _ = self.0.try_wait();
    }
}

/// Waits until everything works anew. A client may fail meanwhile, or
/// be killed for waiting for a supplicant that is gone, but none may hang.
fn all_works() -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match Client::start(USE_ANEW)?.end()? {
            status if status.success() => return Ok(()),
            status => anyhow::ensure!(start.elapsed() < RECOVERY, "{status}"),
        }
    }
}

pub fn a_stopped_supplicant_stops_nobody() -> anyhow::Result<()> {
    // The application has read now what it needs of secure storage.
    use_all()?;
    let stopped = supplicant::stop()?;
    let outcome = Client::start(USE)?.end();
    drop(stopped);
    let status = outcome?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}

pub fn killed_clients_disturb_nobody() -> anyhow::Result<()> {
    const ROUNDS: usize = 6;
    let mut other = Client::start(ASK)?;
    let mut caught = 0;
    for _ in 0..ROUNDS {
        let mut client = other;
        other = Client::start(ASK)?;
        caught += usize::from(client.waits_for_supplicant()?);
        client.kill()?;
    }
    anyhow::ensure!(caught > 0, "no client was caught in secure storage");
    // It may be killed, too, by who starts tee-supplicant again, but not hang.
    other.end()?;
    all_works()
}

pub fn a_killed_supplicant_comes_back() -> anyhow::Result<()> {
    const ROUNDS: usize = 2;
    for _ in 0..ROUNDS {
        let mut client = Client::start(ASK)?;
        client.waits_for_supplicant()?;
        for process in supplicant::processes()? {
            kill_process(process, Signal::KILL)?;
            let gone = || Ok((!supplicant::exists(process)).then_some(()));
            deadline::until(RECOVERY, "tee-supplicant ends", gone)?;
        }
        // It may be killed by who starts tee-supplicant again, but not hang.
        client.end()?;
        all_works()?;
    }
    Ok(())
}
