//! Who may do what, and over which wire: tokens and TLS.
//!
//! What this crate promises:
//!
//! - With tokens, nobody is let in who does not show one of them; without a decision there is no right.
//! - Tokens are compared in constant time, are never written to a log and never part of an error or of `Debug`.
//! - A *session bearer*, which stands for a token after a Handshake, is believed by every node that has the token, as
//!   long as the token is there and [`BEARER_LIFE`] has not passed. Nothing is stored for it.
//! - A client that is slow to finish its TLS handshake keeps nobody else waiting.
//!
//! Words: a *token* is a secret text from the token file; a *right* is what it allows; a *grant* is a right and the name
//! of whom it was given to.
//!
//! What it refuses to know: which request needs which right. The edges know their requests and ask.

mod bearer;
mod credentials;
mod listener;
mod tls;
mod token_file;
mod tokens;

use std::sync::Arc;

use tandem_types::Result;

pub use bearer::BEARER_LIFE;
pub use listener::{Incoming, TlsUpgrade, Wire};
pub use tls::{ClientTls, ServerTls};
pub use tokens::{Grant, Right, Tokens};

/// What a listener demands of whom it serves.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Without tokens everybody may do everything.
    pub tokens: Option<Arc<Tokens>>,
    /// Without it the wire is in the clear.
    pub tls: Option<ServerTls>,
}

impl Access {
    /// Decides by a request's `authorization` headers, of which one must be good.
    ///
    /// # Errors
    ///
    /// `Unauthenticated`, in words that say how to do better.
    pub fn admit<'a>(&self, headers: impl Iterator<Item = &'a str>, now_micros: i64) -> Result<Grant> {
        match &self.tokens {
            None => Ok(Grant::everything()),
            Some(tokens) => tokens.admit(headers, now_micros),
        }
    }
}

#[cfg(test)]
mod tests;
