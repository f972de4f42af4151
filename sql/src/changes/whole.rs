//! A table that becomes another one: created, dropped, brought back from the past.
//!
//! What is told goes by partitions: one whose files, rows and mutations are the same before and after is left out; of every
//! other all rows from before go, and all rows that are there after come.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use tandem_format::{FileName, MutationKey, SectionKey};
use tandem_manifest::Table;
use tandem_types::Partition;

use super::net::{Told, within};
use super::out::{Out, Stop};
use super::ranges::Ranges;
use super::request::Images;
use super::told::{Op, Teller};
use crate::error::IntoTandem;
use crate::scan::Shape;

/// What decides about the rows of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    files: Vec<(FileName, Vec<MutationKey>)>,
    parts: Vec<(SectionKey, Vec<MutationKey>)>,
}

fn contents(table: Option<&Table>) -> BTreeMap<Partition, Content> {
    let mut contents: BTreeMap<Partition, Content> = BTreeMap::new();
    let Some(table) = table else { return contents };
    for file in table.files() {
        let mutations = table.mutations_of_file(&file.file).map(|m| m.key).collect();
        let name = file.file.name;
        contents.entry(name.partition).or_default().files.push((name, mutations));
    }
    for section in table.tail() {
        let mutations: Vec<MutationKey> = table.mutations_of_section(section).map(|m| m.key).collect();
        for partition in &section.live {
            let content = contents.entry(*partition).or_default();
            content.parts.push((section.key, mutations.clone()));
        }
    }
    contents
}

/// Partitions whose rows may differ.
fn changed(before: Option<&Table>, after: Option<&Table>) -> BTreeSet<Partition> {
    let (before, after) = (contents(before), contents(after));
    let all: BTreeSet<Partition> = before.keys().chain(after.keys()).copied().collect();
    all.into_iter().filter(|partition| before.get(partition) != after.get(partition)).collect()
}

/// Tells it.
pub(super) async fn tell(
    told: &Told,
    teller: &Teller,
    before: Option<&Table>,
    after: Option<&Table>,
    out: &mut Out,
) -> std::result::Result<(), Stop> {
    let changed = changed(before, after);
    for (op, table) in [(Op::Delete, before), (Op::Insert, after)] {
        let Some(table) = table else { continue };
        let times = Ranges::of_partitions(table, &changed);
        if times.is_empty() || (table.file_count() == 0 && table.tail_sections() == 0) {
            continue;
        }
        if told.images == Images::None && op == Op::Delete {
            out.rows(teller.marker(op)?).await?;
            continue;
        }
        // A restore may make types narrower than those of rows from before it.
        let table = told.table(table, table);
        let shape = Shape::new(&table, &[]).await?;
        let mut rows = told.read(&table, &times).await?;
        while let Some(batch) = rows.next().await {
            let batch = within(&shape, &times, batch.tandem()?)?;
            out.rows(teller.all(op, &batch)?).await?;
        }
    }
    Ok(())
}
