//! Arrays of doubles, of any number of dimensions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;

use crate::error::{Step, Stop};

/// The one type of elements that there is.
const DOUBLE: u8 = 10;
/// In its place, of an array that is null and has nothing else: before QuestDB had decimals, and since.
const NULL: [u8; 2] = [33, 40];
const MAX_DIMENSIONS: usize = 32;
/// Lists within a value that has fewer elements than that: its dimensions can ask for any number of lists for nothing.
const FEW_LISTS: usize = 16;

/// An array as it stands in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    /// Four bytes each, outermost first.
    shape: &'a [[u8; 4]],
    elements: &'a [[u8; 8]],
}

impl Raw<'_> {
    pub fn dimensions(&self) -> usize {
        self.shape.len()
    }
}

/// The array behind its tag, `None` if it is null, and where it ends.
pub(crate) fn read(buf: &[u8], at: usize) -> Step<(Option<Raw<'_>>, usize)> {
    let element = *buf.get(at).ok_or(Stop::Open)?;
    if NULL.contains(&element) {
        return Ok((None, at + 1));
    }
    if element != DOUBLE {
        return Err(Stop::malformed(
            at,
            format!("arrays of element type {element} are not known; 10 (double) is"),
        ));
    }
    let dimensions = usize::from(*buf.get(at + 1).ok_or(Stop::Open)?);
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(Stop::malformed(
            at + 1,
            format!("an array of {dimensions} dimensions: 1 to {MAX_DIMENSIONS} are possible"),
        ));
    }
    let start = at + 2 + 4 * dimensions;
    let (shape, _) = buf.get(at + 2..start).ok_or(Stop::Open)?.as_chunks::<4>();
    let too_large = || Stop::limit(at, "the array has too many elements");
    let (mut count, mut lists) = (1usize, 1usize);
    for length in shape {
        lists = lists.max(count);
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| too_large())?;
        count = count.checked_mul(length).ok_or_else(too_large)?;
    }
    if lists > count.max(FEW_LISTS) {
        return Err(Stop::limit(at, format!("the array has {lists} lists for {count} elements")));
    }
    let end = count.checked_mul(8).and_then(|bytes| start.checked_add(bytes)).ok_or_else(too_large)?;
    let (elements, _) = buf.get(start..end).ok_or(Stop::Open)?.as_chunks::<8>();
    Ok((Some(Raw { shape, elements }), end))
}

/// The arrays of a column.
#[derive(Debug)]
pub(crate) struct Arrays {
    /// Of the lists, outermost first: what each holds.
    fields: Vec<FieldRef>,
    /// Where each list of that depth ends in the next.
    ends: Vec<Vec<i32>>,
    elements: Vec<f64>,
}

impl Arrays {
    pub fn new(dimensions: usize) -> Self {
        let mut data_type = DataType::Float64;
        for _ in 0..dimensions {
            data_type = DataType::List(Arc::new(Field::new_list_field(data_type, true)));
        }
        Self::of_fields(list_fields(&data_type).unwrap_or_default())
    }

    /// For a column of that type, if it is one of lists of doubles.
    pub fn of_type(data_type: &DataType) -> Option<Self> {
        list_fields(data_type).map(Self::of_fields)
    }

    fn of_fields(fields: Vec<FieldRef>) -> Self {
        let ends = vec![Vec::new(); fields.len()];
        Self { fields, ends, elements: Vec::new() }
    }

    /// Takes an array of as many dimensions.
    pub fn push(&mut self, raw: &Raw<'_>) -> bool {
        if raw.shape.len() != self.ends.len() {
            return false;
        }
        let mut lists = 1usize;
        for (ends, length) in self.ends.iter_mut().zip(raw.shape) {
            // Small: [`read`] saw to it, and to the bound of a line.
            let length = u32::from_le_bytes(*length) as usize;
            let mut end = ends.last().copied().unwrap_or_default();
            for _ in 0..lists {
                end = end.saturating_add(i32::try_from(length).unwrap_or(i32::MAX));
                ends.push(end);
            }
            lists = lists.saturating_mul(length);
        }
        self.elements.extend(raw.elements.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        true
    }

    /// A list that holds nothing, as the place of a null.
    pub fn push_nothing(&mut self) {
        if let Some(ends) = self.ends.first_mut() {
            ends.push(ends.last().copied().unwrap_or_default());
        }
    }

    /// Forgets all rows but the first ones.
    pub fn truncate(&mut self, rows: usize) {
        let mut kept = rows;
        for ends in &mut self.ends {
            ends.truncate(kept);
            kept = ends.last().map_or(0, |end| usize::try_from(*end).unwrap_or_default());
        }
        self.elements.truncate(kept);
    }

    pub fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let mut array: ArrayRef = Arc::new(Float64Array::from(std::mem::take(&mut self.elements)));
        let mut nulls = nulls;
        for (depth, (field, ends)) in self.fields.iter().zip(&mut self.ends).enumerate().rev() {
            let offsets: Vec<i32> = std::iter::once(0).chain(ends.drain(..)).collect();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            let outermost = if depth == 0 { nulls.take() } else { None };
            array = Arc::new(ListArray::try_new(field.clone(), offsets, array, outermost)?);
        }
        Ok(array)
    }
}

fn list_fields(data_type: &DataType) -> Option<Vec<FieldRef>> {
    let (mut fields, mut inner) = (Vec::new(), data_type);
    while let DataType::List(field) = inner {
        fields.push(field.clone());
        inner = field.data_type();
    }
    (*inner == DataType::Float64 && !fields.is_empty()).then_some(fields)
}
