//! Parquet data files: how rows become bytes, and how bytes that were damaged never become rows.
//!
//! What this crate promises:
//!
//! - a file holds exactly the rows it was given, in their order, under their column *ids* (every top
//!   level Parquet field carries its id as `field_id`); names are for other readers;
//! - a byte that changed after writing is an error that names the object, or does not matter: the body
//!   is checked by blocks, the tail as a whole, before anything in them is decoded;
//! - sorting and merging are stable: rows with equal keys stay in the order of the inputs, which is the
//!   order of the log; nulls sort last;
//! - memory is bounded: one encoded file, one row group in progress, one batch per merged input.
//!
//! Words:
//!
//! ```text
//!  0                          body_end                                    size
//!  ├── row groups, bloom filters ─┼── page indexes · footer with block CRCs ──┤
//!  │ body: CRC32C per 64 KiB block │ tail: one CRC32C, kept by the manifest    │
//! ```
//!
//! - *body*, *tail*, *block*: as drawn; the CRCs of the body's blocks stand in the footer's key-value
//!   metadata, so only the tail's CRC has to be kept elsewhere;
//! - *digest*: [`RowDigest`], which tells whether two sets of rows are the same, whatever their order,
//!   their batches and their Arrow encodings.
//!
//! What it refuses to know: the manifest, the log, where files are named, queries.

mod blocks;
mod bounds;
mod cache;
mod cast;
mod chunk;
mod compress;
mod delta;
mod digest;
mod encoding;
mod groups;
mod integers;
mod keys;
mod merge;
mod read;
mod repeated;
mod rle;
mod sink;
mod sort;
mod stored;
mod unify;
mod write;

#[cfg(test)]
mod tests;

pub use cache::{Footer, FooterCache};
pub use cast::{cast_array, cast_to_schema};
pub use digest::RowDigest;
pub use merge::merge_sorted;
pub use read::{DataFile, FileBatches, VerifiedReader, from_parquet_error, read_batches};
pub use sort::sort_batches;
pub use stored::stored_type;
pub use write::{Compression, FileMeta, FileWriter, KeyRange, KeyValue, WriteSpec, write_file};
