//! The outside, simulated: virtual time, seeded chance, and a store in memory that fails as told.
//! With all three, and tasks on one thread of a runtime whose time is paused, a run is decided
//! by its seed.

mod clock;
mod fault;
mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use clock::SimClock;
pub use fault::{Call, FaultStore};
pub use plan::{Fault, FaultPlan, Op};

use crate::{Chance, Env, Store};

/// When simulated time begins: 2026-01-01 00:00:00 UTC, in microseconds.
pub const START_MICROS: i64 = 1_767_225_600_000_000;

/// Chance that is decided by its seed (SplitMix64).
#[derive(Debug)]
pub struct SimChance {
    state: AtomicU64,
}

impl SimChance {
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance for SimChance {
    fn next_u64(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }
}

/// A simulated outside and its store, to plan faults in and to ask what was called. The clock
/// moves by itself and is [`FaultStore::clock`].
pub fn env(seed: u64) -> (Env, Arc<FaultStore>) {
    let store = Arc::new(FaultStore::new(Arc::new(SimClock::auto())));
    (join(&store, seed), store)
}

/// Another node's outside: the same store and clock, chance of its own.
pub fn join(store: &Arc<FaultStore>, seed: u64) -> Env {
    let clock = store.clock();
    let chance = Arc::new(SimChance::new(seed));
    let opened = Store::in_process("sim://", store.clone(), clock.clone(), chance.clone());
    Env { clock, chance, store: opened }
}

#[cfg(test)]
mod tests;
