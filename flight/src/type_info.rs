//! The types of SQL, for `CommandGetXdbcTypeInfo`.

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

/// All types that CREATE TABLE takes.
pub(crate) fn type_info() -> XdbcTypeInfoDataBuilder {
    let mut types = XdbcTypeInfoDataBuilder::new();
    let integers = [
        ("TINYINT", XdbcDataType::XdbcTinyint, 8, false),
        ("SMALLINT", XdbcDataType::XdbcSmallint, 16, false),
        ("INTEGER", XdbcDataType::XdbcInteger, 32, false),
        ("BIGINT", XdbcDataType::XdbcBigint, 64, false),
        ("TINYINT UNSIGNED", XdbcDataType::XdbcTinyint, 8, true),
        ("SMALLINT UNSIGNED", XdbcDataType::XdbcSmallint, 16, true),
        ("INTEGER UNSIGNED", XdbcDataType::XdbcInteger, 32, true),
        ("BIGINT UNSIGNED", XdbcDataType::XdbcBigint, 64, true),
    ];
    for (name, data_type, bits, unsigned) in integers {
        types.append(number(name, data_type, bits, unsigned));
    }
    types.append(number("REAL", XdbcDataType::XdbcReal, 24, false));
    types.append(number("DOUBLE", XdbcDataType::XdbcDouble, 53, false));
    types.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        fixed_prec_scale: true,
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        num_prec_radix: Some(10),
        ..number("DECIMAL", XdbcDataType::XdbcDecimal, 76, false)
    });
    types.append(plain("BOOLEAN", XdbcDataType::XdbcBit, Some(1)));
    types.append(XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", XdbcDataType::XdbcVarchar, "'") });
    types.append(quoted("BYTEA", XdbcDataType::XdbcVarbinary, "X'"));
    types.append(quoted("DATE", XdbcDataType::XdbcDate, "DATE '"));
    types.append(quoted("TIME", XdbcDataType::XdbcTime, "TIME '"));
    types.append(timestamp("TIMESTAMP", XdbcDatetimeSubcode::XdbcSubcodeTimestamp));
    types
        .append(timestamp("TIMESTAMP WITH TIME ZONE", XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone));
    types
}

fn plain(name: &str, data_type: XdbcDataType, column_size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: data_type,
        ..XdbcTypeInfo::default()
    }
}

fn number(name: &str, data_type: XdbcDataType, bits: i32, unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        num_prec_radix: Some(2),
        ..plain(name, data_type, Some(bits))
    }
}

fn quoted(name: &str, data_type: XdbcDataType, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..plain(name, data_type, None)
    }
}

fn timestamp(name: &str, subcode: XdbcDatetimeSubcode) -> XdbcTypeInfo {
    XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        ..quoted(name, XdbcDataType::XdbcTimestamp, "TIMESTAMP '")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_can_be_asked_for_one_by_one() {
        let data = type_info().build().unwrap();
        assert_eq!(data.record_batch(None).unwrap().num_rows(), 18);
        assert_eq!(data.record_batch(XdbcDataType::XdbcTimestamp as i32).unwrap().num_rows(), 2);
        assert_eq!(data.record_batch(XdbcDataType::XdbcInterval as i32).unwrap().num_rows(), 0);
    }
}
