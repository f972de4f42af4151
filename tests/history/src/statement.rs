//! What clients of a history ask for, by names, and how it reads as SQL.

use std::fmt;

use arrow_schema::{DataType, TimeUnit};
use tandem_format::BinaryOp;
use tandem_types::PartitionUnit;

use crate::value::Value;

/// An expression over names. Both sides of an operator have one type.
#[derive(Clone, Debug)]
pub enum Term {
    Column { name: String, data_type: DataType },
    Literal { data_type: DataType, value: Value },
    Now,
    Binary { op: BinaryOp, left: Box<Term>, right: Box<Term> },
    Not(Box<Term>),
    IsNull(Box<Term>),
    Negate(Box<Term>),
    InList { of: Box<Term>, data_type: DataType, list: Vec<Value>, negated: bool },
    Cast { of: Box<Term>, to: DataType },
    Case { branches: Vec<(Term, Term)>, otherwise: Option<Box<Term>> },
    Like { of: Box<Term>, pattern: Box<Term>, negated: bool, ignore_case: bool },
}

/// A column as it is declared.
#[derive(Clone, Debug)]
pub struct Declared {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
}

/// A table as it is declared.
#[derive(Clone, Debug)]
pub struct Shape {
    pub table: String,
    pub columns: Vec<Declared>,
    pub timestamp: Option<String>,
    pub partition_by: PartitionUnit,
    pub primary_key: Vec<String>,
    pub on_duplicate: Option<&'static str>,
    pub order_by: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub enum Conflict {
    Nothing,
    Replace,
    Merge,
    Update(Vec<String>),
}

/// Rows for one table, in one or several batches.
#[derive(Clone, Debug)]
pub struct Insert {
    pub table: String,
    pub columns: Vec<(String, DataType)>,
    pub batches: Vec<Vec<Vec<Value>>>,
    pub conflict: Option<Conflict>,
}

#[derive(Clone, Debug)]
pub enum Alter {
    Add(Declared),
    Drop(String),
    Rename(String, String),
    Widen(String, DataType),
    DropNotNull(String),
    OnDuplicate(Option<&'static str>),
}

/// An UPDATE, or a DELETE if nothing is assigned.
#[derive(Clone, Debug)]
pub struct Change {
    pub table: String,
    pub predicate: Term,
    /// `None`: a DELETE.
    pub assignments: Option<Vec<(String, Term)>>,
    /// Times that the predicate holds for, at most, in ticks.
    pub time: Option<(i64, i64)>,
    /// Computed by its writer and committed as a table to look up.
    pub computed: bool,
}

impl Term {
    /// Adds the names of the columns that it reads.
    fn columns(&self, names: &mut Vec<String>) {
        match self {
            Self::Column { name, .. } => names.push(name.clone()),
            Self::Literal { .. } | Self::Now => {}
            Self::Binary { left, right, .. } => {
                left.columns(names);
                right.columns(names);
            }
            Self::Not(of) | Self::IsNull(of) | Self::Negate(of) => of.columns(names),
            Self::InList { of, .. } | Self::Cast { of, .. } => of.columns(names),
            Self::Like { of, pattern, .. } => {
                of.columns(names);
                pattern.columns(names);
            }
            Self::Case { branches, otherwise } => {
                for (when, then) in branches {
                    when.columns(names);
                    then.columns(names);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.columns(names);
                }
            }
        }
    }
}

impl Change {
    /// The columns that it reads, each with the table.
    pub fn reads(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        self.predicate.columns(&mut names);
        for (_, value) in self.assignments.iter().flatten() {
            value.columns(&mut names);
        }
        names.into_iter().map(|name| (self.table.clone(), name)).collect()
    }
}

#[derive(Clone, Debug)]
pub enum Statement {
    Create(Shape),
    Drop(String),
    Rename(String, String),
    Insert(Insert),
    Change(Change),
    Alter(String, Alter),
    Truncate(String),
    /// The partitions of these times, in ticks, and their names.
    DropPartitions(String, Vec<i64>, Vec<String>),
    /// As it was so many commits before the head that its node knows.
    Restore(String, u64),
    Transaction(Vec<Statement>),
}

impl Statement {
    /// The tables that it is about.
    pub fn tables(&self) -> Vec<&str> {
        match self {
            Self::Create(shape) => vec![&shape.table],
            Self::Insert(insert) => vec![&insert.table],
            Self::Change(change) => vec![&change.table],
            Self::Rename(table, to) => vec![table, to],
            Self::Drop(table)
            | Self::Alter(table, _)
            | Self::Truncate(table)
            | Self::DropPartitions(table, _, _)
            | Self::Restore(table, _) => vec![table],
            Self::Transaction(statements) => statements.iter().flat_map(Self::tables).collect(),
        }
    }
}

/// A type as SQL names it.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "VARCHAR".into(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            let zone = if zone.is_some() { " WITH TIME ZONE" } else { "" };
            format!("TIMESTAMP({digits}){zone}")
        }
        other => other.to_string(),
    }
}

fn literal(f: &mut fmt::Formatter<'_>, data_type: &DataType, value: &Value) -> fmt::Result {
    match (data_type, value) {
        (DataType::Utf8, Value::Text(_)) | (DataType::Boolean, Value::Bool(_)) => write!(f, "{value}"),
        (DataType::Int64, Value::Int(i)) if *i > i64::MIN.into() => write!(f, "{i}"),
        (_, Value::Float(x)) if !x.is_finite() => write!(f, "arrow_cast('{x}', '{data_type}')"),
        (_, Value::Int(i)) if *i == i64::MIN.into() => {
            write!(f, "arrow_cast(-9223372036854775807 - 1, '{data_type}')")
        }
        _ => write!(f, "arrow_cast({value}, '{data_type}')"),
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut each: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { name, .. } => f.write_str(name),
            Self::Literal { data_type, value } => literal(f, data_type, value),
            Self::Now => f.write_str("now()"),
            Self::Binary { op, left, right } => {
                let op = match op {
                    BinaryOp::And => "AND",
                    BinaryOp::Or => "OR",
                    BinaryOp::Eq => "=",
                    BinaryOp::NotEq => "<>",
                    BinaryOp::Lt => "<",
                    BinaryOp::LtEq => "<=",
                    BinaryOp::Gt => ">",
                    BinaryOp::GtEq => ">=",
                    BinaryOp::IsDistinctFrom => "IS DISTINCT FROM",
                    BinaryOp::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
                    BinaryOp::Add => "+",
                    BinaryOp::Subtract => "-",
                    BinaryOp::Multiply => "*",
                    BinaryOp::Divide => "/",
                    BinaryOp::Modulo => "%",
                    BinaryOp::Concat => "||",
                };
                write!(f, "({left} {op} {right})")
            }
            Self::Not(of) => write!(f, "(NOT {of})"),
            Self::IsNull(of) => write!(f, "({of} IS NULL)"),
            Self::Negate(of) => write!(f, "(- {of})"),
            Self::InList { of, data_type, list: values, negated } => {
                write!(f, "({of} {}IN (", if *negated { "NOT " } else { "" })?;
                list(f, values, |f, value| literal(f, data_type, value))?;
                f.write_str("))")
            }
            Self::Cast { of, to } => write!(f, "arrow_cast({of}, '{to}')"),
            Self::Case { branches, otherwise } => {
                f.write_str("CASE")?;
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            Self::Like { of, pattern, negated, ignore_case } => {
                let not = if *negated { "NOT " } else { "" };
                write!(f, "({of} {not}{} {pattern})", if *ignore_case { "ILIKE" } else { "LIKE" })
            }
        }
    }
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_null = if self.nullable { "" } else { " NOT NULL" };
        write!(f, "{} {}{not_null}", self.name, sql_type(&self.data_type))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE TABLE {} (", self.table)?;
        list(f, &self.columns, |f, column| write!(f, "{column}"))?;
        f.write_str(")")?;
        if let Some(timestamp) = &self.timestamp {
            write!(f, " TIMESTAMP({timestamp}) PARTITION BY {}", self.partition_by.name().to_uppercase())?;
        }
        if let Some(order_by) = &self.order_by {
            write!(f, " ORDER BY ({})", order_by.join(", "))?;
        }
        if !self.primary_key.is_empty() {
            write!(f, " PRIMARY KEY ({})", self.primary_key.join(", "))?;
        }
        let none = self.timestamp.is_none().then(|| "timestamp = 'none'".to_owned());
        let policy = self.on_duplicate.map(|policy| format!("on_duplicate = '{policy}'"));
        let options: Vec<String> = none.into_iter().chain(policy).collect();
        match options.is_empty() {
            true => Ok(()),
            false => write!(f, " WITH ({})", options.join(", ")),
        }
    }
}

impl fmt::Display for Insert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "INSERT INTO {} ({}) VALUES ", self.table, names.join(", "))?;
        let rows: Vec<&Vec<Value>> = self.batches.iter().flatten().collect();
        list(f, &rows, |f, row| {
            let row: Vec<_> = row.iter().zip(&self.columns).collect();
            f.write_str("(")?;
            list(f, &row, |f, (value, (_, data_type))| literal(f, data_type, value))?;
            f.write_str(")")
        })?;
        match &self.conflict {
            None => Ok(()),
            Some(Conflict::Nothing) => f.write_str(" ON CONFLICT DO NOTHING"),
            Some(Conflict::Replace) => f.write_str(" ON CONFLICT DO REPLACE"),
            Some(Conflict::Merge) => f.write_str(" ON CONFLICT DO MERGE"),
            Some(Conflict::Update(columns)) => {
                f.write_str(" ON CONFLICT DO UPDATE SET ")?;
                list(f, columns, |f, c| write!(f, "{c} = excluded.{c}"))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.assignments {
            None => write!(f, "DELETE FROM {}", self.table)?,
            Some(assignments) => {
                write!(f, "UPDATE {} SET ", self.table)?;
                list(f, assignments, |f, (column, term)| write!(f, "{column} = {term}"))?;
            }
        }
        write!(f, " WHERE {}", self.predicate)?;
        if self.computed {
            // True, and nothing that can be said of a row alone.
            write!(f, " AND (SELECT count(*) FROM {}) >= 0", self.table)?;
        }
        match self.time {
            Some((first, last)) => write!(f, " /* time {first} to {last} */"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(shape) => write!(f, "{shape}"),
            Self::Drop(table) => write!(f, "DROP TABLE {table}"),
            Self::Rename(table, to) => write!(f, "ALTER TABLE {table} RENAME TO {to}"),
            Self::Insert(insert) => write!(f, "{insert}"),
            Self::Change(change) => write!(f, "{change}"),
            Self::Alter(table, alter) => {
                write!(f, "ALTER TABLE {table} ")?;
                match alter {
                    Alter::Add(column) => write!(f, "ADD COLUMN {column}"),
                    Alter::Drop(name) => write!(f, "DROP COLUMN {name}"),
                    Alter::Rename(name, to) => write!(f, "RENAME COLUMN {name} TO {to}"),
                    Alter::Widen(name, to) => write!(f, "ALTER COLUMN {name} TYPE {}", sql_type(to)),
                    Alter::DropNotNull(name) => write!(f, "ALTER COLUMN {name} DROP NOT NULL"),
                    Alter::OnDuplicate(value) => {
                        write!(f, "SET (on_duplicate = '{}')", value.unwrap_or("replace"))
                    }
                }
            }
            Self::Truncate(table) => write!(f, "TRUNCATE TABLE {table}"),
            Self::DropPartitions(table, _, labels) => {
                write!(f, "ALTER TABLE {table} DROP PARTITION ")?;
                list(f, labels, |f, label| write!(f, "'{label}'"))
            }
            Self::Restore(table, back) => write!(f, "-- table {table} as it was {back} commits ago"),
            Self::Transaction(statements) => {
                f.write_str("BEGIN")?;
                for statement in statements {
                    write!(f, "; {statement}")?;
                }
                f.write_str("; COMMIT")
            }
        }
    }
}
