//! A database made of what is intact of a damaged one.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, SecondsFormat};
use futures::{StreamExt, stream};
use serde::Serialize;
use tandem_env::Env;
use tandem_format::{ObjectName, Section, SectionKey, commit_path, data_path, segment_path};
use tandem_manifest::{Lost, Manifest, Table};
use tandem_types::{Error, Partition, Result, ticks_per_second};

use crate::fetch::{Wanted, fetch, settle};
use crate::place::Place;
use crate::run::{AT_ONCE, Copied, Progress, describe, named, settled_name, sizes};
use crate::salvage::{Salvaged, is_damage, salvage};

/// What was made of a damaged database, or could be. Serializes as people's programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// What is whole, without the rows that are lost. Nothing was fetched where nothing was to be written.
    pub kept: Copied,
    /// Objects that are damaged or missing.
    pub lost: Vec<LostObject>,
    /// The end of the log, if it cannot be applied.
    pub lost_commits: Option<LostCommits>,
}

/// An object that is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostObject {
    /// Its path below the damaged database.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The rows that went with it; empty: none.
    pub costs: Vec<Cost>,
}

/// Commits that cannot be applied because the first of them is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostCommits {
    pub first: u64,
    pub last: u64,
    pub why: String,
    /// So many of them are damaged or missing themselves; of those it is not known what they held.
    pub unreadable: u64,
    /// What the others appended.
    pub costs: Vec<Cost>,
}

/// Rows of one table and partition that are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub table: String,
    /// Absent where several are summed up.
    pub partition: Option<String>,
    pub rows: u64,
    /// First and last designated timestamp of a range that they lie in; absent if that is not known.
    pub from: Option<String>,
    pub to: Option<String>,
}

impl LostObject {
    pub(crate) fn new(object: String, error: &Error, costs: Vec<Cost>) -> Self {
        Self { object, what: error.to_string(), costs }
    }
}

impl Repaired {
    /// Whether nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.lost_commits.is_none()
    }

    /// Rows that are known to be lost.
    pub fn rows_lost(&self) -> u64 {
        let commits = self.lost_commits.iter().flat_map(|commits| &commits.costs);
        let objects = self.lost.iter().flat_map(|lost| &lost.costs);
        objects.chain(commits).map(|cost| cost.rows).fold(0, u64::saturating_add)
    }
}

/// First and last designated timestamp, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeRange(Option<(i64, i64)>);

impl TimeRange {
    pub fn of(range: Option<(i64, i64)>) -> Self {
        Self(range)
    }
}

/// Rows of a table, as people are told of them.
pub(crate) fn cost_of(table: &Table, partition: Option<Partition>, rows: u64, range: TimeRange) -> Cost {
    let unit = table.timestamp().and_then(|column| match &column.data_type {
        DataType::Timestamp(unit, _) => Some(*unit),
        _ => None,
    });
    // One form for all times of a column, so that their texts are ordered as they are.
    let form = match unit {
        Some(TimeUnit::Second) => SecondsFormat::Secs,
        Some(TimeUnit::Millisecond) => SecondsFormat::Millis,
        Some(TimeUnit::Microsecond) => SecondsFormat::Micros,
        Some(TimeUnit::Nanosecond) | None => SecondsFormat::Nanos,
    };
    let show = |ticks: i64| {
        let per_second = ticks_per_second(unit?);
        let nanos = ticks.rem_euclid(per_second).checked_mul(1_000_000_000 / per_second)?;
        let time = DateTime::from_timestamp(ticks.div_euclid(per_second), u32::try_from(nanos).ok()?)?;
        Some(time.to_rfc3339_opts(form, true))
    };
    Cost {
        table: table.name().to_string(),
        partition: partition.map(|partition| table.partition_by().label(partition)),
        rows,
        from: range.0.and_then(|(from, _)| show(from)),
        to: range.0.and_then(|(_, to)| show(to)),
    }
}

/// Rows of one table and partition are told once.
pub(crate) fn add_costs(costs: &mut Vec<Cost>, more: impl IntoIterator<Item = Cost>) {
    for cost in more {
        let same = |c: &&mut Cost| c.table == cost.table && c.partition == cost.partition;
        let Some(known) = costs.iter_mut().find(same) else {
            costs.push(cost);
            continue;
        };
        known.rows += cost.rows;
        known.from = known.from.take().zip(cost.from).map(|(a, b)| a.min(b));
        known.to = known.to.take().zip(cost.to).map(|(a, b)| a.max(b));
    }
}

/// Makes a database of what is intact of the one in `from`, in `to`; without that, only says what it would be. The newest
/// state that the log leads to, without the data files and sections that are damaged or missing. Nothing of the damaged
/// one is changed, and nobody may be writing to it.
///
/// # Errors
///
/// `NotFound` and `Damaged` if not even a state can be made; `AlreadyExists` if `to` is not empty, unless by an earlier run
/// that broke off; `Serialization` if somebody writes to the damaged one.
pub async fn repair(from: &Env, to: Option<&Env>, progress: &(dyn Fn(Progress) + Sync)) -> Result<Repaired> {
    let Salvaged { log, state, problems, commits } = salvage(from).await?;
    let place = match to {
        Some(to) => Some((to, Place::prepare(to, log.database(), None).await?)),
        None => None,
    };
    if let Some((to, place)) = &place
        && place.before.is_some()
    {
        return Err(Error::already_exists(format!("{} holds a database already", to.store.url())));
    }
    let database = match &place {
        Some((_, place)) => place.origin.database()?,
        None => log.database(),
    };
    let there = match to {
        Some(to) => sizes(to).await?,
        None => BTreeMap::new(),
    };
    let mut rescue =
        Rescue { state: &state, lost: Lost::default(), moved: BTreeMap::new(), objects: problems };
    let wanted = named(&state);
    let (objects, open) = (wanted.len() as u64, wanted.into_iter().filter(|w| !is_there(&there, w)));
    let open: Vec<_> = open.collect();
    let mut done = Progress {
        objects: open.len() as u64,
        bytes: open.iter().map(Wanted::bytes).sum(),
        ..Progress::default()
    };
    progress(done);
    let store = to.map(|to| &to.store);
    let fetches: Vec<_> = open.iter().map(|w| async move { (w, fetch(from, store, w).await) }).collect();
    let mut fetches = stream::iter(fetches).buffer_unordered(AT_ONCE);
    let mut sections = state.inline_sections();
    let (mut fetched, mut bytes_fetched) = (0, 0);
    while let Some((wanted, outcome)) = fetches.next().await {
        done.objects_done += 1;
        done.bytes_done += wanted.bytes();
        progress(done);
        match (outcome, wanted) {
            (Ok(()), wanted) => (fetched, bytes_fetched) = (fetched + 1, bytes_fetched + wanted.bytes()),
            (Err(error), _) if !is_damage(&error) => return Err(error),
            // Some of its sections may be whole.
            (Err(_), Wanted::Segment { name, .. }) => sections.extend(state.sections_in(Some(*name))),
            (Err(error), wanted) => rescue.lose_file(wanted.path(), &error),
        }
    }
    drop(fetches);
    for (key, section) in sections {
        let name = settled_name(database, key);
        let settled = match there.contains_key(&segment_path(&name)) {
            true => Ok(()),
            false => settle(&log, store, key, &section, &name).await,
        };
        match settled {
            Ok(()) => {
                rescue.moved.insert(key, name);
            }
            Err(error) if is_damage(&error) => rescue.lose_section(key, &section, &error),
            Err(error) => return Err(error),
        }
    }
    // What is missing may have been deleted by somebody who is alive.
    if salvage(from).await?.state.seq() != state.seq() {
        return Err(Error::serialization(format!(
            "{} was written to meanwhile: stop the nodes that run on it first",
            from.store.url()
        )));
    }
    let repaired = state.forked_without(database, &rescue.moved, &rescue.lost)?;
    let mut kept = match &place {
        Some((_, place)) => {
            place.finish(&repaired).await?;
            describe(&place.origin, &repaired, objects)
        }
        None => describe(&crate::Origin::new(database, database, None), &repaired, objects),
    };
    if to.is_some() {
        (kept.objects_fetched, kept.bytes_fetched) = (fetched, bytes_fetched);
    }
    rescue.objects.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(Repaired { kept, lost: rescue.objects, lost_commits: commits })
}

fn is_there(there: &BTreeMap<String, u64>, wanted: &Wanted) -> bool {
    there.get(&wanted.path()).is_some_and(|size| wanted.fits(*size))
}

/// What of a state is to be had.
struct Rescue<'a> {
    state: &'a Manifest,
    lost: Lost,
    moved: BTreeMap<SectionKey, ObjectName>,
    objects: Vec<LostObject>,
}

impl Rescue<'_> {
    fn lose_file(&mut self, path: String, error: &Error) {
        let files = self.state.tables().flat_map(|table| table.files().map(move |file| (table, file)));
        let of_path = files
            .filter(|(table, f)| data_path(table.id(), table.partition_by(), &f.file.name) == path)
            .collect::<Vec<_>>();
        let mut costs = Vec::new();
        for (table, file) in of_path {
            let file = &file.file;
            self.lost.files.insert((table.id(), file.name));
            let range = TimeRange::of(file.time);
            add_costs(&mut costs, [cost_of(table, Some(file.name.partition), file.rows, range)]);
        }
        self.objects.push(LostObject::new(path, error, costs));
    }

    fn lose_section(&mut self, key: SectionKey, section: &Section, error: &Error) {
        self.lost.sections.insert(key);
        let path = section.segment.map_or_else(|| commit_path(key.seq), |segment| segment_path(&segment));
        let mut costs = Vec::new();
        let mut what = error.to_string();
        for table in self.state.tables() {
            if let Some(tail) = table.tail_section(&key) {
                let live: BTreeSet<Partition> = tail.live.iter().copied().collect();
                for (partition, rows) in section.partitions.iter().filter(|(p, _)| live.contains(p)) {
                    let range = TimeRange::of(table.part_time(tail, *partition));
                    add_costs(&mut costs, [cost_of(table, Some(*partition), *rows, range)]);
                }
            }
            if let Some(pending) = table.mutations().find(|m| m.key.as_section() == key) {
                let (name, statement) = (table.name(), &pending.mutation.statement);
                what = format!("{what}; a change of table {name} is lost with it: {statement}");
            }
        }
        // Of one object there may be several.
        match self.objects.iter_mut().find(|lost| lost.object == path) {
            Some(lost) => add_costs(&mut lost.costs, costs),
            None => self.objects.push(LostObject { object: path, what, costs }),
        }
    }
}
