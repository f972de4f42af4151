//! Three scenarios that always go alike, but for the one store call that goes wrong.

use std::sync::Arc;
use std::time::Duration;

use tandem_manifest::SchemaPolicy;
use tandem_types::TableName;

use crate::client::{Alteration, What, Write, settle};
use crate::node::{Cluster, identity};
use crate::schedule::promote;
use crate::upkeep::{checkpoint, compact};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Two nodes write, change a table, compact and checkpoint at once.
    Ingest,
    /// A primary ends, another node takes over, and the first one comes back.
    FailOver,
    /// A node begins while others go on: from a checkpoint, and again after it was ended.
    CatchUp,
}

/// What befalls the one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    FailBefore,
    /// It is done, and its answer is lost.
    FailAfter,
    /// "Exists", and nothing is done. An error where nothing is created.
    Conflict,
    /// It times out, and is done later.
    TimeOut,
    /// Its process ends before it is sent.
    CrashBefore,
    /// Its process ends before the answer comes.
    CrashAfter,
    /// Its process stands still for longer than others wait for it.
    Pause,
}

impl Way {
    pub const ALL: [Self; 7] = [
        Self::FailBefore,
        Self::FailAfter,
        Self::Conflict,
        Self::TimeOut,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Pause,
    ];
}

fn append(number: u64, table: &str) -> Arc<Write> {
    let what = What::Append { table: TableName::public(table), policy: SchemaPolicy::Create, extra: None };
    Arc::new(Write::new(number, 1 + number % 4, what, true))
}

fn alter(number: u64, alteration: Alteration) -> Arc<Write> {
    Arc::new(Write::new(number, 0, What::Alter(alteration), true))
}

/// Writes one after the other.
async fn writes(cluster: &Arc<Cluster>, numbers: std::ops::Range<u64>, table: &str) {
    for number in numbers {
        settle(cluster, append(number, table)).await;
    }
}

/// A piece of upkeep at a node, tried until it is done or there is nothing to do.
async fn upkeep(cluster: &Arc<Cluster>, node: usize, compacts: bool) {
    for _ in 0..20 {
        if let Some(process) = cluster.process(node) {
            let world = &cluster.world;
            let work = async {
                match compacts {
                    true => compact(world, &process).await,
                    false => checkpoint(&process).await,
                }
            };
            // A process that ends takes its upkeep with it.
            if crate::store::within(world, Duration::from_secs(10), work)
                .await
                .is_some_and(|done| done.is_ok())
            {
                return;
            }
        }
        cluster.world.sleep(Duration::from_millis(300)).await;
    }
}

async fn becomes_primary(cluster: &Arc<Cluster>, node: usize) {
    for _ in 0..20 {
        if let Some(process) = cluster.process(node) {
            let work = promote(process.clone(), Some(identity(node)));
            crate::store::within(&cluster.world, Duration::from_secs(10), work).await;
            let state = process.writer.state();
            if state.is_single_primary() && state.primary() == Some(&identity(node)) {
                return;
            }
        }
        cluster.world.sleep(Duration::from_millis(300)).await;
    }
}

/// Plays a script to its end, where everything that was asked is answered.
pub async fn run(cluster: Arc<Cluster>, script: Script) {
    let world = &cluster.world;
    match script {
        Script::Ingest => {
            let columns = |number, name| {
                settle_owned(
                    cluster.clone(),
                    alter(number, Alteration::AddColumn { table: TableName::public("a"), name }),
                )
            };
            futures::join!(writes(&cluster, 1..4, "a"), writes(&cluster, 10..13, "a"));
            futures::join!(
                upkeep(&cluster, 0, true),
                upkeep(&cluster, 1, true),
                columns(20, "x"),
                columns(21, "x"),
                writes(&cluster, 30..32, "b"),
            );
            futures::join!(
                upkeep(&cluster, 0, false),
                upkeep(&cluster, 1, false),
                writes(&cluster, 40..42, "a")
            );
            upkeep(&cluster, 1, true).await;
        }
        Script::FailOver => {
            writes(&cluster, 1..2, "a").await;
            becomes_primary(&cluster, 0).await;
            let clients = async {
                futures::join!(writes(&cluster, 10..14, "a"), writes(&cluster, 20..24, "a"));
            };
            let falls = async {
                world.sleep(Duration::from_millis(60)).await;
                cluster.life(0).kill();
                world.sleep(Duration::from_millis(40)).await;
                becomes_primary(&cluster, 1).await;
            };
            futures::join!(clients, falls);
            writes(&cluster, 30..32, "a").await;
        }
        Script::CatchUp => {
            writes(&cluster, 1..4, "a").await;
            upkeep(&cluster, 0, false).await;
            writes(&cluster, 4..6, "a").await;
            upkeep(&cluster, 0, true).await;
            let follows = async {
                cluster.life(2).kill();
                world.sleep(Duration::from_millis(700)).await;
                cluster.life(2).kill();
            };
            futures::join!(follows, writes(&cluster, 10..13, "a"), upkeep(&cluster, 1, false));
            writes(&cluster, 20..21, "a").await;
        }
    }
}

async fn settle_owned(cluster: Arc<Cluster>, write: Arc<Write>) {
    settle(&cluster, write).await;
}
