//! What chunks of a file are known by, so that an import that is run again finds what it has committed.
//!
//! A chunk's token is made of the table's id, the file's identity and the chunk's first row. The identity is a SHA-256 of
//! the stored bytes: of all of them up to 1 GiB, of the length and samples (both ends and pieces in between) beyond. Two
//! files that differ only between the samples are told apart by the server, which compares each chunk's rows with those
//! that it has under the token. The table's id, not its name, is part of it: a table that was dropped and made again is
//! another one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

/// Files up to this are read whole: at the speed of a disk, a few seconds.
const WHOLE_BYTES_MAX: u64 = 1 << 30;
/// What is read of each end of a larger one …
const END_BYTES: u64 = 16 << 20;
/// … and in between.
const PIECES: u64 = 1024;
const PIECE_BYTES: u64 = 64 << 10;

/// The identity of a file's content.
pub fn content_hash(mut file: File) -> io::Result<String> {
    hash(&mut file, WHOLE_BYTES_MAX)
}

fn hash(file: &mut (impl Read + Seek), whole_bytes_max: u64) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut hasher = Sha256::new();
    hasher.update(length.to_be_bytes());
    if length <= whole_bytes_max {
        add(&mut hasher, file, 0, length)?;
    } else {
        add(&mut hasher, file, 0, END_BYTES)?;
        let step = length / (PIECES + 1);
        for piece in 1..=PIECES {
            add(&mut hasher, file, piece * step, PIECE_BYTES)?;
        }
        add(&mut hasher, file, length.saturating_sub(END_BYTES), END_BYTES)?;
    }
    // Half of it: 128 bits do not collide by chance, and nobody gains by making them.
    Ok(hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

fn add(hasher: &mut Sha256, file: &mut (impl Read + Seek), from: u64, length: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let mut left = file.take(length);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = left.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// The tokens of one import.
#[derive(Debug, Default)]
pub struct Tokens {
    /// What each file's tokens begin with.
    files: Vec<String>,
}

impl Tokens {
    /// `hashes` are the identities of the files, in order. A content that is given several times in one import is to be
    /// loaded as often.
    pub fn new(table_id: &str, hashes: &[String]) -> Self {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let mut files = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let times = seen.entry(hash).and_modify(|n| *n += 1).or_insert(1);
            files.push(format!("import-{table_id}-{hash}-{times}"));
        }
        Self { files }
    }

    /// The token of the chunk of a file that begins with this row; `None` if there are none to be had.
    pub fn of(&self, file: usize, first_row: u64) -> Option<String> {
        self.files.get(file).map(|file| format!("{file}-{first_row}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(bytes: &[u8], whole: u64) -> String {
        hash(&mut Cursor::new(bytes), whole).unwrap()
    }

    #[test]
    fn contents_are_told_apart_whole_or_by_samples() {
        let one = vec![7_u8; 100_000];
        let mut other = one.clone();
        other[99_999] = 8;
        assert_eq!(of(&one, 1 << 20), of(&one, 1 << 20));
        assert_eq!(of(&one, 1 << 20).len(), 32);
        for whole in [1 << 20, 10] {
            assert_ne!(of(&one, whole), of(&other, whole), "{whole}");
            assert_ne!(of(&one, whole), of(&one[1..], whole), "{whole}");
        }
        assert_ne!(of(b"", 10), of(b"\0", 10));
    }

    #[test]
    fn the_same_content_given_twice_has_two_tokens() {
        let hashes = ["aa", "bb", "aa"].map(str::to_owned);
        let tokens = Tokens::new("5", &hashes);
        assert_eq!(tokens.of(0, 0).unwrap(), "import-5-aa-1-0");
        assert_eq!(tokens.of(2, 1_000_000).unwrap(), "import-5-aa-2-1000000");
        assert_ne!(tokens.of(0, 0), Tokens::new("6", &hashes).of(0, 0));
        assert_eq!(Tokens::default().of(0, 0), None);
        let longest = Tokens::new(&u64::MAX.to_string(), &["f".repeat(32)]).of(0, u64::MAX).unwrap();
        assert!(longest.len() <= 128, "{longest}");
    }
}
