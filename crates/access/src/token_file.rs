//! The token file: one token a line, `read TOKEN [name]` or `write TOKEN [name]`, `#` begins a comment line.

use std::collections::HashMap;
use std::path::Path;

use tandem_types::{Error, Result};

use crate::tokens::Right;

/// Shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 1024;
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Each request is compared with all of them.
const TOKENS_MAX: usize = 1000;

/// One line.
pub(crate) struct Line {
    pub right: Right,
    pub token: String,
    pub name: String,
}

/// Reads a token file; at least one line. Errors name the file and the line, never a token.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let shown = path.display();
    let unreadable = |e: std::io::Error| Error::invalid(format!("token file {shown}: {e}"));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(Error::invalid(format!("token file {shown}: larger than {FILE_BYTES_MAX} bytes")));
    }
    warn_of_readers(path, &metadata);
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let lines = parse(&text).map_err(|e| e.context(format!("token file {shown}")))?;
    if lines.is_empty() {
        return Err(Error::invalid(format!(
            "token file {shown} has no token, so nobody could be let in: write a line \"write TOKEN [name]\""
        )));
    }
    Ok(lines)
}

#[cfg(unix)]
fn warn_of_readers(path: &Path, metadata: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(
            "token file {path} has mode {mode:03o}: others than its owner may read it; chmod 600 ends that"
        );
    }
}

#[cfg(not(unix))]
fn warn_of_readers(_: &Path, _: &std::fs::Metadata) {}

fn parse(text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut seen = HashMap::new();
    for (at, text) in text.lines().enumerate() {
        let (number, text) = (at + 1, text.trim());
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let line = parse_line(text, number).map_err(|e| e.context(format!("line {number}")))?;
        if let Some(first) = seen.insert(line.token.clone(), number) {
            return Err(Error::invalid(format!("line {number}: the same token as in line {first}")));
        }
        lines.push(line);
    }
    if lines.len() > TOKENS_MAX {
        return Err(Error::invalid(format!("{} tokens; at most {TOKENS_MAX} are possible", lines.len())));
    }
    Ok(lines)
}

fn parse_line(text: &str, number: usize) -> Result<Line> {
    let mut words = text.split_whitespace();
    let right = match words.next() {
        Some("read") => Right::Read,
        Some("write") => Right::Write,
        // Not repeated: it may be the token itself.
        _ => {
            return Err(Error::invalid(
                "begins with neither \"read\" nor \"write\": it is \"read TOKEN [name]\"",
            ));
        }
    };
    let token = words.next().ok_or_else(|| Error::invalid("has no token: it is \"read TOKEN [name]\""))?;
    if token.len() < TOKEN_BYTES_MIN || token.len() > TOKEN_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the token has {} characters; between {TOKEN_BYTES_MIN} and {TOKEN_BYTES_MAX} are right",
            token.len()
        )));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid("the token has characters that cannot be sent: use letters and digits"));
    }
    let name = words.collect::<Vec<_>>().join(" ");
    let name = if name.is_empty() { format!("line {number}") } else { name };
    Ok(Line { right, token: token.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_names_and_comments_left_out() {
        let text =
            "# who may what\n\nread 0123456789abcdef  grafana on the wall\n  write 0123456789abcdeg\r\n";
        let lines = parse(text).unwrap();
        let seen: Vec<_> = lines.iter().map(|l| (l.right, l.token.as_str(), l.name.as_str())).collect();
        assert_eq!(
            seen,
            [
                (Right::Read, "0123456789abcdef", "grafana on the wall"),
                (Right::Write, "0123456789abcdeg", "line 4"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_token() {
        let cases = [
            ("write short", "line 1"),
            ("# x\nwrite", "line 2"),
            ("secret-0123456789abcdef", "line 1"),
            ("admin secret-0123456789abcdef", "line 1"),
            ("read secret-0123456789-é", "line 1"),
            ("read secret-0123456789abcdef\nwrite secret-0123456789abcdef", "line 2"),
        ];
        for (text, line) in cases {
            let error = parse(text).err().unwrap();
            assert!(error.message().contains(line), "{text:?}: {error}");
            assert!(!error.message().contains("secret"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_that_lets_nobody_in_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        assert!(read(&path).err().unwrap().message().contains("tokens"));
        std::fs::write(&path, "# nothing yet\n").unwrap();
        assert!(read(&path).err().unwrap().message().contains("no token"));
    }
}
