//! Deleting, and whoever it may hurt: nodes that collect, readers of the past, and tables that are brought back from it.

use std::sync::Arc;
use std::time::Duration;

use tandem_collect::Rules;
use tandem_manifest::{Manifest, Step};
use tandem_types::{ErrorKind, Result, Seq};

use crate::node::Process;
use crate::plan::Flavour;
use crate::truth::names;
use crate::world::{World, event};

/// Collects at random until the process ends, or the storm does.
pub async fn collect(world: Arc<World>, process: Arc<Process>) {
    let hard = world.plan.flavour == Flavour::Trimmed;
    while process.writer.is_running() && !process.life.is_dead() {
        let wait = world.millis(100, if hard { 600 } else { 4000 });
        process.env.clock.sleep(wait).await;
        if process.writer.role().is_replica() || world.is_calm() {
            continue;
        }
        // Whatever fails is tried again later.
        let done = match process.writer.state().setting("history_window") {
            None => keep_little(&world, &process).await,
            Some(_) => round(&world, &process).await,
        };
        match done {
            Err(e) if e.kind() == ErrorKind::Internal => {
                world.blame("I10", format!("the collector of node {}: {e}", process.node));
            }
            _ => {}
        }
    }
}

async fn keep_little(world: &World, process: &Process) -> Result<()> {
    let hard = world.plan.flavour == Flavour::Trimmed;
    let window = ["1us", "500ms", "3s"][if hard { 0 } else { world.below(3) as usize }];
    let settings = vec![("history_window".to_owned(), Some(window.to_owned()))];
    let state = process.writer.state();
    process.writer.submit_upkeep(state.seq(), vec![Step::SetSettings { settings }]).await.map(|_| ())
}

async fn round(world: &World, process: &Process) -> Result<()> {
    let hard = world.plan.flavour == Flavour::Trimmed;
    let job = Duration::from_millis(if hard { 0 } else { world.below(4000) });
    let rules = Rules { job, grace: Duration::ZERO };
    let mut collector = process.collector.lock().await;
    let state = process.writer.state();
    let aim = collector.aim(&process.log, &state, &rules, &[]).await?;
    if aim.moves {
        let step = Step::Horizon { horizon: aim.horizon, history_start: aim.history_start };
        process.writer.submit_upkeep(state.seq(), vec![step]).await?;
    }
    // Now or much later: what a state says may go stays so.
    let state = process.writer.state();
    let wait = world.millis(0, if world.below(4) == 0 { 4000 } else { 20 });
    process.env.clock.sleep(wait).await;
    collector.collect(&process.log, &state, &rules, &[]).await.map(|_| ())
}

/// Reads states of the past, and their objects, and brings tables back from there.
pub async fn look_back(world: Arc<World>, process: Arc<Process>) {
    while process.writer.is_running() && !process.life.is_dead() {
        let wait = world.millis(300, 3000);
        process.env.clock.sleep(wait).await;
        if world.is_calm() {
            return;
        }
        let state = process.writer.state();
        let span = state.seq().0 - state.history_start().0.min(state.seq().0);
        let seq = Seq(state.seq().0 - world.below(span + 1));
        world.note(&[event::LOOK_BACK, process.node as u64, seq.0]);
        let Ok(past) = look(&world, &process, seq, &state).await else { continue };
        if world.below(3) == 0 && !process.writer.role().is_replica() && !world.is_calm() {
            // Refused where its name is taken, or history was cut meanwhile.
            let _ = bring_back(&world, &process, &past).await;
        }
    }
}

async fn look(world: &World, process: &Process, seq: Seq, present: &Manifest) -> Result<Manifest> {
    let past = match process.log.state_at(seq, None).await {
        Ok(past) => past,
        Err(e) => {
            gone(world, process, seq, &e.to_string(), e.kind() == ErrorKind::Unavailable);
            return Err(e);
        }
    };
    world.check_state(process.node, &past, "looks back from its present to");
    let paths: Vec<String> = names(&past).collect();
    for path in paths {
        match process.env.store.get(&path).await {
            Ok(Some(_)) => {}
            Ok(None) => gone(world, process, seq, &format!("{path} is missing"), false),
            Err(e) => return Err(e),
        }
    }
    debug_assert!(present.seq() >= seq);
    Ok(past)
}

/// What cannot be read was allowed to go, or cannot be asked for now.
fn gone(world: &World, process: &Process, seq: Seq, why: &str, may_be_faults: bool) {
    let truth = world.truth();
    let start = truth.state(truth.head()).map_or(Seq(0), Manifest::history_start);
    drop(truth);
    let faults = may_be_faults && (world.plan.faults > 0 || seq < start);
    if seq >= start && !faults {
        let text =
            format!("node {} cannot read the state at {seq}, kept from {start} on: {why}", process.node);
        world.blame("I9", text);
    }
}

async fn bring_back(world: &World, process: &Process, past: &Manifest) -> Result<()> {
    let tables: Vec<_> = past.tables().collect();
    let Some(table) = tables.get(world.below(tables.len().max(1) as u64) as usize) else { return Ok(()) };
    let step = Step::RestoreTable { image: Box::new(table.image(past.seq())), name: None };
    let base = process.writer.state().seq();
    process.writer.submit_upkeep(base, vec![step]).await?;
    world.note(&[event::RESTORE, process.node as u64, past.seq().0]);
    Ok(())
}
