//! What is handed over arrives as it was; garbage is refused.

use arrow_schema::{DataType, Field, TimeUnit};
use tandem_format::ForeignToken;

use super::*;

fn columns() -> Vec<ColumnSpec> {
    let column = |name: &str, data_type, nullable| ColumnSpec { name: name.to_owned(), data_type, nullable };
    let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    vec![
        column("ts", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        column("häufig", text, true),
        column("list", DataType::List(Field::new("item", DataType::Decimal128(20, 3), true).into()), true),
        column("", DataType::Null, true),
    ]
}

fn spec() -> TableSpec {
    TableSpec {
        columns: columns(),
        timestamp: Some("ts".into()),
        partition_by: Some(PartitionUnit::Week),
        order_by: Some(Vec::new()),
        primary_key: Some(vec!["ts".into(), String::new()]),
        options: vec![("ack".into(), "store".into())],
    }
}

fn draft(segment: Option<ObjectName>, len: u64) -> SectionDraft {
    SectionDraft {
        segment,
        offset: 64,
        len,
        crc32c: u32::MAX,
        rows: 3,
        time: Some((i64::MIN, -1)),
        partitions: vec![(Partition(-4), 1), (Partition(9), 2)],
        null_counts: vec![0, 3, 2, 3],
    }
}

fn steps() -> Vec<Step> {
    let name = || TableName::new("s", "t");
    let alter = |change| Step::AlterTable { name: name(), change };
    let settings = || vec![("k".to_owned(), Some("v".to_owned())), ("gone".to_owned(), None)];
    let segment = ObjectName { base: Seq(3), writer: WriterId(u64::MAX), random: 7 };
    let append = |target, policy| {
        let sections = vec![draft(None, 4), draft(Some(segment), 900)];
        Step::Append(AppendIntent {
            name: name(),
            target,
            policy,
            fields: columns(),
            sections,
            on_conflict: None,
        })
    };
    let existing = AppendTarget::Existing { table: TableId(u64::MAX), schema_id: SchemaId(4) };
    vec![
        Step::CreateSchema { name: "s".into(), if_not_exists: true },
        Step::DropSchema { name: "s".into(), if_exists: false },
        Step::CreateTable { name: name(), spec: spec(), if_not_exists: false, replace: true },
        Step::CreateTable { name: name(), spec: TableSpec::default(), if_not_exists: true, replace: false },
        Step::DropTable { name: name(), if_exists: true },
        Step::RenameTable { name: name(), to: TableName::public("u") },
        alter(Change::AddColumn { column: columns().remove(1), if_not_exists: true }),
        alter(Change::DropColumn { name: "a".into(), if_exists: true }),
        alter(Change::RenameColumn { name: "a".into(), to: "b".into() }),
        alter(Change::WidenColumn { name: "a".into(), to: DataType::Float64 }),
        alter(Change::DropNotNull { name: "a".into() }),
        alter(Change::SetOptions { options: settings() }),
        Step::SetSettings { settings: settings() },
        Step::Truncate { name: name() },
        Step::Unchanged { table: TableId(u64::MAX), name: name(), since: Seq(8) },
        Step::Bound { name: name(), table: Some(TableId(7)), schema: Some(SchemaId(u32::MAX)) },
        Step::Bound { name: name(), table: None, schema: None },
        Step::DropPartitions { name: name(), partitions: vec![Partition(-1), Partition(4)] },
        Step::Lease { holder: "n".into(), address: "grpc://n:1".into(), term: u64::MAX },
        append(existing, SchemaPolicy::Strict),
        append(AppendTarget::New(spec()), SchemaPolicy::Create),
        append(AppendTarget::New(TableSpec::default()), SchemaPolicy::Add),
    ]
}

fn handed(token: TransactionToken, steps: Vec<Step>, bodies: Vec<Vec<Bytes>>) -> Handed {
    let (epoch, base) = (Some(Epoch(2)), Seq(11));
    let intent = Intent { token: Some(token), digest: vec![1, 2], epoch, base, steps };
    Handed { intent, bodies, age: -5 }
}

fn all() -> Vec<Handed> {
    let counted = Token { producer: ProducerId(u128::MAX - 1), counter: 9, low: 3, base: Seq(1) };
    let bodies = vec![
        vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")],
        vec![],
        vec![Bytes::from_static(b"efgh")],
    ];
    vec![
        handed(counted.into(), steps(), bodies),
        handed(ForeignToken { text: "ü#1".into(), base: None }.into(), vec![], vec![]),
        handed(
            ForeignToken { text: "x".into(), base: Some(Seq(0)) }.into(),
            vec![],
            vec![vec![Bytes::from_static(b"i")]],
        ),
        handed(TransactionToken::Content { window: 600 }, steps(), vec![]),
    ]
}

/// Bodies in one piece, as they arrive.
fn told(handed: &[Handed]) -> String {
    let whole = |h: &Handed| {
        let bodies: Vec<Vec<u8>> = h.bodies.iter().map(|chunks| chunks.concat()).collect();
        format!("{:?} {} {bodies:?}", h.intent, h.age)
    };
    handed.iter().map(whole).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_handed_over_arrives_as_it_was() {
    let all = all();
    let (message, body) = encode_handed(&all).unwrap();
    assert_eq!(body, "abcdefghi");
    assert_eq!(told(&decode_handed(&message, body).unwrap()), told(&all));
}

#[test]
fn answers_arrive_as_they_were() {
    let mut answers = vec![
        HandedAnswer::Committed(Committed { seq: Seq(7), rows: 3, duplicate: true }),
        HandedAnswer::Recast(Error::schema_conflict("because").with_seq(Seq(9))),
        HandedAnswer::Refused(Error::not_writer("no").with_writer("grpc://a:1").with_seq(Seq(1))),
    ];
    answers.extend(ERROR_KINDS.map(|(_, kind)| HandedAnswer::Refused(Error::new(kind, "why"))));
    assert_eq!(decode_answers(&encode_answers(&answers)).unwrap(), answers);
    assert_eq!(decode_answers(b"").unwrap(), []);
}

#[test]
fn upkeep_is_not_handed_over() {
    let counted = Token { producer: ProducerId(1), counter: 1, low: 1, base: Seq(0) };
    let checkpoint = Step::Checkpoint { seq: Seq(1), root_hash: [0; 32], after: None };
    for (step, may) in [(checkpoint, false), (steps().remove(0), true)] {
        let handed = handed(counted.into(), vec![step], vec![]);
        assert_eq!(can_be_handed(&handed.intent), may);
        assert_eq!(encode_handed(&[handed]).is_ok(), may);
    }
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let (message, body) = encode_handed(&all()).unwrap();
    assert!(decode_handed(b"\xff\xff", Bytes::new()).is_err());
    assert!(decode_handed(&message, body.slice(1..)).is_err(), "a section is cut off");
    assert!(decode_handed(&message, [&body[..], b"!"].concat().into()).is_err(), "bytes are left over");
    assert!(decode_answers(b"\x0a").is_err());
    for at in (0..message.len()).step_by(3) {
        let mut damaged = message.to_vec();
        damaged[at] ^= 1 << (at % 8);
        // Whatever it says now, it says it without a panic.
        let _ = decode_handed(&damaged, body.clone());
        let _ = decode_handed(&message[..at], body.clone());
    }
}
