//! The session against a backend in memory.

use std::io::Write;
use std::sync::{Arc, Mutex};

use arrow::array::{Int64Array, RecordBatch};
use arrow_schema::Schema;
use futures::StreamExt;
use tandem_client::{QueryResult, Written};
use tandem_types::{Error, Result};

use super::output::Output;
use super::session::{Flow, Session, Settings};
use super::{Format, SqlBackend};

/// Answers `rows N` with N rows, `write` with a commit, and notes what it was asked.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
}

impl SqlBackend for &Fake {
    async fn execute(&self, sql: &str) -> Result<QueryResult> {
        self.asked.lock().unwrap().push(sql.to_owned());
        if sql == "again" {
            let acked = Some("quorum(1/1)".to_owned());
            let written = Written { seq: 7, rows: Some(2), duplicate: true, acked, ..Written::default() };
            let schema = Arc::new(Schema::empty());
            return Ok(QueryResult::new(schema, Some(written), futures::stream::empty().boxed()));
        }
        if sql == "write" {
            let written = Written { seq: 7, rows: Some(2), ..Written::default() };
            let schema = Arc::new(Schema::empty());
            return Ok(QueryResult::new(schema, Some(written), futures::stream::empty().boxed()));
        }
        let Some(rows) = sql.strip_prefix("rows ").and_then(|n| n.trim().parse::<i64>().ok()) else {
            return Err(Error::invalid(format!("no such statement: {sql}")));
        };
        let column = Int64Array::from_iter_values(0..rows);
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap();
        Ok(QueryResult::new(batch.schema(), None, futures::stream::iter([Ok(batch)]).boxed()))
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn run(text: &str) -> (Result<Flow>, String, Vec<String>) {
    let fake = Fake::default();
    let sink = Sink::default();
    let settings = Settings { format: Format::Csv, timing: false, quiet: true, rows_max: None };
    let mut session = Session::new(&fake, settings, Output::to("memory", Box::new(sink.clone())));
    let outcome = session.run_text(text).await;
    drop(session);
    let printed = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    (outcome, printed, fake.asked.into_inner().unwrap())
}

#[tokio::test]
async fn statements_and_meta_commands_run_in_order_until_quit() {
    let (outcome, printed, asked) = run("rows 2;\n\\format ndjson\nrows 1; write;\n\\q\nrows 9;").await;
    assert_eq!(outcome.unwrap(), Flow::Quit);
    assert_eq!(printed, "n\n0\n1\n{\"n\":0}\n{\"rows\":2,\"seq\":7}\n");
    assert_eq!(asked, ["rows 2", "rows 1", "write"]);

    let (outcome, printed, _) = run("\\format json\nagain;").await;
    outcome.unwrap();
    assert_eq!(printed, "{\"acked\":\"quorum(1/1)\",\"duplicate\":true,\"rows\":2,\"seq\":7}\n");
}

#[tokio::test]
async fn the_first_error_ends_a_script() {
    let (outcome, _, asked) = run("rows 1; nonsense; rows 2").await;
    assert!(outcome.unwrap_err().message().contains("nonsense"));
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_copy_is_written_here_and_leaves_no_partial_file() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "a.csv", "a.csv.gz", "a.ndjson.zst", "a.json", "a.arrow"] {
        let path = dir.path().join(name);
        let (outcome, ..) = run(&format!("COPY (rows 3) TO '{}';", path.display())).await;
        outcome.unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() >= 8, "{name}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("a.csv")).unwrap(), "n\n0\n1\n2\n");
    let json = std::fs::read(dir.path().join("a.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&json).unwrap().len(), 3);
    let zst = std::fs::File::open(dir.path().join("a.ndjson.zst")).unwrap();
    assert_eq!(std::io::read_to_string(zstd::Decoder::new(zst).unwrap()).unwrap().lines().count(), 3);

    let (outcome, ..) = run(&format!("COPY (oops) TO '{}'", dir.path().join("b.csv").display())).await;
    outcome.unwrap_err();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
}

#[tokio::test]
async fn output_goes_to_a_file_and_scripts_include_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let (script, out) = (dir.path().join("s.sql"), dir.path().join("o.csv"));
    std::fs::write(&script, "rows 1;\n").unwrap();
    let text = format!("\\o {}\n\\i {}\n\\o\n", out.display(), script.display());
    let (outcome, printed, _) = run(&text).await;
    outcome.unwrap();
    assert_eq!(printed, "");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "n\n0\n");

    std::fs::write(&script, format!("\\i {}\n", script.display())).unwrap();
    let (outcome, ..) = run(&format!("\\i {}", script.display())).await;
    assert!(outcome.unwrap_err().message().contains("too deep"));
}
