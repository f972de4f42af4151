//! Going along the log: as far as it goes, and on with what is committed.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use tandem_env::{Clock, SystemClock};
use tandem_manifest::Manifest;
use tandem_types::{Error, Seq};

use super::out::{Out, Stop};
use super::source::Source;

/// Commits whose headers are read at once.
pub(super) const RUN: usize = 256;

/// A reader hears at least this often how far the stream is, while it moves on without rows.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    On,
    End,
}

/// Something that tells commits, one after the other.
pub(super) trait Along: Send + Sync {
    fn source(&self) -> &Source;

    /// Of the stream.
    fn schema(&self) -> &SchemaRef;

    /// The commit that is told now.
    fn at(&self) -> Seq;

    /// The last commit that is told; `None`: for ever.
    fn to(&self) -> Option<Seq>;

    /// Whose changes they are, as it is said in errors.
    fn whose(&self) -> String;

    /// Tells some of the commits up to `last`, at least one. `newest` is a state that has applied it.
    fn tell_to(
        &mut self,
        newest: Arc<Manifest>,
        last: Seq,
        out: &mut Out,
    ) -> impl Future<Output = Result<Then, Stop>> + Send;
}

/// Goes to the end, or for ever.
pub(super) async fn run(walk: &mut impl Along, out: &mut Out) -> Result<(), Stop> {
    // Only who goes further than what is here has to wait.
    let mut states = match walk.to() {
        Some(to) if to <= walk.source().newest().seq() => None,
        _ => Some(walk.source().watch()?),
    };
    loop {
        if let Some(states) = &mut states {
            states.mark_unchanged();
        }
        let newest = walk.source().newest();
        let last = walk.to().map_or(newest.seq(), |to| to.min(newest.seq()));
        if walk.at() <= last {
            if walk.tell_to(newest, last, out).await? == Then::End {
                break;
            }
            if out.is_ahead() && out.silent() >= HEARTBEAT {
                out.beat().await?;
            }
            continue;
        }
        drop(newest);
        if walk.to().is_some_and(|to| walk.at() > to) {
            break;
        }
        let Some(states) = &mut states else { break };
        out.flush().await?;
        let wait = out.is_ahead().then(|| HEARTBEAT.saturating_sub(out.silent()));
        let beat = async {
            match wait {
                Some(wait) => SystemClock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = states.changed() => {
                changed.map_err(|_| Error::unavailable("the node is shutting down"))?;
            }
            () = out.closed() => return Err(Stop::Closed),
            () = beat => out.beat().await?,
        }
    }
    out.beat().await
}
