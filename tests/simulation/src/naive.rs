//! A reader of the log who knows tables as lists of rows, and no other rule than what each record says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tandem_format::{
    CommitHeader, FileName, Op, Replace, SectionKey, TableImage, Transaction, TransactionToken, data_path,
    segment_path,
};
use tandem_manifest::Manifest;
use tandem_types::{Partition, PartitionUnit, Seq, TableId};

use crate::rows::{self, PER_WRITE, Row};

/// Where rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Part(SectionKey, Partition),
    File(FileName),
}

/// Name of an invariant, and how it was broken.
pub type Broken = (&'static str, String);

#[derive(Debug, Default)]
struct Table {
    partition_by: PartitionUnit,
    rows: BTreeMap<Place, Vec<Row>>,
}

#[derive(Debug, Default)]
pub struct Naive {
    tables: BTreeMap<TableId, Table>,
    /// Where each write was committed, and how many rows it had.
    writes: BTreeMap<u64, (Seq, u64)>,
    /// Where each token of a client was committed.
    tokens: BTreeMap<String, Seq>,
    files: BTreeSet<FileName>,
    /// All rows that were ever anywhere.
    everywhere: BTreeMap<(TableId, Place), Vec<Row>>,
    /// Writes and files whose makers were told that they are not committed.
    pub refused_writes: BTreeSet<u64>,
    pub refused_tokens: BTreeSet<String>,
    pub refused_files: BTreeSet<FileName>,
}

impl Naive {
    pub fn write(&self, number: u64) -> Option<(Seq, u64)> {
        self.writes.get(&number).copied()
    }

    pub fn token(&self, text: &str) -> Option<Seq> {
        self.tokens.get(text).copied()
    }

    pub fn has_file(&self, file: &FileName) -> bool {
        self.files.contains(file)
    }

    pub fn apply(&mut self, header: &CommitHeader, objects: &BTreeMap<String, Bytes>) -> Result<(), Broken> {
        for (index, transaction) in header.transactions.iter().enumerate() {
            self.token_of(transaction, header.seq)?;
            let mut key =
                SectionKey { seq: header.seq, transaction: u32::try_from(index).unwrap_or(0), section: 0 };
            for op in &transaction.ops {
                self.op(op, &mut key, objects)?;
            }
        }
        Ok(())
    }

    fn token_of(&mut self, transaction: &Transaction, seq: Seq) -> Result<(), Broken> {
        let Some(TransactionToken::Foreign(token)) = &transaction.token else { return Ok(()) };
        if let Some(earlier) = self.tokens.insert(token.text.clone(), seq) {
            return Err(("I2", format!("token {} was committed at {earlier} already", token.text)));
        }
        if self.refused_tokens.contains(&token.text) {
            return Err(("I8", format!("token {} was refused, and is committed", token.text)));
        }
        Ok(())
    }

    fn op(&mut self, op: &Op, key: &mut SectionKey, objects: &BTreeMap<String, Bytes>) -> Result<(), Broken> {
        match op {
            Op::CreateTable(new) => {
                let table = Table { partition_by: new.def.partition_by, rows: BTreeMap::new() };
                if self.tables.insert(new.table, table).is_some() {
                    return Err(("I4", format!("table id {} is given twice", new.table)));
                }
            }
            Op::DropTable { table } => {
                self.tables.remove(table);
            }
            Op::Truncate { table } => self.table(*table)?.rows.clear(),
            Op::Append { table, sections } => {
                let mut appended = Vec::new();
                for section in sections {
                    let Some(segment) = &section.segment else {
                        return Err(("I9", "rows ride along, and nobody sent such".to_owned()));
                    };
                    let rows = read(&segment_path(segment), objects)?;
                    if rows.len() as u64 != section.rows {
                        return Err((
                            "I3",
                            format!("a section of {} rows is recorded as {}", rows.len(), section.rows),
                        ));
                    }
                    for (partition, _) in &section.partitions {
                        let part: Vec<Row> = rows.iter().filter(|(p, _)| p == partition).copied().collect();
                        let place = Place::Part(*key, *partition);
                        self.everywhere.insert((*table, place), part.clone());
                        self.table(*table)?.rows.insert(place, part);
                    }
                    appended.extend(rows);
                    key.section += 1;
                }
                self.wrote(&appended, key.seq)?;
            }
            Op::Replace(replace) => self.replace(replace, objects)?,
            Op::RestoreTable(image) => self.restore(image, objects)?,
            _ => {}
        }
        Ok(())
    }

    fn wrote(&mut self, rows: &[Row], seq: Seq) -> Result<(), Broken> {
        let Some((_, first)) = rows.first() else { return Ok(()) };
        let number = first / PER_WRITE;
        let whole = (0..rows.len() as u64).map(|n| number * PER_WRITE + n);
        if !rows.iter().map(|(_, id)| *id).eq(whole) {
            return Err(("I3", format!("write {number} is torn: {rows:?}")));
        }
        if let Some((earlier, _)) = self.writes.insert(number, (seq, rows.len() as u64)) {
            return Err(("I2", format!("write {number} was committed at {earlier} already")));
        }
        if self.refused_writes.contains(&number) {
            return Err(("I8", format!("write {number} was refused, and is committed")));
        }
        Ok(())
    }

    fn replace(&mut self, replace: &Replace, objects: &BTreeMap<String, Bytes>) -> Result<(), Broken> {
        let unit = self.table(replace.table)?.partition_by;
        let mut before = Vec::new();
        let parts = replace.parts.iter().map(|part| Place::Part(part.section, part.partition));
        for place in replace.files.iter().map(|file| Place::File(*file)).chain(parts) {
            let gone = || ("I13", format!("{place:?} is removed, and was not there"));
            before.extend(self.table(replace.table)?.rows.remove(&place).ok_or_else(gone)?);
        }
        let mut after = Vec::new();
        for file in &replace.outputs {
            if !self.files.insert(file.name) {
                return Err(("I13", format!("{:?} is added twice", file.name)));
            }
            if self.refused_files.contains(&file.name) {
                return Err((
                    "I8",
                    format!("a compaction was refused, and its {:?} is committed", file.name),
                ));
            }
            let rows = read(&data_path(replace.table, unit, &file.name), objects)?;
            after.extend_from_slice(&rows);
            let place = Place::File(file.name);
            self.everywhere.insert((replace.table, place), rows.clone());
            self.table(replace.table)?.rows.insert(place, rows);
        }
        before.sort_unstable();
        after.sort_unstable();
        if before != after {
            return Err(("I12", format!("a compaction makes {after:?} of {before:?}")));
        }
        Ok(())
    }

    /// What is brought back must still be there.
    fn restore(&mut self, image: &TableImage, objects: &BTreeMap<String, Bytes>) -> Result<(), Broken> {
        let (id, unit) = (image.state.table, image.state.def.partition_by);
        let mut table = Table { partition_by: unit, rows: BTreeMap::new() };
        let mut places = Vec::new();
        for (_, file) in &image.files {
            read(&data_path(id, unit, &file.name), objects)?;
            places.push(Place::File(file.name));
        }
        for (key, section, live) in &image.tail {
            if let Some(segment) = &section.segment {
                read(&segment_path(segment), objects)?;
            }
            places.extend(live.iter().map(|partition| Place::Part(*key, *partition)));
        }
        for place in places {
            let never = || ("I12", format!("{place:?} is brought back, and never was"));
            table.rows.insert(place, self.everywhere.get(&(id, place)).ok_or_else(never)?.clone());
        }
        self.tables.insert(id, table);
        Ok(())
    }

    fn table(&mut self, id: TableId) -> Result<&mut Table, Broken> {
        self.tables.get_mut(&id).ok_or_else(|| ("I28", format!("table {id} does not exist")))
    }

    /// Whether the state says of all rows where they are.
    pub fn agrees(&self, state: &Manifest) -> Result<(), Broken> {
        let ids: Vec<TableId> = state.tables().map(tandem_manifest::Table::id).collect();
        if !self.tables.keys().eq(&ids) {
            return Err(("I5", format!("tables {ids:?} exist, the log says {:?}", self.tables.keys())));
        }
        for table in state.tables() {
            let parts = table.tail().flat_map(|t| t.live.iter().map(|p| Place::Part(t.key, *p)));
            let places: BTreeSet<Place> =
                parts.chain(table.files().map(|f| Place::File(f.file.name))).collect();
            let expected = self.tables.get(&table.id()).map(|t| &t.rows);
            if !expected.is_some_and(|rows| rows.keys().eq(&places)) {
                let expected = expected.map(BTreeMap::keys);
                return Err((
                    "I5",
                    format!("rows of {} are at {places:?}, the log says {expected:?}", table.name()),
                ));
            }
        }
        Ok(())
    }
}

fn read(path: &str, objects: &BTreeMap<String, Bytes>) -> Result<Vec<Row>, Broken> {
    let object = objects.get(path).ok_or_else(|| ("I9", format!("{path} is named, and missing")))?;
    Ok(rows::decode(object))
}
