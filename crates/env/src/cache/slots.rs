//! Which piece is in which slot, and which gives way next.

use std::collections::{BTreeMap, HashMap};

/// Of a piece: a hash of its object's path and its range.
pub(super) type Key = [u8; 16];

/// Where a piece is, and what must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub slot: u32,
    pub len: u32,
    pub crc: u32,
}

#[derive(Debug)]
pub(super) struct Slots {
    count: u32,
    /// Slots from here on were never used.
    fresh: u32,
    free: Vec<u32>,
    places: HashMap<Key, (Place, u64)>,
    by_use: BTreeMap<u64, Key>,
    /// Grows by one per use.
    clock: u64,
    bytes: u64,
}

impl Slots {
    /// With what was found in the files: what each slot holds, from the first one on. Of two slots that say the same, one
    /// counts.
    pub fn new(count: u32, found: Vec<Option<(Key, Place)>>) -> Self {
        let (places, by_use) = (HashMap::new(), BTreeMap::new());
        let mut slots = Self { count, fresh: 0, free: Vec::new(), places, by_use, clock: 0, bytes: 0 };
        for (slot, found) in (0..count).zip(found) {
            slots.fresh = slot + 1;
            match found {
                Some((key, place)) if !slots.places.contains_key(&key) => slots.insert(key, place),
                _ => slots.free.push(slot),
            }
        }
        // Lower ones first: the files stay short.
        slots.free.reverse();
        slots
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn find(&self, key: &Key) -> Option<Place> {
        self.places.get(key).map(|(place, _)| *place)
    }

    /// As [`find`](Self::find), for somebody who uses it.
    pub fn touch(&mut self, key: &Key) -> Option<Place> {
        let (place, used) = self.places.get_mut(key)?;
        self.clock += 1;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(*place)
    }

    /// A slot for a new piece, which nobody else uses until it is inserted or freed; `None` if the piece is here already
    /// or all slots are being written to.
    pub fn take(&mut self, key: &Key) -> Option<u32> {
        if self.places.contains_key(key) {
            return None;
        }
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.fresh < self.count {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        let (_, oldest) = self.by_use.pop_first()?;
        let (place, _) = self.places.remove(&oldest)?;
        self.bytes -= u64::from(place.len);
        Some(place.slot)
    }

    /// What was written to a slot that was taken. If somebody else wrote the same meanwhile, that one stays.
    pub fn insert(&mut self, key: Key, place: Place) {
        if self.places.contains_key(&key) {
            self.free.push(place.slot);
            return;
        }
        self.clock += 1;
        self.by_use.insert(self.clock, key);
        self.places.insert(key, (place, self.clock));
        self.bytes += u64::from(place.len);
    }

    /// Forgets a piece if it still is at that place; its slot is the caller's to free.
    pub fn remove(&mut self, key: &Key, place: Place) -> bool {
        match self.places.get(key) {
            Some((present, used)) if *present == place => {
                self.by_use.remove(used);
                self.places.remove(key);
                self.bytes -= u64::from(place.len);
                true
            }
            _ => false,
        }
    }

    pub fn free(&mut self, slot: u32) {
        self.free.push(slot);
    }
}
