//! A token commits at most once, and what cannot be told apart is never a success.

use arrow_schema::DataType;
use tandem_types::ErrorKind;

use super::*;

pub(super) fn write(log: &Log, token: Option<TransactionToken>, digest: &[u8]) -> Intent {
    let steps = vec![append_on(
        log.head(),
        "t",
        SchemaPolicy::Create,
        &[("ts", TS), ("v", DataType::Int32)],
        vec![section(2, &[(1, 3)], None)],
    )];
    Intent { token, digest: digest.to_vec(), ..log.intent(steps) }
}

pub(super) fn kind(fate: &Fate) -> ErrorKind {
    match fate {
        Fate::Refused(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_commits_once_and_answers_ever_after() {
    let mut log = Log::new();
    let first = write(&log, token(1, 1, 1, 0), b"a");
    assert_eq!(
        log.commit(&[first.clone(), first.clone()]),
        [Fate::Stands { rows: 3 }, Fate::Duplicate { seq: Seq(1), rows: 3 }]
    );
    let other = write(&log, token(1, 2, 1, 1), b"");
    assert!(log.commit(&[other])[0].stands());
    assert_eq!(log.commit(&[first]), [Fate::Duplicate { seq: Seq(1), rows: 3 }]);
    assert_eq!(log.head().require(&name("t")).unwrap().rows(), 6);

    let reused = write(&log, token(1, 1, 1, 0), b"b");
    assert_eq!(kind(&log.commit(&[reused])[0]), ErrorKind::TokenReused);
}

#[test]
fn a_commit_that_repeats_a_token_changes_nothing_on_any_node() {
    let mut log = Log::new();
    let intent = write(&log, token(1, 1, 1, 0), b"a");
    assert!(log.commit(&[intent])[0].stands());
    // A writer that did not look: the same transaction stands in the log once more.
    let again = log.headers[0].0.transactions.clone();
    let (header, hash) = seal(log.head(), again);
    let applied = log.head().apply(&header, hash).unwrap();
    assert_eq!(applied.outcomes, [Outcome::Duplicate { seq: Seq(1), rows: 3 }]);
    assert_eq!(applied.manifest.digest, log.head().digest);
}

#[test]
fn a_settled_counter_is_never_a_success() {
    let mut log = Log::new();
    let first = write(&log, token(1, 1, 1, 0), b"");
    let second = write(&log, token(1, 5, 4, 0), b"");
    assert!(log.commit(&[first.clone(), second]).iter().all(Fate::stands));
    assert_eq!(kind(&log.commit(&[first])[0]), ErrorKind::TokenReused);
    let below_own_low = write(&log, token(1, 7, 9, 0), b"");
    assert_eq!(kind(&log.commit(&[below_own_low])[0]), ErrorKind::InvalidInput);
}

#[test]
fn a_producer_that_never_settles_has_to_wait() {
    let mut log = Log::new();
    let max = MAX_COMMITTED as u64;
    let all: Vec<Intent> = (1..=max).map(|n| write(&log, token(1, n, 1, 0), b"")).collect();
    assert!(log.commit(&all).iter().all(Fate::stands));
    let more = write(&log, token(1, max + 1, 1, 0), b"");
    assert_eq!(kind(&log.commit(&[more])[0]), ErrorKind::Overloaded);
    let settles = write(&log, token(1, max + 1, 2, 0), b"");
    assert!(log.commit(&[settles])[0].stands());
}

#[test]
fn a_forgotten_producer_is_told_that_nobody_knows() {
    let mut log = Log::new();
    let old = write(&log, token(0, 1, 1, 0), b"a");
    assert!(log.commit(std::slice::from_ref(&old))[0].stands());
    for chunk in (1..=MAX_PRODUCERS as u128).collect::<Vec<_>>().chunks(1024) {
        let group: Vec<Intent> = chunk.iter().map(|p| write(&log, token(*p, 1, 1, 1), b"")).collect();
        assert!(log.commit(&group).iter().all(Fate::stands));
    }
    assert_eq!(log.head().tokens().producers(), MAX_PRODUCERS);
    // The floor is at 1: a token made before that may have been committed and forgotten.
    assert_eq!(kind(&log.commit(std::slice::from_ref(&old))[0]), ErrorKind::TokenExpired);
    // Listed anew, the producer's older tokens are still not told apart; newer ones are.
    let new = write(&log, token(0, 2, 1, 5), b"");
    assert!(log.commit(&[new])[0].stands());
    assert_eq!(kind(&log.commit(&[old])[0]), ErrorKind::TokenExpired);
    // A producer that was always listed keeps its old tokens: all that it committed is known.
    let late = write(&log, token(7, 2, 1, 0), b"");
    assert!(log.commit(&[late])[0].stands());
}

#[test]
fn producers_are_listed_with_what_they_did_last() {
    let mut log = Log::new();
    for (producer, counter, low) in [(1, 1, 1), (2, 7, 3), (1, 4, 2)] {
        let intent = write(&log, token(producer, counter, low, 0), b"");
        assert!(log.commit(&[intent])[0].stands());
    }
    let listed: Vec<_> = log.head().tokens().list_producers().collect();
    let told: Vec<_> = listed.iter().map(|p| (p.producer.0, p.low, p.last_counter, p.last_seq.0)).collect();
    assert_eq!(told, [(1, 2, Some(4), 3), (2, 3, Some(7), 2)]);
}

#[test]
fn what_was_logged_only_grows_and_survives_a_checkpoint() {
    let mut log = Log::new();
    let first = write(&log, token(1, 1, 1, 0), b"a");
    log.commit(std::slice::from_ref(&first));
    let one = log.head().logged();
    assert_eq!(one.rows, 3);
    assert!(one.bytes > 0);
    let truncate = Step::Truncate { name: name("t") };
    log.must(vec![truncate]);
    assert_eq!(log.head().logged(), one);
    assert_eq!(super::checkpoints::reload(log.head()).logged(), one);
}
