//! Parameters: what type each has, and values from a client brought to it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Float64Type;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use tandem_types::{Error, Result};

use crate::error::IntoTandem;
use crate::wire::wire_type;

/// More parameters than this are a mistake or an attack.
const PARAMETERS_MAX: usize = 32_767;

/// The parameters of a statement, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// As the statement needs it; `None` where nothing tells.
    types: Vec<Option<DataType>>,
}

impl Parameters {
    /// What a plan says of its placeholders.
    pub(crate) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut types = Vec::new();
        for (name, field) in plan.get_parameter_fields().tandem()? {
            let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            let Some(index) = number.and_then(|n| n.checked_sub(1)).filter(|i| *i < PARAMETERS_MAX) else {
                return Err(Error::invalid(format!(
                    "parameter {name:?}: parameters are numbered, from $1 to ${PARAMETERS_MAX}"
                )));
            };
            if types.len() <= index {
                types.resize(index + 1, None);
            }
            if let Some(slot) = types.get_mut(index) {
                *slot = field.map(|f| f.data_type().clone()).filter(|t| *t != DataType::Null);
            }
        }
        Ok(Self { types })
    }

    /// What a client is told: fields `$1`, `$2`, … with wire types, text where the type is unknown.
    pub(crate) fn schema(&self) -> SchemaRef {
        let fields = self.types.iter().enumerate().map(|(index, data_type)| {
            let data_type = data_type.as_ref().map_or(DataType::Utf8, wire_type);
            Field::new(format!("${}", index + 1), data_type, true)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The bound rows, each value in the type that the statement needs. Columns are matched by position;
    /// without parameters there is nothing to bind and the answer is `None`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if columns and parameters differ in number or a value does not fit its parameter.
    pub(crate) fn bind(&self, batch: Option<RecordBatch>) -> Result<Option<RecordBatch>> {
        let bound = batch.as_ref().map_or(0, RecordBatch::num_columns);
        if bound != self.types.len() {
            return Err(Error::invalid(format!(
                "the statement has {} parameters, and {bound} were bound",
                self.types.len()
            )));
        }
        let Some(batch) = batch.filter(|_| bound > 0) else {
            return Ok(None);
        };
        let columns = batch.columns().iter().zip(&self.types).enumerate();
        let columns: Vec<ArrayRef> = columns
            .map(|(index, (array, data_type))| {
                bring(array, data_type.as_ref()).map_err(|e| e.context(format!("parameter ${}", index + 1)))
            })
            .collect::<Result<_>>()?;
        let fields = columns.iter().enumerate();
        let fields = fields.map(|(i, a)| Field::new(format!("${}", i + 1), a.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let typed = RecordBatch::try_new_with_options(schema, columns, &options);
        typed.map(Some).map_err(|e| Error::internal(format!("parameters cannot be bound: {e}")))
    }
}

/// One bound row as values.
pub(crate) fn row_values(batch: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>> {
    batch.columns().iter().map(|array| ScalarValue::try_from_array(array, row).tandem()).collect()
}

fn bring(array: &ArrayRef, to: Option<&DataType>) -> Result<ArrayRef> {
    let array = plain(array)?;
    let to = to.unwrap_or(array.data_type());
    if array.data_type() == to {
        return Ok(array);
    }
    let misfit = |why: &str| {
        Error::invalid(format!("a value of type {} does not fit {}: {why}", array.data_type(), wire_type(to)))
    };
    if to.is_nested() && !array.data_type().is_nested() {
        // The cast would make a list of one item of it.
        let nothing = array.logical_null_count() == array.len();
        return if nothing { Ok(new_null_array(to, array.len())) } else { Err(misfit("it is no list")) };
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(&array, to, &strict).map_err(|e| misfit(&e.to_string()))?;
    if rounds(array.data_type(), to) {
        let back =
            cast_with_options(&cast, array.data_type(), &strict).map_err(|e| misfit(&e.to_string()))?;
        if !same(&back, &array) {
            return Err(misfit("it would be another one; cast the parameter, as in CAST($1 AS DOUBLE)"));
        }
    }
    Ok(cast)
}

/// Whether a cast makes another number of one that does not fit, and says nothing.
fn rounds(from: &DataType, to: &DataType) -> bool {
    to.is_integer() && (from.is_floating() || from.is_decimal())
}

/// By their values: zero is zero with any sign.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    match (a.as_primitive_opt::<Float64Type>(), b.as_primitive_opt::<Float64Type>()) {
        (Some(a), Some(b)) => a.iter().eq(b.iter()),
        _ => a.as_ref() == b.as_ref(),
    }
}

/// Takes values out of unions and encodings.
fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Union(..) => {
            let values = (0..array.len()).map(|row| ScalarValue::try_from_array(array, row).map(bare));
            let values: Vec<ScalarValue> = values.collect::<datafusion::error::Result<_>>().tandem()?;
            one_type(values)
        }
        DataType::Dictionary(_, value) => unpacked(array, value),
        DataType::RunEndEncoded(_, values) => unpacked(array, values.data_type()),
        _ => Ok(Arc::clone(array)),
    }
}

fn unpacked(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast_with_options(array, to, &CastOptions::default())
        .map_err(|e| Error::invalid(format!("a value of type {} cannot be read: {e}", array.data_type())))
}

fn bare(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, inner)), ..) => bare(*inner),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        ScalarValue::Dictionary(_, inner) => bare(*inner),
        other => other,
    }
}

/// Rows of a union may differ in type; the first that is not null decides.
fn one_type(values: Vec<ScalarValue>) -> Result<ArrayRef> {
    let first = values.iter().find(|v| !v.is_null()).or(values.first());
    let Some(data_type) = first.map(ScalarValue::data_type) else {
        return Ok(new_null_array(&DataType::Null, 0));
    };
    let cast: Vec<ScalarValue> = values
        .iter()
        .map(
            |value| {
                if value.is_null() { ScalarValue::try_from(&data_type) } else { value.cast_to(&data_type) }
            },
        )
        .collect::<datafusion::error::Result<_>>()
        .tandem()?;
    ScalarValue::iter_to_array(cast).tandem()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray, UnionArray};
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Int8Type, Int32Type, Int64Type};
    use arrow_schema::UnionFields;

    fn one(array: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("x", array, true)]).unwrap()
    }

    fn params(data_type: DataType) -> Parameters {
        Parameters { types: vec![Some(data_type)] }
    }

    #[test]
    fn values_are_cast_and_what_does_not_fit_names_its_parameter() {
        let batch = one(Arc::new(Int64Array::from(vec![1, 2])));
        let typed = params(DataType::Int8).bind(Some(batch)).unwrap().unwrap();
        assert_eq!(typed.column(0).as_primitive::<Int8Type>().values(), &[1, 2]);

        let batch = one(Arc::new(Int64Array::from(vec![300])));
        let error = params(DataType::Int8).bind(Some(batch)).unwrap_err();
        assert!(error.message().starts_with("parameter $1"), "{error}");
        assert!(params(DataType::Int8).bind(None).is_err());
    }

    #[test]
    fn no_value_becomes_another_one() {
        let floats = |number: f64| one(Arc::new(Float64Array::from(vec![number])));
        let error = params(DataType::Int64).bind(Some(floats(7.5))).unwrap_err();
        assert!(error.message().contains("would be another one"), "{error}");
        for number in [7.0, -0.0] {
            let whole = params(DataType::Int64).bind(Some(floats(number))).unwrap().unwrap();
            assert_eq!(whole.column(0).as_primitive::<Int64Type>().value(0), number as i64);
        }
        let list = DataType::new_list(DataType::Float64, true);
        assert!(params(list.clone()).bind(Some(floats(7.5))).is_err());
        let nothing = one(new_null_array(&DataType::Null, 1));
        assert!(params(list).bind(Some(nothing)).unwrap().unwrap().column(0).is_null(0));
    }

    #[test]
    fn dense_unions_and_dictionaries_are_unwrapped() {
        let fields = UnionFields::try_new(
            [0, 1],
            [Field::new("i", DataType::Int32, true), Field::new("s", DataType::Utf8, true)],
        )
        .unwrap();
        let union = UnionArray::try_new(
            fields,
            ScalarBuffer::from(vec![0_i8, 0]),
            Some(ScalarBuffer::from(vec![0_i32, 1])),
            vec![Arc::new(Int32Array::from(vec![Some(7), None])), Arc::new(StringArray::from(vec!["x"]))],
        )
        .unwrap();
        let typed = params(DataType::Int64).bind(Some(one(Arc::new(union)))).unwrap().unwrap();
        let column = typed.column(0).as_primitive::<Int64Type>();
        assert_eq!((column.value(0), column.is_null(1)), (7, true));

        let dict: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
        let typed = params(DataType::Utf8View).bind(Some(one(Arc::new(dict)))).unwrap().unwrap();
        assert_eq!(typed.column(0).as_string_view().value(1), "b");
    }
}
