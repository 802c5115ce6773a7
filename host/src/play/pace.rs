// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a frame is due, and when it is too late for it.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// How fast a film is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As the film says.
    Film,
    /// So many frames a second.
    Fixed(NonZeroU32),
    /// Every frame as soon as the one before it is shown.
    Max,
}

/// What is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no rate: auto, max, or frames a second")]
pub struct NoRate;

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        match text {
            "auto" => Ok(Self::Film),
            "max" => Ok(Self::Max),
            number => number.parse().map(Self::Fixed).map_err(|_| NoRate),
        }
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is shown, not before so long from now.
    Wait(Duration),
    /// It is left out: it should have been shown so long ago, and the next one is
    /// due.
    Drop(Duration),
}

/// The schedule of one run.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: Rate,
    timescale: u32,
    first: u64,
}

impl Pace {
    /// A schedule that begins with the frame of time `first`, in units of which
    /// `timescale` are a second.
    pub fn new(rate: Rate, timescale: u32, first: u64) -> Self {
        Self {
            rate,
            timescale: timescale.max(1),
            first,
        }
    }

    /// When the frame is due that has this time, and comes `index` frames after the
    /// first; `None` at once.
    fn due(&self, index: usize, time: u64) -> Option<Duration> {
        let (count, unit) = match self.rate {
            Rate::Film => (u128::from(time.saturating_sub(self.first)), self.timescale),
            Rate::Fixed(rate) => (index as u128, rate.get()),
            Rate::Max => return None,
        };
        let nanoseconds = count * 1_000_000_000 / u128::from(unit);
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }

    /// How long to wait at the time `now` since the start until the frame is due.
    pub fn wait(&self, index: usize, time: u64, now: Duration) -> Duration {
        let due = self.due(index, time).unwrap_or_default();
        due.saturating_sub(now)
    }

    /// What becomes of a frame at the time `now` since the start; `next` is the time
    /// of the frame after it, if there is one. The last frame is always shown.
    pub fn judge(&self, index: usize, time: u64, next: Option<u64>, now: Duration) -> Verdict {
        match next.and_then(|next| self.due(index + 1, next)) {
            Some(next) if now >= next => {
                let due = self.due(index, time).unwrap_or_default();
                Verdict::Drop(now.saturating_sub(due))
            }
            _ => Verdict::Wait(self.wait(index, time, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_frame_waits_for_its_time_and_is_dropped_at_the_next_ones() {
        let pace = Pace::new(Rate::Film, 1000, 500);
        let judge = |now| pace.judge(2, 700, Some(800), MS(now));
        assert_eq!(judge(0), Verdict::Wait(MS(200)));
        assert_eq!(judge(200), Verdict::Wait(MS(0)));
        assert_eq!(judge(299), Verdict::Wait(MS(0)), "late, and shown");
        assert_eq!(judge(300), Verdict::Drop(MS(100)));
        assert_eq!(pace.judge(2, 700, None, MS(9999)), Verdict::Wait(MS(0)));
    }

    #[test]
    fn a_rate_of_ones_own_needs_no_times() {
        let pace = Pace::new("10".parse().unwrap(), 1000, 0);
        assert_eq!(pace.judge(3, 0, Some(0), MS(0)), Verdict::Wait(MS(300)));
        assert_eq!(pace.judge(3, 0, Some(0), MS(450)), Verdict::Drop(MS(150)));
        let pace = Pace::new(Rate::Max, 1000, 0);
        assert_eq!(pace.judge(3, 0, Some(0), MS(9999)), Verdict::Wait(MS(0)));
    }

    #[test]
    fn rates_are_words_or_numbers() {
        assert_eq!("auto".parse(), Ok(Rate::Film));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for wrong in ["", "0", "-1", "fast", "1.5"] {
            assert_eq!(wrong.parse::<Rate>(), Err(NoRate), "{wrong:?}");
        }
    }

    #[test]
    fn times_beyond_reason_overflow_nothing() {
        let pace = Pace::new(Rate::Film, 1, 0);
        let verdict = pace.judge(0, u64::MAX, None, MS(0));
        assert!(matches!(verdict, Verdict::Wait(_)));
    }
}
