//! An object store in memory that fails as planned and remembers what it was asked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::{Fault, FaultPlan, Op, SimClock};
use crate::Clock;

/// One call that the store was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// From 1, in the order of arrival.
    pub number: u64,
    pub op: Op,
    pub path: String,
    pub fault: Option<Fault>,
    /// What the caller was told: `ok`, or the error in words; `dropped` if it did not wait.
    pub outcome: String,
}

/// See [`super::env`].
#[derive(Debug)]
pub struct FaultStore {
    clock: Arc<SimClock>,
    state: Arc<Mutex<State>>,
    objects: Arc<InMemory>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    calls: Vec<Call>,
    /// Puts that are yet to happen, by the number of the call that they happen before.
    late: BTreeMap<u64, Vec<(Path, PutPayload, PutOptions)>>,
    /// When each object was stored, in the simulated clock's time.
    stored: BTreeMap<Path, i64>,
}

impl FaultStore {
    /// An empty store without faults.
    pub fn new(clock: Arc<SimClock>) -> Self {
        Self { clock, state: Arc::default(), objects: Arc::default() }
    }

    /// From the next call on, faults come from `plan`.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state().plan = plan;
    }

    /// The clock that delays wait on and that stamps objects.
    pub fn clock(&self) -> Arc<SimClock> {
        self.clock.clone()
    }

    /// Everything that was asked so far.
    pub fn trace(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second handle on the same store.
    fn share(&self) -> Self {
        Self { clock: self.clock.clone(), state: self.state.clone(), objects: self.objects.clone() }
    }

    /// Counts a call, lets happen what is due, and says what befalls it.
    async fn arrive(&self, op: Op, path: &Path) -> (u64, Option<Fault>) {
        let (number, fault, due) = {
            let mut state = self.state();
            let number = state.calls.len() as u64 + 1;
            let fault = state.plan.decide(number, op, path.as_ref());
            let (path, outcome) = (path.to_string(), String::from("dropped"));
            state.calls.push(Call { number, op, path, fault, outcome });
            let later = state.late.split_off(&(number + 1));
            (number, fault, std::mem::replace(&mut state.late, later))
        };
        for (path, payload, options) in due.into_values().flatten() {
            // Nobody is told: the put's caller was sent away long ago.
            let _ = self.store(&path, payload, options).await;
        }
        if let Some(Fault::Delay(d)) = fault {
            self.clock.sleep(d).await;
        }
        (number, fault)
    }

    fn leave<T>(&self, number: u64, answer: Result<T>) -> Result<T> {
        let outcome = answer.as_ref().map_or_else(ToString::to_string, |_| String::from("ok"));
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some(call) = self.state().calls.get_mut(index) {
            call.outcome = outcome;
        }
        answer
    }

    /// Any call but a put: does `work` unless the fault forbids it.
    async fn call<T>(&self, op: Op, path: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (number, fault) = self.arrive(op, path).await;
        let answer = match fault {
            None | Some(Fault::Delay(_)) => work.await,
            Some(Fault::FailAfter) => work.await.and_then(|_| Err(lost("the answer was lost"))),
            Some(Fault::Throttle) => Err(lost("503 slow down")),
            Some(Fault::FailBefore | Fault::Conflict409 | Fault::Late(_)) => Err(lost("connection refused")),
        };
        self.leave(number, answer)
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (number, fault) = self.arrive(Op::Put, path).await;
        let answer = match fault {
            None | Some(Fault::Delay(_)) => self.store(path, payload, options).await,
            Some(Fault::FailAfter) => match self.store(path, payload, options).await {
                Ok(_) => Err(lost("the answer was lost")),
                Err(error) => Err(error),
            },
            Some(Fault::Conflict409) if options.mode == PutMode::Create => {
                Err(Error::AlreadyExists { path: path.to_string(), source: "409 conflict".into() })
            }
            Some(Fault::Throttle) => Err(lost("503 slow down")),
            Some(Fault::Late(calls)) => {
                let due = number.saturating_add(calls.max(1));
                self.state().late.entry(due).or_default().push((path.clone(), payload, options));
                Err(lost("timed out"))
            }
            Some(Fault::FailBefore | Fault::Conflict409) => Err(lost("connection refused")),
        };
        self.leave(number, answer)
    }

    async fn store(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let stored = self.objects.put_opts(path, payload, options).await?;
        let now = self.clock.now_micros();
        self.state().stored.insert(path.clone(), now);
        Ok(stored)
    }

    /// Replaces the real time that the memory store notes by the simulated one.
    fn stamp(&self, meta: &mut ObjectMeta) {
        if let Some(micros) = self.state().stored.get(&meta.location) {
            meta.last_modified = chrono::DateTime::from_timestamp_micros(*micros).unwrap_or_default();
        }
    }
}

fn lost(why: &'static str) -> Error {
    Error::Generic { store: "simulated store", source: why.into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.share(), path: path.clone(), parts: vec![] }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.call(Op::Get, path, self.objects.get_opts(path, options)).await?;
        self.stamp(&mut found.meta);
        Ok(found)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(Op::Get, path, self.objects.get_ranges(path, ranges)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.share();
        paths
            .and_then(move |path| {
                let store = store.share();
                async move {
                    store.call(Op::Delete, &path, store.objects.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.share(), prefix.cloned().unwrap_or_default());
        async move {
            let work = async { store.objects.list(Some(&prefix)).try_collect::<Vec<_>>().await };
            match store.call(Op::List, &prefix, work).await {
                Ok(mut found) => {
                    found.iter_mut().for_each(|meta| store.stamp(meta));
                    stream::iter(found.into_iter().map(Ok)).left_stream()
                }
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        }
        .flatten_stream()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let dir = prefix.cloned().unwrap_or_default();
        let mut found = self.call(Op::List, &dir, self.objects.list_with_delimiter(prefix)).await?;
        found.objects.iter_mut().for_each(|meta| self.stamp(meta));
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let work = async {
            self.objects.copy_opts(from, to, options).await?;
            let now = self.clock.now_micros();
            self.state().stored.insert(to.clone(), now);
            Ok(())
        };
        self.call(Op::Copy, to, work).await
    }
}

/// Parts gather here; completing is one put.
#[derive(Debug)]
struct Upload {
    store: FaultStore,
    path: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        self.parts.extend(payload);
        futures::future::ready(Ok(())).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = PutPayload::from_iter(std::mem::take(&mut self.parts));
        self.store.put(&self.path, payload, PutOptions::default()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
