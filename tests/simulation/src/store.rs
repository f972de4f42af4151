//! The one store, as one process sees it: answers come late, get lost, or are wrong in the ways in which stores are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::faults::{Fate, Fault};
use crate::life::Life;
use crate::scripts::Way;
use crate::world::{World, event, word};

/// A process's way to the store.
#[derive(Debug)]
pub struct NodeStore {
    pub world: Arc<World>,
    pub life: Arc<Life>,
    pub node: u64,
}

impl fmt::Display for NodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store of node {}", self.node)
    }
}

fn lost(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

/// What a put does to the objects, at one moment.
fn store(world: &World, path: &str, bytes: Bytes, create: bool) -> Result<PutResult> {
    let mut objects = world.objects();
    if create && objects.contains_key(path) {
        return Err(Error::AlreadyExists { path: path.to_owned(), source: "it exists".into() });
    }
    objects.insert(path.to_owned(), bytes.clone());
    drop(objects);
    if path.starts_with("log/") {
        world.created(path, &bytes);
    }
    Ok(PutResult { e_tag: None, version: None })
}

/// One changed byte.
fn damaged(world: &World, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = world.below(bytes.len() as u64) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << world.below(8);
    }
    bytes.into()
}

impl NodeStore {
    fn note(&self, op: u64, path: &str, outcome: u64) {
        self.world.note(&[op, self.node, word(path), outcome]);
    }

    /// Before a call is sent.
    async fn enter(&self) -> Option<Way> {
        self.life.pass().await;
        let way = self.world.call();
        if way == Some(Way::CrashBefore) {
            self.life.kill();
            self.life.pass().await;
        }
        way
    }

    /// Before its answer is heard.
    async fn leave(&self, way: Option<Way>) {
        match way {
            Some(Way::CrashAfter) => self.life.kill(),
            Some(Way::Pause) => self.life.pause(Duration::from_secs(9)),
            _ => {}
        }
        self.life.pass().await;
    }

    /// A read: it takes its time, and may fail.
    async fn read<T>(&self, op: u64, path: &str, look: impl FnOnce(&World) -> Result<T>) -> Result<T> {
        let way = self.enter().await;
        let Fate { before, after, fault } = Fate::of_read(&self.world, path, way);
        self.world.sleep(before).await;
        let answer = match fault {
            Some(Fault::Throttle) => Err(lost("503 slow down")),
            Some(_) => Err(lost("connection reset")),
            None => look(&self.world),
        };
        self.world.sleep(after).await;
        self.leave(way).await;
        self.note(op, path, u64::from(answer.is_ok()));
        answer
    }
}

impl NodeStore {
    /// As slow as a put, and done or not whatever is said of it.
    async fn delete_one(&self, path: Path) -> Result<Path> {
        let way = self.enter().await;
        let Fate { before, after, fault } = Fate::of_put(&self.world, path.as_ref(), way);
        self.world.sleep(before).await;
        let answer = match fault {
            Some(Fault::FailBefore | Fault::Throttle | Fault::Conflict) => Err(lost("connection refused")),
            fault => {
                if self.world.objects().remove(path.as_ref()).is_some() {
                    self.world.deleted(path.as_ref());
                }
                if matches!(fault, Some(Fault::FailAfter | Fault::Late)) {
                    Err(lost("timed out"))
                } else {
                    Ok(path.clone())
                }
            }
        };
        self.world.sleep(after).await;
        self.leave(way).await;
        self.note(event::DELETE, path.as_ref(), u64::from(answer.is_ok()));
        answer
    }
}

/// A put on its way: it goes on whatever becomes of who sent it.
async fn travel(
    world: Arc<World>,
    path: String,
    bytes: Bytes,
    create: bool,
    way: Option<Way>,
    tell: oneshot::Sender<Result<PutResult>>,
) {
    let Fate { before, after, fault } = Fate::of_put(&world, &path, way);
    world.sleep(before).await;
    let bytes = if fault == Some(Fault::Damage) { damaged(&world, &bytes) } else { bytes };
    let answer = match fault {
        None | Some(Fault::Damage) => store(&world, &path, bytes, create),
        Some(Fault::FailBefore) => Err(lost("connection refused")),
        Some(Fault::Throttle) => Err(lost("503 slow down")),
        Some(Fault::FailAfter) => store(&world, &path, bytes, create).and(Err(lost("the answer was lost"))),
        Some(Fault::Conflict) => {
            Err(Error::AlreadyExists { path: path.clone(), source: "409 conflict".into() })
        }
        Some(Fault::Late) => {
            let _ = tell.send(Err(lost("timed out")));
            world.sleep(after + world.millis(0, 3000)).await;
            let _ = store(&world, &path, bytes, create);
            return;
        }
    };
    world.sleep(after).await;
    // Whoever asked may be gone.
    let _ = tell.send(answer);
}

#[async_trait]
impl ObjectStore for NodeStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let way = self.enter().await;
        let (tell, told) = oneshot::channel();
        let create = options.mode == PutMode::Create;
        tokio::spawn(travel(self.world.clone(), path.to_string(), payload.into(), create, way, tell));
        let answer = told.await.unwrap_or_else(|_| Err(lost("cancelled")));
        self.leave(way).await;
        self.note(event::PUT, path.as_ref(), u64::from(answer.is_ok()));
        answer
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "the simulation".into() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.read(event::GET, path.as_ref(), |world| {
            let found = world.objects().get(path.as_ref()).cloned();
            found.ok_or_else(|| Error::NotFound {
                path: path.to_string(),
                source: "there is no object".into(),
            })
        });
        let object = found.await?;
        let len = object.len() as u64;
        let range = match &options.range {
            None => 0..len,
            Some(range) => {
                range.as_range(len).map_err(|e| Error::Generic { store: "simulated", source: e.into() })?
            }
        };
        let slice =
            object.slice(usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0));
        let payload = GetResultPayload::Stream(stream::iter([Ok(slice)]).boxed());
        Ok(GetResult { payload, meta: meta(path.clone(), len), range, attributes: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = Self { world: self.world.clone(), life: self.life.clone(), node: self.node };
        paths
            .then(move |path| {
                let store = Self { world: store.world.clone(), life: store.life.clone(), node: store.node };
                async move { store.delete_one(path?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = Self { world: self.world.clone(), life: self.life.clone(), node: self.node };
        let dir = prefix.map_or_else(String::new, |p| format!("{p}/"));
        async move {
            let look = |world: &World| {
                let objects = world.objects();
                let below = objects.range(dir.clone()..).take_while(|(path, _)| path.starts_with(&dir));
                Ok(below.map(|(path, bytes)| meta(path.as_str().into(), bytes.len() as u64)).collect())
            };
            match store.read(event::LIST, &dir, look).await {
                Ok(found) => {
                    let found: Vec<ObjectMeta> = found;
                    stream::iter(found.into_iter().map(Ok)).left_stream()
                }
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        }
        .flatten_stream()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let dir = prefix.map_or_else(String::new, |p| format!("{p}/"));
        let objects = self
            .read(event::LIST, &dir, |world| {
                let objects = world.objects();
                let below = objects.range(dir.clone()..).take_while(|(path, _)| path.starts_with(&dir));
                let direct = below.filter(|(path, _)| !path[dir.len()..].contains('/'));
                let mut found: Vec<ObjectMeta> =
                    direct.map(|(path, bytes)| meta(path.as_str().into(), bytes.len() as u64)).collect();
                drop(objects);
                // What was created last may not show yet.
                while !found.is_empty() && world.share(world.plan.faults) && !world.is_calm() {
                    found.pop();
                }
                Ok(found)
            })
            .await?;
        Ok(ListResult { common_prefixes: Vec::new(), objects })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "the simulation".into() })
    }
}

fn meta(location: Path, size: u64) -> ObjectMeta {
    ObjectMeta { location, last_modified: chrono::DateTime::UNIX_EPOCH, size, e_tag: None, version: None }
}

/// A process's clocks, chance and store.
pub fn env_of(world: &Arc<World>, life: &Arc<Life>, node: u64, salt: u64) -> tandem_env::Env {
    let objects = Arc::new(NodeStore { world: world.clone(), life: life.clone(), node });
    let clock: Arc<dyn tandem_env::Clock> = Arc::new(crate::life::LifeClock(life.clone()));
    let chance: Arc<dyn tandem_env::Chance> = Arc::new(tandem_env::sim::SimChance::new(salt));
    let store = tandem_env::Store::in_process("sim://", objects, clock.clone(), chance.clone());
    if let Some(mutant) = world.mutant {
        store.spoil(mutant);
    }
    tandem_env::Env { clock, chance, store }
}

/// Waits for `work`, for at most `limit` of the simulation's own time.
pub async fn within<T>(world: &World, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tandem_env::within(&*world.clock, limit, work).await
}
