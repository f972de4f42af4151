//! The tokens a node knows, and what each of them allows.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ring::hmac;
use tandem_types::{Error, Result};

use crate::bearer;
use crate::credentials::{self, Credential};
use crate::token_file;

/// What a token allows. The order is that of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Queries, and whatever changes nothing but the asker's own session.
    Read,
    /// Everything.
    Write,
}

/// A right, and to whom it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    right: Right,
    name: Arc<str>,
    /// Which of the node's tokens it came by.
    token: Option<usize>,
}

impl Grant {
    /// What everybody has where no tokens are asked for.
    pub fn everything() -> Self {
        Self { right: Right::Write, name: "anybody".into(), token: None }
    }

    pub fn right(&self) -> Right {
        self.right
    }

    /// The name that goes with the token, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Insists on a right; `what` is what needs it.
    ///
    /// # Errors
    ///
    /// `Forbidden`, with what to do.
    pub fn require(&self, right: Right, what: &str) -> Result<()> {
        if self.right >= right {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "{what} needs a token that may write, and that of {:?} may only read: use one whose line in the \
             node's --auth-token-file begins with \"write\"",
            self.name
        )))
    }
}

/// The tokens of a token file.
pub struct Tokens {
    known: Vec<Known>,
    /// What this node shows to others.
    own: String,
}

struct Known {
    tag: hmac::Tag,
    /// Signs the session bearers that stand for the token.
    key: hmac::Key,
    right: Right,
    name: Arc<str>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.known.iter().map(|k| (&k.name, k.right)).collect();
        f.debug_struct("Tokens").field("known", &names).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads a token file, and warns if others than its owner may read it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with the file and the line, never with a token.
    pub fn read(path: &Path) -> Result<Self> {
        let lines = token_file::read(path)?;
        // Nodes write through each other, so the first token that may write is the one to show.
        let own = lines.iter().find(|l| l.right == Right::Write).or(lines.first());
        let own = own.map(|line| line.token.clone()).unwrap_or_default();
        let known = lines.into_iter().map(|line| Known {
            tag: tag(&line.token),
            key: hmac::Key::new(hmac::HMAC_SHA256, line.token.as_bytes()),
            right: line.right,
            name: line.name.into(),
        });
        Ok(Self { known: known.collect(), own })
    }

    /// The token that this node shows to other nodes: the first that may write, else the first.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Decides by `authorization` headers, of which one must be good.
    pub(crate) fn admit<'a>(&self, headers: impl Iterator<Item = &'a str>, now_micros: i64) -> Result<Grant> {
        let mut refusal = Error::unauthenticated(format!("this node wants a token: {HOW}"));
        for header in headers {
            match self.grant(header, now_micros) {
                Ok(grant) => return Ok(grant),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn grant(&self, header: &str, now_micros: i64) -> Result<Grant> {
        let unknown = || Error::unauthenticated(format!("the token is not one that this node knows: {HOW}"));
        match credentials::parse(header)? {
            Credential::Bearer(text) if bearer::is_one(&text) => {
                let held = bearer::open(&text, self.known.iter().map(|k| &k.key), now_micros)?;
                held.and_then(|at| self.grant_at(at)).ok_or_else(unknown)
            }
            Credential::Bearer(token) | Credential::Password(token) => {
                self.find(&token).and_then(|at| self.grant_at(at)).ok_or_else(unknown)
            }
        }
    }

    /// A session bearer that stands for the token of `grant`; `None` if the grant came without one. `nonce` makes it
    /// another one each time; it is no secret.
    pub fn session_bearer(&self, grant: &Grant, nonce: u128, now_micros: i64) -> Option<String> {
        let known = self.known.get(grant.token?)?;
        Some(bearer::seal(&known.key, nonce, now_micros))
    }

    fn grant_at(&self, at: usize) -> Option<Grant> {
        let known = self.known.get(at)?;
        Some(Grant { right: known.right, name: known.name.clone(), token: Some(at) })
    }

    /// Looks at all of them in constant time, so that time tells nothing about any.
    fn find(&self, token: &str) -> Option<usize> {
        let key = tag_key();
        let mut found = None;
        for (at, known) in self.known.iter().enumerate() {
            if hmac::verify(&key, token.as_bytes(), known.tag.as_ref()).is_ok() {
                found = Some(at);
            }
        }
        found
    }
}

/// What a client can do about a refusal.
const HOW: &str = "send \"authorization: Bearer TOKEN\", or the token as the password of any user name; \
                   the tandem command takes --auth-token or TANDEM_AUTH_TOKEN";

fn tag_key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, b"tandem token")
}

fn tag(token: &str) -> hmac::Tag {
    hmac::sign(&tag_key(), token.as_bytes())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use tandem_types::ErrorKind;

    use super::*;

    const READER: &str = "reader-token-0123456789";
    const WRITER: &str = "writer:token-0123456789";

    fn tokens() -> Tokens {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("read {READER} grafana\nwrite {WRITER}\n")).unwrap();
        Tokens::read(&path).unwrap()
    }

    fn admit(tokens: &Tokens, headers: &[String], now: i64) -> Result<Grant> {
        tokens.admit(headers.iter().map(String::as_str), now)
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_any_users_password() {
        let tokens = tokens();
        let padded = format!("Basic {}", STANDARD.encode(format!("any:{WRITER}")));
        let unpadded = format!("basic {}", STANDARD_NO_PAD.encode(format!("anybody:{WRITER}")));
        for header in [format!("Bearer {WRITER}"), format!("bearer  {WRITER} "), padded, unpadded] {
            let grant = admit(&tokens, &[header], 0).unwrap();
            assert_eq!((grant.right(), grant.name()), (Right::Write, "line 2"));
            grant.require(Right::Write, "INSERT").unwrap();
        }
        let grant = admit(&tokens, &["Bearer None".into(), format!("Bearer {READER}")], 0).unwrap();
        assert_eq!((grant.right(), grant.name()), (Right::Read, "grafana"));
        let refused = grant.require(Right::Write, "INSERT").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        assert!(refused.message().contains("INSERT") && refused.message().contains("grafana"), "{refused}");
        assert_eq!(tokens.own(), WRITER);
    }

    #[test]
    fn all_else_is_refused_without_repeating_it() {
        let tokens = tokens();
        let secret = "not-a-token-of-this-node";
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let cases = [
            vec![],
            vec![format!("Bearer {secret}")],
            vec!["Bearer None".to_owned()],
            vec!["Bearer ".to_owned()],
            vec![secret.to_owned()],
            vec![format!("Digest {secret}")],
            vec!["Basic !!!".to_owned()],
            vec![basic(secret)],
            vec![basic(&format!("user:{secret}"))],
            vec![basic(&format!("{WRITER}:"))],
            vec![format!("Bearer {}", &WRITER[..WRITER.len() - 1])],
            vec![format!("Bearer {WRITER}x")],
            vec![format!("Bearer {}", WRITER.to_uppercase())],
        ];
        for headers in cases {
            let refused = admit(&tokens, &headers, 0).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{headers:?}");
            assert!(!refused.message().contains(secret), "{refused}");
            assert!(refused.message().contains("authorization: Bearer"), "{refused}");
        }
        assert!(!format!("{tokens:?}").contains(WRITER));
    }

    #[test]
    fn a_session_bearer_stands_for_its_token_at_every_node_that_has_it() {
        let (tokens, elsewhere) = (tokens(), tokens());
        let grant = admit(&tokens, &[format!("Bearer {READER}")], 0).unwrap();
        let now = 1_800_000_000_000_000;
        let bearer = tokens.session_bearer(&grant, 7, now).unwrap();
        assert!(!bearer.contains(READER));
        let header = [format!("Bearer {bearer}")];
        for node in [&tokens, &elsewhere] {
            assert_eq!(admit(node, &header, now + 1).unwrap().right(), Right::Read);
        }
        let life = i64::try_from(bearer::BEARER_LIFE.as_micros()).unwrap();
        let late = admit(&tokens, &header, now + life + 1_000_000).unwrap_err();
        assert!(late.message().contains("log in again"), "{late}");
        // Nothing of it can be changed, and it is no password.
        for at in 0..bearer.len() {
            let mut forged = bearer.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(admit(&tokens, &[format!("Bearer {forged}")], now).is_err(), "{forged}");
        }
        let password = format!("Basic {}", STANDARD.encode(format!("u:{bearer}")));
        assert!(admit(&tokens, &[password], now).is_err());
        assert_eq!(tokens.session_bearer(&Grant::everything(), 7, now), None);
    }
}
