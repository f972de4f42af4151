//! Session bearers: texts that stand for a token for a while, signed with it, so that any node that has the token
//! believes them and none has to remember them.
//!
//! A bearer is `tdb1.SECONDS.NONCE.SIGNATURE`, all in hexadecimal.

use std::time::Duration;

use ring::hmac;
use tandem_types::{Error, Result};

/// How long a session bearer is good: long enough for a dashboard that logs in once, and never longer than its token.
pub const BEARER_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

const PREFIX: &str = "tdb1.";
/// Clocks of nodes may differ, by less than this.
const SKEW_SECONDS: i64 = 3600;

/// Whether a text wants to be a session bearer.
pub(crate) fn is_one(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// A new session bearer under `key`.
pub(crate) fn seal(key: &hmac::Key, nonce: u128, now_micros: i64) -> String {
    let said = format!("{PREFIX}{:x}.{nonce:032x}", now_micros.div_euclid(1_000_000).max(0));
    let signature = hmac::sign(key, said.as_bytes());
    format!("{said}.{}", hex(signature.as_ref()))
}

/// Which of `keys` signed the bearer; `None` if none did.
///
/// # Errors
///
/// `Unauthenticated` if one did, but too long ago.
pub(crate) fn open<'a>(
    text: &str,
    keys: impl Iterator<Item = &'a hmac::Key>,
    now_micros: i64,
) -> Result<Option<usize>> {
    let Some((said, signature)) = text.rsplit_once('.') else { return Ok(None) };
    let Some(signature) = from_hex(signature) else { return Ok(None) };
    let mut signer = None;
    for (at, key) in keys.enumerate() {
        if hmac::verify(key, said.as_bytes(), &signature).is_ok() {
            signer = Some(at);
        }
    }
    let seconds = said.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).map(|(seconds, _)| seconds);
    let issued = seconds.and_then(|s| i64::from_str_radix(s, 16).ok());
    let (Some(signer), Some(issued)) = (signer, issued) else { return Ok(None) };
    let age = now_micros.div_euclid(1_000_000).saturating_sub(issued);
    let life = i64::try_from(BEARER_LIFE.as_secs()).unwrap_or(i64::MAX);
    if age > life || age < -SKEW_SECONDS {
        return Err(Error::unauthenticated("the session is over: log in again"));
    }
    Ok(Some(signer))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Only what [`hex`] makes: a second spelling of a signature would be a second bearer.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
