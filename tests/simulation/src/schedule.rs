//! One schedule from its first to its last step.

use std::sync::Arc;
use std::time::Duration;

use tandem_env::Mutant;
use tandem_format::Primary;
use tandem_manifest::Step;

use crate::aftermath;
use crate::client::{CALM, client};
use crate::node::{Cluster, Process, identity, skew};
use crate::plan::Plan;
use crate::store::within;
use crate::world::{Violation, World, event};

/// For how long nodes and the network misbehave.
const STORM: u64 = 12_000;

/// What became of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    pub violation: Option<Violation>,
    /// Of everything that happened, in its order and at its time.
    pub fingerprint: u64,
    pub steps: u64,
    pub commits: u64,
    /// Processes that began, and that were killed.
    pub births: u64,
    pub kills: u64,
    /// Commits that were pushed from node to node.
    pub pushes: u64,
    /// Groups of transactions that were handed from node to node.
    pub handed: u64,
    /// Answers that clients were given.
    pub answers: u64,
    /// Objects that were deleted, floors that were raised, looks into the past, and tables that were brought back from it.
    pub deleted: u64,
    pub trims: u64,
    pub looks_back: u64,
    pub restores: u64,
    /// Store calls that could have gone wrong.
    pub calls: u64,
}

/// Plays the schedule of a seed, with a deliberate mistake in the protocol or without.
pub fn play(seed: u64, mutant: Option<Mutant>) -> Played {
    play_plan(Plan::of(seed), mutant)
}

pub fn play_plan(plan: Plan, mutant: Option<Mutant>) -> Played {
    let world = World::new(plan, mutant);
    let clock = world.clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            clock.jump();
        })
        .build()
        .unwrap();
    let whole = runtime.spawn(run(world.clone()));
    runtime.block_on(async {
        if let Err(e) = whole.await {
            world.blame("I25", format!("a panic: {e}"));
        }
    });
    let counts = world.counts();
    let count = |event: u64| counts.get(event as usize).copied().unwrap_or_default();
    Played {
        violation: world.violation(),
        fingerprint: world.fingerprint(),
        steps: world.steps(),
        commits: world.head().0,
        births: count(event::BIRTH),
        kills: count(event::KILL),
        pushes: count(event::PUSH),
        handed: count(event::HANDED),
        answers: count(event::ANSWER),
        deleted: count(event::DELETE),
        trims: count(event::TRIM),
        looks_back: count(event::LOOK_BACK),
        restores: count(event::RESTORE),
        calls: world.calls(),
    }
}

async fn run(world: Arc<World>) {
    let cluster = Cluster::new(world.clone());
    for node in 0..world.plan.nodes {
        tokio::spawn(cluster.clone().keep(node));
    }
    let clients: Vec<_> =
        (0..world.plan.clients).map(|n| tokio::spawn(client(cluster.clone(), n as u64))).collect();
    let script = world.plan.script.map(|script| tokio::spawn(crate::scripts::run(cluster.clone(), script)));
    let mut work = Box::pin(futures::future::join_all(clients.into_iter().chain(script)));
    let weather = [
        tokio::spawn(crashes(cluster.clone())),
        tokio::spawn(pauses(cluster.clone())),
        tokio::spawn(promotions(cluster.clone())),
    ];
    let all_done = within(&world, Duration::from_millis(STORM), &mut work).await.is_some();
    for task in weather {
        let _ = task.await;
    }
    world.calm_down();
    if !all_done && within(&world, CALM, work).await.is_none() {
        world.blame("I23", "clients get no answer although everything works".to_owned());
    }
    for _ in 0..200 {
        if world.violation().is_some() {
            return;
        }
        if cluster.is_at_rest() {
            // Whatever was still under way has arrived.
            world.sleep(Duration::from_secs(4)).await;
            aftermath::check(&cluster).await;
            return;
        }
        world.sleep(Duration::from_millis(500)).await;
    }
    world.blame("I23", "nodes do not come to rest although everything works".to_owned());
}

async fn somewhen(world: &World) {
    world.sleep(world.millis(100, STORM / 2)).await;
}

async fn crashes(cluster: Arc<Cluster>) {
    for _ in 0..cluster.world.plan.crashes {
        somewhen(&cluster.world).await;
        if cluster.world.is_calm() {
            return;
        }
        let node = cluster.world.below(cluster.world.plan.nodes as u64) as usize;
        cluster.world.note(&[event::KILL, node as u64]);
        cluster.life(node).kill();
    }
}

async fn pauses(cluster: Arc<Cluster>) {
    let world = &cluster.world;
    for _ in 0..world.plan.pauses {
        somewhen(world).await;
        if world.is_calm() {
            return;
        }
        let life = cluster.life(world.below(world.plan.nodes as u64) as usize);
        life.pause(world.millis(100, 8000));
        world.note(&[event::PAUSE]);
        if world.plan.skews {
            life.set_skew(skew(world));
        }
    }
}

/// Moves the role of the primary, or gives it to all.
async fn promotions(cluster: Arc<Cluster>) {
    let world = &cluster.world;
    for _ in 0..world.plan.promotions {
        somewhen(world).await;
        let node = world.below(world.plan.nodes as u64) as usize;
        let Some(process) = cluster.process(node) else { continue };
        let writers = world.plan.nodes - world.plan.replicas;
        let to = world.below(writers as u64) as usize;
        let all = world.below(4) == 0;
        tokio::spawn(promote(process, (!all).then(|| identity(to))));
    }
}

pub async fn promote(process: Arc<Process>, primary: Option<Primary>) {
    process.life.pass().await;
    let state = process.writer.state();
    let mode = if primary.is_some() { "single-primary" } else { "multi-primary" };
    let settings = vec![("mode".to_owned(), Some(mode.to_owned()))];
    let epoch = state.epoch().next();
    let steps = vec![Step::SetSettings { settings }, Step::Promote { epoch, primary }];
    // Where somebody else was quicker, that one is the primary.
    let _ = process.writer.submit_upkeep(state.seq(), steps).await;
}
