//! Bodies by the grammar, whole and damaged, by the thousand, and what must hold for each of them:
//!
//! - no panic, no end of time, no memory beyond the bounds;
//! - however it is cut into pieces, it means the same;
//! - lines that are refused leave no trace, are numbered right, and the others mean what each means alone.
//!
//! A few seconds by default; `TANDEM_FUZZ_SECONDS=1800` for more. A failure prints its seed: `TANDEM_FUZZ_SEED` plays it again.

// Only to know when to end.
#![allow(clippy::disallowed_methods)]

mod body;
mod random;
mod read;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tandem_lines::{Limits, Settings};

use body::{lines, spoil};
use random::Random;
use read::{Known, Read, Row, alike, read, rows, settings};

/// No case takes nearly as long, on a busy machine and without optimisation.
const CASE_SECONDS: u64 = 60;
/// Of the process, with all that the test itself holds.
const MEMORY_BYTES: u64 = 512 << 20;
/// A line that is refused whatever stands before it.
const MARK: &[u8] = b",mark\n";

/// The case that is played, for a thread that sees to it that it ends.
static CASE: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

#[test]
fn bodies_of_all_kinds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let lasting = Duration::from_secs(number("TANDEM_FUZZ_SECONDS").unwrap_or(4));
    let given = number("TANDEM_FUZZ_SEED");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mut seeds = Random::new(given.unwrap_or(now));
    std::thread::spawn(watch);
    let (started, mut bytes) = (Instant::now(), 0);
    loop {
        // The given one is the case itself; those that follow are made of it.
        let first = DONE.load(Ordering::Relaxed) == 0;
        let seed = given.filter(|_| first).unwrap_or_else(|| seeds.next());
        CASE.store(seed, Ordering::Relaxed);
        let told = Told(seed);
        bytes += case(&mut Random::new(seed));
        drop(told);
        DONE.fetch_add(1, Ordering::Relaxed);
        if started.elapsed() >= lasting {
            break;
        }
    }
    let peak = peak_memory();
    println!("{} bodies of {bytes} bytes, peak memory {peak} bytes", DONE.load(Ordering::Relaxed));
    assert!(peak < MEMORY_BYTES, "peak memory {peak}");
}

/// Names the seed of a case that fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TANDEM_FUZZ_SEED={} plays this case again", self.0);
        }
    }
}

/// A loop without an end cannot fail by itself.
fn watch() {
    loop {
        let before = DONE.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(CASE_SECONDS));
        if DONE.load(Ordering::Relaxed) == before {
            eprintln!("TANDEM_FUZZ_SEED={} does not end", CASE.load(Ordering::Relaxed));
            std::process::abort();
        }
    }
}

/// In bytes; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

/// The bytes of its body.
fn case(random: &mut Random) -> usize {
    let known = Known::any(random);
    let count = random.within(1, 12);
    let lines = lines(random, count);
    if random.one_in(3) {
        among_others(random, &known, lines.clone());
    }
    let mut body = lines.concat();
    if random.one_in(2) {
        spoil(random, &mut body);
    }
    let known = known.diverting(random.one_in(3));
    in_pieces(random, &known, &body);
    if random.one_in(200) {
        at_length(random, &body);
    }
    body.len()
}

fn in_pieces(random: &mut Random, known: &Known, body: &[u8]) {
    let settings = settings(random);
    let whole = read(settings, known, [body]);
    let piece = random.within(1, 60);
    assert_eq!(read(settings, known, body.chunks(piece)), whole, "in pieces of {piece} bytes");
    assert_eq!(read(settings, known, body.chunks(1)), whole, "byte by byte");
    // At each place in few cases, else at some.
    let step = if random.one_in(30) { 1 } else { random.within(20, 100) };
    for cut in (0..=body.len()).step_by(step) {
        let (first, second) = body.split_at(cut);
        assert_eq!(read(settings, known, [first, second]), whole, "cut at {cut}");
    }
    for _ in 0..2 {
        let mut cuts =
            [random.below(body.len() + 1), random.below(body.len() + 1), random.below(body.len() + 1)];
        cuts.sort_unstable();
        let pieces = [&body[..cuts[0]], &body[cuts[0]..cuts[1]], &body[cuts[1]..cuts[2]], &body[cuts[2]..]];
        assert_eq!(read(settings, known, pieces), whole, "cut at {cuts:?}");
    }
}

/// Lines together, beside each of them alone and the good ones of them.
fn among_others(random: &mut Random, known: &Known, mut lines: Vec<Vec<u8>>) {
    for line in &mut lines {
        if random.one_in(4) {
            spoil(random, line);
        }
    }
    let limits = Limits { errors: usize::MAX, ..Limits::default() };
    let settings = Settings { now: 7, limits, ..settings(random) };
    // What is not one line, a line end too many or too few, is for the other cases; nor is what goes on in the next one.
    lines.retain(|line| !line.ends_with(b"\\\n"));
    lines.retain(|line| {
        let marked = read(settings, known, [line.as_slice(), MARK]);
        let shown = std::str::from_utf8(MARK.trim_ascii_end()).unwrap();
        marked.errors.last().is_some_and(|last| last.line == 2 && last.original == shown)
    });
    let together = read(settings, known, [lines.concat().as_slice()]);
    assert!(together.errors.iter().all(|error| error.line <= lines.len() as u64), "{together:?}");
    let refused = |index: usize| together.errors.iter().any(|error| error.line == index as u64 + 1);
    let good: Vec<&[u8]> =
        lines.iter().enumerate().filter(|(index, _)| !refused(*index)).map(|(_, line)| &line[..]).collect();
    let alone = read(settings, known, [good.concat().as_slice()]);
    assert_eq!((alone.failed, alone.rows), (0, together.rows), "{:?}", alone.errors);
    assert_eq!(rows(&alone), rows(&together), "refused lines leave no trace");
    each_alone(settings, known, &good, &together);
    let bad = lines.iter().enumerate().filter(|(index, _)| refused(*index));
    for ((index, line), error) in bad.zip(&together.errors) {
        let text = String::from_utf8_lossy(line);
        assert!(error.byte <= line.len() + 1, "line {index}: {error}");
        assert!(text.starts_with(&error.original), "line {index}: {error:?} of {text:?}");
    }
}

fn each_alone(settings: Settings, known: &Known, good: &[&[u8]], together: &Read) {
    let mut expected = rows(together);
    for line in good {
        let alone = read(settings, known, [*line]);
        assert_eq!(alone.failed, 0, "{:?}", alone.errors);
        for (table, found) in rows(&alone) {
            let left = expected.get_mut(&table).unwrap();
            let first: Row = left.remove(0);
            assert!(alike(&found[0], &first), "{found:?} alone, {first:?} among others");
        }
    }
    assert!(expected.values().all(Vec::is_empty), "{expected:?}");
}

/// A body again and again until it is long: neither time nor memory may grow with it beyond the bounds.
fn at_length(random: &mut Random, body: &[u8]) {
    let settings = settings(random);
    let long = body.repeat((256 << 10) / body.len().max(1));
    read(settings, &Known::default(), long.chunks(random.within(100, 20_000)));
}
