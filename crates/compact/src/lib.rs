//! Compaction: a pure policy and the merge run.
