use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, Int64Builder,
    IntervalMonthDayNanoArray, ListBuilder, NullArray, StringArray, StringBuilder, StructArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::IntervalMonthDayNano;
use arrow_schema::{Field, Schema};

use super::*;

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(at, array)| Field::new(format!("c{at}"), array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn texts(column: ArrayRef) -> Vec<Option<String>> {
    let count = column.len();
    let rows = Rows::new(&batch(vec![column]), &[]).unwrap();
    (0..count).map(|row| rows.texts(row).unwrap().remove(0)).collect()
}

fn some(all: &[&str]) -> Vec<Option<String>> {
    all.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn text_is_as_postgresql_writes_it() {
    let floats = [1.5, 1e300, 1e-7, 100_000.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0];
    assert_eq!(
        texts(Arc::new(Float64Array::from(floats.to_vec()))),
        some(&["1.5", "1e+300", "1e-07", "100000", "NaN", "Infinity", "-Infinity", "0"])
    );
    assert_eq!(texts(Arc::new(BooleanArray::from(vec![true, false]))), some(&["t", "f"]));
    assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), some(&["18446744073709551615"]));
    assert_eq!(texts(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))), some(&["\\x00ff"]));
    assert_eq!(
        texts(Arc::new(Date32Array::from(vec![0, 19_723, -719_528]))),
        some(&["1970-01-01", "2024-01-01", "0001-01-01 BC"])
    );
    assert_eq!(
        texts(Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000, -1_000]))),
        some(&["1970-01-01 00:00:01.5", "1969-12-31 23:59:59.999999"])
    );
    assert_eq!(
        texts(Arc::new(TimestampSecondArray::from(vec![0]).with_timezone("Europe/Berlin"))),
        some(&["1970-01-01 00:00:00+00"])
    );
    let decimals = Decimal128Array::from(vec![12_345, -5]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(texts(Arc::new(decimals)), some(&["123.45", "-0.05"]));
    let intervals = vec![
        IntervalMonthDayNano::new(14, 3, 3_600_000_000_000),
        IntervalMonthDayNano::new(0, 0, -1_500_000_000),
        IntervalMonthDayNano::new(0, 0, 0),
    ];
    assert_eq!(
        texts(Arc::new(IntervalMonthDayNanoArray::from(intervals))),
        some(&["1 year 2 mons 3 days 01:00:00", "-00:00:01.5", "00:00:00"])
    );
    assert_eq!(texts(Arc::new(NullArray::new(2))), [None, None]);
    assert_eq!(texts(Arc::new(StringArray::from(vec![Some("a"), None]))), [Some("a".into()), None]);
}

#[test]
fn lists_are_arrays_and_structs_are_json() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), None, Some("x,\"y"), Some("")]);
    lists.append_value::<[Option<&str>; 0], _>([]);
    assert_eq!(texts(Arc::new(lists.finish())), some(&[r#"{a,NULL,"x,\"y",""}"#, "{}"]));

    let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let structs = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), number)]);
    assert_eq!(texts(Arc::new(structs)), some(&[r#"{"n":7}"#]));
}

#[test]
fn rows_are_messages() {
    let batch = batch(vec![
        Arc::new(Int64Array::from(vec![Some(7), None])),
        Arc::new(TimestampNanosecondArray::from(vec![946_684_800_000_001_000, 0])),
    ]);
    let rows = Rows::new(&batch, &[Format::Text, Format::Binary]).unwrap();
    let mut output = Output::default();
    rows.write(0, &mut output).unwrap();
    assert_eq!(&output.take()[..], b"D\0\0\0\x17\0\x02\0\0\0\x017\0\0\0\x08\0\0\0\0\0\0\0\x01");
    rows.write(1, &mut output).unwrap();
    assert_eq!(&output.take()[..11], b"D\0\0\0\x16\0\x02\xff\xff\xff\xff");

    let mut lists = ListBuilder::new(Int64Builder::new());
    lists.append_value([Some(1), None]);
    let rows = Rows::new(&self::batch(vec![Arc::new(lists.finish())]), &[Format::Binary]).unwrap();
    rows.write(0, &mut output).unwrap();
    let sent = output.take();
    let value = [
        &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1][..],
        &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255],
    ];
    assert_eq!(&sent[11..], value.concat());
}

#[test]
fn a_moment_that_microseconds_cannot_hold_is_an_error() {
    let far = batch(vec![Arc::new(TimestampSecondArray::from(vec![i64::MAX]))]);
    assert!(Rows::new(&far, &[]).is_err());
}

#[test]
fn copied_rows_are_quoted_where_they_must_be() {
    let values = [Some("a\tb\\".to_owned()), None, Some("x,\"y".to_owned()), Some(String::new())];
    assert_eq!(copy_text(&values, '\t', "\\N"), "a\\tb\\\\\t\\N\tx,\"y\t\n");
    assert_eq!(copy_csv(&values, ',', ""), "a\tb\\,,\"x,\"\"y\",\"\"\n");
}
