//! What was found, in figures.

use std::collections::BTreeMap;

use tandem_types::Seq;

use crate::Judged;

/// Objects that share a fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub objects: u64,
    pub bytes: u64,
}

impl Share {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a survey found, or a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of the state that was judged by.
    pub seq: Seq,
    pub horizon: Seq,
    pub history_start: Seq,
    /// The log up to here may be gone.
    pub floor: Seq,
    /// Where history could begin if nobody held it back, and who does, if somebody does.
    pub by_window: Seq,
    pub held_by: Option<String>,
    /// By kind of object: what may go.
    pub garbage: BTreeMap<&'static str, Share>,
    /// By kind of object and by what holds them: what stays.
    pub held: BTreeMap<(&'static str, String), Share>,
    /// Of the garbage, what was deleted.
    pub deleted: Share,
    /// Why not all of it was.
    pub failed: Option<String>,
}

impl Report {
    pub(crate) fn count(&mut self, judged: &Judged) {
        let kind = judged.kind.name();
        match judged.verdict.is_garbage() {
            true => self.garbage.entry(kind).or_default().add(judged.bytes),
            false => self.held.entry((kind, judged.verdict.to_string())).or_default().add(judged.bytes),
        }
    }

    /// What may go, in all.
    pub fn garbage_total(&self) -> Share {
        self.garbage.values().fold(Share::default(), |sum, share| Share {
            objects: sum.objects + share.objects,
            bytes: sum.bytes.saturating_add(share.bytes),
        })
    }
}
