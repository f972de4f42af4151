//! Sections and segments: encoding and guarded decoding of Arrow IPC.
//!
//! A *section* is one complete Arrow IPC stream: a schema message, dictionaries, record batches and
//! the end-of-stream marker. It holds no ids and no schema-level metadata. A *segment* is many sections back to
//! back; where each of them begins, how long it is and its CRC32C are kept elsewhere (in the commit header).
//!
//! What this crate promises:
//!
//! - What [`encode_section`] wrote, [`decode_section`] reads back, value for value, type for type.
//! - Encoding copies no large buffer and decoding copies none that is aligned.
//! - Bytes from anywhere, a client's or a damaged disk's, end in a batch or in an error: never in an abort,
//!   a panic that escapes, or memory beyond the [`Limits`]. [`guard`] is what stands between such bytes and the
//!   Arrow decoder, which by itself allocates whatever a message declares.
//!
//! What it refuses to know: tables, columns' ids, commits, object names, any I/O. It never skips Arrow's own
//! validation of what it decodes.

mod decode;
mod encode;
pub mod guard;
mod limits;
mod stats;
#[cfg(test)]
mod tests;

pub use decode::{DecodedSection, decode_section};
pub use encode::{EncodedSection, SECTION_ALIGNMENT, encode_section};
pub use limits::Limits;
pub use stats::{BatchStats, column_stats};
