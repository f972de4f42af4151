//! Which files and sections of a keyed table may hold rows of equal keys.
//!
//! Rows of equal keys share a partition and a timestamp, and files never share a key with each other. So a file that no
//! part of the tail meets in time is read as it is; the others are read together with the parts that they meet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_manifest::{FileState, TailSection};
use tandem_types::Partition;

use super::pending::Times;

/// The rows of one partition in one section.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) section: Arc<TailSection>,
    pub(super) partition: Partition,
    pub(super) rows: u64,
    /// Of its rows; `None`: any.
    pub(super) time: Times,
}

/// Files and parts of the tail whose rows are folded together.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyGroup {
    pub(super) files: Vec<Arc<FileState>>,
    /// In log order.
    pub(super) parts: Vec<Part>,
}

/// A keyed table's files that are read as they are, and its groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Split {
    pub(super) alone: Vec<Arc<FileState>>,
    pub(super) groups: Vec<KeyGroup>,
}

/// Cuts a keyed table; `by_time` says that equal keys have equal timestamps.
pub(super) fn split(files: Vec<Arc<FileState>>, parts: Vec<Part>, by_time: bool) -> Split {
    let mut partitions: BTreeMap<Partition, KeyGroup> = BTreeMap::new();
    for part in parts {
        partitions.entry(part.partition).or_default().parts.push(part);
    }
    let mut split = Split::default();
    for file in files {
        match partitions.get_mut(&file.file.name.partition) {
            Some(group) => group.files.push(file),
            None => split.alone.push(file),
        }
    }
    for group in partitions.into_values() {
        cut(group, by_time, &mut split);
    }
    split
}

/// Cuts one partition.
fn cut(partition: KeyGroup, by_time: bool, split: &mut Split) {
    let range = |time: Times| time.filter(|_| by_time).unwrap_or((i64::MIN, i64::MAX));
    let KeyGroup { files, parts } = partition;

    // Parts that meet each other, by time; never empty.
    let mut order: Vec<usize> = (0..parts.len()).collect();
    let part_range = |at: &usize| parts.get(*at).map_or((0, 0), |part| range(part.time));
    order.sort_by_key(part_range);
    let mut islands: Vec<Island> = Vec::new();
    for at in order {
        let (start, end) = part_range(&at);
        match islands.last_mut().filter(|island| start <= island.end) {
            Some(island) => {
                island.end = island.end.max(end);
                island.parts.push(at);
            }
            None => {
                islands.push(Island { start, end, parts: vec![at], files: Vec::new(), bridged: false });
            }
        }
    }
    for file in files {
        let (start, end) = range(file.file.time);
        let first = islands.partition_point(|island| island.end < start);
        let after = islands.partition_point(|island| island.start <= end);
        // A file that meets several joins them.
        for island in islands.get_mut(first + 1..after).unwrap_or_default() {
            island.bridged = true;
        }
        match islands.get_mut(first).filter(|_| first < after) {
            Some(island) => island.files.push(file),
            None => split.alone.push(file),
        }
    }
    let mut group: Option<(Vec<usize>, Vec<Arc<FileState>>)> = None;
    let mut cut: Vec<(Vec<usize>, Vec<Arc<FileState>>)> = Vec::new();
    for island in islands {
        match &mut group {
            Some((parts, files)) if island.bridged => {
                parts.extend(island.parts);
                files.extend(island.files);
            }
            _ => cut.extend(group.replace((island.parts, island.files))),
        }
    }
    cut.extend(group);
    let mut parts: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
    for (mut places, files) in cut {
        places.sort_unstable();
        let parts = places.into_iter().filter_map(|at| parts.get_mut(at)?.take()).collect();
        split.groups.push(KeyGroup { files, parts });
    }
}

/// Parts that meet each other in time.
struct Island {
    start: i64,
    end: i64,
    parts: Vec<usize>,
    files: Vec<Arc<FileState>>,
    /// A file meets it and the one before.
    bridged: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_format::{DataFile, FileName, ObjectName, OnDuplicate, Section, SectionKey};
    use tandem_types::{SchemaId, Seq, WriterId};

    use super::*;

    fn file(partition: i64, time: Times, random: u64) -> Arc<FileState> {
        let object = ObjectName { base: Seq(1), writer: WriterId(1), random };
        let file = DataFile {
            name: FileName { partition: Partition(partition), object },
            rows: 1,
            size: 1,
            body_end: 1,
            tail_crc32c: 0,
            time,
            folded_through: Seq(1),
            level: 0,
        };
        Arc::new(FileState { file, created: Seq(1) })
    }

    fn part(partition: i64, time: Times, seq: u64) -> Part {
        let section = Section {
            schema_id: SchemaId(1),
            columns: Vec::new(),
            segment: None,
            offset: 0,
            len: 1,
            crc32c: 0,
            rows: 1,
            time,
            partitions: vec![(Partition(partition), 1)],
            null_counts: Vec::new(),
            on_duplicate: OnDuplicate::Replace,
        };
        let key = SectionKey { seq: Seq(seq), transaction: 0, section: 0 };
        let section = Arc::new(TailSection { key, section, live: vec![Partition(partition)] });
        Part { section, partition: Partition(partition), rows: 1, time }
    }

    fn meet(a: Times, b: Times) -> bool {
        super::super::pending::overlap(a, b)
    }

    #[test]
    fn a_file_that_no_part_meets_stays_alone() {
        let files = vec![file(0, Some((0, 9)), 1), file(0, Some((10, 20)), 2), file(1, Some((100, 200)), 3)];
        let parts = vec![part(0, Some((15, 30)), 5), part(0, Some((40, 50)), 6)];
        let split = split(files, parts, true);
        assert_eq!(split.alone.len(), 2);
        let shape: Vec<_> = split.groups.iter().map(|g| (g.files.len(), g.parts.len())).collect();
        assert_eq!(shape, [(1, 1), (0, 1)]);
    }

    #[test]
    fn without_time_in_the_key_everything_of_a_partition_meets() {
        let files = vec![file(0, Some((0, 9)), 1), file(0, Some((10, 20)), 2)];
        let split = split(files, vec![part(0, Some((100, 130)), 5)], false);
        assert_eq!((split.alone.len(), split.groups.len()), (0, 1));
    }

    fn times() -> impl Strategy<Value = Times> {
        let known = (0i64..40, 0i64..8).prop_map(|(start, length)| Some((start, start + length)));
        prop_oneof![20 => known, 1 => Just(None)]
    }

    proptest! {
        #[test]
        fn what_may_share_a_key_is_in_one_group_and_nothing_is_lost(
            files in prop::collection::vec((0i64..3, times()), 0..12),
            parts in prop::collection::vec((0i64..3, times()), 0..12),
        ) {
            let files: Vec<_> = (0..).zip(files).map(|(n, (p, t))| file(p, t, n)).collect();
            let parts: Vec<_> = (0..).zip(parts).map(|(n, (p, t))| part(p, t, n)).collect();
            let split = split(files.clone(), parts.clone(), true);
            let total: usize = split.groups.iter().map(|g| g.parts.len()).sum();
            prop_assert_eq!(total, parts.len());
            let total: usize = split.groups.iter().map(|g| g.files.len()).sum();
            prop_assert_eq!(total + split.alone.len(), files.len());
            for file in &split.alone {
                let here = parts.iter().filter(|p| p.partition == file.file.name.partition);
                for part in here {
                    prop_assert!(!meet(part.time, file.file.time));
                }
            }
            for (n, group) in split.groups.iter().enumerate() {
                prop_assert!(!group.parts.is_empty());
                prop_assert!(group.parts.windows(2).all(|w| w[0].section.key < w[1].section.key));
                for other in split.groups.iter().skip(n + 1) {
                    for part in &group.parts {
                        let here = |p: Partition| p == part.partition;
                        prop_assert!(!other.parts.iter().any(|p| here(p.partition) && meet(p.time, part.time)));
                        let of_file = |f: &Arc<FileState>| here(f.file.name.partition) && meet(f.file.time, part.time);
                        prop_assert!(!other.files.iter().any(of_file));
                    }
                }
            }
        }
    }
}
