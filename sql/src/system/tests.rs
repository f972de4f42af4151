//! The names that scripts rely on, and rows against a manifest.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::util::display::array_value_to_string;
use arrow_schema::Fields;
use tandem_format::{CommitHeader, encode_header};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Rebased, SchemaPolicy, SectionDraft, Step, rebase,
};
use tandem_types::{CommitId, DatabaseId, Partition, TableName, WriterId};

use super::table::Kind;
use super::*;
use crate::statement::{Statement, StatementLimits, parse};

#[test]
fn columns_are_those_that_scripts_rely_on() {
    let promised = [
        (
            "tables",
            "table_id schema_name table_name timestamp_column partition_by order_by primary_key options rows bytes \
             files tail_rows min_time max_time created_seq schema_id",
        ),
        ("partitions", "table_id table_name partition rows bytes files tail_rows min_time max_time"),
        (
            "files",
            "table_id table_name partition path rows bytes min_time max_time level created_seq folded_through",
        ),
        ("sections", "seq transaction table_id table_name rows bytes min_time max_time object offset"),
        ("mutations", "seq table_name kind statement pending_files"),
        ("settings", "name value default scope description"),
        (
            "queries",
            "query_id session_id node_id user statement state started snapshot_seq rows bytes elapsed_ms \
             memory_bytes",
        ),
        (
            "nodes",
            "node_id address role epoch applied_seq lag_commits lag_rows lag_bytes lag_seconds version \
             last_heartbeat",
        ),
        ("leases", "holder seq expires reason"),
        ("forks", "fork_id store as_of_seq created_seq"),
    ];
    let names = |fields: &Fields| fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(" ");
    let ours: BTreeMap<&str, String> =
        Kind::ALL.iter().map(|k| (k.name(), names(k.schema().fields()))).collect();
    assert_eq!(ours, promised.into_iter().map(|(name, columns)| (name, columns.to_owned())).collect());
}

/// The state after these statements, one commit each.
fn state(statements: &[&str]) -> Arc<Manifest> {
    let mut manifest = Manifest::empty(DatabaseId(1));
    for sql in statements {
        for statement in parse(sql, "public", &StatementLimits::default()).unwrap() {
            let Statement::Steps(steps) = statement else { panic!("{sql}") };
            manifest = commit(&manifest, steps);
        }
    }
    Arc::new(manifest)
}

fn commit(manifest: &Manifest, steps: Vec<Step>) -> Manifest {
    let at = manifest.seq().next();
    let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: manifest.seq(), steps };
    let transaction = match rebase(&intent, manifest, at, 0) {
        Ok(Rebased::Commit { transaction, .. }) => transaction,
        other => panic!("{intent:?}: {other:?}"),
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
    let hash = encode_header(&header).unwrap().hash;
    manifest.apply(&header, hash).unwrap().manifest
}

fn section(time: (i64, i64), partitions: &[(i64, u64)]) -> SectionDraft {
    SectionDraft {
        segment: None,
        offset: 5,
        len: 1_000,
        crc32c: 0,
        rows: partitions.iter().map(|(_, rows)| rows).sum(),
        time: Some(time),
        partitions: partitions.iter().map(|(p, rows)| (Partition(*p), *rows)).collect(),
        null_counts: vec![0],
    }
}

/// One line per row, values separated by `|`.
fn lines(columns: &[ArrayRef]) -> Vec<String> {
    let value = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
    let rows = columns[0].len();
    (0..rows).map(|row| columns.iter().map(|c| value(c, row)).collect::<Vec<_>>().join("|")).collect()
}

#[test]
fn rows_tell_what_the_manifest_holds() {
    const DAY: i64 = 86_400;
    let manifest = state(&[
        "CREATE SCHEMA s",
        "CREATE TABLE s.\"T\" (ts TIMESTAMP(0), \"B c\" INT) ORDER BY (\"B c\", ts) WITH (compression = lz4)",
        "CREATE TABLE a (n INT)",
    ]);
    let name = TableName::new("s", "T");
    let table = manifest.table_named(&name).unwrap();
    let append = AppendIntent {
        name,
        target: AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() },
        policy: SchemaPolicy::Strict,
        on_conflict: None,
        fields: vec![ColumnSpec {
            name: "ts".into(),
            data_type: table.schema().columns[0].data_type.clone(),
            nullable: false,
        }],
        sections: vec![section((10, DAY + 20), &[(0, 3), (1, 1)])],
    };
    let manifest = commit(&manifest, vec![Step::Append(append)]);

    assert_eq!(
        lines(&rows::tables(&manifest)),
        [
            "2|public|a||none||||0|0|0|0|||3|1",
            "1|s|T|ts|day|\"B c\", ts||compression = lz4|4|1000|0|4|1970-01-01T00:00:10|1970-01-02T00:00:20|2|1",
        ]
    );
    assert_eq!(
        lines(&rows::partitions(&manifest)),
        [
            "1|T|1970-01-01|3|750|0|3|1970-01-01T00:00:10|1970-01-01T23:59:59",
            "1|T|1970-01-02|1|250|0|1|1970-01-02T00:00:00|1970-01-02T00:00:20",
        ]
    );
    assert_eq!(
        lines(&rows::sections(&manifest)),
        ["4|0|1|T|4|1000|1970-01-01T00:00:10|1970-01-02T00:00:20|log/00000000000000000004.commit|5"]
    );
    assert!(lines(&rows::files(&manifest)).is_empty());
    let manifest = commit(
        &manifest,
        vec![Step::SetSettings { settings: vec![("checkpoint_commits".into(), Some("7".into()))] }],
    );
    let settings = lines(&rows::settings(&manifest, &[]));
    assert!(
        settings.iter().any(|line| line.starts_with("checkpoint_commits|7|1000|database|")),
        "{settings:?}"
    );
    assert!(settings.iter().any(|line| line.starts_with("compression|zstd|zstd|table|")), "{settings:?}");
}

#[test]
fn every_row_has_all_columns() {
    let manifest = state(&["CREATE TABLE a (ts TIMESTAMP)"]);
    let columns = [
        (Kind::Tables, rows::tables(&manifest)),
        (Kind::Partitions, rows::partitions(&manifest)),
        (Kind::Files, rows::files(&manifest)),
        (Kind::Sections, rows::sections(&manifest)),
        (Kind::Settings, rows::settings(&manifest, &[])),
        (Kind::Queries, rows::queries(&[], &[])),
    ];
    for (kind, columns) in columns {
        arrow::array::RecordBatch::try_new(kind.schema(), columns)
            .unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
    }
}
