//! From text to tokens, and what is decided on tokens alone.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use tandem_types::{Error, Result};

/// The one dialect, that of DataFusion's own sessions.
pub(super) const DIALECT: GenericDialect = GenericDialect {};

/// Placeholders of one statement, at most: what the wire formats of drivers can count.
const MAX_PLACEHOLDERS: usize = 65_535;

/// Tokens with their places; white space and comments are dropped.
pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|e| {
        let message = super::front::lower_first(&e.message);
        Error::invalid(format!("line {}, column {}: {message}", e.location.line, e.location.column))
    })?;
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
    Ok(tokens)
}

/// Statements without their `;`, empty ones left out.
pub(super) fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut statements = vec![Vec::new()];
    for token in tokens {
        if token.token == Token::SemiColon {
            statements.push(Vec::new());
        } else if let Some(last) = statements.last_mut() {
            last.push(token);
        }
    }
    statements.retain(|s| !s.is_empty());
    statements
}

/// Makes `$1`, `$2` … of `?`; the two ways of writing cannot be mixed.
///
/// Strings, comments and quoted names are tokens of their own by now, so a `?` in one is not touched.
pub(super) fn number_placeholders(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut marks = 0;
    let mut numbered = false;
    for TokenWithSpan { token, span } in &mut tokens {
        let Token::Placeholder(name) = token else { continue };
        let place = format!("line {}, column {}", span.start.line, span.start.column);
        match name.as_str() {
            "?" => {
                marks += 1;
                *name = format!("${marks}");
            }
            _ => {
                numbered = true;
                let digits = name.strip_prefix(['$', '?']).unwrap_or(name);
                match digits.parse::<usize>() {
                    Ok(n) if (1..=MAX_PLACEHOLDERS).contains(&n) => *name = format!("${n}"),
                    Ok(_) => {
                        return Err(Error::invalid(format!(
                            "{place}: placeholder {name} is out of range, $1 to ${MAX_PLACEHOLDERS} are allowed"
                        )));
                    }
                    Err(_) => {
                        return Err(Error::unsupported(format!(
                            "{place}: the named placeholder {name} is not supported, write ? or $1"
                        )));
                    }
                }
            }
        }
        if marks > MAX_PLACEHOLDERS {
            return Err(Error::invalid(format!("{place}: more than {MAX_PLACEHOLDERS} placeholders")));
        }
        if marks > 0 && numbered {
            return Err(Error::invalid(format!("{place}: ? and numbered placeholders in one statement")));
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders(sql: &str) -> Result<Vec<String>> {
        let tokens = number_placeholders(tokenize(sql)?)?;
        Ok(tokens
            .into_iter()
            .filter_map(|t| match t.token {
                Token::Placeholder(name) => Some(name),
                _ => None,
            })
            .collect())
    }

    #[test]
    fn question_marks_are_numbered_outside_strings_names_and_comments() {
        let sql =
            "select ?, '?', \"?\", `?`, $$?$$, e'\\'?' -- ?\n /* ? /* ? */ */ from t where a=? and b>=?";
        assert_eq!(placeholders(sql).unwrap(), ["$1", "$2", "$3"]);
        assert_eq!(placeholders("select $2, $1, $2").unwrap(), ["$2", "$1", "$2"]);
        assert_eq!(placeholders("select ?2, ?1").unwrap(), ["$2", "$1"]);
        assert_eq!(placeholders("select a+?+?*-?").unwrap(), ["$1", "$2", "$3"]);
    }

    #[test]
    fn odd_placeholders_are_refused_with_their_place() {
        let message = |sql| placeholders(sql).unwrap_err().message().to_owned();
        assert_eq!(
            message("select ?,\n $1"),
            "line 2, column 2: ? and numbered placeholders in one statement"
        );
        assert!(message("select $0").starts_with("line 1, column 8: placeholder $0 is out of range"));
        assert!(message("select $name").contains("named placeholder $name"));
        assert!(message("select 'a").starts_with("line 1, column 8: unterminated string"));
    }

    #[test]
    fn empty_statements_vanish() {
        let statements = split(tokenize("; select 1;; -- nothing\n ; select ';' ;").unwrap());
        assert_eq!(statements.len(), 2);
    }
}
