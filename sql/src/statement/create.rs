//! `CREATE TABLE` in all its forms, `CREATE SCHEMA`.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_manifest::{ColumnSpec, Step, TableSpec};
use tandem_types::Result;

use super::front::{Front, writable_schema};
use super::{Statement, key, options, refuse, types};

/// After the word `CREATE`.
pub(super) fn create(front: &mut Front<'_>) -> Result<Statement> {
    let or_replace = front.words(&["or", "replace"]);
    if front.word("table") {
        return table(front, or_replace);
    }
    if front.at_word(0, "schema") && !or_replace {
        front.word("schema");
        return schema(front);
    }
    Err(refuse::object(front, if or_replace { "CREATE OR REPLACE" } else { "CREATE" }, "TABLE or SCHEMA"))
}

fn schema(front: &mut Front<'_>) -> Result<Statement> {
    let if_not_exists = front.words(&["if", "not", "exists"]);
    let place = front.place();
    let name = front.schema_name()?;
    writable_schema(&name).map_err(|e| e.context(place))?;
    Ok(Statement::Steps(vec![Step::CreateSchema { name, if_not_exists }]))
}

fn table(front: &mut Front<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = front.words(&["if", "not", "exists"]);
    if or_replace && if_not_exists {
        return Err(front.invalid("OR REPLACE and IF NOT EXISTS exclude each other"));
    }
    let name = front.target()?;
    let mut spec = TableSpec::default();
    let declared = front.at_token(0, &Token::LParen);
    if declared {
        columns(front, &mut spec)?;
    }
    clauses(front, &mut spec)?;
    match declared {
        false => {
            if !front.word("as") {
                return Err(front.expected("columns in parentheses, or AS and a query"));
            }
            let query = front.query()?;
            Ok(Statement::CreateTableAs { name, spec, if_not_exists, or_replace, query })
        }
        true if front.at_word(0, "as") => {
            Err(front.unsupported("CREATE TABLE AS takes its columns from the query, not from a list"))
        }
        true => {
            let step = Step::CreateTable { name, spec, if_not_exists, replace: or_replace };
            Ok(Statement::Steps(vec![step]))
        }
    }
}

/// Columns, and at most one primary key, of one of them or of several.
fn columns(front: &mut Front<'_>, spec: &mut TableSpec) -> Result<()> {
    front.expect(&Token::LParen)?;
    if front.token(&Token::RParen) {
        return Ok(());
    }
    loop {
        let place = front.place();
        let key = if key::at_primary_key(front) {
            key::clause(front)?
        } else {
            if let Some(refused) = refuse::constraint(front) {
                return Err(refused);
            }
            let (column, is_key) = declaration(front)?;
            let name = column.name.clone();
            if spec.columns.iter().any(|c| c.name == name) {
                return Err(tandem_types::Error::invalid(format!(
                    "{place}: column {name:?} is declared twice"
                )));
            }
            spec.columns.push(column);
            is_key.then(|| vec![name])
        };
        if key.is_some() && std::mem::replace(&mut spec.primary_key, key).is_some() {
            return Err(tandem_types::Error::invalid(format!("{place}: a table has one primary key")));
        }
        if front.list_ends()? {
            return Ok(());
        }
    }
}

/// `name type [NOT NULL | NULL]`.
pub(super) fn column(front: &mut Front<'_>) -> Result<ColumnSpec> {
    let place = front.place();
    match declaration(front)? {
        (column, false) => Ok(column),
        (column, true) => Err(tandem_types::Error::unsupported(format!(
            "{place}: column {:?}: a table's key is decided when the table is created",
            column.name
        ))),
    }
}

/// `name type [NOT NULL | NULL] [PRIMARY KEY]`, and whether the last was said.
fn declaration(front: &mut Front<'_>) -> Result<(ColumnSpec, bool)> {
    let name = front.name("a column's name")?;
    let data_type = types::data_type(front, &name)?;
    let mut nullable = None;
    let mut is_key = false;
    loop {
        let place = front.place();
        let said = if front.words(&["primary", "key"]) {
            // Of the column it says NOT NULL as well.
            is_key = true;
            false
        } else if front.words(&["not", "null"]) {
            false
        } else if front.word("null") {
            true
        } else {
            break;
        };
        if nullable.replace(said).is_some_and(|before| before != said) {
            return Err(tandem_types::Error::invalid(format!(
                "{place}: column {name:?} is both NULL and NOT NULL"
            )));
        }
    }
    if let Some(refused) = column_option(front, &name) {
        return Err(refused);
    }
    Ok((ColumnSpec { name, data_type, nullable: nullable.unwrap_or(true) }, is_key))
}

fn column_option(front: &Front<'_>, column: &str) -> Option<tandem_types::Error> {
    const REFUSED: &[&str] = &[
        "default",
        "unique",
        "check",
        "references",
        "generated",
        "collate",
        "comment",
        "auto_increment",
        "autoincrement",
        "identity",
        "as",
        "on",
        "index",
        "capacity",
        "cache",
        "nocache",
        "character",
    ];
    // After a table's columns `AS` begins a query; within them it begins a computed column.
    if let Some(refused) = refuse::constraint(front) {
        return Some(refused);
    }
    let word = REFUSED.iter().find(|word| front.at_word(0, word))?;
    Some(front.unsupported(format_args!("column {column:?}: {} is not supported", word.to_uppercase())))
}

/// `[TIMESTAMP(c)] [PARTITION BY unit] [ORDER BY (…)] [PRIMARY KEY (…)] [WITH (…)]`, in any order, each once;
/// `DEDUP UPSERT KEYS (…)` is `PRIMARY KEY (…)`.
fn clauses(front: &mut Front<'_>, spec: &mut TableSpec) -> Result<()> {
    let mut with = false;
    loop {
        let twice = front.invalid("this clause is there twice");
        if front.at_word(0, "timestamp") {
            if spec.timestamp.is_some() {
                return Err(twice);
            }
            front.word("timestamp");
            front.expect(&Token::LParen)?;
            spec.timestamp = Some(front.name("the designated timestamp's name")?);
            front.expect(&Token::RParen)?;
        } else if front.at_words(&["partition", "by"]) {
            if spec.partition_by.is_some() {
                return Err(twice);
            }
            front.words(&["partition", "by"]);
            let place = front.place();
            let unit = front.name("HOUR, DAY, WEEK, MONTH, YEAR or NONE")?;
            spec.partition_by = Some(options::partition_unit(&unit).map_err(|e| e.context(place))?);
        } else if front.at_words(&["order", "by"]) {
            if spec.order_by.is_some() {
                return Err(twice);
            }
            front.words(&["order", "by"]);
            spec.order_by = Some(sort_columns(front)?);
        } else if front.at_word(0, "with") {
            if std::mem::replace(&mut with, true) {
                return Err(twice);
            }
            front.word("with");
            options::table_options(front, spec)?;
        } else if let Some(key) = key::clause(front)? {
            if spec.primary_key.replace(key).is_some() {
                return Err(twice);
            }
        } else if let Some(refused) = refuse::constraint(front) {
            return Err(refused);
        } else if front.at_word(0, "ttl") {
            return Err(front.unsupported("TTL is said as an option: WITH (ttl = '90d')"));
        } else {
            return Ok(());
        }
    }
}

fn sort_columns(front: &mut Front<'_>) -> Result<Vec<String>> {
    front.expect(&Token::LParen)?;
    let mut names = Vec::new();
    if front.token(&Token::RParen) {
        return Ok(names);
    }
    loop {
        names.push(front.name("a column's name")?);
        front.word("asc");
        if front.at_word(0, "desc") || front.at_word(0, "nulls") {
            return Err(front.unsupported("a table is sorted in ascending order, nulls by DataFusion's rule"));
        }
        if front.list_ends()? {
            return Ok(names);
        }
    }
}
