//! Hand-over between nodes, over a network that loses what is sent, loses what is answered, and carries false answers.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tandem_manifest::{Manifest, Step};
use tandem_types::{Error, Result};
use tandem_writer::{Committed, Deputy, Handed, HandedAnswer};
use tokio::sync::oneshot;

use crate::node::{Cluster, Process, identity};
use crate::world::event;

/// How often a node looks whether it has the right deputy.
const LOOK: Duration = Duration::from_millis(400);

/// A way from one process to another node.
#[derive(Debug)]
struct Link {
    cluster: Arc<Cluster>,
    from: Arc<Process>,
    to: usize,
}

impl Deputy for Link {
    fn submit(&self, handed: Vec<Handed>) -> BoxFuture<'static, Result<Vec<HandedAnswer>>> {
        let (tell, told) = oneshot::channel();
        let life = self.from.life.clone();
        // On its way it goes on, whatever becomes of who sent it.
        tokio::spawn(deliver(self.cluster.clone(), self.from.node, self.to, handed, tell));
        async move {
            // Half of what gets lost is noticed at once.
            let answer = match told.await {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            };
            life.pass().await;
            answer
        }
        .boxed()
    }
}

async fn deliver(
    cluster: Arc<Cluster>,
    from: usize,
    to: usize,
    mut handed: Vec<Handed>,
    tell: oneshot::Sender<Result<Vec<HandedAnswer>>>,
) {
    let world = &cluster.world;
    let lossy = |share: u64| !world.is_calm() && world.share(share);
    let lost = || Err(Error::unavailable("the connection was lost"));
    let late = lossy(world.plan.lossy);
    world.sleep(if late { world.millis(1, 4000) } else { world.millis(1, 8) }).await;
    world.note(&[event::HANDED, from as u64, to as u64, handed.len() as u64]);
    if lossy(world.plan.lossy / 2) {
        if world.below(2) == 0 {
            let _ = tell.send(lost());
        }
        return;
    }
    if lossy(world.plan.forged) {
        let _ = tell.send(Ok(handed.iter().map(|h| invented(&cluster, h)).collect()));
        return;
    }
    let Some(process) = cluster.process(to) else {
        let _ = tell.send(lost());
        return;
    };
    process.life.pass().await;
    for handed in &mut handed {
        let sections = handed.intent.steps.iter().map(|step| match step {
            Step::Append(append) => append.sections.len(),
            _ => 0,
        });
        handed.bodies.resize(sections.sum(), Vec::new());
    }
    let answer = process.writer.submit_handed(handed).await;
    process.life.pass().await;
    world.note(&[event::HANDED_BACK, from as u64, to as u64, u64::from(answer.is_ok())]);
    world.sleep(world.millis(1, 8)).await;
    let answer = if lossy(world.plan.lossy / 2) { lost() } else { answer };
    // Whoever asked may be gone.
    let _ = tell.send(answer);
}

/// A success that never was.
fn invented(cluster: &Cluster, handed: &Handed) -> HandedAnswer {
    let sections = handed.intent.steps.iter().flat_map(|step| match step {
        Step::Append(append) => append.sections.as_slice(),
        _ => &[],
    });
    let rows: u64 = sections.map(|section| section.rows).sum();
    match rows {
        // There a deputy is believed, as it is in refusals: it must not lie.
        0 => HandedAnswer::Refused(Error::not_writer("no writer").with_seq(cluster.world.head())),
        rows => HandedAnswer::Committed(Committed { seq: cluster.world.head(), rows, duplicate: false }),
    }
}

/// Sees to it that a process has the deputy that the log names, and takes the lease where one is wanted.
pub async fn deputize(cluster: Arc<Cluster>, process: Arc<Process>) {
    let world = &cluster.world;
    let mut states = process.writer.watch();
    let mut contention = process.writer.watch_contention();
    let mut present = None;
    process.writer.set_deputy(None);
    while process.writer.is_running() {
        process.life.pass().await;
        let state = states.borrow_and_update().clone();
        let contended = *contention.borrow_and_update();
        let to = deputy_of(&cluster, &state, process.node);
        if to != present {
            let link = |to| Arc::new(Link { cluster: cluster.clone(), from: process.clone(), to });
            process.writer.set_deputy(to.map(|to| link(to) as Arc<dyn Deputy>));
            present = to;
        }
        let vacant = to.is_none_or(|to| cluster.process(to).is_none());
        if contended && vacant && !state.is_single_primary() && !process.writer.role().is_replica() {
            let (me, term) = (identity(process.node), state.lease().map_or(1, |lease| lease.term + 1));
            let step = Step::Lease { holder: me.node_id, address: me.address, term };
            // Where somebody else was quicker, that one has it.
            let _ = process.writer.submit_upkeep(state.seq(), vec![step]).await;
        }
        let news = select(Box::pin(states.changed()), Box::pin(contention.changed()));
        if let Either::Left((Either::Left((Err(_), _)), _)) =
            select(Box::pin(news), Box::pin(world.clock_sleep(LOOK))).await
        {
            return;
        }
    }
}

/// Who commits for a node, by the log.
fn deputy_of(cluster: &Cluster, state: &Manifest, node: usize) -> Option<usize> {
    let number = |id: &str| id.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
    let named = match state.primary().filter(|_| state.is_single_primary()) {
        Some(primary) => number(&primary.node_id),
        None => state.lease().and_then(|lease| number(&lease.holder)),
    };
    // A replica forwards to whoever writes.
    let named = named.or_else(|| cluster.is_replica(node).then_some(0));
    named.filter(|to| *to != node)
}
