//! Whether an object may go. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tandem_env::Listed;
use tandem_format::{
    DATA_DIR, Floor, LOG_DIR, ObjectName, PART_DIR, ROOT_DIR, SEGMENT_DIR, parse_commit_name,
    parse_data_path, parse_part_name, parse_root_name, parse_segment_name,
};
use tandem_manifest::{Manifest, RemovedObject, Table};
use tandem_types::{Seq, TableId};

use crate::roots::{PartName, Roots};

/// What an object is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Segment(ObjectName),
    Data(TableId, ObjectName),
    Root(Seq),
    Part(Seq, [u8; 32]),
    Commit(Seq),
    /// Nobody here gives such names.
    Unknown,
}

impl Kind {
    pub(crate) fn of(path: &str) -> Self {
        let within = |dir: &str| path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
        let known = if let Some(name) = within(PART_DIR) {
            parse_part_name(name).map(|(base, hash)| Self::Part(base, hash))
        } else if let Some(name) = within(ROOT_DIR) {
            parse_root_name(name).map(Self::Root)
        } else if let Some(name) = within(LOG_DIR) {
            parse_commit_name(name).map(Self::Commit)
        } else if let Some(name) = within(SEGMENT_DIR) {
            parse_segment_name(name).map(Self::Segment)
        } else if within(DATA_DIR).is_some() {
            parse_data_path(path).map(|(table, object)| Self::Data(table, object))
        } else {
            None
        };
        known.unwrap_or(Self::Unknown)
    }

    /// For people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment(_) => "segment",
            Self::Data(..) => "data",
            Self::Root(_) | Self::Part(..) => "checkpoint",
            Self::Commit(_) => "log",
            Self::Unknown => "unknown",
        }
    }
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Garbage,
    /// The newest state names it.
    Live,
    /// Snapshots of the past name it: history has not passed its removal yet; and who holds history back, if it is not the
    /// window.
    History {
        removed: Seq,
        held_by: Option<String>,
    },
    /// It is not named, and may still be: the horizon has not passed its base.
    MayBeNamed,
    /// It is garbage, but young.
    Grace,
    /// A checkpoint that history needs, or the floor names, or a part of one.
    Checkpoint,
    /// Commits above the floor.
    Log,
    /// A recorded checkpoint cannot be read, so it is not known what it names.
    Unreadable(Seq),
    Unknown,
}

impl Verdict {
    pub fn is_garbage(&self) -> bool {
        *self == Self::Garbage
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => f.write_str("nothing"),
            Self::Live => f.write_str("live"),
            Self::History { held_by: None, .. } => f.write_str("history"),
            Self::History { held_by: Some(holder), .. } => f.write_str(holder),
            Self::MayBeNamed => f.write_str("horizon"),
            Self::Grace => f.write_str("grace"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Log => f.write_str("log"),
            Self::Unreadable(seq) => write!(f, "checkpoint {seq} is unreadable"),
            Self::Unknown => f.write_str("unknown name"),
        }
    }
}

/// An object, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub path: String,
    pub bytes: u64,
    pub kind: Kind,
    pub verdict: Verdict,
}

/// What kept snapshots name.
#[derive(Debug, Default)]
struct Named {
    live: BTreeSet<(TableId, ObjectName)>,
    segments: BTreeSet<ObjectName>,
    /// By the commit that removed each.
    past: BTreeMap<(TableId, ObjectName), Seq>,
    past_segments: BTreeMap<ObjectName, Seq>,
}

impl Named {
    fn by(state: &Manifest) -> Self {
        let mut named = Self::default();
        for table in state.tables() {
            named.live.extend(table.files().map(|f| (table.id(), f.file.name.object)));
            named.segments.extend(table.tail().filter_map(|t| t.section.segment));
            named.segments.extend(lookups(table).filter_map(|(_, segment)| segment));
        }
        for (removed, object, _) in state.removed() {
            match object {
                RemovedObject::File { table, file, .. } => {
                    named.past.insert((*table, file.object), removed);
                }
                RemovedObject::Segment(segment) => {
                    named.past_segments.insert(*segment, removed);
                }
            }
        }
        named
    }
}

/// Where the pending mutations of a table have what they look up: in which commit, and in which segment, if in one.
fn lookups(table: &Table) -> impl Iterator<Item = (Seq, Option<ObjectName>)> {
    table.mutations().filter_map(|m| m.mutation.section().map(|section| (m.key.seq, section.segment)))
}

/// The lowest commit in which rows lie that a state names.
pub(crate) fn lowest_inline(state: &Manifest) -> Option<Seq> {
    let of_table = |table: &Table| {
        let tail = table.tail().filter(|t| t.section.segment.is_none()).map(|t| t.key.seq).min();
        let looked_up = lookups(table).filter(|(_, segment)| segment.is_none()).map(|(seq, _)| seq).min();
        tail.into_iter().chain(looked_up).min()
    };
    state.tables().filter_map(of_table).min()
}

/// Judges objects by one state, which has a horizon, and what is known of checkpoints.
pub(crate) struct Judge<'a> {
    pub roots: &'a Roots,
    pub floor: Option<Floor>,
    /// The parts of the checkpoint that the floor names.
    pub floor_parts: BTreeSet<PartName>,
    /// By the store's clock, in microseconds: what was stored later is young. `None`: nothing is.
    pub young_from: Option<i64>,
    /// Where history could begin if nobody held it back, and who does.
    pub held_back: Option<(Seq, String)>,
    /// Whether to take the horizon for infinity: a mistake that a simulation asks for.
    pub no_horizon: bool,
    horizon: Seq,
    oldest_kept: Option<Seq>,
    /// A copy that nobody has written to, and that may just be moved on: what is fetched for that bears the names of its
    /// source.
    untouched: bool,
    named: Named,
}

impl<'a> Judge<'a> {
    pub fn new(state: &Manifest, roots: &'a Roots, floor: Option<Floor>) -> Self {
        Self {
            roots,
            floor,
            floor_parts: BTreeSet::new(),
            young_from: None,
            held_back: None,
            no_horizon: false,
            horizon: state.horizon(),
            oldest_kept: roots.oldest_kept(state).map(|link| link.seq),
            untouched: floor.is_some_and(|floor| floor.seq == state.seq()),
            named: Named::by(state),
        }
    }

    pub fn judge(&self, object: Listed) -> Judged {
        let kind = Kind::of(&object.path);
        let verdict = match self.needed(kind) {
            Verdict::Garbage if !matches!(kind, Kind::Commit(_)) && self.is_young(&object) => Verdict::Grace,
            verdict => verdict,
        };
        Judged { path: object.path, bytes: object.bytes, kind, verdict }
    }

    fn is_young(&self, object: &Listed) -> bool {
        self.young_from.is_some_and(|from| object.modified > from)
    }

    fn needed(&self, kind: Kind) -> Verdict {
        match kind {
            Kind::Unknown => Verdict::Unknown,
            Kind::Commit(seq) => match self.floor {
                Some(floor) if seq <= floor.seq => Verdict::Garbage,
                _ => Verdict::Log,
            },
            Kind::Segment(segment) => {
                let past = self.named.past_segments.get(&segment).copied();
                self.object(segment, self.named.segments.contains(&segment), past)
            }
            Kind::Data(table, object) => {
                let name = (table, object);
                self.object(object, self.named.live.contains(&name), self.named.past.get(&name).copied())
            }
            Kind::Root(seq) => {
                let needed = self.floor.is_some_and(|floor| floor.checkpoint == seq);
                self.checkpoint(needed, seq, self.roots.knows(seq).then_some(seq))
            }
            Kind::Part(base, hash) => {
                let part = (base, hash);
                self.checkpoint(self.floor_parts.contains(&part), base, self.roots.newest_naming(&part))
            }
        }
    }

    fn object(&self, object: ObjectName, live: bool, removed: Option<Seq>) -> Verdict {
        match removed {
            _ if live => Verdict::Live,
            Some(removed) => {
                let held = self.held_back.as_ref().filter(|(by_window, _)| removed <= *by_window);
                Verdict::History { removed, held_by: held.map(|(_, holder)| holder.clone()) }
            }
            None if self.may_be_named(object.base) => Verdict::MayBeNamed,
            None => Verdict::Garbage,
        }
    }

    /// Whether somebody may still commit what names an object of that base.
    fn may_be_named(&self, base: Seq) -> bool {
        (base >= self.horizon || self.untouched) && !self.no_horizon
    }

    /// A root or a part; `newest` is the newest checkpoint that it belongs to, if there is one. What was not recorded before
    /// the horizon passed it never is.
    fn checkpoint(&self, needed: bool, base: Seq, newest: Option<Seq>) -> Verdict {
        if let Some(unreadable) = self.roots.unreadable() {
            return Verdict::Unreadable(unreadable);
        }
        match (self.oldest_kept, newest) {
            _ if needed => Verdict::Checkpoint,
            (Some(oldest), Some(newest)) if newest >= oldest => Verdict::Checkpoint,
            (None, _) => Verdict::Checkpoint,
            _ if self.may_be_named(base) => Verdict::MayBeNamed,
            _ => Verdict::Garbage,
        }
    }
}
