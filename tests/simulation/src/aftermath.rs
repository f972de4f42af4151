//! After the storm: everything is compared, once more from the store alone.

use std::sync::Arc;

use tandem_format::{Op, commit_path, encode_part, encode_root, part_path, root_path};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::life::Life;
use crate::node::Cluster;
use crate::plan::Flavour;
use crate::store::env_of;
use crate::truth::names;
use crate::world::World;

/// The number by which the trace names who looks at the end.
const AUDITOR: u64 = 99;

pub async fn check(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    for node in 0..world.plan.nodes {
        if let Some(process) = cluster.process(node) {
            world.check_state(node, &process.writer.state(), "ends at");
        }
    }
    if let Err(e) = audit(world).await {
        world.blame("I17", format!("the store cannot be read at the end: {e}"));
    }
    match world.plan.flavour {
        Flavour::Hole => hole(world).await,
        Flavour::ForeignRoot => foreign_root(world).await,
        Flavour::Usual | Flavour::Trimmed => {}
    }
}

async fn open(world: &Arc<World>) -> Result<Log> {
    let life = Life::new(world.clock.clone(), 0);
    Log::open(env_of(world, &life, AUDITOR, world.plan.seed ^ 0x61_7564)).await
}

async fn audit(world: &Arc<World>) -> Result<()> {
    let log = open(world).await?;
    let mut head = world.head();
    let mut state = log.recover().await?.manifest;
    // What a node had begun may still come.
    while world.head() > head {
        head = world.head();
        state = log.recover().await?.manifest;
    }
    if state.seq() != head {
        world.blame("I4", format!("the log is read up to {}, and goes to {head}", state.seq()));
    }
    world.check_state(AUDITOR as usize, &state, "recovers at the end to");
    let agrees = world.truth().naive.agrees(&state);
    if let Err((name, text)) = agrees {
        world.blame(name, text);
    }
    let recorded: Vec<(Seq, [u8; 32])> = {
        let truth = world.truth();
        let limit = state.history_start().min(state.horizon());
        let commits = (1..=head.0).filter_map(|seq| truth.commit(Seq(seq)));
        let ops = commits.flat_map(|c| c.commit.header.transactions.iter().flat_map(|t| &t.ops));
        let mut recorded: Vec<_> = ops
            .filter_map(|op| match op {
                Op::Checkpoint { seq, root_hash } => Some((*seq, *root_hash)),
                _ => None,
            })
            .collect();
        // The newest one at or before the beginning of history, and all from there on.
        let first = recorded.iter().rposition(|(seq, _)| *seq <= limit).unwrap_or(0);
        recorded.split_off(first)
    };
    for (path, seq) in kept_objects(world) {
        if !world.objects().contains_key(&path) {
            world.blame("I9", format!("{path}, which the state at {seq} names, is gone in the end"));
        }
    }
    for (seq, root_hash) in recorded {
        match log.load_checkpoint(seq).await {
            Ok((state, hash)) if hash == root_hash => {
                world.check_state(AUDITOR as usize, &state, "has a checkpoint at");
            }
            Ok(_) => world.blame("I17", format!("the checkpoint at {seq} is another one than was recorded")),
            Err(e) => {
                world.blame("I17", format!("the checkpoint at {seq} was recorded, and is unusable: {e}"))
            }
        }
    }
    Ok(())
}

/// What the snapshots name that are kept.
fn kept_objects(world: &World) -> Vec<(String, Seq)> {
    let truth = world.truth();
    let head = truth.head();
    let Some(start) = truth.state(head).map(Manifest::history_start) else { return Vec::new() };
    let kept = (start.0..=head.0).filter_map(|seq| truth.state(Seq(seq)));
    kept.flat_map(|state| names(state).map(|path| (path, state.seq()))).collect()
}

/// An object of the log is gone: whoever starts now must not take what is before it for all.
async fn hole(world: &Arc<World>) {
    let head = world.head();
    let back = 1 + world.below(6);
    if head.0 <= back || head.0 - back <= world.floor().0 {
        return;
    }
    world.objects().remove(&commit_path(Seq(head.0 - back)));
    let recovered = match open(world).await {
        Ok(log) => log.recover().await,
        Err(e) => Err(e),
    };
    match recovered {
        // From a checkpoint behind the hole.
        Ok(recovered) if recovered.manifest.seq() == head => {}
        Ok(recovered) => {
            let seq = recovered.manifest.seq();
            world.blame("I4", format!("commit {} is gone, and a node opens at {seq}", head.0 - back));
        }
        Err(e) if e.kind() == ErrorKind::Damaged => {}
        Err(e) => world.blame("I22", format!("commit {} is gone, and a node says: {e}", head.0 - back)),
    }
}

/// A checkpoint with a wrong state, well made, that nobody recorded.
async fn foreign_root(world: &Arc<World>) {
    let Some((seq, root, parts)) = forge(world) else { return };
    {
        let mut objects = world.objects();
        if objects.contains_key(&root_path(seq)) {
            return;
        }
        objects.insert(root_path(seq), root);
        objects.extend(parts);
    }
    let recovered = match open(world).await {
        Ok(log) => log.recover().await,
        Err(e) => Err(e),
    };
    match recovered {
        Ok(recovered) => {
            world.check_state(
                AUDITOR as usize,
                &recovered.manifest,
                "recovers beside a foreign checkpoint to",
            );
        }
        Err(e) => world.blame("I17", format!("a checkpoint that nobody recorded stops a node: {e}")),
    }
}

type Object = (String, bytes::Bytes);

fn forge(world: &World) -> Option<(Seq, bytes::Bytes, Vec<Object>)> {
    let truth = world.truth();
    let seq = Seq(truth.head().0.checked_sub(1).filter(|seq| *seq > 0)?);
    let (before, commit) = (truth.state(Seq(seq.0 - 1))?, truth.commit(seq)?);
    let mut header = commit.commit.header.clone();
    header.transactions.clear();
    // The chain is whole, and the rows are not.
    let state: Manifest = before.apply(&header, commit.commit.hash).ok()?.manifest;
    let made = || -> Result<_, Error> {
        let (mut refs, mut parts) = (Vec::new(), Vec::new());
        for entries in state.checkpoint_parts() {
            let (bytes, part) = encode_part(seq, &entries)?;
            parts.push((part_path(part.base, &part.hash), bytes));
            refs.push(part);
        }
        let (root, _) = encode_root(&state.checkpoint_root(refs))?;
        Ok((seq, root, parts))
    };
    made().ok()
}
