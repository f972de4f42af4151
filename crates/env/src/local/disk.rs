//! Writing: temporary file, sync, rename if absent, sync of the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{Error, PutPayload, PutResult, Result};

use super::sync::Syncs;
use crate::Chance;
use crate::retry::REFUSING;

/// Where temporary files are, directly below the root. No object has a name in it.
pub(super) const TEMPORARY: &str = ".tmp";
/// No upload lasts longer, so an older temporary file belongs to a process that died.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(3600);
const STORE: &str = "local store";

/// How a finished temporary file gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    IfAbsent,
    Replace,
}

/// The directory below which everything happens, with blocking calls.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    chance: Arc<dyn Chance>,
    pub(super) syncs: Syncs,
}

/// A file that is removed unless it is published.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
    published: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is swept at a later start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Disk {
    pub(super) fn new(root: PathBuf, chance: Arc<dyn Chance>) -> Self {
        Self { root, chance, syncs: Syncs::default() }
    }

    pub(super) fn root(&self) -> &FsPath {
        &self.root
    }

    /// An error if a sync has failed before.
    pub(super) fn check(&self) -> Result<()> {
        match self.syncs.failure() {
            None => Ok(()),
            Some(why) => Err(Error::Generic { store: REFUSING, source: why.into() }),
        }
    }

    /// The file of an object. A `Path` has no `.` or `..` among its parts, so that this stays
    /// below the root.
    pub(super) fn object(&self, path: &Path) -> Result<PathBuf> {
        if path.is_root() {
            return Err(error(path, io::Error::from(ErrorKind::IsADirectory)));
        }
        self.dir(path)
    }

    /// The directory of a prefix: the root's for the empty one.
    pub(super) fn dir(&self, path: &Path) -> Result<PathBuf> {
        if path.parts().next().is_some_and(|first| first.as_ref() == TEMPORARY) {
            let source = format!("{TEMPORARY} is the store's own").into();
            return Err(Error::NotSupported { source });
        }
        let mut full = self.root.clone();
        full.extend(path.parts().map(|part| part.as_ref().to_owned()));
        Ok(full)
    }

    pub(super) fn put(&self, path: &Path, payload: &PutPayload, publish: Publish) -> Result<PutResult> {
        let target = self.object(path)?;
        if publish == Publish::IfAbsent && target.symlink_metadata().is_ok() {
            // Spares a loser two syncs. Names are never freed for another use.
            return Err(exists(path));
        }
        let mut temporary = self.temporary().map_err(|e| error(path, e))?;
        for chunk in payload {
            temporary.file.write_all(chunk).map_err(|e| error(path, e))?;
        }
        self.publish(temporary, path, publish)
    }

    pub(super) fn copy(&self, from: &Path, to: &Path, publish: Publish) -> Result<()> {
        let mut source = self.open(from)?.0;
        let mut temporary = self.temporary().map_err(|e| error(to, e))?;
        io::copy(&mut source, &mut temporary.file).map_err(|e| error(to, e))?;
        self.publish(temporary, to, publish).map(|_| ())
    }

    pub(super) fn temporary(&self) -> io::Result<Temporary> {
        let dir = self.root.join(TEMPORARY);
        let path = dir.join(format!("{:032x}", self.chance.next_u128()));
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The root is made durably, also if it was there and is gone; what is in `.tmp`
                // need not survive anything.
                self.syncs.forget();
                self.syncs.durable_dir(&self.root, &self.root)?;
                std::fs::create_dir_all(&dir)?;
                open()?
            }
            opened => opened?,
        };
        Ok(Temporary { file, path, published: false })
    }

    /// Gives the file its name, durably. If this fails after the rename, the object is there and
    /// the handle refuses to go on: the outcome is unknown, as the error says by its kind.
    pub(super) fn publish(
        &self,
        mut temporary: Temporary,
        path: &Path,
        publish: Publish,
    ) -> Result<PutResult> {
        self.check()?;
        let target = self.object(path)?;
        let dir = target.parent().unwrap_or(&self.root);
        self.syncs.file(&temporary.file, &temporary.path).map_err(|e| error(path, e))?;
        self.syncs.durable_dir(&self.root, dir).map_err(|e| error(path, e))?;
        let renamed = match publish {
            Publish::IfAbsent => rename_if_absent(&temporary.path, &target),
            Publish::Replace => std::fs::rename(&temporary.path, &target),
        };
        match renamed {
            Ok(()) => temporary.published = true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(path)),
            Err(e) => {
                if e.kind() == ErrorKind::NotFound {
                    // The directory that we made or saw is gone: the next attempt makes it again.
                    self.syncs.forget();
                }
                return Err(error(path, e));
            }
        }
        self.syncs.dir(dir).map_err(|e| error(path, e))?;
        // A sync of anything else may have failed meanwhile; then this handle vouches for nothing.
        self.check()?;
        let meta = temporary.file.metadata().map_err(|e| error(path, e))?;
        Ok(PutResult { e_tag: Some(e_tag(&meta)), version: None })
    }

    pub(super) fn delete(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(self.object(path)?) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(error(path, e)),
            _ => Ok(()),
        }
    }

    /// Makes durable what is visible in the directory `path`.
    pub(super) fn sync_seen(&self, path: &Path) -> Result<()> {
        let dir = self.dir(path)?;
        if !dir.is_dir() {
            return Ok(());
        }
        self.syncs.durable_dir(&self.root, &dir).map_err(|e| error(path, e))?;
        self.syncs.dir(&dir).map_err(|e| error(path, e))
    }

    /// Removes temporary files of processes that died. Best effort.
    pub(super) fn sweep(&self, now_micros: i64) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now_micros.try_into().unwrap_or(0));
        let Ok(entries) = std::fs::read_dir(self.root.join(TEMPORARY)) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|then| now.duration_since(then));
            if matches!(age, Ok(Ok(age)) if age > LEFT_OVER_AFTER) {
                let path = entry.path();
                match std::fs::remove_file(&path) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed a left-over temporary file"),
                    Err(error) => {
                        tracing::debug!(path = %path.display(), %error, "could not remove a left-over file");
                    }
                }
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_if_absent(from: &FsPath, to: &FsPath) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without it, network ones mostly.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_if_absent(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_if_absent(from: &FsPath, to: &FsPath) -> io::Result<()> {
    link_if_absent(from, to)
}

/// The same in two steps. A crash between them leaves a second name in `.tmp`, which is swept.
pub(super) fn link_if_absent(from: &FsPath, to: &FsPath) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    let _ = std::fs::remove_file(from);
    Ok(())
}

/// Tells versions of a name apart, as object_store's own local store does.
pub(super) fn e_tag(meta: &std::fs::Metadata) -> String {
    let micros = i128::from(meta.mtime()) * 1_000_000 + i128::from(meta.mtime_nsec() / 1_000);
    format!("{:x}-{micros:x}-{:x}", meta.ino(), meta.len())
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "the name is taken".into() }
}

/// An I/O error while writing, as the library's.
pub(super) fn error(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::PermissionDenied => {
            Error::PermissionDenied { path: path.to_string(), source: source.into() }
        }
        _ => Error::Generic { store: STORE, source: format!("{path}: {source}").into() },
    }
}

/// An I/O error while reading: here, what is not there is an absent object.
pub(super) fn read_error(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::NotFound { path: path.to_string(), source: source.into() }
        }
        _ => error(path, source),
    }
}
