//! What a parser makes of a body.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use tandem_lines::{
    Catalog, Diverted, KnownTable, Limits, LineError, Parser, Precision, Rules, Settings, TableBatch,
};

use super::random::Random;

/// Tables that exist, and what they ask.
#[derive(Clone, Debug, Default)]
pub struct Known {
    tables: BTreeMap<String, KnownTable>,
    rules: Rules,
}

impl Catalog for Known {
    fn table(&self, name: &str) -> Option<KnownTable> {
        self.tables.get(name).cloned()
    }

    fn rules(&self, _: &str) -> Rules {
        self.rules.clone()
    }
}

impl Known {
    pub fn any(random: &mut Random) -> Self {
        let mut known = Self::default();
        if random.one_in(2) {
            return known;
        }
        let types = [
            DataType::Int16,
            DataType::Int64,
            DataType::UInt8,
            DataType::Float32,
            DataType::Float64,
            DataType::Boolean,
            DataType::Utf8,
            DataType::Utf8View,
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Decimal128(10, 2),
            DataType::Decimal256(60, 5),
            DataType::Date32,
            DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))),
        ];
        for table in ["t", "known"] {
            let names = ["a", "b", "x", "y", "host", "v"].iter().filter(|_| random.one_in(2));
            let names: Vec<&str> = names.copied().collect();
            let mut fields: Vec<Field> =
                names.iter().map(|name| Field::new(*name, random.pick(&types).clone(), true)).collect();
            let unit = *random.pick(&[TimeUnit::Second, TimeUnit::Microsecond, TimeUnit::Nanosecond]);
            fields.push(Field::new("ts", DataType::Timestamp(unit, None), false));
            let timestamp = (!random.one_in(4)).then(|| "ts".to_owned());
            let found = KnownTable { timestamp, columns: Arc::new(Schema::new(fields)) };
            known.tables.insert(table.to_owned(), found);
        }
        if random.one_in(3) {
            known.rules.fixed = random.one_in(4);
            known.rules.required = if random.one_in(4) { vec!["x".to_owned()] } else { Vec::new() };
            known.rules.tags = random.one_in(4).then(|| ["a", "host", "region"].map(str::to_owned).to_vec());
        }
        known
    }

    /// Lines with a value of a wrong type are kept aside.
    pub fn diverting(mut self, divert: bool) -> Self {
        self.rules.divert = divert;
        self
    }
}

/// Settings, mostly with narrow bounds.
pub fn settings(random: &mut Random) -> Settings {
    let precisions = [
        Precision::Nanosecond,
        Precision::Microsecond,
        Precision::Millisecond,
        Precision::Second,
        Precision::Hour,
        Precision::Auto,
    ];
    let mut limits = Limits::default();
    if random.one_in(2) {
        limits = Limits {
            line_bytes: random.within(10, 400),
            columns: random.within(1, 12),
            tables: random.within(1, 5),
            names: random.within(1, 20),
            batch_bytes: random.within(50, 4000),
            errors: random.below(12),
        };
    }
    // Nobody vouches for what a client says of its body.
    let body_bytes = *random.pick(&[None, Some(0), Some(1 << 14), Some(u64::MAX)]);
    Settings { precision: *random.pick(&precisions), now: 7_000_000_000, body_bytes, limits }
}

/// What became of a body.
#[derive(Debug, PartialEq)]
pub struct Read {
    pub batches: Vec<TableBatch>,
    pub errors: Vec<LineError>,
    pub diverted: Vec<Diverted>,
    pub rows: u64,
    pub failed: u64,
    pub all_stamped: bool,
}

pub fn read<'a>(settings: Settings, known: &Known, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut parser = Parser::new(settings, Arc::new(known.clone()));
    let (mut batches, mut diverted) = (Vec::new(), Vec::new());
    for piece in pieces {
        parser.feed(piece).unwrap();
        batches.append(&mut parser.take());
        diverted.append(&mut parser.take_diverted());
    }
    parser.finish().unwrap();
    batches.append(&mut parser.take());
    diverted.append(&mut parser.take_diverted());
    let read = Read {
        batches,
        errors: parser.errors().to_vec(),
        diverted,
        rows: parser.rows(),
        failed: parser.failed(),
        all_stamped: parser.all_stamped(),
    };
    let rows: usize = read.batches.iter().map(|batch| batch.batch.num_rows()).sum();
    assert_eq!(rows as u64, read.rows, "rows that were read are in batches");
    assert_eq!(read.errors.len() as u64, read.failed.min(settings.limits.errors as u64));
    assert!(read.errors.windows(2).all(|two| two[0].line < two[1].line), "errors are in order");
    read
}

/// A row's values as text, by column; nulls are left out.
pub type Row = BTreeMap<String, String>;

/// The rows of each table, in order.
pub fn rows(read: &Read) -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for batch in &read.batches {
        let rows = tables.entry(batch.table.clone()).or_default();
        rows.append(&mut rows_of(&batch.batch));
    }
    tables
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let mut rows = vec![Row::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = match column.data_type() {
            DataType::Dictionary(..) => cast(column, &DataType::Utf8).unwrap(),
            DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap(),
            DataType::Float32 => cast(column, &DataType::Float64).unwrap(),
            _ => column.clone(),
        };
        let floats = column.as_primitive_opt::<Float64Type>();
        for (index, row) in rows.iter_mut().enumerate().filter(|(index, _)| column.is_valid(*index)) {
            let shown = match floats {
                Some(floats) => format!("{:?}", floats.value(index)),
                None => array_value_to_string(&column, index).unwrap(),
            };
            row.insert(field.name().clone(), shown);
        }
    }
    rows
}

/// Whether two rows say the same: an integer may have gone into a column of floats.
pub fn alike(a: &Row, b: &Row) -> bool {
    let number = |text: &String| text.parse::<f64>().ok();
    let same = |a: &String, b: &String| a == b || (number(a).is_some() && number(a) == number(b));
    a.len() == b.len() && a.iter().zip(b).all(|((a, left), (b, right))| a == b && same(left, right))
}
