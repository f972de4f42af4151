//! `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT` and their other spellings.

use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_types::Result;

use super::Statement;
use super::front::Front;
use crate::transaction::{Isolation, TransactionMode};

/// A statement that is about the transaction itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Begin(TransactionMode),
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
}

/// The statement, if it is one of these.
pub(super) fn control(front: &mut Front<'_>) -> Result<Option<Statement>> {
    let control = if front.word("begin") {
        noise(front);
        Control::Begin(mode(front)?)
    } else if front.word("start") {
        front.expect_word("transaction")?;
        Control::Begin(mode(front)?)
    } else if front.word("commit") || front.word("end") {
        noise(front);
        chain(front)?;
        Control::Commit
    } else if front.word("rollback") || front.word("abort") {
        noise(front);
        if front.word("to") {
            front.word("savepoint");
            Control::RollbackTo(savepoint(front)?)
        } else {
            chain(front)?;
            Control::Rollback
        }
    } else if front.word("savepoint") {
        Control::Savepoint(savepoint(front)?)
    } else if front.word("release") {
        front.word("savepoint");
        Control::Release(savepoint(front)?)
    } else {
        return Ok(None);
    };
    Ok(Some(Statement::Transaction(control)))
}

fn noise(front: &mut Front<'_>) {
    if !front.word("transaction") {
        front.word("work");
    }
}

fn savepoint(front: &mut Front<'_>) -> Result<String> {
    front.name("a savepoint's name")
}

fn chain(front: &Front<'_>) -> Result<()> {
    if front.at_word(0, "and") {
        return Err(front.unsupported("AND CHAIN is not supported: BEGIN the next transaction"));
    }
    Ok(())
}

fn mode(front: &mut Front<'_>) -> Result<TransactionMode> {
    let mut mode = TransactionMode::default();
    loop {
        if front.words(&["read", "only"]) {
            mode.read_only = true;
        } else if front.words(&["read", "write"]) {
            mode.read_only = false;
        } else if front.words(&["isolation", "level"]) {
            mode.isolation = isolation(front)?;
        } else if front.at_end() {
            return Ok(mode);
        } else {
            return Err(front.expected("READ ONLY, READ WRITE or ISOLATION LEVEL"));
        }
        front.token(&Token::Comma);
    }
}

fn isolation(front: &mut Front<'_>) -> Result<Isolation> {
    if front.word("snapshot") || front.words(&["repeatable", "read"]) {
        Ok(Isolation::Snapshot)
    } else if front.word("serializable") {
        Ok(Isolation::Serializable)
    } else if front.at_word(0, "read") {
        Err(front.unsupported(
            "a transaction sees one snapshot: its isolation level is SNAPSHOT (which is REPEATABLE READ) or SERIALIZABLE",
        ))
    } else {
        Err(front.expected("SNAPSHOT, REPEATABLE READ or SERIALIZABLE"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StatementLimits, parse};
    use super::*;

    fn read(sql: &str) -> Result<Control> {
        match parse(sql, "public", &StatementLimits::default())?.remove(0) {
            Statement::Transaction(control) => Ok(control),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling_is_understood() {
        let begin = |read_only, isolation| Control::Begin(TransactionMode { read_only, isolation });
        let (snapshot, serializable) = (Isolation::Snapshot, Isolation::Serializable);
        for (sql, control) in [
            ("BEGIN", begin(false, snapshot)),
            ("begin work", begin(false, snapshot)),
            ("BEGIN TRANSACTION READ ONLY", begin(true, snapshot)),
            ("START TRANSACTION READ WRITE, ISOLATION LEVEL SNAPSHOT", begin(false, snapshot)),
            ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", begin(true, snapshot)),
            ("BEGIN READ ONLY, ISOLATION LEVEL SERIALIZABLE", begin(true, serializable)),
            ("COMMIT", Control::Commit),
            ("commit transaction", Control::Commit),
            ("END WORK", Control::Commit),
            ("ROLLBACK", Control::Rollback),
            ("ABORT TRANSACTION", Control::Rollback),
            ("SAVEPOINT \"My\"", Control::Savepoint("My".to_owned())),
            ("ROLLBACK TO a", Control::RollbackTo("a".to_owned())),
            ("ROLLBACK WORK TO SAVEPOINT A", Control::RollbackTo("a".to_owned())),
            ("RELEASE a", Control::Release("a".to_owned())),
            ("RELEASE SAVEPOINT a", Control::Release("a".to_owned())),
        ] {
            assert_eq!(read(sql), Ok(control), "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "START",
            "BEGIN READ",
            "BEGIN ISOLATION LEVEL",
            "BEGIN 1",
            "COMMIT now",
            "SAVEPOINT",
            "ROLLBACK TO",
            "BEGIN ISOLATION LEVEL READ UNCOMMITTED",
            "ROLLBACK AND CHAIN",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
