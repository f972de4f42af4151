//! What each operator gives, to the letter: logged expressions must mean the same for ever.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, StringArray, TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use arrow::util::display::array_value_to_string;
use tandem_format::{BinaryOp, Expr};
use tandem_types::ColumnId;

use super::NOW;
use super::exprs::{binary, column, in_list, value};
use super::model::V;
use crate::build::build;
use crate::frame::Frame;
use crate::literal_of;

/// Columns by letter; their ids are the letters'.
fn rows() -> Vec<(char, ArrayRef)> {
    let seconds = TimestampSecondArray::from(vec![Some(0), Some(86_400), Some(i64::MAX), None]);
    let millis = TimestampMillisecondArray::from(vec![Some(0), Some(86_400_001), Some(-1), Some(5)]);
    let decimals = Decimal128Array::from(vec![Some(150), Some(-275), Some(0), None]);
    vec![
        ('a', Arc::new(Int64Array::from(vec![Some(7), Some(i64::MAX), Some(i64::MIN), None]))),
        ('b', Arc::new(Int64Array::from(vec![Some(-2), Some(1), Some(-1), Some(0)]))),
        ('c', Arc::new(Int32Array::from(vec![Some(3), Some(0), None, Some(i32::MAX)]))),
        ('d', Arc::new(decimals.with_precision_and_scale(10, 2).unwrap())),
        ('f', Arc::new(Float64Array::from(vec![Some(1.5), Some(-0.0), Some(f64::NAN), None]))),
        ('g', Arc::new(Float64Array::from(vec![Some(0.0), Some(0.0), Some(f64::NAN), Some(2.0)]))),
        ('m', Arc::new(millis)),
        ('p', Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None]))),
        ('q', Arc::new(BooleanArray::from(vec![None, Some(true), Some(false), None]))),
        ('s', Arc::new(StringArray::from(vec![Some("12"), Some("aB_"), Some(""), None]))),
        ('t', Arc::new(StringArray::from(vec![Some("x"), None, Some("é"), Some("")]))),
        ('u', Arc::new(UInt64Array::from(vec![Some(7), Some(u64::MAX), Some(0), None]))),
        ('w', Arc::new(seconds)),
        ('y', Arc::new(Date32Array::from(vec![Some(0), Some(1), Some(i32::MAX), None]))),
    ]
}

fn col(name: char) -> Expr {
    let (_, array) = rows().into_iter().find(|(known, _)| *known == name).unwrap();
    column(name as u32, array.data_type().clone())
}

fn int(v: i64) -> Expr {
    value(V::Int(v), &DataType::Int64)
}

fn text(v: &str) -> Expr {
    value(V::Text(v.into()), &DataType::Utf8)
}

fn null() -> Expr {
    value(V::Null, &DataType::Int64)
}

fn cast(of: Expr, to: DataType) -> Expr {
    Expr::Cast { of: Box::new(of), to }
}

fn evaluated(expr: &Expr) -> String {
    let rows = rows();
    let ids: Vec<ColumnId> = rows.iter().map(|(name, _)| ColumnId(*name as u32)).collect();
    let columns: Vec<ArrayRef> = rows.into_iter().map(|(_, array)| array).collect();
    let frame = Frame { ids: &ids, columns: &columns, rows: 4 };
    let node = build(expr, NOW).unwrap();
    let found = node.evaluate(&frame).unwrap().spread(4).unwrap();
    assert_eq!(*found.data_type(), node.data_type);
    let shown = |row| match found.is_null(row) {
        true => "-".to_owned(),
        false => array_value_to_string(&found, row).unwrap(),
    };
    format!("{}: {}", found.data_type(), (0..4).map(shown).collect::<Vec<_>>().join(" | "))
}

fn check(cases: &[(&str, Expr, &str)]) {
    let golden: Vec<String> =
        cases.iter().map(|(name, _, expected)| format!("{name} = {expected}")).collect();
    let found: Vec<String> =
        cases.iter().map(|(name, expr, _)| format!("{name} = {}", evaluated(expr))).collect();
    assert_eq!(
        found.join("\n"),
        golden.join("\n"),
        "what an expression means is kept in logs: a changed result changes rows that were committed long ago"
    );
}

#[test]
fn arithmetic() {
    use BinaryOp::{Add, Divide, Modulo, Multiply, Subtract};
    let month = IntervalMonthDayNano::new(1, 0, 0);
    let month: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![month]));
    let month = Expr::Literal(literal_of(&month).unwrap());
    check(&[
        ("a + b", binary(Add, col('a'), col('b')), "Int64: 5 | - | - | -"),
        (
            "a - b",
            binary(Subtract, col('a'), col('b')),
            "Int64: 9 | 9223372036854775806 | -9223372036854775807 | -",
        ),
        ("a * b", binary(Multiply, col('a'), col('b')), "Int64: -14 | 9223372036854775807 | - | -"),
        ("a / b", binary(Divide, col('a'), col('b')), "Int64: -3 | 9223372036854775807 | - | -"),
        ("a % b", binary(Modulo, col('a'), col('b')), "Int64: 1 | 0 | 0 | -"),
        ("b / 0", binary(Divide, col('b'), int(0)), "Int64: - | - | - | -"),
        ("b % 0", binary(Modulo, col('b'), int(0)), "Int64: - | - | - | -"),
        ("9 / b", binary(Divide, int(9), col('b')), "Int64: -4 | 9 | -9 | -"),
        ("c + c", binary(Add, col('c'), col('c')), "Int32: 6 | 0 | - | -"),
        ("c + b", binary(Add, col('c'), col('b')), "Int64: 1 | 1 | - | 2147483647"),
        ("c / c", binary(Divide, col('c'), col('c')), "Int32: 1 | - | - | 1"),
        (
            "u - a",
            binary(Subtract, col('u'), col('a')),
            "Decimal128(21, 0): 0 | 9223372036854775808 | 9223372036854775808 | -",
        ),
        ("f + g", binary(Add, col('f'), col('g')), "Float64: 1.5 | 0.0 | NaN | -"),
        ("g / f", binary(Divide, col('g'), col('f')), "Float64: 0.0 | NaN | NaN | -"),
        ("f * b", binary(Multiply, col('f'), col('b')), "Float64: -3.0 | -0.0 | NaN | -"),
        ("d + d", binary(Add, col('d'), col('d')), "Decimal128(11, 2): 3.00 | -5.50 | 0.00 | -"),
        ("d * d", binary(Multiply, col('d'), col('d')), "Decimal128(21, 4): 2.2500 | 7.5625 | 0.0000 | -"),
        ("d / d", binary(Divide, col('d'), col('d')), "Decimal128(16, 6): 1.000000 | 1.000000 | - | -"),
        ("d + c", binary(Add, col('d'), col('c')), "Decimal128(13, 2): 4.50 | -2.75 | - | -"),
        ("-a", Expr::Negate(Box::new(col('a'))), "Int64: -7 | -9223372036854775807 | - | -"),
        ("-f", Expr::Negate(Box::new(col('f'))), "Float64: -1.5 | 0.0 | NaN | -"),
        ("a + null", binary(Add, col('a'), null()), "Int64: - | - | - | -"),
        (
            "w + month",
            binary(Add, col('w'), month.clone()),
            "Timestamp(s): 1970-02-01T00:00:00 | 1970-02-02T00:00:00 | - | -",
        ),
        ("y + month", binary(Add, col('y'), month), "Date32: 1970-02-01 | 1970-02-02 | - | -"),
        ("m - m", binary(Subtract, col('m'), col('m')), "Duration(ms): P0D | P0D | P0D | P0D"),
        ("1 + 2 * 3", binary(Add, int(1), binary(Multiply, int(2), int(3))), "Int64: 7 | 7 | 7 | 7"),
    ]);
}

#[test]
fn comparisons() {
    use BinaryOp::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    check(&[
        ("a = 7", binary(Eq, col('a'), int(7)), "Boolean: true | false | false | -"),
        ("a <> 7", binary(NotEq, col('a'), int(7)), "Boolean: false | true | true | -"),
        ("a = null", binary(Eq, col('a'), null()), "Boolean: - | - | - | -"),
        ("a < b", binary(Lt, col('a'), col('b')), "Boolean: false | false | true | -"),
        ("a <= u", binary(LtEq, col('a'), col('u')), "Boolean: true | true | true | -"),
        ("a > 0", binary(Gt, col('a'), int(0)), "Boolean: true | true | false | -"),
        ("c >= b", binary(GtEq, col('c'), col('b')), "Boolean: true | false | - | true"),
        ("f = g", binary(Eq, col('f'), col('g')), "Boolean: false | false | true | -"),
        ("f < g", binary(Lt, col('f'), col('g')), "Boolean: false | true | false | -"),
        (
            "f > 1e9 (NaN is the greatest)",
            binary(Gt, col('f'), value(V::Float(1e9), &DataType::Float64)),
            "Boolean: false | false | true | -",
        ),
        ("f <= b", binary(LtEq, col('f'), col('b')), "Boolean: false | true | false | -"),
        ("d < c", binary(Lt, col('d'), col('c')), "Boolean: true | true | - | -"),
        ("s < t", binary(Lt, col('s'), col('t')), "Boolean: true | - | true | -"),
        (
            "s = view",
            binary(Eq, col('s'), value(V::Text("12".into()), &DataType::Utf8View)),
            "Boolean: true | false | false | -",
        ),
        ("w = m", binary(Eq, col('w'), col('m')), "Boolean: true | false | - | -"),
        ("y = w", binary(Eq, col('y'), col('w')), "Boolean: true | true | false | -"),
        ("p = q", binary(Eq, col('p'), col('q')), "Boolean: - | false | - | -"),
        ("p distinct q", binary(IsDistinctFrom, col('p'), col('q')), "Boolean: true | true | true | false"),
        (
            "p not distinct q",
            binary(IsNotDistinctFrom, col('p'), col('q')),
            "Boolean: false | false | false | true",
        ),
        (
            "p distinct null",
            binary(IsDistinctFrom, col('p'), value(V::Null, &DataType::Boolean)),
            "Boolean: true | true | false | false",
        ),
    ]);
}

#[test]
fn logic_and_lists() {
    use BinaryOp::{And, Divide, Eq, Gt, Or};
    let not = |of| Expr::Not(Box::new(of));
    let ints = |list: &[V], negated| in_list(col('b'), list, &DataType::Int64, negated);
    let guarded = || binary(Gt, binary(Divide, int(10), col('b')), int(1));
    let zero = || binary(Eq, col('b'), int(0));
    check(&[
        ("p and q", binary(And, col('p'), col('q')), "Boolean: - | false | false | -"),
        ("p or q", binary(Or, col('p'), col('q')), "Boolean: true | true | - | -"),
        ("not p", not(col('p')), "Boolean: false | true | - | -"),
        (
            "p and null",
            binary(And, col('p'), value(V::Null, &DataType::Boolean)),
            "Boolean: - | false | - | -",
        ),
        (
            "null or true",
            binary(Or, value(V::Null, &DataType::Null), value(V::Bool(true), &DataType::Boolean)),
            "Boolean: true | true | true | true",
        ),
        ("p is null", Expr::IsNull(Box::new(col('p'))), "Boolean: false | false | true | true"),
        ("b = 0 or 10 / b > 1", binary(Or, zero(), guarded()), "Boolean: false | true | false | true"),
        (
            "b <> 0 and 10 / b > 1",
            binary(And, not(zero()), guarded()),
            "Boolean: false | true | false | false",
        ),
        ("b in (1, 0)", ints(&[V::Int(1), V::Int(0)], false), "Boolean: false | true | false | true"),
        ("b not in (1, 0)", ints(&[V::Int(1), V::Int(0)], true), "Boolean: true | false | true | false"),
        ("b in (1, null)", ints(&[V::Int(1), V::Null], false), "Boolean: - | true | - | -"),
        ("b not in (1, null)", ints(&[V::Int(1), V::Null], true), "Boolean: - | false | - | -"),
        ("b in ()", ints(&[], false), "Boolean: false | false | false | false"),
        ("a not in ()", in_list(col('a'), &[], &DataType::Int64, true), "Boolean: true | true | true | true"),
        (
            "a in (7)",
            in_list(col('a'), &[V::Int(7)], &DataType::Int64, false),
            "Boolean: true | false | false | -",
        ),
        (
            "c in (big, 3)",
            in_list(col('c'), &[V::Int(1 << 40), V::Int(3)], &DataType::Int64, false),
            "Boolean: true | false | - | false",
        ),
        (
            "f in (0.0, NaN)",
            in_list(col('f'), &[V::Float(0.0), V::Float(f64::NAN)], &DataType::Float64, false),
            "Boolean: false | false | true | -",
        ),
        (
            "s in ('', '12')",
            in_list(col('s'), &[V::Text("".into()), V::Text("12".into())], &DataType::Utf8, false),
            "Boolean: true | false | true | -",
        ),
    ]);
}

#[test]
fn strings_casts_and_cases() {
    use BinaryOp::{Concat, Divide, Gt};
    let like = |pattern: &str, negated, ignore_case| Expr::Like {
        of: Box::new(col('s')),
        pattern: Box::new(text(pattern)),
        negated,
        ignore_case,
    };
    let case = |branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>| Expr::Case {
        branches,
        otherwise: otherwise.map(Box::new),
    };
    let positive = || binary(Gt, col('b'), int(0));
    check(&[
        ("s || t", binary(Concat, col('s'), col('t')), "Utf8: 12x | - | é | -"),
        ("s || b", binary(Concat, col('s'), col('b')), "Utf8: 12-2 | aB_1 | -1 | -"),
        ("'n' || s", binary(Concat, text("n"), col('s')), "Utf8: n12 | naB_ | n | -"),
        ("s like '_B%'", like("_B%", false, false), "Boolean: false | true | false | -"),
        ("s like '%\\_'", like("%\\_", false, false), "Boolean: false | true | false | -"),
        ("s not like '1%'", like("1%", true, false), "Boolean: false | true | true | -"),
        ("s ilike 'ab_'", like("ab_", false, true), "Boolean: false | true | false | -"),
        ("s not ilike 'AB_'", like("AB_", true, true), "Boolean: true | false | true | -"),
        (
            "s like t",
            Expr::Like {
                of: Box::new(col('s')),
                pattern: Box::new(col('t')),
                negated: false,
                ignore_case: false,
            },
            "Boolean: false | - | false | -",
        ),
        ("cast(s as int)", cast(col('s'), DataType::Int64), "Int64: 12 | - | - | -"),
        ("cast(a as int32)", cast(col('a'), DataType::Int32), "Int32: 7 | - | - | -"),
        ("cast(f as int)", cast(col('f'), DataType::Int64), "Int64: 1 | 0 | - | -"),
        (
            "cast(a as double)",
            cast(col('a'), DataType::Float64),
            "Float64: 7.0 | 9.223372036854776e18 | -9.223372036854776e18 | -",
        ),
        ("cast(d as int)", cast(col('d'), DataType::Int64), "Int64: 1 | -2 | 0 | -"),
        (
            "cast(c as decimal(5, 2))",
            cast(col('c'), DataType::Decimal128(5, 2)),
            "Decimal128(5, 2): 3.00 | 0.00 | - | -",
        ),
        ("cast(b as bool)", cast(col('b'), DataType::Boolean), "Boolean: true | true | true | false"),
        (
            "cast(w as ns)",
            cast(col('w'), DataType::Timestamp(TimeUnit::Nanosecond, None)),
            "Timestamp(ns): 1970-01-01T00:00:00 | 1970-01-02T00:00:00 | - | -",
        ),
        (
            "cast(m as s)",
            cast(col('m'), DataType::Timestamp(TimeUnit::Second, None)),
            "Timestamp(s): 1970-01-01T00:00:00 | 1970-01-02T00:00:00 | 1970-01-01T00:00:00 | 1970-01-01T00:00:00",
        ),
        (
            "cast(m as date)",
            cast(col('m'), DataType::Date32),
            "Date32: 1970-01-01 | 1970-01-02 | 1969-12-31 | 1970-01-01",
        ),
        (
            "cast(m as text)",
            cast(col('m'), DataType::Utf8),
            "Utf8: 1970-01-01T00:00:00 | 1970-01-02T00:00:00.001 | 1969-12-31T23:59:59.999 | 1970-01-01T00:00:00.005",
        ),
        ("cast(s as tag)", cast(col('s'), super::dictionary()), "Utf8: 12 | aB_ |  | -"),
        (
            "now()",
            Expr::Now,
            "Timestamp(µs, \"UTC\"): 2023-11-14T22:13:20Z | 2023-11-14T22:13:20Z | 2023-11-14T22:13:20Z | 2023-11-14T22:13:20Z",
        ),
        (
            "case when b > 0 then a end",
            case(vec![(positive(), col('a'))], None),
            "Int64: - | 9223372036854775807 | - | -",
        ),
        (
            "case when p then 1 when q then c else d end",
            case(vec![(col('p'), int(1)), (col('q'), col('c'))], Some(col('d'))),
            "Decimal128(22, 2): 1.00 | 0.00 | 0.00 | -",
        ),
        (
            "case when b > 0 then 8 / b else -1 end",
            case(vec![(positive(), binary(Divide, int(8), col('b')))], Some(int(-1))),
            "Int64: -1 | 8 | -1 | -1",
        ),
        (
            "case when b > 0 then view else view end",
            case(
                vec![(positive(), cast(text("ab"), DataType::Utf8View))],
                Some(cast(text("twelve bytes"), DataType::Utf8View)),
            ),
            "Utf8View: twelve bytes | ab | twelve bytes | twelve bytes",
        ),
        (
            "case when true then 1 else 2 end",
            case(vec![(value(V::Bool(true), &DataType::Boolean), int(1))], Some(int(2))),
            "Int64: 1 | 1 | 1 | 1",
        ),
    ]);
}
