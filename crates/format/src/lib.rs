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
mod floor;
mod frame;
mod identity;
mod layout;
mod mutation;
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
pub use floor::{Floor, decode_floor, encode_floor};
pub use identity::{Identity, decode_identity, encode_identity};
pub use layout::{
    DATA_DIR, FileName, LOG_DIR, NODES_DIR, ObjectName, PART_DIR, ROOT_DIR, SEGMENT_DIR, commit_path,
    data_path, floor_path, heartbeat_path, identity_path, parse_commit_name, parse_data_path,
    parse_part_name, parse_root_name, parse_segment_name, part_path, root_path, segment_path,
};
pub use mutation::{
    BinaryOp, Expr, Literal, MAX_EXPR_DEPTH, MAX_STATEMENT_BYTES, Mutation, MutationKey, MutationKind,
    PendingMutation,
};
pub use record::{
    CommitHeader, DataFile, ForeignToken, Lease, MAX_TOKEN_BYTES, NewTable, OnDuplicate, Op, Pin, Primary,
    ProducerId, Replace, Section, SectionKey, SectionPart, TableDef, TableImage, Token, Transaction,
    TransactionToken, decode_mutation, encode_file_entry, encode_mutation, encode_mutation_entry, encode_pin,
    encode_section_entry, encode_table_entry,
};

pub use schema_bytes::{decode_fields, encode_fields};

/// The version of everything this crate writes; readers accept it and what is older.
///
/// 2 brought tokens of clients, promotions and leases; 3 brought keys, mutations, restored tables, dropped partitions and the
/// end of history. What older versions wrote means the same as ever.
pub const FORMAT_VERSION: u32 = 3;
