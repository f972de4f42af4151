//! The scenario through every single fault, sampled pairs and random storms.

use std::time::Duration;

use tandem_env::Chance;
use tandem_env::sim::{Call, Fault, FaultPlan, SimChance};

use crate::scenario::{all_answered, check, play};
use crate::sim::{run, store};

const SEED: u64 = 7;

fn kinds() -> [Fault; 6] {
    [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::Conflict409,
        Fault::Throttle,
        Fault::Late(4),
        Fault::Delay(Duration::from_millis(150)),
    ]
}

/// Plays the scenario through the plan and checks it; the trace, up to the check.
fn storm(plan: FaultPlan, seed: u64, mild: bool, context: &str) -> Vec<Call> {
    let store = store();
    store.set_plan(plan);
    run(&store, async {
        let done = play(&store, seed).await;
        let trace = store.trace();
        if mild {
            all_answered(&done, context);
        }
        check(&store, &done, context).await;
        trace
    })
}

#[test]
fn every_call_fails_once_in_every_way() {
    let calls = storm(FaultPlan::none(), SEED, true, "no faults").len() as u64;
    assert!(calls > 50, "{calls}");
    for number in 1..=calls {
        for fault in kinds() {
            let context = format!("call {number} of {calls} meets {fault:?}");
            let trace = storm(FaultPlan::none().call(number, fault), SEED, true, &context);
            let met = &trace[number as usize - 1];
            assert_eq!(met.fault, Some(fault), "{context}");
        }
    }
}

#[test]
fn pairs_of_faults() {
    let seed = 20_260_101;
    let chance = SimChance::new(seed);
    let calls = storm(FaultPlan::none(), SEED, true, "no faults").len() as u64;
    let draw = || {
        let kind = kinds()[usize::try_from(chance.below(6)).unwrap()];
        (1 + chance.below(calls), kind)
    };
    for _ in 0..100 {
        let ((one, first), (other, second)) = (draw(), draw());
        let context = format!("call {one} meets {first:?}, call {other} {second:?} (seed {seed})");
        storm(FaultPlan::none().call(one, first).call(other, second), SEED, true, &context);
    }
}

/// `TANDEM_SIM_SEEDS=n` for more, `TANDEM_SIM_FIRST=seed` to begin elsewhere.
#[test]
fn random_storms() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok()).unwrap_or(default);
    let first = number("TANDEM_SIM_FIRST", 1);
    for seed in first..first + number("TANDEM_SIM_SEEDS", 200) {
        let rate = [0.02, 0.1, 0.25, 0.5][usize::try_from(seed % 4).unwrap()];
        let context = format!("TANDEM_SIM_FIRST={seed} TANDEM_SIM_SEEDS=1, rate {rate}");
        storm(FaultPlan::none().random(rate, seed), seed, false, &context);
    }
}

#[test]
fn a_seed_decides_a_run() {
    let trace = |seed| storm(FaultPlan::none().random(0.2, seed), seed, false, "replay");
    let (one, again, other) = (trace(3), trace(3), trace(4));
    assert!(one.iter().any(|call| call.fault.is_some()));
    assert_eq!(one, again);
    assert_ne!(one, other);
}
