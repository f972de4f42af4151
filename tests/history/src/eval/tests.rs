//! Answers worked out by hand: the interpreter is what all else is held against.

use arrow_schema::DataType::{self, Boolean, Float32, Float64, Int8, Int32, Int64, UInt8, Utf8};
use tandem_format::{BinaryOp, Expr};
use tandem_types::ColumnId;

use super::{Row, eval};
use crate::bind::literal;
use crate::value::Value;

struct Nothing;

impl Row for Nothing {
    fn column(&self, id: ColumnId) -> Option<(DataType, Value)> {
        // A column that has been widened since the statement.
        (id == ColumnId(1)).then_some((Int64, Value::Int(300)))
    }

    fn now(&self) -> i64 {
        1_000_000
    }
}

fn constant(data_type: &DataType, value: Value) -> Expr {
    Expr::Literal(literal(data_type, &[value]).unwrap())
}

fn int(i: i128) -> Expr {
    constant(&Int8, Value::Int(i))
}

fn text(s: &str) -> Expr {
    constant(&Utf8, Value::Text(s.to_owned()))
}

fn boolean(value: Option<bool>) -> Expr {
    constant(&Boolean, value.map_or(Value::Null, Value::Bool))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn answer(expr: &Expr) -> Value {
    eval(expr, &Nothing).unwrap().1
}

#[test]
fn what_cannot_be_computed_is_null_where_it_stands() {
    use BinaryOp::{Add, Divide, Eq, Modulo, Multiply, Or, Subtract};
    assert_eq!(answer(&binary(Add, int(100), int(27))), Value::Int(127));
    assert_eq!(answer(&binary(Add, int(100), int(28))), Value::Null);
    assert_eq!(answer(&binary(Subtract, int(-128), int(1))), Value::Null);
    assert_eq!(answer(&binary(Multiply, int(16), int(8))), Value::Null);
    assert_eq!(answer(&binary(Divide, int(-7), int(2))), Value::Int(-3));
    assert_eq!(answer(&binary(Modulo, int(-7), int(2))), Value::Int(-1));
    for op in [Divide, Modulo] {
        assert_eq!(answer(&binary(op, int(7), int(0))), Value::Null);
    }
    assert_eq!(answer(&binary(Divide, int(-128), int(-1))), Value::Null);
    assert_eq!(answer(&binary(Modulo, int(-128), int(-1))), Value::Int(0));
    assert_eq!(answer(&Expr::Negate(Box::new(int(-128)))), Value::Null);
    let failed = binary(Divide, int(1), int(0));
    assert_eq!(answer(&Expr::IsNull(Box::new(failed.clone()))), Value::Bool(true));
    assert_eq!(answer(&binary(Or, binary(Eq, failed, int(1)), boolean(Some(true)))), Value::Bool(true));
    let float = |x| constant(&Float64, Value::Float(x));
    assert_eq!(answer(&binary(Divide, float(1.0), float(0.0))), Value::Float(f64::INFINITY));
}

#[test]
fn logic_has_three_values() {
    use BinaryOp::{And, Or};
    let (yes, no, unknown) = (Some(true), Some(false), None);
    let of = |op, a, b| match answer(&binary(op, boolean(a), boolean(b))) {
        Value::Bool(b) => Some(b),
        _ => None,
    };
    for (a, b, and, or) in [
        (yes, yes, yes, yes),
        (yes, no, no, yes),
        (no, no, no, no),
        (yes, unknown, unknown, yes),
        (no, unknown, no, unknown),
        (unknown, unknown, unknown, unknown),
    ] {
        assert_eq!([of(And, a, b), of(And, b, a), of(Or, a, b), of(Or, b, a)], [and, and, or, or]);
    }
    assert_eq!(answer(&Expr::Not(Box::new(boolean(None)))), Value::Null);
}

#[test]
fn lists_and_nulls() {
    let within = |of: Value, list: &[Value], negated| {
        answer(&Expr::InList {
            of: Box::new(constant(&Int32, of)),
            list: literal(&Int32, list).unwrap(),
            negated,
        })
    };
    let (one, two) = (Value::Int(1), Value::Int(2));
    assert_eq!(within(one.clone(), &[one.clone(), Value::Null], false), Value::Bool(true));
    assert_eq!(within(one.clone(), &[one.clone(), Value::Null], true), Value::Bool(false));
    assert_eq!(within(two.clone(), &[one.clone(), Value::Null], false), Value::Null);
    assert_eq!(within(two, std::slice::from_ref(&one), true), Value::Bool(true));
    assert_eq!(within(Value::Null, &[one], false), Value::Null);
    let null = || constant(&Int32, Value::Null);
    assert_eq!(answer(&binary(BinaryOp::Eq, null(), null())), Value::Null);
    assert_eq!(answer(&binary(BinaryOp::IsNotDistinctFrom, null(), null())), Value::Bool(true));
}

#[test]
fn casts_that_lose_the_value_are_null() {
    let cast = |of: Expr, to| answer(&Expr::Cast { of: Box::new(of), to });
    assert_eq!(cast(constant(&Int64, Value::Int(128)), Int8), Value::Null);
    assert_eq!(cast(int(-1), UInt8), Value::Null);
    assert_eq!(cast(constant(&Float64, Value::Float(-1.9)), Int32), Value::Int(-1));
    assert_eq!(cast(constant(&Float64, Value::Float(f64::NAN)), Int32), Value::Null);
    assert_eq!(cast(constant(&Int64, Value::Int(16_777_217)), Float32), Value::Float(16_777_216.0));
    assert_eq!(cast(text("-3"), Int32), Value::Int(-3));
    assert_eq!(cast(text("3a"), Int32), Value::Null);
    assert_eq!(cast(boolean(Some(true)), Utf8), Value::Text("true".into()));
    let seconds = DataType::Timestamp(arrow_schema::TimeUnit::Second, None);
    assert_eq!(cast(Expr::Now, seconds), Value::Int(1));
    // A column is read as what it was at the statement.
    assert_eq!(answer(&Expr::Column { column: ColumnId(1), data_type: Int64 }), Value::Int(300));
    assert_eq!(answer(&Expr::Column { column: ColumnId(1), data_type: Int8 }), Value::Null);
}

#[test]
fn patterns() {
    let like = |of: &str, pattern: &str, ignore_case| {
        answer(&Expr::Like {
            of: Box::new(text(of)),
            pattern: Box::new(text(pattern)),
            negated: false,
            ignore_case,
        }) == Value::Bool(true)
    };
    for (of, pattern, right) in [
        ("abc", "a%", true),
        ("abc", "%c", true),
        ("abc", "a_c", true),
        ("abc", "a_", false),
        ("", "%", true),
        ("a%b", "a\\%b", true),
        ("axb", "a\\%b", false),
        ("\u{e9}", "_", true),
        ("abab", "%ab", true),
    ] {
        assert_eq!(like(of, pattern, false), right, "{of} LIKE {pattern}");
    }
    assert!(like("ABC", "a%", true) && !like("ABC", "a%", false));
}

#[test]
fn the_first_true_branch_counts() {
    let branches =
        vec![(boolean(None), int(1)), (boolean(Some(true)), int(2)), (boolean(Some(true)), int(3))];
    let case = Expr::Case { branches, otherwise: Some(Box::new(int(4))) };
    assert_eq!(answer(&case), Value::Int(2));
    let case = Expr::Case { branches: vec![(boolean(Some(false)), int(1))], otherwise: None };
    assert_eq!(answer(&case), Value::Null);
}
