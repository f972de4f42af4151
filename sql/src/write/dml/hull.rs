//! The designated timestamps for which a predicate can be true.
//!
//! A bound, never too narrow: files and sections outside it need not look at the mutation.

use arrow_schema::{DataType, TimeUnit};
use datafusion::common::Column as ColumnName;
use datafusion::logical_expr::expr::{Between, Cast, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;
use tandem_types::{Column, ticks_per_second};

/// First and last tick; none at all if the first is behind the last.
pub(super) type Hull = (i64, i64);

const ALL: Hull = (i64::MIN, i64::MAX);
const NONE: Hull = (i64::MAX, i64::MIN);

/// Whether there is a tick in it.
pub(super) fn is_empty(hull: Hull) -> bool {
    hull.0 > hull.1
}

/// The hull of `predicate`, which must be simplified, over a designated timestamp; `None` if it bounds nothing.
pub(super) fn hull(predicate: &Expr, timestamp: &Column) -> Option<Hull> {
    let DataType::Timestamp(unit, zone) = &timestamp.data_type else { return None };
    let hull = Of { name: &timestamp.name, unit: *unit, zoned: zone.is_some() }.of(predicate);
    (hull != ALL).then_some(hull)
}

struct Of<'a> {
    name: &'a str,
    unit: TimeUnit,
    zoned: bool,
}

impl Of<'_> {
    fn of(&self, predicate: &Expr) -> Hull {
        match predicate {
            Expr::Alias(alias) => self.of(&alias.expr),
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => ALL,
            Expr::Literal(ScalarValue::Boolean(_) | ScalarValue::Null, _) => NONE,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                let (a, b) = (self.of(left), self.of(right));
                (a.0.max(b.0), a.1.min(b.1))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                union(self.of(left), self.of(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let one = self.compare(left, *op, right);
                one.or_else(|| self.compare(right, op.swap()?, left)).unwrap_or(ALL)
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let low = self.compare(expr, Operator::GtEq, low).unwrap_or(ALL);
                let high = self.compare(expr, Operator::LtEq, high).unwrap_or(ALL);
                (low.0.max(high.0), low.1.min(high.1))
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let each = list.iter().map(|value| self.compare(expr, Operator::Eq, value).unwrap_or(ALL));
                each.reduce(union).unwrap_or(NONE)
            }
            _ => ALL,
        }
    }

    /// `timestamp op literal`; `None` if it is something else.
    fn compare(&self, column: &Expr, op: Operator, value: &Expr) -> Option<Hull> {
        let unit = self.counted_in(column)?;
        let Expr::Literal(value, _) = value else { return None };
        let (ticks, of) = ticks(value)?;
        let Some(ticks) = ticks else {
            // No comparison with null is true, but for the two that take it for a value.
            let of_values = !matches!(op, Operator::IsNotDistinctFrom | Operator::IsDistinctFrom);
            return of_values.then_some(NONE);
        };
        if of != unit {
            return None;
        }
        let (mine, theirs) = (i128::from(ticks_per_second(self.unit)), i128::from(ticks_per_second(unit)));
        // The stored ticks that are counted as this one: several where the comparison counts in longer ones, perhaps none
        // where it counts in shorter ones.
        let ticks = i128::from(ticks);
        let (first, last) = if mine >= theirs {
            // Cut towards zero: on both sides of it the neighbours are taken in.
            let each = mine / theirs;
            if each == 1 { (ticks, ticks) } else { ((ticks - 1) * each + 1, (ticks + 1) * each - 1) }
        } else {
            let each = theirs / mine;
            (-((-ticks).div_euclid(each)), ticks.div_euclid(each))
        };
        let clamp = |t: i128| i64::try_from(t).unwrap_or(if t < 0 { i64::MIN } else { i64::MAX });
        let (first, last) = (clamp(first), clamp(last));
        Some(match op {
            Operator::Eq | Operator::IsNotDistinctFrom => (first, last),
            // Between two ticks the next one at the far side counts.
            Operator::Lt | Operator::LtEq => (i64::MIN, last.max(first)),
            Operator::Gt | Operator::GtEq => (first.min(last), i64::MAX),
            _ => return None,
        })
    }

    /// The unit in which an expression counts the timestamp, if it is nothing else than that.
    fn counted_in(&self, expr: &Expr) -> Option<TimeUnit> {
        match expr {
            Expr::Alias(alias) => self.counted_in(&alias.expr),
            Expr::Column(ColumnName { name, .. }) if name == self.name => Some(self.unit),
            Expr::Cast(Cast { expr, field }) => match field.data_type() {
                DataType::Timestamp(unit, zone) if zone.is_some() == self.zoned => {
                    (self.counted_in(expr)? == self.unit).then_some(*unit)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn union(a: Hull, b: Hull) -> Hull {
    if is_empty(a) {
        return b;
    }
    if is_empty(b) {
        return a;
    }
    (a.0.min(b.0), a.1.max(b.1))
}

/// A timestamp's ticks, which may be null, and what they count.
fn ticks(value: &ScalarValue) -> Option<(Option<i64>, TimeUnit)> {
    Some(match value {
        ScalarValue::TimestampSecond(ticks, _) => (*ticks, TimeUnit::Second),
        ScalarValue::TimestampMillisecond(ticks, _) => (*ticks, TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(ticks, _) => (*ticks, TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(ticks, _) => (*ticks, TimeUnit::Nanosecond),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col, in_list, lit};
    use proptest::prelude::*;
    use tandem_types::ColumnId;

    use super::*;

    fn column(unit: TimeUnit) -> Column {
        Column {
            id: ColumnId(1),
            name: "ts".into(),
            data_type: DataType::Timestamp(unit, None),
            nullable: false,
        }
    }

    fn ms(ticks: i64) -> Expr {
        lit(ScalarValue::TimestampMillisecond(Some(ticks), None))
    }

    fn of(predicate: &Expr) -> Option<Hull> {
        hull(predicate, &column(TimeUnit::Millisecond))
    }

    #[test]
    fn conjunctions_narrow_and_alternatives_widen() {
        let ts = || col("ts");
        let within = ts().gt_eq(ms(5)).and(ts().lt(ms(9)));
        // The last one is a bound, and may be one tick too late.
        assert_eq!(of(&within), Some((5, 9)));
        assert_eq!(of(&within.clone().and(col("v").gt(lit(1)))), Some((5, 9)));
        assert_eq!(of(&within.clone().or(ts().eq(ms(20)))), Some((5, 20)));
        assert_eq!(of(&within.clone().or(col("v").gt(lit(1)))), None);
        assert_eq!(of(&ms(7).gt_eq(ts())), Some((i64::MIN, 7)));
        assert_eq!(of(&ts().between(ms(3), ms(4))), Some((3, 4)));
        assert_eq!(of(&ts().not_between(ms(3), ms(4))), None);
        assert_eq!(of(&in_list(ts(), vec![ms(8), ms(3)], false)), Some((3, 8)));
        assert_eq!(of(&in_list(ts(), vec![ms(8)], true)), None);
        assert_eq!(of(&ts().not_eq(ms(3))), None);
        assert!(of(&ts().gt(ms(9)).and(ts().lt(ms(3)))).is_some_and(is_empty));
        assert!(of(&lit(false).and(ts().gt(ms(9)))).is_some_and(is_empty));
        assert!(of(&ts().gt(lit(ScalarValue::TimestampMillisecond(None, None)))).is_some_and(is_empty));
        assert_eq!(of(&lit(true)), None);
        let null = Box::new(lit(ScalarValue::TimestampMillisecond(None, None)));
        for op in [Operator::IsDistinctFrom, Operator::IsNotDistinctFrom] {
            let predicate = BinaryExpr { left: Box::new(ts()), op, right: null.clone() };
            assert_eq!(of(&Expr::BinaryExpr(predicate)), None, "{op}");
        }
    }

    proptest! {
        /// Whatever unit the comparison counts in, a row for which it is true lies in the hull.
        #[test]
        fn no_row_that_is_meant_lies_outside(
            stored in -4_000i64..4_000,
            value in -4_000i64..4_000,
            finer in any::<bool>(),
            op in prop::sample::select(vec![Operator::Eq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq]),
        ) {
            // Ticks of a thousandth or of a thousand to one of the other, cut towards zero as a cast does.
            let (unit, to, counted) = if finer {
                (TimeUnit::Millisecond, TimeUnit::Microsecond, stored * 1_000)
            } else {
                (TimeUnit::Microsecond, TimeUnit::Millisecond, stored / 1_000)
            };
            let value = if finer { value * 700 } else { value / 500 };
            let is_true = match op {
                Operator::Eq => counted == value,
                Operator::Lt => counted < value,
                Operator::LtEq => counted <= value,
                Operator::Gt => counted > value,
                _ => counted >= value,
            };
            let literal = match to {
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(value), None),
                _ => ScalarValue::TimestampMillisecond(Some(value), None),
            };
            let left = Box::new(cast(col("ts"), DataType::Timestamp(to, None)));
            let predicate = Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(lit(literal)) });
            let hull = hull(&predicate, &column(unit)).unwrap_or(ALL);
            prop_assert!(!is_true || (hull.0 <= stored && stored <= hull.1), "{stored} {value} {hull:?}");
        }
    }
}
