//! Random histories, as many as there is time for: every read equals what the interpreter has.
//!
//! `TANDEM_HISTORY_SEEDS=n` plays so many, `TANDEM_HISTORY_SECONDS=s` plays for so long, `TANDEM_HISTORY_FIRST=seed` begins
//! elsewhere. A failing history is made small and printed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tandem_history::{Plan, Played, play, shrink};

/// As many as a run of all tests has time for.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// What all histories came to.
#[derive(Debug, Default)]
struct Sum {
    histories: u64,
    commits: u64,
    done: u64,
    refused: u64,
    void: u64,
    compactions: u64,
    late: u64,
    checkpoints: u64,
    reopened: u64,
    collected: u64,
    tables: u64,
    rows: u64,
    pending: u64,
}

impl Sum {
    fn add(&mut self, played: &Played) {
        self.histories += 1;
        self.commits += played.commits;
        self.done += played.done;
        self.refused += played.refused;
        self.void += played.void;
        self.compactions += played.compactions;
        self.late += played.late;
        self.checkpoints += played.checkpoints;
        self.reopened += played.reopened;
        self.collected += played.collected;
        self.tables += played.tables;
        self.rows += played.rows;
        self.pending += played.pending;
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured here is real time")]
fn every_read_equals_the_replayed_log() {
    let first = number("TANDEM_HISTORY_FIRST").unwrap_or(1);
    let seconds = number("TANDEM_HISTORY_SECONDS");
    let seeds = number("TANDEM_HISTORY_SEEDS").unwrap_or(if seconds.is_some() { u64::MAX } else { SEEDS });
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sum, violations) = (Mutex::new(Sum::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let late = seconds.is_some_and(|s| began.elapsed().as_secs() >= s);
                    let n = next.fetch_add(1, Relaxed);
                    if late || n >= seeds || failed.load(Relaxed) {
                        return;
                    }
                    let plan = Plan::of(first + n);
                    let played = play(&plan);
                    sum.lock().unwrap().add(&played);
                    if let Some(violation) = played.violation {
                        failed.store(true, Relaxed);
                        violations.lock().unwrap().push((plan, violation));
                    }
                }
            });
        }
    });
    let (sum, took) = (sum.into_inner().unwrap(), began.elapsed().as_secs_f64());
    println!("{sum:?} in {took:.1} s: {:.0} histories/s, from seed {first}", sum.histories as f64 / took);
    if let Some((plan, violation)) = violations.into_inner().unwrap().into_iter().next() {
        let seed = plan.seed;
        let (small, violation) = shrink(&plan, violation);
        panic!(
            "{violation}\nafter (seed {seed}, {} nodes, {} of {} rounds):\n{}again with TANDEM_HISTORY_FIRST={seed} \
             TANDEM_HISTORY_SEEDS=1 (tests/history, seeds)",
            small.nodes,
            small.rounds.len(),
            plan.rounds.len(),
            small.listing(violation.table.as_deref()),
        );
    }
    // What did not happen was not tested.
    if sum.histories >= 500 {
        let often = [sum.commits, sum.done, sum.compactions, sum.pending];
        assert!(often.iter().all(|n| *n > sum.histories / 2), "{sum:?}");
        let seldom = [sum.late, sum.checkpoints, sum.reopened, sum.collected];
        assert!(seldom.iter().all(|n| *n > sum.histories / 20), "{sum:?}");
        assert!(sum.done > 3 * sum.refused, "{sum:?}");
    }
}

#[test]
fn a_seed_decides_a_history() {
    for seed in 1..=10 {
        let (one, again) = (play(&Plan::of(seed)), play(&Plan::of(seed)));
        let what = |p: &Played| format!("{p:?}");
        assert_eq!(what(&one), what(&again), "seed {seed}");
    }
}
