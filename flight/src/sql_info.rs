//! What the server says of itself and of its SQL: `CommandGetSqlInfo`.
//!
//! Drivers are strict about it: some panic when a value is of another type than the standard's, some when a code is
//! missing. So every code they ask for is here, in the standard's type.

use std::collections::BTreeMap;

use arrow_flight::sql::SqlInfo::*;
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

/// All codes.
pub(crate) fn sql_info() -> SqlInfoDataBuilder {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info);
    identifiers(&mut info);
    functions(&mut info);
    syntax(&mut info);
    names(&mut info);
    limits(&mut info);
    transactions(&mut info);
    info
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(FlightSqlServerName, "TandemDB");
    info.append(FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    flags(info, false, &[FlightSqlServerReadOnly, FlightSqlServerSubstrait]);
    flags(info, true, &[FlightSqlServerSql, FlightSqlServerCancel, FlightSqlServerBulkIngestion]);
    // With savepoints, which the standard has as the higher level.
    info.append(FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    flags(info, true, &[FlightSqlServerIngestTransactionsSupported]);
    // Milliseconds; 0: none. A transaction may be open for as long as it is used.
    info.append(FlightSqlServerStatementTimeout, 0i32);
    info.append(FlightSqlServerTransactionTimeout, 0i32);
}

fn identifiers(info: &mut SqlInfoDataBuilder) {
    flags(info, false, &[SqlDdlCatalog]);
    flags(info, true, &[SqlDdlSchema, SqlDdlTable, SqlAllTablesAreSelectable]);
    info.append(SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlIdentifierQuoteChar, "\"");
    // The standard's word for "as they are" is "unknown"; no other value says that case counts.
    info.append(SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlSearchStringEscape, "\\");
    info.append(SqlExtraNameCharacters, "");
}

fn functions(info: &mut SqlInfoDataBuilder) {
    info.append(SqlKeywords, KEYWORDS);
    info.append(SqlNumericFunctions, NUMERIC_FUNCTIONS);
    info.append(SqlStringFunctions, STRING_FUNCTIONS);
    info.append(SqlSystemFunctions, SYSTEM_FUNCTIONS);
    info.append(SqlDatetimeFunctions, DATETIME_FUNCTIONS);
}

fn syntax(info: &mut SqlInfoDataBuilder) {
    flags(
        info,
        true,
        &[
            SqlSupportsColumnAliasing,
            SqlNullPlusNullIsNull,
            SqlSupportsTableCorrelationNames,
            SqlSupportsExpressionsInOrderBy,
            SqlSupportsOrderByUnrelated,
            SqlSupportsLikeEscapeClause,
            SqlSupportsNonNullableColumns,
            SqlCorrelatedSubqueriesSupported,
        ],
    );
    flags(
        info,
        false,
        &[
            SqlSupportsDifferentTableCorrelationNames,
            SqlSupportsIntegrityEnhancementFacility,
            SqlSelectForUpdateSupported,
            SqlStoredProceduresSupported,
        ],
    );
    info.append(SqlSupportsConvert, conversions());
    // Bit masks: bit n stands for the enum's value n.
    info.append(SqlSupportedGroupBy, 0b11i32);
    info.append(SqlSupportedGrammar, mask(&[SupportedSqlGrammar::SqlMinimumGrammar as i32]));
    // No level of ANSI 92 is complete.
    info.append(SqlAnsi92SupportedLevel, 0i32);
    info.append(SqlOuterJoinsSupportLevel, mask(&[SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32]));
    info.append(
        SqlSupportedSubqueries,
        mask(&[
            SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
            SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
            SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
        ]),
    );
    info.append(
        SqlSupportedUnions,
        mask(&[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
    );
}

fn names(info: &mut SqlInfoDataBuilder) {
    info.append(SqlSchemaTerm, "schema");
    info.append(SqlProcedureTerm, "procedure");
    info.append(SqlCatalogTerm, "catalog");
    flags(info, true, &[SqlCatalogAtStart]);
    // Schemas and catalogs cannot stand in procedure calls, index or privilege definitions: there are none.
    info.append(SqlSchemasSupportedActions, 0i32);
    info.append(SqlCatalogsSupportedActions, 0i32);
    info.append(SqlSupportedPositionedCommands, 0i32);
}

fn limits(info: &mut SqlInfoDataBuilder) {
    const NAME: i64 = tandem_types::MAX_NAME_BYTES as i64;
    for code in [SqlMaxColumnNameLength, SqlDbSchemaNameLength, SqlMaxTableNameLength] {
        info.append(code, NAME);
    }
    // 0: no limit, or none that is known.
    for code in [
        SqlMaxBinaryLiteralLength,
        SqlMaxCharLiteralLength,
        SqlMaxColumnsInGroupBy,
        SqlMaxColumnsInIndex,
        SqlMaxColumnsInOrderBy,
        SqlMaxColumnsInSelect,
        SqlMaxColumnsInTable,
        SqlMaxConnections,
        SqlMaxCursorNameLength,
        SqlMaxIndexLength,
        SqlMaxProcedureNameLength,
        SqlMaxCatalogNameLength,
        SqlMaxRowSize,
        SqlMaxStatementLength,
        SqlMaxStatements,
        SqlMaxTablesInSelect,
        SqlMaxUsernameLength,
    ] {
        info.append(code, 0i64);
    }
    flags(info, true, &[SqlMaxRowSizeIncludesBlobs]);
}

fn transactions(info: &mut SqlInfoDataBuilder) {
    flags(
        info,
        false,
        &[
            SqlDataDefinitionCausesTransactionCommit,
            SqlDataDefinitionsInTransactionsIgnored,
            SqlNamedParametersSupported,
            SqlLocatorsUpdateCopy,
            SqlStoredFunctionsUsingCallSyntaxSupported,
        ],
    );
    flags(info, true, &[SqlTransactionsSupported, SqlSavepointsSupported, SqlBatchUpdatesSupported]);
    // The standard says int32. The one driver that asks casts it to a long, and fails as well where it is missing.
    info.append(
        SqlDefaultTransactionIsolation,
        SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i64,
    );
    info.append(
        SqlSupportedTransactionsIsolationLevels,
        mask(&[
            SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32,
            SqlTransactionIsolationLevel::SqlTransactionSerializable as i32,
        ]),
    );
    info.append(
        SqlSupportedResultSetTypes,
        mask(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]),
    );
    // Bit 1: read only. Only results that go forward are offered.
    info.append(SqlSupportedConcurrenciesForResultSetUnspecified, 0i32);
    info.append(SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10i32);
    info.append(SqlSupportedConcurrenciesForResultSetScrollSensitive, 0i32);
    info.append(SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0i32);
}

fn flags(info: &mut SqlInfoDataBuilder, value: bool, codes: &[SqlInfo]) {
    for code in codes {
        info.append(*code, value);
    }
}

fn mask(bits: &[i32]) -> i32 {
    bits.iter().fold(0, |mask, bit| mask | 1 << bit)
}

/// What CAST can do, by type.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert::*;
    let integers = [SqlConvertTinyint, SqlConvertSmallint, SqlConvertInteger, SqlConvertBigint];
    let numbers: Vec<SqlSupportsConvert> = integers
        .into_iter()
        .chain([SqlConvertReal, SqlConvertFloat, SqlConvertDecimal, SqlConvertNumeric])
        .collect();
    let times = [SqlConvertDate, SqlConvertTimestamp];
    let mut map = BTreeMap::new();
    let mut put = |from: SqlSupportsConvert, to: &[&[SqlSupportsConvert]]| {
        map.insert(from as i32, to.iter().flat_map(|t| t.iter()).map(|t| *t as i32).collect());
    };
    for number in &numbers {
        put(*number, &[&numbers, &[SqlConvertVarchar]]);
    }
    for time in times {
        put(time, &[&times, &[SqlConvertVarchar]]);
    }
    put(SqlConvertTime, &[&[SqlConvertTime, SqlConvertVarchar]]);
    put(SqlConvertBit, &[&integers, &[SqlConvertBit, SqlConvertVarchar]]);
    put(SqlConvertVarbinary, &[&[SqlConvertVarbinary, SqlConvertVarchar]]);
    let others = [SqlConvertTime, SqlConvertBit, SqlConvertVarbinary, SqlConvertVarchar];
    put(SqlConvertVarchar, &[&numbers, &times, &others]);
    map
}

/// Words that are not in SQL:2003 and mean something here.
const KEYWORDS: &[&str] = &[
    "ANTI",
    "ASOF",
    "CHECKPOINT",
    "DESCRIBE",
    "EXPLAIN",
    "HOUR",
    "IF",
    "ILIKE",
    "LIMIT",
    "OFFSET",
    "OPTIMIZE",
    "PARTITION",
    "QUALIFY",
    "REPLACE",
    "SEMI",
    "SHOW",
    "TRUNCATE",
    "WEEK",
];

const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
];

const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "md5",
    "octet_length",
    "overlay",
    "regexp_count",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "upper",
    "uuid",
];

const SYSTEM_FUNCTIONS: &[&str] = &[
    "arrow_typeof",
    "coalesce",
    "greatest",
    "ifnull",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    "tandem_last_seq",
    "version",
];

const DATETIME_FUNCTIONS: &[&str] = &[
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt32Type;

    use super::*;

    #[test]
    fn every_code_that_drivers_ask_for_is_there_in_its_type() {
        let data = sql_info().build().unwrap();
        let all = data.record_batch([]).unwrap();
        let codes = all.column(0).as_primitive::<UInt32Type>();
        let values = all.column(1).as_union();
        let child = |code: u32| {
            let at =
                codes.values().iter().position(|c| *c == code).unwrap_or_else(|| panic!("{code} is missing"));
            values.type_id(at)
        };
        let text = [0, 1, 2, 504, 513, 514, 529, 530, 531];
        let int64 = (541..=562).filter(|c| *c != 556);
        let int32 = [8, 100, 101, 503, 505, 507, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564];
        let lists = 508..=512;
        let flags =
            [3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532, 536]
                .into_iter()
                .chain([537, 539, 556, 563, 565, 566])
                .chain(572..=576);
        for (kind, wanted) in [
            (0, text.to_vec()),
            (1, flags.collect()),
            (2, int64.collect()),
            (3, int32.into_iter().chain(567..=571).collect()),
            (4, lists.collect()),
            (5, vec![517]),
        ] {
            for code in wanted {
                assert_eq!(child(code), kind, "{code}");
            }
        }
        let transaction = data.record_batch([8]).unwrap();
        assert_eq!(
            transaction.column(1).as_union().value(0).as_primitive::<arrow::datatypes::Int32Type>().value(0),
            SqlSupportedTransaction::Savepoint as i32
        );
    }
}
