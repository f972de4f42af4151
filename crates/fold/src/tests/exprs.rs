//! Random expressions, typed, over the columns of the tests' table.

use arrow::datatypes::DataType;
use proptest::prelude::*;
use tandem_format::{BinaryOp, Expr};
use tandem_types::ColumnId;

use super::micros;
use super::model::{Row, V, literal};

pub(super) fn column(id: u32, data_type: DataType) -> Expr {
    Expr::Column { column: ColumnId(id), data_type }
}

pub(super) fn value(v: V, of: &DataType) -> Expr {
    Expr::Literal(literal(&[v], of))
}

pub(super) fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
}

/// Small numbers, so that they meet; and the ends, so that they overflow.
pub(super) fn int() -> impl Strategy<Value = V> {
    prop_oneof![
        8 => (-3i64..6).prop_map(V::Int),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 40]).prop_map(V::Int),
        1 => Just(V::Null),
    ]
}

pub(super) fn text() -> impl Strategy<Value = V> {
    prop_oneof![
        8 => prop::sample::select(vec!["", "a", "b", "ab", "Ab", "7", "-3", "a7"])
            .prop_map(|t| V::Text(t.to_owned())),
        1 => Just(V::Null),
    ]
}

fn float() -> impl Strategy<Value = V> {
    prop_oneof![
        8 => prop::sample::select(vec![0.0, -0.0, 1.5, -2.0, 1e300]).prop_map(V::Float),
        1 => Just(V::Float(f64::NAN)),
        1 => Just(V::Null),
    ]
}

fn boolean() -> impl Strategy<Value = V> {
    prop::sample::select(vec![V::Bool(true), V::Bool(false), V::Null])
}

pub(super) fn time() -> impl Strategy<Value = V> {
    (0i64..40).prop_map(V::Int)
}

pub(super) fn row() -> impl Strategy<Value = Row> {
    let small = (-100i64..100).prop_map(V::Int);
    (int(), int(), text(), float(), boolean(), time(), small)
        .prop_map(|(a, b, c, d, e, f, g)| Row::from([(1, a), (2, b), (3, c), (4, d), (5, e), (6, f), (7, g)]))
}

/// Expressions of each type, up to some depth.
#[derive(Clone)]
pub(super) struct Level {
    pub(super) int: BoxedStrategy<Expr>,
    pub(super) text: BoxedStrategy<Expr>,
    pub(super) float: BoxedStrategy<Expr>,
    pub(super) boolean: BoxedStrategy<Expr>,
}

pub(super) fn level(depth: usize) -> Level {
    if depth == 0 { leaves() } else { deeper(level(depth - 1)) }
}

fn leaves() -> Level {
    let wide = Expr::Cast { of: Box::new(column(7, DataType::Int32)), to: DataType::Int64 };
    Level {
        int: prop_oneof![
            Just(column(1, DataType::Int64)),
            Just(column(2, DataType::Int64)),
            Just(wide),
            int().prop_map(|v| value(v, &DataType::Int64)),
        ]
        .boxed(),
        text: prop_oneof![
            Just(column(3, DataType::Utf8)),
            text().prop_map(|v| value(v, &DataType::Utf8)),
            text().prop_map(|v| value(v, &DataType::Utf8View)),
        ]
        .boxed(),
        float: prop_oneof![
            Just(column(4, DataType::Float64)),
            float().prop_map(|v| value(v, &DataType::Float64)),
        ]
        .boxed(),
        boolean: prop_oneof![
            1 => Just(column(5, DataType::Boolean)),
            1 => boolean().prop_map(|v| value(v, &DataType::Boolean)),
            8 => handles(),
        ]
        .boxed(),
    }
}

/// Conditions that a hash table can answer.
pub(super) fn handles() -> BoxedStrategy<Expr> {
    let eq = |left, right| binary(BinaryOp::Eq, left, right);
    let ints = || prop::collection::vec(int(), 0..4);
    prop_oneof![
        int().prop_map(move |v| eq(column(2, DataType::Int64), value(v, &DataType::Int64))),
        int().prop_map(move |v| eq(value(v, &DataType::Int64), column(7, DataType::Int32))),
        text().prop_map(move |v| eq(column(3, DataType::Utf8), value(v, &DataType::Utf8))),
        float().prop_map(move |v| eq(column(4, DataType::Float64), value(v, &DataType::Float64))),
        (int(), int()).prop_map(move |(a, b)| {
            let is = |v| eq(column(2, DataType::Int64), value(v, &DataType::Int64));
            binary(BinaryOp::Or, is(a), is(b))
        }),
        int().prop_map(|v| {
            binary(BinaryOp::IsNotDistinctFrom, column(2, DataType::Int64), value(v, &DataType::Int64))
        }),
        ints().prop_map(|list| in_list(column(2, DataType::Int64), &list, &DataType::Int64, false)),
        ints().prop_map(|list| in_list(column(7, DataType::Int32), &list, &DataType::Int64, false)),
        prop::collection::vec(text(), 0..4).prop_map(|list| in_list(
            column(3, DataType::Utf8),
            &list,
            &DataType::Utf8,
            false
        )),
        time().prop_map(move |v| eq(column(6, micros()), value(v, &micros()))),
    ]
    .boxed()
}

/// One comparison of a column with a constant, as most people write them.
pub(super) fn simple() -> BoxedStrategy<Expr> {
    use BinaryOp::*;
    let ops = vec![Eq, NotEq, Lt, LtEq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom];
    let operands = prop_oneof![
        int().prop_map(|v| (column(2, DataType::Int64), value(v, &DataType::Int64))),
        (-100i64..100).prop_map(|v| (column(7, DataType::Int32), value(V::Int(v), &DataType::Int64))),
        float().prop_map(|v| (column(4, DataType::Float64), value(v, &DataType::Float64))),
        time().prop_map(|v| (column(6, micros()), value(v, &micros()))),
        text().prop_map(|v| (column(3, DataType::Utf8), value(v, &DataType::Utf8))),
    ];
    prop_oneof![
        6 => (prop::sample::select(ops), operands, any::<bool>()).prop_map(|(op, (column, value), swapped)| {
            if swapped { binary(op, value, column) } else { binary(op, column, value) }
        }),
        1 => any::<bool>().prop_map(|not| {
            let null = Expr::IsNull(Box::new(column(3, DataType::Utf8)));
            if not { Expr::Not(Box::new(null)) } else { null }
        }),
    ]
    .boxed()
}

pub(super) fn in_list(of: Expr, list: &[V], data_type: &DataType, negated: bool) -> Expr {
    Expr::InList { of: Box::new(of), list: literal(list, data_type), negated }
}

fn deeper(level: Level) -> Level {
    use BinaryOp::*;
    let Level { int, text, float, boolean } = level;
    let arithmetic = || prop::sample::select(vec![Add, Subtract, Multiply, Divide, Modulo]);
    let comparison =
        || prop::sample::select(vec![Eq, NotEq, Lt, LtEq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom]);
    let case = |of: &BoxedStrategy<Expr>| {
        (prop::collection::vec((boolean.clone(), of.clone()), 1..3), prop::option::of(of.clone()))
            .prop_map(|(branches, otherwise)| Expr::Case { branches, otherwise: otherwise.map(Box::new) })
    };
    let cast = |of: &BoxedStrategy<Expr>, to: DataType| {
        of.clone().prop_map(move |of| Expr::Cast { of: Box::new(of), to: to.clone() })
    };
    let compare = |of: &BoxedStrategy<Expr>| {
        (comparison(), of.clone(), of.clone()).prop_map(|(op, a, b)| binary(op, a, b))
    };
    let pattern = prop::sample::select(vec!["%", "a%", "%b", "_", "a_", "%7%", "A%", ""]);
    let boxed = Box::new;
    Level {
        int: prop_oneof![
            2 => int.clone(),
            3 => (arithmetic(), int.clone(), int.clone()).prop_map(|(op, a, b)| binary(op, a, b)),
            1 => int.clone().prop_map(move |of| Expr::Negate(boxed(of))),
            1 => case(&int),
            1 => cast(&text, DataType::Int64),
            1 => cast(&float, DataType::Int64),
        ]
        .boxed(),
        text: prop_oneof![
            2 => text.clone(),
            2 => (text.clone(), text.clone()).prop_map(|(a, b)| binary(Concat, a, b)),
            1 => case(&text),
            1 => cast(&int, DataType::Utf8),
        ]
        .boxed(),
        float: prop_oneof![
            2 => float.clone(),
            // Nothing that makes a NaN: of which kind it is depends on the processor.
            2 => (prop::sample::select(vec![Add, Subtract]), float.clone(), float.clone())
                .prop_map(|(op, a, b)| binary(op, a, b)),
            1 => case(&float),
            1 => cast(&int, DataType::Float64),
        ]
        .boxed(),
        boolean: prop_oneof![
            3 => handles(),
            1 => boolean.clone(),
            3 => (prop::sample::select(vec![And, Or]), boolean.clone(), boolean.clone())
                .prop_map(|(op, a, b)| binary(op, a, b)),
            1 => boolean.clone().prop_map(move |of| Expr::Not(boxed(of))),
            1 => prop_oneof![int.clone(), text.clone(), float.clone()].prop_map(move |of| Expr::IsNull(boxed(of))),
            1 => compare(&int),
            1 => compare(&text),
            1 => compare(&float),
            1 => compare(&boolean),
            1 => case(&boolean),
            1 => (int.clone(), prop::collection::vec(super::exprs::int(), 0..4), any::<bool>())
                .prop_map(|(of, list, negated)| in_list(of, &list, &DataType::Int64, negated)),
            1 => (text.clone(), pattern, any::<bool>(), any::<bool>()).prop_map(
                move |(of, pattern, negated, ignore_case)| {
                    let pattern = value(V::Text(pattern.to_owned()), &DataType::Utf8);
                    Expr::Like { of: boxed(of), pattern: boxed(pattern), negated, ignore_case }
                }
            ),
        ]
        .boxed(),
    }
}

/// An expression for people who read a failing case.
pub(super) fn show(expr: &Expr) -> String {
    let list = |literal| super::model::values(&crate::literal_array(literal).unwrap());
    match expr {
        Expr::Column { column, .. } => format!("c{column}"),
        Expr::Literal(literal) => format!("{:?}", list(literal)),
        Expr::Now => "now".to_owned(),
        Expr::Binary { op, left, right } => format!("({} {op:?} {})", show(left), show(right)),
        Expr::Not(of) => format!("not {}", show(of)),
        Expr::IsNull(of) => format!("({} is null)", show(of)),
        Expr::Negate(of) => format!("-{}", show(of)),
        Expr::InList { of, list: values, negated } => {
            format!("({} in {negated} {:?})", show(of), list(values))
        }
        Expr::Cast { of, to } => format!("cast({} as {to})", show(of)),
        Expr::Case { branches, otherwise } => {
            let branches = branches.iter().map(|(when, then)| format!("{} -> {}; ", show(when), show(then)));
            format!("case({}{:?})", branches.collect::<String>(), otherwise.as_deref().map(show))
        }
        Expr::Like { of, pattern, negated, ignore_case } => {
            format!("({} like {negated} {ignore_case} {})", show(of), show(pattern))
        }
    }
}
