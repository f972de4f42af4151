//! Chores that a node does on request: compaction, checkpoints, and telling how it is.

use std::io::Write;

use arrow::array::AsArray;
use serde_json::{Map, Value, json};
use tandem_client::{Client, table_path};
use tandem_types::{Error, Result};

use crate::target::Target;

/// Rewrite tables' tails and small files into large ones
#[derive(clap::Args, Clone, Debug)]
pub struct CompactArgs {
    /// Tables, as `table` or `schema.table`; all when none is given
    #[arg(value_name = "TABLE")]
    pub tables: Vec<String>,
    /// The same as TABLE
    #[arg(short, long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Write a checkpoint, so that nodes start faster
#[derive(clap::Args, Clone, Debug)]
pub struct CheckpointArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Say how a node is doing
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Compacts tables one after the other, at the server of `urls`.
pub async fn compact(args: &CompactArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    let mut tables = [args.tables.as_slice(), &args.table].concat();
    if tables.is_empty() {
        tables = all_tables(&client).await?;
    }
    for table in &tables {
        table_path(table)?;
        let body = json!({ "table": table }).to_string();
        let answers = client.action("tandem.Compact", body).await?;
        if !args.json {
            print_line(&format!("table {table}"))?;
        }
        print_answers(&answers, args.json)?;
    }
    Ok(())
}

/// Has the server of `urls` write a checkpoint.
pub async fn checkpoint(args: &CheckpointArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    print_answers(&client.action("tandem.Checkpoint", "{}").await?, args.json)
}

/// Prints what the server of `urls` says of itself.
pub async fn status(args: &StatusArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    print_answers(&client.action("tandem.Status", "{}").await?, args.json)
}

async fn all_tables(client: &Client) -> Result<Vec<String>> {
    let sql =
        "SELECT CAST(schema_name AS VARCHAR), CAST(table_name AS VARCHAR) FROM system.tables ORDER BY 1, 2";
    let mut tables = Vec::new();
    for batch in client.query(sql).await?.collect().await? {
        let (Some(schemas), Some(names)) =
            (batch.column(0).as_string_opt::<i32>(), batch.column(1).as_string_opt::<i32>())
        else {
            return Err(Error::internal("the server listed its tables in an unknown form"));
        };
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        let both = schemas.iter().flatten().zip(names.iter().flatten());
        tables.extend(both.map(|(schema, name)| format!("{}.{}", quote(schema), quote(name))));
    }
    Ok(tables)
}

fn print_answers(answers: &[impl AsRef<[u8]>], json: bool) -> Result<()> {
    for answer in answers {
        let text = String::from_utf8_lossy(answer.as_ref());
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if !json => print_line(&pairs(&value))?,
            Ok(value) => print_line(&value.to_string())?,
            Err(_) => print_line(text.trim_end())?,
        }
    }
    Ok(())
}

fn print_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))
}

/// An object as aligned lines `name  value`, nested names joined by dots.
fn pairs(value: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, text)| format!("{name:<width$}  {text}")).collect();
    lines.join("\n")
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => flatten_members(name, members, rows),
        Value::Array(items) if items.iter().any(|v| v.is_object() || v.is_array()) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&format!("{name}[{i}]"), item, rows);
            }
        }
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

fn flatten_members(name: &str, members: &Map<String, Value>, rows: &mut Vec<(String, String)>) {
    for (key, value) in members {
        let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        flatten(&path, value, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_printed_as_aligned_pairs() {
        let value = json!({"seq": 7, "store": {"url": "file:///x", "ok": true}, "roles": ["writer"], "n": [{"a": 1}]});
        let text = pairs(&value);
        assert!(text.contains("seq        7"), "{text}");
        assert!(text.contains("store.url  file:///x"), "{text}");
        assert!(text.contains("store.ok   true"), "{text}");
        assert!(text.contains("roles      [\"writer\"]"), "{text}");
        assert!(text.contains("n[0].a     1"), "{text}");
    }
}
