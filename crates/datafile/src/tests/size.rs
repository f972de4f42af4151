//! How many bytes a row of machine metrics takes: the shape of TSBS `cpu-only`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow_schema::{DataType, TimeUnit};
use tandem_types::{ColumnId, TableSchema};

use super::schema;
use crate::{WriteSpec, write_file};

const TAGS: [(&str, u64); 10] = [
    ("hostname", 0),
    ("region", 9),
    ("datacenter", 25),
    ("rack", 100),
    ("os", 3),
    ("arch", 2),
    ("team", 4),
    ("service", 20),
    ("service_version", 2),
    ("service_environment", 3),
];

/// A small generator of our own: the numbers must not change with a library.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit().max(1e-300), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

pub(crate) fn cpu_schema() -> TableSchema {
    let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut columns: Vec<(String, DataType)> = vec![];
    columns.extend(TAGS.iter().map(|(name, _)| ((*name).to_owned(), tag.clone())));
    columns.push(("ts".to_owned(), DataType::Timestamp(TimeUnit::Nanosecond, None)));
    columns.extend((0..10).map(|i| (format!("usage_{i}"), DataType::Int64)));
    let columns: Vec<(&str, DataType)> = columns.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    schema(&columns)
}

/// Rows of `hosts` machines at `times` points in time each, sorted by host and time.
pub(crate) fn cpu_rows(hosts: usize, times: usize) -> Vec<RecordBatch> {
    let mut chance = Chance(7);
    let schema = cpu_schema();
    (0..hosts)
        .map(|host| {
            let mut columns: Vec<ArrayRef> = Vec::new();
            for (name, values) in TAGS {
                let value = if values == 0 { host as u64 } else { chance.next() % values };
                columns.push(Arc::new(StringArray::from(vec![format!("{name}_{value:04}"); times])));
            }
            let step = 10_000_000_000;
            columns.push(Arc::new(TimestampNanosecondArray::from_iter_values(
                (0..times as i64).map(|t| 1_451_606_400_000_000_000 + t * step),
            )));
            for _ in 0..10 {
                let mut state = chance.unit() * 100.0;
                columns.push(Arc::new(Int64Array::from_iter_values((0..times).map(|_| {
                    state = (state + chance.normal()).clamp(0.0, 100.0);
                    state as i64
                }))));
            }
            let columns = columns.iter().zip(&schema.columns).map(|(a, c)| cast(a, &c.data_type).unwrap());
            RecordBatch::try_new(schema.arrow(), columns.collect()).unwrap()
        })
        .collect()
}

pub(crate) fn cpu_spec() -> WriteSpec {
    WriteSpec {
        schema: cpu_schema(),
        timestamp: Some(ColumnId(11)),
        sort: vec![ColumnId(1), ColumnId(11)],
        ..WriteSpec::default()
    }
}

#[test]
fn machine_metrics_take_few_bytes() {
    let rows = cpu_rows(30, 2_500);
    let (pieces, meta) = write_file(&cpu_spec(), rows.into_iter().map(Ok)).unwrap();
    assert_eq!(pieces.iter().map(|p| p.len() as u64).sum::<u64>(), meta.size);
    let per_row = meta.size as f64 / meta.rows as f64;
    println!("{per_row:.3} bytes per row");
    assert!(per_row <= 3.5, "{per_row:.3} bytes per row");
}
