//! Where objects lie below a database's prefix. Constructors and parsers undo each other.

use std::fmt;

use tandem_types::{Partition, PartitionUnit, Seq, TableId, WriterId};

/// Holds the roots of checkpoints; listed once, at start.
pub const ROOT_DIR: &str = "checkpoint";

/// Holds the parts of checkpoints.
pub const PART_DIR: &str = "checkpoint/part";

/// Holds the log's objects.
pub const LOG_DIR: &str = "log";

/// Holds segments.
pub const SEGMENT_DIR: &str = "wal";

/// Holds data files, by table and partition.
pub const DATA_DIR: &str = "data";

/// Holds the heartbeats of nodes: the only objects that are ever overwritten, and none that counts.
pub const NODES_DIR: &str = "nodes";

/// `nodes/<node id>.json`. The id must be fit for a file's name.
pub fn heartbeat_path(node_id: &str) -> String {
    format!("{NODES_DIR}/{node_id}.json")
}

/// The object that makes a prefix a database.
pub fn identity_path() -> &'static str {
    "tandem.json"
}

/// `log/<seq, 20 digits>.commit`
pub fn commit_path(seq: Seq) -> String {
    format!("log/{:020}.commit", seq.0)
}

/// The seq of a commit, from its name within [`LOG_DIR`].
pub fn parse_commit_name(name: &str) -> Option<Seq> {
    name.strip_suffix(".commit").and_then(parse_seq)
}

/// Exactly 20 digits: there is one way to write a number.
fn parse_seq(digits: &str) -> Option<Seq> {
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Seq))
        .flatten()
}

/// Lower-case hex of a fixed length, as names are written.
fn parse_hex(digits: &str, length: usize) -> Option<u64> {
    let written = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == length && digits.bytes().all(written))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// `log/floor/<k, 20 digits>`
pub fn floor_path(k: u64) -> String {
    format!("log/floor/{k:020}")
}

/// `checkpoint/<seq, 20 digits>.manifest`
pub fn root_path(seq: Seq) -> String {
    format!("{ROOT_DIR}/{:020}.manifest", seq.0)
}

/// The seq of a root, from its name within [`ROOT_DIR`].
pub fn parse_root_name(name: &str) -> Option<Seq> {
    name.strip_suffix(".manifest").and_then(parse_seq)
}

/// Base and hash of a part, from its name within [`PART_DIR`].
pub fn parse_part_name(name: &str) -> Option<(Seq, [u8; 32])> {
    let (base, digits) = name.split_once('-')?;
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::try_from(parse_hex(digits.get(2 * at..2 * at + 2)?, 2)?).ok()?;
    }
    Some((parse_seq(base)?, hash))
}

/// The segment, from its name within [`SEGMENT_DIR`].
pub fn parse_segment_name(name: &str) -> Option<ObjectName> {
    name.strip_suffix(".arrow").and_then(ObjectName::parse)
}

/// Table and object of a data file's path. The partition's label is left alone: the object's name is unique without it.
pub fn parse_data_path(path: &str) -> Option<(TableId, ObjectName)> {
    let mut parts = path.strip_prefix("data/")?.split('/');
    let (table, _label, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || table.starts_with(['+', '0']) && table != "0" {
        return None;
    }
    let object = ObjectName::parse(name.strip_suffix(".parquet")?)?;
    Some((TableId(table.parse().ok()?), object))
}

/// `checkpoint/part/<base seq>-<content hash>`
pub fn part_path(base: Seq, hash: &[u8; 32]) -> String {
    use fmt::Write;
    let mut path = format!("{ROOT_DIR}/part/{:020}-", base.0);
    for byte in hash {
        // Writing to a String does not fail.
        let _ = write!(path, "{byte:02x}");
    }
    path
}

/// `wal/<name>.arrow`
pub fn segment_path(name: &ObjectName) -> String {
    format!("wal/{name}.arrow")
}

/// `data/<table id>/<partition>/<name>.parquet`
pub fn data_path(table: TableId, unit: PartitionUnit, file: &FileName) -> String {
    format!("data/{}/{}/{}.parquet", table.0, unit.label(file.partition), file.object)
}

/// `<base seq>-<writer id>-<random>`: unique without asking anybody.
///
/// The base is the seq that was applied when the name was made. It is what lets a collector tell an
/// object that nobody names *yet* from one that nobody names *any more*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub base: Seq,
    pub writer: WriterId,
    pub random: u64,
}

impl ObjectName {
    /// From what [`Display`](fmt::Display) writes.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (base, writer, random) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (base, writer) = (parse_seq(base)?, WriterId(parse_hex(writer, 16)?));
        Some(Self { base, writer, random: parse_hex(random, 16)? })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{}-{:016x}", self.base.0, self.writer, self.random)
    }
}

/// A data file within its table: partition first, so that a table's files sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    pub partition: Partition,
    pub object: ObjectName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_frozen() {
        let object = ObjectName { base: Seq(7), writer: WriterId(0xab), random: 0x1234 };
        assert_eq!(commit_path(Seq(42)), "log/00000000000000000042.commit");
        assert_eq!(floor_path(1), "log/floor/00000000000000000001");
        assert_eq!(heartbeat_path("n-1"), "nodes/n-1.json");
        assert_eq!(root_path(Seq(42)), "checkpoint/00000000000000000042.manifest");
        assert_eq!(segment_path(&object), "wal/00000000000000000007-00000000000000ab-0000000000001234.arrow");
        let file = FileName { partition: Partition(15706), object };
        assert_eq!(
            data_path(TableId(3), PartitionUnit::Day, &file),
            "data/3/2013-01-01/00000000000000000007-00000000000000ab-0000000000001234.parquet"
        );
        assert!(part_path(Seq(9), &[0xfe; 32]).starts_with("checkpoint/part/00000000000000000009-fefe"));
    }

    #[test]
    fn a_root_name_parses_back() {
        let path = root_path(Seq(u64::MAX));
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(parse_root_name(name), Some(Seq(u64::MAX)));
        assert_eq!(parse_root_name("42.manifest"), None);
        assert_eq!(parse_root_name("99999999999999999999.manifest"), None);
    }

    #[test]
    fn names_parse_back_and_what_nobody_writes_does_not_parse() {
        let object = ObjectName { base: Seq(7), writer: WriterId(0xab), random: 0x1234 };
        let file = FileName { partition: Partition(15706), object };
        let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        assert_eq!(parse_commit_name(&last(&commit_path(Seq(42)))), Some(Seq(42)));
        assert_eq!(parse_segment_name(&last(&segment_path(&object))), Some(object));
        assert_eq!(parse_part_name(&last(&part_path(Seq(9), &[0xfe; 32]))), Some((Seq(9), [0xfe; 32])));
        let path = data_path(TableId(3), PartitionUnit::Day, &file);
        assert_eq!(parse_data_path(&path), Some((TableId(3), object)));
        for foreign in [
            "data/03/2013-01-01/00000000000000000007-00000000000000ab-0000000000001234.parquet",
            "data/3/00000000000000000007-00000000000000ab-0000000000001234.parquet",
            "data/3/x/00000000000000000007-00000000000000AB-0000000000001234.parquet",
            "data/3/x/7-00000000000000ab-0000000000001234.parquet",
            "data/3/x/00000000000000000007-00000000000000ab-0000000000001234.csv",
            "data/3/x/y/00000000000000000007-00000000000000ab-0000000000001234.parquet",
            "data/3/x/00000000000000000007-00000000000000ab-0000000000001234-1.parquet",
        ] {
            assert_eq!(parse_data_path(foreign), None, "{foreign}");
        }
        assert_eq!(parse_segment_name("notes.txt"), None);
        assert_eq!(parse_part_name("00000000000000000009-fe"), None);
        assert_eq!(parse_commit_name("floor"), None);
    }
}
