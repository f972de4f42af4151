//! How the rows of a `COPY` are written.

use tandem_sql::text::unquoted;
use tandem_types::{Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub csv: bool,
    pub header: bool,
    pub delimiter: char,
    pub null: String,
}

/// `[WITH] (FORMAT csv, HEADER true, …)`, and how they were written before.
pub(super) fn options(words: &[&str]) -> Result<Options> {
    let (mut csv, mut header, mut delimiter, mut null) = (false, false, None, None);
    let mut words = words.iter().copied().filter(|word| !matches!(*word, "(" | ")" | ",")).peekable();
    while let Some(word) = words.next() {
        let mut value = |what: &str| {
            let value = words.next_if(|next| !next.eq_ignore_ascii_case("as")).or_else(|| words.nth(1));
            value.map(literal).ok_or_else(|| Error::invalid(format!("COPY: {what} wants a value")))
        };
        match word.to_ascii_lowercase().as_str() {
            "with" => {}
            "csv" => csv = true,
            "text" => csv = false,
            "format" => match value("FORMAT")?.to_ascii_lowercase().as_str() {
                "csv" => csv = true,
                "text" => csv = false,
                other => {
                    return Err(Error::unsupported(format!(
                        "COPY in format {other:?}: text and csv are supported"
                    )));
                }
            },
            "header" => {
                let off = |next: &&str| matches!(next.to_ascii_lowercase().as_str(), "false" | "off" | "0");
                let on = |next: &&str| matches!(next.to_ascii_lowercase().as_str(), "true" | "on" | "1");
                header = words.next_if(off).is_none();
                words.next_if(on);
            }
            "delimiter" => delimiter = Some(value("DELIMITER")?),
            "null" => null = Some(value("NULL")?),
            "encoding" => {
                let name = value("ENCODING")?;
                if !matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
                    return Err(Error::unsupported(format!("COPY in encoding {name:?}: text is UTF-8 here")));
                }
            }
            "binary" => {
                return Err(Error::unsupported("COPY in format \"binary\": text and csv are supported"));
            }
            other => return Err(Error::unsupported(format!("COPY: option {other:?} is not supported"))),
        }
    }
    let delimiter = match delimiter {
        None if csv => ',',
        None => '\t',
        Some(text) => match (text.as_str(), text.chars().next()) {
            ("\\t", _) => '\t',
            (one, Some(letter)) if one.len() == 1 && !matches!(letter, '\n' | '\r' | '"' | '\\') => letter,
            _ => {
                return Err(Error::invalid(format!(
                    "COPY: {text:?} is no delimiter: it is one ASCII character"
                )));
            }
        },
    };
    let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
    Ok(Options { csv, header, delimiter, null })
}

/// A word, or a quoted text; in `E'…'`, which drivers write, a backslash hides the next letter or names another.
fn literal(token: &str) -> String {
    let Some(text) = token.strip_prefix(['e', 'E']).filter(|rest| rest.starts_with('\'')) else {
        return unquoted(token);
    };
    let text = unquoted(text);
    let mut value = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        value.push(match letters.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some(other) => other,
            None => '\\',
        });
    }
    value
}
