//! `ALTER`, `DROP`, `TRUNCATE`.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_manifest::{Change, Step};
use tandem_types::{Error, Result, TableName};

use super::front::{Front, writable_schema};
use super::{Statement, create, key, options, refuse, restore, types};

/// After the word `ALTER`.
pub(super) fn alter(front: &mut Front<'_>) -> Result<Statement> {
    if front.word("database") {
        return database(front);
    }
    if !front.word("table") {
        return Err(refuse::object(front, "ALTER", "TABLE or DATABASE"));
    }
    if front.at_words(&["if", "exists"]) {
        return Err(front.unsupported("ALTER TABLE IF EXISTS is not supported"));
    }
    let name = front.target()?;
    if front.at_words(&["drop", "partition"]) && !ends_behind(front, 2) {
        front.words(&["drop", "partition"]);
        return restore::drop_partitions(front, name);
    }
    let mut steps = Vec::new();
    loop {
        steps.push(operation(front, &name)?);
        if !front.token(&Token::Comma) {
            return Ok(Statement::Steps(steps));
        }
        if let Some(Step::RenameTable { .. }) = steps.last() {
            return Err(front.invalid("RENAME TO must come last: the table has another name from there on"));
        }
    }
}

/// `ALTER DATABASE SET (k = v)` or `RESET (k)`; the database has no other name than the catalog's.
fn database(front: &mut Front<'_>) -> Result<Statement> {
    let settings = if front.word("set") {
        options::settings(front)?
    } else if front.word("reset") {
        options::resets(front)?
    } else {
        return Err(front.expected("SET or RESET"));
    };
    Ok(Statement::Steps(vec![Step::SetSettings { settings }]))
}

fn operation(front: &mut Front<'_>, table: &TableName) -> Result<Step> {
    let change = if front.word("add") {
        add(front)?
    } else if front.word("drop") {
        drop_column(front)?
    } else if front.word("rename") {
        if front.word("to") {
            return rename_table(front, table);
        }
        front.word("column");
        let name = front.name("a column's name")?;
        front.expect_word("to")?;
        Change::RenameColumn { name, to: front.name("the column's new name")? }
    } else if front.word("alter") {
        alter_column(front)?
    } else if front.word("set") {
        Change::SetOptions { options: options::settings(front)? }
    } else if front.word("reset") {
        Change::SetOptions { options: options::resets(front)? }
    } else {
        if front.at_word(0, "dedup") {
            return Err(front.unsupported("a table's key is decided when the table is created"));
        }
        for word in ["attach", "detach"] {
            if front.at_word(0, word) {
                let what = word.to_uppercase();
                return Err(front.unsupported(format_args!("ALTER TABLE {what} is not supported yet")));
            }
        }
        return Err(front.expected("ADD, DROP, RENAME, ALTER, SET or RESET"));
    };
    Ok(Step::AlterTable { name: table.clone(), change })
}

fn add(front: &mut Front<'_>) -> Result<Change> {
    if key::at_primary_key(front) {
        return Err(front.unsupported("a table's key is decided when the table is created"));
    }
    if let Some(refused) = refuse::constraint(front) {
        return Err(refused);
    }
    if front.at_word(0, "partition") && front.at_token(1, &Token::LParen) {
        return Err(front.unsupported("ADD PARTITION is not supported: partitions come with their rows"));
    }
    front.word("column");
    let if_not_exists = front.words(&["if", "not", "exists"]);
    let column = create::column(front)?;
    if front.at_word(0, "first") || front.at_word(0, "after") {
        return Err(front.unsupported("a column is added behind the others"));
    }
    Ok(Change::AddColumn { column, if_not_exists })
}

/// Whether so many tokens are the last ones of a change: then the last is a name.
fn ends_behind(front: &Front<'_>, tokens: usize) -> bool {
    front.at_token(tokens, &Token::EOF) || front.at_token(tokens, &Token::Comma)
}

fn drop_column(front: &mut Front<'_>) -> Result<Change> {
    if front.at_word(0, "constraint") || front.at_words(&["primary", "key"]) {
        return Err(front.unsupported("DROP of a constraint is not supported"));
    }
    if front.at_word(0, "partition") && !ends_behind(front, 1) {
        return Err(front.unsupported("DROP PARTITION stands alone, without other changes"));
    }
    front.word("column");
    let if_exists = front.words(&["if", "exists"]);
    let name = front.name("a column's name")?;
    dependents(front);
    Ok(Change::DropColumn { name, if_exists })
}

fn alter_column(front: &mut Front<'_>) -> Result<Change> {
    front.word("column");
    let name = front.name("a column's name")?;
    if front.words(&["set", "data", "type"]) || front.word("type") {
        let to = types::data_type(front, &name)?;
        if front.at_word(0, "using") {
            return Err(front.unsupported("a type changes by lossless widening only, without USING"));
        }
        return Ok(Change::WidenColumn { name, to });
    }
    if front.words(&["drop", "not", "null"]) {
        return Ok(Change::DropNotNull { name });
    }
    if front.at_words(&["set", "not", "null"]) {
        return Err(front.unsupported("SET NOT NULL on a column that may hold nulls is not supported"));
    }
    if front.at_word(1, "default") {
        return Err(front.unsupported("DEFAULT on a column is not supported"));
    }
    Err(front.expected("TYPE, SET DATA TYPE or DROP NOT NULL"))
}

/// As in PostgreSQL, a bare new name stays in the table's schema.
fn rename_table(front: &mut Front<'_>, table: &TableName) -> Result<Step> {
    let qualified = front.at_token(1, &Token::Period);
    let to = front.target()?;
    let to = if qualified { to } else { TableName::new(&table.schema, to.table) };
    Ok(Step::RenameTable { name: table.clone(), to })
}

/// After the word `DROP`.
pub(super) fn drop(front: &mut Front<'_>) -> Result<Statement> {
    if front.word("schema") {
        let if_exists = front.words(&["if", "exists"]);
        let place = front.place();
        let name = front.schema_name()?;
        writable_schema(&name).map_err(|e| e.context(place))?;
        if front.at_word(0, "cascade") {
            return Err(front.unsupported("DROP SCHEMA CASCADE is not supported: drop its tables first"));
        }
        front.word("restrict");
        return Ok(Statement::Steps(vec![Step::DropSchema { name, if_exists }]));
    }
    if !front.word("table") {
        return Err(refuse::object(front, "DROP", "TABLE or SCHEMA"));
    }
    let if_exists = front.words(&["if", "exists"]);
    let mut steps = Vec::new();
    for name in targets(front)? {
        steps.push(Step::DropTable { name, if_exists });
    }
    dependents(front);
    Ok(Statement::Steps(steps))
}

/// After the word `TRUNCATE`.
pub(super) fn truncate(front: &mut Front<'_>) -> Result<Statement> {
    front.word("table");
    if front.at_words(&["if", "exists"]) {
        return Err(front.unsupported("TRUNCATE IF EXISTS is not supported"));
    }
    let names = targets(front)?;
    Ok(Statement::Steps(names.into_iter().map(|name| Step::Truncate { name }).collect()))
}

fn targets(front: &mut Front<'_>) -> Result<Vec<TableName>> {
    let mut names: Vec<TableName> = Vec::new();
    loop {
        let place = front.place();
        let name = front.target()?;
        if names.contains(&name) {
            return Err(Error::invalid(format!("{place}: table {name} is named twice")));
        }
        names.push(name);
        if !front.token(&Token::Comma) {
            return Ok(names);
        }
    }
}

/// Nothing depends on a table or column, so that both words ask for what happens anyway.
fn dependents(front: &mut Front<'_>) {
    if !front.word("cascade") {
        front.word("restrict");
    }
}
