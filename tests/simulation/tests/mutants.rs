//! Deliberate mistakes in the protocol, and how soon each is found. A mistake that is not found says that the simulation
//! lacks something, not that the protocol can do without what was left out.

use tandem_env::Mutant;
use tandem_simulation::{Flavour, Plan, play_plan};

/// Plays schedules until one breaks a promise; which promise must be among those that the mistake breaks.
fn caught(mutant: Mutant, within: u64, promises: &[&str], shape: impl Fn(&mut Plan)) {
    for seed in 1..=within {
        let plan = Plan::of(seed).with(&shape);
        if let Some(violation) = play_plan(plan, Some(mutant)).violation {
            println!("{mutant:?} is found by schedule {seed}: {violation}");
            assert!(promises.contains(&violation.name), "{mutant:?}, schedule {seed}: {violation}");
            return;
        }
    }
    panic!("{mutant:?} goes unnoticed in {within} schedules");
}

/// As the seeds decide.
fn usual(_: &mut Plan) {}

/// A store that fails often, and nodes that do not help each other.
fn faulty(plan: &mut Plan) {
    (plan.faults, plan.handover, plan.upkeep) = (60, false, true);
}

fn trimmed(plan: &mut Plan) {
    (plan.flavour, plan.slow, plan.nodes, plan.replicas) = (Flavour::Trimmed, 24, 4, 0);
    plan.pauses = 4;
}

#[test]
fn ack_before_commit() {
    caught(Mutant::AckBeforeCommit, 60, &["I1", "I6"], usual);
}

#[test]
fn visible_before_commit() {
    caught(Mutant::VisibleBeforeCommit, 60, &["I4", "I5"], usual);
}

#[test]
fn exists_is_lost() {
    caught(Mutant::ExistsIsLost, 600, &["I2", "I8"], faulty);
}

#[test]
fn unknown_is_lost() {
    caught(Mutant::UnknownIsLost, 600, &["I2", "I8"], faulty);
}

#[test]
fn unknown_is_created() {
    caught(Mutant::UnknownIsCreated, 100, &["I1", "I4", "I5"], usual);
}

#[test]
fn other_bytes_at_the_same_seq() {
    // A number that is taken for another's, and is nobody's yet, is also missed by upkeep.
    caught(Mutant::OtherBytesAtSameSeq, 600, &["I2", "I8", "I9"], faulty);
}

/// Nodes that hear of each other's commits give up a create that hangs: here they do not, and it lands when the log is
/// trimmed past its number.
#[test]
fn no_floor_check_in_the_writer() {
    let deaf = |plan: &mut Plan| {
        (plan.flavour, plan.slow, plan.nodes, plan.replicas) = (Flavour::Trimmed, 12, 3, 0);
        (plan.pushes, plan.handover, plan.upkeep, plan.collects) = (false, false, true, true);
        (plan.pauses, plan.writes) = (0, 30);
    };
    caught(Mutant::NoFloorCheckInWriter, 600, &["I1", "I4", "I5", "I17"], deaf);
}

#[test]
fn no_floor_check_in_the_reader() {
    // Who takes a trimmed number for the end of the log also refuses what the true state would take.
    caught(Mutant::NoFloorCheckInReader, 2000, &["I4", "I5", "I7", "I17", "I23"], trimmed);
}

fn collecting(plan: &mut Plan) {
    (plan.flavour, plan.upkeep, plan.collects, plan.handover) = (Flavour::Trimmed, true, true, false);
    plan.replicas = 0;
}

#[test]
fn the_horizon_ignored_by_the_collector() {
    caught(Mutant::HorizonIgnored, 100, &["I9", "I10"], collecting);
}

#[test]
fn the_floor_ahead_of_checkpoints() {
    caught(Mutant::FloorAheadOfCheckpoint, 100, &["I4", "I9", "I11", "I17", "I23"], collecting);
}

#[test]
fn a_hole_in_the_log_unchecked() {
    caught(Mutant::HoleUnchecked, 100, &["I4"], |plan| plan.flavour = Flavour::Hole);
}

#[test]
fn chain_of_pushes_unchecked() {
    caught(Mutant::FeedChainUnchecked, 100, &["I4", "I5"], usual);
}

#[test]
fn order_of_pushes_unchecked() {
    caught(Mutant::FeedOrderUnchecked, 100, &["I4", "I5"], usual);
}

fn handing_over(plan: &mut Plan) {
    (plan.handover, plan.clients, plan.writes) = (true, 8, 6);
    (plan.pushes, plan.lossy, plan.forged, plan.flavour) = (true, 90, 24, Flavour::Usual);
    (plan.nodes, plan.replicas, plan.ddl) = (4, 1, 60);
}

#[test]
fn the_word_of_a_deputy_believed() {
    caught(Mutant::HandedAnswerBelieved, 100, &["I1"], handing_over);
}

#[test]
fn no_token_check() {
    caught(Mutant::NoTokenCheck, 100, &["I1", "I2"], usual);
}

#[test]
fn epoch_unchecked() {
    caught(Mutant::EpochUnchecked, 200, &["I15"], usual);
}

#[test]
fn rejection_from_a_stale_state() {
    caught(Mutant::StaleRejection, 200, &["I1", "I7"], usual);
}

#[test]
fn two_compactors_unchecked() {
    caught(Mutant::GoneInputsDropped, 200, &["I12"], usual);
}

#[test]
fn checkpoint_not_read_back() {
    caught(Mutant::CheckpointNotReadBack, 200, &["I17"], usual);
}

#[test]
fn unrecorded_checkpoint_used() {
    caught(Mutant::UnrecordedCheckpointUsed, 100, &["I5", "I17"], usual);
}
