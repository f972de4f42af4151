//! Which of PostgreSQL's types stands for which of ours.

use arrow_schema::{DataType, Field, IntervalUnit};

use crate::message::ColumnInfo;

/// Numbers of PostgreSQL's types; they are the same in every installation.
pub(crate) mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// A type as PostgreSQL's catalog has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    pub oid: u32,
    /// Of an array of it; zero: there is none.
    pub array: u32,
    /// Bytes of a value; -1: they differ.
    pub size: i16,
    /// As the catalog has it, such as `int8`.
    pub name: &'static str,
    /// As people write it, such as `bigint`.
    pub long_name: &'static str,
    pub category: &'static str,
}

const fn pg(
    oid: u32,
    array: u32,
    size: i16,
    name: &'static str,
    long_name: &'static str,
    category: &'static str,
) -> PgType {
    PgType { oid, array, size, name, long_name, category }
}

/// The types that results, parameters and catalogs know.
pub(crate) const TYPES: &[PgType] = &[
    pg(oid::BOOL, 1000, 1, "bool", "boolean", "B"),
    pg(oid::BYTEA, 1001, -1, "bytea", "bytea", "U"),
    pg(oid::CHAR, 1002, 1, "char", "\"char\"", "S"),
    pg(oid::NAME, 1003, 64, "name", "name", "S"),
    pg(oid::INT8, 1016, 8, "int8", "bigint", "N"),
    pg(oid::INT2, 1005, 2, "int2", "smallint", "N"),
    pg(oid::INT4, 1007, 4, "int4", "integer", "N"),
    pg(oid::TEXT, 1009, -1, "text", "text", "S"),
    pg(oid::OID, 1028, 4, "oid", "oid", "N"),
    pg(oid::JSON, 199, -1, "json", "json", "U"),
    pg(oid::FLOAT4, 1021, 4, "float4", "real", "N"),
    pg(oid::FLOAT8, 1022, 8, "float8", "double precision", "N"),
    pg(oid::UNKNOWN, 0, -2, "unknown", "unknown", "X"),
    pg(oid::BPCHAR, 1014, -1, "bpchar", "character", "S"),
    pg(oid::VARCHAR, 1015, -1, "varchar", "character varying", "S"),
    pg(oid::DATE, 1182, 4, "date", "date", "D"),
    pg(oid::TIME, 1183, 8, "time", "time without time zone", "D"),
    pg(oid::TIMESTAMP, 1115, 8, "timestamp", "timestamp without time zone", "D"),
    pg(oid::TIMESTAMPTZ, 1185, 8, "timestamptz", "timestamp with time zone", "D"),
    pg(oid::INTERVAL, 1187, 16, "interval", "interval", "T"),
    pg(oid::NUMERIC, 1231, -1, "numeric", "numeric", "N"),
    pg(oid::UUID, 2951, 16, "uuid", "uuid", "U"),
    pg(oid::JSONB, 3807, -1, "jsonb", "jsonb", "U"),
];

pub(crate) fn by_oid(oid: u32) -> Option<&'static PgType> {
    TYPES.iter().find(|known| known.oid == oid)
}

/// The type of an array's items.
pub(crate) fn item_of(array: u32) -> Option<&'static PgType> {
    TYPES.iter().find(|known| array != 0 && known.array == array)
}

/// The type that stands for values of `data_type`, a wire type.
pub(crate) fn oid_of(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => oid::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => oid::INT2,
        DataType::Int32 | DataType::UInt16 => oid::INT4,
        DataType::Int64 | DataType::UInt32 => oid::INT8,
        // No integer of PostgreSQL's holds them all.
        DataType::UInt64 => oid::NUMERIC,
        DataType::Float16 | DataType::Float32 => oid::FLOAT4,
        DataType::Float64 => oid::FLOAT8,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => oid::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            oid::BYTEA
        }
        DataType::Date32 | DataType::Date64 => oid::DATE,
        DataType::Time32(_) | DataType::Time64(_) => oid::TIME,
        DataType::Timestamp(_, None) => oid::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => oid::TIMESTAMPTZ,
        DataType::Duration(_)
        | DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => {
            oid::INTERVAL
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            array_of(item.data_type()).unwrap_or(oid::JSON)
        }
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => oid::JSON,
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => oid::TEXT,
        DataType::Dictionary(_, value) => oid_of(value),
        DataType::RunEndEncoded(_, values) => oid_of(values.data_type()),
        DataType::ListView(_) | DataType::LargeListView(_) => oid::JSON,
    }
}

/// The array type of such items; `None` for items that are no plain values themselves.
fn array_of(item: &DataType) -> Option<u32> {
    let nested = item.is_nested();
    let array = by_oid(oid_of(item)).map(|item| item.array)?;
    (!nested && array != 0).then_some(array)
}

/// Precision and scale in PostgreSQL's form; -1 for types without them.
pub(crate) fn modifier_of(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => match u8::try_from(*scale) {
            Ok(scale) => ((i32::from(*precision) << 16) | i32::from(scale)) + 4,
            // A negative scale is not of the standard.
            Err(_) => -1,
        },
        _ => -1,
    }
}

/// How a column of a result is told to the client.
pub(crate) fn column_info(field: &Field) -> ColumnInfo {
    let oid = oid_of(field.data_type());
    let size = by_oid(oid).map_or(-1, |known| known.size);
    ColumnInfo { name: field.name().clone(), oid, size, modifier: modifier_of(field.data_type()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::TimeUnit;

    use super::*;

    #[test]
    fn every_type_of_a_table_has_one_of_postgresql() {
        let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
        for (ours, theirs) in [
            (DataType::UInt8, oid::INT2),
            (DataType::UInt32, oid::INT8),
            (DataType::UInt64, oid::NUMERIC),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), oid::TIMESTAMP),
            (DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), oid::TIMESTAMPTZ),
            (list(DataType::Int64), 1016),
            (list(list(DataType::Int64)), oid::JSON),
            (DataType::Null, oid::TEXT),
        ] {
            assert_eq!(oid_of(&ours), theirs, "{ours}");
            assert!(by_oid(theirs).is_some() || item_of(theirs).is_some(), "{ours} is in the catalog");
        }
        assert_eq!(modifier_of(&DataType::Decimal128(10, 2)), ((10 << 16) | 2) + 4);
    }
}
