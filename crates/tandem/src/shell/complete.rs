//! Line editing: completion of keywords and names, and waiting for the semicolon.

use std::collections::BTreeSet;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::split::is_complete;

const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CHECKPOINT",
    "COLUMN",
    "CONFLICT",
    "COPY",
    "COUNT",
    "CREATE",
    "CROSS",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DO",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "ANALYZE",
    "FALSE",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NOTHING",
    "NULL",
    "OFFSET",
    "ON",
    "OPTIMIZE",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRIMARY KEY",
    "RENAME",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

const META: &[&str] =
    &["\\?", "\\d", "\\dn", "\\dt", "\\format", "\\i", "\\maxrows", "\\o", "\\q", "\\timing"];

/// What rustyline asks while a line is edited.
#[derive(Default)]
pub struct SqlHelper {
    names: BTreeSet<String>,
}

impl SqlHelper {
    /// Replaces the schemas, tables and columns that are completed.
    pub fn set_names(&mut self, names: Vec<String>) {
        self.names = names.into_iter().collect();
    }

    /// Where the word before the cursor begins, and what it may become.
    fn candidates(&self, line: &str, pos: usize) -> (usize, Vec<String>) {
        let before = line.get(..pos).unwrap_or(line);
        if before.starts_with('\\') && !before.contains(char::is_whitespace) {
            return (0, META.iter().filter(|m| m.starts_with(before)).map(|m| (*m).to_owned()).collect());
        }
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |i| i + before.get(i..).and_then(|s| s.chars().next()).map_or(1, char::len_utf8));
        let word = before.get(start..).unwrap_or_default();
        if word.is_empty() {
            return (start, Vec::new());
        }
        let fits = |name: &str| name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        let small = word.chars().all(|c| !c.is_uppercase());
        let keywords = KEYWORDS
            .iter()
            .filter(|k| fits(k))
            .map(|k| if small { k.to_lowercase() } else { (*k).to_owned() });
        // Names first: they are what is hard to type.
        let names = self.names.iter().filter(|n| fits(n)).map(|n| quoted_if_needed(n));
        (start, names.chain(keywords).collect())
    }
}

/// A name as SQL must write it: unquoted names are taken in lower case.
fn quoted_if_needed(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Completer for SqlHelper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, pos))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = is_complete(context.input());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Highlighter for SqlHelper {}
impl Helper for SqlHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_from_names_and_keywords() {
        let mut helper = SqlHelper::default();
        helper.set_names(vec!["flights".into(), "Flag".into(), "dest".into()]);
        let of = |line: &str| helper.candidates(line, line.len());
        assert_eq!(of("select * from fl"), (14, vec!["\"Flag\"".into(), "flights".into()]));
        assert_eq!(of("sel"), (0, vec!["select".into()]));
        assert_eq!(of("SEL"), (0, vec!["SELECT".into()]));
        assert_eq!(of("select f.des"), (9, vec!["dest".into(), "desc".into(), "describe".into()]));
        assert_eq!(of("\\ti"), (0, vec!["\\timing".into()]));
        assert_eq!(of("select é.de").0, 10);
        assert_eq!(of("select "), (7, vec![]));
    }
}
