//! Sets of times, as ranges.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::Int64Type;
use arrow_schema::DataType;
use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::{Expr, Operator, binary_expr, lit};
use datafusion::scalar::ScalarValue;
use tandem_manifest::Table;
use tandem_types::{Error, Partition, PartitionUnit, Result};

/// More ranges than this are one in a query's filter.
const IN_FILTER: usize = 16;

/// Timestamps in ticks; ranges with both ends, sorted, apart from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    pub(super) fn all() -> Self {
        Self(vec![(i64::MIN, i64::MAX)])
    }

    pub(super) fn new(mut ranges: Vec<(i64, i64)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut().filter(|known| first <= known.1.saturating_add(1)) {
                Some(known) => known.1 = known.1.max(last),
                None => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// Of hulls; one that is unknown may be any time.
    pub(super) fn of_hulls(hulls: impl Iterator<Item = Option<(i64, i64)>>) -> Self {
        match hulls.collect::<Option<Vec<_>>>() {
            Some(hulls) => Self::new(hulls),
            None => Self::all(),
        }
    }

    /// Of partitions of a table.
    pub(super) fn of_partitions(table: &Table, partitions: &BTreeSet<Partition>) -> Self {
        let unit = match table.timestamp().map(|column| &column.data_type) {
            Some(DataType::Timestamp(unit, _)) if table.partition_by() != PartitionUnit::None => *unit,
            // All rows are in the one partition that there is.
            _ if partitions.is_empty() => return Self(Vec::new()),
            _ => return Self::all(),
        };
        let range = |partition: &Partition| {
            let range = table.partition_by().range(*partition, unit);
            let last = if range.end == i64::MAX { i64::MAX } else { range.end.saturating_sub(1) };
            (range.start, last)
        };
        Self::new(partitions.iter().map(range).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_all(&self) -> bool {
        self.0 == [(i64::MIN, i64::MAX)]
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let both = |a: &(i64, i64)| {
            let a = *a;
            // One that does not meet it comes out empty.
            other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1)))
        };
        Self::new(self.0.iter().flat_map(both).collect())
    }

    /// All other times.
    pub(super) fn not(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut open = Some(i64::MIN);
        for (first, last) in &self.0 {
            if let (Some(start), Some(end)) = (open, first.checked_sub(1)) {
                gaps.push((start, end));
            }
            open = last.checked_add(1);
        }
        if let Some(start) = open {
            gaps.push((start, i64::MAX));
        }
        Self::new(gaps)
    }

    fn contains(&self, tick: i64) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= tick);
        at.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| tick <= *last)
    }

    /// Which of these timestamps are in it; `None`: all.
    pub(super) fn mask(&self, times: Option<&ArrayRef>) -> Result<Option<BooleanArray>> {
        let Some(times) = times.filter(|_| !self.is_all()) else { return Ok(None) };
        let ticks = cast(times, &DataType::Int64)
            .map_err(|e| Error::internal(format!("timestamps are no numbers: {e}")))?;
        let ticks = ticks.as_primitive::<Int64Type>();
        let within = BooleanBuffer::collect_bool(ticks.len(), |row| {
            ticks.is_valid(row) && self.contains(ticks.value(row))
        });
        Ok((within.count_set_bits() < ticks.len()).then(|| BooleanArray::new(within, None)))
    }

    /// A condition on a column that holds in these times, and perhaps in others; `None`: always.
    pub(super) fn filter(&self, relation: &TableReference, name: &str, data_type: &DataType) -> Option<Expr> {
        if self.is_all() {
            return None;
        }
        let column = || Expr::Column(Column::new(Some(relation.clone()), name));
        let tick = |tick: i64| ScalarValue::Int64(Some(tick)).cast_to(data_type).ok().map(lit);
        let between = |(first, last): &(i64, i64)| {
            let from = binary_expr(column(), Operator::GtEq, tick(*first)?);
            Some(from.and(binary_expr(column(), Operator::LtEq, tick(*last)?)))
        };
        let hull = self.0.first().zip(self.0.last()).map(|(first, last)| (first.0, last.1));
        if self.0.len() > IN_FILTER {
            return between(&hull?);
        }
        let ranges: Vec<Expr> = self.0.iter().map(between).collect::<Option<_>>()?;
        ranges.into_iter().reduce(Expr::or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sets() {
        let set = Ranges::new(vec![(5, 9), (1, 2), (3, 3), (20, 10)]);
        assert_eq!(set, Ranges(vec![(1, 3), (5, 9)]));
        for tick in -3..15 {
            assert_eq!(set.contains(tick), (1..=3).contains(&tick) || (5..=9).contains(&tick), "{tick}");
            assert_eq!(set.not().contains(tick), !set.contains(tick), "{tick}");
        }
        let other = Ranges::new(vec![(2, 6), (9, 12)]);
        for tick in -3..15 {
            let (a, b) = (set.contains(tick), other.contains(tick));
            assert_eq!(set.and(&other).contains(tick), a && b, "{tick}");
            assert_eq!(set.or(&other).contains(tick), a || b, "{tick}");
        }
        assert_eq!(set.not().not(), set);
        assert!(Ranges::all().not().is_empty());
        assert_eq!(Ranges::new(Vec::new()).not(), Ranges::all());
        assert_eq!(Ranges::of_hulls([Some((1, 2)), None].into_iter()), Ranges::all());
    }

    #[test]
    fn the_ends_of_time_are_in_it() {
        let set = Ranges::new(vec![(i64::MIN, 3), (7, i64::MAX)]);
        assert!(set.contains(i64::MIN) && set.contains(i64::MAX));
        assert_eq!(set.not(), Ranges(vec![(4, 6)]));
    }
}
