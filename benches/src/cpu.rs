//! The `cpu-only` use case of the Time Series Benchmark Suite, in its shape: hosts that report ten measurements
//! every ten seconds.
//!
//! A row is `ts`, ten tags that never change for a host, and ten integers: the integer part of a random walk in
//! [0, 100] whose start is uniform and whose steps are N(0, 1), stopped at the ends. Rows come tick by tick, and
//! within a tick host by host.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampNanosecondArray, types::Int32Type};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::random::Random;

/// 2016-01-01T00:00:00Z in nanoseconds.
pub const START: i64 = 1_451_606_400_000_000_000;
/// Nanoseconds from one tick to the next.
pub const INTERVAL: i64 = 10_000_000_000;
/// Ticks of a day.
pub const TICKS_PER_DAY: u64 = 8_640;

/// The tags, in the order of the columns.
pub const TAGS: [&str; 10] = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
];

/// The measurements, in the order of the columns.
pub const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];

/// Regions, and in how many parts each has its data centers.
const REGIONS: [(&str, usize); 9] = [
    ("us-east-1", 4),
    ("us-west-1", 2),
    ("us-west-2", 3),
    ("eu-west-1", 3),
    ("eu-central-1", 2),
    ("ap-southeast-1", 2),
    ("ap-southeast-2", 2),
    ("ap-northeast-1", 2),
    ("sa-east-1", 3),
];
const SYSTEMS: [&str; 3] = ["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"];
const ARCHITECTURES: [&str; 2] = ["x64", "x86"];
const TEAMS: [&str; 4] = ["SF", "NYC", "LON", "CHI"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "test"];

/// The highest value of a measurement.
const MAX: f64 = 100.0;

/// The columns of every batch.
pub fn schema() -> SchemaRef {
    let tag = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), false);
    let tags = TAGS.iter().map(|name| Field::new(*name, tag(), true));
    let fields = FIELDS.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(std::iter::once(ts).chain(tags).chain(fields).collect::<Vec<_>>()))
}

/// The statement that makes a table for the batches, partitioned by `unit` (`DAY`, `HOUR`, …).
pub fn create_table(table: &str, unit: &str) -> String {
    let tags = TAGS.map(|name| format!("{name} SYMBOL")).join(", ");
    let fields = FIELDS.map(|name| format!("{name} BIGINT")).join(", ");
    format!(
        "CREATE TABLE {table} (ts TIMESTAMP, {tags}, {fields}) \
         TIMESTAMP(ts) PARTITION BY {unit} ORDER BY (hostname, ts)"
    )
}

/// One column of tags: its distinct values, and which of them each host has.
#[derive(Debug)]
struct Tag {
    values: ArrayRef,
    of_host: Vec<i32>,
}

impl Tag {
    fn new(of_host: impl Iterator<Item = String>) -> Self {
        let mut values: Vec<String> = Vec::new();
        let mut known = std::collections::HashMap::new();
        let of_host = of_host.map(|value| {
            *known.entry(value).or_insert_with_key(|value| {
                values.push(value.clone());
                values.len() as i32 - 1
            })
        });
        let of_host = of_host.collect();
        Self { values: Arc::new(StringArray::from(values)), of_host }
    }
}

/// Makes batch after batch, without end.
#[derive(Debug)]
pub struct Generator {
    schema: SchemaRef,
    tags: Vec<Tag>,
    random: Random,
    hosts: usize,
    /// Measurement after measurement, each for all hosts.
    walks: Vec<f64>,
    tick: i64,
    host: usize,
}

impl Generator {
    /// Rows of `hosts` hosts, at least one; the suite's usual number is 1,000.
    pub fn new(seed: u64, hosts: usize) -> Self {
        let hosts = hosts.max(1);
        let mut random = Random::new(seed);
        let walks = (0..FIELDS.len() * hosts).map(|_| random.unit() * MAX).collect();
        let tags = tags(&mut random, hosts);
        Self { schema: schema(), tags, random, hosts, walks, tick: 0, host: 0 }
    }

    /// The next `rows` rows.
    ///
    /// # Errors
    ///
    /// None that the columns made here can cause; Arrow checks them again.
    pub fn batch(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let mut times = Vec::with_capacity(rows);
        let mut hosts = Vec::with_capacity(rows);
        let mut fields: Vec<Vec<i64>> = FIELDS.iter().map(|_| Vec::with_capacity(rows)).collect();
        for _ in 0..rows {
            times.push(START + self.tick * INTERVAL);
            hosts.push(self.host);
            for (field, values) in fields.iter_mut().enumerate() {
                if let Some(walk) = self.walks.get_mut(field * self.hosts + self.host) {
                    values.push(*walk as i64);
                    *walk = (*walk + self.random.normal()).clamp(0.0, MAX);
                }
            }
            self.host += 1;
            if self.host == self.hosts {
                self.host = 0;
                self.tick += 1;
            }
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(times))];
        for tag in &self.tags {
            let keys = Int32Array::from_iter(hosts.iter().map(|host| tag.of_host.get(*host).copied()));
            columns.push(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, tag.values.clone())?));
        }
        columns.extend(fields.into_iter().map(|values| Arc::new(Int64Array::from(values)) as ArrayRef));
        RecordBatch::try_new(self.schema.clone(), columns)
    }

    /// `rows` rows in batches of `batch_rows`, the last one perhaps smaller.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub fn batches(&mut self, rows: usize, batch_rows: usize) -> Result<Vec<RecordBatch>, ArrowError> {
        let batch_rows = batch_rows.max(1);
        (0..rows).step_by(batch_rows).map(|at| self.batch(batch_rows.min(rows - at))).collect()
    }
}

fn tags(random: &mut Random, hosts: usize) -> Vec<Tag> {
    let mut columns: Vec<Vec<String>> = TAGS.iter().map(|_| Vec::with_capacity(hosts)).collect();
    let pick =
        |random: &mut Random, of: &[&str]| of.get(random.below(of.len())).copied().unwrap_or("").to_owned();
    for host in 0..hosts {
        let (region, parts) = REGIONS.get(random.below(REGIONS.len())).copied().unwrap_or(("", 1));
        let part = char::from(b'a' + random.below(parts) as u8);
        let values = [
            format!("host_{host}"),
            region.to_owned(),
            format!("{region}{part}"),
            random.below(100).to_string(),
            pick(random, &SYSTEMS),
            pick(random, &ARCHITECTURES),
            pick(random, &TEAMS),
            random.below(20).to_string(),
            random.below(2).to_string(),
            pick(random, &ENVIRONMENTS),
        ];
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    columns.into_iter().map(|column| Tag::new(column.into_iter())).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Int64Type, TimestampNanosecondType};

    use super::*;

    #[test]
    fn rows_depend_on_the_seed_and_not_on_the_batch_size() {
        let mut whole = Generator::new(7, 13);
        let whole = whole.batch(1_000).unwrap();
        let pieces = Generator::new(7, 13).batches(1_000, 33).unwrap();
        assert_eq!(pieces.len(), 31);
        assert_eq!(concat_batches(&schema(), &pieces).unwrap(), whole);
        assert_ne!(Generator::new(8, 13).batch(1_000).unwrap(), whole);
    }

    #[test]
    fn ticks_follow_each_other_and_each_has_all_hosts() {
        let batch = Generator::new(1, 4).batch(10).unwrap();
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let ticks: Vec<i64> = times.values().iter().map(|t| (t - START) / INTERVAL).collect();
        assert_eq!(ticks, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        let hosts = batch.column(1).as_dictionary::<Int32Type>();
        let names = hosts.downcast_dict::<StringArray>().unwrap();
        let names: Vec<&str> = names.into_iter().flatten().collect();
        assert_eq!(names[..5], ["host_0", "host_1", "host_2", "host_3", "host_0"]);
    }

    #[test]
    fn measurements_walk_in_small_steps_between_0_and_100() {
        let batch = Generator::new(3, 1).batch(20_000).unwrap();
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for column in 11..21 {
            let values = batch.column(column).as_primitive::<Int64Type>().values();
            // The integer parts of a step of six standard deviations differ by seven at most.
            assert!(values.windows(2).all(|w| (w[0] - w[1]).abs() <= 7));
            assert!(values.windows(2).any(|w| w[0] != w[1]), "it moves");
            min = min.min(*values.iter().min().unwrap());
            max = max.max(*values.iter().max().unwrap());
        }
        assert!(
            (0..10).contains(&min) && (91..=100).contains(&max),
            "all of the range is reached: {min} {max}"
        );
    }

    #[test]
    fn a_host_keeps_its_tags_and_its_datacenter_lies_in_its_region() {
        let batch = Generator::new(5, 50).batch(150).unwrap();
        let text = |column: usize, row: usize| {
            let tag = batch.column(column).as_dictionary::<Int32Type>();
            tag.downcast_dict::<StringArray>().unwrap().into_iter().nth(row).flatten().unwrap().to_owned()
        };
        for row in 0..50 {
            assert!((1..=10).all(|column| text(column, row) == text(column, row + 100)));
            assert!(text(3, row).starts_with(&text(2, row)));
        }
    }
}
