//! What an `authorization` header says.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tandem_types::{Error, Result};

/// Some clients pad, some do not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client shows.
pub(crate) enum Credential {
    Bearer(String),
    /// Of whatever user: the token says who it is.
    Password(String),
}

/// Reads a header's value. Errors do not repeat it.
pub(crate) fn parse(header: &str) -> Result<Credential> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credential::Bearer(rest.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        return password(rest).map(Credential::Password).ok_or_else(|| {
            Error::unauthenticated(
                "the Basic authorization is not base64 of \"user:password\", where the password is a token; \
                 \"authorization: Bearer TOKEN\" does as well",
            )
        });
    }
    Err(Error::unauthenticated(
        "the authorization's scheme is not understood here: send \"authorization: Bearer TOKEN\"",
    ))
}

fn password(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(LENIENT.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}
