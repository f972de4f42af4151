//! Which call meets which fault.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{STEP, mix};

/// What a call does. `Get` includes ranges and heads, `Put` the completion of a multipart upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Put,
    Get,
    List,
    Delete,
    Copy,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes this long first.
    Delay(Duration),
    /// An error, and nothing is done.
    FailBefore,
    /// It is done, and its answer is lost: an error.
    FailAfter,
    /// A create is told that the object exists, and nothing is done: S3's 409. `FailBefore` for
    /// everything else.
    Conflict409,
    /// "Slow down", and nothing is done.
    Throttle,
    /// A put fails, and is done before the call that comes this many calls later.
    /// `FailBefore` for everything else.
    Late(u64),
}

/// Which call meets which fault: by its number, by what it does, or at random. The first of
/// these that applies counts.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    by_number: BTreeMap<u64, Fault>,
    by_path: Vec<ByPath>,
    random: Option<Random>,
}

#[derive(Clone, Debug)]
struct ByPath {
    op: Op,
    part: String,
    nth: u64,
    fault: Fault,
    met: u64,
}

#[derive(Clone, Copy, Debug)]
struct Random {
    /// Of 2^64 calls, how many meet a fault.
    share: u64,
    seed: u64,
}

impl FaultPlan {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// The call of this number (the store's first is 1) meets `fault`.
    #[must_use]
    pub fn call(mut self, number: u64, fault: Fault) -> Self {
        self.by_number.insert(number, fault);
        self
    }

    /// The `nth` call from now on (from 1) that does `op` to a path with `part` in it meets `fault`.
    #[must_use]
    pub fn nth(mut self, op: Op, part: &str, nth: u64, fault: Fault) -> Self {
        self.by_path.push(ByPath { op, part: part.to_owned(), nth, fault, met: 0 });
        self
    }

    /// Of all calls, this share (0 to 1) meets a fault; which, and which one, is decided by the
    /// seed and the call's number.
    #[must_use]
    pub fn random(mut self, rate: f64, seed: u64) -> Self {
        // A cast of a float saturates: 1.0 is every call.
        self.random = Some(Random { share: (rate.clamp(0.0, 1.0) * u64::MAX as f64) as u64, seed });
        self
    }

    /// The fault of call `number`, counting it.
    pub(super) fn decide(&mut self, number: u64, op: Op, path: &str) -> Option<Fault> {
        let mut named = None;
        for rule in &mut self.by_path {
            if rule.op == op && path.contains(&rule.part) {
                rule.met += 1;
                if rule.met == rule.nth {
                    named = named.or(Some(rule.fault));
                }
            }
        }
        self.by_number.get(&number).copied().or(named).or_else(|| self.random?.decide(number))
    }
}

impl Random {
    fn decide(self, number: u64) -> Option<Fault> {
        let draw = mix(self.seed ^ number.wrapping_mul(STEP));
        if draw > self.share || self.share == 0 {
            return None;
        }
        let kind = mix(draw);
        let size = mix(kind);
        Some(match kind % 6 {
            0 => Fault::Delay(Duration::from_micros(size % 2_000_000)),
            1 => Fault::FailBefore,
            2 => Fault::FailAfter,
            3 => Fault::Conflict409,
            4 => Fault::Throttle,
            _ => Fault::Late(1 + size % 12),
        })
    }
}
