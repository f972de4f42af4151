//! What went wrong, said for two readers: a sentence for a person, a kind and details for a program.

use std::fmt;

use crate::Seq;

/// `Result` with this project's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. Edges map each kind to a wire code in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong and will be wrong again: fix it.
    InvalidInput,
    /// A table, column, schema or file that does not exist.
    NotFound,
    /// A name that is taken.
    AlreadyExists,
    /// A column's type and the type that was sent do not fit together.
    SchemaConflict,
    /// A precondition did not hold ("only if unchanged since"): run the transaction again.
    Serialization,
    /// Understood, but not built (yet), or not possible here.
    Unsupported,
    /// A bound was reached: send less, or later.
    Overloaded,
    /// The store or a node cannot be reached now: later may help.
    Unavailable,
    /// A write may or may not have been committed; its token settles it.
    OutcomeUnknown,
    /// A deadline passed.
    DeadlineExceeded,
    /// Somebody cancelled it.
    Cancelled,
    /// A stored object is damaged, missing or foreign.
    Damaged,
    /// A stored object needs a newer version of this program.
    NewerFormat,
    /// The store does not honour put-if-absent.
    StoreRefused,
    /// A token was used for two different writes.
    TokenReused,
    /// A token is too old to be told apart.
    TokenExpired,
    /// This node takes no writes now; [`Error::writer`] names one that does, where it is known.
    NotWriter,
    /// Committed, at [`Error::seq`], but fewer nodes than asked for are known to have applied it in time.
    QuorumTimeout,
    /// This node has not applied what was asked for in time; it stands at [`Error::seq`].
    Behind,
    /// The state asked for lies before the history that is kept.
    HistoryGone,
    /// Nobody said who asks, or what was said is not believed: show a token that is known here.
    Unauthenticated,
    /// Who asks is known and may not do this: show a token that may.
    Forbidden,
    /// An invariant broke: a bug of ours.
    Internal,
}

impl ErrorKind {
    /// The code of DESIGN section 11 that goes with an error of this kind, where it has one.
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::SchemaConflict => Some("schema-conflict"),
            Self::Serialization => Some("serialization"),
            Self::Overloaded => Some("overloaded"),
            Self::OutcomeUnknown => Some("outcome-unknown"),
            Self::Damaged | Self::NewerFormat => Some("damaged"),
            Self::TokenReused => Some("token-reused"),
            Self::TokenExpired => Some("token-expired"),
            Self::NotWriter => Some("not-writer"),
            Self::QuorumTimeout => Some("quorum-timeout"),
            Self::Behind => Some("behind"),
            Self::HistoryGone => Some("history-gone"),
            _ => None,
        }
    }
}

/// An error: its kind, and a sentence that names what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    /// Boxed, because few have any and every `Result` carries the room.
    details: Option<Box<Details>>,
}

/// What an edge hands to programs beside the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    writer: Option<String>,
    seq: Option<Seq>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: None }
    }

    /// The same error, naming the addresses, by commas, of nodes that take writes. No addresses: nothing is named.
    #[must_use]
    pub fn with_writer(mut self, urls: &str) -> Self {
        if !urls.is_empty() {
            self.details.get_or_insert_default().writer = Some(urls.to_owned());
        }
        self
    }

    /// Where to send the write instead: one URL or several, by commas.
    pub fn writer(&self) -> Option<&str> {
        self.details.as_ref()?.writer.as_deref()
    }

    /// The same error, naming the commit that it is about.
    #[must_use]
    pub fn with_seq(mut self, seq: Seq) -> Self {
        self.details.get_or_insert_default().seq = Some(seq);
        self
    }

    /// The commit that the error is about.
    pub fn seq(&self) -> Option<Seq> {
        self.details.as_ref()?.seq
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, said to have happened while doing `what`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(ErrorKind::$kind, message)
                }
            )*
        }
    };
}

constructors! {
    invalid => InvalidInput,
    not_found => NotFound,
    already_exists => AlreadyExists,
    schema_conflict => SchemaConflict,
    serialization => Serialization,
    unsupported => Unsupported,
    overloaded => Overloaded,
    unavailable => Unavailable,
    outcome_unknown => OutcomeUnknown,
    damaged => Damaged,
    newer_format => NewerFormat,
    not_writer => NotWriter,
    quorum_timeout => QuorumTimeout,
    behind => Behind,
    unauthenticated => Unauthenticated,
    forbidden => Forbidden,
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_outlive_the_context_that_is_added() {
        let error = Error::not_writer("node b is a replica").with_writer("http://a:1,http://c:1");
        let error = error.with_seq(Seq(7)).context("inserting into t");
        assert_eq!(error.to_string(), "inserting into t: node b is a replica");
        assert_eq!((error.writer(), error.seq()), (Some("http://a:1,http://c:1"), Some(Seq(7))));
        assert_eq!(error.kind().code(), Some("not-writer"));

        let bare = Error::behind("at 3").with_writer("");
        assert_eq!((bare.writer(), bare.seq()), (None, None), "nothing is named by no name");
    }
}
