//! `tandem restore`: brings a database or a table back to what it was, in place.

use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use serde_json::{Value, json};
use tandem_client::{Client, table_path};
use tandem_types::{Error, Result};

use crate::place::spelled;
use crate::target::Target;

/// Bring a database, or one table, back to what it was at a moment of the past
///
/// It is one new commit that undoes: tables that have changed since become what they were, those that were dropped come
/// back, those that were created are dropped, and settings are set back. Nothing of the history is lost by it, so that
/// it can be undone in the same way. The past reaches as far back as the setting history_window says.
///
/// What would change is printed first. Writers should rest meanwhile: what they commit to a changed table before the
/// restore is undone with the rest.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem restore --as-of 2024-05-01T12:00:00Z --dry-run   say what would change
  tandem restore --as-of seq:1234                         all tables and settings, as after commit 1234
  tandem restore --as-of seq:1234 --table trades          one table
  tandem sql -c \"SELECT seq, commit_time, kind FROM system.log ORDER BY seq DESC LIMIT 20\"
  tandem sql -c \"UNDROP TABLE trades\"                     the state right before a table was dropped")]
pub struct RestoreArgs {
    /// The moment: a time such as 2024-05-01T12:00:00Z, or the seq of a commit, as seq:1234
    #[arg(long, value_name = "TIME|SEQ")]
    pub as_of: String,
    /// This table alone, as `table` or `schema.table`
    #[arg(short, long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// One line of what changes.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    kind: String,
    name: String,
    action: String,
    rows_now: Option<u64>,
    rows_then: Option<u64>,
}

/// Restores at the server of `urls`.
pub async fn run(args: &RestoreArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    let statement = statement(&args.as_of, args.table.as_deref())?;
    if !args.json {
        eprintln!("comparing what is there with what was there as of {}", args.as_of);
    }
    let plan = client.query(&format!("EXPLAIN {statement}")).await?.collect().await?;
    let changes = plan.iter().map(changes).collect::<Result<Vec<_>>>()?.concat();
    if !args.json {
        print(&changes.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    let idle = args.dry_run || changes.is_empty();
    let done = if idle { None } else { Some(client.execute(&statement).await?) };
    if args.json {
        let changes: Vec<Value> = changes.iter().map(value).collect();
        let answer = json!({
            "as_of": args.as_of,
            "dry_run": args.dry_run,
            "changes": changes,
            "seq": done.map(|written| written.seq),
        });
        return print(&answer.to_string());
    }
    match done {
        Some(written) => {
            let before = written.seq.saturating_sub(1);
            eprintln!(
                "done by commit {}; --as-of seq:{before} brings back what was there before it",
                written.seq
            );
        }
        None if changes.is_empty() => eprintln!("everything is as it was then: there is nothing to do"),
        None => eprintln!("nothing was changed"),
    }
    Ok(())
}

/// The statement that does it.
fn statement(as_of: &str, table: Option<&str>) -> Result<String> {
    let moment = moment(as_of);
    match table {
        None => Ok(format!("RESTORE DATABASE TO {moment}")),
        Some(table) => {
            let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
            let path: Vec<String> = table_path(table)?.iter().map(quoted).collect();
            Ok(format!("RESTORE TABLE {} TO {moment}", path.join(".")))
        }
    }
}

/// A moment as SQL says it.
pub fn moment(text: &str) -> String {
    format!("'{}'", spelled(text).replace('\'', "''"))
}

fn changes(batch: &RecordBatch) -> Result<Vec<Change>> {
    let unknown = || Error::internal("the server answered in an unknown form");
    let text = |i: usize| batch.columns().get(i).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(unknown);
    let rows = |i: usize| {
        batch.columns().get(i).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(unknown)
    };
    let (kinds, names, actions) = (text(0)?, text(1)?, text(2)?);
    let (now, then) = (rows(3)?, rows(4)?);
    Ok((0..batch.num_rows())
        .map(|row| Change {
            kind: kinds.value(row).to_owned(),
            name: names.value(row).to_owned(),
            action: actions.value(row).to_owned(),
            rows_now: now.is_valid(row).then(|| now.value(row)),
            rows_then: then.is_valid(row).then(|| then.value(row)),
        })
        .collect())
}

fn line(change: &Change) -> String {
    let Change { kind, name, action, rows_now, rows_then } = change;
    let rows = match (rows_now, rows_then) {
        (Some(now), Some(then)) => format!(": {now} rows now, {then} then"),
        (Some(now), None) => format!(": {now} rows"),
        (None, Some(then)) => format!(": {then} rows then"),
        (None, None) => String::new(),
    };
    format!("{action} {kind} {name}{rows}")
}

fn value(change: &Change) -> Value {
    let Change { kind, name, action, rows_now, rows_then } = change;
    json!({ "kind": kind, "name": name, "action": action, "rows_now": rows_now, "rows_then": rows_then })
}

fn print(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_quoted() {
        let said = |as_of, table| statement(as_of, table).unwrap();
        assert_eq!(said("seq:7", None), "RESTORE DATABASE TO 'seq:7'");
        assert_eq!(said(" 7 ", Some("t")), "RESTORE TABLE \"t\" TO 'seq:7'");
        assert_eq!(
            said("2024-05-01T12:00:00Z", Some("s.T")),
            "RESTORE TABLE \"s\".\"T\" TO '2024-05-01T12:00:00Z'"
        );
        assert_eq!(said("x'; DROP", None), "RESTORE DATABASE TO 'x''; DROP'");
    }

    #[test]
    fn changes_are_lines() {
        let change = |rows_now, rows_then| Change {
            kind: "table".to_owned(),
            name: "public.t".to_owned(),
            action: "restore".to_owned(),
            rows_now,
            rows_then,
        };
        assert_eq!(line(&change(Some(3), Some(2))), "restore table public.t: 3 rows now, 2 then");
        assert_eq!(line(&change(None, Some(2))), "restore table public.t: 2 rows then");
        assert_eq!(line(&change(Some(3), None)), "restore table public.t: 3 rows");
        assert_eq!(line(&change(None, None)), "restore table public.t");
    }
}
