//! What the deliberate mistakes of a simulation do here; see [`tandem_env::Mutant`].

use std::borrow::Cow;

use tandem_env::{Env, Mutant};
use tandem_format::CommitHeader;
use tandem_log::Commit;
use tandem_manifest::{Manifest, Step};
use tokio::sync::oneshot;

use crate::Committed;
use crate::feed::{Arrived, Early};
use crate::queue::{Admitted, Answer};

/// Answers a group before its commit is tried.
pub(crate) fn answer_early(group: &mut [Admitted], header: &CommitHeader) {
    for Admitted { request, .. } in group {
        let sections = request.intent.steps.iter().flat_map(Step::sections);
        let rows = sections.map(|section| section.rows).sum();
        let reply = std::mem::replace(&mut request.reply, oneshot::channel().0);
        // Whoever asked may be gone.
        let _ = reply.send(Ok(Answer::Committed(Committed { seq: header.seq, rows, duplicate: false })));
    }
}

/// A pushed commit whose turn it is not.
pub(crate) fn out_of_turn(env: &Env, early: &mut Early) -> Option<Arrived> {
    if env.mutant(Mutant::FeedOrderUnchecked) { early.first() } else { None }
}

/// A pushed commit, made to fit what it is applied to.
pub(crate) fn fitted<'a>(env: &Env, commit: &'a Commit, state: &Manifest) -> Cow<'a, Commit> {
    if !env.mutant(Mutant::FeedOrderUnchecked) && !env.mutant(Mutant::FeedChainUnchecked) {
        return Cow::Borrowed(commit);
    }
    let mut fitted = commit.clone();
    fitted.header.seq = state.seq().next();
    fitted.header.previous = state.header_hash();
    Cow::Owned(fitted)
}
