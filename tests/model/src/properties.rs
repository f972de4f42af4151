//! What must hold in every state, and what must be seen in some.

use crate::checker::Property;
use crate::fold::fold;
use crate::protocol::Protocol;
use crate::state::State;

pub const ACKED_IS_THERE: &str = "what was acknowledged is in force at its seq";
pub const ONCE: &str = "no write is in force twice";
pub const ONE_SEQ: &str = "every acknowledgement of a write names the same seq";
pub const ONE_HISTORY: &str = "every node has applied the log, and nothing else";
pub const NO_MEANS_NO: &str = "what was rejected is never in force";
pub const FENCED: &str = "nobody but the primary has a write in force";
pub const GOES_ON: &str = "no node finds two histories";

/// The properties of each protocol.
pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ACKED_IS_THERE, |protocol: &Protocol, state: &State| {
            let view = fold(protocol, &state.truth, 0);
            state.clients.iter().zip(view.at).all(|(client, at)| client.acked == 0 || client.acked == at)
        }),
        Property::always(ONCE, |protocol: &Protocol, state: &State| {
            fold(protocol, &state.truth, 0).times.iter().all(|times| *times <= 1)
        }),
        Property::always(ONE_SEQ, |_, state: &State| !state.clients.iter().any(|client| client.torn)),
        Property::always(ONE_HISTORY, |_, state: &State| {
            state.nodes.iter().all(|node| {
                let applied = node.applied.iter().zip(&state.truth);
                applied.take(node.seq()).all(|(applied, truth)| applied == truth)
            })
        }),
        Property::always(NO_MEANS_NO, |protocol: &Protocol, state: &State| {
            let view = fold(protocol, &state.truth, 0);
            state.clients.iter().zip(view.times).all(|(client, times)| !client.rejected || times == 0)
        }),
        Property::always(FENCED, |protocol: &Protocol, state: &State| {
            !fold(protocol, &state.truth, 0).fenced_wrote
        }),
        Property::always(GOES_ON, |_, state: &State| !state.nodes.iter().any(|node| node.stopped)),
        Property::sometimes("all writes are acknowledged", |protocol: &Protocol, state: &State| {
            state.clients.iter().take(usize::from(protocol.clients)).all(|client| client.acked != 0)
        }),
        Property::sometimes(
            "a write is acknowledged after somebody was told that nobody knows",
            |protocol: &Protocol, state: &State| {
                protocol.unanswered == 0
                    || state.clients.iter().any(|client| client.unknown && client.acked != 0)
            },
        ),
        Property::sometimes("the log was trimmed under a write", |protocol: &Protocol, state: &State| {
            !protocol.trims || state.reopened
        }),
        Property::sometimes(
            "a write is refused by a node that is not the primary any more",
            |protocol: &Protocol, state: &State| {
                !protocol.single_primary || state.clients.iter().any(|client| client.refused)
            },
        ),
        Property::sometimes("a write is rejected", |protocol: &Protocol, state: &State| {
            protocol.toggles == 0 || state.clients.iter().any(|client| client.rejected)
        }),
        Property::sometimes("a write was handed over", |protocol: &Protocol, state: &State| {
            protocol.hands == 0 || state.by_deputy
        }),
    ]
}
