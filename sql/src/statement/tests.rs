//! What each statement is understood as, and what is said of those that are not.

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use tandem_manifest::{Change, ColumnSpec, Step, TableSpec};
use tandem_types::{ErrorKind, PartitionUnit, TableName};

use super::*;

fn parse_one(sql: &str) -> Statement {
    let mut statements =
        parse(sql, "public", &StatementLimits::default()).unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

fn refuse(sql: &str) -> (ErrorKind, String) {
    match parse(sql, "public", &StatementLimits::default()) {
        Ok(statements) => panic!("{sql} was understood as {statements:?}"),
        Err(error) => (error.kind(), error.message().to_owned()),
    }
}

fn steps(sql: &str) -> Vec<Step> {
    match parse_one(sql) {
        Statement::Steps(steps) => steps,
        other => panic!("{sql}: {other:?}"),
    }
}

fn spec(sql: &str) -> TableSpec {
    match steps(sql).pop() {
        Some(Step::CreateTable { spec, .. }) => spec,
        other => panic!("{sql}: {other:?}"),
    }
}

fn change(sql: &str) -> Change {
    match steps(sql).pop() {
        Some(Step::AlterTable { change, .. }) => change,
        other => panic!("{sql}: {other:?}"),
    }
}

fn column(name: &str, data_type: DataType, nullable: bool) -> ColumnSpec {
    ColumnSpec { name: name.to_owned(), data_type, nullable }
}

fn type_of(sql_type: &str) -> DataType {
    spec(&format!("CREATE TABLE t (a {sql_type})")).columns.remove(0).data_type
}

/// Of one line each, so that the whole table of statements reads as one.
fn brief(sql: &str) -> String {
    format!("{:?}", parse_one(sql))
}

#[test]
fn create_table_with_all_clauses() {
    let expected = TableSpec {
        columns: vec![
            column("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
            column("Host", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), true),
            column("v", DataType::Float64, true),
        ],
        timestamp: Some("ts".to_owned()),
        partition_by: Some(PartitionUnit::Hour),
        order_by: Some(vec!["Host".to_owned(), "ts".to_owned()]),
        primary_key: None,
        options: vec![
            ("compression".to_owned(), "lz4".to_owned()),
            ("target_file_size".to_owned(), "1000".to_owned()),
        ],
    };
    let columns = "(Ts TIMESTAMP NOT NULL, \"Host\" SYMBOL, v DOUBLE NULL)";
    let same = [
        "TIMESTAMP(ts) PARTITION BY HOUR ORDER BY (\"Host\", ts ASC) WITH (compression = 'lz4', target_file_size = 1000)",
        "WITH (compression = lz4, target_file_size = '1000') ORDER BY (\"Host\", ts) partition by hour timestamp(TS)",
        "WITH (timestamp = ts, partition_by = 'HOUR', order_by = (\"Host\", ts), compression = lz4, target_file_size = 1000)",
        "WITH (timestamp = 'ts', partition_by = hour, order_by = '\"Host\", TS', compression = lz4, target_file_size = 1000)",
    ];
    for clauses in same {
        assert_eq!(spec(&format!("create TABLE t {columns} {clauses}")), expected, "{clauses}");
    }
}

#[test]
fn create_table_says_where_and_whether() {
    assert_eq!(
        brief("CREATE TABLE IF NOT EXISTS tandem.S.\"T\" ()"),
        "Steps([CreateTable { name: TableName { schema: \"s\", table: \"T\" }, spec: TableSpec { columns: [], \
         timestamp: None, partition_by: None, order_by: None, primary_key: None, options: [] }, if_not_exists: true, replace: false }])"
    );
    let Some(Step::CreateTable { replace, .. }) = steps("CREATE OR REPLACE TABLE t (a INT)").pop() else {
        panic!()
    };
    assert!(replace);
    let Statement::CreateTableAs { name, spec, if_not_exists, or_replace, query } =
        parse_one("CREATE TABLE s.t TIMESTAMP(ts) ORDER BY (a) AS SELECT ? AS ts, a FROM u ORDER BY a")
    else {
        panic!()
    };
    assert_eq!((name, if_not_exists, or_replace), (TableName::new("s", "t"), false, false));
    assert_eq!((spec.timestamp.as_deref(), spec.order_by), (Some("ts"), Some(vec!["a".to_owned()])));
    assert_eq!(query.to_string(), "SELECT $1 AS ts, a FROM u ORDER BY a");
}

#[test]
fn a_key_is_said_in_many_ways() {
    let same = [
        "(ts TIMESTAMP, \"Host\" TEXT, PRIMARY KEY (\"Host\", TS), v INT)",
        "(ts TIMESTAMP, \"Host\" TEXT, v INT) PRIMARY KEY (\"Host\", ts)",
        "(ts TIMESTAMP, \"Host\" TEXT, v INT) dedup UPSERT keys(\"Host\", ts)",
        "(ts TIMESTAMP, \"Host\" TEXT, v INT) WITH (primary_key = (\"Host\", ts))",
        "(ts TIMESTAMP, \"Host\" TEXT, v INT) WITH (primary_key = '\"Host\", TS')",
    ];
    for clauses in same {
        let spec = spec(&format!("CREATE TABLE t {clauses}"));
        assert_eq!(spec.primary_key, Some(vec!["Host".to_owned(), "ts".to_owned()]), "{clauses}");
        assert_eq!(spec.columns.len(), 3, "{clauses}");
    }
    let one = spec("CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    assert_eq!(one.primary_key, Some(vec!["id".to_owned()]));
    assert_eq!(one.columns[0], column("id", DataType::Int32, false));
    for (sql, part) in [
        ("CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)", "a table has one primary key"),
        ("CREATE TABLE t (a INT PRIMARY KEY) PRIMARY KEY (a)", "twice"),
        ("CREATE TABLE t (a INT) PRIMARY KEY (a) DEDUP UPSERT KEYS (a)", "twice"),
        ("CREATE TABLE t (a INT) PRIMARY KEY (a) WITH (primary_key = a)", "twice"),
        ("CREATE TABLE t (a INT) PRIMARY KEY ()", "a key has columns"),
        ("CREATE TABLE t (a INT) PRIMARY KEY (a, A)", "in the key twice"),
        ("CREATE TABLE t (a INT NULL PRIMARY KEY)", "both NULL and NOT NULL"),
        ("CREATE TABLE t (a INT) DEDUP (a)", "expected UPSERT"),
    ] {
        let (kind, message) = refuse(sql);
        assert!(kind == ErrorKind::InvalidInput && message.contains(part), "{sql}: {message}");
    }
}

#[test]
fn what_an_insert_says_of_taken_keys() {
    use tandem_manifest::OnConflict;
    let conflict = |sql: &str| match parse_one(sql) {
        Statement::Insert { conflict, .. } => conflict.map(|c| (c.key, c.action)),
        other => panic!("{other:?}"),
    };
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(conflict("INSERT INTO t VALUES (1)"), None);
    assert_eq!(
        conflict("INSERT INTO t SELECT a FROM u ON CONFLICT DO NOTHING"),
        Some((vec![], OnConflict::DoNothing))
    );
    assert_eq!(
        conflict(
            "INSERT INTO t VALUES (1) ON CONFLICT (TS, \"H\") DO UPDATE SET v = EXCLUDED.V, \"W\" = excluded.\"W\""
        ),
        Some((names(&["ts", "H"]), OnConflict::Update(names(&["v", "W"]))))
    );
}

#[test]
fn a_change_is_the_query_of_its_new_values() {
    let dml = |sql: &str| match parse_one(sql) {
        Statement::Dml(dml) => dml,
        other => panic!("{other:?}"),
    };
    let update = dml("UPDATE s.T AS x SET \"A\" = A + ?, b = (SELECT max(b) FROM u) WHERE c > ?");
    assert_eq!((update.table, update.joined), (TableName::new("s", "t"), false));
    assert_eq!(update.assigned, Some(vec!["A".to_owned(), "b".to_owned()]));
    assert_eq!(
        update.query.to_string(),
        "SELECT A + $1 AS \"0\", (SELECT max(b) FROM u) AS \"1\" FROM s.T AS x WHERE c > $2"
    );
    let joined = dml("UPDATE t SET a = u.a FROM u WHERE t.k = u.k");
    assert!(joined.joined);
    assert_eq!(joined.query.to_string(), "SELECT u.a AS \"0\" FROM t, u WHERE t.k = u.k");
    let delete = dml("DELETE FROM t");
    assert_eq!((delete.assigned, delete.query.to_string()), (None, "SELECT 1 FROM t WHERE true".to_owned()));
    let delete = dml("DELETE FROM t USING u WHERE t.k = u.k");
    assert_eq!(delete.query.to_string(), "SELECT 1 FROM t, u WHERE t.k = u.k");
    assert!(delete.joined);
    assert!(refuse("UPDATE t SET a = 1, A = 2").1.contains("assigned twice"));
}

#[test]
fn sql_types_are_datafusions_and_more() {
    let ts = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let item = |t| std::sync::Arc::new(Field::new_list_field(t, true));
    let cases = [
        ("BOOLEAN", DataType::Boolean),
        ("TINYINT", DataType::Int8),
        ("SMALLINT UNSIGNED", DataType::UInt16),
        ("INT", DataType::Int32),
        ("INTEGER", DataType::Int32),
        ("BIGINT", DataType::Int64),
        ("INT8", DataType::Int64),
        ("LONG", DataType::Int64),
        ("BIGINT UNSIGNED", DataType::UInt64),
        ("UINT32", DataType::UInt32),
        ("REAL", DataType::Float32),
        ("FLOAT", DataType::Float32),
        ("FLOAT(53)", DataType::Float64),
        ("DOUBLE PRECISION", DataType::Float64),
        ("DECIMAL", DataType::Decimal128(38, 10)),
        ("DECIMAL(5)", DataType::Decimal128(5, 0)),
        ("NUMERIC(40, 3)", DataType::Decimal256(40, 3)),
        ("VARCHAR(20)", DataType::Utf8),
        ("TEXT", DataType::Utf8),
        ("STRING", DataType::Utf8),
        ("BYTEA", DataType::Binary),
        ("VARBINARY", DataType::Binary),
        ("DATE", DataType::Date32),
        ("TIME", DataType::Time64(TimeUnit::Nanosecond)),
        ("TIME(3)", DataType::Time32(TimeUnit::Millisecond)),
        ("TIMESTAMP", ts(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP(6)", ts(TimeUnit::Microsecond, None)),
        ("TIMESTAMP(0) WITHOUT TIME ZONE", ts(TimeUnit::Second, None)),
        ("TIMESTAMPTZ", ts(TimeUnit::Nanosecond, Some("UTC"))),
        ("TIMESTAMP(3) WITH TIME ZONE", ts(TimeUnit::Millisecond, Some("UTC"))),
        ("INT[]", DataType::List(item(DataType::Int32))),
        ("ARRAY<ARRAY<TEXT>>", DataType::List(item(DataType::List(item(DataType::Utf8))))),
        ("REAL[3]", DataType::FixedSizeList(item(DataType::Float32), 3)),
        (
            "STRUCT<a INT, \"B\" STRUCT<c TEXT>>",
            DataType::Struct(Fields::from(vec![
                Field::new("a", DataType::Int32, true),
                Field::new("B", DataType::Struct(vec![Field::new("c", DataType::Utf8, true)].into()), true),
            ])),
        ),
        ("ARROW('LargeUtf8')", DataType::LargeUtf8),
        ("ARROW('FixedSizeBinary(16)')", DataType::FixedSizeBinary(16)),
        ("ARROW('Timestamp(ms, \"+02:00\")')", ts(TimeUnit::Millisecond, Some("+02:00"))),
    ];
    for (sql, expected) in cases {
        assert_eq!(type_of(sql), expected, "{sql}");
    }
}

#[test]
fn types_that_do_not_fit_say_what_does() {
    let cases = [
        (
            "UUID",
            "line 1, column 19: column \"a\": type UUID is not supported: use VARCHAR or ARROW('FixedSizeBinary(16)')",
        ),
        ("JSON", "use VARCHAR"),
        ("TIMESTAMP(4)", "0, 3, 6 or 9 digits"),
        ("DECIMAL(77, 1)", "1 to 76"),
        ("DECIMAL(3, 4)", "0 to the precision"),
        ("BINARY(4)", "ARROW('FixedSizeBinary(4)')"),
        ("GEOHASH(5c)", "is not supported"),
        ("ARROW('Nope')", "is no Arrow type"),
        ("FOO", "type FOO is not supported"),
    ];
    for (sql, expected) in cases {
        let (_, message) = refuse(&format!("CREATE TABLE t (a {sql})"));
        assert!(message.contains(expected), "{sql}: {message}");
    }
    let deep = format!("CREATE TABLE t (a ARROW('{}Int8{}'))", "List(".repeat(100_000), ")".repeat(100_000));
    assert!(refuse(&deep).1.contains("nests deeper than 64 levels"));
}

#[test]
fn alter_table() {
    let added = column("c", DataType::Int64, true);
    assert_eq!(
        format!("{:?}", change("ALTER TABLE t ADD COLUMN IF NOT EXISTS c BIGINT")),
        format!("{:?}", Change::AddColumn { column: added, if_not_exists: true })
    );
    let cases = [
        (
            "ALTER TABLE t ADD c INT NOT NULL",
            "AddColumn { column: ColumnSpec { name: \"c\", data_type: Int32, nullable: false }, if_not_exists: false }",
        ),
        ("ALTER TABLE t DROP COLUMN IF EXISTS \"C\"", "DropColumn { name: \"C\", if_exists: true }"),
        ("ALTER TABLE t DROP C CASCADE", "DropColumn { name: \"c\", if_exists: false }"),
        ("ALTER TABLE t DROP partition", "DropColumn { name: \"partition\", if_exists: false }"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "RenameColumn { name: \"a\", to: \"b\" }"),
        ("ALTER TABLE t RENAME a TO b", "RenameColumn { name: \"a\", to: \"b\" }"),
        ("ALTER TABLE t ALTER COLUMN a SET DATA TYPE BIGINT", "WidenColumn { name: \"a\", to: Int64 }"),
        ("ALTER TABLE t ALTER a TYPE DOUBLE", "WidenColumn { name: \"a\", to: Float64 }"),
        ("ALTER TABLE t ALTER COLUMN a DROP NOT NULL", "DropNotNull { name: \"a\" }"),
        (
            "ALTER TABLE t SET (compression = lz4, x = 5s)",
            "SetOptions { options: [(\"compression\", Some(\"lz4\")), (\"x\", Some(\"5s\"))] }",
        ),
        ("ALTER TABLE t RESET (compression)", "SetOptions { options: [(\"compression\", None)] }"),
    ];
    for (sql, expected) in cases {
        assert_eq!(format!("{:?}", change(sql)), expected, "{sql}");
    }
    let table = |sql: &str| format!("{:?}", steps(sql));
    assert_eq!(
        table("ALTER TABLE s.t RENAME TO u"),
        "[RenameTable { name: TableName { schema: \"s\", table: \"t\" }, to: TableName { schema: \"s\", table: \"u\" } }]"
    );
    assert_eq!(steps("ALTER TABLE t ADD COLUMN a INT, ADD COLUMN b INT, RENAME TO u").len(), 3);
    assert_eq!(
        table("ALTER DATABASE SET (checkpoint_commits = 10)"),
        "[SetSettings { settings: [(\"checkpoint_commits\", Some(\"10\"))] }]"
    );
}

#[test]
fn small_statements() {
    let cases = [
        (
            "DROP TABLE IF EXISTS a, s.b",
            "Steps([DropTable { name: TableName { schema: \"public\", table: \"a\" }, if_exists: true }, DropTable { name: TableName { schema: \"s\", table: \"b\" }, if_exists: true }])",
        ),
        ("CREATE SCHEMA IF NOT EXISTS S", "Steps([CreateSchema { name: \"s\", if_not_exists: true }])"),
        ("DROP SCHEMA tandem.s RESTRICT", "Steps([DropSchema { name: \"s\", if_exists: false }])"),
        ("TRUNCATE TABLE t", "Steps([Truncate { name: TableName { schema: \"public\", table: \"t\" } }])"),
        ("truncate t", "Steps([Truncate { name: TableName { schema: \"public\", table: \"t\" } }])"),
        ("OPTIMIZE TABLE t;", "Optimize { table: TableName { schema: \"public\", table: \"t\" } }"),
        ("CHECKPOINT", "Checkpoint"),
        ("CANCEL QUERY 'q7'", "CancelQuery { id: \"q7\" }"),
        ("SET tandem.Schema = 'Add'", "Set { name: \"tandem.schema\", value: Some(\"Add\") }"),
        ("SET tandem.ack TO quorum(2)", "Set { name: \"tandem.ack\", value: Some(\"quorum(2)\") }"),
        ("SET SESSION tandem.ack_timeout = 5s", "Set { name: \"tandem.ack_timeout\", value: Some(\"5s\") }"),
        ("SET x = DEFAULT", "Set { name: \"x\", value: None }"),
        ("RESET tandem.ack", "Set { name: \"tandem.ack\", value: None }"),
        ("USE s", "Set { name: \"schema\", value: Some(\"s\") }"),
        ("SHOW ALL", "ShowSetting { name: None }"),
        ("SHOW tandem.last_seq", "ShowSetting { name: Some(\"tandem.last_seq\") }"),
        ("SHOW TABLES FROM s LIKE 'a%'", "Show(Tables { schema: Some(\"s\"), like: Some(\"a%\") })"),
        ("SHOW SCHEMAS", "Show(Schemas { like: None })"),
        ("SHOW COLUMNS FROM t", "Show(Columns { table: TableName { schema: \"public\", table: \"t\" } })"),
        ("DESCRIBE TABLE s.t", "Show(Columns { table: TableName { schema: \"s\", table: \"t\" } })"),
        ("desc t", "Show(Columns { table: TableName { schema: \"public\", table: \"t\" } })"),
        (
            "SHOW CREATE TABLE t",
            "Show(CreateTable { table: TableName { schema: \"public\", table: \"t\" } })",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(brief(sql), expected, "{sql}");
    }
}

#[test]
fn queries_pass_through_and_placeholders_are_numbered() {
    let cases = [
        ("select A, \"B\" from t where x = ? and y = '?'", "SELECT A, \"B\" FROM t WHERE x = $1 AND y = '?'"),
        ("with c as (select 1) select * from c", "WITH c AS (SELECT 1) SELECT * FROM c"),
        ("(select 1) union all select 2", "(SELECT 1) UNION ALL SELECT 2"),
        ("values (1), (2)", "VALUES (1), (2)"),
        ("explain analyze select 1", "EXPLAIN ANALYZE SELECT 1"),
        ("explain verbose format tree (select 1)", "EXPLAIN VERBOSE FORMAT TREE (SELECT 1)"),
        ("select a is distinct from b, case when x then 1 end from f(1) cross join unnest([1,2]) u", ""),
    ];
    for (sql, expected) in cases {
        let Statement::Query(query) = parse_one(sql) else { panic!("{sql}") };
        assert!(expected.is_empty() || query.to_string().eq_ignore_ascii_case(expected), "{sql}: {query}");
    }
}

#[test]
fn insert() {
    let Statement::Insert { table, columns, source, conflict: None } =
        parse_one("INSERT INTO S.T (A, \"B\") VALUES (?, 'x'), (2, ?)")
    else {
        panic!()
    };
    assert_eq!((table, columns), (TableName::new("s", "t"), vec!["a".to_owned(), "B".to_owned()]));
    assert_eq!(source.to_string(), "VALUES ($1, 'x'), (2, $2)");
    let Statement::Insert { columns, source, .. } = parse_one("insert into t select * from u") else {
        panic!()
    };
    assert!(columns.is_empty() && source.to_string().ends_with("FROM u"));
}

#[test]
fn several_statements_are_split_and_empty_ones_skipped() {
    let parsed = parse("; SELECT 1;; CHECKPOINT ; -- done", "public", &StatementLimits::default()).unwrap();
    assert!(matches!(parsed.as_slice(), [Statement::Query(_), Statement::Checkpoint]));
    assert!(parse(" -- nothing", "public", &StatementLimits::default()).unwrap().is_empty());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases = [
        ("MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE", "MERGE is not supported yet"),
        ("COMMIT AND CHAIN", "AND CHAIN is not supported"),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", "sees one snapshot"),
        ("COPY t TO '/etc/passwd'", "COPY is not supported"),
        ("COPY (SELECT 1) TO 'x.csv'", "COPY is not supported"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE EXTERNAL is not supported, only CREATE TABLE or SCHEMA",
        ),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW is not supported"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW is not supported"),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE FUNCTION is not supported"),
        ("CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY is not supported"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX is not supported"),
        ("CREATE DATABASE d", "CREATE DATABASE is not supported"),
        ("DROP VIEW v", "DROP VIEW is not supported"),
        ("DROP SCHEMA s CASCADE", "DROP SCHEMA CASCADE is not supported"),
        ("CREATE TABLE t (a INT DEFAULT 1)", "line 1, column 23: column \"a\": DEFAULT is not supported"),
        ("CREATE TABLE t (a INT UNIQUE)", "UNIQUE is not supported"),
        ("CREATE TABLE t (a INT, CHECK (a > 1))", "CHECK is not supported"),
        ("CREATE TABLE t (a INT) AS SELECT 1", "takes its columns from the query"),
        ("CREATE TABLE t (ts TIMESTAMP) ORDER BY (ts DESC)", "ascending"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "line 1, column 19: a table's key is decided when"),
        ("ALTER TABLE t ADD COLUMN a INT PRIMARY KEY", "a table's key is decided when"),
        ("ALTER TABLE t DEDUP ENABLE UPSERT KEYS(a)", "a table's key is decided when"),
        ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", "SET NOT NULL"),
        ("ALTER TABLE t ALTER COLUMN a SET DEFAULT 1", "DEFAULT on a column"),
        ("ALTER TABLE IF EXISTS t ADD a INT", "IF EXISTS is not supported"),
        ("SELECT * FROM (SELECT 1) x TABLESAMPLE (10 ROWS)", "TABLESAMPLE is not supported"),
        ("SELECT * FROM t TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE is not supported"),
        ("SELECT * FROM t FOR UPDATE", "FOR UPDATE"),
        (
            "SELECT avg(x) FROM t SAMPLE BY 1h",
            "line 1, column 22: SAMPLE BY is not supported: select date_bin(",
        ),
        ("SELECT avg(x) FROM (SELECT x FROM t WHERE x > 1 sample by 1h) u", "date_bin("),
        ("SELECT 1 INTO u", "SELECT INTO"),
        ("SELECT * FROM t WITH (NOLOCK)", "a hint on a table is not supported"),
        ("WITH c AS (SELECT 1) INSERT INTO t SELECT * FROM c", "a statement that writes within a query"),
        ("SELECT * FROM (WITH c AS (SELECT 1) DELETE FROM t)", ""),
        ("EXPLAIN INSERT INTO t VALUES (1)", "only queries can be explained"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "only queries can be explained"),
        ("INSERT OVERWRITE t SELECT 1", "INSERT OVERWRITE is not supported"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = b + 1", "the form c = excluded.c"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.c", "the form c = excluded.c"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET (b, c) = (1, 2)", "the form c = excluded.c"),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE a > 1",
            "WHERE behind DO",
        ),
        ("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING", "name the key's columns"),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", "ON CONFLICT (key) DO UPDATE"),
        ("INSERT OR REPLACE INTO t VALUES (1)", "ON CONFLICT (key) DO"),
        ("UPDATE t SET a = 1 RETURNING a", "line 1, column 8: RETURNING in UPDATE is not supported"),
        ("UPDATE t SET a = 1 LIMIT 1", "LIMIT in UPDATE is not supported"),
        ("UPDATE t SET (a, b) = (1, 2)", "write a = …, b = …"),
        ("UPDATE t SET t.a = 1", "takes it without its table's"),
        ("UPDATE t JOIN u ON t.a = u.a SET a = 1", "behind FROM or USING"),
        ("UPDATE t SET a = (SELECT a FROM u FOR UPDATE)", "FOR UPDATE"),
        ("UPDATE t VERSION AS OF 3 SET a = 1", ""),
        ("UPDATE system.tables SET a = 1", "schema system is read-only"),
        ("DELETE FROM t RETURNING a", "line 1, column 8: RETURNING in DELETE is not supported"),
        ("DELETE FROM t ORDER BY a LIMIT 1", "LIMIT in DELETE is not supported"),
        ("DELETE FROM t, u", "more than one table"),
        ("DELETE FROM information_schema.tables", "schema information_schema is read-only"),
        ("INSERT INTO t VALUES (1) RETURNING a", "RETURNING in INSERT is not supported"),
        ("INSERT INTO t DEFAULT VALUES", "DEFAULT VALUES in INSERT is not supported"),
        ("INSERT INTO t SET a = 1", ""),
        ("REPLACE INTO t VALUES (1)", "REPLACE is not supported yet"),
        ("SET TRANSACTION READ ONLY", "SET TRANSACTION is not supported"),
        ("VACUUM t", "VACUUM is not supported"),
    ];
    for (sql, expected) in cases {
        let (_, message) = refuse(sql);
        assert!(message.contains(expected), "{sql}: {message}");
        let says_unsupported = expected.contains("not supported");
        assert!(!says_unsupported || refuse(sql).0 == ErrorKind::Unsupported, "{sql}: {:?}", refuse(sql));
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let cases = [
        ("FROB t", "line 1, column 1: expected a statement, found FROB"),
        ("SELECT 1 FROM", "expected identifier, found the end of the statement"),
        ("SELECT 1 1", "line 1, column 10: expected the end of the statement, found 1"),
        ("SELECT\n  FROM WHERE (", ""),
        ("CREATE TABLE t (a INT", "expected , or ), found the end of the statement"),
        ("CREATE TABLE t (a INT b)", "line 1, column 23: expected , or ), found b"),
        ("CREATE TABLE t", "expected columns in parentheses, or AS and a query, found the end"),
        ("CREATE TABLE t (a INT, A INT)", "line 1, column 24: column \"a\" is declared twice"),
        ("CREATE TABLE t (a INT NULL NOT NULL)", "both NULL and NOT NULL"),
        ("CREATE TABLE t (a INT) PARTITION BY MINUTE", "line 1, column 37: \"minute\" is no partition unit"),
        ("CREATE TABLE t (a INT) PARTITION BY DAY PARTITION BY DAY", "there twice"),
        ("CREATE TABLE t (a INT) PARTITION BY DAY WITH (partition_by = day)", "said twice"),
        ("CREATE TABLE t (a INT) WITH (x = 1, X = 2)", "line 1, column 37: \"x\" is said twice"),
        ("CREATE OR REPLACE TABLE IF NOT EXISTS t (a INT)", "exclude each other"),
        ("CREATE TABLE system.t (a INT)", "line 1, column 14: schema system is read-only"),
        ("DROP TABLE information_schema.tables", "schema information_schema is read-only"),
        ("INSERT INTO system.tables VALUES (1)", "schema system is read-only"),
        ("TRUNCATE other.public.t", "catalog \"other\" does not exist"),
        ("DROP TABLE a.b.c.d", "a.b.c.d is no table's name"),
        ("INSERT INTO t (a, A) VALUES (1, 2)", "column \"a\" is named twice"),
        ("ALTER TABLE t RENAME TO u, ADD a INT", "RENAME TO must come last"),
        ("CANCEL QUERY q7", "line 1, column 14: expected the query's id in quotes, found q7"),
        ("EXPLAIN FORMAT nonsense SELECT 1", "is no format"),
        ("SELECT 'unterminated", "line 1, column 8: unterminated string"),
        ("DROP TABLE t t", "line 1, column 14: expected the end of the statement, found t"),
    ];
    for (sql, expected) in cases {
        let (_, message) = refuse(sql);
        assert!(message.contains(expected), "{sql}: {message}");
    }
}

#[test]
fn flat_chains_and_deep_nests_are_refused_before_the_parser() {
    let terms = |n: usize, with: &str| vec!["1"; n].join(with);
    let refused = [
        (format!("SELECT {}", terms(2_000, "+")), "more than 500 operators"),
        (format!("SELECT {}", terms(100_000, " || ")), "more than 500 operators"),
        (format!("SELECT 1 WHERE {}", terms(2_000, " AND ")), "more than 500 operators"),
        (format!("SELECT 1{}", "::int".repeat(1_000)), "more than 500 operators"),
        (format!("SELECT a{} FROM t", "[1]".repeat(1_000)), "more than 500 operators"),
        (format!("SELECT 1 {}", "IS NULL ".repeat(1_000)), "more than 500 operators"),
        (
            format!("SELECT {}", vec!["f(1) WITHIN GROUP (ORDER BY a)"; 1_000].join("+")),
            "more than 500 operators",
        ),
        (format!("SELECT {}", vec!["CASE WHEN 1 THEN 1 END"; 1_000].join("+")), "more than 500 operators"),
        (format!("SELECT {}", terms(1_000, " IS DISTINCT FROM ")), "more than 500 operators"),
        (format!("SELECT {}", vec!["set"; 1_000].join(" + ")), "more than 500 operators"),
        (format!("SELECT {}", vec!["union"; 1_000].join(" + ")), "more than 500 operators"),
        (vec!["SELECT 1"; 10_000].join(" UNION ALL "), "more than 500 set operations"),
        (format!("SELECT 1 FROM {}", vec!["t"; 10_000].join(", ")), "more than 200 joins"),
        (format!("SELECT 1 FROM t {}", "JOIN t ON a = b ".repeat(10_000)), "more than 200 joins"),
        (format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)), "nests deeper than 64 levels"),
        (format!("SELECT {}", "CASE WHEN ".repeat(10_000)), "nests deeper than 64 levels"),
        (
            format!("SELECT CAST(1 AS {}INT{})", "ARRAY<".repeat(1_000), ">".repeat(1_000)),
            "types nest deeper",
        ),
        (format!("SELECT a{} FROM t", ".a".repeat(10_000)), "more than 16 parts"),
        (format!("SELECT 1 WHERE 1 IN ({})", terms(50_001, ",")), "more than 50000 values in an IN list"),
        (format!("SELECT {}", "NOT ".repeat(10_000)), ""),
        (format!("SELECT {}1", "- ".repeat(499)), ""),
    ];
    for (sql, expected) in refused {
        let (kind, message) = refuse(&sql);
        assert!(message.contains(expected), "{}: {message}", &sql[..60.min(sql.len())]);
        assert_eq!(kind, ErrorKind::InvalidInput);
    }
}

/// The parser tries several readings of a parenthesis; tried anew at each level they would double each time.
#[test]
fn nested_parentheses_are_read_in_bounded_time_and_stack() {
    let stack = std::thread::Builder::new().stack_size(8 << 20);
    stack.spawn(read_nested_parentheses).unwrap().join().unwrap();
}

fn read_nested_parentheses() {
    let nest = |before: &str, open: &str, inner: &str, close: &str, n: usize| {
        format!("{before}{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    #[expect(clippy::disallowed_methods, reason = "the time that parsing takes is what is tested")]
    let start = std::time::Instant::now();
    for n in [10, 20, 40, 60] {
        for sql in [
            nest("SELECT * FROM ", "(", "t", ")", n),
            nest("SELECT * FROM ", "(", "SELECT 1", ")", n),
            nest("", "(", "SELECT 1", ")", n),
            nest("SELECT ", "(", "1", ")", n),
            nest("SELECT ", "f(", "1", ")", n),
            nest("SELECT ", "((1) -> ", "1", ")", n),
            nest("SELECT * FROM ", "(a JOIN ", "b", ")", n),
            nest("CREATE TABLE t (a ", "STRUCT<a ", "INT", ">", n),
        ] {
            // Understood or not: it must come to an end.
            let _ = parse(&sql, "public", &StatementLimits::default());
            assert!(start.elapsed().as_secs() < 20, "{sql}");
        }
    }
}

#[test]
fn large_but_flat_statements_pass() {
    let terms = |n: usize, with: &str| vec!["1"; n].join(with);
    let passed = [
        format!("SELECT {}", terms(500, "+")),
        format!("SELECT {}", vec![terms(400, "+"); 20].join(",")),
        format!("SELECT 1 WHERE {}", vec!["t.a = 1"; 400].join(" OR ")),
        format!("SELECT 1 WHERE 1 IN ({})", terms(50_000, ",")),
        format!("INSERT INTO t VALUES {}", vec!["(1, -2.5, 'x', now() + 1)"; 20_000].join(", ")),
        format!("SELECT {} FROM t WHERE a < 1 ORDER BY b", vec!["a < b"; 1_000].join(", ")),
        vec!["SELECT 1 + 1, 2 FROM a, b WHERE c < 3"; 400].join(" UNION ALL "),
        format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)),
        format!(
            "CREATE TABLE t ({})",
            (0..4_000).map(|i| format!("c{i} STRUCT<a INT>")).collect::<Vec<_>>().join(",")
        ),
    ];
    for sql in passed {
        let parsed = parse(&sql, "public", &StatementLimits::default());
        assert!(parsed.is_ok(), "{}: {:?}", &sql[..60.min(sql.len())], parsed.err());
    }
}

#[test]
fn text_and_token_limits_hold_before_tokens_are_made() {
    let limits = StatementLimits { max_bytes: 1_000, max_tokens: 100, ..StatementLimits::default() };
    let refused = |sql: &str| parse(sql, "public", &limits).err().map(|e| e.message().to_owned());
    assert!(refused(&" ".repeat(1_001)).unwrap().contains("has 1001 bytes, at most 1000"));
    assert!(
        refused(&format!("SELECT {}", vec!["1"; 100].join(","))).unwrap().contains("more than 100 tokens")
    );
    // Long words, strings and comments are one token each, whatever is in them.
    let quoted =
        format!("SELECT '{}', \"{}\" -- {}", "a,''b ".repeat(50), "x y".repeat(50), "1,".repeat(100));
    assert_eq!(refused(&quoted), None);
}
