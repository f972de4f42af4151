//! The commit protocol of DESIGN sections 4 and 8 as a small model: every state of it is visited, whatever the order in
//! which requests reach the store, answers are lost, nodes die, and the log is trimmed.
//!
//! What this crate promises:
//!
//! - Where the protocol is whole, no state of the bounded model breaks a property of [`Protocol`].
//! - Each [`Weakening`] of it breaks one, so the checks can find something.
//!
//! One step of the model is one request to the store, or one thing said between a client and a node; what a node
//! decides by itself happens with the request that follows. The code that each action stands for:
//!
//! | action | code |
//! | --- | --- |
//! | [`Action::Send`] | `Writer::send`: refused where the state does not name this node as one that writes; then `CommitTask::gather` |
//! | [`Action::Create`], [`Action::CreateUnanswered`] | `CommitTask::commit`: `attempt` stamps the epoch, calls `tandem_manifest::rebase` and adds the barrier of a group in doubt, `propose` makes the commit, `Log::append` sends `Store::create` |
//! | [`Action::Land`] | the store: a request that nobody waits for any more takes effect |
//! | [`Action::ReadBack`] | the first half of `Log::settle`: `Log::read` at the same seq, commit ids compared |
//! | [`Action::ReadFloor`] | `Log::floor`, as `Log::created`, the second half of `Log::settle`, and `Log::check_floor` ask for it |
//! | [`Action::GiveUp`] | `Log::append` after `RESOLVE_FOR`: `Appended::Unknown` |
//! | [`Action::ReadNext`] | `CommitTask::catch_up` and `CommitTask::look`: the first half of `Log::read_run_stored`; `Manifest::apply` follows the floor |
//! | [`Action::Push`] | `Feed::offer`, then `CommitTask::apply_news` |
//! | [`Action::Promote`] | `Step::Promote` as upkeep: a promotion by force |
//! | [`Action::Notice`] | only where the role is weakened to something kept apart from the state: `Writer::set_role` |
//! | [`Action::HandOver`], [`Action::Deliver`] | `CommitTask::hand_over`, and `Writer::submit_handed` on the other node; the answer is `CommitTask::settle` |
//! | [`Action::Doubt`] | `CommitTask::hand_over` without an answer: `Group::doubt` |
//! | [`Action::Toggle`] | any statement that decides whether a write can be committed: DROP TABLE, and CREATE TABLE after it |
//! | [`Action::Crash`] | kill -9 and a new process: `Log::recover`, from a checkpoint |
//! | [`Action::RaiseFloor`], [`Action::Delete`] | the collector of DESIGN section 7: `log/floor/k` is created, then log objects at or below it are deleted |
//!
//! What a client makes of a rejection is in the model as well: it is the last word on a write only while no other try of it
//! may still be carried out.
//!
//! What an applied log means ([`fold`]) is `Manifest::apply`: tokens first, then the epoch. A node whose log was trimmed
//! under it takes its state from a checkpoint, as after [`Action::Crash`], and keeps what it has in hand
//! (`CommitTask::start_over`); but what it has sent to a number that was trimmed since (`Appended::Reopened`) it tries again only
//! under a token.
//!
//! It refuses to know payloads, groups of more than one transaction, schemas and clocks.

mod checker;
mod fold;
mod properties;
mod protocol;
mod state;
mod steps;

pub use checker::{Checked, Expectation, Model, Property, check};
pub use fold::{View, fold};
pub use properties::{ACKED_IS_THERE, FENCED, GOES_ON, NO_MEANS_NO, ONCE, ONE_HISTORY, ONE_SEQ};
pub use protocol::{Action, Protocol, Token, Weakening};
pub use state::{CLIENTS, Client, Commit, LATE, NODES, Node, Phase, Places, Request, SEQS, State, What};
