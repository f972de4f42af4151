use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn patience(after: Duration, interval: Duration) -> Patience {
    Patience { after, interval }
}

fn seen(node_id: &str, role: &str, priority: Option<u8>, applied: u64) -> Seen {
    let heartbeat = Heartbeat {
        node_id: node_id.into(),
        role: role.into(),
        failover_priority: priority,
        applied_seq: applied,
        ..Heartbeat::default()
    };
    Seen { heartbeat, changed: SECOND, moving: true, still: 0 }
}

fn me(priority: u8, applied: u64) -> Candidate<'static> {
    Candidate { node_id: "m", priority, applied: Seq(applied) }
}

#[test]
fn the_most_wanted_candidate_is_first_then_the_most_caught_up_then_by_name() {
    let others = [seen("a", STANDBY, Some(50), 10), seen("z", STANDBY, Some(50), 10)];
    assert_eq!(rank(&me(50, 10), &others), 1, "a before m before z");
    assert_eq!(rank(&me(50, 11), &others), 0);
    assert_eq!(rank(&me(50, 9), &others), 2);
    assert_eq!(rank(&me(51, 0), &others), 0, "who is wanted comes before who has most");
    assert_eq!(rank(&me(49, 99), &others), 2);
}

#[test]
fn who_cannot_take_over_keeps_nobody_waiting() {
    let others = [
        seen("a", STANDBY, None, 99),
        seen("b", crate::roles::REPLICA, Some(100), 99),
        seen("c", crate::roles::PRIMARY, Some(100), 99),
    ];
    assert_eq!(rank(&me(0, 0), &others), 0);
}

/// A primary that is watched every 100 ms; the signs are given by time.
struct Course {
    watch: Watch,
    patience: Patience,
    now: Duration,
    epoch: u64,
    seq: u64,
    beat: Option<Duration>,
}

impl Course {
    fn new(patience: Patience) -> Self {
        let (now, beat) = (100 * SECOND, None);
        Self { watch: Watch::new(now), patience, now, epoch: 1, seq: 5, beat }
    }

    fn look(&mut self) -> Duration {
        let signs = Signs { epoch: Epoch(self.epoch), seq: Seq(self.seq), beat: self.beat };
        self.watch.look(self.now, signs, self.patience)
    }

    /// How silent the primary is after so much time without any sign.
    fn pass(&mut self, time: Duration) -> Duration {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            self.look();
        }
        self.look()
    }
}

#[test]
fn commits_beats_and_answers_are_signs_of_life() {
    let mut course = Course::new(patience(3 * SECOND, SECOND));
    assert_eq!(course.look(), Duration::ZERO, "a node that begins has seen nothing yet, and waits");
    assert_eq!(course.pass(2 * SECOND), 2 * SECOND);
    course.seq += 1;
    assert_eq!(course.look(), Duration::ZERO);
    assert_eq!(course.pass(2 * SECOND), 2 * SECOND);
    course.beat = Some(course.now - SECOND);
    assert_eq!(course.look(), SECOND, "it counts from when the change was found");
    assert_eq!(course.pass(SECOND), 2 * SECOND);
    course.watch.answered(course.now);
    assert_eq!(course.look(), Duration::ZERO);
    assert_eq!(course.pass(4 * SECOND), 4 * SECOND);
    course.epoch += 1;
    assert_eq!(course.look(), Duration::ZERO, "the next primary has all the time again");
    assert!(course.watch.reached.is_none(), "and was never called");
}

#[test]
fn who_was_deaf_suspects_nobody() {
    let mut course = Course::new(patience(3 * SECOND, SECOND));
    course.look();
    assert_eq!(course.pass(SECOND), SECOND);
    // SIGSTOP, and an hour later SIGCONT.
    course.now += 3600 * SECOND;
    assert_eq!(course.look(), Duration::ZERO);
    assert_eq!(course.pass(3 * SECOND), 3 * SECOND);
}

#[test]
fn a_primary_that_was_never_called_is_judged_by_its_heartbeats() {
    let local = patience(3 * SECOND, SECOND);
    assert_eq!((local.limit(true), local.limit(false)), (3 * SECOND, 3 * SECOND));
    let remote = patience(3 * SECOND, 5 * SECOND);
    assert_eq!((remote.limit(true), remote.limit(false)), (3 * SECOND, 15 * SECOND));
    let patient = patience(60 * SECOND, 5 * SECOND);
    assert_eq!((patient.limit(true), patient.limit(false)), (60 * SECOND, 60 * SECOND));
}

#[test]
fn calls_are_rare_until_there_is_a_suspicion() {
    let patience = patience(3 * SECOND, 5 * SECOND);
    let mut course = Course::new(patience);
    let mut calls = [0, 0];
    for tick in 0..3600 {
        course.now += TICK;
        // A commit each second for three minutes, then nothing for as long: each call is answered.
        if tick < 1800 && tick % 10 == 0 {
            course.seq += 1;
        }
        let silent = course.look();
        if course.watch.wants_call(course.now, silent, patience) {
            calls[tick / 1800] += 1;
            course.watch.called = Some(course.now);
            course.watch.answered(course.now);
        }
        assert!(silent < patience.after, "an answering primary is not silent");
    }
    assert!((4..=8).contains(&calls[0]), "{calls:?} calls of a busy primary");
    assert!((90..=130).contains(&calls[1]), "{calls:?} calls of an idle one");
    // One that does not answer is called again and again.
    let mut unanswered = 0;
    for _ in 0..30 {
        course.now += TICK;
        let silent = course.look();
        if course.watch.wants_call(course.now, silent, patience) {
            unanswered += 1;
            course.watch.called = Some(course.now);
        }
    }
    assert!((2..=4).contains(&unanswered), "{unanswered}");
}

#[test]
fn the_setting_is_read_and_can_be_off() {
    use tandem_manifest::{Intent, Rebased, Step, rebase};
    let set = |value: Option<&str>| {
        let state = Manifest::empty(tandem_types::DatabaseId(1));
        let settings = vec![("failover_after".to_owned(), value.map(str::to_owned))];
        let steps = vec![Step::SetSettings { settings }];
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: Seq(0), steps };
        match rebase(&intent, &state, Seq(1), 0).unwrap() {
            Rebased::Commit { state, .. } => failover_after(&state),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set(None), Some(3 * SECOND));
    assert_eq!(set(Some("250ms")), Some(Duration::from_millis(250)));
    assert_eq!(set(Some("off")), None);
}
