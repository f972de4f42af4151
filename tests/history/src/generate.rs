//! Random statements over what the tables are thought to look like.

use arrow_schema::{DataType, TimeUnit};
use tandem_env::sim::START_MICROS;
use tandem_types::PartitionUnit;

use crate::plan::{Action, How, Random};
use crate::statement::{Alter, Change, Conflict, Declared, Insert, Shape, Statement};
use crate::terms::{self, Terms};
use crate::value::Value;

/// Types of columns that are no key and no timestamp.
const TYPES: [DataType; 10] = [
    DataType::Int64,
    DataType::Int32,
    DataType::Int8,
    DataType::UInt8,
    DataType::Float64,
    DataType::Float32,
    DataType::Utf8,
    DataType::Utf8,
    DataType::Boolean,
    DataType::Timestamp(TimeUnit::Millisecond, None),
];

const POLICIES: [&str; 3] = ["replace", "ignore", "merge"];

/// Draws statements; keeps up with what they would make of the tables if all went well.
pub struct Generator<'a> {
    random: &'a Random,
    tables: Vec<Shape>,
    /// Tables that were dropped, by name: they may be restored.
    dropped: Vec<Shape>,
    names: usize,
    /// Columns that a mutation has just read, with their tables: to drop one shows who still needs it.
    read: Vec<(String, String)>,
    /// Only what SQL can say of one node.
    sql: bool,
    /// Nodes collect.
    pub(crate) collects: bool,
}

impl<'a> Generator<'a> {
    pub fn new(random: &'a Random) -> Self {
        Self {
            random,
            tables: Vec::new(),
            dropped: Vec::new(),
            names: 0,
            read: Vec::new(),
            sql: false,
            collects: false,
        }
    }

    /// For statements that will be sent as SQL.
    pub fn for_sql(random: &'a Random) -> Self {
        Self { sql: true, ..Self::new(random) }
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub fn create(&mut self) -> Statement {
        let r = self.random;
        let table = self.fresh("t");
        let mut columns = Vec::new();
        let declared = |name: &str, data_type, nullable| Declared { name: name.into(), data_type, nullable };
        let timestamp = r.percent(85);
        let keyed = r.percent(65);
        if timestamp {
            let unit = *r.pick(&[
                TimeUnit::Second,
                TimeUnit::Millisecond,
                TimeUnit::Microsecond,
                TimeUnit::Microsecond,
                TimeUnit::Nanosecond,
            ]);
            let zone = (!self.sql && r.percent(20)).then(|| "UTC".into());
            columns.push(declared("ts", DataType::Timestamp(unit, zone), false));
        }
        let partition_by = match timestamp && r.percent(70) {
            true => {
                *r.pick(&[PartitionUnit::Hour, PartitionUnit::Day, PartitionUnit::Day, PartitionUnit::Week])
            }
            false => PartitionUnit::None,
        };
        let mut primary_key = Vec::new();
        if keyed {
            // Without partitions the time of a row need not be part of its key.
            if timestamp && (partition_by != PartitionUnit::None || r.percent(60)) {
                primary_key.push("ts".to_owned());
            }
            if primary_key.is_empty() || r.percent(80) {
                columns.push(declared("k", r.pick(&[DataType::Int64, DataType::Int32]).clone(), false));
                primary_key.push("k".into());
            }
            if r.percent(25) {
                columns.push(declared("s", DataType::Utf8, false));
                primary_key.push("s".into());
            }
            if r.percent(30) {
                primary_key.reverse();
            }
        }
        for n in 0..1 + r.below(4) {
            columns.push(declared(&format!("v{n}"), r.pick(&TYPES).clone(), r.percent(85)));
        }
        if !self.sql && r.percent(15) {
            let at = r.below(columns.len());
            columns.swap(0, at);
        }
        let order_by = (!self.sql && r.percent(20)).then(|| {
            let first = r.pick(&columns).name.clone();
            let mut by = vec![first.clone()];
            if timestamp && first != "ts" && r.percent(60) {
                by.push("ts".into());
            }
            by
        });
        let on_duplicate = (keyed && r.percent(70)).then(|| *r.pick(&POLICIES));
        let timestamp = timestamp.then(|| "ts".to_owned());
        let shape = Shape { table, columns, timestamp, partition_by, primary_key, on_duplicate, order_by };
        self.tables.push(shape.clone());
        Statement::Create(shape)
    }

    pub fn compare(&mut self) -> Action {
        let back = (0..self.random.below(3)).map(|_| 1 + self.random.below(12) as u64).collect();
        Action::Compare { back }
    }

    pub fn action(&mut self) -> Action {
        let r = self.random;
        match r.below(100) {
            0..22 => self.compact(),
            22..25 => Action::Checkpoint,
            // History is cut at checkpoints.
            36..40 if self.collects => Action::Checkpoint,
            25..28 => Action::Reopen,
            28..32 => self.compare(),
            32..36 if self.collects => Action::Collect,
            _ => Action::Statement(self.statement()),
        }
    }

    fn compact(&mut self) -> Action {
        let r = self.random;
        if self.tables.is_empty() {
            return self.compare();
        }
        let how = match r.below(3) {
            0 => How::Usual,
            1 => How::Everything,
            _ => How::Some(r.next()),
        };
        let table = r.pick(&self.tables).table.clone();
        Action::Compact { table, how, hold: if r.percent(50) { 0 } else { r.below(4) } }
    }

    pub fn statement(&mut self) -> Statement {
        if self.tables.is_empty() {
            return self.create();
        }
        let r = self.random;
        let read = std::mem::take(&mut self.read);
        if !read.is_empty() && r.percent(12) {
            let (table, column) = r.pick(&read).clone();
            if let Some(dropped) = self.drop_column(&table, &column) {
                return dropped;
            }
        }
        match r.below(100) {
            0..8 if !self.sql || r.percent(60) => {
                let count = 2 + r.below(4);
                Statement::Transaction((0..count).map(|_| self.single(true)).collect())
            }
            _ => self.single(false),
        }
    }

    fn single(&mut self, inside: bool) -> Statement {
        let r = self.random;
        let Some(at) = (!self.tables.is_empty()).then(|| r.below(self.tables.len())) else {
            return self.create();
        };
        match r.below(100) {
            0..50 => Statement::Insert(self.insert(at)),
            50..60 => Statement::Change(self.delete(at, inside)),
            60..78 => Statement::Change(self.update(at, inside)),
            78..90 => self.alter(at),
            90..92 => Statement::Truncate(self.tables[at].table.clone()),
            92..95 => self.drop_partitions(at),
            95..97 if !inside => self.restore(at),
            97 => {
                let shape = self.tables.remove(at);
                self.dropped.push(shape.clone());
                Statement::Drop(shape.table)
            }
            98 => {
                let to = self.fresh("t");
                let from = std::mem::replace(&mut self.tables[at].table, to.clone());
                Statement::Rename(from, to)
            }
            99 if self.tables.len() < 3 => self.create(),
            _ => Statement::Insert(self.insert(at)),
        }
    }

    /// A time that rows have, in ticks of the column: few, so that they meet.
    fn time(&self, shape: &Shape, unit: TimeUnit) -> i64 {
        let r = self.random;
        let step = match shape.partition_by {
            PartitionUnit::Hour => 3600,
            PartitionUnit::Week => 7 * 86_400,
            _ => 86_400,
        };
        let seconds = START_MICROS / 1_000_000 - step + r.below(3) as i64 * step + r.below(4) as i64 * 60;
        seconds * tandem_types::ticks_per_second(unit)
    }

    fn value(&self, shape: &Shape, column: &Declared) -> Value {
        if shape.timestamp.as_ref() == Some(&column.name)
            && let DataType::Timestamp(unit, _) = &column.data_type
        {
            return Value::Int(self.time(shape, *unit).into());
        }
        if shape.primary_key.contains(&column.name) {
            return match &column.data_type {
                DataType::Utf8 => Value::Text((*self.random.pick(&["a", "b", ""])).to_owned()),
                _ => Value::Int(self.random.below(4) as i128 - 1),
            };
        }
        if column.nullable && self.random.percent(25) {
            return Value::Null;
        }
        terms::constant(self.random, &column.data_type, !self.sql)
    }

    fn insert(&mut self, at: usize) -> Insert {
        let r = self.random;
        let shape = &self.tables[at];
        let needed = |c: &Declared| !c.nullable || shape.primary_key.contains(&c.name);
        let mut columns: Vec<&Declared> =
            shape.columns.iter().filter(|c| needed(c) || r.percent(85)).collect();
        if columns.is_empty() {
            columns.push(&shape.columns[0]);
        }
        if r.percent(30) {
            let (one, other) = (r.below(columns.len()), r.below(columns.len()));
            columns.swap(one, other);
        }
        let batches = if r.percent(20) { 2 } else { 1 };
        let batches = (0..batches)
            .map(|_| {
                let rows = 1 + r.below(7);
                (0..rows).map(|_| columns.iter().map(|c| self.value(shape, c)).collect()).collect()
            })
            .collect();
        let free: Vec<String> = columns
            .iter()
            .filter(|c| !shape.primary_key.contains(&c.name) && shape.timestamp.as_ref() != Some(&c.name))
            .map(|c| c.name.clone())
            .collect();
        let conflict = (!shape.primary_key.is_empty() && r.percent(35)).then(|| match r.below(4) {
            0 => Conflict::Nothing,
            1 if !self.sql => Conflict::Replace,
            2 if !self.sql => Conflict::Merge,
            _ => Conflict::Update(free.into_iter().filter(|_| r.percent(60)).collect()),
        });
        let conflict = match conflict {
            Some(Conflict::Update(columns)) if columns.is_empty() => Some(Conflict::Nothing),
            other => other,
        };
        Insert {
            table: shape.table.clone(),
            columns: columns.iter().map(|c| (c.name.clone(), c.data_type.clone())).collect(),
            batches,
            conflict,
        }
    }

    /// A predicate, and the times that it holds for.
    fn predicate(&self, shape: &Shape) -> (crate::statement::Term, Option<(i64, i64)>) {
        let terms = Terms { random: self.random, shape, plain: false, small: self.sql };
        let times = shape.timestamp.as_ref().and_then(|name| {
            let column = shape.columns.iter().find(|c| c.name == *name)?;
            let DataType::Timestamp(unit, _) = &column.data_type else { return None };
            let (a, b) = (self.time(shape, *unit), self.time(shape, *unit));
            Some((column.clone(), a.min(b), a.max(b)))
        });
        match times {
            Some((column, first, last)) if self.random.percent(35) => {
                let within = terms::between(&column, first, last);
                let whole = match self.random.percent(50) {
                    true => terms::and(within, terms.boolean(2)),
                    false => within,
                };
                (whole, Some((first, last)))
            }
            _ => (terms.boolean(3), None),
        }
    }

    /// What a transaction did is not looked at by what it computes here.
    fn computed(&self, inside: bool) -> bool {
        !inside && self.random.percent(25)
    }

    /// A table and a condition for a query of it: one that no value makes fail.
    pub fn query(&self) -> Option<(String, crate::statement::Term)> {
        let shape = (!self.tables.is_empty()).then(|| self.random.pick(&self.tables))?;
        let terms = Terms { random: self.random, shape, plain: true, small: self.sql };
        let whole = match (self.predicate(shape), self.random.percent(40)) {
            // Its first half is the range of times.
            ((crate::statement::Term::Binary { left, .. }, Some(_)), true) => {
                terms::and(*left, terms.boolean(1))
            }
            _ => terms.boolean(2),
        };
        Some((shape.table.clone(), whole))
    }

    fn delete(&mut self, at: usize, inside: bool) -> Change {
        let shape = &self.tables[at];
        let (predicate, time) = self.predicate(shape);
        let computed = self.computed(inside);
        let change = Change { table: shape.table.clone(), predicate, assignments: None, time, computed };
        self.read = change.reads();
        change
    }

    fn update(&mut self, at: usize, inside: bool) -> Change {
        let r = self.random;
        let shape = &self.tables[at];
        let free: Vec<&Declared> = shape
            .columns
            .iter()
            .filter(|c| !shape.primary_key.contains(&c.name) && shape.timestamp.as_ref() != Some(&c.name))
            .collect();
        if free.is_empty() {
            return self.delete(at, inside);
        }
        let terms = Terms { random: r, shape, plain: false, small: self.sql };
        let (predicate, time) = self.predicate(shape);
        let mut assignments: Vec<(String, crate::statement::Term)> = Vec::new();
        for _ in 0..1 + r.below(2) {
            let column = *r.pick(&free);
            if assignments.iter().all(|(name, _)| *name != column.name) {
                assignments.push((column.name.clone(), terms.of_type(&column.data_type, 2)));
            }
        }
        let computed = self.computed(inside);
        let assignments = Some(assignments);
        let change = Change { table: shape.table.clone(), predicate, assignments, time, computed };
        self.read = change.reads();
        change
    }

    fn drop_column(&mut self, table: &str, column: &str) -> Option<Statement> {
        let shape = self.tables.iter_mut().find(|shape| shape.table == table)?;
        let fixed = shape.primary_key.iter().chain(&shape.timestamp).chain(shape.order_by.iter().flatten());
        if shape.columns.len() < 3 || fixed.into_iter().any(|name| name == column) {
            return None;
        }
        let at = shape.columns.iter().position(|c| c.name == column)?;
        let column = shape.columns.remove(at).name;
        Some(Statement::Alter(table.to_owned(), Alter::Drop(column)))
    }

    fn alter(&mut self, at: usize) -> Statement {
        let r = self.random;
        let name = self.fresh("c");
        let shape = &mut self.tables[at];
        let table = shape.table.clone();
        let column = r.below(shape.columns.len());
        let is_key = shape.primary_key.contains(&shape.columns[column].name);
        let is_time = shape.timestamp.as_ref() == Some(&shape.columns[column].name);
        let is_sort = shape.order_by.as_ref().is_some_and(|by| by.contains(&shape.columns[column].name));
        let alter = match r.below(6) {
            0 => {
                let column = Declared { name, data_type: r.pick(&TYPES).clone(), nullable: true };
                shape.columns.push(column.clone());
                Alter::Add(column)
            }
            1 if shape.columns.len() > 2 && !is_key && !is_time && !is_sort => {
                Alter::Drop(shape.columns.remove(column).name)
            }
            2 => {
                let old = std::mem::replace(&mut shape.columns[column].name, name.clone());
                for named in shape.primary_key.iter_mut().chain(shape.timestamp.as_mut()) {
                    if *named == old {
                        named.clone_from(&name);
                    }
                }
                for named in shape.order_by.iter_mut().flatten().filter(|named| **named == old) {
                    named.clone_from(&name);
                }
                Alter::Rename(old, name)
            }
            3 => {
                let wider = match &shape.columns[column].data_type {
                    DataType::Int8 => {
                        Some(r.pick(&[DataType::Int32, DataType::Float32, DataType::Int64]).clone())
                    }
                    DataType::UInt8 => Some(r.pick(&[DataType::Int32, DataType::Float64]).clone()),
                    DataType::Int32 if is_key => Some(DataType::Int64),
                    DataType::Int32 => Some(r.pick(&[DataType::Int64, DataType::Float64]).clone()),
                    DataType::Float32 => Some(DataType::Float64),
                    _ => None,
                };
                match wider {
                    Some(to) => {
                        shape.columns[column].data_type = to.clone();
                        Alter::Widen(shape.columns[column].name.clone(), to)
                    }
                    None => return Statement::Insert(self.insert(at)),
                }
            }
            4 if !is_key && !is_time && !shape.columns[column].nullable => {
                shape.columns[column].nullable = true;
                Alter::DropNotNull(shape.columns[column].name.clone())
            }
            5 if !shape.primary_key.is_empty() => Alter::OnDuplicate(Some(*r.pick(&POLICIES))),
            _ => return Statement::Insert(self.insert(at)),
        };
        Statement::Alter(table, alter)
    }

    fn drop_partitions(&mut self, at: usize) -> Statement {
        let shape = &self.tables[at];
        let unit = shape.columns.iter().find_map(|c| match &c.data_type {
            DataType::Timestamp(unit, _) if shape.timestamp.as_ref() == Some(&c.name) => Some(*unit),
            _ => None,
        });
        match unit {
            Some(unit) if shape.partition_by != PartitionUnit::None => {
                let times: Vec<i64> = (0..1 + self.random.below(2)).map(|_| self.time(shape, unit)).collect();
                let by = shape.partition_by;
                let mut labels: Vec<String> =
                    times.iter().map(|time| by.label(by.partition(*time, unit))).collect();
                labels.sort();
                labels.dedup();
                Statement::DropPartitions(shape.table.clone(), times, labels)
            }
            _ => Statement::Insert(self.insert(at)),
        }
    }

    fn restore(&mut self, at: usize) -> Statement {
        let back = 1 + self.random.below(8) as u64;
        if !self.dropped.is_empty() && self.random.percent(60) {
            let shape = self.dropped.remove(self.random.below(self.dropped.len()));
            let table = shape.table.clone();
            self.tables.push(shape);
            return Statement::Restore(table, back);
        }
        Statement::Restore(self.tables[at].table.clone(), back)
    }
}
