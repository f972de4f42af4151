//! Random expressions over a table's columns.

use arrow_schema::{DataType, TimeUnit};
use tandem_env::sim::START_MICROS;
use tandem_format::BinaryOp;
use tandem_types::ticks_per_second;

use crate::plan::Random;
use crate::statement::{Declared, Shape, Term};
use crate::value::Value;

const COMPARISONS: [BinaryOp; 8] = [
    BinaryOp::Eq,
    BinaryOp::NotEq,
    BinaryOp::Lt,
    BinaryOp::LtEq,
    BinaryOp::Gt,
    BinaryOp::GtEq,
    BinaryOp::IsDistinctFrom,
    BinaryOp::IsNotDistinctFrom,
];

const ARITHMETIC: [BinaryOp; 5] =
    [BinaryOp::Add, BinaryOp::Subtract, BinaryOp::Multiply, BinaryOp::Divide, BinaryOp::Modulo];

/// A value of a type that is not null: mostly one of few, so that rows meet; sometimes an extreme one.
pub fn constant(r: &Random, data_type: &DataType, extremes: bool) -> Value {
    let small = r.below(7) as i128;
    let extreme = extremes && r.percent(10);
    match data_type {
        DataType::Boolean => Value::Bool(r.percent(50)),
        DataType::UInt8 => Value::Int(if extreme { 255 } else { small }),
        DataType::Int8 if extreme => Value::Int(*r.pick(&[127, -128])),
        DataType::Int32 if extreme => Value::Int(*r.pick(&[i32::MAX.into(), i32::MIN.into()])),
        DataType::Int64 if extreme => Value::Int(*r.pick(&[i64::MAX.into(), i64::MIN.into(), 1 << 53])),
        DataType::Float32 | DataType::Float64 if extreme => {
            Value::Float(*r.pick(&[f64::INFINITY, f64::NAN, -0.0, 16_777_216.0]))
        }
        DataType::Float32 | DataType::Float64 => Value::Float(small as f64 / 2.0 - 1.0),
        DataType::Timestamp(unit, _) => {
            let seconds = START_MICROS / 1_000_000 - 1 + small as i64;
            Value::Int((seconds * ticks_per_second(*unit)).into())
        }
        DataType::Utf8 => {
            let words = [
                "",
                "a",
                "b",
                "ab",
                "a%b",
                "7",
                "12",
                "-3",
                "A_b",
                "\u{e9}t\u{e9}",
                "a longer text of many bytes",
            ];
            Value::Text((*r.pick(&words)).to_owned())
        }
        _ => Value::Int(small - 2),
    }
}

pub fn and(left: Term, right: Term) -> Term {
    Term::Binary { op: BinaryOp::And, left: Box::new(left), right: Box::new(right) }
}

/// Whether a timestamp lies between two, both included.
pub fn between(column: &Declared, first: i64, last: i64) -> Term {
    let literal =
        |ticks: i64| Term::Literal { data_type: column.data_type.clone(), value: Value::Int(ticks.into()) };
    let compare = |op, ticks| Term::Binary {
        op,
        left: Box::new(Term::Column { name: column.name.clone(), data_type: column.data_type.clone() }),
        right: Box::new(literal(ticks)),
    };
    and(compare(BinaryOp::GtEq, first), compare(BinaryOp::LtEq, last))
}

/// Draws expressions over a table.
pub struct Terms<'a> {
    pub random: &'a Random,
    pub shape: &'a Shape,
    /// Nothing that is computed.
    pub plain: bool,
    /// Nothing that fails for some values: the query engine's whole numbers wrap around where those of the log are null, and
    /// it takes `a / a` for 1.
    pub small: bool,
}

impl Terms<'_> {
    fn column(&self, of: &Declared) -> Term {
        Term::Column { name: of.name.clone(), data_type: of.data_type.clone() }
    }

    fn any(&self) -> &Declared {
        self.random.pick(&self.shape.columns)
    }

    fn literal(&self, data_type: &DataType) -> Term {
        let null = self.random.percent(8);
        let value = if null { Value::Null } else { self.constant_for(data_type) };
        Term::Literal { data_type: data_type.clone(), value }
    }

    /// Constants that the table's rows may have.
    fn constant_for(&self, data_type: &DataType) -> Value {
        constant(self.random, data_type, !self.small)
    }

    /// An expression of type boolean.
    pub fn boolean(&self, depth: usize) -> Term {
        let r = self.random;
        let boxed = |term| Box::new(term);
        if depth == 0 {
            return self.comparison(0);
        }
        match r.below(12) {
            0 => Term::Not(boxed(self.boolean(depth - 1))),
            1 | 2 => {
                let op = *r.pick(&[BinaryOp::And, BinaryOp::Or]);
                let (left, right) = (self.boolean(depth - 1), self.boolean(depth - 1));
                Term::Binary { op, left: boxed(left), right: boxed(right) }
            }
            3 => {
                let of = self.any().data_type.clone();
                Term::IsNull(boxed(self.of_type(&of, depth - 1)))
            }
            4 => {
                let data_type = self.any().data_type.clone();
                let mut list: Vec<Value> =
                    (0..1 + r.below(3)).map(|_| constant(r, &data_type, !self.small)).collect();
                if r.percent(15) {
                    list.push(Value::Null);
                }
                let of = boxed(self.of_type(&data_type, depth - 1));
                Term::InList { of, data_type, list, negated: r.percent(40) }
            }
            5 if self.of(&DataType::Utf8).is_some() => {
                let of = boxed(self.of_type(&DataType::Utf8, depth - 1));
                let patterns = ["a%", "%b", "_", "%", "", "a\\%b", "%7%", "A\\_%", "\u{c9}%", "__"];
                let pattern = Value::Text((*r.pick(&patterns)).to_owned());
                let pattern = boxed(Term::Literal { data_type: DataType::Utf8, value: pattern });
                Term::Like { of, pattern, negated: r.percent(30), ignore_case: r.percent(30) }
            }
            6 => self.of_type(&DataType::Boolean, depth),
            _ => self.comparison(depth - 1),
        }
    }

    fn comparison(&self, depth: usize) -> Term {
        let r = self.random;
        let column = self.any();
        let left = self.column(column);
        let right = match r.percent(60) {
            true => self.literal(&column.data_type),
            false => self.of_type(&column.data_type, depth),
        };
        Term::Binary { op: *r.pick(&COMPARISONS), left: Box::new(left), right: Box::new(right) }
    }

    fn of(&self, data_type: &DataType) -> Option<&Declared> {
        let fit: Vec<&Declared> = self.shape.columns.iter().filter(|c| c.data_type == *data_type).collect();
        (!fit.is_empty()).then(|| *self.random.pick(&fit))
    }

    /// An expression of a type.
    pub fn of_type(&self, data_type: &DataType, depth: usize) -> Term {
        let r = self.random;
        let boxed = |term| Box::new(term);
        let leaf = || match self.of(data_type) {
            Some(column) if r.percent(65) => self.column(column),
            _ => self.literal(data_type),
        };
        if depth == 0 || self.plain || r.percent(25) {
            return leaf();
        }
        if r.percent(15) {
            let branches = (0..1 + r.below(2))
                .map(|_| (self.boolean(depth - 1), self.of_type(data_type, depth - 1)))
                .collect();
            let otherwise = r.percent(60).then(|| boxed(self.of_type(data_type, depth - 1)));
            return Term::Case { branches, otherwise };
        }
        match data_type {
            DataType::Boolean => self.comparison(depth - 1),
            DataType::Utf8 => match r.below(3) {
                0 => {
                    let (left, right) =
                        (self.of_type(data_type, depth - 1), self.of_type(data_type, depth - 1));
                    Term::Binary { op: BinaryOp::Concat, left: boxed(left), right: boxed(right) }
                }
                1 => {
                    let of = r.pick(&[DataType::Int64, DataType::Int32, DataType::Boolean]).clone();
                    Term::Cast { of: boxed(self.of_type(&of, depth - 1)), to: DataType::Utf8 }
                }
                _ => leaf(),
            },
            DataType::Timestamp(unit, zone) => match (unit, zone) {
                _ if r.percent(60) => leaf(),
                (TimeUnit::Microsecond, Some(_)) => Term::Now,
                _ => Term::Cast { of: boxed(Term::Now), to: data_type.clone() },
            },
            DataType::Int8 | DataType::UInt8 if self.small => leaf(),
            // Numbers.
            _ => match r.below(10) {
                0..5 => {
                    let (left, right) =
                        (self.of_type(data_type, depth - 1), self.of_type(data_type, depth - 1));
                    let op = *r.pick(&ARITHMETIC);
                    let op = if self.small { *r.pick(&ARITHMETIC[..2]) } else { op };
                    Term::Binary { op, left: boxed(left), right: boxed(right) }
                }
                5 | 6 => {
                    let froms = [DataType::Int64, DataType::Int32, DataType::Float64, DataType::Int8];
                    let from = r.pick(&froms).clone();
                    Term::Cast { of: boxed(self.of_type(&from, depth - 1)), to: data_type.clone() }
                }
                7 if *data_type != DataType::UInt8 => Term::Negate(boxed(self.of_type(data_type, depth - 1))),
                8 if !matches!(data_type, DataType::Float32 | DataType::Float64) => {
                    Term::Cast { of: boxed(self.of_type(&DataType::Utf8, depth - 1)), to: data_type.clone() }
                }
                _ => leaf(),
            },
        }
    }
}
