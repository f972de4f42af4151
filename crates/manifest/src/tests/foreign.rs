//! Tokens that clients made up: how long they are told apart, and what is said of the rest.

use tandem_types::ErrorKind;

use super::checkpoints::reload;
use super::tokens::{kind, write};
use super::*;

const HOUR: i64 = 3_600_000_000;

fn set(log: &mut Log, window: &str, count: &str) {
    let setting = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let settings = vec![setting("token_window", window), setting("token_count", count)];
    log.must(vec![Step::SetSettings { settings }]);
}

/// Moves the log's age by so many hours, ten minutes a commit.
fn wait(log: &mut Log, hours: i64) {
    for _ in 0..hours * 6 {
        log.clock += HOUR / 6;
        let intent = write(log, None, b"");
        assert!(log.commit(&[intent])[0].stands());
    }
}

fn send(log: &mut Log, text: &str, base: Option<u64>, digest: &[u8]) -> Fate {
    let intent = write(log, foreign(text, base), digest);
    log.commit(&[intent]).remove(0)
}

#[test]
fn a_text_commits_once_whatever_it_is_sent_with() {
    let mut log = Log::new();
    let first = write(&log, foreign("run 7", None), b"a");
    assert_eq!(
        log.commit(&[first.clone(), first.clone()]),
        [Fate::Stands { rows: 3 }, Fate::Duplicate { seq: Seq(1), rows: 3 }]
    );
    assert_eq!(send(&mut log, "run 7", Some(1), b"a"), Fate::Duplicate { seq: Seq(1), rows: 3 });
    assert_eq!(kind(&send(&mut log, "run 7", None, b"b")), ErrorKind::TokenReused);
    assert!(
        send(&mut log, "run 8", None, b"a").stands(),
        "equal content under another token is another write"
    );

    // The table is gone, and a repeat is still told of its success.
    log.must(vec![Step::DropTable { name: name("t"), if_exists: false }]);
    assert_eq!(log.commit(&[first]), [Fate::Duplicate { seq: Seq(1), rows: 3 }]);
    let state = reload(log.head());
    let known = state.token_answer(&foreign("run 8", None).unwrap(), b"a");
    assert_eq!(known, TokenAnswer::Committed { seq: Seq(2), rows: 3 });
}

#[test]
fn a_commit_that_repeats_a_text_changes_nothing_on_any_node() {
    let mut log = Log::new();
    let intent = write(&log, foreign("x", None), b"a");
    assert!(log.commit(&[intent])[0].stands());
    let mut again = log.headers[0].0.transactions.clone();
    let mut other = again[0].clone();
    other.digest = b"b".to_vec();
    again.push(other);
    let (header, hash) = seal(log.head(), again);
    let applied = log.head().apply(&header, hash).unwrap();
    assert_eq!(applied.outcomes[0], Outcome::Duplicate { seq: Seq(1), rows: 3 });
    assert!(matches!(&applied.outcomes[1], Outcome::Void(e) if e.kind() == ErrorKind::TokenReused));
    assert_eq!(applied.manifest.digest, log.head().digest);
}

#[test]
fn texts_have_bounds() {
    let mut log = Log::new();
    assert!(send(&mut log, &"x".repeat(128), None, b"").stands());
    for text in [String::new(), "x".repeat(129), "\u{e9}".repeat(65)] {
        assert_eq!(kind(&send(&mut log, &text, None, b"")), ErrorKind::InvalidInput, "{}", text.len());
    }
}

#[test]
fn the_window_is_the_logs_age_and_the_oldest_go_first() {
    let mut log = Log::new();
    set(&mut log, "24h", "1");
    assert!(send(&mut log, "a", None, b"").stands());
    let a = log.head().seq();
    wait(&mut log, 12);
    assert!(send(&mut log, "b", None, b"").stands());
    // A clock that jumps a year moves the age by ten minutes.
    log.clock += 365 * 24 * HOUR;
    wait(&mut log, 0);
    assert!(send(&mut log, "c", None, b"").stands());
    log.clock -= 365 * 24 * HOUR;
    assert_eq!(log.head().tokens().foreign(), 3);
    assert_eq!(log.head().tokens().floor(), Seq(0));

    wait(&mut log, 12);
    assert!(send(&mut log, "d", None, b"").stands());
    assert_eq!(log.head().tokens().foreign(), 3, "a is a day old");
    assert_eq!(log.head().tokens().floor(), a);
    assert!(matches!(send(&mut log, "b", None, b""), Fate::Duplicate { .. }));
    // Made before the floor and not listed: nobody knows. Without a base, only the window was promised.
    assert_eq!(kind(&send(&mut log, "a", Some(a.0 - 1), b"")), ErrorKind::TokenExpired);
    assert!(send(&mut log, "e", Some(a.0), b"").stands());
    assert!(send(&mut log, "a", None, b"").stands());
    assert_eq!(reload(log.head()).digest(), log.head().digest());
}

#[test]
fn many_are_kept_however_old() {
    let mut log = Log::new();
    set(&mut log, "1s", "50");
    for n in 0..50 {
        assert!(send(&mut log, &format!("t{n}"), None, b"").stands());
        log.clock += HOUR / 6;
    }
    assert_eq!(log.head().tokens().foreign(), 50);
    for n in 50..60 {
        assert!(send(&mut log, &format!("t{n}"), None, b"").stands());
        log.clock += HOUR / 6;
        assert_eq!(log.head().tokens().foreign(), 50);
    }
    assert!(matches!(send(&mut log, "t10", None, b""), Fate::Duplicate { .. }));
    assert!(send(&mut log, "t9", None, b"").stands(), "the tenth was the last to go");

    // A lower bound takes hold little by little, with the tokens that come.
    set(&mut log, "1s", "10");
    for n in 100..150 {
        log.clock += HOUR / 6;
        let before = log.head().tokens().foreign();
        assert!(send(&mut log, &format!("t{n}"), None, b"").stands());
        assert!(before - log.head().tokens().foreign() <= 3);
    }
    assert_eq!(log.head().tokens().foreign(), 10);
}

#[test]
fn equal_content_commits_once_within_its_window() {
    let mut log = Log::new();
    let content = |minutes: i64| Some(TransactionToken::Content { window: minutes * HOUR / 60 });
    let first = write(&log, content(30), b"a");
    assert_eq!(
        log.commit(&[first.clone(), first.clone(), write(&log, content(30), b"b")]),
        [Fate::Stands { rows: 3 }, Fate::Duplicate { seq: Seq(1), rows: 3 }, Fate::Stands { rows: 3 }]
    );
    // A client's token of that text is something else.
    assert!(send(&mut log, "a", None, b"a").stands());
    log.clock += HOUR / 6;
    assert!(send(&mut log, "c", None, b"").stands());
    assert_eq!(log.commit(std::slice::from_ref(&first)), [Fate::Duplicate { seq: Seq(1), rows: 3 }]);
    wait(&mut log, 1);
    assert!(log.commit(std::slice::from_ref(&first))[0].stands(), "an hour later it is another write");
    let again = log.head().seq();
    assert_eq!(log.commit(&[first]), [Fate::Duplicate { seq: again, rows: 3 }]);
    assert_eq!(log.head().tokens().foreign(), 4);
    assert_eq!(log.head().tokens().foreign.iter().count(), 4, "the one of then has made room");
    assert_eq!(reload(log.head()).digest(), log.head().digest());
}

#[test]
fn settings_that_cannot_be_read_mean_the_defaults() {
    let mut log = Log::new();
    let settings = |k: &str, v: &str| vec![Step::SetSettings { settings: vec![(k.into(), Some(v.into()))] }];
    for (key, value) in [("token_window", "soon"), ("token_window", "0s"), ("token_count", "10000001")] {
        let fate = log.run(settings(key, value));
        assert_eq!(kind(&fate), ErrorKind::InvalidInput, "{key} = {value}");
    }
    // Of some later version.
    let op = tandem_format::Op::SetSettings {
        settings: vec![
            ("token_window".into(), Some("1 moon".into())),
            ("token_count".into(), Some("x".into())),
        ],
    };
    let transaction = Transaction { token: None, digest: Vec::new(), epoch: None, ops: vec![op] };
    let (header, hash) = seal(log.head(), vec![transaction]);
    let state = log.head().apply(&header, hash).unwrap().manifest;
    let keep = state.kept_tokens();
    assert_eq!((keep.window, keep.count), (24 * HOUR, 1_000_000));
}

#[test]
fn the_logs_age_begins_with_its_first_clock_and_follows_slowly() {
    let mut log = Log::new();
    let now = 1_800_000_000_000_000;
    let steps = [(0, 0), (HOUR, HOUR / 6), (-HOUR, HOUR / 6), (HOUR / 5, HOUR / 5), (HOUR, HOUR * 11 / 30)];
    for (clock, age) in steps {
        log.clock = now + clock;
        let intent = write(&log, None, b"");
        assert!(log.commit(&[intent])[0].stands());
        assert_eq!(log.head().age(), now + age);
    }
    let mut log = Log { clock: -5, ..Log::new() };
    let intent = write(&log, None, b"");
    assert!(log.commit(&[intent])[0].stands());
    assert_eq!(log.head().age(), 0);
}
