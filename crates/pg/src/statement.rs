//! One statement: what it is, what it takes and what it yields.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::BoxStream;
use tandem_sql::Prepared;
use tandem_sql::text::leading;
use tandem_types::Result;

use crate::catalog::Question;
use crate::local::{Control, Local};
use crate::message::{ColumnInfo, Format};
use crate::suit::Use;
use crate::types::column_info;

/// A statement, prepared.
pub(crate) struct Statement {
    /// Nothing is left of it but space and comments.
    pub kind: Kind,
    /// The words that its command tag begins with.
    pub tag: String,
    /// Of the parameters, as they are told to the client.
    pub types: Vec<u32>,
    /// Of its rows; `None` where it yields none.
    pub schema: Option<SchemaRef>,
    /// Of its text.
    pub bytes: usize,
}

pub(crate) enum Kind {
    Empty,
    Engine(Prepared),
    Catalog(Question),
    Local(Local),
}

impl Statement {
    pub fn columns(&self) -> Option<Vec<ColumnInfo>> {
        let schema = self.schema.as_ref()?;
        Some(columns_of(schema))
    }

    /// Whether it is the end of a transaction, which one that has failed takes, or nothing at all.
    pub fn ends_transaction(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Local(Local::Transaction(control)) => {
                matches!(control, Control::Commit | Control::Rollback | Control::RollbackTo(_))
            }
            _ => false,
        }
    }

    /// Whether it writes, and can be one of several in a transaction.
    pub fn can_join(&self) -> bool {
        match &self.kind {
            Kind::Engine(prepared) => !prepared.is_query() && can_join(prepared.sql()),
            Kind::Local(Local::Copy(copy)) => copy.writes(),
            _ => false,
        }
    }

    /// What becomes of its parameters.
    pub fn uses(&self) -> Use {
        if self.tag == "INSERT" { Use::Stored } else { Use::Compared }
    }
}

/// The columns of rows, as clients are told of them.
pub(crate) fn columns_of(schema: &SchemaRef) -> Vec<ColumnInfo> {
    schema.fields().iter().map(|field| column_info(field)).collect()
}

/// A statement bound to its parameters.
pub(crate) struct Portal {
    pub statement: Arc<Statement>,
    pub parameters: Option<RecordBatch>,
    pub results: Vec<Format>,
    /// What it yields, once it was begun.
    pub running: Option<Running>,
    /// It ran to its end.
    pub done: bool,
    /// Of its parameters.
    pub bytes: usize,
}

/// Rows on their way.
pub(crate) struct Running {
    pub schema: SchemaRef,
    pub stream: BoxStream<'static, Result<RecordBatch>>,
    /// Half sent: the batch, and how many of its rows are gone.
    pub pending: Option<(RecordBatch, usize)>,
    pub sent: u64,
    /// Of the clock that never steps back; `None`: it may take all the time it wants.
    pub until: Option<Duration>,
}

/// What a statement came to.
pub(crate) enum Outcome {
    Rows(Running),
    /// The command tag.
    Done(String),
}

/// The words of a command tag, such as `INSERT` or `CREATE TABLE`.
pub(crate) fn tag_of(sql: &str) -> String {
    let words = leading(sql, 6);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let first = word(0).to_uppercase();
    match word(0) {
        "create" | "drop" | "alter" | "truncate" | "optimize" | "undrop" | "restore" | "cancel" => {
            let or_replace = if word(1) == "or" && word(2) == "replace" { 3 } else { 1 };
            match word(or_replace) {
                second @ ("table" | "schema" | "database" | "view" | "index" | "query") => {
                    format!("{first} {}", second.to_uppercase())
                }
                _ if first == "TRUNCATE" || first == "OPTIMIZE" => format!("{first} TABLE"),
                _ => first,
            }
        }
        "with" | "values" | "table" | "from" | "(" | "explain" | "describe" | "desc" => "SELECT".to_owned(),
        "use" | "reset" => "SET".to_owned(),
        _ => first,
    }
}

/// A tag with its count, where it has one.
pub(crate) fn counted_tag(tag: &str, rows: Option<u64>) -> String {
    match (tag, rows) {
        ("INSERT", Some(rows)) => format!("INSERT 0 {rows}"),
        ("UPDATE" | "DELETE" | "COPY" | "SELECT", Some(rows)) => format!("{tag} {rows}"),
        // The rows of a table made of a query.
        ("CREATE TABLE", Some(rows)) => format!("SELECT {rows}"),
        // Rows that nobody has counted.
        _ => tag.to_owned(),
    }
}

/// Whether it changes rows or tables, and can be one of several in a transaction.
pub(crate) fn can_join(sql: &str) -> bool {
    let words = leading(sql, 2);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        "insert" | "update" | "delete" | "truncate" => true,
        "create" | "drop" | "alter" => word(1) != "database",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_postgresql() {
        for (sql, tag) in [
            ("/* x */ insert into t values (1)", "INSERT"),
            ("create or replace table t (a int)", "CREATE TABLE"),
            ("CREATE TABLE IF NOT EXISTS t (a int)", "CREATE TABLE"),
            ("truncate t", "TRUNCATE TABLE"),
            ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
            ("checkpoint", "CHECKPOINT"),
            ("use a", "SET"),
        ] {
            assert_eq!(tag_of(sql), tag, "{sql}");
        }
        assert_eq!(counted_tag("INSERT", Some(3)), "INSERT 0 3");
        assert_eq!(counted_tag("UPDATE", None), "UPDATE");
        assert_eq!(counted_tag("CREATE TABLE", Some(2)), "SELECT 2");
    }

    #[test]
    fn what_must_stand_alone_is_left_out_of_transactions() {
        assert!(can_join("INSERT INTO t VALUES (1)") && can_join("create table t (a int)"));
        assert!(
            !can_join("ALTER DATABASE SET (mode = 'x')") && !can_join("CHECKPOINT") && !can_join("SELECT 1")
        );
    }
}
