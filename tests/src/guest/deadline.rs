// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting for something to become true, with an end.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something; an error of the last
/// look is told when the time is up.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        let seen = look();
        match seen {
            Ok(Some(found)) => return Ok(found),
            _ if Instant::now() < end => thread::sleep(PAUSE),
            Ok(None) => anyhow::bail!("{what}: not within {limit:?}"),
            Err(error) => return Err(error.context(format!("{what}: not within {limit:?}"))),
        }
    }
}
