//! Nodes that commit for each other over Flight.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tandem_client::handover::{Bundle, SubmitFailure, submit};
use tandem_client::{Client, ConnectOptions};
use tandem_format::TransactionToken;
use tandem_node::NodeConfig;
use tandem_types::{DatabaseId, ErrorKind, Result, Seq};

use crate::tail::Member;

/// Writes through all members at once until the time is over; how often, each.
async fn write(members: &[&Member], time: Duration, name: &str) -> Result<Vec<usize>> {
    let until = Instant::now() + time;
    let writing = members.iter().enumerate().map(|(place, member)| async move {
        let mut count = 0;
        while Instant::now() < until {
            let clients = (0..3).map(|client| {
                let name = format!("{name}_{place}_{count}_{client}");
                async move { member.commit(&name).await }
            });
            try_join_all(clients).await?;
            count += 3;
        }
        Ok(count)
    });
    join_all(writing).await.into_iter().collect()
}

/// How many nodes' writes the commits from a seq on hold, at most.
async fn most_producers(member: &Member, from: Seq) -> usize {
    let head = member.node.state().seq();
    let log = member.node.engine().database().read_log(from, head, 100_000).await.unwrap();
    let producers = log.iter().map(|(header, _)| {
        let tokens = header.transactions.iter().filter_map(|t| match &t.token {
            Some(TransactionToken::Counted(token)) => Some(token.producer),
            _ => None,
        });
        tokens.collect::<BTreeSet<_>>().len()
    });
    producers.max().unwrap_or(0)
}

async fn three(store: &Path) -> [Member; 3] {
    let mut members = Vec::new();
    for node_id in ["a", "b", "c"] {
        members.push(Member::start_with(store, node_id, |config| config).await);
    }
    for member in &members {
        member.follows(2).await;
    }
    members.try_into().unwrap_or_else(|_| unreachable!())
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_get_into_each_others_way_choose_one_and_replace_it_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(dir.path()).await;
    let counts = write(&[&a, &b, &c], Duration::from_secs(4), "x").await.unwrap();
    for member in [&b, &c] {
        member.reaches(&a).await;
        a.reaches(member).await;
    }
    let state = a.node.state();
    let lease = state.lease().expect("one of them commits for all").clone();
    assert_eq!(state.schemas().count(), counts.iter().sum::<usize>() + 1, "each write is there once");
    assert!(most_producers(&a, Seq(1)).await >= 2, "commits hold writes of several nodes");

    // It goes away, and the others neither fail nor wait for long.
    let (mut rest, gone): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(|m| m.url != lease.address);
    for member in gone {
        member.end().await;
    }
    let from = rest[0].node.state().seq();
    let members: Vec<&Member> = rest.iter().collect();
    write(&members, Duration::from_secs(6), "y").await.unwrap();
    let state = rest[0].node.state();
    let next = state.lease().unwrap();
    assert!(next.term > lease.term && next.address != lease.address, "{next:?} after {lease:?}");
    assert!(most_producers(&rest[0], from).await >= 2);
    rest[0].reaches(&rest[1]).await;
    rest[1].reaches(&rest[0]).await;
    assert_eq!(rest[0].node.state().digest(), rest[1].node.state().digest());
    for member in rest.drain(..) {
        member.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_forwards_writes_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Member::start_with(dir.path(), "w", |config| config).await;
    writer.commit("before").await.unwrap();
    let replica = |config| NodeConfig { replica: true, forward_writes: true, ..config };
    let replica = Member::start_with(dir.path(), "r", replica).await;
    replica.follows(1).await;
    let receipt = replica.commit("forwarded").await.unwrap();
    assert!(replica.node.state().seq() >= receipt.seq && replica.node.state().has_schema("forwarded"));
    assert!(writer.node.state().has_schema("forwarded"));
    writer.end().await;
    let started = Instant::now();
    let error = replica.commit("nobody").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotWriter | ErrorKind::OutcomeUnknown), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_hand_over_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Member::start_with(dir.path(), "w", |config| config).await;
    writer.commit("before").await.unwrap();
    let database = writer.node.state().database();
    let options = ConnectOptions { retry_for: Duration::ZERO, ..ConnectOptions::default() };
    let client = Client::connect_with(&writer.url, options).await.unwrap();
    let garbage = Bytes::from_static(b"\xff\xfe\x00garbage");
    let none = Bytes::new();
    for (database, transactions, sections) in [
        (DatabaseId(database.0 ^ 1), none.clone(), none.clone()),
        (database, garbage.clone(), none.clone()),
        (database, none.clone(), garbage.clone()),
    ] {
        let failure = submit(&client, &Bundle { database, transactions, sections }).await.unwrap_err();
        assert!(
            matches!(&failure, SubmitFailure::NotTaken(e) if e.kind() == ErrorKind::InvalidInput),
            "{failure:?}"
        );
    }
    let nothing = Bundle { database, transactions: none.clone(), sections: none };
    assert_eq!(submit(&client, &nothing).await.unwrap(), Bytes::new());
    writer.commit("after").await.unwrap();
    writer.end().await;
}
