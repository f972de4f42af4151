use std::io::Write;
use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tandem_access::Incoming;
use tandem_env::SystemClock;
use tandem_lines::{KnownTable, Rules};
use tandem_types::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::*;
use crate::connections;

/// Rows, options and digest of a commit.
type Written = (Vec<TableBatch>, LineOptions, Option<Vec<u8>>);

/// What was committed, and what commits answer.
#[derive(Clone, Default)]
struct Store {
    written: Arc<Mutex<Vec<Written>>>,
    refuses: Option<ErrorKind>,
    replica: bool,
    /// Wants no digests.
    forgets: bool,
    /// Its tables have changed since lines were read for them.
    changes: bool,
    /// Its tables want lines kept aside, and here they are.
    diverts: bool,
    aside: Arc<Mutex<Vec<Diverted>>>,
}

struct Nothing {
    diverts: bool,
}

impl Catalog for Nothing {
    fn table(&self, _: &str) -> Option<KnownTable> {
        None
    }

    fn rules(&self, _: &str) -> Rules {
        Rules { divert: self.diverts, ..Rules::default() }
    }
}

struct Transaction {
    store: Store,
    options: LineOptions,
    rows: Vec<TableBatch>,
    aside: Vec<Diverted>,
}

impl LineStore for Store {
    fn begin(&self, options: LineOptions) -> Result<Box<dyn LineTransaction>> {
        self.check_writes()?;
        Ok(Box::new(Transaction { store: self.clone(), options, rows: Vec::new(), aside: Vec::new() }))
    }

    fn check_writes(&self) -> Result<()> {
        match self.replica {
            false => Ok(()),
            true => Err(Error::not_writer("node b is a replica").with_writer("http://a:1")),
        }
    }
}

#[async_trait]
impl LineTransaction for Transaction {
    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(Nothing { diverts: self.store.diverts })
    }

    async fn stage(&mut self, rows: TableBatch) -> Result<()> {
        self.rows.push(rows);
        Ok(())
    }

    async fn divert(&mut self, lines: Vec<Diverted>) -> Result<()> {
        self.aside.extend(lines);
        Ok(())
    }

    async fn confirm(&self, tables: &BTreeSet<String>) -> Result<()> {
        match self.store.changes && !tables.is_empty() {
            false => Ok(()),
            true => Err(Error::serialization("not now")),
        }
    }

    fn wants_digest(&self) -> bool {
        !self.store.forgets
    }

    async fn commit(self: Box<Self>, digest: Option<Vec<u8>>) -> Result<LineReceipt> {
        if let Some(kind) = self.store.refuses {
            return Err(Error::new(kind, "not now"));
        }
        self.store.aside.lock().unwrap().extend(self.aside);
        let mut written = self.store.written.lock().unwrap();
        written.push((self.rows, self.options, digest));
        Ok(LineReceipt { seq: Seq(written.len() as u64), duplicate: false, acked: "store".to_owned() })
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Store {
    async fn send(&self, request: Request<Body>) -> Answer {
        let routes = routes(Arc::new(self.clone()), Arc::new(SystemClock), Arc::new(|| None));
        let answer = routes.oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    /// Rows of each commit.
    fn rows(&self) -> Vec<usize> {
        let written = self.written.lock().unwrap();
        written.iter().map(|(rows, ..)| rows.iter().map(|b| b.batch.num_rows()).sum()).collect()
    }

    fn stamps(&self) -> Vec<i64> {
        use arrow::array::AsArray;
        use arrow::datatypes::TimestampNanosecondType;
        let written = self.written.lock().unwrap();
        let column =
            |b: &TableBatch| b.batch.column(0).as_primitive::<TimestampNanosecondType>().values().to_vec();
        written.iter().flat_map(|(rows, ..)| rows.iter().flat_map(column).collect::<Vec<_>>()).collect()
    }
}

const TWO: &str = "t,a=x v=1i 1700000000\nu v=2 1700000001\n";

#[tokio::test]
async fn a_request_is_one_transaction() {
    let store = Store::default();
    for (path, factor) in [
        ("/write", 1),
        ("/write?precision=s", 1_000_000_000),
        ("/write?db=d&precision=ms", 1_000_000),
        ("/api/v2/write?bucket=b&org=o&precision=us", 1000),
        ("/api/v3/write_lp?db=d", 1_000_000_000),
        ("/api/v3/write_lp?db=d&precision=nanosecond&no_sync=true", 1),
    ] {
        store.written.lock().unwrap().clear();
        let answer = store.post(path, TWO).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("tandem-seq"), Some("1"));
        assert_eq!(answer.header("tandem-acked"), Some("store"));
        assert_eq!(store.rows(), [2]);
        assert_eq!(store.stamps(), [1_700_000_000 * factor, 1_700_000_001 * factor], "{path}");
    }
    store.written.lock().unwrap().clear();
    let answer = store.post("/write", "# nothing\n\n").await;
    assert_eq!((answer.status, answer.header("tandem-seq")), (204, None));
    assert_eq!(store.rows(), [0; 0], "nothing, no commit");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_unpacked() {
    let long: String = (0..50_000).map(|i| format!("t v={i}i {i}\n")).collect();
    let members = [gzip(TWO), gzip(&long), gzip("t v=5i 7")].concat();
    let post = |body: Vec<u8>, encoding: &str| {
        Request::post("/api/v2/write").header("content-encoding", encoding).body(Body::from(body)).unwrap()
    };
    let store = Store::default();
    assert_eq!(store.send(post(members.clone(), "gzip")).await.status, 204);
    assert_eq!(store.rows(), [50_003]);
    // In small pieces, too.
    let pieces: Vec<std::result::Result<Vec<u8>, std::io::Error>> =
        members.chunks(777).map(|piece| Ok(piece.to_vec())).collect();
    let body = Body::from_stream(futures::stream::iter(pieces));
    let request = Request::post("/write").header("content-encoding", "gzip").body(body).unwrap();
    assert_eq!(store.send(request).await.status, 204);
    assert_eq!(store.rows(), [50_003, 50_003]);

    // Cut anywhere within its last member, or before the first one's end.
    let last = members.len() - gzip("t v=5i 7").len();
    let cuts = (0..40).chain(last + 1..members.len());
    for spoilt in cuts.map(|cut| members[..cut].to_vec()).chain([TWO.as_bytes().to_vec()]) {
        let answer = store.send(post(spoilt, "gzip")).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["message"].as_str().unwrap().contains("gzip"));
    }
    assert_eq!(store.send(post(members, "br")).await.status, 415);
    assert_eq!(store.rows().len(), 2, "nothing of what broke");
}

const BAD: &str = "t v=1i 1\nt v=oops 2\nt v=\"text\" 3\nt v=4i 4\n";

#[tokio::test]
async fn one_bad_line_refuses_all_lines() {
    for (path, status) in [
        ("/write", 400),
        ("/write?db=d&accept_partial=false", 400),
        ("/api/v2/write?accept_partial=false", 400),
        ("/api/v3/write_lp?accept_partial=false", 400),
    ] {
        let store = Store::default();
        let answer = store.post(path, BAD).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(store.rows(), [0; 0]);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), None, "chunked, or QuestDB's clients do not read it");
        let body = answer.json();
        let text = body.to_string();
        assert!(text.contains("line 2, byte 5, table \\\"t\\\", column \\\"v\\\""), "{text}");
        match path {
            "/write" => {
                assert_eq!((&body["code"], &body["line"]), (&Value::from("invalid"), &Value::from(2)));
                assert!(body["errorId"].is_string());
            }
            _ if path.starts_with("/api/v2/write") => assert_eq!(body["code"], "invalid"),
            _ if path.starts_with("/write?db=d") => {
                assert!(answer.header("x-influxdb-error").unwrap().contains("line 2"));
            }
            _ => {
                assert_eq!(body["error"], "line protocol parsing error");
                assert_eq!(body["data"]["line_number"], 2);
                assert_eq!(body["data"]["original_line"], "t v=oops 2");
            }
        }
    }
}

#[tokio::test]
async fn good_lines_are_written_where_that_is_asked_for() {
    for path in
        ["/api/v3/write_lp?db=d", "/write?accept_partial=true", "/write?db=d", "/api/v2/write?bucket=b"]
    {
        let store = Store::default();
        let answer = store.post(path, BAD).await;
        assert_eq!((answer.status, store.rows()), (400, vec![2]), "{path}");
        assert_eq!(answer.header("tandem-seq"), Some("1"));
        let body = answer.json();
        let lines: Vec<&Value> = body["data"].as_array().unwrap().iter().map(|e| &e["line_number"]).collect();
        assert_eq!(lines, [2, 3]);
        let told = body["message"].as_str().or(body["error"].as_str()).unwrap();
        match path {
            "/api/v3/write_lp?db=d" => assert_eq!(told, "partial write of line protocol occurred"),
            "/write?accept_partial=true" => assert!(told.contains("the others are written"), "{told}"),
            _ => {
                assert!(told.starts_with("partial write: line 2, byte 5, table \"t\""), "{told}");
                assert!(told.contains("; line 3, byte 5") && told.ends_with(" dropped=2"), "{told}");
                assert!(answer.header("x-influxdb-error").is_some());
            }
        }
    }
    let none = Store::default();
    let answer = none.post("/write?db=d", "t v=oops 1\n").await;
    assert_eq!((answer.status, none.rows().len(), answer.header("tandem-seq")), (400, 0, None));
    let store = Store::default();
    let many: String = (0..5000).map(|i| format!("t{i} v=1\n")).collect();
    assert_eq!(store.post("/api/v3/write_lp", many).await.status, 422, "too many tables");
}

#[tokio::test]
async fn passing_states_never_look_final() {
    use ErrorKind::*;
    for (kind, status) in [
        (InvalidInput, 400),
        (SchemaConflict, 400),
        (Unsupported, 400),
        (Serialization, 503),
        (Overloaded, 503),
        (Unavailable, 503),
        (OutcomeUnknown, 500),
        (Internal, 500),
        (TokenReused, 409),
        (TokenExpired, 409),
        (QuorumTimeout, 504),
    ] {
        for path in ["/write", "/write?db=d", "/api/v2/write", "/api/v3/write_lp"] {
            let store = Store { refuses: Some(kind), ..Store::default() };
            let answer = store.post(path, TWO).await;
            assert_eq!(answer.status, status, "{kind:?} {path}");
            assert_eq!(answer.header("retry-after").is_some(), status == 503);
            assert_eq!(answer.header("tandem-error"), kind.code());
            assert!(answer.json().to_string().contains("not now"));
        }
    }
}

#[tokio::test]
async fn a_refusal_by_tables_that_have_changed_is_not_final() {
    let conflict = "t v=1i 1\nt v=\"text\" 2\n";
    for path in ["/write", "/write?db=d", "/api/v2/write", "/api/v3/write_lp"] {
        let store = Store { changes: true, ..Store::default() };
        let answer = store.post(path, conflict).await;
        assert_eq!(
            (answer.status, answer.header("retry-after"), store.rows().len()),
            (503, Some("1"), 0),
            "{path}"
        );
        let answer = store.post(path, "t v=oops 1\n").await;
        assert_eq!(answer.status, 400, "no table makes that a line");
    }
    // Not only of those lines that are listed.
    let store = Store { changes: true, ..Store::default() };
    let late = "t v=oops 1\n".repeat(100) + conflict;
    for path in ["/write", "/api/v2/write"] {
        assert_eq!((store.post(path, late.clone()).await.status, store.rows().len()), (503, 0), "{path}");
    }
    let store = Store { changes: true, diverts: true, ..Store::default() };
    assert_eq!((store.post("/write", conflict).await.status, store.rows().len()), (503, 0));
}

#[tokio::test]
async fn values_of_a_wrong_type_are_kept_aside_where_tables_say_so() {
    for path in ["/write", "/api/v2/write", "/api/v3/write_lp?accept_partial=false"] {
        let store = Store { diverts: true, ..Store::default() };
        let answer = store.post(path, "t,a=x v=1i 1\nt,a=y v=\"te xt\" 2\r\nt v=3i 3\nt v=t 4").await;
        assert_eq!(
            (answer.status, answer.header("tandem-seq"), store.rows()),
            (204, Some("1"), vec![2]),
            "{path}"
        );
        let aside = store.aside.lock().unwrap();
        let told: Vec<_> =
            aside.iter().map(|d| [&*d.table, &*d.column, &*d.expected, &*d.got, &*d.line]).collect();
        assert_eq!(
            told,
            [
                ["t", "v", "integers", "a string", "t,a=y v=\"te xt\" 2"],
                ["t", "v", "integers", "a boolean", "t v=t 4"]
            ]
        );
    }
    // What is no line at all is refused as ever.
    let store = Store { diverts: true, ..Store::default() };
    assert_eq!(store.post("/write", BAD).await.status, 400);
    assert!(store.aside.lock().unwrap().is_empty() && store.rows().is_empty());
}

#[tokio::test]
async fn addresses_say_how_tables_are_made() {
    let store = Store::default();
    let address =
        "/write?keys=tags&partition_by=hour&ttl=30d&on_type_conflict=divert&db=x&no_sync=true&other=1";
    let request = Request::post(address).header("user-agent", "me").body(Body::from(TWO)).unwrap();
    assert_eq!(store.send(request).await.status, 204);
    assert_eq!(store.post("/write?dedup_window=off&keys=none", TWO).await.status, 204);
    {
        let written = store.written.lock().unwrap();
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = NewTables {
            keys: Some(true),
            partition_by: Some(PartitionUnit::Hour),
            options: vec![option("ttl", "30d"), option("on_type_conflict", "divert")],
        };
        assert_eq!((&written[0].1.new_tables, &*written[0].1.client), (&expected, "me"));
        let expected =
            NewTables { keys: Some(false), partition_by: None, options: vec![option("dedup_window", "off")] };
        assert_eq!(written[1].1.new_tables, expected);
    }
    for wrong in ["keys=all", "partition_by=fortnight", "ttl=soon", "dedup_window=", "on_type_conflict=drop"]
    {
        let answer = store.post(&format!("/api/v2/write?{wrong}"), TWO).await;
        let name = wrong.split('=').next().unwrap();
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(
            answer.json()["message"].as_str().unwrap().contains(&format!("parameter {name:?}")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_replica_sends_its_clients_elsewhere() {
    let store = Store { replica: true, ..Store::default() };
    for (path, status) in
        [("/write", 421), ("/write?db=d", 503), ("/api/v2/write", 503), ("/api/v3/write_lp", 503)]
    {
        let answer = store.post(path, TWO).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-questdb-role"), Some("REPLICA"));
        assert_eq!(answer.header("tandem-writer"), Some("http://a:1"));
        assert_eq!(answer.header("tandem-error"), Some("not-writer"));
    }
    let settings = store.send(Request::get("/settings").body(Body::empty()).unwrap()).await;
    assert_eq!(settings.json()["accepting.writes"], Value::from(Vec::<Value>::new()));
}

#[tokio::test]
async fn headers_and_parameters_are_understood_or_refused() {
    let store = Store::default();
    let post =
        |name: &str, value: &str| Request::post("/write").header(name, value).body(Body::from(TWO)).unwrap();
    assert_eq!(store.send(post("tandem-token", "abc")).await.status, 204);
    assert_eq!(store.send(post("tandem-token", "abc")).await.status, 204);
    assert_eq!(store.send(post("tandem-schema", "add")).await.status, 204);
    assert_eq!(store.send(post("x-other", "y")).await.status, 204);
    {
        let written = store.written.lock().unwrap();
        assert_eq!(written[0].1.token.as_deref(), Some("abc"));
        assert_eq!(written[0].2, written[1].2);
        assert_eq!(written[2].1.schema, Some(SchemaPolicy::Add));
    }
    for (name, value) in [("tandem-nothing", "1"), ("tandem-schema", "x"), ("tandem-ack-timeout", "soon")] {
        assert_eq!(store.send(post(name, value)).await.status, 400, "{name}");
    }
    for path in ["/write?precision=d", "/api/v3/write_lp?accept_partial=maybe"] {
        assert_eq!(store.post(path, TWO).await.status, 400, "{path}");
    }
    assert_eq!(store.send(Request::get("/write").body(Body::empty()).unwrap()).await.status, 405);
}

#[tokio::test]
async fn digests_tell_writes_apart() {
    let digest = async |path: &str, body: &'static str, headers: &[(&'static str, &'static str)]| {
        let store = Store::default();
        let request =
            headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        assert_eq!(store.send(request.body(Body::from(body)).unwrap()).await.status, 204);
        let written = store.written.lock().unwrap();
        written[0].2.clone()
    };
    let first = digest("/write", TWO, &[]).await;
    assert_eq!(first.as_ref().map(Vec::len), Some(32));
    assert_eq!(first, digest("/write", TWO, &[]).await);
    assert_ne!(first, digest("/write", "t v=1 1\n", &[]).await);
    assert_ne!(first, digest("/write?precision=us", TWO, &[]).await);
    assert_ne!(first, digest("/write", TWO, &[("user-agent", "other")]).await, "another client");
    assert_ne!(first, digest("/write", TWO, &[("authorization", "Bearer x")]).await);
    assert_eq!(None, digest("/write", "t v=1 1\nt v=2\n", &[]).await, "not every line has a time");
    // With other lines refused it is not the same write.
    let refused = async |diverts| {
        let store = Store { diverts, ..Store::default() };
        store.post("/api/v2/write", "t v=1i 1\nt v=\"text\" 2\n").await;
        let written = store.written.lock().unwrap();
        written[0].2.clone()
    };
    assert_eq!(refused(false).await, refused(false).await);
    assert_ne!(refused(false).await, refused(true).await);
    let with_token = [("tandem-token", "a"), ("user-agent", "other")];
    assert!(digest("/write", "t v=2\n", &with_token).await.is_some());
    assert_eq!(digest("/write", TWO, &with_token).await, digest("/write", TWO, &with_token[..1]).await);
    let store = Store { forgets: true, ..Store::default() };
    store.post("/write", TWO).await;
    assert_eq!(store.written.lock().unwrap()[0].2, None);
}

#[tokio::test]
async fn a_body_that_breaks_off_writes_nothing() {
    let store = Store::default();
    let pieces = [Ok(TWO), Err(std::io::Error::other("gone"))];
    let answer = store.post("/write", Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!((answer.status, store.rows().len()), (503, 0));
}

/// All that a server answers to these bytes, sent before anything is read, as clients do.
async fn answered(store: &Store, head: &str, body: &[u8]) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let incoming = Incoming::new(listener, None, &[], Arc::new(SystemClock)).unwrap();
    let address = incoming.local_addr().unwrap();
    let routes = routes(Arc::new(store.clone()), Arc::new(SystemClock), Arc::new(|| None));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { drop(ended.await) };
    let serving = tokio::spawn(connections::serve(incoming, routes, connections::HEAD_TIME, shutdown));
    let mut client = TcpStream::connect(address).await?;
    client.write_all(head.as_bytes()).await?;
    client.write_all(body).await?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await?;
    drop(end);
    serving.await.unwrap();
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn who_is_refused_early_sees_the_answer() {
    let replica = Store { replica: true, ..Store::default() };
    let body = "t v=1i 1\n".repeat(500_000).into_bytes();
    for (store, path, header, status) in [
        (&replica, "/write", "", "421"),
        (&replica, "/api/v2/write", "", "503"),
        (&Store::default(), "/write?precision=d", "", "400"),
        (&Store::default(), "/api/v3/write_lp", "content-encoding: br\r\n", "415"),
        (&Store::default(), "/write", "content-encoding: gzip\r\n", "400"),
        // What it asks for is not sent before the answer.
        (&replica, "/write", "expect: 100-continue\r\n", "421"),
    ] {
        let sent = if header.starts_with("expect") { &[] } else { &*body };
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}content-length: {length}\r\n\r\n"
        );
        let answer = answered(store, &head, sent).await.unwrap_or_else(|e| format!("{path}: {e}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {header}: {answer}");
        assert!(store.rows().is_empty());
    }
}

#[tokio::test]
async fn clients_learn_whom_they_talk_to() {
    let store = Store::default();
    let get = |path: &str| store.send(Request::get(path).body(Body::empty()).unwrap());
    let settings = get("/settings").await.json();
    assert_eq!(settings["config"]["line.proto.support.versions"], Value::from(vec![1, 2, 3]));
    assert_eq!(settings["accepting.writes"], Value::from(vec!["http"]));
    let ping = get("/ping").await;
    assert_eq!((ping.status, ping.header("x-influxdb-version").is_some()), (204, true));
    let health = get("/health").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("pass")));
}
