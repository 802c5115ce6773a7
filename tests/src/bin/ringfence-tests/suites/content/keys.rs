// SPDX-License-Identifier: MIT OR Apache-2.0

//! The key ladder: device keys, licences, and time.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence::proto::command::result;
use ringfence::proto::message::{Licence, Provision};
use ringfence_tests::guest::ta::{expect_code, expect_done, Ta};

use super::super::fixture::{provision, read_message};
use super::prepared;

/// Where tee-supplicant keeps the files of secure storage.
const STORAGE: &str = "/var/lib/optee-client/data/tee";

/// Takes secure storage away, as root can, and the application's memory with it.
fn wipe() -> anyhow::Result<()> {
    if Path::new(STORAGE).exists() {
        for entry in fs::read_dir(STORAGE)? {
            let path = entry?.path();
            match path.is_dir() {
                true => fs::remove_dir_all(path)?,
                false => fs::remove_file(path)?,
            }
        }
    }
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")
}

fn load(licence: &Licence) -> anyhow::Result<Result<(), u32>> {
    Ok(Ta::open()?.load_licence(licence))
}

pub fn licences_need_a_device_key() -> anyhow::Result<()> {
    let content = prepared()?;
    let known: Licence = read_message(&content.known.licence)?;
    expect_done(load(&known)?, "with a device key")?;
    wipe()?;
    expect_code(load(&known)?, result::NOT_PROVISIONED, "without one")?;

    // A forged one is none.
    let right: Provision = read_message(&content.provision)?;
    let forged = |change: fn(&mut Provision)| {
        let mut provision = right;
        change(&mut provision);
        provision
    };
    for (what, wrong) in [
        ("serial", forged(|provision| provision.serial += 1)),
        ("nonce", forged(|provision| provision.nonce[0] ^= 1)),
        ("key", forged(|provision| provision.wrapped_key[31] ^= 1)),
        ("tag", forged(|provision| provision.tag[15] ^= 1)),
    ] {
        let outcome = Ta::open()?.provision(&wrong);
        expect_code(outcome, result::MAC_INVALID, &format!("another {what}"))?;
    }
    expect_code(load(&known)?, result::NOT_PROVISIONED, "after forged ones")?;

    provision(&content.provision)?;
    expect_done(load(&known)?, "with it again")?;
    // It is kept when the application is gone.
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    expect_done(load(&known)?, "the next instance")
}

pub fn device_keys_are_not_rolled_back() -> anyhow::Result<()> {
    let content = prepared()?;
    let first: Provision = read_message(&content.provision)?;
    let known: Licence = read_message(&content.known.licence)?;
    let of_renewed: Licence = read_message(&content.of_renewed)?;
    expect_code(load(&of_renewed)?, result::MAC_INVALID, "of a later key")?;

    provision(&content.renewed)?;
    expect_done(load(&of_renewed)?, "of the key that is there")?;
    expect_code(load(&known)?, result::MAC_INVALID, "of the key before")?;
    let back = Ta::open()?.provision(&first);
    expect_code(back, result::ROLLED_BACK, "the key before")?;
    expect_done(load(&of_renewed)?, "nothing has changed")?;

    // For the tests that follow: the first key, as the latest.
    provision(&content.restored)?;
    expect_done(load(&known)?, "of the first key again")?;
    let renewed: Provision = read_message(&content.renewed)?;
    expect_code(
        Ta::open()?.provision(&renewed),
        result::ROLLED_BACK,
        "the key in between",
    )?;
    expect_done(Ta::open()?.provision(&first), "the same key of old")
}

pub fn expired_licences_are_refused() -> anyhow::Result<()> {
    let content = prepared()?;
    let expired: Licence = read_message(&content.expired)?;
    // The machine has no clock: its time begins in 1970, and may be no later than the licence's end.
    while SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() <= expired.not_after {
        std::thread::sleep(Duration::from_millis(100));
    }
    expect_code(load(&expired)?, result::EXPIRED, "an old licence")?;
    let endless = Licence {
        not_after: 0,
        ..expired
    };
    expect_code(load(&endless)?, result::MAC_INVALID, "its end taken away")?;
    let ending: Licence = read_message(&content.ending.licence)?;
    expect_done(load(&ending)?, "a licence that lasts")
}

/// The clock, put back when this is dropped.
struct Clock {
    seconds: u64,
    started: Instant,
}

impl Clock {
    fn read() -> anyhow::Result<Self> {
        Ok(Self {
            seconds: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            started: Instant::now(),
        })
    }

    fn set(seconds: u64) -> io::Result<()> {
        let output = Command::new("date")
            .args(["-s", &format!("@{seconds}")])
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr))),
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // One second more: Linux refuses a time before it was started. Nothing in the
        // tests takes the clock to be right.
        let _ = Self::set(self.seconds + self.started.elapsed().as_secs() + 1);
    }
}

pub fn time_does_not_go_back() -> anyhow::Result<()> {
    let content = prepared()?;
    let ending: Licence = read_message(&content.ending.licence)?;
    let _clock = Clock::read()?;
    expect_done(load(&ending)?, "before its end")?;
    Clock::set(content.ending.not_after + 2)?;
    expect_code(load(&ending)?, result::EXPIRED, "after its end")?;
    Clock::set(content.ending.not_after - 3600)?;
    expect_code(load(&ending)?, result::EXPIRED, "the clock turned back")?;
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    expect_code(load(&ending)?, result::EXPIRED, "in the next instance")?;
    // What remains, and what lets the next tests load it: storage that is put back.
    wipe()?;
    provision(&content.provision)?;
    expect_done(load(&ending)?, "with storage that knows nothing")
}
