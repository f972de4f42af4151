//! What went wrong, said for two readers: a sentence for a person, a kind for a program.

use std::fmt;

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
            _ => None,
        }
    }
}

/// An error: its kind, and a sentence that names what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
