//! `UNDROP`, `RESTORE` and `DROP PARTITION`: statements whose changes only the past, or the table, can tell.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_types::{Error, Result, Seq, TableName};

use super::Statement;
use super::front::Front;
use crate::as_of::AsOf;

/// What is to be as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restore {
    /// The table of that name that was dropped last, as the drop found it.
    Undrop {
        table: TableName,
        /// Under this name.
        to: Option<TableName>,
    },
    Table {
        table: TableName,
        at: AsOf,
    },
    /// All tables, schemas and settings.
    Database {
        at: AsOf,
    },
}

/// After the word `UNDROP`: `TABLE t [AS name]`.
pub(super) fn undrop(front: &mut Front<'_>) -> Result<Restore> {
    front.expect_word("table")?;
    let table = front.target()?;
    let to = if front.word("as") {
        // As with RENAME, a bare name stays in the table's schema.
        let qualified = front.at_token(1, &Token::Period);
        let to = front.target()?;
        Some(if qualified { to } else { TableName::new(&table.schema, to.table) })
    } else {
        None
    };
    Ok(Restore::Undrop { table, to })
}

/// After the word `RESTORE`: `TABLE t TO …` or `DATABASE TO …`.
pub(super) fn restore(front: &mut Front<'_>) -> Result<Restore> {
    if front.word("database") {
        front.expect_word("to")?;
        return Ok(Restore::Database { at: moment(front)? });
    }
    if !front.word("table") {
        return Err(front.expected("TABLE or DATABASE"));
    }
    let table = front.target()?;
    front.expect_word("to")?;
    Ok(Restore::Table { table, at: moment(front)? })
}

/// `SEQ n`, `TIMESTAMP '…'` or `'…'`.
fn moment(front: &mut Front<'_>) -> Result<AsOf> {
    let place = front.place();
    if front.word("seq") {
        let Token::Number(digits, _) = &front.peek().token else { return Err(front.expected("a seq")) };
        let seq = digits.parse().map(Seq).map_err(|_| front.expected("a seq"))?;
        front.next();
        return Ok(AsOf::Seq(seq));
    }
    front.word("timestamp");
    let text = front.string("SEQ and a number, or TIMESTAMP and a time in quotes")?;
    AsOf::parse(&text).map_err(|e| e.context(place))
}

/// After the words `ALTER TABLE t DROP PARTITION`: `[LIST] 'label', …`.
pub(super) fn drop_partitions(front: &mut Front<'_>, table: TableName) -> Result<Statement> {
    front.word("list");
    let mut labels: Vec<String> = Vec::new();
    loop {
        let place = front.place();
        let label = front.string("a partition in quotes, as system.partitions names it")?;
        if labels.contains(&label) {
            return Err(Error::invalid(format!("{place}: partition {label:?} is named twice")));
        }
        labels.push(label);
        if !front.token(&Token::Comma) {
            return Ok(Statement::DropPartitions { table, labels });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StatementLimits, parse};
    use super::*;

    fn one(sql: &str) -> Result<Statement> {
        parse(sql, "public", &StatementLimits::default()).map(|mut all| all.remove(0))
    }

    fn restored(sql: &str) -> (Restore, bool) {
        match one(sql).unwrap() {
            Statement::Restore { restore, explain } => (restore, explain),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_to_be_as_it_was() {
        let t = || TableName::public("t");
        let table = |at| Restore::Table { table: t(), at };
        for (sql, expected) in [
            ("UNDROP TABLE t", Restore::Undrop { table: t(), to: None }),
            (
                "undrop table s.t AS u",
                Restore::Undrop { table: TableName::new("s", "t"), to: Some(TableName::new("s", "u")) },
            ),
            ("RESTORE TABLE t TO SEQ 7", table(AsOf::Seq(Seq(7)))),
            ("RESTORE TABLE t TO 'seq:7'", table(AsOf::Seq(Seq(7)))),
            ("RESTORE TABLE t TO TIMESTAMP '1970-01-01T00:00:01Z'", table(AsOf::Time(1_000_000))),
            ("RESTORE DATABASE TO '1970-01-01 00:00:01'", Restore::Database { at: AsOf::Time(1_000_000) }),
        ] {
            assert_eq!(restored(sql), (expected.clone(), false), "{sql}");
            assert_eq!(restored(&format!("EXPLAIN {sql}")), (expected, true), "{sql}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (sql, said) in [
            ("UNDROP t", "expected TABLE"),
            ("UNDROP TABLE system.log", "read-only"),
            ("RESTORE t TO SEQ 7", "expected TABLE or DATABASE"),
            ("RESTORE TABLE t", "expected TO"),
            ("RESTORE TABLE t TO 7", "expected SEQ"),
            ("RESTORE TABLE t TO SEQ x", "expected a seq"),
            ("RESTORE TABLE t TO 'yesterday'", "line 1, column 20: \"yesterday\" is no moment"),
            ("RESTORE TABLE t TO SEQ 7 8", "expected the end"),
            ("ALTER TABLE t DROP PARTITION LIST 2020", "expected a partition in quotes"),
            ("ALTER TABLE t DROP PARTITION LIST '2020', '2020'", "named twice"),
        ] {
            let error = one(sql).unwrap_err();
            assert!(error.message().contains(said), "{sql}: {error}");
        }
    }

    #[test]
    fn partitions_are_listed() {
        for sql in [
            "ALTER TABLE t DROP PARTITION '2020', '2021'",
            "ALTER TABLE t DROP PARTITION LIST '2020', '2021'",
        ] {
            let Statement::DropPartitions { table, labels } = one(sql).unwrap() else { panic!("{sql}") };
            assert_eq!((table, labels), (TableName::public("t"), vec!["2020".to_owned(), "2021".to_owned()]));
        }
        assert!(matches!(one("ALTER TABLE t DROP partition"), Ok(Statement::Steps(_))), "a column");
    }
}
