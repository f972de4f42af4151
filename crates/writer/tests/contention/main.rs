//! What a sequencer is worth, held against its target; in simulated time, so that a busy machine changes nothing.

#[path = "../../../../benches/src/contention.rs"]
mod contention;

use std::time::Duration;

use contention::{Outcome, Setup, measure};

fn outcome(writers: usize, ms: u64, sequencer: bool, seconds: u64) -> Outcome {
    let (latency, time) = (Duration::from_millis(ms), Duration::from_secs(seconds));
    let outcome = measure(Setup { writers, clients: 2, latency, sequencer, time }).unwrap();
    println!(
        "{writers:2} writers at {ms:3} ms, {}  {outcome}",
        if sequencer { "sequencer" } else { "racing   " }
    );
    assert!(outcome.transactions > 0);
    outcome
}

#[test]
fn sixteen_writers_reach_eight_times_what_racing_gives() {
    let (racing, sequenced) = (outcome(16, 20, false, 2), outcome(16, 20, true, 2));
    let times = sequenced.per_second / racing.per_second;
    assert!(times >= 8.0, "{times:.1} times");
    assert!(sequenced.p99 < Duration::from_millis(6 * 20), "{:?}", sequenced.p99);
}

#[test]
fn one_writer_loses_nothing() {
    let (racing, sequenced) = (outcome(1, 20, false, 2), outcome(1, 20, true, 2));
    assert_eq!(racing.transactions, sequenced.transactions);
}
