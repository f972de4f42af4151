//! Reading and listing, with blocking calls.

use std::fs::{DirEntry, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use object_store::path::Path;
use object_store::{
    Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, ObjectMeta, Result,
};

use super::disk::{Disk, TEMPORARY, e_tag, error, read_error};

/// Up to this size a read is one piece, read where the file is opened.
const PIECE_BYTES: u64 = 8 << 20;

impl Disk {
    /// An object's file, open, and what is known of it.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Metadata)> {
        let file = File::open(self.object(path)?).map_err(|e| read_error(path, e))?;
        let meta = file.metadata().map_err(|e| read_error(path, e))?;
        if meta.is_dir() {
            return Err(read_error(path, ErrorKind::NotFound.into()));
        }
        Ok((file, meta))
    }

    /// An error if there is no object of that name. Does not read, and waits for nothing but the directory.
    pub(super) fn refuse_absent(&self, path: &Path) -> Result<()> {
        self.object(path)?.symlink_metadata().map(|_| ()).map_err(|e| read_error(path, e))
    }

    pub(super) fn get(&self, path: &Path, options: &GetOptions) -> Result<GetResult> {
        if options.version.is_some() {
            return Err(super::not_implemented("get of a version"));
        }
        let (mut file, found) = self.open(path)?;
        let meta = object_meta(path.clone(), &found)?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => in_bounds(path, range, meta.size)?,
            None => 0..meta.size,
        };
        let pieces = if options.head {
            stream::empty().boxed()
        } else if range.end - range.start <= PIECE_BYTES {
            let read = read(&mut file, path, range.clone())?;
            stream::iter([Ok(read)]).boxed()
        } else {
            pieces(file, path.clone(), range.clone()).boxed()
        };
        let payload = GetResultPayload::Stream(pieces);
        Ok(GetResult { payload, meta, range, attributes: Attributes::new() })
    }

    pub(super) fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (mut file, meta) = self.open(path)?;
        let read_one = |range: &Range<u64>| {
            let range = in_bounds(path, &GetRange::Bounded(range.clone()), meta.len())?;
            read(&mut file, path, range)
        };
        ranges.iter().map(read_one).collect()
    }

    /// All objects below `prefix`, sorted.
    pub(super) fn walk(&self, prefix: &Path) -> Result<Vec<ObjectMeta>> {
        let (mut found, mut waiting) = (vec![], vec![prefix.clone()]);
        while let Some(dir) = waiting.pop() {
            let inside = self.children(&dir)?;
            found.extend(inside.objects);
            waiting.extend(inside.common_prefixes);
        }
        found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// What is directly in `prefix`, sorted. A directory that is not there is empty.
    pub(super) fn children(&self, prefix: &Path) -> Result<ListResult> {
        let mut inside = ListResult { common_prefixes: vec![], objects: vec![] };
        let entries = match std::fs::read_dir(self.dir(prefix)?) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(inside);
            }
            Err(e) => return Err(error(prefix, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| error(prefix, e))?;
            let Some(path) = object_path(prefix, &entry) else {
                continue;
            };
            // Follows links, like a read of the object would.
            match std::fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => inside.common_prefixes.push(path),
                Ok(meta) => inside.objects.push(object_meta(path, &meta)?),
                // Deleted since it was read from the directory.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(error(&path, e)),
            }
        }
        inside.common_prefixes.sort_unstable();
        inside.objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(inside)
    }
}

/// The object's path of a directory entry; `None` if no object can have such a name.
fn object_path(prefix: &Path, entry: &DirEntry) -> Option<Path> {
    let name = entry.file_name();
    let name = name.to_str()?;
    if prefix.is_root() {
        return if name == TEMPORARY { None } else { Path::parse(name).ok() };
    }
    Path::parse(format!("{prefix}/{name}")).ok()
}

fn object_meta(location: Path, meta: &Metadata) -> Result<ObjectMeta> {
    let last_modified = meta.modified().map_err(|e| error(&location, e))?.into();
    Ok(ObjectMeta { location, last_modified, size: meta.len(), e_tag: Some(e_tag(meta)), version: None })
}

fn in_bounds(path: &Path, range: &GetRange, size: u64) -> Result<Range<u64>> {
    range.as_range(size).map_err(|e| error(path, io::Error::new(ErrorKind::InvalidInput, e)))
}

fn read(file: &mut File, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let want = range.end - range.start;
    let mut bytes = Vec::with_capacity(usize::try_from(want).unwrap_or(0));
    let done = file
        .seek(SeekFrom::Start(range.start))
        .and_then(|_| Read::take(&mut *file, want).read_to_end(&mut bytes));
    match done {
        Ok(len) if len as u64 == want => Ok(bytes.into()),
        Ok(_) => Err(error(path, ErrorKind::UnexpectedEof.into())),
        Err(e) => Err(error(path, e)),
    }
}

fn pieces(file: File, path: Path, range: Range<u64>) -> impl futures::Stream<Item = Result<Bytes>> + Send {
    stream::try_unfold((file, path, range), |(mut file, path, rest)| async move {
        if rest.is_empty() {
            return Ok(None);
        }
        let cut = rest.end.min(rest.start.saturating_add(PIECE_BYTES));
        let (file, path, piece) = tokio::task::spawn_blocking(move || {
            let piece = read(&mut file, &path, rest.start..cut);
            piece.map(|piece| (file, path, piece))
        })
        .await
        .map_err(Error::from)??;
        Ok(Some((piece, (file, path, cut..rest.end))))
    })
}
