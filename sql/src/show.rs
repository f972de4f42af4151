//! `SHOW` and `DESCRIBE`: questions about the schema, turned into queries on a snapshot.
//!
//! The answers are ordinary queries, so that they stream, cancel and travel like any other.

use std::fmt::Write;

use arrow_schema::DataType;
use datafusion::sql::parser;
use tandem_manifest::{Manifest, Table};
use tandem_types::{Column, DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result, TableName};

use crate::similar;
use crate::statement::{READ_ONLY_SCHEMAS, Show, Statement, StatementLimits, parse, quote_name, type_name};

impl Show {
    /// The query that answers it on this state.
    ///
    /// # Errors
    ///
    /// `NotFound` for a table or schema that does not exist.
    pub fn query(&self, snapshot: &Manifest) -> Result<Box<parser::Statement>> {
        let sql = match self {
            Self::Tables { schema, like } => tables(snapshot, schema.as_deref(), like.as_deref())?,
            Self::Schemas { like } => schemas(snapshot, like.as_deref()),
            Self::Columns { table } if READ_ONLY_SCHEMAS.contains(&table.schema.as_str()) => {
                system_columns(table)
            }
            Self::Columns { table } => columns(similar::require(snapshot, table)?),
            Self::CreateTable { table } if READ_ONLY_SCHEMAS.contains(&table.schema.as_str()) => {
                return Err(Error::unsupported(format!(
                    "{table} is filled by the system, nothing creates it"
                )));
            }
            Self::CreateTable { table } => {
                let sql = create_table(similar::require(snapshot, table)?);
                format!(
                    "SELECT {} AS table_name, {} AS create_statement",
                    text(&table.to_string()),
                    text(&sql)
                )
            }
        };
        match parse(&sql, DEFAULT_SCHEMA, &UNBOUNDED)?.pop() {
            Some(Statement::Query(query)) => Ok(query),
            _ => Err(Error::internal(format!("SHOW became no query: {sql}"))),
        }
    }
}

/// The text is ours: its length follows from the schema, which has bounds of its own.
const UNBOUNDED: StatementLimits = StatementLimits {
    max_bytes: usize::MAX,
    max_tokens: usize::MAX,
    max_depth: 64,
    max_chain: 500,
    max_set_operations: 500,
    max_joins: 500,
    max_in_list: 50_000,
};

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A query with these rows, which may be none. Every row has all columns, already as SQL.
fn rows(columns: &[&str], types: &[&str], rows: &[Vec<String>], tail: &str) -> String {
    let list: Vec<String> = columns
        .iter()
        .zip(types)
        .map(|(name, sql_type)| format!("CAST({name} AS {sql_type}) AS {name}"))
        .collect();
    let nulls = vec!["NULL"; columns.len()].join(", ");
    // `VALUES` needs a row to have columns; the marker tells it from the real ones.
    let mut values = format!("(0, {nulls})");
    for (i, row) in rows.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = write!(values, ", ({}, {})", i + 1, row.join(", "));
    }
    let (list, names) = (list.join(", "), columns.join(", "));
    format!("SELECT {list} FROM (VALUES {values}) AS shown (nth, {names}) WHERE nth > 0{tail}")
}

fn like_clause(column: &str, like: Option<&str>) -> String {
    like.map_or_else(String::new, |pattern| format!(" AND {column} LIKE {}", text(pattern)))
}

fn tables(snapshot: &Manifest, schema: Option<&str>, like: Option<&str>) -> Result<String> {
    if let Some(schema) = schema {
        if READ_ONLY_SCHEMAS.contains(&schema) {
            return Ok(format!(
                "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                 WHERE table_schema = {}{} ORDER BY table_schema, table_name",
                text(schema),
                like_clause("table_name", like)
            ));
        }
        if !snapshot.has_schema(schema) {
            return Err(Error::not_found(format!("schema {schema} does not exist")));
        }
    }
    let shown = snapshot.named_tables().map(Table::name).filter(|name| match schema {
        Some(schema) => name.schema == schema,
        None => !READ_ONLY_SCHEMAS.contains(&name.schema.as_str()),
    });
    let shown: Vec<Vec<String>> =
        shown.map(|name| vec![text(&name.schema), text(&name.table), text("BASE TABLE")]).collect();
    let tail = format!("{} ORDER BY table_schema, table_name", like_clause("table_name", like));
    Ok(rows(&["table_schema", "table_name", "table_type"], &["VARCHAR"; 3], &shown, &tail))
}

fn schemas(snapshot: &Manifest, like: Option<&str>) -> String {
    let all = snapshot.schemas().chain(READ_ONLY_SCHEMAS);
    let shown: Vec<Vec<String>> = all.map(|schema| vec![text(DEFAULT_CATALOG), text(schema)]).collect();
    let tail = format!("{} ORDER BY schema_name", like_clause("schema_name", like));
    rows(&["catalog_name", "schema_name"], &["VARCHAR"; 2], &shown, &tail)
}

/// As `DESCRIBE` of a user's table, where it says something of a system table.
fn system_columns(table: &TableName) -> String {
    format!(
        "SELECT column_name, data_type, is_nullable, CAST(NULL AS VARCHAR) AS sql_type, \
         false AS designated, CAST(NULL AS INT) AS sort_position \
         FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        text(&table.schema),
        text(&table.table)
    )
}

fn columns(table: &Table) -> String {
    let timestamp = table.timestamp().map(|column| column.id);
    let shown: Vec<Vec<String>> = table
        .schema()
        .columns
        .iter()
        .map(|column| {
            let sort = table.order_by().iter().position(|id| *id == column.id);
            vec![
                text(&column.name),
                text(&column.data_type.to_string()),
                text(if column.nullable { "YES" } else { "NO" }),
                text(&type_name(&column.data_type)),
                (timestamp == Some(column.id)).to_string(),
                sort.map_or_else(|| "NULL".to_owned(), |position| (position + 1).to_string()),
            ]
        })
        .collect();
    let names = ["column_name", "data_type", "is_nullable", "sql_type", "designated", "sort_position"];
    let types = ["VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BOOLEAN", "INT"];
    rows(&names, &types, &shown, " ORDER BY nth")
}

/// The statement that creates an empty table equal to this one.
pub fn create_table(table: &Table) -> String {
    let name = qualified(table.name());
    let all = table.schema().columns.as_slice();
    let is_timestamp = |c: &Column| matches!(c.data_type, DataType::Timestamp(_, _));

    let columns: Vec<String> = all.iter().map(|c| format!("\n  {}", declaration(c))).collect();
    let mut sql = format!("CREATE TABLE {name} ({}\n)", columns.join(","));
    if let Some(timestamp) = table.timestamp() {
        sql += &format!("\nTIMESTAMP({})", quote_name(&timestamp.name));
        sql += &format!("\nPARTITION BY {}", table.partition_by().name().to_uppercase());
    }
    let sort: Vec<String> = table
        .order_by()
        .iter()
        .filter_map(|id| table.schema().column(*id))
        .map(|column| quote_name(&column.name))
        .collect();
    if table.timestamp().is_some() || !sort.is_empty() {
        sql += &format!("\nORDER BY ({})", sort.join(", "));
    }
    if table.is_keyed() {
        let key = table.primary_key().iter().filter_map(|id| table.schema().column(*id));
        let key: Vec<String> = key.map(|column| quote_name(&column.name)).collect();
        sql += &format!("\nPRIMARY KEY ({})", key.join(", "));
    }
    let mut options: Vec<String> =
        table.def().options.iter().map(|(key, value)| format!("{key} = {}", text(value))).collect();
    if table.timestamp().is_none() && all.iter().any(is_timestamp) {
        // Or CREATE TABLE would designate the first of them.
        options.push("timestamp = 'none'".to_owned());
    }
    if !options.is_empty() {
        sql += &format!("\nWITH ({})", options.join(", "));
    }
    sql
}

fn declaration(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{not_null}", quote_name(&column.name), type_name(&column.data_type))
}

fn qualified(name: &TableName) -> String {
    if name.schema == DEFAULT_SCHEMA {
        quote_name(&name.table)
    } else {
        format!("{}.{}", quote_name(&name.schema), quote_name(&name.table))
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use arrow_schema::{Field, Fields, IntervalUnit, TimeUnit};
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;
    use tandem_format::{CommitHeader, TableDef, encode_header};
    use tandem_manifest::{ColumnSpec, Intent, Rebased, Step, TableSpec, rebase};
    use tandem_types::{CommitId, DatabaseId, PartitionUnit, WriterId};

    use super::*;

    fn commit(manifest: &Manifest, steps: Vec<Step>) -> Result<Manifest, String> {
        let at = manifest.seq().next();
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: manifest.seq(), steps };
        let transaction = match rebase(&intent, manifest, at, 0) {
            Ok(Rebased::Commit { transaction, .. }) => transaction,
            other => return Err(format!("{other:?}")),
        };
        let header = CommitHeader {
            seq: at,
            commit_id: CommitId(1),
            writer: WriterId(1),
            database: manifest.database(),
            previous: manifest.header_hash(),
            commit_time: manifest.commit_time() + 1,
            raw_clock: 0,
            transactions: vec![transaction],
        };
        let hash = encode_header(&header).map_err(|e| e.to_string())?.hash;
        manifest.apply(&header, hash).map(|applied| applied.manifest).map_err(|stop| format!("{stop:?}"))
    }

    fn run(sql: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::empty(DatabaseId(1));
        for statement in parse(sql, DEFAULT_SCHEMA, &UNBOUNDED).map_err(|e| e.to_string())? {
            let Statement::Steps(steps) = statement else { return Err(format!("{statement:?}")) };
            manifest = commit(&manifest, steps)?;
        }
        Ok(manifest)
    }

    fn only_table(manifest: &Manifest) -> &Table {
        manifest.named_tables().next().unwrap()
    }

    #[test]
    fn show_create_table_is_written_for_people() {
        let sql = "CREATE SCHEMA s; CREATE TABLE s.\"Cpu\" (ts TIMESTAMP, host SYMBOL NOT NULL, \"user\" INT[], \
                   x ARROW('LargeUtf8')) ORDER BY (host, ts) PARTITION BY HOUR WITH (compression = lz4)";
        let expected = "\
CREATE TABLE s.\"Cpu\" (
  ts TIMESTAMP(9) NOT NULL,
  host SYMBOL NOT NULL,
  \"user\" INT[],
  x ARROW('LargeUtf8')
)
TIMESTAMP(ts)
PARTITION BY HOUR
ORDER BY (host, ts)
WITH (compression = 'lz4')";
        let shown = create_table(only_table(&run(sql).unwrap()));
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_timestamp_that_came_later_is_not_designated_by_its_copy() {
        let sql = "CREATE TABLE t (a INT); ALTER TABLE t ADD COLUMN ts TIMESTAMP, ADD COLUMN b INT";
        let table = run(sql).unwrap();
        assert!(only_table(&table).timestamp().is_none());
        let shown = create_table(only_table(&table));
        let expected =
            "CREATE TABLE t (\n  a INT,\n  ts TIMESTAMP(9),\n  b INT\n)\nWITH (timestamp = 'none')";
        assert_eq!(shown, expected);
        let copy = run(&shown).unwrap();
        assert_eq!(only_table(&copy).def(), only_table(&table).def());
    }

    #[tokio::test]
    async fn questions_are_answered_by_queries() {
        let manifest = run(
            "CREATE SCHEMA s; CREATE TABLE \"it's\" (ts TIMESTAMP, v INT) ORDER BY (v, ts); CREATE TABLE s.u (a INT)",
        )
        .unwrap();
        let answer = async |sql: &str| {
            let Some(Statement::Show(show)) = parse(sql, DEFAULT_SCHEMA, &UNBOUNDED).unwrap().pop() else {
                panic!("{sql}")
            };
            let state = SessionContext::new().state();
            let plan = state.statement_to_plan(*show.query(&manifest).unwrap()).await.unwrap();
            let context = SessionContext::new_with_state(state);
            let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
            let text = pretty_format_batches(&batches).unwrap().to_string();
            let rows = text.lines().skip(3).filter(|line| line.starts_with('|'));
            rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join("")).collect::<Vec<_>>()
        };
        assert_eq!(answer("SHOW TABLES").await, ["|public|it's|BASETABLE|", "|s|u|BASETABLE|"]);
        assert_eq!(answer("SHOW TABLES FROM s").await, ["|s|u|BASETABLE|"]);
        assert_eq!(answer("SHOW TABLES LIKE 'it''%'").await, ["|public|it's|BASETABLE|"]);
        assert_eq!(answer("SHOW TABLES LIKE 'x'").await, Vec::<String>::new());
        assert_eq!(
            answer("SHOW SCHEMAS").await,
            ["|tandem|information_schema|", "|tandem|public|", "|tandem|s|", "|tandem|system|"]
        );
        assert_eq!(
            answer("DESCRIBE \"it's\"").await,
            ["|ts|Timestamp(ns)|NO|TIMESTAMP(9)|true|2|", "|v|Int32|YES|INT|false|1|"]
        );
        assert_eq!(answer("SHOW COLUMNS FROM s.u").await, ["|a|Int32|YES|INT|false||"]);
        let created = answer("SHOW CREATE TABLE s.u").await.join("");
        assert!(created.contains("CREATETABLEs.u"), "{created}");
        let missing = Show::Columns { table: TableName::public("nope") }.query(&manifest).unwrap_err();
        assert_eq!(missing.kind(), tandem_types::ErrorKind::NotFound);
        let missing = Show::Tables { schema: Some("nope".into()), like: None }.query(&manifest).unwrap_err();
        assert_eq!(missing.kind(), tandem_types::ErrorKind::NotFound);
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z][a-z0-9_]{0,6}", "[A-Za-z \"'.,;?$%()ä]{1,6}", Just("select".to_owned())]
    }

    fn unit() -> impl Strategy<Value = TimeUnit> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        prop::sample::select(vec![Second, Millisecond, Microsecond, Nanosecond])
    }

    fn leaf() -> impl Strategy<Value = DataType> {
        use DataType::*;
        prop_oneof![
            prop::sample::select(vec![
                Null,
                Boolean,
                Int8,
                Int16,
                Int32,
                Int64,
                UInt8,
                UInt16,
                UInt32,
                UInt64,
                Float16,
                Float32,
                Float64,
                Utf8,
                LargeUtf8,
                Utf8View,
                Binary,
                LargeBinary,
                BinaryView,
                Date32,
                Date64,
                FixedSizeBinary(7),
                Interval(IntervalUnit::DayTime),
                Time32(TimeUnit::Second),
                Time32(TimeUnit::Millisecond),
                Time64(TimeUnit::Microsecond),
                Time64(TimeUnit::Nanosecond),
            ]),
            (unit(), prop::option::of(prop::sample::select(vec!["UTC", "+02:00", "Europe/Berlin"])))
                .prop_map(|(unit, zone)| Timestamp(unit, zone.map(Into::into))),
            unit().prop_map(Duration),
            (1..=9_u8).prop_map(|p| Decimal32(p, 2.min(p as i8))),
            (1..=18_u8).prop_map(|p| Decimal64(p, 1)),
            (1..=38_u8, -3..=1_i8).prop_map(|(p, s)| Decimal128(p, s)),
            (1..=76_u8, 0..=1_i8).prop_map(|(p, s)| Decimal256(p, s)),
        ]
    }

    fn data_type() -> impl Strategy<Value = DataType> {
        leaf().prop_recursive(3, 8, 3, |inner| {
            let field =
                (name(), inner.clone(), any::<bool>()).prop_map(|(n, t, null)| Field::new(n, t, null));
            prop_oneof![
                (inner.clone(), any::<bool>())
                    .prop_map(|(t, null)| DataType::List(Field::new("item", t, null).into())),
                (inner.clone(), 1..4_i32)
                    .prop_map(|(t, n)| { DataType::FixedSizeList(Field::new("item", t, true).into(), n) }),
                inner.clone().prop_map(|t| DataType::LargeList(Field::new("item", t, true).into())),
                prop::collection::vec(field, 1..4).prop_map(|fields| {
                    let mut seen = std::collections::BTreeSet::new();
                    DataType::Struct(
                        fields.into_iter().filter(|f| seen.insert(f.name().clone())).collect::<Fields>(),
                    )
                }),
                inner.prop_map(|t| {
                    let entries = Fields::from(vec![
                        Field::new("key", DataType::Utf8, false),
                        Field::new("value", t, true),
                    ]);
                    DataType::Map(Field::new("entries", DataType::Struct(entries), false).into(), false)
                }),
                Just(DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into())),
                Just(DataType::Dictionary(DataType::UInt8.into(), DataType::LargeUtf8.into())),
            ]
        })
    }

    fn table_spec() -> impl Strategy<Value = TableSpec> {
        let column = (name(), data_type(), any::<bool>())
            .prop_map(|(name, data_type, nullable)| ColumnSpec { name, data_type, nullable });
        let columns = prop::collection::btree_map(name(), column, 0..6).prop_map(|columns| {
            columns.into_iter().map(|(name, column)| ColumnSpec { name, ..column }).collect::<Vec<_>>()
        });
        let units = prop::sample::select(PartitionUnit::ALL.to_vec());
        (columns, units, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(columns, unit, sorted, packed, keyed)| {
                let has_time = columns.iter().any(|c| matches!(c.data_type, DataType::Timestamp(..)));
                let sortable =
                    columns.iter().filter(|c| !c.data_type.is_nested() && c.data_type != DataType::Null);
                // With the designated timestamp among them, if there is one.
                let key = sortable.clone().filter(|c| !c.data_type.is_floating());
                let key: Vec<String> = key.map(|c| c.name.clone()).collect();
                let key = (keyed && !key.is_empty()).then_some(key);
                let merged = key.is_some().then(|| ("on_duplicate".to_owned(), "merge".to_owned()));
                TableSpec {
                    primary_key: key,
                    order_by: sorted.then(|| sortable.map(|c| c.name.clone()).collect()),
                    partition_by: has_time.then_some(unit),
                    options: packed
                        .then(|| ("compression".to_owned(), "lz4".to_owned()))
                        .into_iter()
                        .chain(merged)
                        .collect(),
                    timestamp: None,
                    columns,
                }
            },
        )
    }

    fn definition(spec: TableSpec, table: &str) -> Option<(String, TableDef)> {
        let step =
            Step::CreateTable { name: TableName::public(table), spec, if_not_exists: false, replace: false };
        let manifest = commit(&Manifest::empty(DatabaseId(1)), vec![step]).ok()?;
        let table = only_table(&manifest);
        Some((create_table(table), table.def().clone()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn show_create_table_creates_an_equal_table(spec in table_spec(), table in name()) {
            // What cannot be created need not be shown.
            let Some((sql, def)) = definition(spec, &table) else { return Ok(()) };
            let copy = run(&sql).map_err(|e| TestCaseError::fail(format!("{e}\n{sql}")))?;
            prop_assert_eq!(only_table(&copy).def(), &def, "{}", sql);
            prop_assert_eq!(&only_table(&copy).name().table, &table);
        }

        #[test]
        fn text_never_panics(sql in "[ -~]{0,60}|(SELECT|CREATE|ALTER|TABLE|INSERT|INTO|\\(|\\)|,|'|t|1|\\.|;|\\?|WITH|AS| ){0,25}") {
            let _ = parse(&sql, DEFAULT_SCHEMA, &StatementLimits::default());
        }
    }
}
