//! What a write is told by: two writes under one token are the same one if these digests are equal.
//!
//! They are made of logical values, before defaults, casts and batching: a client that cuts its rows into other
//! batches, or encodes them otherwise, when it tries again is understood.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow_schema::Schema;
use sha2::{Digest, Sha256};
use tandem_datafile::RowDigest;
use tandem_types::{ColumnId, Error, Result, TableName};

/// Of a statement: its text, what unqualified names in it mean, and the parameters bound to it.
pub(crate) fn statement_digest(
    schema: &str,
    text: &str,
    parameters: Option<&RecordBatch>,
) -> Result<Vec<u8>> {
    let mut rows = RowDigest::default();
    if let Some(parameters) = parameters {
        let ids: Vec<ColumnId> = (0..).map(ColumnId).take(parameters.num_columns()).collect();
        rows.add(parameters, &ids)?;
    }
    let text = text.trim().trim_end_matches(';').trim_end();
    Ok(hash("statement", &[schema.as_bytes(), text.as_bytes()], &rows))
}

/// Of rows for a table, in whatever batches and order of columns they come.
#[derive(Clone, Debug)]
pub struct AppendDigest {
    table: TableName,
    /// Sorted.
    names: Vec<String>,
    /// Of the columns as they come: each one's place among the sorted names.
    ids: Vec<ColumnId>,
    rows: RowDigest,
}

impl AppendDigest {
    /// `schema` is that of every batch to come.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if two columns have one name.
    pub fn new(table: &TableName, schema: &Schema) -> Result<Self> {
        let mut sorted = BTreeMap::new();
        for field in schema.fields() {
            if sorted.insert(field.name().as_str(), ColumnId(0)).is_some() {
                return Err(Error::invalid(format!("column {:?} is there twice", field.name())));
            }
        }
        for (place, id) in (0..).zip(sorted.values_mut()) {
            *id = ColumnId(place);
        }
        let ids = schema.fields().iter().filter_map(|f| sorted.get(f.name().as_str()).copied()).collect();
        let names = sorted.into_keys().map(str::to_owned).collect();
        Ok(Self { table: table.clone(), names, ids, rows: RowDigest::default() })
    }

    /// Takes in the rows of a batch.
    ///
    /// # Errors
    ///
    /// `Unsupported` if a type has no digest.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows.add(batch, &self.ids)
    }

    /// The digest of all rows taken in.
    pub fn finish(&self) -> Vec<u8> {
        let table = [self.table.schema.as_bytes(), self.table.table.as_bytes()];
        let parts: Vec<&[u8]> = table.into_iter().chain(self.names.iter().map(String::as_bytes)).collect();
        hash("append", &parts, &self.rows)
    }
}

fn hash(kind: &str, parts: &[&[u8]], rows: &RowDigest) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in [kind.as_bytes()].iter().chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(rows.rows.to_le_bytes());
    hasher.update(rows.sum.to_le_bytes());
    let hash: [u8; 32] = hasher.finalize().into();
    hash.to_vec()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    fn digest(table: &str, batches: &[RecordBatch]) -> Vec<u8> {
        let mut digest = AppendDigest::new(&TableName::public(table), &batches[0].schema()).unwrap();
        batches.iter().for_each(|b| digest.add(b).unwrap());
        digest.finish()
    }

    #[test]
    fn batches_encodings_and_the_order_of_columns_do_not_matter_and_values_do() {
        let ints = |v: Vec<i64>| Arc::new(Int64Array::from(v)) as ArrayRef;
        let text = |v: Vec<&str>| Arc::new(StringArray::from(v)) as ArrayRef;
        let whole = batch(vec![("a", ints(vec![1, 2, 3])), ("b", text(vec!["x", "y", "z"]))]);
        let expected = digest("t", std::slice::from_ref(&whole));
        assert_eq!(expected.len(), 32);
        assert_eq!(digest("t", &[whole.slice(0, 1), whole.slice(1, 2)]), expected);
        let narrow = Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef;
        let views = Arc::new(StringViewArray::from(vec!["x", "y", "z"])) as ArrayRef;
        assert_eq!(digest("t", &[batch(vec![("b", views), ("a", narrow)])]), expected);

        let swapped = batch(vec![("a", ints(vec![2, 1, 3])), ("b", text(vec!["x", "y", "z"]))]);
        let renamed = batch(vec![("a", ints(vec![1, 2, 3])), ("c", text(vec!["x", "y", "z"]))]);
        for other in
            [digest("t", &[swapped]), digest("t", &[renamed]), digest("u", std::slice::from_ref(&whole))]
        {
            assert_ne!(other, expected);
        }
        let twice =
            Schema::new([whole.schema().fields().to_vec(), whole.schema().fields().to_vec()].concat());
        assert!(AppendDigest::new(&TableName::public("t"), &twice).unwrap_err().message().contains("\"a\""));
    }

    #[test]
    fn a_statement_is_its_text_its_schema_and_its_parameters() {
        let params = |v: i64| batch(vec![("$1", Arc::new(Int64Array::from(vec![v])) as ArrayRef)]);
        let digest = |schema: &str, text: &str, p: Option<RecordBatch>| {
            statement_digest(schema, text, p.as_ref()).unwrap()
        };
        let one = digest("public", "INSERT INTO t VALUES ($1)", Some(params(1)));
        assert_eq!(digest("public", " INSERT INTO t VALUES ($1) ; ", Some(params(1))), one);
        let narrow = batch(vec![("$1", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]);
        assert_eq!(digest("public", "INSERT INTO t VALUES ($1)", Some(narrow)), one);
        for other in [
            digest("public", "INSERT INTO t VALUES ($1)", Some(params(2))),
            digest("public", "INSERT INTO t VALUES ($1)", None),
            digest("s", "INSERT INTO t VALUES ($1)", Some(params(1))),
            digest("public", "INSERT INTO u VALUES ($1)", Some(params(1))),
        ] {
            assert_ne!(other, one);
        }
    }
}
