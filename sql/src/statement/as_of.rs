//! Tables as of a moment: `t FOR SYSTEM_TIME AS OF …`, `t VERSION AS OF n`, `t TIMESTAMP AS OF …`.
//!
//! The parser's dialect that all else is read in does not know these. So they are cut out of the tokens before it sees
//! them, and put back on the tables behind whose names they stood: a name in the syntax tree knows its place in the text.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, TableFactor, TableVersion, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};
use tandem_types::{Error, Result};

use super::front::parser_error;
use super::tokens::DIALECT;

/// A moment is a short expression; what comes after so many tokens is not looked at.
const EXPRESSION_TOKENS: usize = 64;

/// Words that are no table's name unless they are quoted: a column called `version` may come behind them.
const NO_NAMES: &[&str] =
    &["select", "distinct", "all", "then", "else", "when", "by", "and", "or", "not", "as"];

/// Moments that were cut out of a statement, and where they belong.
#[derive(Debug, Default)]
pub(super) struct Versions(Vec<Version>);

#[derive(Debug)]
struct Version {
    /// Where the last part of its table's name begins.
    table: Location,
    /// Where it stood itself.
    place: Location,
    moment: TableVersion,
}

/// Takes the moments out of a statement's tokens.
pub(super) fn cut(tokens: Vec<TokenWithSpan>) -> Result<(Vec<TokenWithSpan>, Versions)> {
    if !tokens.windows(2).any(|two| matches!(two, [a, b] if is(a, "as") && is(b, "of"))) {
        return Ok((tokens, Versions::default()));
    }
    let mut left: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut versions = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = tokens.get(at..).unwrap_or_default();
        let table = left.last().filter(|last| may_name(last)).map(|last| last.span.start);
        let (Some(table), Some(kind)) = (table, Kind::at(rest)) else {
            left.push(token.clone());
            at += 1;
            continue;
        };
        let place = token.span.start;
        at += kind.words();
        let (moment, taken) = moment(kind, tokens.get(at..).unwrap_or_default(), place)?;
        versions.push(Version { table, place, moment });
        at += taken;
    }
    Ok((left, Versions(versions)))
}

#[derive(Clone, Copy)]
enum Kind {
    SystemTime,
    Timestamp,
    Version,
}

impl Kind {
    fn at(tokens: &[TokenWithSpan]) -> Option<Self> {
        let begins =
            |words: &[&str]| tokens.len() >= words.len() && words.iter().zip(tokens).all(|(w, t)| is(t, w));
        if begins(&["for", "system_time", "as", "of"]) {
            Some(Self::SystemTime)
        } else if begins(&["timestamp", "as", "of"]) {
            Some(Self::Timestamp)
        } else if begins(&["version", "as", "of"]) {
            Some(Self::Version)
        } else {
            None
        }
    }

    fn words(self) -> usize {
        match self {
            Self::SystemTime => 4,
            Self::Timestamp | Self::Version => 3,
        }
    }
}

/// What stands behind `AS OF`, and how many tokens it is.
fn moment(kind: Kind, tokens: &[TokenWithSpan], place: Location) -> Result<(TableVersion, usize)> {
    let named = |e: Error| e.context(format!("line {}, column {}: AS OF", place.line, place.column));
    let wanted = || named(Error::invalid("expected a seq, a whole number"));
    let seq = |token: Option<&TokenWithSpan>| match token.map(|t| &t.token) {
        Some(Token::Number(digits, false)) if digits.parse::<u64>().is_ok() => {
            let value = ast::Value::Number(digits.clone(), false);
            Ok(TableVersion::VersionAsOf(Expr::Value(value.with_empty_span())))
        }
        _ => Err(wanted()),
    };
    match kind {
        Kind::Version => Ok((seq(tokens.first())?, 1)),
        Kind::SystemTime if tokens.first().is_some_and(|t| is(t, "seq")) => Ok((seq(tokens.get(1))?, 2)),
        Kind::SystemTime | Kind::Timestamp => {
            let short = tokens.get(..EXPRESSION_TOKENS.min(tokens.len())).unwrap_or_default();
            let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(short.to_vec());
            let expression = parser.parse_expr().map_err(|e| named(parser_error(e)))?;
            let taken = parser.index();
            if short.iter().take(taken).any(|t| matches!(t.token, Token::Placeholder(_))) {
                return Err(named(Error::unsupported(
                    "a parameter is not supported here: set the session option tandem.as_of instead",
                )));
            }
            Ok((TableVersion::ForSystemTimeAsOf(expression), taken))
        }
    }
}

impl Versions {
    /// Puts those that belong to the query's tables there.
    pub(super) fn attach(&mut self, query: &mut ast::Query) {
        if !self.0.is_empty() {
            // It never breaks off.
            let _ = query.visit(&mut Attach(self));
        }
    }

    /// Refuses those that belong to no table of a query.
    pub(super) fn check_used(&self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(Version { place, .. }) => Err(Error::unsupported(format!(
                "line {}, column {}: AS OF is for tables in FROM: it stands right behind a table's name, before its alias",
                place.line, place.column
            ))),
        }
    }
}

struct Attach<'a>(&'a mut Versions);

impl VisitorMut for Attach<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, version, args: None, .. } = factor
            && let Some(ast::ObjectNamePart::Identifier(last)) = name.0.last()
            && let Some(found) = self.0.0.iter().position(|v| v.table == last.span.start)
        {
            *version = Some(self.0.0.swap_remove(found).moment);
        }
        ControlFlow::Continue(())
    }
}

/// Whether a token may be the last part of a table's name.
fn may_name(token: &TokenWithSpan) -> bool {
    match &token.token {
        Token::Word(Word { quote_style: Some(_), .. }) => true,
        Token::Word(Word { value, .. }) => !NO_NAMES.iter().any(|word| value.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(
        &token.token,
        Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word)
    )
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser;
    use tandem_types::ErrorKind;

    use super::super::{Statement, StatementLimits, parse};

    fn text(sql: &str) -> String {
        match parse(sql, "public", &StatementLimits::default()).map(|mut all| all.remove(0)) {
            Ok(Statement::Query(statement)) => match *statement {
                parser::Statement::Statement(statement) => statement.to_string(),
                other => other.to_string(),
            },
            Ok(other) => panic!("{other:?}"),
            Err(error) => format!("{:?}: {error}", error.kind()),
        }
    }

    #[test]
    fn moments_come_to_their_tables() {
        for (sql, read) in [
            ("SELECT * FROM t VERSION AS OF 3", "SELECT * FROM t VERSION AS OF 3"),
            // An alias is printed before the moment, whichever comes first.
            ("SELECT * FROM s.t version as of 3 x", "SELECT * FROM s.t x VERSION AS OF 3"),
            ("SELECT * FROM t FOR SYSTEM_TIME AS OF SEQ 3 AS x", "SELECT * FROM t AS x VERSION AS OF 3"),
            (
                "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01' WHERE a = 1",
                "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01' WHERE a = 1",
            ),
            (
                "SELECT * FROM \"version\" TIMESTAMP AS OF '2024-01-01', u",
                "SELECT * FROM \"version\" FOR SYSTEM_TIME AS OF '2024-01-01', u",
            ),
            (
                "SELECT * FROM t a JOIN t FOR SYSTEM_TIME AS OF now() - INTERVAL '1 hour' b ON a.x = b.x",
                "SELECT * FROM t a JOIN t b FOR SYSTEM_TIME AS OF now() - INTERVAL '1 hour' ON a.x = b.x",
            ),
            (
                "SELECT (SELECT max(x) FROM t VERSION AS OF 1) FROM t",
                "SELECT (SELECT max(x) FROM t VERSION AS OF 1) FROM t",
            ),
            (
                "WITH c AS (SELECT * FROM t VERSION AS OF 1) SELECT * FROM c",
                "WITH c AS (SELECT * FROM t VERSION AS OF 1) SELECT * FROM c",
            ),
        ] {
            assert_eq!(text(sql), read, "{sql}");
        }
    }

    #[test]
    fn columns_may_be_called_so() {
        for sql in [
            "SELECT version AS of FROM t",
            "SELECT a, timestamp AS of FROM t",
            "SELECT DISTINCT version AS of FROM t",
            "SELECT t.version AS of FROM t",
        ] {
            assert_eq!(text(sql), sql);
        }
    }

    #[test]
    fn what_is_out_of_place_is_refused_with_its_place() {
        for (sql, said) in [
            ("SELECT * FROM t VERSION AS OF", "line 1, column 17: AS OF: expected a seq"),
            ("SELECT * FROM t VERSION AS OF 1.5", "expected a seq"),
            ("SELECT * FROM t VERSION AS OF 'x'", "expected a seq"),
            ("SELECT * FROM t VERSION AS OF -1", "expected a seq"),
            ("SELECT * FROM t FOR SYSTEM_TIME AS OF SEQ x", "expected a seq"),
            ("SELECT * FROM t FOR SYSTEM_TIME AS OF", "AS OF: "),
        ] {
            let refused = text(sql);
            assert!(refused.starts_with("InvalidInput") && refused.contains(said), "{sql}: {refused}");
        }
        let parameter = text("SELECT * FROM t FOR SYSTEM_TIME AS OF $1");
        assert!(parameter.starts_with("Unsupported") && parameter.contains("tandem.as_of"), "{parameter}");
        for sql in [
            "SELECT * FROM t a VERSION AS OF 3",
            "SELECT * FROM (SELECT 1) a VERSION AS OF 3",
            "DROP TABLE t VERSION AS OF 3",
        ] {
            let error = parse(sql, "public", &StatementLimits::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}");
            assert!(error.message().contains("AS OF is for tables in FROM"), "{error}");
        }
    }
}
