//! An object written in parts: they gather in one temporary file, published at the end.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::disk::{Disk, Publish, Temporary, error};

/// Unlike elsewhere, completing creates and never overwrites: no object here ever changes.
#[derive(Debug)]
pub(super) struct LocalUpload {
    disk: Arc<Disk>,
    path: Path,
    parts: Arc<Mutex<Parts>>,
    /// Where the next part goes.
    offset: u64,
}

#[derive(Debug)]
struct Parts {
    /// `None` once completed or aborted.
    file: Option<Temporary>,
    written: u64,
}

impl LocalUpload {
    pub(super) fn begin(disk: &Arc<Disk>, path: Path) -> Result<Self> {
        disk.object(&path)?;
        let file = disk.temporary().map_err(|e| error(&path, e))?;
        let parts = Arc::new(Mutex::new(Parts { file: Some(file), written: 0 }));
        Ok(Self { disk: disk.clone(), path, parts, offset: 0 })
    }
}

impl Parts {
    fn write(&mut self, path: &Path, payload: &PutPayload, mut offset: u64) -> Result<()> {
        let Some(temporary) = &self.file else {
            return Err(over(path));
        };
        for chunk in payload {
            temporary.file.write_all_at(chunk, offset).map_err(|e| error(path, e))?;
            offset += chunk.len() as u64;
            self.written += chunk.len() as u64;
        }
        Ok(())
    }
}

fn over(path: &Path) -> Error {
    Error::Generic { store: "local store", source: format!("{path}: this upload is over").into() }
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let (parts, path, offset) = (self.parts.clone(), self.path.clone(), self.offset);
        self.offset += payload.content_length() as u64;
        async move {
            tokio::task::spawn_blocking(move || {
                parts.lock().unwrap_or_else(PoisonError::into_inner).write(&path, &payload, offset)
            })
            .await?
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (disk, path, parts) = (self.disk.clone(), self.path.clone(), self.parts.clone());
        let length = self.offset;
        tokio::task::spawn_blocking(move || {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            if parts.written != length {
                let source = format!("{path}: {} of {length} bytes were written", parts.written).into();
                return Err(Error::Generic { store: "local store", source });
            }
            let file = parts.file.take().ok_or_else(|| over(&path))?;
            disk.publish(file, &path, Publish::IfAbsent)
        })
        .await?
    }

    async fn abort(&mut self) -> Result<()> {
        let parts = self.parts.clone();
        tokio::task::spawn_blocking(move || {
            parts.lock().unwrap_or_else(PoisonError::into_inner).file = None;
        })
        .await?;
        Ok(())
    }
}
