//! Commit objects: a header that says what happened, then the sections small enough to ride along.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tandem_types::{Error, Result};

use crate::record::CommitHeader;
use crate::{frame, pb};

const MAGIC: &[u8; 8] = b"TNDMCMT\n";

/// SHA-256 of a commit's header; the chain of them makes the log one history.
pub type HeaderHash = [u8; 32];

/// A header ready to be put, payload to follow.
#[derive(Clone, Debug)]
pub struct EncodedHeader {
    pub bytes: Bytes,
    pub hash: HeaderHash,
}

/// A commit whose frame and header were verified. Sections in the payload carry their own checksums.
#[derive(Clone, Debug)]
pub struct DecodedCommit {
    pub header: CommitHeader,
    pub hash: HeaderHash,
    pub payload: Bytes,
}

/// Canonical: equal headers give equal bytes.
pub fn encode_header(header: &CommitHeader) -> Result<EncodedHeader> {
    let message = pb::CommitHeader::try_from(header)?.encode_to_vec();
    let hash = Sha256::digest(&message).into();
    Ok(EncodedHeader { bytes: frame::wrap(MAGIC, &message)?.into(), hash })
}

pub fn decode_commit(object: &Bytes) -> Result<DecodedCommit> {
    let (message, payload) = frame::unwrap(MAGIC, object)?;
    let hash = Sha256::digest(&message).into();
    let stored = pb::CommitHeader::decode(message)
        .map_err(|e| Error::damaged(format!("the commit's header does not decode: {e}")))?;
    Ok(DecodedCommit { header: stored.try_into()?, hash, payload })
}

/// As [`decode_commit`], payload dropped.
pub fn decode_commit_header(object: &Bytes) -> Result<CommitHeader> {
    decode_commit(object).map(|commit| commit.header)
}
