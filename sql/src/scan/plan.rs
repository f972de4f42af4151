//! What a scan of a table is made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::Statistics;
use datafusion::config::TableParquetOptions;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, project_schema};
use tandem_manifest::{FileState, TailSection};

use super::files::{file_scan, source};
use super::fold::{FoldExec, FoldScan, Group};
use super::items::{Item, Sets, items, share};
use super::pending::{Chosen, Pending, Ready, Widened};
use super::prune::{key_has_time, live_range, select};
use super::sections::SectionReader;
use super::split::{KeyGroup, split};
use super::table::SnapshotTable;
use super::tail::{TailExec, TailPiece};
use crate::error::to_datafusion;

/// A query's wishes.
struct Wanted<'a> {
    projection: Option<&'a Vec<usize>>,
    limit: Option<usize>,
    streams: usize,
    state: &'a dyn Session,
}

/// The plan that reads a table.
pub(super) async fn scan(
    table: &SnapshotTable,
    state: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let wanted = Wanted { projection, limit, streams: state.config().target_partitions().max(1), state };
    let selected = select(table, filters, state)?;
    let pending = Pending::new(&table.table);
    let cut = split(selected.files, selected.parts, key_has_time(&table.table));
    let (plain, mutated) = apart(cut.alone, &pending);

    let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
    if !plain.is_empty() {
        // An order is of use only if nothing without it is mixed in.
        let ordered = mutated.is_empty() && cut.groups.is_empty() && selected.sections.is_empty();
        inputs.push(file_scan(table, &plain, projection, limit, ordered, state)?);
    }
    if !mutated.is_empty() {
        inputs.push(Arc::new(mutated_files(table, mutated, &pending, &wanted).await?));
    }
    if !cut.groups.is_empty() {
        inputs.push(Arc::new(keyed_groups(table, cut.groups, &pending, &wanted).await?));
    }
    if !selected.sections.is_empty() {
        inputs.push(Arc::new(tail(table, selected.sections, &pending, &wanted).await?));
    }
    if inputs.is_empty() {
        return Ok(Arc::new(EmptyExec::new(project_schema(&table.schema, projection)?)));
    }
    UnionExec::try_new(inputs)
}

/// Files with the mutations that act on them.
type Mutated = Vec<(Chosen, Arc<FileState>)>;

/// Files that no mutation acts on, and the others.
fn apart(files: Vec<Arc<FileState>>, pending: &Pending) -> (Vec<Arc<FileState>>, Mutated) {
    if pending.is_empty() {
        return (files, Vec::new());
    }
    let (mut plain, mut mutated, mut chosen) = (Vec::new(), Vec::new(), Chosen::new());
    for file in files {
        pending.of_file(&file.file, &mut chosen);
        if chosen.is_empty() { plain.push(file) } else { mutated.push((chosen.clone(), file)) }
    }
    (plain, mutated)
}

/// Rows, bytes and times of files.
fn file_statistics<'a>(
    table: &SnapshotTable,
    files: impl Iterator<Item = &'a Arc<FileState>> + Clone,
) -> Statistics {
    let rows = files.clone().map(|f| f.file.rows).sum();
    let bytes = files.clone().map(|f| f.file.size).sum();
    table.statistics(rows, bytes, files.map(|f| f.file.time))
}

async fn mutated_files(
    table: &SnapshotTable,
    files: Mutated,
    pending: &Pending,
    wanted: &Wanted<'_>,
) -> DfResult<FoldExec> {
    let all = files.iter().map(|(_, file)| file);
    let statistics = file_statistics(table, all.clone());
    let share = share(all.map(|file| file.file.size).sum(), wanted.streams);
    let mut sets = Sets::default();
    let files = files.into_iter().map(|(chosen, file)| (sets.place(&chosen), file)).collect();
    let mut cut = Vec::new();
    items(0, files, false, share, &mut cut);
    let plan = Plan { sets: sets.into_vec(), groups: vec![Group::default()], items: cut };
    fold(table, &[], plan, statistics, pending, wanted).await
}

async fn keyed_groups(
    table: &SnapshotTable,
    groups: Vec<KeyGroup>,
    pending: &Pending,
    wanted: &Wanted<'_>,
) -> DfResult<FoldExec> {
    let all = groups.iter().flat_map(|group| &group.files);
    let size = all.clone().map(|file| file.file.size).sum();
    let parts = groups.iter().flat_map(|group| &group.parts);
    let rows = all.clone().map(|f| f.file.rows).chain(parts.clone().map(|part| part.rows)).sum();
    let times = all.map(|f| f.file.time).chain(parts.map(|part| part.time));
    let statistics = table.statistics(rows, size, times);

    let share = share(size, wanted.streams);
    let by_time = key_has_time(&table.table);
    let (mut sets, mut cut, mut made) = (Sets::default(), Vec::new(), Vec::with_capacity(groups.len()));
    let (mut chosen, none) = (Chosen::new(), sets.place(&Chosen::new()));
    for (place, group) in groups.into_iter().enumerate() {
        let mut mutations: BTreeSet<u32> = BTreeSet::new();
        for part in &group.parts {
            pending.of_section(&part.section.key, part.time, &mut chosen);
            mutations.extend(&chosen);
        }
        let mut files = Vec::with_capacity(group.files.len());
        for file in group.files {
            pending.of_file(&file.file, &mut chosen);
            mutations.extend(&chosen);
            files.push((sets.place(&chosen), file));
        }
        let has_files = !files.is_empty();
        if has_files {
            items(place, files, true, share, &mut cut);
        } else {
            cut.push(Item { group: place, set: none, files: Vec::new() });
        }
        let times = group.parts.iter().map(|part| part.time.filter(|_| by_time));
        let hull = times.reduce(|a, b| Some((a?.0.min(b?.0), a?.1.max(b?.1)))).flatten();
        made.push(Group { parts: group.parts, mutations: mutations.into_iter().collect(), hull, has_files });
    }
    let plan = Plan { sets: sets.into_vec(), groups: made, items: cut };
    let key = table.table.primary_key().to_vec();
    fold(table, &key, plan, statistics, pending, wanted).await
}

/// What a [`FoldExec`] is to do.
struct Plan {
    sets: Vec<Chosen>,
    groups: Vec<Group>,
    items: Vec<Item>,
}

async fn fold(
    table: &SnapshotTable,
    key: &[tandem_types::ColumnId],
    plan: Plan,
    statistics: Statistics,
    pending: &Pending,
    wanted: &Wanted<'_>,
) -> DfResult<FoldExec> {
    let used = plan.sets.iter().chain(plan.groups.iter().map(|group| &group.mutations));
    let used: BTreeSet<u32> = used.flatten().copied().collect();
    let mutations = pending.bind(&used, &table.context).await.map_err(to_datafusion)?;
    let wide = Widened::new(table, wanted.projection, key, &mutations.get(&used))?;

    let mut options = TableParquetOptions::new();
    options.global = wanted.state.config().options().execution.parquet.clone();
    // An error in a row that a mutation deletes is nobody's.
    options.global.pushdown_filters = false;
    let files = source(&wide.table, Some(&wide.projection), options)?
        .with_statistics(Statistics::new_unknown(&wide.table.schema))
        .build();
    let places = key.iter().filter_map(|id| wide.ids.iter().position(|known| known == id));
    let scan = FoldScan {
        key: places.collect(),
        files,
        sets: plan.sets.iter().map(|set| Arc::new(Ready::new(mutations.get(set)))).collect(),
        mutations,
        groups: plan.groups,
        items: plan.items,
        sections: SectionReader::new(wide),
    };
    Ok(FoldExec::new(scan, statistics.project(wanted.projection), wanted.streams, wanted.limit))
}

async fn tail(
    table: &SnapshotTable,
    sections: Vec<Arc<TailSection>>,
    pending: &Pending,
    wanted: &Wanted<'_>,
) -> DfResult<TailExec> {
    let rows = sections.iter().map(|s| s.live_rows()).sum();
    let bytes = sections.iter().map(|s| s.live_bytes()).sum();
    // The range of a section that is partly compacted is a bound, not a fact.
    let times = sections.iter().map(|s| if s.is_whole() { live_range(&table.table, s) } else { None });
    let mut statistics = table.statistics(rows, bytes, times);

    let mut sets = Sets::default();
    let (mut chosen, mut places) = (Chosen::new(), Vec::with_capacity(sections.len()));
    for section in &sections {
        pending.of_section(&section.key, live_range(&table.table, section), &mut chosen);
        places.push((!chosen.is_empty()).then(|| sets.place(&chosen)));
    }
    let sets = sets.into_vec();
    let used: BTreeSet<u32> = sets.iter().flatten().copied().collect();
    if !used.is_empty() {
        statistics = statistics.to_inexact();
    }
    let mutations = pending.bind(&used, &table.context).await.map_err(to_datafusion)?;
    let wide = Widened::new(table, wanted.projection, &[], &mutations.get(&used))?;
    let sets: Vec<Arc<Ready>> = sets.iter().map(|set| Arc::new(Ready::new(mutations.get(set)))).collect();
    let pieces = sections.into_iter().zip(places).map(|(section, place)| TailPiece {
        section,
        mutations: place.and_then(|place| sets.get(place).cloned()),
    });
    let statistics = statistics.project(wanted.projection);
    Ok(TailExec::new(wide, pieces.collect(), statistics, wanted.streams, wanted.limit))
}
