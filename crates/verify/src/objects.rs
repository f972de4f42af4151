//! What the newest state names: every data file and every section, with the rows that it costs to lose it.

use std::collections::BTreeMap;

use tandem_format::{DataFile, ObjectName, Section, SectionKey, data_path, segment_path};
use tandem_manifest::{Manifest, RemovedObject, Table};
use tandem_types::Partition;

use crate::report::Cost;

/// A data file that is named.
#[derive(Debug)]
pub(crate) struct NamedFile {
    pub file: DataFile,
    pub costs: Vec<Cost>,
}

/// A section that is named.
#[derive(Clone, Debug)]
pub(crate) struct NamedSection {
    pub section: Section,
    pub costs: Vec<Cost>,
}

/// Everything that the newest state needs, and what of its past is kept.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// By path.
    pub files: BTreeMap<String, NamedFile>,
    /// By segment.
    pub segments: BTreeMap<ObjectName, Vec<NamedSection>>,
    /// That ride in commits.
    pub inline: BTreeMap<SectionKey, NamedSection>,
    /// Of the past: kept, but of what state names them only the name is known.
    pub past: Vec<(String, Option<u64>)>,
}

impl Named {
    pub fn of(manifest: &Manifest) -> Self {
        let mut named = Self::default();
        for table in manifest.tables() {
            named.add_table(table);
        }
        for (_, object, bytes) in manifest.removed() {
            named.past.push(match object {
                RemovedObject::File { table, partition_by, file } => {
                    (data_path(*table, partition_by.0, file), Some(bytes))
                }
                RemovedObject::Segment(segment) => (segment_path(segment), None),
            });
        }
        named
    }

    fn add_table(&mut self, table: &Table) {
        for state in table.files() {
            let file = state.file.clone();
            let costs = vec![cost(table, file.name.partition, file.rows)];
            let path = data_path(table.id(), table.partition_by(), &file.name);
            self.files.insert(path, NamedFile { file, costs });
        }
        for tail in table.tail() {
            let live = |p: &&(Partition, u64)| tail.live.binary_search(&p.0).is_ok();
            let costs = tail.section.partitions.iter().filter(live).map(|(p, rows)| cost(table, *p, *rows));
            let named = NamedSection { section: tail.section.clone(), costs: costs.collect() };
            self.add_section(tail.key, named);
        }
        for pending in table.mutations() {
            let Some(section) = pending.mutation.section() else { continue };
            let key = SectionKey {
                seq: pending.key.seq,
                transaction: pending.key.transaction,
                section: pending.key.section,
            };
            // Without it no row that the mutation acts on is right, and which those are is not known.
            self.add_section(key, NamedSection { section: section.clone(), costs: Vec::new() });
        }
    }

    fn add_section(&mut self, key: SectionKey, named: NamedSection) {
        match named.section.segment {
            Some(segment) => self.segments.entry(segment).or_default().push(named),
            None => {
                self.inline.insert(key, named);
            }
        }
    }

    /// The rows of the newest state that ride in one commit.
    pub fn costs_of_commit(&self, seq: tandem_types::Seq) -> Vec<Cost> {
        let of = |(key, named): (&SectionKey, &NamedSection)| (key.seq == seq).then(|| named.costs.clone());
        sum(self.inline.iter().filter_map(of).flatten())
    }
}

fn cost(table: &Table, partition: Partition, rows: u64) -> Cost {
    Cost { table: table.name().to_string(), partition: table.partition_by().label(partition), rows }
}

/// Rows of one table and partition are told once.
pub(crate) fn sum(costs: impl IntoIterator<Item = Cost>) -> Vec<Cost> {
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for Cost { table, partition, rows } in costs {
        *sums.entry((table, partition)).or_default() += rows;
    }
    sums.into_iter().map(|((table, partition), rows)| Cost { table, partition, rows }).collect()
}
