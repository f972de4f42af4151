//! A column under change: the array it was, and arrays with new values for some of its rows.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{interleave, take};
use tandem_types::Result;

use crate::broken;
use crate::kernel::Value;

/// Rows per source below which [`Overlay`] seeks the sources that it needs.
const FEW: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// The first is the column as it was.
    sources: Vec<ArrayRef>,
    /// For each row its source and its place there; `None`: all are in the first, in order.
    places: Option<Vec<(usize, usize)>>,
}

impl Overlay {
    pub(crate) fn new(column: ArrayRef) -> Self {
        Self { sources: vec![column], places: None }
    }

    /// The values of some rows as they are now.
    pub(crate) fn rows(&self, rows: &UInt32Array) -> Result<ArrayRef> {
        match (&self.places, self.sources.as_slice()) {
            (Some(places), _) => {
                let places: Vec<(usize, usize)> =
                    rows.values().iter().filter_map(|row| places.get(*row as usize).copied()).collect();
                self.gather(&places)
            }
            (None, [only]) => take(only, rows, None).map_err(broken),
            (None, _) => self.whole().and_then(|whole| take(&whole, rows, None).map_err(broken)),
        }
    }

    /// All values as they are now.
    pub(crate) fn whole(&self) -> Result<ArrayRef> {
        match (&self.places, self.sources.first()) {
            (None, Some(only)) => Ok(only.clone()),
            (places, _) => self.gather(places.as_deref().unwrap_or(&[])),
        }
    }

    /// Gives every row a new value.
    pub(crate) fn replace(&mut self, column: ArrayRef) {
        *self = Self::new(column);
    }

    /// Gives some rows new values; `rows` ascends. With `skip_nulls` set, a row whose new value would be null stays as it
    /// is.
    pub(crate) fn patch(&mut self, rows: &[u32], values: Value, skip_nulls: bool) {
        let nulls = if skip_nulls { values.array().logical_nulls() } else { None };
        let source = self.sources.len();
        let len = self.sources.first().map_or(0, |first| first.len());
        let step = match &values {
            Value::Rows(_) => 1,
            // All look at the one value.
            Value::One(_) => 0,
        };
        self.sources.push(values.array().clone());
        let places = self.places.get_or_insert_with(|| (0..len).map(|row| (0, row)).collect());
        for (at, row) in rows.iter().enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(at * step))
                && let Some(place) = places.get_mut(*row as usize)
            {
                *place = (source, at * step);
            }
        }
    }

    fn gather(&self, places: &[(usize, usize)]) -> Result<ArrayRef> {
        // Rows that one mutation has changed, another one often changes again.
        if let Some((source, start)) = places.first()
            && (*start..).zip(places).all(|(row, place)| *place == (*source, row))
            && let Some(array) = self.sources.get(*source)
        {
            return Ok(array.slice(*start, places.len()));
        }
        let sources: Vec<&dyn Array> = self.sources.iter().map(AsRef::as_ref).collect();
        if places.len() >= FEW * sources.len() {
            return interleave(&sources, places).map_err(broken);
        }
        // For a few rows it costs more to look at all sources than at the places.
        let mut used: Vec<usize> = places.iter().map(|(source, _)| *source).collect();
        used.sort_unstable();
        used.dedup();
        let places: Vec<(usize, usize)> = places
            .iter()
            .filter_map(|(source, row)| Some((used.binary_search(source).ok()?, *row)))
            .collect();
        let sources: Vec<&dyn Array> =
            used.iter().filter_map(|source| sources.get(*source).copied()).collect();
        interleave(&sources, &places).map_err(broken)
    }
}
