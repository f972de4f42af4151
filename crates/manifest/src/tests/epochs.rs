//! Promotions fence, leases advise.

use tandem_format::{Lease, Primary};
use tandem_types::{Epoch, ErrorKind};

use super::checkpoints::reload;
use super::tokens::{kind, write};
use super::*;

fn primary(id: &str) -> Option<Primary> {
    Some(Primary { node_id: id.to_owned(), address: format!("http://{id}:8815") })
}

fn promote(epoch: u64, id: &str) -> Vec<Step> {
    vec![Step::Promote { epoch: Epoch(epoch), primary: primary(id) }]
}

fn mode(value: &str) -> Vec<Step> {
    vec![Step::SetSettings { settings: vec![("mode".to_owned(), Some(value.to_owned()))] }]
}

fn single() -> Log {
    let mut log = Log::new();
    let mut steps = mode("single-primary");
    steps.extend(promote(1, "a"));
    log.must(steps);
    log
}

fn in_epoch(epoch: u64, intent: Intent) -> Intent {
    Intent { epoch: Some(Epoch(epoch)), ..intent }
}

fn refusal(fate: &Fate) -> Error {
    match fate {
        Fate::Refused(error) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_of_two_promotions_wins_and_the_other_hears_of_it() {
    let mut log = single();
    assert_eq!((log.head().epoch(), log.head().primary().cloned()), (Epoch(1), primary("a")));
    let (b, c) = (log.intent(promote(2, "b")), log.intent(promote(2, "c")));
    let fates = log.commit(&[b.clone(), c.clone()]);
    assert!(fates[0].stands());
    let error = refusal(&fates[1]);
    assert_eq!((error.kind(), error.writer()), (ErrorKind::Serialization, Some("http://b:8815")));
    assert!(error.message().contains("node b"), "{error}");
    assert_eq!(refusal(&log.commit(&[c])[0]).writer(), Some("http://b:8815"));
    assert_eq!(log.head().primary().cloned(), primary("b"));

    // Epochs are not skipped either.
    assert_eq!(kind(&log.run(promote(4, "c"))), ErrorKind::Serialization);
    assert_eq!(reload(log.head()).primary().cloned(), primary("b"));
    assert_eq!(reload(log.head()).digest(), log.head().digest());
}

#[test]
fn a_fenced_primary_is_told_where_to_send_its_clients() {
    let mut log = single();
    let waiting = in_epoch(1, write(&log, foreign("w", None), b"w"));
    let done = in_epoch(1, write(&log, foreign("d", None), b"d"));
    let upkeep = write(&log, None, b"");
    assert!(log.commit(std::slice::from_ref(&done))[0].stands());
    log.must(promote(2, "b"));
    let fates = log.commit(&[waiting.clone(), done, upkeep]);
    let error = refusal(&fates[0]);
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some("http://b:8815")));
    assert_eq!(fates[1], Fate::Duplicate { seq: Seq(2), rows: 3 }, "what was committed stays committed");
    assert!(fates[2].stands(), "upkeep carries no epoch");
    // The same write, through the new primary.
    assert!(log.commit(&[in_epoch(2, waiting)])[0].stands());
    // An epoch that is yet to come is no better.
    let early = in_epoch(3, write(&log, None, b""));
    assert_eq!(kind(&log.commit(&[early])[0]), ErrorKind::NotWriter);
}

#[test]
fn a_promotion_in_the_same_commit_fences_what_comes_after_it() {
    let mut log = single();
    let group = [
        in_epoch(1, write(&log, None, b"")),
        log.intent(promote(2, "b")),
        in_epoch(1, write(&log, None, b"")),
    ];
    let fates = log.commit(&group);
    assert!(fates[0].stands() && fates[1].stands());
    assert_eq!(kind(&fates[2]), ErrorKind::NotWriter);

    // A writer that did not look: void on every node.
    let mut stale = log.headers.last().unwrap().0.transactions[0].clone();
    stale.ops.truncate(1);
    let (header, hash) = seal(log.head(), vec![stale]);
    let applied = log.head().apply(&header, hash).unwrap();
    let Outcome::Void(error) = &applied.outcomes[0] else { panic!("{:?}", applied.outcomes) };
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some("http://b:8815")));
    assert_eq!(applied.manifest.digest, log.head().digest);
}

#[test]
fn a_no_op_of_a_fenced_primary_is_no_success() {
    let mut log = single();
    log.must(promote(2, "b"));
    let step = Step::DropTable { name: name("absent"), if_exists: true };
    let intent = log.intent(vec![step]);
    assert_eq!(log.commit(std::slice::from_ref(&intent)), [Fate::NoOp]);
    assert_eq!(kind(&log.commit(&[in_epoch(1, intent)])[0]), ErrorKind::NotWriter);
}

#[test]
fn with_many_primaries_epochs_fence_nobody() {
    let mut log = single();
    let mut steps = mode("multi-primary");
    steps.push(Step::Promote { epoch: Epoch(2), primary: None });
    log.must(steps);
    assert_eq!((log.head().primary(), log.head().is_single_primary()), (None, false));
    let old = in_epoch(1, write(&log, None, b""));
    assert!(log.commit(&[old])[0].stands());

    // Single again, nobody promoted yet: the old epoch stays over, and nobody can be named.
    log.must(mode("single-primary"));
    let error = refusal(&{
        let old = in_epoch(1, write(&log, None, b""));
        log.commit(&[old]).remove(0)
    });
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, None));
}

#[test]
fn only_the_primary_writes_where_there_is_one() {
    let mut log = Log::new();
    let (a, b) = (primary("a"), primary("b"));
    let write_epoch = |log: &Log, node: &Option<Primary>| log.head().write_epoch(node.as_ref());
    for node in [&a, &b, &None] {
        assert_eq!(write_epoch(&log, node).unwrap(), Epoch(0), "every node writes");
    }
    let mut steps = mode("single-primary");
    steps.extend(promote(1, "a"));
    log.must(steps);
    assert_eq!((log.head().mode(), write_epoch(&log, &a).unwrap()), (Mode::SinglePrimary, Epoch(1)));
    let moved = Some(Primary { address: "http://elsewhere:1".into(), ..a.clone().unwrap() });
    for node in [&b, &None, &moved] {
        let error = write_epoch(&log, node).unwrap_err();
        assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some("http://a:8815")));
    }
    log.must(promote(2, "b"));
    assert_eq!(write_epoch(&log, &b).unwrap(), Epoch(2));
    assert_eq!(write_epoch(&log, &a).unwrap_err().writer(), Some("http://b:8815"));
    let mut steps = mode("multi-primary");
    steps.push(Step::Promote { epoch: Epoch(3), primary: None });
    log.must(steps);
    assert_eq!((log.head().mode(), write_epoch(&log, &a).unwrap()), (Mode::MultiPrimary, Epoch(3)));
    // Single again, and nobody promoted: nobody writes.
    log.must(mode("single-primary"));
    let error = write_epoch(&log, &a).unwrap_err();
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, None));
    for (value, fits) in [("off", true), ("500ms", true), ("0s", false), ("never", false)] {
        let setting = vec![("failover_after".to_owned(), Some(value.to_owned()))];
        assert_eq!(log.run(vec![Step::SetSettings { settings: setting }]).stands(), fits, "{value}");
    }
}

#[test]
fn leases_follow_each_other_and_bind_nobody() {
    let mut log = Log::new();
    let lease = |holder: &str, term| {
        let (holder, address) = (holder.to_owned(), format!("http://{holder}:1"));
        vec![Step::Lease { holder, address, term }]
    };
    assert_eq!(kind(&log.run(lease("a", 2))), ErrorKind::Serialization);
    log.must(lease("a", 1));
    let (b, c) = (log.intent(lease("b", 2)), log.intent(lease("c", 2)));
    let fates = log.commit(&[b, c]);
    assert!(fates[0].stands());
    assert_eq!(kind(&fates[1]), ErrorKind::Serialization);
    let held = Lease { holder: "b".into(), address: "http://b:1".into(), term: 2 };
    assert_eq!(log.head().lease(), Some(&held));
    let others = write(&log, None, b"");
    assert!(log.commit(&[others])[0].stands());
    let state = reload(log.head());
    assert_eq!((state.lease(), state.digest()), (Some(&held), log.head().digest()));
    assert_eq!(state.epoch(), Epoch(0), "a lease is no promotion");
}

#[test]
fn names_and_addresses_of_nodes_have_bounds() {
    let mut log = Log::new();
    let node = |id: &str, address: String| Some(Primary { node_id: id.to_owned(), address });
    for primary in [node("", String::new()), node("a", "x".repeat(2049))] {
        let steps = vec![Step::Promote { epoch: Epoch(1), primary }];
        assert_eq!(kind(&log.run(steps)), ErrorKind::InvalidInput);
    }
    for wrong in ["dual", ""] {
        assert_eq!(kind(&log.run(mode(wrong))), ErrorKind::InvalidInput);
    }
}
