//! `tandem.json`: the object that makes a prefix a database. Plain JSON, for people.

use tandem_types::{DatabaseId, Error, Result};

use crate::FORMAT_VERSION;

/// A database's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub database: DatabaseId,
}

/// The identity as this version writes it.
pub fn encode_identity(identity: &Identity) -> Vec<u8> {
    text_of(identity, FORMAT_VERSION).into_bytes()
}

/// The one form that the identity has in a version. From 3 on it ends with a checksum of what stands before.
fn text_of(identity: &Identity, version: u32) -> String {
    let front =
        format!("{{\"format\":\"tandemdb\",\"version\":{version},\"database\":\"{}\"", identity.database);
    match version {
        ..3 => format!("{front}}}\n"),
        _ => format!("{front},\"crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(front.as_bytes())),
    }
}

/// Reads exactly what [`encode_identity`] of this or an older version wrote.
pub fn decode_identity(bytes: &[u8]) -> Result<Identity> {
    let damaged = |what: &str| Error::damaged(format!("tandem.json {what}"));
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("is no text"))?;
    if field(text, "format") != Some("tandemdb") {
        return Err(damaged("is not one of TandemDB: the prefix belongs to something else"));
    }
    let version: u32 =
        field(text, "version").and_then(|v| v.parse().ok()).ok_or_else(|| damaged("names no version"))?;
    // Before anything else is judged: a newer version may write it in another form.
    if version > FORMAT_VERSION {
        return Err(Error::newer_format(format!(
            "tandem.json says format version {version}, this program reads up to {FORMAT_VERSION}: upgrade it"
        )));
    }
    let database =
        field(text, "database").and_then(DatabaseId::parse).ok_or_else(|| damaged("names no database id"))?;
    let identity = Identity { database };
    if version == 0 || text != text_of(&identity, version) {
        return Err(damaged(
            "is not what any version of this program wrote: its checksum or its form is wrong",
        ));
    }
    Ok(identity)
}

/// The bare value of a key in flat JSON whose values hold neither quotes nor commas nor braces.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.trim().strip_prefix('{')?.strip_suffix('}')?.split(',').find_map(|pair| {
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
            "{\"format\":\"tandemdb\",\"version\":3,\"database\":\"00000000000000000000000000000abc\",\"crc32c\":\"ddc11136\"}\n"
        );
        assert_eq!(decode_identity(&bytes), Ok(identity));
        for version in 1..3 {
            let older = format!(
                "{{\"format\":\"tandemdb\",\"version\":{version},\"database\":\"00000000000000000000000000000abc\"}}\n"
            );
            assert_eq!(decode_identity(older.as_bytes()), Ok(identity));
        }
    }

    #[test]
    fn foreign_newer_and_damaged_identities_are_told_apart() {
        let kind = |text: &str| decode_identity(text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind("{\"format\":\"other\"}"), ErrorKind::Damaged);
        assert_eq!(kind(&text_of(&Identity { database: DatabaseId(1) }, 4)), ErrorKind::NewerFormat);
        assert_eq!(
            kind("{\"format\":\"tandemdb\",\"version\":99,\"of\":\"the future\"}"),
            ErrorKind::NewerFormat
        );
        assert_eq!(kind("{\"format\":\"tandemdb\",\"version\":1,\"database\":\"x\"}"), ErrorKind::Damaged);
        assert_eq!(kind(""), ErrorKind::Damaged);
    }

    #[test]
    fn any_byte_that_changes_is_noticed() {
        let bytes = encode_identity(&Identity { database: DatabaseId(0xabc) });
        for at in 0..bytes.len() {
            for flip in [1, 2, 0x20, 0x80, 0xff] {
                let mut other = bytes.clone();
                other[at] ^= flip;
                assert!(decode_identity(&other).is_err(), "byte {at} ^ {flip}");
            }
        }
    }
}
