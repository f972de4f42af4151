//! JSON objects, one a line or in one array.
//!
//! Scalars are decoded as the text they were written in and cast like delimited text, so that a number
//! too large or with a fraction is an error that names line and column, never a rounded value.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::json::ReaderBuilder;
use arrow::json::reader::{Decoder, infer_json_schema_from_iterator};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use tandem_types::{Error, Result};

use super::json_records::JsonRecords;
use super::text::{CastFailure, Guess, cast_text, excerpt, merge_types};

const BATCH_ROWS: usize = 8192;

/// Guesses the columns and their types from at most `rows_max` objects, in the order they first appear.
pub fn infer(
    name: &str,
    content: Box<dyn BufRead + Send>,
    rows_max: Option<u64>,
) -> Result<Vec<(String, DataType)>> {
    let mut records = JsonRecords::new(name, content);
    let mut columns: Vec<(String, JsonGuess)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut record = Vec::new();
    let mut left = rows_max.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(line) = records.read(&mut record)? else { break };
        left -= 1;
        for (key, value) in object(name, line, &record)? {
            let place = *places.entry(key).or_insert_with_key(|key| {
                columns.push((key.clone(), JsonGuess::default()));
                columns.len() - 1
            });
            if let Some((column, guess)) = columns.get_mut(place) {
                guess.see(&value).map_err(|e| e.context(format!("{name}:{line}: column {column}")))?;
            }
        }
    }
    columns
        .into_iter()
        .map(|(column, guess)| match guess.data_type() {
            Ok(data_type) => Ok((column, data_type)),
            Err(e) => Err(e.context(format!("{name}: column {column}"))),
        })
        .collect()
}

#[derive(Default)]
struct JsonGuess {
    scalars: Guess,
    nested: Option<DataType>,
}

impl JsonGuess {
    fn see(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Null => {}
            Value::Bool(_) => self.scalars.see("true"),
            Value::Number(n) => self.scalars.see(&n.to_string()),
            Value::String(text) => self.scalars.see_string(text),
            Value::Array(_) | Value::Object(_) => {
                let schema = infer_json_schema_from_iterator(std::iter::once(Ok(json!({ "v": value }))))
                    .map_err(|e| Error::invalid(format!("the nested value has no one type: {e}")))?;
                let seen = schema.fields().first().map_or(DataType::Null, |f| f.data_type().clone());
                let merged =
                    self.nested.as_ref().map_or(Some(seen.clone()), |before| merge_nested(before, &seen));
                self.nested = Some(merged.ok_or_else(|| {
                    Error::invalid(format!("the nested value is {seen}, earlier ones are {:?}", self.nested))
                })?);
            }
        }
        Ok(())
    }

    fn data_type(self) -> Result<DataType> {
        match (self.nested, self.scalars.data_type()) {
            (None, scalar) => Ok(scalar),
            (Some(nested), DataType::Null) => Ok(nulls_as_text(&nested)),
            (Some(nested), scalar) => Err(Error::invalid(format!("holds both {nested} and {scalar}"))),
        }
    }
}

fn merge_nested(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (DataType::List(x), DataType::List(y)) => {
            let item = merge_nested(x.data_type(), y.data_type())?;
            Some(DataType::List(Arc::new(x.as_ref().clone().with_data_type(item))))
        }
        (DataType::Struct(x), DataType::Struct(y)) => {
            let mut fields: Vec<Field> = x.iter().map(|f| f.as_ref().clone()).collect();
            for field in y {
                match fields.iter_mut().find(|f| f.name() == field.name()) {
                    Some(same) => same.set_data_type(merge_nested(same.data_type(), field.data_type())?),
                    None => fields.push(field.as_ref().clone()),
                }
            }
            Some(DataType::Struct(fields.into()))
        }
        _ => merge_types(a, b, true),
    }
}

/// Members and items of which only nulls were seen must have some type.
fn nulls_as_text(t: &DataType) -> DataType {
    let inner = |f: &FieldRef| Arc::new(f.as_ref().clone().with_data_type(nulls_as_text(f.data_type())));
    match t {
        DataType::Null => DataType::Utf8,
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Struct(members) => DataType::Struct(members.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// The objects of a file as batches of some columns, up to the first error.
pub struct JsonBatches {
    name: String,
    records: JsonRecords,
    schema: SchemaRef,
    /// The schema with text for scalars.
    raw: SchemaRef,
    done: bool,
}

impl JsonBatches {
    pub fn new(name: &str, content: Box<dyn BufRead + Send>, fields: Vec<FieldRef>) -> Self {
        let raw = |f: &FieldRef| match f.data_type().is_nested() {
            true => f.clone(),
            false => Arc::new(Field::new(f.name(), DataType::Utf8, true)),
        };
        let raw = Arc::new(Schema::new(fields.iter().map(raw).collect::<Vec<_>>()));
        let schema = Arc::new(Schema::new(fields));
        Self { name: name.to_owned(), records: JsonRecords::new(name, content), schema, raw, done: false }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let (mut text, mut record) = (Vec::new(), Vec::new());
        // Where each record begins in the text, and its line in the file.
        let mut places: Vec<(usize, u64)> = Vec::new();
        while places.len() < BATCH_ROWS {
            let Some(line) = self.records.read(&mut record)? else {
                self.done = true;
                break;
            };
            places.push((text.len(), line));
            text.extend_from_slice(&record);
            text.push(b'\n');
        }
        if places.is_empty() {
            return Ok(None);
        }
        let raw = match self.decode(&self.raw, &text) {
            Ok(Some(raw)) if raw.num_rows() == places.len() => raw,
            Ok(_) => return Err(self.find_fault(&text, &places, "holds something else than objects")),
            Err(e) => return Err(self.find_fault(&text, &places, &e)),
        };
        let columns = self.schema.fields().iter().zip(raw.columns());
        let columns: Vec<ArrayRef> =
            columns.map(|(field, column)| self.cast(field, column, &places)).collect::<Result<_>>()?;
        RecordBatch::try_new(self.schema.clone(), columns)
            .map(Some)
            .map_err(|e| Error::internal(format!("{}: cannot form a batch: {e}", self.name)))
    }

    fn decode(&self, schema: &SchemaRef, text: &[u8]) -> Result<Option<RecordBatch>, String> {
        let mut decoder: Decoder = ReaderBuilder::new(schema.clone())
            .with_batch_size(BATCH_ROWS)
            .with_coerce_primitive(true)
            .with_strict_mode(true)
            .build_decoder()
            .map_err(|e| e.to_string())?;
        let taken = decoder.decode(text).map_err(|e| e.to_string())?;
        if text.get(taken..).is_some_and(|rest| !rest.trim_ascii().is_empty()) {
            return Err("more than one value on a line".to_owned());
        }
        decoder.flush().map_err(|e| e.to_string())
    }

    fn cast(&self, field: &FieldRef, column: &ArrayRef, places: &[(usize, u64)]) -> Result<ArrayRef> {
        let Some(texts) = column.as_string_opt::<i32>().filter(|_| !field.data_type().is_nested()) else {
            return Ok(column.clone());
        };
        let texts: Arc<StringArray> = Arc::new(texts.clone());
        let (name, key, to) = (&self.name, field.name(), field.data_type());
        cast_text(&texts, to).map_err(|failure| match failure {
            CastFailure::Row(row) => {
                let line = places.get(row).map_or(0, |p| p.1);
                let value = excerpt(texts.value(row));
                Error::invalid(format!("{name}:{line}: column {key}: cannot read {value} as {to}"))
            }
            CastFailure::Type(why) => {
                Error::unsupported(format!("{name}: column {key}: text cannot be read as {to}: {why}"))
            }
        })
    }

    /// Looks again, record by record, for what the decoder could not place.
    fn find_fault(&self, text: &[u8], places: &[(usize, u64)], message: &str) -> Error {
        let ends = places.iter().skip(1).map(|p| p.0).chain([text.len()]);
        for ((start, line), end) in places.iter().zip(ends) {
            let record = text.get(*start..end).unwrap_or_default();
            if !matches!(self.decode(&self.raw, record), Ok(Some(batch)) if batch.num_rows() == 1) {
                return self.explain(*line, record, message);
            }
        }
        Error::invalid(format!("{}: cannot read the objects: {message}", self.name))
    }

    fn explain(&self, line: u64, record: &[u8], message: &str) -> Error {
        let name = &self.name;
        let members = match object(name, line, record) {
            Ok(members) => members,
            Err(error) => return error,
        };
        for (key, value) in members {
            let Ok(field) = self.raw.field_with_name(&key) else {
                return Error::invalid(format!("{name}:{line}: column {key}: there is no such column"));
            };
            let alone = Arc::new(Schema::new(vec![field.clone()]));
            let text = json!({ key.as_str(): value }).to_string();
            if self.decode(&alone, text.as_bytes()).is_err() {
                let (value, to) = (excerpt(&value.to_string()), field.data_type());
                return Error::invalid(format!("{name}:{line}: column {key}: cannot read {value} as {to}"));
            }
        }
        Error::invalid(format!("{name}:{line}: cannot read the object: {message}"))
    }
}

impl Iterator for JsonBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.next_batch();
        self.done |= batch.is_err();
        batch.transpose()
    }
}

/// The members of an object in the order they are written in, which `serde_json::Map` does not keep.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn object(name: &str, line: u64, record: &[u8]) -> Result<Vec<(String, Value)>> {
    match serde_json::from_slice(record) {
        Ok(Members(members)) => Ok(members),
        Err(e) if e.is_data() => {
            let value = excerpt(&String::from_utf8_lossy(record));
            Err(Error::invalid(format!("{name}:{line}: expected an object, found {value}")))
        }
        Err(e) => {
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(Error::invalid(format!("{name}:{line}: not valid JSON at character {}: {what}", e.column())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use arrow::array::Array;
    use arrow::datatypes::Int64Type;

    use super::*;

    fn content(text: &str) -> Box<dyn BufRead + Send> {
        Box::new(Cursor::new(text.to_owned().into_bytes()))
    }

    fn load(text: &str, fields: &[(&str, DataType)]) -> Result<Vec<RecordBatch>> {
        let fields = fields.iter().map(|(n, t)| Arc::new(Field::new(*n, t.clone(), true))).collect();
        JsonBatches::new("f.jsonl", content(text), fields).collect()
    }

    #[test]
    fn columns_are_inferred_over_all_objects() {
        let text = "{\"b\":1,\"t\":\"2013-01-01T00:00:00Z\",\"l\":[1]}\n\n{\"b\":2.5,\"x\":null,\"s\":\"12\",\"l\":[2.5]}\n";
        let types = infer("f", content(text), None).unwrap();
        let names: Vec<&str> = types.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "t", "l", "x", "s"]);
        let of = |name: &str| types.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(of("b"), DataType::Float64);
        assert_eq!(of("t"), DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None));
        assert_eq!((of("x"), of("s")), (DataType::Null, DataType::Utf8));
        assert!(matches!(of("l"), DataType::List(f) if *f.data_type() == DataType::Float64));
        assert!(infer("f", content("{\"a\":1}\n{\"a\":[1]}"), None).is_err());
    }

    #[test]
    fn lines_and_arrays_give_the_same_rows() {
        let fields = [("i", DataType::Int64), ("t", DataType::Utf8)];
        let lines = load("{\"i\":1,\"t\":\"a\"}\n{\"t\":2}\n", &fields).unwrap();
        let array = load("[ {\"i\":1,\"t\":\"a\"},\n {\"t\":2} ]", &fields).unwrap();
        assert_eq!(lines, array);
        assert_eq!(
            lines[0].column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
            [Some(1), None]
        );
        assert_eq!(lines[0].column(1).as_string::<i32>().value(1), "2");
        assert!(lines[0].column(0).is_null(1));
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        let list = DataType::new_list(DataType::Int64, true);
        let fields = [("i", DataType::Int64), ("l", list)];
        for (text, message) in [
            ("{\"i\":1}\n\n{\"i\":1.5}\n", "f.jsonl:3: column i: cannot read \"1.5\" as Int64"),
            ("{\"i\":1}\n{\"i\":\"x\"}\n", "f.jsonl:2: column i: cannot read \"x\" as Int64"),
            ("{\"i\":1}\n{\"j\":1}\n", "f.jsonl:2: column j: there is no such column"),
            ("{\"i\":1}\n{\"l\":{}}\n", "f.jsonl:2: column l: cannot read \"{}\" as "),
            ("{\"i\":1}\n{\"i\":[1]}\n", "f.jsonl:2: column i: cannot read \"[1]\" as "),
            ("{\"i\":1}\n[1]\n", "f.jsonl:2: expected an object"),
            ("{\"i\":1}\n{\"i\":}\n", "f.jsonl:2: not valid JSON at character 6"),
            ("{\"i\":1}\n{\"i\":1\n{\"i\":2}\n", "f.jsonl:2: not valid JSON"),
            ("[{\"i\":1},\n{\"i\":1.5}]", "f.jsonl:2: column i: cannot read \"1.5\" as Int64"),
        ] {
            let error = load(text, &fields).unwrap_err();
            assert!(error.message().starts_with(message), "{text}: {error}");
        }
    }
}
