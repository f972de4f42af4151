//! SQL's types and Arrow's, both ways.
//!
//! The mapping is DataFusion's, with its gaps filled:
//!
//! - `TIMESTAMP` counts nanoseconds, `TIMESTAMP(0|3|6|9)` the unit that the precision says; `WITH TIME ZONE`
//!   (`TIMESTAMPTZ`) means UTC. `TIME` likewise.
//! - Text of every spelling is `Utf8`; a length is accepted and not enforced, as in DataFusion.
//! - `SYMBOL` is a dictionary of text, for columns with few distinct values.
//! - `ARROW('…')` names any other type as Arrow prints it, so that every table can be written down.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo};
use datafusion::sql::sqlparser::parser::Parser;
use tandem_types::{Error, Result};

use super::front::{Front, folded_ident, quote_name};

/// How deep the text of an `ARROW('…')` may nest: its parser recurses.
const MAX_ARROW_DEPTH: usize = 64;

/// Reads a column's type.
pub(super) fn data_type(front: &mut Front<'_>, column: &str) -> Result<DataType> {
    let place = front.place();
    let sql = front.with_parser(Parser::parse_data_type)?;
    to_arrow(&sql).map_err(|e| e.context(format_args!("{place}: column {column:?}")))
}

fn to_arrow(sql: &ast::DataType) -> Result<DataType> {
    use ast::DataType as Sql;
    Ok(match sql {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::Int16 => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::Int32 => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 => DataType::Int64,
        Sql::TinyIntUnsigned(_) | Sql::UTinyInt | Sql::UInt8 => DataType::UInt8,
        Sql::SmallIntUnsigned(_) | Sql::Int2Unsigned(_) | Sql::USmallInt | Sql::UInt16 => DataType::UInt16,
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) | Sql::Int4Unsigned(_) | Sql::UInt32 => {
            DataType::UInt32
        }
        Sql::BigIntUnsigned(_) | Sql::Int8Unsigned(_) | Sql::UBigInt | Sql::UInt64 => DataType::UInt64,
        Sql::Float(ExactNumberInfo::None) | Sql::Real | Sql::Float4 | Sql::Float32 => DataType::Float32,
        // SQL's precision is in bits of the mantissa.
        Sql::Float(ExactNumberInfo::Precision(1..=24)) => DataType::Float32,
        Sql::Float(ExactNumberInfo::Precision(25..=53)) => DataType::Float64,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => {
            DataType::Float64
        }
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(info, sql)?,
        Sql::Varchar(_)
        | Sql::Nvarchar(_)
        | Sql::Char(_)
        | Sql::Character(_)
        | Sql::CharacterVarying(_)
        | Sql::CharVarying(_)
        | Sql::Text
        | Sql::String(_)
        | Sql::Clob(_) => DataType::Utf8,
        Sql::Bytea | Sql::Binary(None) | Sql::Varbinary(_) | Sql::Blob(None) | Sql::Bytes(None) => {
            DataType::Binary
        }
        Sql::Date | Sql::Date32 => DataType::Date32,
        Sql::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            match unit(*precision, sql)? {
                unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                unit => DataType::Time64(unit),
            }
        }
        Sql::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | Sql::Datetime(precision)
        | Sql::TimestampNtz(precision) => DataType::Timestamp(unit(*precision, sql)?, None),
        Sql::Timestamp(precision, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
            DataType::Timestamp(unit(*precision, sql)?, Some("UTC".into()))
        }
        Sql::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::Parenthesis(item)
            | ArrayElemTypeDef::SquareBracket(item, None),
        ) => DataType::List(list_item(to_arrow(item)?)),
        Sql::Array(ArrayElemTypeDef::SquareBracket(item, Some(size))) => {
            let size = i32::try_from(*size).map_err(|_| unsupported(sql, "its size is out of range"))?;
            DataType::FixedSizeList(list_item(to_arrow(item)?), size)
        }
        Sql::Struct(fields, _) => DataType::Struct(struct_fields(fields)?),
        Sql::Map(key, value) => {
            let key = Field::new("key", to_arrow(key)?, false);
            let entries = Fields::from(vec![key, Field::new("value", to_arrow(value)?, true)]);
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
        }
        Sql::Custom(name, modifiers) => custom(&name.to_string(), modifiers, sql)?,
        Sql::Uuid => return Err(unsupported(sql, "use VARCHAR or ARROW('FixedSizeBinary(16)')")),
        Sql::JSON | Sql::JSONB => return Err(unsupported(sql, "use VARCHAR")),
        Sql::Binary(Some(n)) | Sql::Blob(Some(n)) | Sql::Bytes(Some(n)) => {
            return Err(unsupported(sql, &format!("use BYTEA or ARROW('FixedSizeBinary({n})')")));
        }
        Sql::Enum(..) | Sql::LowCardinality(_) => return Err(unsupported(sql, "use SYMBOL")),
        Sql::Nullable(_) => return Err(unsupported(sql, "columns are nullable unless NOT NULL")),
        _ => return Err(unsupported(sql, "ARROW('…') names any type that Arrow has")),
    })
}

fn unsupported(sql: &ast::DataType, hint: &str) -> Error {
    Error::unsupported(format!("type {sql} is not supported: {hint}"))
}

fn unit(precision: Option<u64>, sql: &ast::DataType) -> Result<TimeUnit> {
    match precision {
        Some(0) => Ok(TimeUnit::Second),
        Some(3) => Ok(TimeUnit::Millisecond),
        Some(6) => Ok(TimeUnit::Microsecond),
        None | Some(9) => Ok(TimeUnit::Nanosecond),
        Some(_) => Err(unsupported(sql, "the precision is 0, 3, 6 or 9 digits of a second")),
    }
}

fn decimal(info: &ExactNumberInfo, sql: &ast::DataType) -> Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let fits = |limit: u64| (1..=limit).contains(&precision);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p), Ok(s)) if fits(38) && (0..=precision).contains(&(scale.unsigned_abs())) && s >= 0 => {
            Ok(DataType::Decimal128(p, s))
        }
        (Ok(p), Ok(s)) if fits(76) && (0..=precision).contains(&(scale.unsigned_abs())) && s >= 0 => {
            Ok(DataType::Decimal256(p, s))
        }
        _ => Err(unsupported(sql, "the precision is 1 to 76, the scale 0 to the precision")),
    }
}

fn list_item(item: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(item, true))
}

fn struct_fields(fields: &[ast::StructField]) -> Result<Fields> {
    let mut arrow: Vec<Field> = Vec::with_capacity(fields.len());
    for (i, field) in fields.iter().enumerate() {
        if field.options.is_some() {
            return Err(Error::unsupported("OPTIONS in a STRUCT are not supported"));
        }
        let name = field.field_name.as_ref().map_or_else(|| format!("c{i}"), folded_ident);
        if arrow.iter().any(|f| *f.name() == name) {
            return Err(Error::invalid(format!("a STRUCT has two fields {name:?}")));
        }
        arrow.push(Field::new(name, to_arrow(&field.field_type)?, true));
    }
    Ok(arrow.into())
}

fn custom(name: &str, modifiers: &[String], sql: &ast::DataType) -> Result<DataType> {
    match (name.to_ascii_lowercase().as_str(), modifiers) {
        ("symbol", []) => Ok(symbol()),
        ("long", []) => Ok(DataType::Int64),
        ("arrow", [text]) => arrow_type(text),
        ("arrow", _) => Err(Error::invalid("ARROW takes one type in quotes, as in ARROW('LargeUtf8')")),
        _ => Err(unsupported(sql, "ARROW('…') names any type that Arrow has")),
    }
}

fn symbol() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn arrow_type(text: &str) -> Result<DataType> {
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '(' | '<' | '[' => depth += 1,
            ')' | '>' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_ARROW_DEPTH {
            return Err(Error::invalid(format!("an Arrow type nests deeper than {MAX_ARROW_DEPTH} levels")));
        }
    }
    let data_type: DataType =
        text.parse().map_err(|e| Error::invalid(format!("{text:?} is no Arrow type: {e}")))?;
    // Arrow prints names with their quotes and backslashes escaped, and reads them as they stand.
    Ok(with_fields(data_type, &|field| {
        let name = unescaped(field.name());
        field.with_name(name)
    }))
}

fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

/// The type with every field in it changed, innermost first.
fn with_fields(data_type: DataType, change: &dyn Fn(Field) -> Field) -> DataType {
    let one = |field: Arc<Field>| {
        let inner = with_fields(field.data_type().clone(), change);
        Arc::new(change(field.as_ref().clone().with_data_type(inner)))
    };
    match data_type {
        DataType::List(field) => DataType::List(one(field)),
        DataType::LargeList(field) => DataType::LargeList(one(field)),
        DataType::ListView(field) => DataType::ListView(one(field)),
        DataType::LargeListView(field) => DataType::LargeListView(one(field)),
        DataType::FixedSizeList(field, n) => DataType::FixedSizeList(one(field), n),
        DataType::Map(field, sorted) => DataType::Map(one(field), sorted),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| one(Arc::clone(field))).collect())
        }
        DataType::Dictionary(key, value) => DataType::Dictionary(key, Box::new(with_fields(*value, change))),
        other => other,
    }
}

/// A type as SQL text that reads back as the same type, for all types that a table can hold. Metadata of
/// nested fields has no text and is left out; a backslash in the name of one does not read back.
pub fn type_name(data_type: &DataType) -> String {
    let plain = with_fields(data_type.clone(), &|field| field.with_metadata(HashMap::new()));
    sql_name(&plain).unwrap_or_else(|| format!("ARROW('{}')", plain.to_string().replace('\'', "''")))
}

/// The type in SQL's own words, where it has them.
fn sql_name(data_type: &DataType) -> Option<String> {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 => "VARCHAR",
        DataType::Binary => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Timestamp(unit, None) => return Some(format!("TIMESTAMP({})", digits(unit))),
        DataType::Timestamp(unit, Some(zone)) if zone.as_ref() == "UTC" => {
            return Some(format!("TIMESTAMP({}) WITH TIME ZONE", digits(unit)));
        }
        DataType::Time32(unit @ (TimeUnit::Second | TimeUnit::Millisecond))
        | DataType::Time64(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond)) => {
            return Some(format!("TIME({})", digits(unit)));
        }
        DataType::Decimal128(p, s) if *s >= 0 => return Some(format!("DECIMAL({p}, {s})")),
        DataType::Decimal256(p, s) if *s >= 0 && *p > 38 => return Some(format!("DECIMAL({p}, {s})")),
        DataType::List(item) if **item == Field::new_list_field(item.data_type().clone(), true) => {
            return Some(format!("{}[]", type_name(item.data_type())));
        }
        DataType::Struct(fields) if fields.iter().all(|f| f.is_nullable()) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|f| format!("{} {}", quote_always(f.name()), type_name(f.data_type())))
                .collect();
            let fields = fields.join(", ");
            // `>>` would be one token, and what follows it would belong to the inner type.
            let space = if fields.ends_with('>') { " " } else { "" };
            return (!fields.is_empty()).then(|| format!("STRUCT<{fields}{space}>"));
        }
        dictionary if *dictionary == symbol() => "SYMBOL",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Within a type a name may be taken for a type, so it is quoted whatever it is.
fn quote_always(name: &str) -> String {
    let quoted = quote_name(name);
    if quoted.starts_with('"') { quoted } else { format!("\"{quoted}\"") }
}
