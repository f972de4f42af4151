//! How far history may be cut. Pure.

use std::time::Duration;

use tandem_manifest::Manifest;
use tandem_types::Seq;

use crate::{Roots, Rules};

/// A claim of somebody alive that the log does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Snapshots from here on are needed.
    pub seq: Seq,
    pub holder: String,
}

/// What a horizon commit should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    pub horizon: Seq,
    pub history_start: Seq,
    /// Where history could begin if nobody held it back.
    pub by_window: Seq,
    /// Who holds it back.
    pub held_by: Option<String>,
    /// Whether it differs from what is.
    pub moves: bool,
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// How far history may be cut: at recorded checkpoints, of which alone the age is known. `now`, in microseconds since 1970, is
/// by the store's clock, if that was asked: no clock that is ahead of it makes anything old.
pub fn aim(roots: &Roots, state: &Manifest, rules: &Rules, leases: &[Lease], now: Option<i64>) -> Aim {
    let present = now.map_or(state.age(), |now| state.age().min(now));
    let older = |window: i64| {
        let old = |age: i64| present.saturating_sub(age) >= window;
        roots.chain().iter().rev().find(|link| old(link.age)).map_or(Seq(0), |link| link.seq)
    };
    let by_window = older(state.history_window()).max(state.history_start());
    let pins = state
        .pins()
        .filter(|pin| pin.expires.is_none_or(|age| age >= state.age()))
        .map(|pin| (pin.seq, format!("pin {}", pin.id)));
    let claims = pins.chain(leases.iter().map(|lease| (lease.seq, lease.holder.clone())));
    let lowest = claims.min_by_key(|(seq, _)| *seq).filter(|(seq, _)| *seq < by_window);
    let history_start = lowest.as_ref().map_or(by_window, |(seq, _)| *seq).max(state.history_start());
    let horizon = older(micros(rules.job)).max(state.horizon());
    Aim {
        horizon,
        history_start,
        by_window,
        held_by: lowest.map(|(_, holder)| holder),
        moves: horizon > state.horizon() || history_start > state.history_start(),
    }
}
