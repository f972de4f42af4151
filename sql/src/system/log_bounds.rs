//! Which commits a filter on `system.log` can let through: bounds on the seq and on the commit time.

use std::ops::RangeInclusive;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Operator};

/// The seqs that a filter lets through, if it says that much.
pub(super) fn seqs(filter: &Expr) -> Option<RangeInclusive<u64>> {
    let range = range(filter, &Bounded { column: is_seq, literal: seq_literal, slack: 0 })?;
    let seq = |n: i128| u64::try_from(n.max(0)).unwrap_or(u64::MAX);
    Some(seq(*range.start())..=seq(*range.end()))
}

/// The commit times that a filter lets through, in microseconds since 1970, if it says that much; some more may be in it.
pub(super) fn times(filter: &Expr) -> Option<RangeInclusive<i64>> {
    // Finer literals were cut to microseconds.
    let range = range(filter, &Bounded { column: is_time, literal: time_literal, slack: 1 })?;
    let time = |n: i128| i64::try_from(n.max(i128::from(i64::MIN))).unwrap_or(i64::MAX);
    Some(time(*range.start())..=time(*range.end()))
}

/// How a column is known, and what it is compared with.
struct Bounded {
    column: fn(&Expr) -> bool,
    literal: fn(&Expr) -> Option<i128>,
    /// Bounds are wider by so much.
    slack: i128,
}

fn range(filter: &Expr, by: &Bounded) -> Option<RangeInclusive<i128>> {
    let is = by.column;
    let literal = by.literal;
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            match (range(left, by), range(right, by)) {
                (Some(a), Some(b)) => Some(*a.start().max(b.start())..=*a.end().min(b.end())),
                (a, b) => a.or(b),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (is(left), literal(right)) {
            (true, Some(n)) => bound(*op, n, by.slack),
            _ if is(right) => bound(op.swap()?, literal(left)?, by.slack),
            _ => None,
        },
        Expr::Between(Between { expr, negated: false, low, high }) if is(expr) => {
            Some(literal(low)? - by.slack..=literal(high)? + by.slack)
        }
        _ => None,
    }
}

fn bound(op: Operator, n: i128, slack: i128) -> Option<RangeInclusive<i128>> {
    match op {
        Operator::Eq => Some(n - slack..=n + slack),
        Operator::Gt => Some(n + 1 - slack..=i128::MAX),
        Operator::GtEq => Some(n - slack..=i128::MAX),
        Operator::Lt => Some(i128::MIN..=n - 1 + slack),
        Operator::LtEq => Some(i128::MIN..=n + slack),
        _ => None,
    }
}

fn is_seq(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == "seq")
}

/// A number that a seq can be compared with, in the column's own type.
fn seq_literal(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(ScalarValue::UInt64(n), _) => n.map(i128::from),
        _ => None,
    }
}

/// The column, also where it is compared in another unit.
fn is_time(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == "commit_time",
        Expr::Cast(Cast { expr, .. }) => matches!(&**expr, Expr::Column(_)) && is_time(expr),
        _ => false,
    }
}

fn time_literal(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::TimestampSecond(n, _) => n.map(|n| i128::from(n) * 1_000_000),
        ScalarValue::TimestampMillisecond(n, _) => n.map(|n| i128::from(n) * 1_000),
        ScalarValue::TimestampMicrosecond(n, _) => n.map(i128::from),
        ScalarValue::TimestampNanosecond(n, _) => n.map(|n| i128::from(n).div_euclid(1_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    #[test]
    fn filters_on_the_seq_narrow_what_is_read() {
        let cases = [
            (col("seq").gt_eq(lit(5_u64)), Some(5..=u64::MAX)),
            (lit(5_u64).gt(col("seq")), Some(0..=4)),
            (col("seq").eq(lit(7_u64)).and(col("rows").gt(lit(1_u64))), Some(7..=7)),
            (col("seq").gt(lit(2_u64)).and(col("seq").lt(lit(9_u64))), Some(3..=8)),
            (col("seq").between(lit(2_u64), lit(4_u64)), Some(2..=4)),
            (col("seq").gt(lit(2_u64)).or(col("rows").lt(lit(9_u64))), None),
            (col("rows").gt(lit(2_u64)), None),
            (col("seq").not_eq(lit(2_u64)), None),
        ];
        for (filter, range) in cases {
            assert_eq!(seqs(&filter), range, "{filter}");
        }
    }

    #[test]
    fn filters_on_the_time_narrow_what_is_read() {
        let micros = |n| lit(ScalarValue::TimestampMicrosecond(Some(n), None));
        let nanos = |n| lit(ScalarValue::TimestampNanosecond(Some(n), None));
        let time = || col("commit_time");
        let cases = [
            (time().gt_eq(micros(50)), Some(49..=i64::MAX)),
            (time().gt(micros(50)), Some(50..=i64::MAX)),
            (time().lt(nanos(50_999)), Some(i64::MIN..=50)),
            (nanos(-1).lt_eq(time()), Some(-2..=i64::MAX)),
            (time().between(micros(2), micros(4)), Some(1..=5)),
            (time().eq(lit(ScalarValue::TimestampSecond(Some(1), None))), Some(999_999..=1_000_001)),
            (time().gt(micros(1)).and(time().lt(micros(9))).and(col("rows").gt(lit(1_u64))), Some(1..=9)),
            (col("seq").gt_eq(lit(5_u64)), None),
            (time().gt(lit("2024-01-01")), None),
        ];
        for (filter, range) in cases {
            assert_eq!(times(&filter), range, "{filter}");
        }
    }
}
