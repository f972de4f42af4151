//! What makes a write commit once.

use std::sync::{Arc, OnceLock};

use tandem_format::{ForeignToken, TransactionToken};
use tandem_types::{Error, Result};

use crate::queue::Answer;
use crate::{Committed, Writer};

/// The token that a write carries through all attempts at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WriteToken {
    /// The node mints one: its own attempts, however many, commit once.
    #[default]
    Minted,
    /// Harmless to repeat.
    None,
    /// The client's: it commits once, whichever nodes it is sent to and however often. The digest, of the request's
    /// logical values, tells another write under the same token.
    Client { token: ForeignToken, digest: Vec<u8> },
    /// The client's, or for clients without tokens the content itself ([`TransactionToken::Content`]), for rows whose digest is known only when all of them have come: whoever makes the stream sets
    /// it before the stream ends.
    Streamed { token: TransactionToken, digest: Arc<OnceLock<Vec<u8>>> },
}

impl WriteToken {
    pub(crate) fn is_minted(&self) -> bool {
        matches!(self, Self::Minted)
    }

    /// Token and digest, unless the node is to mint the token.
    pub(crate) fn of_client(&self) -> (Option<TransactionToken>, Vec<u8>) {
        match self {
            Self::Minted | Self::None => (None, Vec::new()),
            Self::Client { token, digest } => (Some(token.clone().into()), digest.clone()),
            Self::Streamed { token, digest } => {
                (Some(token.clone()), digest.get().cloned().unwrap_or_default())
            }
        }
    }

    /// Whether the rows that it is for have not all come yet: then nothing can be said of them.
    fn is_open(&self) -> bool {
        matches!(self, Self::Streamed { digest, .. } if digest.get().is_none())
    }
}

impl Writer {
    /// What a write under this token was answered, as far as the state here knows. `None`, too, where the node mints
    /// the token.
    ///
    /// # Errors
    ///
    /// `TokenReused` and `TokenExpired`, as when the write was sent.
    pub fn repeated(&self, token: &WriteToken) -> Result<Option<Committed>> {
        if token.is_open() {
            return Ok(None);
        }
        let (Some(token), digest) = token.of_client() else { return Ok(None) };
        let known = self.state().committed(&token, &digest)?;
        Ok(known.map(|(seq, rows)| Committed { seq, rows, duplicate: true }))
    }

    /// The answer to a write that cannot be prepared any more: perhaps it was committed before the table changed.
    pub(crate) async fn unprepared(&self, token: &WriteToken, error: Error) -> Result<Committed> {
        if token.is_open() || token.of_client().0.is_none() {
            return Err(error);
        }
        match self.send(self.state().seq(), Vec::new(), Vec::new(), token, None).await? {
            Answer::Committed(committed) if committed.duplicate => Ok(committed),
            Answer::Committed(_) => Err(error),
            Answer::Refused(other) | Answer::Recast(other) => Err(other),
        }
    }
}
