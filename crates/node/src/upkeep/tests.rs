//! A node that ends while a job of upkeep runs.

use std::time::Duration;

use tandem_env::{Clock, Env, SystemClock, within};
use tandem_types::{ErrorKind, Result};
use tokio::sync::oneshot;

use crate::{Node, NodeConfig};

/// Longer than any shutdown may take here.
const SOON: Duration = Duration::from_secs(20);

async fn node(dir: &tempfile::TempDir) -> Node {
    let env = Env::open(dir.path().to_str().unwrap(), &[]).unwrap();
    Node::open(env, NodeConfig { upkeep: false, ..NodeConfig::default() }).await.unwrap()
}

#[tokio::test]
async fn a_job_that_waits_is_left_when_the_node_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let shared = node.shared.clone();
    let (begun, begins) = oneshot::channel();
    let job = tokio::spawn(async move {
        let _turn = shared.upkeep.lock().await;
        begun.send(()).unwrap();
        shared.aside(std::future::pending::<Result<()>>()).await
    });
    begins.await.unwrap();
    let began = SystemClock.monotonic();
    within(&SystemClock, SOON, node.shutdown()).await.expect("the job is waited for");
    assert!(SystemClock.monotonic() - began < crate::LEFT_WITHIN, "it gave way at once");
    assert_eq!(job.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_only_computes_keeps_no_node_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let shared = node.shared.clone();
    let (begun, begins) = oneshot::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let job = tokio::spawn(async move {
        let _turn = shared.upkeep.lock().await;
        let computes = async move {
            begun.send(()).unwrap();
            Ok(ends.recv().is_ok())
        };
        shared.aside(computes).await
    });
    begins.await.unwrap();
    within(&SystemClock, SOON, node.shutdown()).await.expect("the job is waited for");
    assert!(!job.is_finished());
    // A runtime in which a thread still computes would not end with this test.
    end.send(()).unwrap();
    assert_eq!(job.await.unwrap(), Ok(true));
}

#[tokio::test]
async fn a_job_that_has_not_begun_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let shared = node.shared.clone();
    node.shutdown().await;
    let error = shared.aside(async { Ok(()) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
