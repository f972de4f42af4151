//! Merging sorted streams: stable, one batch of each input in memory.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::row::{RowConverter, Rows, SortField};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tandem_types::{Error, Result};

/// A run of rows from one input that is this long goes out as a slice, without copying.
const SLICE_ROWS_MIN: usize = 1024;

/// Merges `inputs`, each sorted by the columns at `sort` (ascending, nulls last) and all of one schema.
/// Rows with equal keys come in the order of the inputs. Batches have at most `batch_rows` rows.
///
/// An input that is not sorted makes the output unsorted, but loses no row.
pub fn merge_sorted(
    mut inputs: Vec<BoxStream<'static, Result<RecordBatch>>>,
    sort: &[usize],
    batch_rows: usize,
) -> BoxStream<'static, Result<RecordBatch>> {
    if inputs.len() == 1 {
        return inputs.swap_remove(0);
    }
    if sort.is_empty() {
        return stream::iter(inputs).flatten().boxed();
    }
    let merge = Merge {
        inputs: inputs.into_iter().map(Input::new).collect(),
        sort: sort.to_vec(),
        converter: None,
        heap: Vec::new(),
        started: false,
        held: Vec::new(),
        picked: Vec::new(),
        ready: VecDeque::new(),
        batch_rows: batch_rows.max(1),
    };
    stream::try_unfold(merge, |mut merge| async move { Ok(merge.next().await?.map(|batch| (batch, merge))) })
        .into_stream()
        .boxed()
}

struct Input {
    stream: BoxStream<'static, Result<RecordBatch>>,
    current: Option<Current>,
}

/// The batch of an input that is being consumed.
struct Current {
    batch: RecordBatch,
    keys: Rows,
    /// The first row that was not taken yet.
    row: usize,
    /// Its place in [`Merge::held`], once a row of it was picked.
    held: Option<usize>,
}

impl Input {
    fn new(stream: BoxStream<'static, Result<RecordBatch>>) -> Self {
        Self { stream, current: None }
    }
}

struct Merge {
    inputs: Vec<Input>,
    sort: Vec<usize>,
    converter: Option<RowConverter>,
    /// Indices of inputs that have rows, as a binary heap: the least at the front.
    heap: Vec<usize>,
    started: bool,
    /// Batches that [`picked`](Self::picked) points into.
    held: Vec<RecordBatch>,
    /// Rows of the next output batch: (place in `held`, row).
    picked: Vec<(usize, usize)>,
    ready: VecDeque<RecordBatch>,
    batch_rows: usize,
}

impl Merge {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if !self.started {
            self.started = true;
            for input in 0..self.inputs.len() {
                if self.load(input).await? {
                    self.heap.push(input);
                }
            }
            for slot in (0..self.heap.len() / 2).rev() {
                self.sift_down(slot);
            }
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            let Some(&least) = self.heap.first() else {
                self.emit()?;
                return Ok(self.ready.pop_front());
            };
            if self.take_run(least)? && !self.load(least).await? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
    }

    /// Fetches the next batch with rows of an input; false at its end.
    async fn load(&mut self, input: usize) -> Result<bool> {
        let Some(input) = self.inputs.get_mut(input) else { return Ok(false) };
        input.current = None;
        while let Some(batch) = input.stream.try_next().await? {
            if batch.num_rows() == 0 {
                continue;
            }
            let columns: Option<Vec<ArrayRef>> =
                self.sort.iter().map(|i| batch.columns().get(*i).cloned()).collect();
            let columns = columns.ok_or_else(|| Error::internal("a sort column is missing in a merge"))?;
            if self.converter.is_none() {
                let options = SortOptions { descending: false, nulls_first: false };
                let fields = columns
                    .iter()
                    .map(|c| SortField::new_with_options(c.data_type().clone(), options))
                    .collect();
                self.converter = Some(RowConverter::new(fields).map_err(merge_failed)?);
            }
            let Some(converter) = &self.converter else { return Ok(false) };
            let keys = converter.convert_columns(&columns).map_err(merge_failed)?;
            input.current = Some(Current { batch, keys, row: 0, held: None });
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes from the least input all rows that come before every other input's, as far as the output
    /// batch has room for them. True if the input's batch is used up.
    fn take_run(&mut self, least: usize) -> Result<bool> {
        let rival = self.rival();
        let rival = rival.and_then(|i| Some((i, self.inputs.get(i)?.current.as_ref()?)));
        let Some(current) = self.inputs.get(least).and_then(|i| i.current.as_ref()) else { return Ok(true) };
        let rows = current.batch.num_rows();
        let end = match rival {
            None => rows,
            Some((index, rival)) => {
                let bound = rival.keys.row(rival.row);
                // Equal keys belong to the input that stands first.
                let ours_first = least < index;
                run_end(current.row, rows, |row| match current.keys.row(row).cmp(&bound) {
                    Ordering::Less => true,
                    Ordering::Equal => ours_first,
                    Ordering::Greater => false,
                })
            }
        };
        // The least input's first row is taken whatever its rival says: progress is certain.
        let end = end.max(current.row + 1);
        if end - current.row >= SLICE_ROWS_MIN.min(self.batch_rows) {
            self.emit()?;
            self.slice(least, end);
        } else {
            self.pick(least, end)?;
        }
        Ok(end >= rows)
    }

    /// The input that comes next after the first of the heap.
    fn rival(&self) -> Option<usize> {
        match (self.heap.get(1), self.heap.get(2)) {
            (Some(&a), Some(&b)) => Some(if self.before(b, a) { b } else { a }),
            (a, _) => a.copied(),
        }
    }

    fn slice(&mut self, input: usize, end: usize) {
        let Some(current) = self.inputs.get_mut(input).and_then(|i| i.current.as_mut()) else { return };
        while current.row < end {
            let rows = self.batch_rows.min(end - current.row);
            self.ready.push_back(current.batch.slice(current.row, rows));
            current.row += rows;
        }
    }

    fn pick(&mut self, input: usize, end: usize) -> Result<()> {
        loop {
            let room = self.batch_rows - self.picked.len();
            let Some(current) = self.inputs.get_mut(input).and_then(|i| i.current.as_mut()) else {
                return Ok(());
            };
            let place = *current.held.get_or_insert_with(|| {
                self.held.push(current.batch.clone());
                self.held.len() - 1
            });
            let to = end.min(current.row + room);
            self.picked.extend((current.row..to).map(|row| (place, row)));
            current.row = to;
            if self.picked.len() < self.batch_rows {
                return Ok(());
            }
            self.emit()?;
            if to == end {
                return Ok(());
            }
        }
    }

    /// Makes a batch of the rows picked so far.
    fn emit(&mut self) -> Result<()> {
        if self.picked.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = self.held.iter().collect();
        let batch = interleave_record_batch(&batches, &self.picked).map_err(merge_failed)?;
        self.ready.push_back(batch);
        self.picked.clear();
        self.held.clear();
        for current in self.inputs.iter_mut().filter_map(|i| i.current.as_mut()) {
            current.held = None;
        }
        Ok(())
    }

    /// Whether the next row of input `a` comes before that of `b`.
    fn before(&self, a: usize, b: usize) -> bool {
        let head = |i: usize| self.inputs.get(i).and_then(|i| i.current.as_ref()).map(|c| c.keys.row(c.row));
        match (head(a), head(b)) {
            (Some(x), Some(y)) => x.cmp(&y).then(a.cmp(&b)).is_lt(),
            (x, _) => x.is_some(),
        }
    }

    fn sift_down(&mut self, mut slot: usize) {
        loop {
            let mut least = slot;
            for child in [2 * slot + 1, 2 * slot + 2] {
                if let (Some(&c), Some(&l)) = (self.heap.get(child), self.heap.get(least))
                    && self.before(c, l)
                {
                    least = child;
                }
            }
            if least == slot {
                return;
            }
            self.heap.swap(slot, least);
            slot = least;
        }
    }
}

/// The end of the run of rows from `start` for which `ours` holds: by doubling steps, then by halving.
fn run_end(start: usize, rows: usize, ours: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (start, 1);
    let mut high = rows;
    while low < rows {
        let probe = (low + step).min(rows) - 1;
        if !ours(probe) {
            high = probe;
            break;
        }
        low = probe + 1;
        step *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if ours(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn merge_failed(error: arrow_schema::ArrowError) -> Error {
    Error::internal(format!("merging rows failed: {error}"))
}
