//! The rows of [`cpu`](crate::cpu) as line protocol, as the suite's writers for it spell them: about 346 bytes a line, ten tags, ten
//! integers with their suffix, and the time in nanoseconds.

use std::io::Write;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use arrow_schema::ArrowError;

use crate::cpu::{FIELDS, TAGS};

/// The table that the lines name.
pub const TABLE: &str = "cpu";

/// The lines of a batch of [`Generator`](crate::cpu::Generator), in its order.
///
/// # Errors
///
/// A batch of other columns.
pub fn lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let other = || ArrowError::SchemaError("the batch is none of this workload".to_owned());
    let column = |name: &str| batch.column_by_name(name).ok_or_else(other);
    let times = column("ts")?.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(other)?;
    let mut tags = Vec::with_capacity(TAGS.len());
    for name in TAGS {
        let tag = column(name)?.as_dictionary_opt::<Int32Type>().ok_or_else(other)?;
        tags.push((name, tag.keys(), tag.values().as_string_opt::<i32>().ok_or_else(other)?));
    }
    let mut fields = Vec::with_capacity(FIELDS.len());
    for name in FIELDS {
        fields.push((name, column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(other)?));
    }

    let mut out = Vec::with_capacity(batch.num_rows() * 360);
    for row in 0..batch.num_rows() {
        out.extend_from_slice(TABLE.as_bytes());
        for (name, keys, texts) in &tags {
            let key = usize::try_from(keys.value(row)).map_err(|_| other())?;
            write!(out, ",{name}={}", texts.value(key))?;
        }
        let mut separator = ' ';
        for (name, values) in &fields {
            write!(out, "{separator}{name}={}i", values.value(row))?;
            separator = ',';
        }
        writeln!(out, " {}", times.value(row))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use crate::cpu::{Generator, START};

    use super::*;

    #[test]
    fn lines_are_as_the_suite_writes_them() {
        let batch = Generator::new(1, 100).batch(1_000).unwrap();
        let text = String::from_utf8(lines(&batch).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1_000);
        assert!(lines[0].starts_with("cpu,hostname=host_0,region="), "{}", lines[0]);
        assert!(lines[0].ends_with(&format!("i {START}")), "{}", lines[0]);
        let bytes = text.len() / 1_000;
        assert!((330..360).contains(&bytes), "{bytes} bytes a line");
        for line in lines {
            let parts: Vec<&str> = line.split(' ').collect();
            assert_eq!(parts.iter().map(|part| part.split(',').count()).collect::<Vec<_>>(), [11, 10, 1]);
        }
        assert!(super::lines(&batch.project(&[0, 1]).unwrap()).is_err());
    }
}
