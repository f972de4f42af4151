//! `CREATE TABLE` in all its forms, `CREATE SCHEMA`.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_manifest::{ColumnSpec, Step, TableSpec};
use tandem_types::Result;

use super::front::{Front, writable_schema};
use super::{Statement, options, refuse, types};

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
    let columns = front.at_token(0, &Token::LParen).then(|| columns(front)).transpose()?;
    let mut spec = TableSpec { columns: columns.clone().unwrap_or_default(), ..TableSpec::default() };
    clauses(front, &mut spec)?;
    match columns {
        None => {
            if !front.word("as") {
                return Err(front.expected("columns in parentheses, or AS and a query"));
            }
            let query = front.query()?;
            Ok(Statement::CreateTableAs { name, spec, if_not_exists, or_replace, query })
        }
        Some(_) if front.at_word(0, "as") => {
            Err(front.unsupported("CREATE TABLE AS takes its columns from the query, not from a list"))
        }
        Some(_) => {
            let step = Step::CreateTable { name, spec, if_not_exists, replace: or_replace };
            Ok(Statement::Steps(vec![step]))
        }
    }
}

fn columns(front: &mut Front<'_>) -> Result<Vec<ColumnSpec>> {
    front.expect(&Token::LParen)?;
    let mut columns: Vec<ColumnSpec> = Vec::new();
    if front.token(&Token::RParen) {
        return Ok(columns);
    }
    loop {
        if let Some(refused) = refuse::constraint(front) {
            return Err(refused);
        }
        let place = front.place();
        let column = column(front)?;
        if columns.iter().any(|c| c.name == column.name) {
            let name = &column.name;
            return Err(tandem_types::Error::invalid(format!("{place}: column {name:?} is declared twice")));
        }
        columns.push(column);
        if front.list_ends()? {
            return Ok(columns);
        }
    }
}

/// `name type [NOT NULL | NULL]`.
pub(super) fn column(front: &mut Front<'_>) -> Result<ColumnSpec> {
    let name = front.name("a column's name")?;
    let data_type = types::data_type(front, &name)?;
    let mut nullable = None;
    loop {
        let place = front.place();
        let said = if front.words(&["not", "null"]) {
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
    Ok(ColumnSpec { name, data_type, nullable: nullable.unwrap_or(true) })
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

/// `[TIMESTAMP(c)] [PARTITION BY unit] [ORDER BY (…)] [WITH (…)]`, in any order, each once.
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
        } else if let Some(refused) = refuse::constraint(front) {
            return Err(refused);
        } else if let Some(word) = ["dedup", "ttl"].iter().find(|word| front.at_word(0, word)) {
            return Err(front.unsupported(format_args!("{} is not supported yet", word.to_uppercase())));
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
