//! Bytes that outlive us: where objects lie, and what stands in a commit and in a checkpoint.
//!
//! The records here are the *stored* form of what happened. They never change their meaning: a new
//! meaning gets a new record kind and a higher [`FORMAT_VERSION`]; a reader that meets a version or a
//! kind it does not know stops with [`ErrorKind::NewerFormat`](tandem_types::ErrorKind::NewerFormat)
//! instead of skipping it. Golden tests hold the bytes still.
//!
//! This crate does no I/O and knows nothing of what the records do to a database: that is the manifest's.

mod checkpoint;
mod commit;
mod frame;
mod identity;
mod layout;
mod pb;
mod record;
mod schema_bytes;

#[cfg(test)]
mod golden;

pub use checkpoint::{
    CheckpointPart, CheckpointRoot, CommittedForeign, CommittedToken, PartEntry, PartRef, TableState,
    decode_part, decode_root, encode_part, encode_part_entry, encode_root,
};
pub use commit::{
    DecodedCommit, EncodedHeader, HeaderHash, decode_commit, decode_commit_header, encode_header,
};
pub use identity::{Identity, decode_identity, encode_identity};
pub use layout::{
    FileName, NODES_DIR, ObjectName, ROOT_DIR, commit_path, data_path, floor_path, heartbeat_path,
    identity_path, parse_root_name, part_path, root_path, segment_path,
};
pub use record::{
    CommitHeader, DataFile, ForeignToken, Lease, MAX_TOKEN_BYTES, NewTable, Op, Primary, ProducerId, Replace,
    Section, SectionKey, SectionPart, TableDef, Token, Transaction, TransactionToken, encode_file_entry,
    encode_section_entry, encode_table_entry,
};

pub use schema_bytes::{decode_fields, encode_fields};

/// The version of everything this crate writes; readers accept it and what is older.
///
/// 2 brought tokens of clients, promotions and leases. What version 1 wrote means the same as ever.
pub const FORMAT_VERSION: u32 = 2;
