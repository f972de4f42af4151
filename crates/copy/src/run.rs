//! Copies, forks, and forks that become copies.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tandem_env::Env;
use tandem_format::{DATA_DIR, ObjectName, Pin, SEGMENT_DIR, Section, SectionKey, data_path, segment_path};
use tandem_log::Log;
use tandem_manifest::{Manifest, RemovedObject};
use tandem_types::{DatabaseId, Error, ErrorKind, Result, WriterId};

use crate::fetch::{Wanted, fetch, settle};
use crate::origin::{Origin, read_origin, write_origin};
use crate::place::Place;

/// Objects that are fetched at once.
pub(crate) const AT_ONCE: usize = 4;

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub objects_done: u64,
    /// That have to be fetched.
    pub objects: u64,
    pub bytes_done: u64,
    pub bytes: u64,
}

/// A copy or a fork that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Its id.
    pub database: String,
    /// The seq that it begins at.
    pub seq: u64,
    /// Of that seq, microseconds since 1970.
    pub commit_time: i64,
    pub tables: u64,
    pub rows: u64,
    /// Objects that it names.
    pub objects: u64,
    /// Of those, fetched now; the others were there, or are shared.
    pub objects_fetched: u64,
    pub bytes_fetched: u64,
}

/// Copies the source as `state` has it into another store.
///
/// # Errors
///
/// `AlreadyExists` as [`Place::prepare`] says; `Damaged`, naming the object, if one of the source's is; `HistoryGone` if the
/// source let the state go meanwhile.
pub async fn copy(
    source: &Log,
    state: &Manifest,
    to: &Env,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Copied> {
    let place = Place::prepare(to, source.database(), None).await?;
    if let Some(before) = &place.before
        && before.seq() > state.seq()
    {
        return Err(Error::invalid(format!(
            "the copy in {} stands at {}, it cannot go back to {}: copy into another place",
            to.store.url(),
            before.seq(),
            state.seq()
        )));
    }
    let wanted = named(state);
    let mut copied = describe(&place.origin, state, wanted.len() as u64);
    if place.before.as_ref().is_some_and(|before| before.seq() == state.seq()) {
        return Ok(copied);
    }
    let fetched = async {
        let fetched = fetch_missing(source.env(), to, wanted, progress).await?;
        Ok((fetched, resettled(source, state, &place, to).await?))
    };
    let (fetched, forked) = match fetched.await {
        Ok(fetched) => fetched,
        Err(error) => return Err(gone_or(error, source, state).await),
    };
    (copied.objects_fetched, copied.bytes_fetched) = fetched;
    place.finish(&forked).await?;
    Ok(copied)
}

/// What is missing may have been deleted because history has passed it since the copy was begun.
async fn gone_or(error: Error, source: &Log, state: &Manifest) -> Error {
    match source.recover().await {
        Ok(head) if error.kind() == ErrorKind::Damaged => match head.manifest.check_kept(state.seq()) {
            Err(gone) => gone.context("the copy took longer than its source keeps the past (history_window)"),
            Ok(()) => error,
        },
        _ => error,
    }
}

/// Makes a database in another store that begins as `state` and shares the source's objects.
///
/// `pin` has to commit this pin to the source's log, and is called before anything else happens.
///
/// # Errors
///
/// As [`copy`]; and as of `pin`, among them `HistoryGone` if the source keeps the state no longer.
pub async fn fork<F>(source: &Log, state: &Manifest, to: &Env, pin: impl FnOnce(Pin) -> F) -> Result<Copied>
where
    F: Future<Output = Result<()>>,
{
    let url = source.env().store.url().to_owned();
    let place = Place::prepare(to, source.database(), Some(url)).await?;
    pin(Pin {
        id: place.origin.pin(),
        seq: state.seq(),
        store: Some(to.store.url().to_owned()),
        reason: "a fork shares its objects".to_owned(),
        expires: None,
    })
    .await?;
    let copied = describe(&place.origin, state, named(state).len() as u64);
    let forked = resettled(source, state, &place, to).await?;
    place.finish(&forked).await?;
    Ok(copied)
}

/// Fetches what a fork shares, so that it needs its parent no more; the id of the pin that may go from the parent's log.
/// `fork` is the fork as it is opened, with the stores behind it; `own` its store alone.
///
/// # Errors
///
/// `InvalidInput` if nothing is shared.
pub async fn detach(
    fork: &Log,
    state: &Manifest,
    own: &Env,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Origin, Copied)> {
    let origin = read_origin(&own.store).await?.filter(|origin| origin.shared.is_some());
    let origin = origin.ok_or_else(|| {
        Error::invalid(format!("the database in {} shares nothing with another one", own.store.url()))
    })?;
    let mut wanted = named(state);
    // Its own past is to outlive the parent, too.
    wanted.extend(state.removed().map(|(_, object, _)| {
        let path = match object {
            RemovedObject::File { table, partition_by, file } => data_path(*table, partition_by.0, file),
            RemovedObject::Segment(segment) => segment_path(segment),
        };
        Wanted::Past { path }
    }));
    let mut copied = describe(&origin, state, wanted.len() as u64);
    (copied.objects_fetched, copied.bytes_fetched) = fetch_missing(fork.env(), own, wanted, progress).await?;
    write_origin(&own.store, &Origin { shared: None, ..origin.clone() }).await?;
    Ok((origin, copied))
}

pub(crate) fn describe(origin: &Origin, state: &Manifest, objects: u64) -> Copied {
    Copied {
        database: origin.database.clone(),
        seq: state.seq().0,
        commit_time: state.commit_time(),
        tables: state.tables().count() as u64,
        rows: state.tables().map(tandem_manifest::Table::rows).sum(),
        objects,
        objects_fetched: 0,
        bytes_fetched: 0,
    }
}

/// The data files and segments that a state names.
pub(crate) fn named(state: &Manifest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut segments: BTreeMap<ObjectName, Vec<Section>> = BTreeMap::new();
    for table in state.tables() {
        for file in table.files() {
            let path = data_path(table.id(), table.partition_by(), &file.file.name);
            wanted.push(Wanted::File { path, file: file.file.clone() });
        }
        let tail = table.tail().map(|t| &t.section);
        let looked_up = table.mutations().filter_map(|m| m.mutation.section());
        for section in tail.chain(looked_up) {
            if let Some(segment) = section.segment {
                segments.entry(segment).or_default().push(section.clone());
            }
        }
    }
    wanted.extend(segments.into_iter().map(|(name, sections)| Wanted::Segment { name, sections }));
    wanted
}

/// Fetches what the target lacks; how many objects and bytes that were.
async fn fetch_missing(
    from: &Env,
    to: &Env,
    mut wanted: Vec<Wanted>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(u64, u64)> {
    let there = sizes(to).await?;
    wanted.retain(|w| !there.get(&w.path()).is_some_and(|size| w.fits(*size)));
    let mut done = Progress {
        objects: wanted.len() as u64,
        bytes: wanted.iter().map(Wanted::bytes).sum(),
        ..Progress::default()
    };
    progress(done);
    let fetches =
        wanted.iter().map(|w| async move { fetch(from, Some(&to.store), w).await.map(|()| w.bytes()) });
    let fetches: Vec<_> = fetches.collect();
    let mut fetches = stream::iter(fetches).buffer_unordered(AT_ONCE);
    while let Some(bytes) = fetches.try_next().await? {
        done.objects_done += 1;
        done.bytes_done += bytes;
        progress(done);
    }
    Ok((done.objects_done, done.bytes_done))
}

/// What is there of data and segments, and its sizes.
pub(crate) async fn sizes(env: &Env) -> Result<BTreeMap<String, u64>> {
    let mut there = BTreeMap::new();
    for dir in [DATA_DIR, SEGMENT_DIR] {
        let mut listed = env.store.list_below(dir);
        while let Some(object) = listed.try_next().await? {
            there.insert(object.path, object.bytes);
        }
    }
    Ok(there)
}

/// The state as the copy's own: what rode in the source's log lies in segments of the copy.
async fn resettled(source: &Log, state: &Manifest, place: &Place, to: &Env) -> Result<Manifest> {
    let database = place.origin.database()?;
    let there = sizes(to).await?;
    let sections: Vec<_> = state
        .inline_sections()
        .into_iter()
        .map(|(key, section)| (key, section, settled_name(database, key)))
        .collect();
    let open = sections.iter().filter(|(_, _, name)| !there.contains_key(&segment_path(name)));
    let moves = open.map(|(key, section, name)| settle(source, Some(&to.store), *key, section, name));
    let moves: Vec<_> = moves.collect();
    stream::iter(moves).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let moved: BTreeMap<_, _> = sections.into_iter().map(|(key, _, name)| (key, name)).collect();
    state.forked(database, &moved)
}

/// What a section of the source's log is called in the copy: the same in each run, so that all runs make the same copy.
pub(crate) fn settled_name(database: DatabaseId, key: SectionKey) -> ObjectName {
    let half = u64::try_from(database.0 & u128::from(u64::MAX)).unwrap_or_default();
    ObjectName {
        base: key.seq,
        writer: WriterId(half),
        random: u64::from(key.transaction) << 32 | u64::from(key.section),
    }
}
