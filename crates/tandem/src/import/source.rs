//! Files to load: which format they have, how they are compressed, and reading them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use tandem_types::{Error, Result};
use tempfile::TempPath;

use super::identity;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    Csv,
    Tsv,
    Parquet,
    /// Objects, one a line or in one array
    Json,
    /// Arrow IPC, file or stream
    Arrow,
}

impl FileFormat {
    fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "parquet" | "pq" => Self::Parquet,
            "json" | "jsonl" | "ndjson" => Self::Json,
            "arrow" | "arrows" | "ipc" | "feather" => Self::Arrow,
            _ => return None,
        })
    }

    /// Whether values arrive as text, so that their types are a guess.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Json)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Told by the first bytes: names lie more often.
    fn of(path: &Path) -> std::io::Result<Self> {
        let mut first = Vec::with_capacity(4);
        File::open(path)?.take(4).read_to_end(&mut first)?;
        Ok(match first.as_slice() {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            _ => Self::None,
        })
    }
}

/// A file to load.
pub struct Source {
    /// The name for messages.
    pub name: String,
    pub format: FileFormat,
    /// Its size as stored, in bytes.
    pub bytes: u64,
    path: PathBuf,
    compression: Compression,
    /// Standard input, copied so that it can be read twice.
    _spooled: Option<TempPath>,
}

impl Source {
    /// Looks at a file; `-` is standard input. `format` overrides what the name says.
    pub fn locate(file: &str, format: Option<FileFormat>) -> Result<Self> {
        if file == "-" {
            return Self::standard_input(format);
        }
        let path = PathBuf::from(file);
        let format = format.or_else(|| format_of(&path)).ok_or_else(|| {
            Error::invalid(format!(
                "cannot tell the format of {file:?} from its name: give --format csv, tsv, parquet, json or arrow"
            ))
        })?;
        Self::at(file.to_owned(), path, format, None)
    }

    fn standard_input(format: Option<FileFormat>) -> Result<Self> {
        let format = format.ok_or_else(|| Error::invalid("standard input needs --format"))?;
        let spool = || {
            let mut file = tempfile::NamedTempFile::new()?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
            Ok(file.into_temp_path())
        };
        let spooled: TempPath = spool()
            .map_err(|e: std::io::Error| Error::invalid(format!("cannot read standard input: {e}")))?;
        let path = spooled.to_path_buf();
        Self::at("standard input".to_owned(), path, format, Some(spooled))
    }

    fn at(name: String, path: PathBuf, format: FileFormat, spooled: Option<TempPath>) -> Result<Self> {
        let cannot = |e: std::io::Error| Error::invalid(format!("cannot read {name:?}: {e}"));
        let bytes = std::fs::metadata(&path).map_err(cannot)?.len();
        let compression = Compression::of(&path).map_err(cannot)?;
        Ok(Self { name, format, bytes, path, compression, _spooled: spooled })
    }

    /// The content, decompressed; stored bytes are counted as they are read.
    pub fn open(&self, counter: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
        let open = || -> std::io::Result<Box<dyn BufRead + Send>> {
            let file = Counted { inner: File::open(&self.path)?, bytes: counter.clone() };
            let file = BufReader::with_capacity(1 << 18, file);
            Ok(match self.compression {
                Compression::None => Box::new(file),
                Compression::Gzip => {
                    Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(file)))
                }
                Compression::Zstd => {
                    Box::new(BufReader::with_capacity(1 << 18, zstd::Decoder::with_buffer(file)?))
                }
            })
        };
        open().map_err(|e| self.cannot_read(&e))
    }

    /// The content as a file to seek in; compressed ones are unpacked first.
    pub fn open_file(&self) -> Result<File> {
        let open = || -> Result<File> {
            if self.compression == Compression::None {
                return File::open(&self.path).map_err(|e| self.cannot_read(&e));
            }
            let mut content = self.open(&Arc::default())?;
            let mut file = tempfile::tempfile().map_err(|e| self.cannot_read(&e))?;
            std::io::copy(&mut content, &mut file).map_err(|e| self.cannot_read(&e))?;
            file.rewind().map_err(|e| self.cannot_read(&e))?;
            Ok(file)
        };
        open()
    }

    /// What the content is known by; see [`identity`](super::identity).
    pub fn content_hash(&self) -> Result<String> {
        File::open(&self.path).and_then(identity::content_hash).map_err(|e| self.cannot_read(&e))
    }

    /// An error of reading as one that names the file.
    pub fn cannot_read(&self, e: &dyn std::fmt::Display) -> Error {
        Error::invalid(format!("cannot read {:?}: {e}", self.name))
    }
}

fn format_of(path: &Path) -> Option<FileFormat> {
    let extension = path.extension().and_then(OsStr::to_str)?;
    if matches!(extension.to_ascii_lowercase().as_str(), "gz" | "zst" | "zstd") {
        return format_of(Path::new(path.file_stem()?));
    }
    FileFormat::of_extension(extension)
}

struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_the_extension_below_the_compression() {
        let of = |name: &str| format_of(Path::new(name));
        assert_eq!(of("a.csv"), Some(FileFormat::Csv));
        assert_eq!(of("x/a.b.CSV.gz"), Some(FileFormat::Csv));
        assert_eq!(of("a.jsonl.zst"), Some(FileFormat::Json));
        assert_eq!(of("a.feather"), Some(FileFormat::Arrow));
        assert_eq!(of("a.gz"), None);
        assert_eq!(of("a"), None);
    }
}
