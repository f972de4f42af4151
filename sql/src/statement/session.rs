//! `SET`, `RESET`, `SHOW`.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_types::Result;

use super::front::Front;
use super::{Show, Statement};

/// After the word `SET`: `[SESSION] name = value` or `name TO value`.
pub(super) fn set(front: &mut Front<'_>) -> Result<Statement> {
    for word in ["local", "global", "transaction", "role"] {
        // A name may be one of these words as well: then `=`, `TO` or a dot follows.
        let is_name =
            front.at_token(1, &Token::Eq) || front.at_token(1, &Token::Period) || front.at_word(1, "to");
        if front.at_word(0, word) && !is_name {
            return Err(front.unsupported(format_args!("SET {} is not supported", word.to_uppercase())));
        }
    }
    if front.at_word(0, "session") && !front.at_token(1, &Token::Eq) && !front.at_word(1, "to") {
        front.word("session");
    }
    let name = option_name(front)?;
    if !front.token(&Token::Eq) {
        front.expect_word("to")?;
    }
    if front.word("default") {
        return Ok(Statement::Set { name, value: None });
    }
    Ok(Statement::Set { name, value: Some(value(front)?) })
}

/// After the word `RESET`.
pub(super) fn reset(front: &mut Front<'_>) -> Result<Statement> {
    Ok(Statement::Set { name: option_name(front)?, value: None })
}

fn option_name(front: &mut Front<'_>) -> Result<String> {
    let mut name = front.name("an option's name")?;
    while front.token(&Token::Period) {
        name = format!("{name}.{}", front.name("an option's name")?);
    }
    Ok(name)
}

/// A string, or all that follows: `5s` and `quorum(2)` are several tokens and one value.
fn value(front: &mut Front<'_>) -> Result<String> {
    if let Token::SingleQuotedString(_) = front.peek().token {
        return front.string("a value");
    }
    let mut value = String::new();
    loop {
        match &front.peek().token {
            Token::EOF if value.is_empty() => return Err(front.expected("a value")),
            Token::EOF => return Ok(value),
            Token::Word(word) => value.push_str(&word.value),
            token @ (Token::Number(..) | Token::LParen | Token::RParen | Token::Minus | Token::Period) => {
                value.push_str(&token.to_string());
            }
            _ => return Err(front.expected("a value, in quotes if it is more than a word")),
        }
        front.next();
    }
}

/// After the word `SHOW`.
pub(super) fn show(front: &mut Front<'_>) -> Result<Statement> {
    let show = if front.word("tables") {
        let schema = if of(front) { Some(front.schema_name()?) } else { None };
        Show::Tables { schema, like: like(front)? }
    } else if front.word("schemas") {
        Show::Schemas { like: like(front)? }
    } else if front.word("columns") {
        if !of(front) {
            return Err(front.expected("FROM and a table's name"));
        }
        Show::Columns { table: front.table_name()? }
    } else if front.word("create") {
        front.expect_word("table")?;
        Show::CreateTable { table: front.table_name()? }
    } else if front.word("all") {
        return Ok(Statement::ShowSetting { name: None });
    } else {
        return Ok(Statement::ShowSetting { name: Some(option_name(front)?) });
    };
    Ok(Statement::Show(show))
}

fn of(front: &mut Front<'_>) -> bool {
    front.word("from") || front.word("in")
}

fn like(front: &mut Front<'_>) -> Result<Option<String>> {
    if front.word("like") { front.string("a pattern in quotes").map(Some) } else { Ok(None) }
}
