//! The protocol as it is, through as many schedules as there is time for.
//!
//! `TANDEM_SIM_SEEDS=n` plays so many, `TANDEM_SIM_SECONDS=s` plays for so long, `TANDEM_SIM_FIRST=seed` begins elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tandem_simulation::{Played, play};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// What all schedules came to.
#[derive(Debug, Default)]
struct Sum {
    schedules: u64,
    steps: u64,
    commits: u64,
    births: u64,
    kills: u64,
    pushes: u64,
    handed: u64,
    answers: u64,
    deleted: u64,
    trims: u64,
    looks_back: u64,
    restores: u64,
}

impl Sum {
    fn add(&mut self, played: &Played) {
        self.schedules += 1;
        self.steps += played.steps;
        self.commits += played.commits;
        self.births += played.births;
        self.kills += played.kills;
        self.pushes += played.pushes;
        self.handed += played.handed;
        self.answers += played.answers;
        self.deleted += played.deleted;
        self.trims += played.trims;
        self.looks_back += played.looks_back;
        self.restores += played.restores;
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured here is real time")]
fn no_schedule_breaks_a_promise() {
    let first = number("TANDEM_SIM_FIRST").unwrap_or(1);
    let seconds = number("TANDEM_SIM_SECONDS");
    let seeds = number("TANDEM_SIM_SEEDS").unwrap_or(if seconds.is_some() { u64::MAX } else { 2000 });
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
                    let seed = first + n;
                    let played = play(seed, None);
                    sum.lock().unwrap().add(&played);
                    if let Some(violation) = played.violation {
                        failed.store(true, Relaxed);
                        violations.lock().unwrap().push((seed, violation));
                    }
                }
            });
        }
    });
    let (sum, took) = (sum.into_inner().unwrap(), began.elapsed().as_secs_f64());
    println!("{sum:?} in {took:.1} s: {:.0} schedules/s, from seed {first}", sum.schedules as f64 / took);
    if let Some((seed, violation)) = violations.into_inner().unwrap().first() {
        panic!(
            "{violation}\nagain with TANDEM_SIM_FIRST={seed} TANDEM_SIM_SEEDS=1 (tests/simulation, seeds)"
        );
    }
    // What did not happen was not tested.
    if sum.schedules >= 500 {
        let seen = [sum.commits, sum.births, sum.kills, sum.pushes, sum.handed, sum.answers];
        assert!(seen.iter().all(|n| *n > sum.schedules / 2), "{sum:?}");
        let seen = [sum.deleted, sum.trims, sum.looks_back, sum.restores];
        assert!(seen.iter().all(|n| *n > sum.schedules / 40), "{sum:?}");
    }
}

#[test]
fn a_seed_decides_a_schedule() {
    for seed in 1..=40 {
        let (one, again) = (play(seed, None), play(seed, None));
        assert_eq!(one, again, "seed {seed}");
    }
    assert_ne!(play(1, None).fingerprint, play(2, None).fingerprint);
}
