//! What a log means: a pure function of its commits.

use crate::protocol::{Protocol, Weakening};
use crate::state::{CLIENTS, Commit, What};

/// The state after some commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub epoch: u8,
    /// The primary, where there is one.
    pub primary: Option<u8>,
    /// How often each client's write is in force.
    pub times: [u8; CLIENTS],
    /// Where it is in force first; 0: nowhere.
    pub at: [u8; CLIENTS],
    /// Where it is in force, and its token is known; 0: nowhere.
    pub known: [u8; CLIENTS],
    /// Whose token is settled.
    pub settled: [bool; CLIENTS],
    /// The table is not there.
    pub closed: bool,
    /// A node that was not the primary has a write in force.
    pub fenced_wrote: bool,
}

/// Applies commits from the first on. Tokens of those up to `forgot` are not known.
pub fn fold(protocol: &Protocol, commits: &[Option<Commit>], forgot: u8) -> View {
    let mut view = View::default();
    if protocol.single_primary {
        (view.epoch, view.primary) = (1, Some(0));
    }
    for (seq, commit) in (1u8..).zip(commits) {
        // A hole ends the log.
        let Some(commit) = commit else { break };
        match commit.what {
            What::Promotion { epoch } if protocol.single_primary && epoch == view.epoch + 1 => {
                (view.epoch, view.primary) = (epoch, Some(commit.writer));
            }
            What::Promotion { .. } => {}
            What::Toggle => view.closed = !view.closed,
            What::Barrier { client } => view.settled[usize::from(client)] = true,
            What::Write { client, epoch } => {
                let c = usize::from(client);
                let fenced = protocol.single_primary && epoch != view.epoch;
                let fenced = fenced && !protocol.lacks(Weakening::NoEpochCheck);
                let settled = view.settled[c] && !protocol.lacks(Weakening::NoTokenCheck);
                if view.known[c] != 0 || settled || fenced || view.closed {
                    continue;
                }
                view.times[c] += 1;
                view.at[c] = if view.at[c] == 0 { seq } else { view.at[c] };
                if protocol.has_token(client) && seq > forgot && !protocol.lacks(Weakening::NoTokenCheck) {
                    view.known[c] = seq;
                }
                view.fenced_wrote |= view.primary.is_some_and(|primary| primary != commit.writer);
            }
        }
    }
    view
}
