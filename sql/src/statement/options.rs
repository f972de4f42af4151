//! `(key = value, …)`: table options and database settings.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tandem_manifest::TableSpec;
use tandem_types::{Error, PartitionUnit, Result};

use super::front::Front;
use super::{key, tokens};

/// A value as it was written: whether it was a list matters to `order_by` only.
pub(super) enum OptionValue {
    Text(String),
    List(Vec<String>),
}

impl OptionValue {
    fn text(self, key: &str) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::List(_) => Err(Error::invalid(format!("{key:?} takes one value, not a list"))),
        }
    }
}

/// `(key = value, …)`, at least one; a key at most once.
pub(super) fn options(front: &mut Front<'_>) -> Result<Vec<(String, OptionValue)>> {
    front.expect(&Token::LParen)?;
    let mut options: Vec<(String, OptionValue)> = Vec::new();
    loop {
        let place = front.place();
        let key = option_name(front)?;
        if options.iter().any(|(k, _)| *k == key) {
            return Err(Error::invalid(format!("{place}: {key:?} is said twice")));
        }
        front.expect(&Token::Eq)?;
        options.push((key, value(front)?));
        if front.list_ends()? {
            return Ok(options);
        }
    }
}

/// As [`options`], each with a single value.
pub(super) fn settings(front: &mut Front<'_>) -> Result<Vec<(String, Option<String>)>> {
    options(front)?.into_iter().map(|(key, value)| Ok((key.clone(), Some(value.text(&key)?)))).collect()
}

/// `(key, …)`: what is to be reset.
pub(super) fn resets(front: &mut Front<'_>) -> Result<Vec<(String, Option<String>)>> {
    let keys = front.names("an option's name")?;
    if keys.is_empty() {
        return Err(front.invalid("names no option"));
    }
    Ok(keys.into_iter().map(|key| (key, None)).collect())
}

/// `name` or `'name'`, with dots where it has parts.
fn option_name(front: &mut Front<'_>) -> Result<String> {
    if let Token::SingleQuotedString(_) = front.peek().token {
        return front.string("an option's name");
    }
    let mut key = front.name("an option's name")?;
    while front.token(&Token::Period) {
        key = format!("{key}.{}", front.name("an option's name")?);
    }
    Ok(key)
}

fn value(front: &mut Front<'_>) -> Result<OptionValue> {
    if front.at_token(0, &Token::LParen) {
        return Ok(OptionValue::List(front.names("a column's name")?));
    }
    let TokenWithSpan { token, span } = front.peek().clone();
    match token {
        Token::SingleQuotedString(text) => {
            front.next();
            Ok(OptionValue::Text(text))
        }
        Token::Number(number, _) => {
            front.next();
            // `5s` is a number and a word to the tokenizer.
            let unit = match front.peek() {
                TokenWithSpan { token: Token::Word(unit), span: next } if next.start == span.end => {
                    unit.value.clone()
                }
                _ => return Ok(OptionValue::Text(number)),
            };
            front.next();
            Ok(OptionValue::Text(number + &unit))
        }
        Token::Word(_) => {
            let word = front.name("a value")?;
            // `quorum(2)`: a word, and a number of its own.
            if !front.token(&Token::LParen) {
                return Ok(OptionValue::Text(word));
            }
            let Token::Number(number, _) = front.peek().token.clone() else {
                return Err(front.expected("a number"));
            };
            front.next();
            front.expect(&Token::RParen)?;
            Ok(OptionValue::Text(format!("{word}({number})")))
        }
        _ => Err(front.expected("a value")),
    }
}

/// `WITH (…)`: the parts of a definition that may stand there go where they belong.
pub(super) fn table_options(front: &mut Front<'_>, spec: &mut TableSpec) -> Result<()> {
    let place = front.place();
    for (key, value) in options(front)? {
        let twice = |said: bool| match said {
            true => Err(Error::invalid(format!("{place}: {key:?} is said twice"))),
            false => Ok(()),
        };
        match key.as_str() {
            "timestamp" => {
                twice(spec.timestamp.is_some())?;
                spec.timestamp = Some(value.text(&key)?);
            }
            "partition_by" => {
                twice(spec.partition_by.is_some())?;
                let unit = value.text(&key)?;
                spec.partition_by = Some(partition_unit(&unit).map_err(|e| e.context(&place))?);
            }
            "order_by" => {
                twice(spec.order_by.is_some())?;
                let names = match value {
                    OptionValue::List(names) => names,
                    OptionValue::Text(text) => column_list(&text).map_err(|e| e.context(&place))?,
                };
                spec.order_by = Some(names);
            }
            "primary_key" => {
                twice(spec.primary_key.is_some())?;
                let names = match value {
                    OptionValue::List(names) => names,
                    OptionValue::Text(text) => column_list(&text).map_err(|e| e.context(&place))?,
                };
                key::check(&names).map_err(|e| e.context(&place))?;
                spec.primary_key = Some(names);
            }
            _ => spec.options.push((key.clone(), value.text(&key)?)),
        }
    }
    Ok(())
}

pub(super) fn partition_unit(text: &str) -> Result<PartitionUnit> {
    PartitionUnit::parse(text).ok_or_else(|| {
        let known: Vec<&str> = PartitionUnit::ALL.iter().map(|unit| unit.name()).collect();
        Error::invalid(format!("{text:?} is no partition unit; known are {}", known.join(", ")))
    })
}

/// `host, "Ts"` in a string: names by the usual rule.
fn column_list(text: &str) -> Result<Vec<String>> {
    let mut tokens = tokens::tokenize(text)?;
    let parenthesis = |token| TokenWithSpan::wrap(token);
    tokens.insert(0, parenthesis(Token::LParen));
    tokens.push(parenthesis(Token::RParen));
    let mut front = Front::new(tokens, "");
    let names = front.names("a column's name")?;
    front.end()?;
    Ok(names)
}
