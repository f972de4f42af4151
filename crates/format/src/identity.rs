//! `tandem.json`: the object that makes a prefix a database. Plain JSON, for people.

use tandem_types::{DatabaseId, Error, Result};

use crate::FORMAT_VERSION;

/// A database's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub database: DatabaseId,
}

pub fn encode_identity(identity: &Identity) -> Vec<u8> {
    format!(
        "{{\"format\":\"tandemdb\",\"version\":{FORMAT_VERSION},\"database\":\"{}\"}}\n",
        identity.database
    )
    .into_bytes()
}

/// Reads exactly what [`encode_identity`] of this or an older version wrote.
pub fn decode_identity(bytes: &[u8]) -> Result<Identity> {
    let damaged = |what: &str| Error::damaged(format!("tandem.json {what}"));
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("is no text"))?.trim();
    if field(text, "format") != Some("tandemdb") {
        return Err(damaged("is not one of TandemDB: the prefix belongs to something else"));
    }
    let version: u32 =
        field(text, "version").and_then(|v| v.parse().ok()).ok_or_else(|| damaged("names no version"))?;
    if version > FORMAT_VERSION {
        return Err(Error::newer_format(format!(
            "tandem.json needs format version {version}, this program reads up to {FORMAT_VERSION}: upgrade it"
        )));
    }
    let database =
        field(text, "database").and_then(DatabaseId::parse).ok_or_else(|| damaged("names no database id"))?;
    Ok(Identity { database })
}

/// The bare value of a key in flat JSON whose values hold neither quotes nor commas nor braces.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.strip_prefix('{')?.strip_suffix('}')?.split(',').find_map(|pair| {
        let (name, value) = pair.split_once(':')?;
        (name.trim().trim_matches('"') == key).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_types::ErrorKind;

    #[test]
    fn identity_is_frozen_and_reads_back() {
        let identity = Identity { database: DatabaseId(0xabc) };
        let bytes = encode_identity(&identity);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "{\"format\":\"tandemdb\",\"version\":3,\"database\":\"00000000000000000000000000000abc\"}\n"
        );
        let first =
            "{\"format\":\"tandemdb\",\"version\":1,\"database\":\"00000000000000000000000000000abc\"}\n";
        assert_eq!(decode_identity(first.as_bytes()), Ok(identity));
        assert_eq!(decode_identity(&bytes), Ok(identity));
    }

    #[test]
    fn foreign_newer_and_damaged_identities_are_told_apart() {
        let kind = |text: &str| decode_identity(text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind("{\"format\":\"other\"}"), ErrorKind::Damaged);
        assert_eq!(kind("{\"format\":\"tandemdb\",\"version\":4}"), ErrorKind::NewerFormat);
        assert_eq!(kind("{\"format\":\"tandemdb\",\"version\":1,\"database\":\"x\"}"), ErrorKind::Damaged);
        assert_eq!(kind(""), ErrorKind::Damaged);
    }
}
