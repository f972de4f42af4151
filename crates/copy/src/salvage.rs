//! The newest state that can be made of a database parts of which are damaged or missing. Reads only.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use tandem_env::Env;
use tandem_format::{
    Floor, HeaderHash, LOG_DIR, ROOT_DIR, commit_path, decode_floor, decode_identity, decode_part,
    decode_root, floor_path, identity_path, parse_commit_name, parse_root_name, part_path, root_path,
};
use tandem_log::{Commit, Log};
use tandem_manifest::Manifest;
use tandem_types::{DatabaseId, Error, ErrorKind, Result, Seq};

use crate::repair::{Cost, LostCommits, LostObject, TimeRange, add_costs, cost_of};

/// Commits that are read at once.
const READS: usize = 32;

/// Where floors lie.
const FLOOR_DIR: &str = "log/floor";

/// What was found.
#[derive(Debug)]
pub(crate) struct Salvaged {
    pub log: Log,
    pub state: Manifest,
    /// What is damaged of that which leads to the state, or would lead further.
    pub problems: Vec<LostObject>,
    /// What cannot be applied.
    pub commits: Option<LostCommits>,
}

/// A state, and how it was reached from a checkpoint.
#[derive(Debug)]
struct Reached {
    state: Manifest,
    applied: u64,
    /// Whether the log says that the checkpoint was recorded.
    recorded: bool,
    /// Why the next commit cannot be applied; `None`: there is none.
    stopped: Option<Error>,
}

/// Whether an error says that an object is not what it should be, and not that the store cannot be asked now.
pub(crate) fn is_damage(error: &Error) -> bool {
    use ErrorKind::{Damaged, HistoryGone, NewerFormat, NotFound};
    matches!(error.kind(), Damaged | NewerFormat | NotFound | HistoryGone)
}

/// The newest state that the intact part of the log leads to. Where a commit is damaged or missing, that is the one
/// before it: what follows was made on top of it, and means nothing without.
///
/// # Errors
///
/// `NotFound` if there is nothing of a database; `Damaged` if no state can be made; what the store answers where it does
/// not answer with an object.
pub(crate) async fn salvage(env: &Env) -> Result<Salvaged> {
    let mut problems = Vec::new();
    let database = identify(env, &mut problems).await?;
    let log = Log::of(env.clone(), database);
    let floor = newest_floor(env, database, &mut problems).await?;
    let names = env.store.list_dir(ROOT_DIR).await?;
    let there: BTreeSet<Seq> = names.iter().filter_map(|name| parse_root_name(name)).collect();

    let mut best: Option<(Seq, Reached)> = None;
    for seq in there.iter().rev().copied() {
        let (start, hash) = match log.load_checkpoint(seq).await {
            Ok(loaded) => loaded,
            Err(e) if is_damage(&e) => {
                problems.push(LostObject::new(root_path(seq), &e, Vec::new()));
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut reached = replay(&log, start, Some((seq, hash))).await?;
        reached.recorded |= floor.is_some_and(|floor| (floor.checkpoint, floor.root_hash) == (seq, hash));
        if reached.recorded {
            // Older ones lead no further. What was reached without a record counts only if it leads further, along the log.
            if best.as_ref().is_none_or(|(_, b)| b.applied == 0 || b.state.seq() <= reached.state.seq()) {
                best = Some((seq, reached));
            }
            break;
        }
        if best.as_ref().is_none_or(|(_, b)| b.state.seq() < reached.state.seq()) {
            best = Some((seq, reached));
        }
    }
    let known = best.as_ref().is_some_and(|(_, best)| best.recorded);
    if !known && floor.is_none_or(|floor| floor.seq == Seq(0)) {
        let whole = replay(&log, Manifest::empty(database), None).await?;
        if whole.applied > 0 && best.as_ref().is_none_or(|(_, b)| b.state.seq() <= whole.state.seq()) {
            best = Some((Seq(0), Reached { recorded: true, ..whole }));
        }
    }
    if best.is_none() {
        best = from_rest(&log, &there, &mut problems).await?;
    }
    let Some((seq, reached)) = best else {
        return Err(Error::damaged(format!(
            "no state can be made of {}: neither a checkpoint nor the log from its beginning can be read",
            env.store.url()
        )));
    };
    if !reached.recorded {
        let what = "is used although nothing that is left of the log says that it was recorded";
        problems.push(LostObject { object: root_path(seq), what: what.to_owned(), costs: Vec::new() });
    }
    if let Some((recorded, _)) = reached.state.checkpoint()
        && !there.contains(&recorded)
    {
        let what = "is missing, and the log records it".to_owned();
        problems.push(LostObject { object: root_path(recorded), what, costs: Vec::new() });
    }
    let commits = what_follows(env, &log, &reached).await?;
    Ok(Salvaged { log, state: reached.state, problems, commits })
}

/// As a last resort: the newest checkpoint of which the root can be read, without those of its parts that cannot.
async fn from_rest(
    log: &Log,
    roots: &BTreeSet<Seq>,
    problems: &mut Vec<LostObject>,
) -> Result<Option<(Seq, Reached)>> {
    for seq in roots.iter().rev().copied() {
        let root = match log.load_root(seq).await {
            Ok((root, _)) => root,
            Err(e) if is_damage(&e) => continue,
            Err(e) => return Err(e),
        };
        let mut parts = Vec::new();
        for part in &root.parts {
            let path = part_path(part.base, &part.hash);
            let object = log.env().store.get(&path).await?;
            let missing = || Error::damaged("is missing");
            match object.ok_or_else(missing).and_then(|object| decode_part(part, &object)) {
                Ok(entries) => parts.push(entries),
                Err(error) => {
                    let what = format!(
                        "{error}; which data it named is not known: rows of any table may be missing, and rows that were \
                         deleted lately may be back"
                    );
                    problems.push(LostObject { object: path, what, costs: Vec::new() });
                }
            }
        }
        let start = Manifest::from_rest_of_checkpoint(&root, parts)?;
        let reached = replay(log, start, None).await?;
        return Ok(Some((seq, Reached { recorded: true, ..reached })));
    }
    Ok(None)
}

/// The database's id; from another object where the one that says it is lost.
async fn identify(env: &Env, problems: &mut Vec<LostObject>) -> Result<DatabaseId> {
    let path = identity_path();
    let found = env.store.get(path).await?.map(|object| decode_identity(&object));
    let what = match found {
        Some(Ok(identity)) => return Ok(identity.database),
        Some(Err(error)) => error.to_string(),
        None => "is missing".to_owned(),
    };
    for name in env.store.list_dir(ROOT_DIR).await?.iter().rev() {
        let Some(seq) = parse_root_name(name) else { continue };
        let object = env.store.get(&root_path(seq)).await?.unwrap_or_default();
        if let Ok((root, _)) = decode_root(&object) {
            problems.push(LostObject { object: path.to_owned(), what, costs: Vec::new() });
            return Ok(root.database);
        }
    }
    for name in env.store.list_dir(LOG_DIR).await? {
        let Some(seq) = parse_commit_name(&name) else { continue };
        let object = env.store.get(&commit_path(seq)).await?.unwrap_or_default();
        if let Ok(commit) = tandem_format::decode_commit(&object) {
            problems.push(LostObject { object: path.to_owned(), what, costs: Vec::new() });
            return Ok(commit.header.database);
        }
    }
    Err(Error::not_found(format!("there is nothing of a database in {}", env.store.url())))
}

/// The newest floor that can be read.
async fn newest_floor(
    env: &Env,
    database: DatabaseId,
    problems: &mut Vec<LostObject>,
) -> Result<Option<Floor>> {
    for name in env.store.list_dir(FLOOR_DIR).await?.iter().rev() {
        let Ok(number) = name.parse() else { continue };
        let path = floor_path(number);
        let object = env.store.get(&path).await?.unwrap_or_default();
        match decode_floor(&object) {
            Ok(floor) if floor.database == database => return Ok(Some(floor)),
            Ok(_) => problems.push(LostObject {
                object: path,
                what: "belongs to another database".to_owned(),
                costs: Vec::new(),
            }),
            Err(error) => problems.push(LostObject::new(path, &error, Vec::new())),
        }
    }
    Ok(None)
}

/// Applies what follows a state, as far as it can be read and continues it.
async fn replay(log: &Log, start: Manifest, root: Option<(Seq, HeaderHash)>) -> Result<Reached> {
    let first = start.seq().0 + 1;
    let mut reached = Reached { state: start, applied: 0, recorded: false, stopped: None };
    let mut reads = stream::iter((first..).map(Seq)).map(|seq| log.read(seq)).buffered(READS);
    while let Some(read) = reads.next().await {
        let applied = match read {
            Ok(None) => break,
            Ok(Some(Commit { header, hash })) => reached.state.apply(&header, hash),
            Err(error) => Err(error),
        };
        match applied {
            Ok(applied) => {
                reached.state = applied.manifest;
                reached.applied += 1;
                reached.recorded |= root.is_some() && reached.state.checkpoint() == root;
            }
            Err(error) if is_damage(&error) => {
                reached.stopped = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(reached)
}

/// The commits behind the state that was reached, and the rows that they appended as far as they can be read.
async fn what_follows(env: &Env, log: &Log, reached: &Reached) -> Result<Option<LostCommits>> {
    let state = &reached.state;
    let names = env.store.list_dir(LOG_DIR).await?;
    let listed: BTreeSet<Seq> =
        names.iter().filter_map(|name| parse_commit_name(name)).filter(|seq| *seq > state.seq()).collect();
    let Some(last) = listed.last().copied() else { return Ok(None) };
    let first = state.seq().next();
    let why = match &reached.stopped {
        Some(error) => error.to_string(),
        None => format!("{} is missing", commit_path(first)),
    };
    let mut unreadable = last.0 - state.seq().0 - listed.len() as u64;
    let mut costs: Vec<Cost> = Vec::new();
    let mut reads = stream::iter(listed).map(|seq| log.read(seq)).buffered(READS);
    while let Some(read) = reads.next().await {
        let header = match read {
            Ok(Some(commit)) => commit.header,
            Ok(None) => continue,
            Err(error) if is_damage(&error) => {
                unreadable += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let ops = header.transactions.iter().flat_map(|t| &t.ops);
        for (id, section) in ops.flat_map(|op| op.table_sections()) {
            let range = TimeRange::of(section.time);
            let cost = match state.table(id) {
                Some(table) => cost_of(table, None, section.rows, range),
                // It was made by one of them.
                None => Cost {
                    table: format!("(number {id})"),
                    partition: None,
                    rows: section.rows,
                    from: None,
                    to: None,
                },
            };
            add_costs(&mut costs, [cost]);
        }
    }
    Ok(Some(LostCommits { first: first.0, last: last.0, why, unreadable, costs }))
}
