//! The whole state.

use std::sync::Arc;

use imbl::OrdMap;
use tandem_format::{
    FileName, HeaderHash, Lease, ObjectName, PartEntry, Pin, Primary, TransactionToken, encode_pin,
};
use tandem_types::{
    DEFAULT_SCHEMA, DatabaseId, Epoch, Error, PartitionUnit, Result, Seq, TableId, TableName,
};

use crate::digest::{Entry, entry_hash};
use crate::foreign::Keep;
use crate::settings::{Mode, kept_tokens};
use crate::table::Table;
use crate::tokens::{TokenAnswer, TokenTable};

/// A database's state at a seq.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(crate) database: DatabaseId,
    pub(crate) seq: Seq,
    pub(crate) header_hash: HeaderHash,
    pub(crate) commit_time: i64,
    pub(crate) age: i64,
    pub(crate) epoch: Epoch,
    pub(crate) next_table: TableId,
    pub(crate) schemas: OrdMap<String, ()>,
    pub(crate) names: OrdMap<TableName, TableId>,
    pub(crate) tables: OrdMap<TableId, Table>,
    pub(crate) settings: OrdMap<String, String>,
    pub(crate) tokens: TokenTable,
    /// How many tail sections each segment still carries.
    pub(crate) segments: OrdMap<ObjectName, u64>,
    pub(crate) removed: OrdMap<(Seq, RemovedObject), u64>,
    pub(crate) checkpoint: Option<(Seq, [u8; 32])>,
    pub(crate) primary: Option<Arc<Primary>>,
    pub(crate) lease: Option<Arc<Lease>>,
    pub(crate) horizon: Seq,
    pub(crate) history_start: Seq,
    pub(crate) pins: OrdMap<String, Arc<Pin>>,
    /// See [`Manifest::brought_back`]; and the commit of the last such restore.
    pub(crate) brought_back: Option<(Seq, Seq)>,
    /// Not part of the digest.
    pub(crate) logged: Logged,
    /// Sum of the hashes of all entries; [`Manifest::digest`] adds what there is only one of.
    pub(crate) digest: u128,
}

/// What all commits up to a state appended, void ones and what was deleted since included: two states of one log are so
/// far apart. For people; checkpoints of early versions do not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    pub rows: u64,
    /// Of sections, as encoded.
    pub bytes: u64,
}

/// An object that the present state no longer names. Kept listed until history passes its removal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovedObject {
    File { table: TableId, partition_by: PartitionOrd, file: FileName },
    Segment(ObjectName),
}

impl RemovedObject {
    /// As a checkpoint lists it.
    pub(crate) fn entry(&self, removed: Seq, size: u64) -> PartEntry {
        match self {
            Self::File { table, partition_by, file } => PartEntry::RemovedFile {
                removed,
                table: *table,
                partition_by: partition_by.0,
                file: *file,
                size,
            },
            Self::Segment(segment) => PartEntry::RemovedSegment { removed, segment: *segment },
        }
    }
}

/// A partition unit with an order, so that it can stand in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOrd(pub PartitionUnit);

impl PartialOrd for PartitionOrd {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PartitionOrd {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name().cmp(other.0.name())
    }
}

impl Manifest {
    /// The state before the first commit.
    pub fn empty(database: DatabaseId) -> Self {
        Self {
            database,
            seq: Seq(0),
            header_hash: [0; 32],
            commit_time: 0,
            age: 0,
            epoch: Epoch(0),
            next_table: TableId(1),
            schemas: OrdMap::unit(DEFAULT_SCHEMA.to_owned(), ()),
            names: OrdMap::new(),
            tables: OrdMap::new(),
            settings: OrdMap::new(),
            tokens: TokenTable::default(),
            segments: OrdMap::new(),
            removed: OrdMap::new(),
            checkpoint: None,
            primary: None,
            lease: None,
            horizon: Seq(0),
            history_start: Seq(0),
            pins: OrdMap::new(),
            brought_back: None,
            logged: Logged::default(),
            digest: 0,
        }
    }

    pub fn database(&self) -> DatabaseId {
        self.database
    }

    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Hash of the header of the last commit.
    pub fn header_hash(&self) -> HeaderHash {
        self.header_hash
    }

    /// What all commits so far appended.
    pub fn logged(&self) -> Logged {
        self.logged
    }

    /// Microseconds since 1970 of the last commit.
    pub fn commit_time(&self) -> i64 {
        self.commit_time
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest checkpoint that the log records: its seq and the hash of its root.
    pub fn checkpoint(&self) -> Option<(Seq, [u8; 32])> {
        self.checkpoint
    }

    /// Equal on all nodes at equal seq, however they got there.
    pub fn digest(&self) -> u128 {
        let (checkpoint, root_hash) = self.checkpoint.unwrap_or_default();
        let counters = [
            self.seq.0,
            self.commit_time.cast_unsigned(),
            self.age.cast_unsigned(),
            self.epoch.0,
            self.next_table.0,
            self.tokens.floor.0,
            checkpoint.0,
        ];
        let counters = counters.map(u64::to_be_bytes).concat();
        let database = self.database.0.to_be_bytes();
        let scalars = entry_hash(Entry::Scalars, &[&database, &self.header_hash, &counters, &root_hash]);
        // Apart from the other scalars: checkpoints of versions that knew no horizon have digests without it.
        let history = match (self.horizon, self.history_start) {
            (Seq(0), Seq(0)) => 0,
            (Seq(horizon), Seq(start)) => {
                entry_hash(Entry::History, &[&horizon.to_be_bytes(), &start.to_be_bytes()])
            }
        };
        let brought_back = self.brought_back.map_or(0, |(Seq(from), Seq(at))| {
            entry_hash(Entry::BroughtBack, &[&from.to_be_bytes(), &at.to_be_bytes()])
        });
        self.digest.wrapping_add(scalars).wrapping_add(history).wrapping_add(brought_back)
    }

    /// Objects whose base is below it may be deleted unless they are named: nobody may name such an object anew.
    pub fn horizon(&self) -> Seq {
        self.horizon
    }

    /// The oldest snapshot that is kept; 0: all are.
    pub fn history_start(&self) -> Seq {
        self.history_start
    }

    /// The lowest commit in which rows lie that a restore brought back, while snapshots from before the last such restore are
    /// kept: one of these may name them though neither its first nor its last does.
    pub fn brought_back(&self) -> Option<Seq> {
        self.brought_back.map(|(from, _)| from)
    }

    /// What holds history back, by id; some may have expired.
    pub fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.pins.values().map(AsRef::as_ref)
    }

    /// How long a snapshot is kept at least, in microseconds of the log's age.
    pub fn history_window(&self) -> i64 {
        crate::settings::history_window(self.setting("history_window"))
    }

    /// The lowest seq that a pin keeps which has not expired.
    pub fn pinned(&self) -> Option<Seq> {
        self.pins().filter(|pin| !self.is_expired(pin)).map(|pin| pin.seq).min()
    }

    pub(crate) fn is_expired(&self, pin: &Pin) -> bool {
        pin.expires.is_some_and(|age| age < self.age)
    }

    pub(crate) fn set_pin(&mut self, pin: Pin) {
        self.remove_pin(&pin.id.clone());
        self.add_hash(entry_hash(Entry::Pin, &[&encode_pin(&pin)]));
        self.pins.insert(pin.id.clone(), Arc::new(pin));
    }

    pub(crate) fn remove_pin(&mut self, id: &str) -> bool {
        let Some(old) = self.pins.remove(id) else { return false };
        self.sub_hash(entry_hash(Entry::Pin, &[&encode_pin(&old)]));
        true
    }

    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    pub fn has_schema(&self, name: &str) -> bool {
        self.schemas.contains_key(name)
    }

    /// Tables by id.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// Tables by name.
    pub fn named_tables(&self) -> impl Iterator<Item = &Table> {
        self.names.values().filter_map(|id| self.tables.get(id))
    }

    pub fn table(&self, id: TableId) -> Option<&Table> {
        self.tables.get(&id)
    }

    pub fn table_named(&self, name: &TableName) -> Option<&Table> {
        self.names.get(name).and_then(|id| self.tables.get(id))
    }

    /// As [`Manifest::table_named`], with the error that users see.
    pub fn require(&self, name: &TableName) -> Result<&Table> {
        self.table_named(name).ok_or_else(|| no_such_table(name))
    }

    /// A database setting that was set; see [`DATABASE_SETTINGS`](crate::DATABASE_SETTINGS) for defaults.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    /// What the log knows of a transaction with this token and digest. Whatever it says but `Fresh` stays true;
    /// `Fresh` is true only of the newest state.
    pub fn token_answer(&self, token: &TransactionToken, digest: &[u8]) -> TokenAnswer {
        self.tokens.answer(token, digest, self.age)
    }

    /// Which tokens are not to be forgotten.
    pub(crate) fn kept_tokens(&self) -> Keep {
        kept_tokens(self.setting("token_window"), self.setting("token_count"))
    }

    /// The log's own age, in microseconds: grows with the clocks of those who write, by no more than ten minutes per
    /// commit. What windows of time are measured by.
    pub fn age(&self) -> i64 {
        self.age
    }

    /// Who takes writes. What cannot be read means the default, on every node.
    pub fn mode(&self) -> Mode {
        self.setting("mode").and_then(Mode::parse).unwrap_or_default()
    }

    /// Whether one node at a time takes all writes.
    pub fn is_single_primary(&self) -> bool {
        self.mode() == Mode::SinglePrimary
    }

    /// Who was promoted last; takes all writes while [`Manifest::is_single_primary`].
    pub fn primary(&self) -> Option<&Primary> {
        self.primary.as_deref()
    }

    /// The newest lease of a sequencer. Nobody checks it: it is advice.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    /// Objects that are no longer live, with the seq that removed each, and their bytes where known.
    pub fn removed(&self) -> impl Iterator<Item = (Seq, &RemovedObject, u64)> {
        self.removed.iter().map(|((seq, object), bytes)| (*seq, object, *bytes))
    }
}

pub(crate) fn no_such_table(name: &TableName) -> Error {
    Error::not_found(format!("table {name} does not exist"))
}
