//! Which replacements of a keyed table's data are closed.
//!
//! Data files of a keyed table hold the exact state of their rows at the seq that they are folded through, and no two of
//! them share a key. That holds as long as every job takes, of each partition, all data at its base that lies between
//! the first and the last timestamp of what it takes: rows of equal key have equal timestamps. Where the timestamp is not
//! in the key, a job takes all there is.

use std::collections::BTreeMap;

use tandem_format::Replace;
use tandem_types::{Error, Partition, Result};

use crate::table::{Table, overlap};

/// By partition: first and last timestamp of the inputs; `None`: they may have any.
pub(super) type Hulls = BTreeMap<Partition, Option<(i64, i64)>>;

/// Whether rows of equal key have equal timestamps.
fn is_timed(table: &Table) -> bool {
    table.def().timestamp.is_some_and(|id| table.primary_key().contains(&id))
}

/// What the inputs of a replacement span; of an unkeyed table: nothing, since there it does not matter.
pub(super) fn closed_hulls(table: &Table, replace: &Replace) -> Result<Hulls> {
    let mut hulls = Hulls::new();
    if !table.is_keyed() {
        return Ok(hulls);
    }
    let gone = || Error::serialization("rows that were to be compacted are gone");
    let timed = is_timed(table);
    let mut add = |partition: Partition, time: Option<(i64, i64)>| {
        let time = time.filter(|_| timed);
        let joined = |old: Option<(i64, i64)>| match (old, time) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            _ => None,
        };
        hulls.entry(partition).and_modify(|old| *old = joined(*old)).or_insert(time);
    };
    for name in &replace.files {
        add(name.partition, table.file(name).ok_or_else(gone)?.file.time);
    }
    for part in &replace.parts {
        let tail = table.tail_section(&part.section).ok_or_else(gone)?;
        add(part.partition, table.part_time(tail, part.partition));
    }
    Ok(hulls)
}

/// Refuses a replacement after which data of its base is left between what it took. `table` is without the inputs and
/// not yet with the outputs.
pub(super) fn check_closed(table: &Table, replace: &Replace, hulls: &Hulls) -> Result<()> {
    let open = |partition: Partition| {
        Error::serialization(format!(
            "a compaction of partition {} of table {} left out data that its rows may have keys in common with",
            table.partition_by().label(partition),
            table.name()
        ))
    };
    for (partition, hull) in hulls {
        for state in table.files().filter(|f| f.file.name.partition == *partition) {
            if overlap(*hull, state.file.time) {
                return Err(open(*partition));
            }
        }
        for tail in table.tail().take_while(|t| t.key.seq <= replace.base) {
            if tail.live.binary_search(partition).is_ok() && overlap(*hull, table.part_time(tail, *partition))
            {
                return Err(open(*partition));
            }
        }
    }
    Ok(())
}
