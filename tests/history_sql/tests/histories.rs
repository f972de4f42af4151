//! Random histories as SQL. `TANDEM_HISTORY_SEEDS=n` plays so many, `TANDEM_HISTORY_SECONDS=s` plays for so long,
//! `TANDEM_HISTORY_FIRST=seed` begins elsewhere.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tandem_history_sql::{Played, play};

/// As many as a run of all tests has time for.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured here is real time")]
fn every_query_equals_the_replayed_log() {
    let first = number("TANDEM_HISTORY_FIRST").unwrap_or(1);
    let seconds = number("TANDEM_HISTORY_SECONDS");
    let seeds = number("TANDEM_HISTORY_SEEDS").unwrap_or(if seconds.is_some() { u64::MAX } else { SEEDS });
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sum, violations) = (Mutex::new((0, Played::default())), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let late = seconds.is_some_and(|s| began.elapsed().as_secs() >= s);
                    let n = next.fetch_add(1, Relaxed);
                    if late || n >= seeds || failed.load(Relaxed) {
                        return;
                    }
                    match play(first + n) {
                        Ok(played) => add(&mut sum.lock().unwrap(), played),
                        Err(violation) => {
                            failed.store(true, Relaxed);
                            violations.lock().unwrap().push((first + n, violation));
                        }
                    }
                }
            });
        }
    });
    let ((histories, sum), took) = (sum.into_inner().unwrap(), began.elapsed().as_secs_f64());
    println!(
        "{histories} histories, {} statements, {} refused, {} held to their words, {} counts, {} queries, {} rows in \
         {took:.1} s, from seed {first}",
        sum.done, sum.refused, sum.expected, sum.counted, sum.queries, sum.rows
    );
    let mut reasons: Vec<(String, u64)> = sum.reasons.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (reason, n) in reasons.iter().take(12) {
        println!("  {n} × {reason}");
    }
    if let Some((seed, violation)) = violations.into_inner().unwrap().into_iter().next() {
        panic!(
            "{}\nafter (seed {seed}):\n{}again with TANDEM_HISTORY_FIRST={seed} TANDEM_HISTORY_SEEDS=1 (tests/history_sql)",
            violation.text, violation.listing
        );
    }
    // What did not happen was not tested.
    if histories >= 50 {
        assert!(sum.done > 2 * sum.refused, "most statements are taken");
        assert!(sum.expected > histories && sum.counted > 0 && sum.queries > histories);
    }
}

fn add((histories, sum): &mut (u64, Played), played: Played) {
    *histories += 1;
    sum.done += played.done;
    sum.refused += played.refused;
    sum.queries += played.queries;
    sum.rows += played.rows;
    sum.expected += played.expected;
    sum.counted += played.counted;
    let reasons: BTreeMap<String, u64> = played.reasons;
    for (reason, n) in reasons {
        *sum.reasons.entry(reason).or_default() += n;
    }
}
