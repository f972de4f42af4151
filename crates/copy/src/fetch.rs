//! Objects from one store into another, verified on the way.

use bytes::Bytes;
use tandem_datafile::FooterCache;
use tandem_env::{Env, Store};
use tandem_format::{DataFile, ObjectName, Section, SectionKey, segment_path};
use tandem_log::Log;
use tandem_segment::{Limits, decode_section};
use tandem_types::{Error, Result};

/// Bytes of a data file that are read at once.
const PIECE: u64 = 8 << 20;

/// An object that the copy names.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    File {
        path: String,
        file: DataFile,
    },
    /// Of the past: no more is known of it than its name.
    Past {
        path: String,
    },
    /// With the sections in it that are named.
    Segment {
        name: ObjectName,
        sections: Vec<Section>,
    },
}

impl Wanted {
    pub fn path(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Past { path } => path.clone(),
            Self::Segment { name, .. } => segment_path(name),
        }
    }

    /// Its size; of a segment: at least.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File { file, .. } => file.size,
            Self::Past { .. } => 0,
            Self::Segment { sections, .. } => {
                sections.iter().map(|s| s.offset.saturating_add(s.len)).max().unwrap_or(0)
            }
        }
    }

    /// Whether an object of this size is it.
    pub fn fits(&self, size: u64) -> bool {
        match self {
            Self::File { file, .. } => file.size == size,
            Self::Segment { .. } | Self::Past { .. } => size >= self.bytes(),
        }
    }
}

/// Reads an object with its checksums verified, and creates it, where there is a place for it.
pub(crate) async fn fetch(from: &Env, to: Option<&Store>, wanted: &Wanted) -> Result<()> {
    let path = wanted.path();
    let bytes = match wanted {
        Wanted::File { path, file } => read_file(from, path, file).await?,
        Wanted::Past { path } => vec![read_whole(from, path).await?],
        Wanted::Segment { sections, .. } => {
            let object = read_whole(from, &path).await?;
            for section in sections {
                check_section(&object, section).map_err(|e| e.context(&path))?;
            }
            vec![object]
        }
    };
    create(to, &path, bytes).await
}

async fn create(to: Option<&Store>, path: &str, bytes: Vec<Bytes>) -> Result<()> {
    match to {
        Some(to) => to.create_data(path, bytes).await,
        None => Ok(()),
    }
}

async fn read_whole(from: &Env, path: &str) -> Result<Bytes> {
    let object = from.store.get(path).await?;
    object.ok_or_else(|| Error::damaged(format!("{path} is missing in {}", from.store.url())))
}

async fn read_file(from: &Env, path: &str, file: &DataFile) -> Result<Vec<Bytes>> {
    let cache = FooterCache::new(0);
    let reader = cache.reader(from.store.objects(), path, file.size, file.body_end, file.tail_crc32c);
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < file.size {
        let end = (start + PIECE).min(file.size);
        pieces.extend(reader.read_ranges(std::slice::from_ref(&(start..end))).await?);
        start = end;
    }
    Ok(pieces)
}

fn check_section(object: &Bytes, section: &Section) -> Result<Bytes> {
    let outside = || Error::damaged("a section lies outside of what is there");
    let start = usize::try_from(section.offset).map_err(|_| outside())?;
    let len = usize::try_from(section.len).map_err(|_| outside())?;
    let end = start.checked_add(len).filter(|end| *end <= object.len()).ok_or_else(outside)?;
    let bytes = object.slice(start..end);
    decode_section(&bytes, Some(section.crc32c), &Limits::default())?;
    Ok(bytes)
}

/// A section that rode in a commit, or lies in a segment that is not to be had as a whole, as a segment of the copy's own.
pub(crate) async fn settle(
    log: &Log,
    to: Option<&Store>,
    key: SectionKey,
    section: &Section,
    name: &ObjectName,
) -> Result<()> {
    let (object, place) = match &section.segment {
        None => (log.read_payload(key.seq).await?.0, format!("commit {}", key.seq)),
        Some(segment) => {
            let path = segment_path(segment);
            (read_whole(log.env(), &path).await?, path)
        }
    };
    let bytes = check_section(&object, section).map_err(|e| e.context(&place))?;
    create(to, &segment_path(name), vec![bytes]).await
}
