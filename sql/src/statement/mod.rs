//! Text to statements.
//!
//! A statement passes four gates, each before the next: bounds on the text ([`StatementLimits`]), tokens
//! (`?` becomes `$n`), our own front end for everything that changes the database, and for queries the
//! SQL parser followed by an allow-list. What no gate knows is refused by name: nothing is skipped
//! or taken to mean less than it says.
//!
//! Names follow PostgreSQL's rule: unquoted ones are folded to lower case, quoted ones are taken as they
//! are. Errors begin with the place, `line 1, column 8: …`.
//!
//! This module knows no state: whether a table exists, and whether a change fits it, is decided when the
//! statement runs.

mod alter;
mod as_of;
mod conflict;
mod create;
mod dml;
mod front;
mod key;
mod limits;
mod options;
mod query;
mod refuse;
mod restore;
mod session;
mod tokens;
mod transaction;
mod types;

#[cfg(test)]
mod tests;

pub use conflict::Conflict;
pub use dml::Dml;
pub use front::quote_name;
pub use limits::StatementLimits;
pub use restore::Restore;
pub use transaction::Control;
pub use types::type_name;

use datafusion::sql::parser;
use datafusion::sql::sqlparser::ast;
use tandem_manifest::{Step, TableSpec};
use tandem_types::{Result, TableName};

use front::Front;

/// Schemas that the system itself fills.
pub const READ_ONLY_SCHEMAS: [&str; 2] = ["system", "information_schema"];

/// A statement, understood but not bound to any state.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `SELECT`, `VALUES`, `EXPLAIN` of them: for DataFusion's planner.
    Query(Box<parser::Statement>),
    /// A question about the schema; [`Show::query`](crate::show::Show::query) turns it into a query on a state.
    Show(Show),
    /// No columns named: all of the table's, in order.
    Insert {
        table: TableName,
        columns: Vec<String>,
        source: Box<ast::Query>,
        conflict: Option<Conflict>,
    },
    Dml(Dml),
    /// The columns of `spec` are those of the query, which only its plan tells.
    CreateTableAs {
        name: TableName,
        spec: TableSpec,
        if_not_exists: bool,
        or_replace: bool,
        query: Box<ast::Query>,
    },
    /// Changes of schema and settings, and `TRUNCATE`: one transaction, never empty.
    Steps(Vec<Step>),
    /// Brings the past back; `explain`: says what that would change.
    Restore {
        restore: Restore,
        explain: bool,
    },
    /// Partitions by their labels.
    DropPartitions {
        table: TableName,
        labels: Vec<String>,
    },
    Optimize {
        table: TableName,
    },
    Checkpoint,
    CancelQuery {
        id: String,
    },
    /// Sets an option of the session; `None` resets it.
    Set {
        name: String,
        value: Option<String>,
    },
    /// Begins or ends a transaction, or a part of one.
    Transaction(Control),
    /// Shows an option of the session; `None` shows them all.
    ShowSetting {
        name: Option<String>,
    },
}

/// A question about the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// Of one schema, or of all but the read-only ones.
    Tables {
        schema: Option<String>,
        like: Option<String>,
    },
    Schemas {
        like: Option<String>,
    },
    Columns {
        table: TableName,
    },
    CreateTable {
        table: TableName,
    },
}

/// Parses statements separated by `;`. Empty ones are skipped, so the result may be empty.
///
/// The SQL parser recurses: run this on a thread with a stack of 8 MiB or more, which what the default
/// limits let through does not exhaust even in a build without optimizations.
///
/// Placeholders come out as `$1`, `$2` …, whether they were written so or as `?`.
pub fn parse(sql: &str, default_schema: &str, limits: &StatementLimits) -> Result<Vec<Statement>> {
    limits.check_text(sql)?;
    let mut statements = Vec::new();
    for tokens in tokens::split(tokens::tokenize(sql)?) {
        limits.check_tokens(&tokens)?;
        let (tokens, versions) = as_of::cut(tokens)?;
        let tokens = tokens::number_placeholders(tokens)?;
        let sampled = refuse::sample_by(&tokens);
        let parsed = statement(Front::new(tokens, default_schema).with_versions(versions));
        // Its words read as an alias and something left over, of which nobody would learn what to write instead.
        statements.push(parsed.map_err(|error| sampled.unwrap_or(error))?);
    }
    Ok(statements)
}

fn statement(mut front: Front<'_>) -> Result<Statement> {
    let statement = if front.at_query() {
        Statement::Query(Box::new(query::statement(front.query()?)))
    } else if front.at_words(&["explain", "undrop"]) || front.at_words(&["explain", "restore"]) {
        front.word("explain");
        Statement::Restore { restore: past(&mut front)?, explain: true }
    } else if front.word("explain") {
        query::explain(&mut front)?
    } else if front.at_word(0, "undrop") || front.at_word(0, "restore") {
        Statement::Restore { restore: past(&mut front)?, explain: false }
    } else if front.word("insert") {
        query::insert(&mut front)?
    } else if front.word("update") {
        dml::update(&mut front)?
    } else if front.word("delete") {
        dml::delete(&mut front)?
    } else if front.word("create") {
        create::create(&mut front)?
    } else if front.word("alter") {
        alter::alter(&mut front)?
    } else if front.word("drop") {
        alter::drop(&mut front)?
    } else if front.word("truncate") {
        alter::truncate(&mut front)?
    } else if front.word("show") {
        session::show(&mut front)?
    } else if front.word("describe") || front.word("desc") {
        front.word("table");
        Statement::Show(Show::Columns { table: front.table_name()? })
    } else if front.word("set") {
        session::set(&mut front)?
    } else if front.word("reset") {
        session::reset(&mut front)?
    } else if front.word("use") {
        Statement::Set { name: "schema".to_owned(), value: Some(front.name("a schema's name")?) }
    } else if front.word("optimize") {
        front.word("table");
        Statement::Optimize { table: front.target()? }
    } else if front.word("checkpoint") {
        Statement::Checkpoint
    } else if front.word("cancel") {
        front.expect_word("query")?;
        Statement::CancelQuery { id: front.string("the query's id in quotes")? }
    } else if let Some(control) = transaction::control(&mut front)? {
        control
    } else {
        return Err(refuse::statement(&front));
    };
    front.end()?;
    Ok(statement)
}

/// At the word `UNDROP` or `RESTORE`.
fn past(front: &mut Front<'_>) -> Result<Restore> {
    if front.word("undrop") {
        return restore::undrop(front);
    }
    front.expect_word("restore")?;
    restore::restore(front)
}
