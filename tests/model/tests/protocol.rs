//! The whole protocol breaks nothing; each weakening of it breaks something.
//!
//! Printed with `--nocapture`: how many states were visited, and the shortest way to what a weakening breaks.

use tandem_model::{
    ACKED_IS_THERE, Action, Checked, FENCED, GOES_ON, NO_MEANS_NO, ONCE, ONE_HISTORY, Protocol, Token,
    Weakening, check,
};

/// More states than any of these models has.
const MOST: usize = 16_000_000;

/// Two nodes write at once, one answer is lost, and the log is trimmed. The second client's write stands for all that is
/// sent once and without a token.
const SHARED: Protocol = Protocol {
    nodes: 2,
    clients: 2,
    sends: 2,
    second: Token::None,
    seqs: 3,
    unanswered: 1,
    crashes: 0,
    toggles: 0,
    hands: 0,
    trims: true,
    single_primary: false,
    weakening: None,
};

/// Node 0 is the primary until node 1 is promoted.
const PROMOTED: Protocol =
    Protocol { seqs: 4, single_primary: true, second: Token::Own, trims: false, ..SHARED };

/// Nodes hand writes over, while a table goes and comes back.
const HANDED: Protocol =
    Protocol { seqs: 4, second: Token::Minted, trims: false, toggles: 2, hands: 1, unanswered: 0, ..SHARED };

fn checked(name: &str, protocol: Protocol) -> Checked<Action> {
    let checked = check(&protocol, MOST);
    println!("{name}: {} states, {} deep; {}", checked.states, checked.depth, checked.way());
    checked
}

/// All states were visited, all properties hold, and what was to be seen was seen.
fn holds(name: &str, protocol: Protocol) {
    let checked = checked(name, protocol);
    assert!(checked.broken.is_none(), "{name}: {}", checked.way());
    assert!(checked.complete, "{name}: {} states are not all", checked.states);
    assert!(checked.never.is_empty(), "{name}: never seen: {:?}", checked.never);
    assert!(checked.states > 10_000, "{name}: hardly anything can happen");
}

/// The property that a weakening breaks.
fn breaks(protocol: Protocol, weakening: Weakening) -> &'static str {
    let name = format!("{weakening:?}");
    match checked(&name, Protocol { weakening: Some(weakening), ..protocol }).broken {
        Some((property, _)) => property,
        None => panic!("nothing notices {name}"),
    }
}

#[test]
fn writers_share_a_log() {
    holds("shared", SHARED);
    holds("shared, all with tokens", Protocol { second: Token::Own, ..SHARED });
}

#[test]
fn nodes_die() {
    holds("shared, a node dies", Protocol { crashes: 1, ..SHARED });
}

#[test]
fn another_node_is_promoted() {
    holds("promoted", PROMOTED);
    holds("promoted, a node dies", Protocol { crashes: 1, ..PROMOTED });
}

#[test]
fn another_node_is_promoted_while_the_log_is_trimmed() {
    holds("promoted and trimmed", Protocol { trims: true, seqs: 3, second: Token::Minted, ..PROMOTED });
}

#[test]
fn writes_are_handed_over() {
    holds("handed over", HANDED);
    holds("handed over, promoted", Protocol { single_primary: true, ..HANDED });
}

#[test]
#[ignore = "a minute or so, optimised: larger bounds of the same"]
fn larger_bounds() {
    holds("two answers are lost", Protocol { second: Token::Own, unanswered: 2, ..SHARED });
    holds("with tokens, a node dies", Protocol { second: Token::Own, crashes: 1, ..SHARED });
    holds("three nodes, promoted", Protocol { nodes: 3, ..PROMOTED });
    holds("handed over, both with tokens of their own", Protocol { second: Token::Own, ..HANDED });
    holds("handed over, an answer is lost", Protocol { unanswered: 1, ..HANDED });
}

/// A node whose commit landed unheard may, once the log is trimmed there, read somebody's late create at that number: only
/// the floor tells it that this says nothing of its own.
#[test]
fn without_a_token_a_lost_answer_doubles_no_write() {
    let two_lost = Protocol { unanswered: 2, ..SHARED };
    let slow = Protocol { nodes: 3, ..SHARED };
    for (name, protocol) in [("two answers are lost", two_lost), ("a node is slow", slow)] {
        let checked = checked(name, protocol);
        assert!(checked.broken.is_none(), "{name}: {}", checked.way());
        for weakening in [Weakening::NoFloorCheckAfterLoss, Weakening::TriesAgainUntold] {
            assert_eq!(breaks(protocol, weakening), ONCE, "{name}, {weakening:?}");
        }
    }
}

#[test]
fn each_weakening_is_noticed() {
    let noticed = [
        (SHARED, Weakening::AckBeforeCreate, ACKED_IS_THERE),
        (SHARED, Weakening::ExistsIsLost, ONCE),
        (SHARED, Weakening::UnknownIsLost, ONCE),
        (SHARED, Weakening::UnknownIsRejected, NO_MEANS_NO),
        (SHARED, Weakening::UnknownIsCreated, ACKED_IS_THERE),
        (SHARED, Weakening::UnknownIsSkipped, ONE_HISTORY),
        (SHARED, Weakening::IdentityByWriter, ONE_HISTORY),
        (SHARED, Weakening::NoFloorCheckAfterCreate, ONE_HISTORY),
        (SHARED, Weakening::NoFloorCheckAfterReadBack, ONE_HISTORY),
        (SHARED, Weakening::NoFloorCheckInReader, ONE_HISTORY),
        (SHARED, Weakening::FloorCheckBeforeRead, ONE_HISTORY),
        (SHARED, Weakening::DeletesBeforeFloor, ONE_HISTORY),
        (SHARED, Weakening::SkipsHoles, GOES_ON),
        (SHARED, Weakening::NoTokenCheck, ONCE),
        (SHARED, Weakening::TokensNotInCheckpoint, ACKED_IS_THERE),
        (PROMOTED, Weakening::NoEpochCheck, FENCED),
        (PROMOTED, Weakening::RoleBesideState, FENCED),
        (Protocol { second: Token::None, ..HANDED }, Weakening::HandsOverWithoutToken, ONCE),
        (HANDED, Weakening::RejectsInDoubt, NO_MEANS_NO),
        (HANDED, Weakening::NoBarrier, NO_MEANS_NO),
        (HANDED, Weakening::RejectionEndsAllTries, NO_MEANS_NO),
    ];
    for (protocol, weakening, property) in noticed {
        assert_eq!(breaks(protocol, weakening), property, "{weakening:?}");
    }
}
