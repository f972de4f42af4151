//! Clients that break things, go away, or stay too long.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor,
    FlightEndpoint, RenewFlightEndpointRequest,
};
use futures::TryStreamExt;
use prost::Message;
use tandem_env::{Chance, Clock, SystemChance, SystemClock};
use tandem_flight::FlightConfig;
use tonic::{Code, Request};

use crate::kit::{number, rows, start, start_with, ticket};

fn stream_of(batch: RecordBatch) -> Vec<FlightData> {
    let mut messages = batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    messages[0].flight_descriptor = Some(FlightDescriptor::new_path(vec!["t".to_owned()]));
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_messages_end_their_own_request_only() {
    let server = start().await;
    let mut client = server.client().await;
    client
        .execute_update("CREATE TABLE t (ts TIMESTAMP, name TEXT, value DOUBLE)".to_owned(), None)
        .await
        .unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..200 {
        let mut messages = stream_of(rows(0, 50));
        let victim = usize::try_from(SystemChance.below(2)).unwrap();
        let header = SystemChance.below(4) < 3;
        let message = &mut messages[victim];
        let part = if header { &mut message.data_header } else { &mut message.data_body };
        let mut bytes = part.to_vec();
        if let Some(at) =
            usize::try_from(SystemChance.below(bytes.len() as u64)).ok().filter(|_| !bytes.is_empty())
        {
            bytes[at] ^= 1 << SystemChance.below(8);
        }
        *part = bytes.into();
        let answers = match raw.do_put(Request::new(futures::stream::iter(messages))).await {
            Ok(answers) => answers.into_inner().try_collect::<Vec<_>>().await,
            Err(status) => Err(status),
        };
        match answers {
            Ok(answers) => accepted += i64::try_from(answers.len()).unwrap(),
            Err(status) => {
                refused += 1;
                assert_ne!(status.code(), Code::Internal, "{status}");
            }
        }
    }
    assert!(refused > 0);
    // Rows with a flipped bit are rows; what was refused left nothing behind.
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await % 50, 0);
    assert!(number(&mut client, "SELECT count(*) FROM t").await >= accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_flight_cannot_be_read_and_a_renewed_one_can() {
    let server = start().await;
    let mut client = server.client().await;
    let mut raw = FlightServiceClient::new(server.channel().await);
    let info = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    let renew = RenewFlightEndpointRequest { endpoint: Some(info.endpoint[0].clone()) };
    let renew = Action { r#type: "RenewFlightEndpoint".to_owned(), body: renew.encode_to_vec().into() };
    let mut results = raw.do_action(renew).await.unwrap().into_inner();
    let renewed = FlightEndpoint::decode(results.message().await.unwrap().unwrap().body).unwrap();
    assert_eq!(renewed.ticket, info.endpoint[0].ticket);
    assert!(renewed.expiration_time.unwrap().seconds >= info.endpoint[0].expiration_time.unwrap().seconds);

    let request = CancelFlightInfoRequest { info: Some(info.clone()) };
    for expected in [CancelStatus::Cancelled, CancelStatus::NotCancellable] {
        let action = Action { r#type: "CancelFlightInfo".to_owned(), body: request.encode_to_vec().into() };
        let mut results = raw.do_action(action).await.unwrap().into_inner();
        let result = CancelFlightInfoResult::decode(results.message().await.unwrap().unwrap().body).unwrap();
        assert_eq!(result.status(), expected);
    }
    assert_eq!(raw.do_get(ticket(&info)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_leads_to_its_session_from_any_connection() {
    let server = start().await;
    let mut client = server.client().await;
    client.execute_update("CREATE SCHEMA s".to_owned(), None).await.unwrap();
    client.execute_update("CREATE TABLE s.t (n BIGINT)".to_owned(), None).await.unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    // {"schema": "s", "no": "x"}
    let body: &[u8] = b"\x0a\x0d\x0a\x06schema\x12\x03\x0a\x01s\x0a\x09\x0a\x02no\x12\x03\x0a\x01x";
    let action = Action { r#type: "SetSessionOptions".to_owned(), body: body.into() };
    let response = raw.do_action(action).await.unwrap();
    let cookie = response.metadata().get("set-cookie").unwrap().to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let result = response.into_inner().message().await.unwrap().unwrap();
    assert_eq!(&result.body[..], b"\x0a\x08\x0a\x02no\x12\x02\x08\x01", "an unknown name is named");

    let path = || FlightDescriptor::new_path(vec!["t".to_owned()]);
    let mut other = FlightServiceClient::new(server.channel().await);
    assert_eq!(other.get_schema(path()).await.unwrap_err().code(), Code::NotFound);
    let mut request = Request::new(path());
    request.metadata_mut().insert("cookie", cookie.parse().unwrap());
    other.get_schema(request).await.unwrap();
    let closing = Action { r#type: "CloseSession".to_owned(), body: Default::default() };
    raw.do_action(closing).await.unwrap();
    assert_eq!(raw.get_schema(path()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_ever() {
    let server =
        start_with(FlightConfig { drain: Duration::from_millis(300), ..FlightConfig::default() }).await;
    let mut client = server.client().await;
    let sql = "SELECT a.value FROM generate_series(1, 100000) a, generate_series(1, 1000) b";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let mut unread = raw.do_get(ticket(&info)).await.unwrap().into_inner();
    assert!(unread.message().await.unwrap().is_some());
    let begun = SystemClock.monotonic();
    server.stop().await;
    assert!(SystemClock.monotonic() - begun < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_limit_is_refused() {
    let server = start_with(FlightConfig { max_message_bytes: 100_000, ..FlightConfig::default() }).await;
    let mut client = server.client().await;
    client
        .execute_update("CREATE TABLE t (ts TIMESTAMP, name TEXT, value DOUBLE)".to_owned(), None)
        .await
        .unwrap();
    let mut raw = FlightServiceClient::new(server.channel().await);
    let messages = stream_of(rows(0, 10_000));
    let answers = match raw.do_put(Request::new(futures::stream::iter(messages))).await {
        Ok(answers) => answers.into_inner().try_collect::<Vec<_>>().await,
        Err(status) => Err(status),
    };
    assert!(answers.unwrap_err().message().contains("100000"), "the bound is named");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}
