//! Where the values of folded rows lie: columns that have come from the same rows so far share one list of places.

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use tandem_types::{Error, Result};

use crate::broken;

/// Rows, each a *slot*, whose values lie in batches, column by column maybe in other ones.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// By batch and column. A batch may lack columns that no place points into.
    batches: Vec<Vec<Option<ArrayRef>>>,
    lanes: Vec<Lane>,
    memory: usize,
}

/// Columns with common places.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// Ascending.
    pub(crate) columns: Vec<usize>,
    /// By slot: batch, row.
    places: Vec<(u32, u32)>,
}

impl Lane {
    /// Says that a slot's values lie in a row of a batch.
    pub(crate) fn set(&mut self, slot: u32, batch: u32, row: usize) {
        if let Some(place) = self.places.get_mut(slot as usize) {
            *place = (batch, row as u32);
        }
    }
}

impl Lanes {
    pub(crate) fn new(columns: usize) -> Self {
        let lane = Lane { columns: (0..columns).collect(), places: Vec::new() };
        Self { batches: Vec::new(), lanes: vec![lane], memory: 0 }
    }

    /// Bytes that the batches hold, and the places.
    pub(crate) fn memory(&self) -> usize {
        self.memory + self.lanes.iter().map(|lane| lane.places.capacity() * 8).sum::<usize>()
    }

    /// Makes room for so many slots. The places of new ones must be set.
    pub(crate) fn grow(&mut self, slots: usize) {
        for lane in &mut self.lanes {
            lane.places.resize(slots, (0, 0));
        }
    }

    /// Adds a batch, by column; answers its number.
    pub(crate) fn add(&mut self, batch: Vec<Option<ArrayRef>>) -> Result<u32> {
        let number = u32::try_from(self.batches.len());
        let number = number.map_err(|_| Error::overloaded("more than 2^32 batches of one key range"))?;
        self.memory += batch.iter().flatten().map(|array| array.get_array_memory_size()).sum::<usize>();
        self.batches.push(batch);
        Ok(number)
    }

    /// Parts the lanes whose columns are not of one class.
    pub(crate) fn split(&mut self, class: impl Fn(usize) -> usize) {
        let mut parted: Vec<Lane> = Vec::with_capacity(self.lanes.len());
        for mut lane in self.lanes.drain(..) {
            while let Some(first) = lane.columns.first().map(|c| class(*c)) {
                let (columns, others) = lane.columns.iter().partition(|c| class(**c) == first);
                lane.columns = others;
                let places = if lane.columns.is_empty() {
                    std::mem::take(&mut lane.places)
                } else {
                    lane.places.clone()
                };
                parted.push(Lane { columns, places });
            }
        }
        self.lanes = parted;
    }

    pub(crate) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// The values of slots in some columns (ascending), in the order of the columns.
    pub(crate) fn gather(&self, columns: &[usize], slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut gathered: Vec<Option<ArrayRef>> = vec![None; columns.len()];
        for lane in &self.lanes {
            let wanted: Vec<(usize, usize)> = lane
                .columns
                .iter()
                .filter_map(|column| Some((columns.binary_search(column).ok()?, *column)))
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let places: Vec<(u32, u32)> =
                slots.iter().filter_map(|slot| lane.places.get(*slot as usize).copied()).collect();
            if places.len() != slots.len() {
                return Err(Error::internal("a folded row has no place"));
            }
            let source = Source::new(&places);
            for (at, column) in wanted {
                if let Some(slot) = gathered.get_mut(at) {
                    *slot = Some(source.gather(column, &self.batches)?);
                }
            }
        }
        let gathered: Option<Vec<ArrayRef>> = gathered.into_iter().collect();
        gathered.ok_or_else(|| Error::internal("a folded column is in no lane"))
    }
}

/// What to copy from where.
enum Source {
    /// Consecutive rows of one batch: nothing is copied.
    Slice { batch: u32, start: usize, rows: usize },
    /// Batches, and for each row which of these and where in it.
    Rows { batches: Vec<u32>, places: Vec<(usize, usize)> },
}

impl Source {
    fn new(places: &[(u32, u32)]) -> Self {
        let (batch, start) = places.first().copied().unwrap_or_default();
        let consecutive = (start..).zip(places).all(|(row, place)| *place == (batch, row));
        if consecutive {
            return Self::Slice { batch, start: start as usize, rows: places.len() };
        }
        let mut batches: Vec<u32> = places.iter().map(|(batch, _)| *batch).collect();
        batches.sort_unstable();
        batches.dedup();
        let mut last = (batch, batches.binary_search(&batch).unwrap_or_default());
        let places = places.iter().map(|(batch, row)| {
            if last.0 != *batch {
                last = (*batch, batches.binary_search(batch).unwrap_or_default());
            }
            (last.1, *row as usize)
        });
        let places = places.collect();
        Self::Rows { batches, places }
    }

    fn gather(&self, column: usize, all: &[Vec<Option<ArrayRef>>]) -> Result<ArrayRef> {
        let array = |batch: u32| {
            let array = all.get(batch as usize).and_then(|columns| columns.get(column)?.as_ref());
            array.ok_or_else(|| Error::internal("a folded row points to a column that its batch lacks"))
        };
        match self {
            Self::Slice { batch, start, rows } => Ok(array(*batch)?.slice(*start, *rows)),
            Self::Rows { batches, places } => {
                let arrays = batches.iter().map(|batch| Ok(array(*batch)?.as_ref()));
                let arrays: Vec<&dyn Array> = arrays.collect::<Result<_>>()?;
                interleave(&arrays, places).map_err(broken)
            }
        }
    }
}
