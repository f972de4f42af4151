//! The walk: from the identity along the log to everything that the newest state names.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_datafile::{FooterCache, read_batches};
use tandem_env::Env;
use tandem_format::{
    DATA_DIR, LOG_DIR, ROOT_DIR, SEGMENT_DIR, commit_path, decode_identity, decode_part, decode_root,
    floor_path, identity_path, parse_commit_name, parse_root_name, part_path, root_path, segment_path,
};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{DatabaseId, Error, ErrorKind, Result, Seq};

use crate::chain::{Link, check_commit, check_floor, check_section, range_of};
use crate::objects::{Named, NamedFile, NamedSection, sum};
use crate::report::{Progress, Report};

/// Objects that are read at once.
const AT_ONCE: usize = 8;

/// Bytes of a data file that are read at once.
const PIECE: u64 = 4 << 20;

const BATCH_ROWS: usize = 8192;

/// Walks the database in the environment's store: everything, byte by byte, if `full`, else names and sizes.
///
/// # Errors
///
/// `NotFound` if there is no database; what the store answers where it does not answer with an object. Damage is no error:
/// it is in the report.
pub async fn verify(env: &Env, full: bool, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report> {
    let mut walk = Walk {
        env,
        full,
        progress,
        listed: list(env).await?,
        seen: BTreeSet::new(),
        done: Progress::default(),
        report: Report { store: env.store.url().to_owned(), full, ..Report::default() },
    };
    walk.done.objects = walk.listed.len() as u64;
    walk.run().await?;
    Ok(walk.finish())
}

/// Every object of the database, with its size.
async fn list(env: &Env) -> Result<BTreeMap<String, u64>> {
    let mut listed = BTreeMap::new();
    for dir in [LOG_DIR, ROOT_DIR, SEGMENT_DIR, DATA_DIR] {
        let mut objects = env.store.list_below(dir);
        while let Some(object) = objects.try_next().await? {
            listed.insert(object.path, object.bytes);
        }
    }
    Ok(listed)
}

struct Walk<'a> {
    env: &'a Env,
    full: bool,
    progress: &'a (dyn Fn(Progress) + Sync),
    listed: BTreeMap<String, u64>,
    /// What was looked at.
    seen: BTreeSet<String>,
    done: Progress,
    report: Report,
}

impl Walk<'_> {
    async fn run(&mut self) -> Result<()> {
        let Some(database) = self.identity().await? else { return Ok(()) };
        let floor = self.floors(database).await?;
        // Not `Log::open`, which would create a database.
        let log = Log::of(self.env.clone(), database);
        let manifest = match log.recover().await {
            Ok(recovered) => Some(recovered.manifest),
            Err(error) if is_damage(&error) => {
                self.report.blame(LOG_DIR, format!("no state can be made of it: {error}"), Vec::new());
                None
            }
            Err(error) => return Err(error),
        };
        self.report.seq = manifest.as_ref().map(|m| m.seq().0);
        let named = manifest.as_ref().map(Named::of).unwrap_or_default();
        let recorded = self.commits(database, floor, manifest.as_ref(), &named).await?;
        self.checkpoints(database, manifest.as_ref(), &recorded).await?;
        self.segments(&named).await?;
        self.files(&named).await?;
        self.past(&named);
        Ok(())
    }

    async fn identity(&mut self) -> Result<Option<DatabaseId>> {
        let path = identity_path();
        let Some(object) = self.env.store.get(path).await? else {
            if self.listed.is_empty() {
                return Err(Error::not_found(format!("there is no database in {}", self.env.store.url())));
            }
            self.report.blame(path, "is missing: nothing else can be read without it", Vec::new());
            return Ok(None);
        };
        self.look(path, object.len());
        match decode_identity(&object) {
            Ok(identity) => Ok(Some(identity.database)),
            Err(error) => {
                self.report.blame(path, error, Vec::new());
                Ok(None)
            }
        }
    }

    /// Floors have no gaps, never fall, and rest on a checkpoint that is there. The newest.
    async fn floors(&mut self, database: DatabaseId) -> Result<Seq> {
        let mut floor = Seq(0);
        for k in 1.. {
            let path = floor_path(k);
            let Some(object) = self.env.store.get(&path).await? else { break };
            self.look(&path, object.len());
            match check_floor(&object, database) {
                Ok(found) if found.seq < floor => {
                    self.report.blame(
                        path,
                        format!("says {}, below the floor before it", found.seq),
                        Vec::new(),
                    );
                }
                Ok(found) => floor = found.seq,
                Err(error) => self.report.blame(path, error, Vec::new()),
            }
        }
        Ok(floor)
    }

    /// The log, from the floor to the head. What it records of checkpoints.
    async fn commits(
        &mut self,
        database: DatabaseId,
        floor: Seq,
        manifest: Option<&Manifest>,
        named: &Named,
    ) -> Result<BTreeMap<Seq, [u8; 32]>> {
        let prefix = format!("{LOG_DIR}/");
        let seq_of = |path: &str| path.strip_prefix(&prefix).and_then(parse_commit_name);
        let present: BTreeSet<Seq> =
            self.listed.keys().filter_map(|path| seq_of(path)).filter(|seq| *seq > floor).collect();
        let head =
            manifest.map(Manifest::seq).into_iter().chain(present.last().copied()).max().unwrap_or_default();
        let mut recorded = BTreeMap::new();
        let mut last: Option<Link> = None;
        for seq in (floor.0 + 1..=head.0).map(Seq) {
            let path = commit_path(seq);
            if !present.contains(&seq) {
                self.report.blame(path, "is missing", named.costs_of_commit(seq));
                last = None;
                continue;
            }
            if !self.full {
                self.look(&path, 0);
                continue;
            }
            let object = self.env.store.get(&path).await?.unwrap_or_default();
            self.look(&path, object.len());
            match check_commit(&object, seq, database) {
                Ok(link) => {
                    if last.as_ref().is_some_and(|before| before.hash != link.previous) {
                        let what = "was not made on the commit before it: the log has two histories";
                        self.report.blame(&path, what, named.costs_of_commit(seq));
                    }
                    recorded.extend(link.roots.clone());
                    last = Some(link);
                }
                Err(error) => {
                    self.report.blame(&path, error, named.costs_of_commit(seq));
                    last = None;
                }
            }
        }
        // Rows of the tail may lie in commits below the floor, which has to leave those.
        for seq in named.inline.keys().map(|key| key.seq).filter(|seq| *seq <= floor) {
            let path = commit_path(seq);
            if self.seen.contains(&path) {
                continue;
            }
            match self.env.store.get(&path).await? {
                None => self.report.blame(&path, "is missing", named.costs_of_commit(seq)),
                Some(object) => {
                    self.look(&path, object.len());
                    if let Err(error) = check_commit(&object, seq, database) {
                        self.report.blame(&path, error, named.costs_of_commit(seq));
                    }
                }
            }
        }
        if self.full {
            let rows = named.inline.values().flat_map(|n| &n.costs).map(|c| c.rows).sum::<u64>();
            self.report.rows_read += rows;
        }
        Ok(recorded)
    }

    async fn checkpoints(
        &mut self,
        database: DatabaseId,
        manifest: Option<&Manifest>,
        recorded: &BTreeMap<Seq, [u8; 32]>,
    ) -> Result<()> {
        let prefix = format!("{ROOT_DIR}/");
        let roots: Vec<Seq> = self
            .listed
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix).and_then(parse_root_name))
            .collect();
        let newest = manifest.and_then(Manifest::checkpoint);
        if let Some((seq, _)) = newest
            && !roots.contains(&seq)
        {
            self.report.blame(root_path(seq), "is missing, and the log records it", Vec::new());
        }
        for seq in roots {
            let path = root_path(seq);
            let object = self.env.store.get(&path).await?.unwrap_or_default();
            self.look(&path, object.len());
            let hash =
                recorded.get(&seq).copied().or(newest.filter(|(s, _)| *s == seq).map(|(_, hash)| hash));
            let root = match decode_root(&object) {
                Ok((_, found)) if hash.is_some_and(|hash| hash != found) => {
                    self.report.blame(path, "is not the root that the log records", Vec::new());
                    continue;
                }
                Ok((root, _)) if root.database != database || root.seq != seq => {
                    let what = format!("belongs to seq {} of database {}", root.seq, root.database);
                    self.report.blame(path, what, Vec::new());
                    continue;
                }
                Ok((root, _)) => root,
                Err(error) => {
                    self.report.blame(path, error, Vec::new());
                    continue;
                }
            };
            for part in &root.parts {
                let path = part_path(part.base, &part.hash);
                match self.listed.get(&path) {
                    _ if self.seen.contains(&path) => {}
                    None => self.report.blame(
                        path,
                        format!("is missing, and the checkpoint at {seq} needs it"),
                        Vec::new(),
                    ),
                    Some(size) if !self.full => {
                        let size = *size;
                        self.look(&path, 0);
                        self.check_size(&path, size, part.len, Vec::new());
                    }
                    Some(_) => {
                        let object = self.env.store.get(&path).await?.unwrap_or_default();
                        self.look(&path, object.len());
                        if let Err(error) = decode_part(part, &object) {
                            self.report.blame(path, error, Vec::new());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn segments(&mut self, named: &Named) -> Result<()> {
        for (segment, sections) in &named.segments {
            let path = segment_path(segment);
            let costs = || sum(sections.iter().flat_map(|s| s.costs.clone()));
            let Some(size) = self.listed.get(&path).copied() else {
                self.report.blame(path, "is missing", costs());
                continue;
            };
            let end =
                sections.iter().map(|s| s.section.offset.saturating_add(s.section.len)).max().unwrap_or(0);
            if !self.full {
                self.look(&path, 0);
                if size < end {
                    self.report.blame(path, format!("has {size} bytes, the log says {end}"), costs());
                }
                continue;
            }
            let object = self.env.store.get(&path).await?.unwrap_or_default();
            self.look(&path, object.len());
            for NamedSection { section, costs } in sections {
                let checked = range_of(section.offset, section.len, object.len())
                    .and_then(|range| check_section(&object.slice(range), section.crc32c, section.rows));
                match checked {
                    Ok(_) => self.report.rows_read += costs.iter().map(|c| c.rows).sum::<u64>(),
                    Err(error) => self.report.blame(&path, error, costs.clone()),
                }
            }
            if object.len() as u64 > end
                && object
                    .slice(range_of(end, object.len() as u64 - end, object.len())?)
                    .iter()
                    .any(|b| *b != 0)
            {
                self.report.blame(path, "something stands behind its last section", Vec::new());
            }
        }
        Ok(())
    }

    async fn files(&mut self, named: &Named) -> Result<()> {
        let mut to_read = Vec::new();
        for (path, file) in &named.files {
            match self.listed.get(path).copied() {
                None => self.report.blame(path, "is missing", file.costs.clone()),
                Some(size) => {
                    self.look(path, 0);
                    if self.check_size(path, size, file.file.size, file.costs.clone()) && self.full {
                        to_read.push((path, file));
                    }
                }
            }
        }
        let env = self.env;
        let reads = to_read
            .into_iter()
            .map(|(path, file)| async move { (path, file, read_file(env, path, file).await) });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((path, file, read)) = reads.next().await {
            self.done.bytes_read += file.file.size;
            (self.progress)(self.done);
            match read {
                Ok(rows) => {
                    self.report.bytes_read += file.file.size;
                    self.report.rows_read += rows;
                }
                Err(error) if is_damage(&error) => self.report.blame(path, error, file.costs.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What only snapshots of the past name: there, and as large as it was.
    fn past(&mut self, named: &Named) {
        for (path, size) in &named.past {
            match (self.listed.get(path).copied(), size) {
                (None, _) => self.report.blame(path, "is missing, and the kept past needs it", Vec::new()),
                (Some(found), Some(size)) => {
                    self.look(path, 0);
                    self.check_size(path, found, *size, Vec::new());
                }
                (Some(_), None) => self.look(path, 0),
            }
        }
    }

    fn check_size(&mut self, path: &str, found: u64, expected: u64, costs: Vec<crate::Cost>) -> bool {
        if found != expected {
            self.report.blame(path, format!("has {found} bytes, the manifest says {expected}"), costs);
        }
        found == expected
    }

    fn look(&mut self, path: &str, bytes: usize) {
        if self.seen.insert(path.to_owned()) {
            self.report.objects += 1;
            self.done.objects_done += 1;
        }
        self.report.bytes_read += bytes as u64;
        self.done.bytes_read += bytes as u64;
        (self.progress)(self.done);
    }

    fn finish(mut self) -> Report {
        for (path, bytes) in &self.listed {
            if !self.seen.contains(path) && !self.report.problems.iter().any(|p| p.object == *path) {
                self.report.unnamed_objects += 1;
                self.report.unnamed_bytes += bytes;
            }
        }
        self.report.problems.sort_by(|a, b| a.object.cmp(&b.object));
        self.report
    }
}

/// Every byte of a data file against its checksums, and every row decoded and counted.
async fn read_file(env: &Env, path: &str, named: &NamedFile) -> Result<u64> {
    let file = &named.file;
    // Nothing is kept: what is looked at is what the store has.
    let cache = FooterCache::new(0);
    let reader = || cache.reader(env.store.objects(), path, file.size, file.body_end, file.tail_crc32c);
    let whole = reader();
    let mut start = 0;
    while start < file.size {
        let end = (start + PIECE).min(file.size);
        let _checked: Vec<Bytes> = whole.read_ranges(std::slice::from_ref(&(start..end))).await?;
        start = end;
    }
    let mut rows = 0;
    let mut batches = read_batches(reader(), None, BATCH_ROWS).await?.stream;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows() as u64;
    }
    if rows != file.rows {
        return Err(Error::damaged(format!("it has {rows} rows, the manifest says {}", file.rows)));
    }
    Ok(rows)
}

fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Damaged | ErrorKind::NewerFormat | ErrorKind::NotFound | ErrorKind::HistoryGone
    )
}
