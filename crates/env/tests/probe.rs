//! Stores that do not keep put-if-absent are found out, honest ones are not.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tandem_env::sim::{FaultPlan, SimClock};
use tandem_env::{Store, SystemChance, SystemClock, open_store, probe, sim};
use tandem_types::ErrorKind;

/// How a server gets put-if-absent wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// The condition is ignored.
    Overwrites,
    /// Looks, and puts later: right one after the other, wrong in a race.
    Races,
    /// The loser is told so, and its bytes stay.
    LoserStays,
    /// Success is said, and nothing is kept.
    Forgets,
    /// Conditional puts are turned off.
    Unsupported,
    /// Nothing answers.
    Down,
}

#[derive(Debug)]
struct Liar(InMemory, Lie);

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.1)
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create);
        let there = self.0.head(path).await.is_ok();
        let exists = Error::AlreadyExists { path: path.to_string(), source: "taken".into() };
        match self.1 {
            Lie::Overwrites => self.0.put(path, payload).await,
            Lie::Races if there => Err(exists),
            Lie::Races => {
                tokio::task::yield_now().await;
                self.0.put(path, payload).await
            }
            Lie::LoserStays => {
                self.0.put(path, payload).await?;
                if there { Err(exists) } else { Ok(PutResult { e_tag: None, version: None }) }
            }
            Lie::Forgets => Ok(PutResult { e_tag: None, version: None }),
            Lie::Unsupported => {
                Err(Error::NotImplemented { operation: "create".into(), implementer: "liar".into() })
            }
            Lie::Down => Err(Error::Generic { store: "liar", source: "connection refused".into() }),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, o).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn liars_are_refused_and_say_why() {
    let cases = [
        (Lie::Overwrites, ErrorKind::StoreRefused, "second create of one name succeeded"),
        (Lie::Races, ErrorKind::StoreRefused, "concurrent creates"),
        (Lie::LoserStays, ErrorKind::StoreRefused, "changed the object"),
        (Lie::Forgets, ErrorKind::StoreRefused, "not there"),
        (Lie::Unsupported, ErrorKind::StoreRefused, "not yet implemented"),
        (Lie::Down, ErrorKind::Unavailable, "connection refused"),
    ];
    for (lie, kind, says) in cases {
        for over_a_network in [false, true] {
            let liar = Arc::new(Liar(InMemory::new(), lie));
            let (clock, chance) = (Arc::new(SimClock::auto()), Arc::new(SystemChance));
            let store = if over_a_network {
                Store::remote("s3://liar", liar.clone(), liar, clock, chance)
            } else {
                Store::in_process("s3://liar", liar, clock, chance)
            };
            let error = probe(&store, &SystemChance).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{lie:?}: {error}");
            assert!(
                error.message().contains(says) && error.message().contains("s3://liar"),
                "{lie:?}: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_stores_pass_and_are_left_clean() {
    let dir = tempfile::tempdir().unwrap();
    for url in [dir.path().join("db").to_str().unwrap(), "memory://"] {
        let store = open_store(url, &[], Arc::new(SystemClock), Arc::new(SystemChance)).unwrap();
        probe(&store, &SystemChance).await.unwrap();
        let left: Vec<_> = futures::TryStreamExt::try_collect(store.objects().list(None)).await.unwrap();
        assert_eq!(left, Vec::<ObjectMeta>::new());
    }
}

/// An honest store on a bad day may be unreachable, but is never called a liar.
#[tokio::test]
async fn lost_and_late_answers_are_no_lies() {
    let mut passed = 0;
    for seed in 0..60 {
        let (env, faults) = sim::env(seed);
        faults.set_plan(FaultPlan::none().random(0.25, seed));
        match probe(&env.store, &*env.chance).await {
            Ok(()) => passed += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}"),
        }
    }
    assert!(passed > 30, "{passed} of 60");
}
