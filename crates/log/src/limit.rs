//! What a replica is not to apply, or not yet.
//!
//! Commit times grow strictly along the log, so that every limit here cuts it into a part that is applied and a part that
//! is not: what is applied is always a prefix.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tandem_types::Seq;

/// Where a replica stops for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The last commit that is applied.
    Seq(Seq),
    /// The latest commit time that is applied, in microseconds since 1970.
    Time(i64),
}

/// How far a replica may go. By default as far as the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyLimit {
    pub until: Option<Until>,
    /// A commit is applied once its commit time is this long ago.
    pub delay: Duration,
}

/// Whether a commit may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    Now,
    /// Once the clock says this, in microseconds since 1970.
    At(i64),
    Never,
}

impl ApplyLimit {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the commit at `seq` of this time may be applied when the clock says `now`; both times in microseconds since
    /// 1970.
    pub fn admits(&self, seq: Seq, commit_time: i64, now: i64) -> Admits {
        let beyond = match self.until {
            None => false,
            Some(Until::Seq(last)) => seq > last,
            Some(Until::Time(last)) => commit_time > last,
        };
        if beyond {
            return Admits::Never;
        }
        let delay = i64::try_from(self.delay.as_micros()).unwrap_or(i64::MAX);
        let due = commit_time.saturating_add(delay);
        // Without a delay no clock is asked: that of a writer may be ahead of the one here.
        if delay == 0 || due <= now { Admits::Now } else { Admits::At(due) }
    }

    /// Whether a state at `seq` is the last one, whatever commits follow.
    pub fn ends_at(&self, seq: Seq) -> bool {
        matches!(self.until, Some(Until::Seq(last)) if seq >= last)
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => write!(f, "seq {seq}"),
            Self::Time(micros) => match DateTime::from_timestamp_micros(*micros) {
                Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
                None => write!(f, "{micros} µs since 1970"),
            },
        }
    }
}

/// As in "applies …".
impl fmt::Display for ApplyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.until, self.delay) {
            (None, Duration::ZERO) => f.write_str("everything"),
            (None, delay) => write!(f, "commits only when they are {delay:?} old"),
            (Some(until), Duration::ZERO) => write!(f, "nothing after {until}"),
            (Some(until), delay) => {
                write!(f, "nothing after {until}, and commits only when they are {delay:?} old")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_cut_the_log_into_two_parts() {
        let none = ApplyLimit::default();
        assert!(none.is_none() && !none.ends_at(Seq(u64::MAX)));
        assert_eq!(none.admits(Seq(9), i64::MAX, 0), Admits::Now, "no clock is asked");

        let seq = ApplyLimit { until: Some(Until::Seq(Seq(5))), ..none };
        assert_eq!(seq.admits(Seq(5), i64::MAX, 0), Admits::Now);
        assert_eq!(seq.admits(Seq(6), 0, i64::MAX), Admits::Never);
        assert!(seq.ends_at(Seq(5)) && !seq.ends_at(Seq(4)));

        let time = ApplyLimit { until: Some(Until::Time(1_000_000)), ..none };
        assert_eq!(time.admits(Seq(5), 1_000_000, 0), Admits::Now);
        assert_eq!(time.admits(Seq(6), 1_000_001, 0), Admits::Never);
        assert!(!time.ends_at(Seq(u64::MAX)), "only the next commit tells");

        let delay = ApplyLimit { delay: Duration::from_secs(2), ..none };
        assert_eq!(delay.admits(Seq(1), 1_000_000, 2_999_999), Admits::At(3_000_000));
        assert_eq!(delay.admits(Seq(1), 1_000_000, 3_000_000), Admits::Now);
        let both = ApplyLimit { delay: Duration::from_secs(2), ..seq };
        assert_eq!(both.admits(Seq(6), 0, i64::MAX), Admits::Never);
        assert_eq!(both.admits(Seq(5), i64::MAX, 0), Admits::At(i64::MAX), "no overflow");
    }

    #[test]
    fn limits_are_said_in_words() {
        let until = |until| ApplyLimit { until: Some(until), delay: Duration::ZERO }.to_string();
        assert_eq!(until(Until::Seq(Seq(7))), "nothing after seq 7");
        assert_eq!(until(Until::Time(1_704_067_200_500_000)), "nothing after 2024-01-01T00:00:00.500Z");
        let delay = ApplyLimit { until: None, delay: Duration::from_secs(3600) };
        assert_eq!(delay.to_string(), "commits only when they are 3600s old");
    }
}
