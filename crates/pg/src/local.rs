//! Statements that are about PostgreSQL's ways and not about data: parameters, and what clients clean up with.

use tandem_sql::text::{after, leading, unquoted};
use tandem_types::{Error, Result};

use crate::copy::{self, Copy};
use crate::settings::Settings;

/// A statement that this edge answers itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Local {
    /// `None` resets it.
    Set {
        name: String,
        value: Option<String>,
    },
    /// As [`Local::Set`], of what the engine calls its schema.
    SearchPath(Option<String>),
    /// One of the two before it, up to the end of the transaction.
    ForTransaction(Box<Local>),
    Show(String),
    ShowAll,
    ResetAll,
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
    /// `DISCARD ALL`.
    Discard,
    Transaction(Control),
    Copy(Copy),
    /// What asks for nothing that is not so anyway; the tag that answers it.
    Nothing(&'static str),
}

/// How statements about transactions are to be understood: the engine does the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The statement as the engine is to see it.
    Begin(String),
    Commit,
    Rollback,
    RollbackTo(String),
    /// `SAVEPOINT` and `RELEASE`.
    Mark(&'static str, String),
}

/// The statement, if it is one of these.
///
/// # Errors
///
/// What is understood and not supported.
pub(crate) fn understand(sql: &str) -> Result<Option<Local>> {
    let tokens = leading(sql, 8);
    let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Ok(Some(match words.as_slice() {
        ["begin" | "start", ..] => Local::Transaction(Control::Begin(begin(sql))),
        ["commit" | "end", ..] => end(sql, Control::Commit)?,
        ["rollback" | "abort", "to", ..] | ["rollback" | "abort", "work" | "transaction", "to", ..] => {
            Local::Transaction(Control::RollbackTo(sql.to_owned()))
        }
        ["rollback" | "abort", ..] => end(sql, Control::Rollback)?,
        ["savepoint", ..] => Local::Transaction(Control::Mark("SAVEPOINT", sql.to_owned())),
        ["release", ..] => Local::Transaction(Control::Mark("RELEASE", sql.to_owned())),
        ["set", "transaction", ..] => isolation(after(sql, 2))?,
        ["set", "session", "characteristics", "as", "transaction", ..] => isolation(after(sql, 5))?,
        ["set", "local", "time", "zone", ..] => {
            Local::ForTransaction(Box::new(set("timezone", Some(after(sql, 4)))?))
        }
        ["set", "local", name, "=" | "to", ..] if ours(name) => {
            Local::ForTransaction(Box::new(set(name, Some(after(sql, 4)))?))
        }
        ["set", "session", "time", "zone", ..] => set("timezone", Some(after(sql, 4)))?,
        ["set", "time", "zone", ..] => set("timezone", Some(after(sql, 3)))?,
        ["set", "names", ..] => set("client_encoding", Some(after(sql, 2)))?,
        ["set", "session", name, "=" | "to", ..] if ours(name) => set(name, Some(after(sql, 4)))?,
        ["set", name, "=" | "to", ..] if ours(name) => set(name, Some(after(sql, 3)))?,
        ["show", "transaction", "isolation", "level"] => Local::Show("transaction_isolation".to_owned()),
        ["show", "time", "zone"] => Local::Show("timezone".to_owned()),
        ["show", "all"] => Local::ShowAll,
        ["show", name] if ours(name) => Local::Show((*name).to_owned()),
        ["reset", "all"] => Local::ResetAll,
        ["reset", name] if ours(name) => set(name, None)?,
        ["discard", "all"] => Local::Discard,
        ["discard", "plans" | "temp" | "temporary" | "sequences"] => Local::Nothing("DISCARD"),
        ["deallocate", "prepare", "all"] | ["deallocate", "all"] => Local::Deallocate(None),
        ["deallocate", "prepare", name] | ["deallocate", name] => Local::Deallocate(Some(unquoted(name))),
        ["unlisten", ..] => Local::Nothing("UNLISTEN"),
        ["close", "all"] => Local::Nothing("CLOSE CURSOR"),
        ["copy", ..] => Local::Copy(copy::understand(sql)?),
        _ => return Ok(None),
    }))
}

fn ours(name: &str) -> bool {
    let name = unquoted(name);
    Settings::knows(&name) || name.eq_ignore_ascii_case("search_path")
}

/// The end of a transaction, if nothing more is asked for.
fn end(sql: &str, control: Control) -> Result<Local> {
    let words = leading(sql, 6);
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let rest = match words.as_slice() {
        ["work" | "transaction", rest @ ..] => rest,
        rest => rest,
    };
    match rest {
        [] | ["and", "no", "chain"] => Ok(Local::Transaction(control)),
        ["and", "chain"] => {
            Err(Error::unsupported(format!("{sql}: AND CHAIN is not supported: BEGIN the next transaction")))
        }
        _ => Err(Error::unsupported(format!("{sql}: the end of a transaction takes nothing more"))),
    }
}

/// Whether a `BEGIN`, as the engine is to see it, asks for nothing but a transaction.
pub(crate) fn is_plain(begin: &str) -> bool {
    matches!(begin, "begin" | "begin work" | "begin transaction" | "start transaction")
}

/// `BEGIN` without what PostgreSQL's clients add to it: a snapshot is more than these levels ask for, so that they get it.
fn begin(sql: &str) -> String {
    let mut words = leading(sql, 32);
    for level in ["uncommitted", "committed"] {
        while let Some(at) = words.windows(4).position(|w| w == ["isolation", "level", "read", level]) {
            words.drain(at..at + 4);
            // The comma that parted it from the next.
            if words.get(at).is_some_and(|word| word == ",") {
                words.remove(at);
            } else if at > 0 && words.get(at - 1).is_some_and(|word| word == ",") {
                words.remove(at - 1);
            }
        }
    }
    words.join(" ")
}

/// The rest of `SET TRANSACTION`: what is so anyway.
fn isolation(rest: &str) -> Result<Local> {
    let words = leading(rest, 16);
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != ",").collect();
    match words.as_slice() {
        ["isolation", "level", "read", "committed" | "uncommitted"]
        | ["isolation", "level", "repeatable", "read"]
        | ["isolation", "level", "snapshot"]
        | ["read", "write"]
        | ["isolation", "level", "read", "committed", "read", "write"] => Ok(Local::Nothing("SET")),
        _ => Err(Error::unsupported(format!(
            "SET TRANSACTION {rest}: a transaction is told so when it begins, as in BEGIN ISOLATION LEVEL SERIALIZABLE or \
             BEGIN READ ONLY"
        ))),
    }
}

fn set(name: &str, value: Option<&str>) -> Result<Local> {
    let name = unquoted(name).to_lowercase();
    let value = value.map(|text| unquoted(text.trim())).filter(|text| !text.eq_ignore_ascii_case("default"));
    if name == "search_path" {
        return search_path(value).map(Local::SearchPath);
    }
    if value.as_deref() == Some("") && name != "application_name" {
        return Err(Error::invalid(format!("SET {name} wants a value")));
    }
    Ok(Local::Set { name, value })
}

/// The first schema of a path that can be one; what follows must not be needed.
fn search_path(value: Option<String>) -> Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    let parts = value.split(',').map(|part| unquoted(part.trim()));
    let mut schemas = parts.filter(|part| !matches!(part.as_str(), "" | "$user" | "pg_catalog"));
    let first = schemas.next();
    if let Some(second) = schemas.find(|other| first.as_ref() != Some(other)) {
        return Err(Error::unsupported(format!(
            "search_path names {second:?} as well: names are looked up in one schema here, so name the others' tables in full"
        )));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<Local> {
        understand(sql).unwrap()
    }

    fn set_to(name: &str, value: &str) -> Option<Local> {
        Some(Local::Set { name: name.to_owned(), value: Some(value.to_owned()) })
    }

    #[test]
    fn parameters_are_set_in_all_spellings() {
        assert_eq!(read("SET application_name = 'my app'"), set_to("application_name", "my app"));
        assert_eq!(read("set SESSION extra_float_digits to 3"), set_to("extra_float_digits", "3"));
        let local = set_to("statement_timeout", "1s").unwrap();
        assert_eq!(read("SET LOCAL statement_timeout = '1s'"), Some(Local::ForTransaction(Box::new(local))));
        assert_eq!(read("SET TIME ZONE 'UTC'"), set_to("timezone", "UTC"));
        assert_eq!(read("SET DateStyle = ISO, MDY"), set_to("datestyle", "ISO, MDY"));
        assert_eq!(
            read("SET search_path TO \"$user\", public"),
            Some(Local::SearchPath(Some("public".into())))
        );
        assert!(understand("SET search_path = a, b").is_err());
        assert_eq!(read("RESET timezone"), Some(Local::Set { name: "timezone".into(), value: None }));
        assert_eq!(
            read("SHOW TRANSACTION ISOLATION LEVEL"),
            Some(Local::Show("transaction_isolation".into()))
        );
        assert_eq!(read("show search_path"), Some(Local::Show("search_path".into())));
    }

    #[test]
    fn the_engine_gets_what_is_its_own() {
        for sql in [
            "SET tandem.as_of = 'seq:1'",
            "SHOW TABLES",
            "SHOW tandem.read",
            "SELECT 1",
            "SET schema = a",
            "",
        ] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }

    #[test]
    fn weaker_isolation_is_granted_more() {
        let begun = |sql: &str| match read(sql) {
            Some(Local::Transaction(Control::Begin(sql))) => sql,
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!(begun("BEGIN ISOLATION LEVEL READ COMMITTED"), "begin");
        assert_eq!(
            begun("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"),
            "start transaction read only"
        );
        assert_eq!(begun("BEGIN READ ONLY, ISOLATION LEVEL READ UNCOMMITTED"), "begin read only");
        assert_eq!(begun("BEGIN ISOLATION LEVEL SERIALIZABLE"), "begin isolation level serializable");
        assert_eq!(read("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"), Some(Local::Nothing("SET")));
        assert!(understand("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").is_err());
        assert!(matches!(read("ROLLBACK TO SAVEPOINT a"), Some(Local::Transaction(Control::RollbackTo(_)))));
        assert_eq!(read("ABORT"), Some(Local::Transaction(Control::Rollback)));
    }

    #[test]
    fn the_end_of_a_transaction_is_nothing_else() {
        for sql in ["COMMIT", "END WORK", "commit transaction and no chain"] {
            assert_eq!(read(sql), Some(Local::Transaction(Control::Commit)), "{sql}");
        }
        for sql in [
            "COMMIT AND CHAIN",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
            "ROLLBACK WORK AND CHAIN",
            "END x",
        ] {
            assert!(understand(sql).is_err(), "{sql}");
        }
        assert!(is_plain("begin work") && !is_plain("begin read only"));
    }
}
