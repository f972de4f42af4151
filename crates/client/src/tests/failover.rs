//! What the client does when connections are lost and nodes decline.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use tandem_types::{Error, ErrorKind};

use super::kit::{Act, Pair, numbers, pair, pair_for};
use crate::{IngestMode, LinkEvent, PutAck};

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_committed_once() {
    let Pair { a, b, database, client, events } = pair().await;
    a.plan([Act::DoAndDie]);
    let result = client.query("INSERT 1").await.unwrap();
    let written = result.written().unwrap();
    assert_eq!((written.seq, written.rows, written.duplicate, written.repeated), (1, Some(2), true, true));
    assert_eq!(written.acked.as_deref(), Some("store"));
    assert_eq!(database.lock().unwrap().commits.len(), 1);
    assert_eq!(client.url(), b.url);
    let events = events.lock().unwrap().clone();
    assert!(matches!(&events[0], LinkEvent::Left { url, .. } if *url == a.url), "{events:?}");
    assert_eq!(events[1], LinkEvent::Entered { url: b.url.clone() });

    // Another write is another one, though its text is the same.
    assert!(!client.query("INSERT 1").await.unwrap().written().unwrap().duplicate);
    assert_eq!(database.lock().unwrap().commits.len(), 2);
}

#[tokio::test]
async fn what_no_other_node_could_mend_is_answered_at_once() {
    let Pair { a, b, client, .. } = pair().await;
    a.plan([Act::Refuse("schema-conflict", None)]);
    let error = client.query("INSERT 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaConflict);
    assert_eq!(error.message(), "column x of t is bigint, got text");
    assert_eq!(client.url(), a.url);
    assert!(b.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_writer_that_is_named_is_tried_next_and_remembered() {
    let only_a = |a: &str, _: &str| a.to_owned();
    let Pair { a, b, client, .. } = pair_for(Duration::from_secs(20), only_a).await;
    a.plan([Act::Refuse("not-writer", Some(b.url.clone()))]);
    client.query("INSERT 1").await.unwrap();
    assert_eq!(client.url(), b.url);
    // Both are known now: when b goes, a is asked again, and names b in vain until it writes itself.
    b.close();
    a.plan([Act::Refuse("not-writer", Some(b.url.clone())), Act::Refuse("not-writer", None)]);
    client.query("INSERT 2").await.unwrap();
    assert_eq!(client.url(), a.url);
}

#[tokio::test]
async fn nodes_that_cannot_now_are_asked_again_for_a_while() {
    let Pair { a, b, client, database, .. } = pair().await;
    a.plan([Act::Refuse("not-now", None), Act::Refuse("outcome-unknown", None)]);
    b.plan([Act::Refuse("outcome-unknown", None), Act::Die]);
    client.query("INSERT 1").await.unwrap();
    assert_eq!(database.lock().unwrap().commits.len(), 1);
}

#[tokio::test]
async fn the_time_of_trying_is_bounded_and_the_error_says_what_is_known() {
    let Pair { a, b, client, .. } = pair_for(Duration::from_millis(400), |a, b| format!("{a},{b}")).await;
    a.plan([Act::DoAndDie]);
    a.listen_no_more();
    b.close();
    let started = Instant::now();
    let error = client.query("INSERT 1").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.message().contains("token") && error.message().contains("tries"), "{error}");
    let error = client.query("SELECT 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.message().contains("token"), "{error}");

    let Pair { a, client, .. } = pair_for(Duration::ZERO, |a, b| format!("{a},{b}")).await;
    a.plan([Act::Die]);
    assert_eq!(client.query("INSERT 1").await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn a_refusal_after_a_try_without_an_answer_is_not_the_last_word() {
    let Pair { a, b, client, .. } = pair().await;
    a.plan([Act::Die]);
    b.plan([Act::Refuse("schema-conflict", None)]);
    let error = client.query("INSERT 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "the first try may be committed yet: {error}");
    assert!(error.message().contains("column x of t is bigint"), "{error}");
    b.plan([Act::Refuse("schema-conflict", None)]);
    assert_eq!(client.query("INSERT 2").await.unwrap_err().kind(), ErrorKind::SchemaConflict);
}

#[tokio::test]
async fn settings_and_own_writes_are_taken_along() {
    let Pair { a, b, client, .. } = pair().await;
    for sql in ["SET schema = s", "SET tandem.ack = store", "RESET tandem.ack", "SET tandem.schema = 'add'"] {
        client.query(sql).await.unwrap();
    }
    client.query("SET tandem.token = 'mine'").await.unwrap();
    client.query("SELECT 1").await.unwrap().collect().await.unwrap();
    let seq = client.query("INSERT 1").await.unwrap().written().unwrap().seq;
    client.query("INSERT 2").await.unwrap();
    let tokens: Vec<_> = a.asked.lock().unwrap().iter().map(|(_, _, token)| token.clone()).collect();
    assert_eq!(tokens[..6], [const { None }; 6], "what cannot write has no token");
    assert_eq!(tokens[6].as_deref(), Some("mine"));
    assert!(tokens[7].as_ref().is_some_and(|t| t != "mine"), "used up");
    assert!(a.asked.lock().unwrap().iter().all(|(_, min_seq, _)| min_seq.is_none()));

    a.close();
    assert_eq!(client.query("SELECT 1").await.unwrap().collect().await.unwrap(), [numbers(3)]);
    client.query("SELECT 2").await.unwrap();
    let asked: Vec<_> =
        b.asked.lock().unwrap().iter().map(|(sql, min_seq, _)| (sql.clone(), min_seq.clone())).collect();
    let expected = [
        ("SET schema = s", None),
        ("SET tandem.schema = 'add'", None),
        ("SELECT 1", Some((seq + 1).to_string())),
        ("SELECT 2", None),
    ];
    assert_eq!(asked, expected.map(|(sql, min_seq)| (sql.to_owned(), min_seq)));
}

#[tokio::test]
async fn a_session_that_was_lost_while_idle_is_made_again() {
    let only_a = |a: &str, _: &str| a.to_owned();
    let Pair { a, client, .. } = pair_for(Duration::from_secs(20), only_a).await;
    client.query("SET schema = s").await.unwrap();
    a.cut();
    client.query("SELECT 1").await.unwrap();
    let asked: Vec<_> = a.asked.lock().unwrap().iter().map(|(sql, ..)| sql.clone()).collect();
    assert_eq!(asked, ["SET schema = s", "SET schema = s", "SELECT 1"]);
}

#[tokio::test]
async fn a_query_begins_again_only_before_its_first_rows() {
    let Pair { a, b, client, .. } = pair().await;
    a.reads.lock().unwrap().push_back(Act::Die);
    let result = client.query("SELECT 1").await.unwrap();
    assert_eq!(result.collect().await.unwrap(), [numbers(3)]);
    assert_eq!(client.url(), b.url);

    b.reads.lock().unwrap().push_back(Act::DoAndDie);
    let mut result = client.query("SELECT 1").await.unwrap();
    assert_eq!(result.next_batch().await.unwrap().unwrap(), numbers(3));
    let error = result.next_batch().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("run it again"), "{error}");
    assert!(result.next_batch().await.is_none());
}

#[tokio::test]
async fn a_put_goes_on_elsewhere_with_what_was_not_acknowledged() {
    let pair = pair().await;
    pair.a.plan([Act::AsAsked, Act::AsAsked, Act::DoAndDie]);
    pair.b.plan([Act::AsAsked, Act::AsAsked, Act::Refuse("not-writer", Some(pair.a.url.clone()))]);
    let batches = stream::iter((1..=20).map(|rows| Ok(numbers(rows))));
    let session = pair.client.clone().with_window(4).put("t", numbers(0).schema(), batches).await.unwrap();
    let acks: Vec<PutAck> = session.map(|ack| ack.unwrap()).collect().await;
    assert_eq!(acks.iter().map(|a| a.batch).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(acks.iter().map(|a| a.rows).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(acks.iter().map(|a| a.seq).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    // Batches 0 and 1 as well, if their acknowledgements were lost on the way.
    let duplicates: Vec<u64> = acks.iter().filter(|a| a.duplicate).map(|a| a.batch).collect();
    assert_eq!(duplicates.last(), Some(&2), "{duplicates:?}");
    assert_eq!(pair.rows(), (1..=20).collect::<Vec<_>>());
    assert_eq!(pair.client.url(), pair.a.url);

    // Under a token of the caller's, the same put again is the same writes.
    let again = pair.client.clone().with_token("mine").unwrap();
    for expected in [false, true] {
        let batches = stream::iter((1..=3).map(|rows| Ok(numbers(rows))));
        let session = again.put("t", numbers(0).schema(), batches).await.unwrap();
        let acks: Vec<PutAck> = session.map(|ack| ack.unwrap()).collect().await;
        assert_eq!(acks.iter().map(|a| a.duplicate).collect::<Vec<_>>(), [expected; 3]);
    }
    assert_eq!(pair.database.lock().unwrap().commits[20].0, "mine#0");
}

#[tokio::test]
async fn a_put_that_waits_for_its_source_outlives_its_connection() {
    let pair = pair().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let source = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut session = pair.client.put("t", numbers(0).schema(), source).await.unwrap();
    sender.send(Ok(numbers(1))).await.unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().seq, 1);
    pair.a.close();
    sender.send(Ok(numbers(2))).await.unwrap();
    assert_eq!(session.next().await.unwrap().unwrap().seq, 2);
    sender.send(Err(Error::invalid("f.csv:4: bad"))).await.unwrap();
    assert_eq!(session.next().await.unwrap().unwrap_err().message(), "f.csv:4: bad");
    assert!(session.next().await.is_none());
    assert_eq!(pair.rows(), [1, 2]);
}

#[tokio::test]
async fn an_ingest_is_sent_again_whole_and_committed_once() {
    let pair = pair().await;
    pair.a.plan([Act::DoAndDie]);
    let schema = numbers(0).schema();
    let batches = || stream::iter([3, 4].map(|rows| Ok(numbers(rows))));
    let written = pair.client.ingest("t", IngestMode::Append, schema.clone(), batches()).await.unwrap();
    assert_eq!((written.seq, written.rows, written.duplicate, written.repeated), (1, Some(7), true, true));
    assert_eq!(pair.rows(), [7]);

    // Cut while it is being sent.
    let node = pair.b.clone();
    let cut = stream::once(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.cut();
        Ok(numbers(2))
    });
    let batches = stream::iter([Ok(numbers(3))]).chain(cut);
    let written = pair.client.ingest("t", IngestMode::Append, schema, batches).await.unwrap();
    assert_eq!((written.rows, written.duplicate), (Some(5), false));
    assert_eq!(pair.rows(), [7, 5]);
}

#[tokio::test]
async fn an_ingest_too_large_to_keep_is_not_sent_again_and_says_so() {
    let pair = pair().await;
    pair.a.plan([Act::DoAndDie]);
    let client = pair.client.clone().with_replay_bytes(0).with_token("mine").unwrap();
    let batches = stream::iter([Ok(numbers(3))]);
    let error = client.ingest("t", IngestMode::Append, numbers(0).schema(), batches).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert!(
        error.message().contains("cannot be sent again") && error.message().contains("\"mine\""),
        "{error}"
    );
    // The caller can.
    let batches = stream::iter([Ok(numbers(3))]);
    assert!(client.ingest("t", IngestMode::Append, numbers(0).schema(), batches).await.unwrap().duplicate);
}

#[tokio::test]
async fn an_ingest_that_is_given_up_or_whose_source_fails_is_not_committed() {
    let pair = pair().await;
    let schema = numbers(0).schema();
    let endless = stream::iter([Ok(numbers(3))]).chain(stream::pending());
    let ingest = pair.client.ingest("t", IngestMode::Append, schema.clone(), endless);
    tokio::time::timeout(Duration::from_millis(200), ingest).await.unwrap_err();
    // A kind that a node's answer would be tried again for.
    let slow = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(Error::unavailable("the pipe broke"))
    });
    let broken = stream::iter([Ok(numbers(3))]).chain(slow);
    let error = pair.client.ingest("t", IngestMode::Append, schema, broken).await.unwrap_err();
    assert_eq!(error.message(), "the pipe broke");
    while pair.database.lock().unwrap().broken < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pair.rows(), [0; 0]);
}

#[tokio::test]
async fn an_action_that_must_not_be_done_twice_is_not() {
    let pair = pair().await;
    pair.a.plan([Act::DoAndDie]);
    assert_eq!(pair.client.action("tandem.Compact", "{}").await.unwrap(), ["tandem.Compact"]);
    pair.b.plan([Act::DoAndDie]);
    let error = pair.client.action("tandem.Promote", "{}").await.unwrap_err();
    assert!(error.message().contains("tandem.Promote may have been carried out"), "{error}");
    // The next call goes on.
    assert_eq!(pair.client.action("tandem.Promote", "{}").await.unwrap(), ["tandem.Promote"]);
}
