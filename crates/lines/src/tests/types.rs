//! Values that go into columns of tables that exist.

use arrow::datatypes::TimeUnit;

use super::*;

fn into(columns: &[(&str, DataType)], body: &str) -> Read {
    read_with(settings(), &Known::with("t", Some("ts"), columns), [body.as_bytes()])
}

fn stamped(mut columns: Vec<(&'static str, DataType)>, body: &str) -> Read {
    columns.insert(0, ("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))));
    into(&columns, body)
}

#[test]
fn row_timestamps_go_where_the_table_has_them() {
    let read = stamped(vec![], "t x=1i 1700000000000001999\nt x=2i -1\n");
    let batch = &read.batches[0].batch;
    assert_eq!(read.batches[0].timestamp, "ts");
    assert_eq!(shown(batch, "ts"), ["1700000000000001", "-1"], "cut downwards");
    assert_eq!(
        *column(batch, "ts").data_type(),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    );
    // A table without a designated timestamp has them in a column of the usual name, if that is possible.
    let read =
        read_with(settings(), &Known::with("t", None, &[("x", DataType::Int64)]), [b"t x=1i 5\n".as_slice()]);
    assert_eq!(shown(&read.batches[0].batch, "timestamp"), ["5"]);
    let odd = Known::with("t", None, &[("timestamp", DataType::Utf8)]);
    let read = read_with(settings(), &odd, [b"t x=1i 5\n".as_slice()]);
    assert!(read.errors[0].message.contains("no designated timestamp"), "{:?}", read.errors);
}

#[test]
fn integers_go_into_floats_without_loss_or_not_at_all() {
    let read =
        stamped(vec![("x", DataType::Float64)], "t x=5i 1\nt x=9007199254740993i 2\nt x=7u 3\nt x=1.5 4\n");
    assert_eq!(shown(&read.batches[0].batch, "x"), ["5.0", "7.0", "1.5"]);
    assert_eq!(
        read.errors[0].to_string(),
        "line 2, byte 5, table \"t\", column \"x\": the column is Float64, the line has an integer, and this one does not \
         fit without loss"
    );
}

#[test]
fn other_types_are_refused_by_name() {
    let columns = vec![
        ("i", DataType::Int64),
        ("s", DataType::Utf8),
        ("b", DataType::Boolean),
        ("d", DataType::Date32),
        ("x", DataType::Float64),
    ];
    for (field, message) in [
        ("i=1.5", "the column is Int64, the line has a float"),
        ("i=\"a\"", "the column is Int64, the line has a string"),
        ("i=t", "the column is Int64, the line has a boolean"),
        ("s=1i", "the column is Utf8, the line has an integer"),
        ("b=1i", "the column is Boolean, the line has an integer"),
        ("d=1i", "the column is Date32, the line has an integer"),
        ("x=1t", "the column is Float64, the line has a timestamp"),
        (
            "i=9223372036854775808u",
            "the column is Int64, the line has an unsigned integer, and this one does not fit without loss",
        ),
    ] {
        let read = stamped(columns.clone(), &format!("t {field} 1\n"));
        assert_eq!(read.errors[0].message, message);
        assert_eq!(read.errors[0].column.as_deref(), Some(&field[..1]));
    }
}

#[test]
fn narrow_columns_are_kept_while_the_values_fit() {
    let columns = vec![("i", DataType::Int16), ("u", DataType::UInt8), ("f", DataType::Float32)];
    let read = stamped(columns.clone(), "t i=-300i,u=200u,f=1.5 1\nt u=7i 2\n");
    let batch = &read.batches[0].batch;
    let type_of = |batch: &RecordBatch, name| column(batch, name).data_type().clone();
    assert_eq!(type_of(batch, "i"), DataType::Int16);
    assert_eq!(type_of(batch, "u"), DataType::UInt8);
    assert_eq!(type_of(batch, "f"), DataType::Float32);
    assert_eq!(shown(batch, "u"), ["200", "7"]);
    let read = stamped(columns, "t i=70000i,u=300u,f=0.1 1\n");
    let batch = &read.batches[0].batch;
    assert_eq!(type_of(batch, "i"), DataType::Int64, "the table widens");
    assert_eq!(type_of(batch, "u"), DataType::UInt64);
    assert_eq!(type_of(batch, "f"), DataType::Float64);
}

#[test]
fn texts_and_tags_are_one() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let columns = vec![("s", DataType::Utf8View), ("d", dictionary)];
    let read = stamped(columns, "t,s=a d=\"x\" 1\nt,d=y s=\"b\" 2\n");
    assert_eq!(read.errors, []);
    let batch = &read.batches[0].batch;
    assert_eq!(
        (shown(batch, "s"), shown(batch, "d")),
        (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()])
    );
}

#[test]
fn decimals_keep_the_column() {
    let columns = vec![("d", DataType::Decimal128(10, 2)), ("w", DataType::Decimal256(60, 5))];
    let read = stamped(
        columns,
        "t d=12.50d,w=1e3d 1\nt d=12.345d 2\nt d=7i,w=-1d 3\nt d=123456789d 4\nt d=1.100d 5\n",
    );
    let batch = &read.batches[0].batch;
    assert_eq!(shown(batch, "d"), ["12.50", "7.00", "1.10"]);
    assert_eq!(shown(batch, "w"), ["1000.00000", "-1.00000", "-"]);
    assert_eq!(read.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn exponents_of_decimals_have_a_bound() {
    for exponent in [i64::from(i32::MIN), i64::from(i32::MAX), i64::MIN, 201, -201] {
        for digits in ["1", "0", "0.5"] {
            let told = fault(format!("t d={digits}e{exponent}d 1\n"));
            assert!(told.contains("is no decimal"), "{told}");
        }
    }
}

#[test]
fn times_are_cut_to_the_column() {
    let columns = vec![("at", DataType::Timestamp(TimeUnit::Second, None))];
    let read = stamped(columns, "t at=1999999t 1\nt at=-1n 2\n");
    assert_eq!(shown(&read.batches[0].batch, "at"), ["1", "-1"]);
}
