//! Syncs: many at once cost little more than one, and the first that fails is the last.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// All syncs of one store handle.
///
/// A sync that failed says that some write was lost, and the kernel may tell nobody a second
/// time: the next sync of the same file can succeed with the data gone. So nothing that this
/// handle says could be believed any more, and it says nothing.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    failed: OnceLock<String>,
    groups: Mutex<HashMap<PathBuf, Arc<Group>>>,
    /// Directories whose own entries, up to the root's, are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
    /// Lets a test fail the syncs of files, or of directories.
    #[cfg(test)]
    pub(super) break_next: Mutex<Option<Breakage>>,
    #[cfg(test)]
    pub(super) dir_syncs: std::sync::atomic::AtomicU64,
}

#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breakage {
    File,
    Directory,
}

/// The syncs of one directory. Whoever comes while one runs waits for the next, which one of
/// the waiting does for all.
#[derive(Debug, Default)]
struct Group {
    turns: Mutex<Turns>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// Syncs begun and ended; at most one runs.
    begun: u64,
    ended: u64,
}

impl Syncs {
    /// Why nothing may go on, if a sync has failed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    pub(super) fn file(&self, file: &File, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.breaks(Breakage::File, path)?;
        file.sync_all().map_err(|error| self.fail(path, error))
    }

    /// Makes the entries of `dir` durable that are in it now.
    pub(super) fn dir(&self, dir: &Path) -> io::Result<()> {
        let group = lock(&self.groups).entry(dir.to_owned()).or_default().clone();
        let done = self.dir_in(&group, dir);
        let mut groups = lock(&self.groups);
        // One count is the map's, one ours: with no other, nobody waits and the map need not grow.
        if groups.get(dir).is_some_and(|kept| Arc::ptr_eq(kept, &group)) && Arc::strong_count(&group) == 2 {
            groups.remove(dir);
        }
        done
    }

    fn dir_in(&self, group: &Group, dir: &Path) -> io::Result<()> {
        let mut turns = lock(&group.turns);
        // A sync that runs already may have passed our entry: only one begun from now on counts.
        let mine = turns.begun + 1;
        while turns.ended < mine {
            if let Some(why) = self.failure() {
                return Err(io::Error::other(why.to_owned()));
            }
            if turns.begun == turns.ended {
                turns.begun += 1;
                drop(turns);
                let synced = self.sync_dir_now(dir);
                turns = lock(&group.turns);
                turns.ended += 1;
                group.ended.notify_all();
                synced?;
            } else {
                turns = group.ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
            }
        }
        // The sync we waited for was another's, and may have been the one that failed.
        match self.failure() {
            Some(why) => Err(io::Error::other(why.to_owned())),
            None => Ok(()),
        }
    }

    fn sync_dir_now(&self, dir: &Path) -> io::Result<()> {
        #[cfg(test)]
        {
            self.dir_syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.breaks(Breakage::Directory, dir)?;
        }
        // To fail to open is a failure too: whoever waits for this sync must not take it for done.
        File::open(dir).and_then(|opened| opened.sync_all()).map_err(|error| self.fail(dir, error))
    }

    /// Makes `dir` exist, and its entry durable, and those of the directories above it up to the
    /// first that was there before `root`. An existing directory is not yet a durable one: its
    /// maker may be another process, about to sync.
    pub(super) fn durable_dir(&self, root: &Path, dir: &Path) -> io::Result<()> {
        if lock(&self.durable).contains(dir) {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            if dir == root {
                self.durable_root(root, parent)?;
            } else {
                self.durable_dir(root, parent)?;
                make_dir(dir)?;
                self.dir(parent)?;
            }
        }
        lock(&self.durable).insert(dir.to_owned());
        Ok(())
    }

    fn durable_root(&self, root: &Path, parent: &Path) -> io::Result<()> {
        if root.is_dir() {
            // Made by somebody else, perhaps below a directory that we may not read; its entry is
            // synced if it can be.
            return if File::open(parent).is_ok() { self.dir(parent) } else { Ok(()) };
        }
        let mut missing = vec![root];
        missing.extend(root.ancestors().skip(1).take_while(|dir| !dir.is_dir()));
        for dir in missing.into_iter().rev() {
            make_dir(dir)?;
            if let Some(parent) = dir.parent() {
                self.dir(parent)?;
            }
        }
        Ok(())
    }

    /// Forgets what is durable: a directory has turned out to be gone.
    pub(super) fn forget(&self) {
        lock(&self.durable).clear();
    }

    fn fail(&self, path: &Path, error: io::Error) -> io::Error {
        let why = format!("a sync of {} failed: {error}", path.display());
        if self.failed.set(why).is_ok() {
            tracing::error!(path = %path.display(), %error, "sync failed, the store refuses everything from now on");
        }
        error
    }

    #[cfg(test)]
    fn breaks(&self, what: Breakage, path: &Path) -> io::Result<()> {
        let mut planned = lock(&self.break_next);
        if *planned == Some(what) {
            *planned = None;
            return Err(self.fail(path, io::Error::other("injected")));
        }
        Ok(())
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// The lock, also after a panic of another holder: the state behind these is never left half
/// changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
