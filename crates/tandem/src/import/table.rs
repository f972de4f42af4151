//! The table's side of an import: its columns, the types that SQL has names for, and CREATE TABLE.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, TimeUnit};
use tandem_client::table_path;
use tandem_types::{Error, PartitionUnit, Result};

/// Finds each column of a file in the table, by name, or by name in another case if that is unambiguous.
/// Returns the columns' places in the file with their fields in the table.
pub fn match_columns(
    file: &str,
    columns: &[String],
    table: &str,
    schema: &Schema,
) -> Result<Vec<(usize, FieldRef)>> {
    let mut matched: Vec<(usize, FieldRef)> = Vec::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        let field = find(schema, column).ok_or_else(|| {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::invalid(format!(
                "{file}: the table {table} has no column {column:?}; its columns are {}",
                names.join(", ")
            ))
        })?;
        if matched.iter().any(|(_, f)| f.name() == field.name()) {
            return Err(Error::invalid(format!("{file}: the column {column:?} is there twice")));
        }
        // The server checks for nulls where there must be none, and names the column.
        matched.push((place, Arc::new(field.as_ref().clone().with_nullable(true))));
    }
    Ok(matched)
}

fn find<'a>(schema: &'a Schema, column: &str) -> Option<&'a FieldRef> {
    let fields = schema.fields();
    fields.iter().find(|f| f.name() == column).or_else(|| {
        let mut alike = fields.iter().filter(|f| f.name().eq_ignore_ascii_case(column));
        alike.next().filter(|_| alike.next().is_none())
    })
}

/// What CREATE TABLE is to say besides the columns.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    pub if_not_exists: bool,
    pub timestamp: Option<String>,
    pub partition_by: Option<PartitionUnit>,
    pub order_by: Vec<String>,
}

/// The statement that makes a table for these columns.
pub fn create_sql(table: &str, columns: &[Field], options: &TableOptions) -> Result<String> {
    check_options(columns, options)?;
    let path: Vec<String> = table_path(table)?.iter().map(|part| quoted(part)).collect();
    let listed: Vec<String> =
        columns.iter().map(|f| format!("{} {}", quoted(f.name()), sql_type(f.data_type()))).collect();
    let exists = if options.if_not_exists { "IF NOT EXISTS " } else { "" };
    let mut sql = format!("CREATE TABLE {exists}{} ({})", path.join("."), listed.join(", "));
    if let Some(column) = &options.timestamp {
        sql.push_str(&format!(" TIMESTAMP({})", quoted(column)));
    }
    if let Some(unit) = options.partition_by {
        sql.push_str(&format!(" PARTITION BY {}", unit.name().to_uppercase()));
    }
    if !options.order_by.is_empty() {
        let names: Vec<String> = options.order_by.iter().map(|c| quoted(c)).collect();
        sql.push_str(&format!(" ORDER BY ({})", names.join(", ")));
    }
    Ok(sql)
}

fn check_options(columns: &[Field], options: &TableOptions) -> Result<()> {
    let field = |option: &str, name: &str| {
        columns.iter().find(|f| f.name() == name).ok_or_else(|| {
            let names: Vec<&str> = columns.iter().map(|f| f.name().as_str()).collect();
            Error::invalid(format!("{option} names the column {name:?}, the files have {}", names.join(", ")))
        })
    };
    for column in &options.order_by {
        field("--order-by", column)?;
    }
    let Some(column) = &options.timestamp else { return Ok(()) };
    let found = field("--timestamp", column)?.data_type();
    if !matches!(found, DataType::Timestamp(_, _)) {
        return Err(Error::invalid(format!(
            "--timestamp names the column {column:?}, which was read as {found}: --type {column}=timestamp makes \
             unreadable values errors"
        )));
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQL's name for a type. Encodings of one logical type share it, and times with a zone become UTC without
/// one, which more clients can read.
fn sql_type(data_type: &DataType) -> String {
    use DataType::*;
    let name = match data_type {
        Boolean => "BOOLEAN",
        Int8 => "TINYINT",
        Int16 => "SMALLINT",
        Int32 => "INT",
        Int64 => "BIGINT",
        UInt8 => "TINYINT UNSIGNED",
        UInt16 => "SMALLINT UNSIGNED",
        UInt32 => "INT UNSIGNED",
        UInt64 => "BIGINT UNSIGNED",
        Float16 | Float32 => "REAL",
        Float64 => "DOUBLE",
        // A column without any value has to have some type.
        Null | Utf8 | LargeUtf8 | Utf8View => "VARCHAR",
        Binary | LargeBinary | BinaryView => "BYTEA",
        Date32 => "DATE",
        Date64 => "TIMESTAMP(3)",
        Timestamp(unit, _) => return format!("TIMESTAMP({})", digits(*unit)),
        Time32(unit) | Time64(unit) => return format!("TIME({})", digits(*unit)),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) if *s >= 0 => {
            return format!("DECIMAL({p}, {s})");
        }
        Dictionary(_, value) => return sql_type(value),
        List(item) | LargeList(item) => return format!("{}[]", sql_type(item.data_type())),
        other => return format!("ARROW('{}')", other.to_string().replace('\'', "''")),
    };
    name.to_owned()
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Parses `column=type` of `--type`.
pub fn parse_column_type(text: &str) -> Result<(String, DataType), String> {
    let (column, name) = text.split_once('=').ok_or("write column=type, such as delay=double")?;
    let data_type = parse_type(name).ok_or_else(|| {
        format!(
            "unknown type {name:?}: boolean, tinyint, smallint, int, bigint (each also unsigned), real, double, text, \
             binary, date, timestamp, timestamp(0|3|6|9), decimal(p,s)"
        )
    })?;
    Ok((column.trim().to_owned(), data_type))
}

fn parse_type(name: &str) -> Option<DataType> {
    use DataType::*;
    let name = name.trim().to_ascii_lowercase();
    Some(match name.as_str() {
        "bool" | "boolean" => Boolean,
        "tinyint" | "int8" => Int8,
        "smallint" | "int16" => Int16,
        "int" | "integer" | "int32" => Int32,
        "bigint" | "int64" => Int64,
        "tinyint unsigned" | "uint8" => UInt8,
        "smallint unsigned" | "uint16" => UInt16,
        "int unsigned" | "uint32" => UInt32,
        "bigint unsigned" | "uint64" => UInt64,
        "real" | "float" | "float32" => Float32,
        "double" | "float64" => Float64,
        "text" | "varchar" | "string" | "utf8" => Utf8,
        "binary" | "bytea" => Binary,
        "date" => Date32,
        "timestamp" | "timestamp(6)" => Timestamp(TimeUnit::Microsecond, None),
        "timestamp(0)" => Timestamp(TimeUnit::Second, None),
        "timestamp(3)" => Timestamp(TimeUnit::Millisecond, None),
        "timestamp(9)" => Timestamp(TimeUnit::Nanosecond, None),
        _ => {
            let digits = name.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = digits.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            return (1..=38).contains(&precision).then_some(Decimal128(precision, scale));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn columns() -> Vec<Field> {
        let list = DataType::new_list(DataType::Int32, true);
        let fixed = DataType::FixedSizeBinary(16);
        [
            ("time_hour", MICROS),
            ("Dep \"x\"", DataType::Int64),
            ("d", DataType::Decimal128(5, 2)),
            ("l", list),
            ("f", fixed),
        ]
        .map(|(n, t)| Field::new(n, t, true))
        .into()
    }

    #[test]
    fn create_table_names_columns_and_clauses() {
        let options = TableOptions {
            if_not_exists: true,
            timestamp: Some("time_hour".into()),
            partition_by: Some(PartitionUnit::Day),
            order_by: vec!["d".into(), "time_hour".into()],
        };
        assert_eq!(
            create_sql("s.flights", &columns(), &options).unwrap(),
            "CREATE TABLE IF NOT EXISTS \"s\".\"flights\" (\"time_hour\" TIMESTAMP(6), \"Dep \"\"x\"\"\" BIGINT, \
             \"d\" DECIMAL(5, 2), \"l\" INT[], \"f\" ARROW('FixedSizeBinary(16)')) \
             TIMESTAMP(\"time_hour\") PARTITION BY DAY ORDER BY (\"d\", \"time_hour\")"
        );
        let wrong = TableOptions { timestamp: Some("d".into()), ..Default::default() };
        assert!(create_sql("t", &columns(), &wrong).unwrap_err().message().contains("--type d=timestamp"));
        let absent = TableOptions { order_by: vec!["z".into()], ..Default::default() };
        assert!(create_sql("t", &columns(), &absent).unwrap_err().message().contains("\"z\""));
    }

    #[test]
    fn columns_are_matched_by_name_then_by_case() {
        let schema = Schema::new(columns());
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            match_columns("f.csv", &names, "t", &schema)
        };
        let matched = of(&["D", "time_hour"]).unwrap();
        assert_eq!(
            matched.iter().map(|(i, f)| (*i, f.name().as_str())).collect::<Vec<_>>(),
            [(0, "d"), (1, "time_hour")]
        );
        assert!(of(&["nope"]).unwrap_err().message().contains("no column \"nope\""));
        assert!(of(&["d", "D"]).unwrap_err().message().contains("twice"));
    }

    #[test]
    fn types_are_parsed_from_their_sql_names() {
        assert_eq!(parse_column_type("a=decimal(10, 2)").unwrap(), ("a".into(), DataType::Decimal128(10, 2)));
        assert_eq!(parse_column_type("a=TIMESTAMP").unwrap().1, MICROS);
        for bad in ["a", "a=", "a=decimal(99,1)", "a=timestamp(4)"] {
            assert!(parse_column_type(bad).is_err(), "{bad}");
        }
    }
}
