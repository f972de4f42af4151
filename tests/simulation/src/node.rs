//! Nodes: processes that begin by recovery from the store, serve, and end at any moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{Either, select};
use tandem_collect::Collector;
use tandem_env::Env;
use tandem_format::Primary;
use tandem_log::{Log, WrittenCheckpoint};
use tandem_manifest::Manifest;
use tandem_types::{ErrorKind, Result, Seq};
use tandem_writer::{Feed, Role, Writer, WriterConfig};

use crate::life::Life;
use crate::store::env_of;
use crate::world::{World, event};

/// How often a node's keeper looks whether its process has ended.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Process {
    pub node: usize,
    pub life: Arc<Life>,
    pub env: Env,
    pub log: Log,
    pub writer: Writer,
    /// The newest one that it knows the parts of.
    pub checkpoint: Mutex<Option<WrittenCheckpoint>>,
    pub collector: tokio::sync::Mutex<Collector>,
    /// By the node that pushes.
    pub feeds: Mutex<BTreeMap<usize, Arc<Feed>>>,
}

#[derive(Debug)]
pub struct Cluster {
    pub world: Arc<World>,
    /// The process that serves at each node now.
    processes: Mutex<Vec<Option<Arc<Process>>>>,
    /// The process that is there, serving or beginning.
    lives: Mutex<Vec<Arc<Life>>>,
}

pub fn identity(node: usize) -> Primary {
    Primary { node_id: format!("n{node}"), address: format!("sim://n{node}") }
}

impl Cluster {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        let nodes = world.plan.nodes;
        let lives = (0..nodes).map(|_| Life::new(world.clock.clone(), 0)).collect();
        Arc::new(Self { world, processes: Mutex::new(vec![None; nodes]), lives: Mutex::new(lives) })
    }

    pub fn process(&self, node: usize) -> Option<Arc<Process>> {
        self.processes.lock().unwrap().get(node).cloned().flatten()
    }

    pub fn life(&self, node: usize) -> Arc<Life> {
        self.lives.lock().unwrap()[node].clone()
    }

    pub fn is_replica(&self, node: usize) -> bool {
        node + self.world.plan.replicas >= self.world.plan.nodes
    }

    /// Keeps a process at a node for the whole schedule.
    pub async fn keep(self: Arc<Self>, node: usize) {
        let world = self.world.clone();
        world.sleep(world.millis(0, 200)).await;
        for birth in 0.. {
            let skew = if world.plan.skews { skew(&world) } else { 0 };
            let life = Life::new(world.clock.clone(), skew);
            self.lives.lock().unwrap()[node] = life.clone();
            world.note(&[event::BIRTH, node as u64]);
            let opened = self.open(node, birth, life.clone());
            let killed = async {
                while !life.is_dead() {
                    world.sleep(LOOK).await;
                }
            };
            match select(Box::pin(opened), Box::pin(killed)).await {
                Either::Left((Ok(process), _)) => {
                    self.processes.lock().unwrap()[node] = Some(process.clone());
                    self.serve(&process);
                    while !life.is_dead() && process.writer.is_running() {
                        world.sleep(LOOK).await;
                    }
                    if !life.is_dead() {
                        self.stopped(node, &process);
                    }
                }
                Either::Left((Err(e), _)) => {
                    if e.kind() != ErrorKind::Unavailable {
                        world.blame("I17", format!("node {node} does not open: {e}"));
                    }
                }
                Either::Right(_) => {}
            }
            life.kill();
            self.processes.lock().unwrap()[node] = None;
            world.note(&[event::DEATH, node as u64]);
            let most = if world.is_calm() { 200 } else { 3000 };
            world.sleep(world.millis(50, most)).await;
        }
    }

    /// The store never damages the log here.
    fn stopped(&self, node: usize, process: &Process) {
        let why = process.writer.stopped().map_or_else(|| "without a word".to_owned(), |e| e.to_string());
        self.world.blame("I23", format!("node {node} stopped: {why}"));
    }

    async fn open(&self, node: usize, birth: u64, life: Arc<Life>) -> Result<Arc<Process>> {
        let world = &self.world;
        let salt =
            world.plan.seed.wrapping_mul(64).wrapping_add(node as u64).wrapping_mul(1000).wrapping_add(birth);
        let env = env_of(world, &life, node as u64, salt);
        let log = Log::open(env.clone()).await?;
        let head = world.head();
        let recovered = log.recover().await?;
        let state = recovered.manifest;
        world.check_state(node, &state, "recovered to");
        if state.seq() < head {
            world
                .blame("I4", format!("node {node} recovered to {}, the log had reached {head}", state.seq()));
        }
        let config = WriterConfig {
            poll: Duration::from_millis(1500),
            poll_min: Duration::from_millis(100),
            identity: Some(identity(node)),
            forward: self.world.plan.handover,
            ..WriterConfig::default()
        };
        let writer = Writer::start(log.clone(), state, config);
        world.writers().insert(writer.id(), identity(node).node_id);
        let checkpoint = Mutex::new(recovered.checkpoint);
        let (feeds, collector) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Process { node, life, env, log, writer, checkpoint, collector, feeds }))
    }

    fn serve(self: &Arc<Self>, process: &Arc<Process>) {
        tokio::spawn(self.clone().watch(process.clone()));
        tokio::spawn(self.clone().push(process.clone()));
        if self.world.plan.handover {
            tokio::spawn(crate::deputies::deputize(self.clone(), process.clone()));
        }
        if self.world.plan.upkeep {
            tokio::spawn(crate::upkeep::upkeep(self.world.clone(), process.clone()));
        }
        if self.world.plan.collects {
            tokio::spawn(crate::collect::collect(self.world.clone(), process.clone()));
            tokio::spawn(crate::collect::look_back(self.world.clone(), process.clone()));
        }
    }

    /// Looks at every state that a process shows, and gives it the role that follows.
    async fn watch(self: Arc<Self>, process: Arc<Process>) {
        let mut states = process.writer.watch();
        let mut last = Seq(0);
        while !process.life.is_dead() {
            let state = states.borrow_and_update().clone();
            if state.seq() < last {
                self.world
                    .blame("I6", format!("node {} went back from {last} to {}", process.node, state.seq()));
            }
            last = state.seq();
            self.world.check_state(process.node, &state, "shows");
            process.writer.set_role(role_of(&state, process.node, self.is_replica(process.node)));
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether all nodes serve, and show the same end of the log.
    pub fn is_at_rest(&self) -> bool {
        let head = self.world.head();
        let processes = self.processes.lock().unwrap();
        processes
            .iter()
            .all(|p| p.as_ref().is_some_and(|p| p.writer.is_running() && p.writer.state().seq() == head))
    }
}

fn role_of(state: &Manifest, node: usize, replica: bool) -> Role {
    let primary = state.primary().filter(|_| state.is_single_primary());
    match primary {
        Some(primary) if !replica && *primary == identity(node) => Role::Writer,
        Some(primary) => Role::Replica { writer: Some(primary.address.clone()) },
        None if replica => Role::Replica { writer: None },
        None => Role::Writer,
    }
}

/// A clock may be off by a little, or by years.
pub fn skew(world: &World) -> i64 {
    let most = [1_000_000, 5_000_000_000, 400_000_000_000_000][world.below(3) as usize];
    world.below(2 * most).cast_signed() - most.cast_signed()
}
