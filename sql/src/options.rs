//! What one request may ask for beside its statement: how a write is acknowledged, what a read must see.
//!
//! Texts of headers and session options are read here, so that both know the same values.

use std::fmt;
use std::time::Duration;

use tandem_manifest::Manifest;
use tandem_types::{Error, Result, Seq, TableName};

use crate::as_of::AsOf;

/// A client's token is this long at most, in bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// How long a write waits for its quorum unless somebody says otherwise.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read waits for the state that it demands unless somebody says otherwise.
pub const READ_DEADLINE: Duration = Duration::from_secs(10);

/// How one write is to be committed and acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Commits once, however often it is sent; without one, each try is a write of its own.
    pub token: Option<ClientToken>,
    /// `None`: what the table says, else the database.
    pub ack: Option<Ack>,
    /// How long to wait for a quorum; `None`: [`ACK_TIMEOUT`].
    pub ack_timeout: Option<Duration>,
}

/// A token that a client made, and what was written under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientToken {
    pub text: String,
    /// Of the write's logical values: another write under the same token has another one. Empty on an append: the
    /// database makes it of the rows as they come.
    pub digest: Vec<u8>,
}

impl ClientToken {
    /// A token whose digest is made later.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is empty, longer than 128 bytes, or has control characters in it.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "a token is a text of 1 to {TOKEN_BYTES_MAX} bytes without control characters, and this one has {}",
                text.len()
            )));
        }
        Ok(Self { text: text.to_owned(), digest: Vec::new() })
    }
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Its commit was created in the store and checked.
    #[default]
    Store,
    /// As `Store`, and this many other nodes have applied it.
    Quorum(u32),
}

impl Ack {
    /// `store` or `quorum(k)` with k from 1 on.
    ///
    /// # Errors
    ///
    /// `Unsupported` for `local`, which is reserved; `InvalidInput` for everything else.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "store" {
            return Ok(Self::Store);
        }
        if text == "local" {
            return Err(Error::unsupported("acknowledgement level \"local\" is not supported yet"));
        }
        let count = text.strip_prefix("quorum(").and_then(|rest| rest.strip_suffix(')'));
        match count.and_then(|k| k.trim().parse::<u32>().ok()).filter(|k| *k > 0) {
            Some(k) => Ok(Self::Quorum(k)),
            None => Err(Error::invalid(format!(
                "{text:?} is no acknowledgement level; known are store and quorum(k), k from 1 on"
            ))),
        }
    }

    /// What holds for a write that says nothing itself: the table's option, else the database's setting, else `Store`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse): a later version may have stored a level that this one does not know.
    pub fn stored(snapshot: &Manifest, table: Option<&TableName>) -> Result<Self> {
        let option = table
            .and_then(|name| snapshot.table_named(name))
            .and_then(|table| table.def().options.iter().find(|(key, _)| key.as_str() == "ack"))
            .map(|(_, value)| value.as_str());
        option.or_else(|| snapshot.setting("ack")).map_or(Ok(Self::Store), Self::parse)
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Quorum(k) => write!(f, "quorum({k})"),
        }
    }
}

/// What a read demands of the state that it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// At least this commit must be applied.
    pub min_seq: Option<Seq>,
    /// Everything that was committed before the read began must be applied, whoever committed it.
    pub latest: bool,
    /// How long to wait for it; `None`: [`READ_DEADLINE`].
    pub deadline: Option<Duration>,
    /// The state to read; `None`: the newest one.
    pub as_of: Option<AsOf>,
}

impl ReadOptions {
    /// Whether a state at `seq` may fall short of it.
    pub fn demands_more_than(&self, seq: Seq) -> bool {
        self.latest || self.min_seq.is_some_and(|min| min > seq)
    }
}

/// `applied` or `latest`: whether the newest commit of all nodes must be seen.
///
/// # Errors
///
/// `InvalidInput` for anything else.
pub fn parse_read(text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "applied" => Ok(false),
        "latest" => Ok(true),
        other => Err(Error::invalid(format!("{other:?} is no way of reading; known are applied and latest"))),
    }
}

/// A seq in decimal digits.
///
/// # Errors
///
/// `InvalidInput` for anything else.
pub fn parse_seq(text: &str) -> Result<Seq> {
    let seq = text.trim().parse::<u64>();
    seq.map(Seq).map_err(|_| Error::invalid(format!("{text:?} is no seq, which is a whole number")))
}

/// A time as [`tandem_types::parse_duration`] reads it, to the millisecond.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn levels_read_back_as_they_are_shown() {
        for ack in [Ack::Store, Ack::Quorum(1), Ack::Quorum(12)] {
            assert_eq!(Ack::parse(&ack.to_string()), Ok(ack));
        }
        assert_eq!(Ack::parse(" Quorum( 2 ) "), Ok(Ack::Quorum(2)));
        assert_eq!(Ack::parse("local").unwrap_err().kind(), ErrorKind::Unsupported);
        for wrong in
            ["", "all", "quorum", "quorum()", "quorum(0)", "quorum(-1)", "quorum(1", "quorum(99999999999)"]
        {
            let error = Ack::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
            assert!(error.message().contains(wrong) && error.message().contains("store"), "{error}");
        }
    }

    #[test]
    fn times_read_back_as_they_are_shown() {
        for millis in [0, 1, 1_000, 1_500, 90_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(tandem_types::parse_duration(&show_duration(time)), Ok(time));
        }
    }

    #[test]
    fn tokens_are_texts_of_some_length() {
        assert_eq!(ClientToken::parse("a b/ü").unwrap().text, "a b/ü");
        assert!(ClientToken::parse(&"x".repeat(128)).is_ok());
        for wrong in [String::new(), "x".repeat(129), "a\nb".to_owned()] {
            assert_eq!(ClientToken::parse(&wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn what_a_read_demands() {
        let min = |n| ReadOptions { min_seq: Some(Seq(n)), ..ReadOptions::default() };
        assert!(!ReadOptions::default().demands_more_than(Seq(0)));
        assert!(!min(4).demands_more_than(Seq(4)) && min(5).demands_more_than(Seq(4)));
        assert!(ReadOptions { latest: true, ..min(1) }.demands_more_than(Seq(4)));
        assert_eq!((parse_read("applied"), parse_read("Latest")), (Ok(false), Ok(true)));
        assert!(parse_read("newest").is_err() && parse_seq("-1").is_err() && parse_seq("1x").is_err());
        assert_eq!(parse_seq(" 7 "), Ok(Seq(7)));
    }
}
