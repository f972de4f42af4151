//! Nodes that follow each other over Flight.

use std::path::Path;
use std::time::{Duration, Instant};

use tandem_env::Env;
use tandem_flight::{FlightConfig, NodeInfo, serve};
use tandem_manifest::Step;
use tandem_node::{Node, NodeConfig, Upstream};
use tandem_sql::{Ack, Receipt, WriteOptions};
use tandem_types::{ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A node that is heard and hears others.
pub struct Member {
    pub url: String,
    pub node: Node,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

impl Member {
    async fn start(store: &Path, node_id: &str, replica: bool, upstream: Upstream) -> Self {
        Self::start_with(store, node_id, |config| NodeConfig { replica, upstream, ..config }).await
    }

    pub async fn start_with(
        store: &Path,
        node_id: &str,
        change: impl FnOnce(NodeConfig) -> NodeConfig,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        let config = NodeConfig {
            node_id: node_id.to_owned(),
            advertise: Some(url.clone()),
            heartbeat: Some(Duration::from_millis(200)),
            upkeep: false,
            ..NodeConfig::default()
        };
        let config = change(config);
        let env = Env::open(store.to_str().unwrap(), &[]).unwrap();
        let node = Node::open(env, config).await.unwrap();
        let info = NodeInfo {
            node_id: node_id.to_owned(),
            status: node.status(),
            tail: Some(node.tail()),
            submit: Some(node.submit()),
        };
        let (stop, stopped) = oneshot::channel();
        let engine = node.engine().clone();
        let serving = tokio::spawn(serve(listener, engine, info, FlightConfig::default(), async {
            let _ = stopped.await;
        }));
        Self { url, node, stop, serving }
    }

    fn status(&self, field: &str) -> u64 {
        (self.node.status())()[field].as_u64().unwrap()
    }

    /// Commits something small.
    pub async fn commit(&self, name: &str) -> Result<Receipt> {
        let step = Step::CreateSchema { name: name.to_owned(), if_not_exists: true };
        let base = self.node.state().seq();
        self.node.engine().database().submit(base, vec![step], WriteOptions::default()).await
    }

    pub async fn follows(&self, feeds: u64) {
        for _ in 0..600 {
            if self.status("feeds") >= feeds {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} follows {} of {feeds}", self.url, self.status("feeds"));
    }

    pub async fn reaches(&self, other: &Self) {
        let goal = other.node.state().seq();
        for _ in 0..5000 {
            if self.node.state().seq() >= goal {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} stays at {} before {goal}", self.url, self.node.state().seq());
    }

    pub async fn end(self) {
        self.node.dismiss_followers();
        self.stop.send(()).unwrap();
        let started = Instant::now();
        self.serving.await.unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "followers keep no listener open");
        self.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_and_its_replica_follow_within_milliseconds() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Member::start(dir.path(), "w", false, Upstream::Found).await;
    writer.commit("before").await.unwrap();
    let first = Member::start(dir.path(), "r1", true, Upstream::Found).await;
    let second = Member::start(dir.path(), "r2", true, Upstream::Addresses(vec![first.url.clone()])).await;
    first.follows(1).await;
    second.follows(1).await;

    let mut lags = Vec::new();
    for n in 0..50 {
        writer.commit(&format!("s{n}")).await.unwrap();
        let acked = Instant::now();
        second.reaches(&writer).await;
        lags.push(acked.elapsed());
        first.reaches(&writer).await;
    }
    lags.sort();
    println!("two hops: p50 {:?}, max {:?}", lags[25], lags[49]);
    // Polling alone would take 25 ms on average at its quickest, and two hops of it twice that.
    assert!(lags[25] < Duration::from_millis(25), "{lags:?}");
    let digests = [&writer, &first, &second].map(|member| member.node.state().digest());
    assert!(digests.iter().all(|digest| *digest == digests[0]));

    let error = second.commit("refused").await.unwrap_err();
    assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some(writer.url.as_str())));

    // Both count for a quorum, the second through the first.
    let step = Step::CreateSchema { name: "both".to_owned(), if_not_exists: false };
    let options = WriteOptions { ack: Some(Ack::Quorum(2)), ..WriteOptions::default() };
    let base = writer.node.state().seq();
    let receipt = writer.node.engine().database().submit(base, vec![step], options).await.unwrap();
    assert!(second.node.state().seq() >= receipt.seq && first.node.state().seq() >= receipt.seq);

    // Cut off, the second reads the store.
    first.end().await;
    writer.commit("after").await.unwrap();
    second.reaches(&writer).await;
    assert_eq!(second.node.state().digest(), writer.node.state().digest());
    second.end().await;
    writer.end().await;
    assert_eq!(std::fs::read_dir(dir.path().join("nodes")).unwrap().count(), 0, "who ends falls silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let a = Member::start(dir.path(), "a", false, Upstream::Found).await;
    let b = Member::start(dir.path(), "b", false, Upstream::Found).await;
    a.follows(1).await;
    b.follows(1).await;
    for n in 0..20 {
        a.commit(&format!("a{n}")).await.unwrap();
        b.reaches(&a).await;
        b.commit(&format!("b{n}")).await.unwrap();
        a.reaches(&b).await;
    }
    let both = (0..20).map(|n| {
        let (a, b) = (&a, &b);
        async move {
            let (one, other) = (format!("x{n}"), format!("y{n}"));
            let (one, other) = tokio::join!(a.commit(&one), b.commit(&other));
            one.and(other)
        }
    });
    futures::future::try_join_all(both).await.unwrap();
    a.reaches(&b).await;
    b.reaches(&a).await;
    assert_eq!(a.node.state().digest(), b.node.state().digest());
    assert_eq!(a.node.state().schemas().count(), 81, "all of them, and public");
    a.end().await;
    b.end().await;
}
