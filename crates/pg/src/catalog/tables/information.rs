//! The tables of `information_schema`.

use tandem_types::Result;

use super::{Key, Named, OWNER, column_type, keys, namespaces, type_name};
use crate::catalog::View;
use crate::catalog::functions::format_type;
use crate::catalog::rows::{V, row, table};
use crate::types::{item_of, modifier_of, oid};

const CATALOG: &str = "tandem";

pub(super) fn tables(view: &View) -> Result<Named> {
    Ok(vec![
        ("schemata", table(SCHEMATA, &schemata(view))?),
        ("tables", table(TABLES, &table_rows(view))?),
        ("columns", table(COLUMNS, &columns(view))?),
        ("table_constraints", table(TABLE_CONSTRAINTS, &table_constraints(view))?),
        ("key_column_usage", table(KEY_COLUMN_USAGE, &key_column_usage(view))?),
        ("constraint_column_usage", table(CONSTRAINT_COLUMN_USAGE, &constraint_column_usage(view))?),
        (
            "referential_constraints",
            table(
                "constraint_catalog:t constraint_schema:t constraint_name:t unique_constraint_schema:t unique_constraint_name:t update_rule:t delete_rule:t",
                &[],
            )?,
        ),
        (
            "check_constraints",
            table("constraint_catalog:t constraint_schema:t constraint_name:t check_clause:t", &[])?,
        ),
        (
            "views",
            table(
                "table_catalog:t table_schema:t table_name:t view_definition:t check_option:t is_updatable:t",
                &[],
            )?,
        ),
        ("sequences", table("sequence_catalog:t sequence_schema:t sequence_name:t data_type:t", &[])?),
        (
            "routines",
            table(
                "specific_schema:t specific_name:t routine_catalog:t routine_schema:t routine_name:t routine_type:t data_type:t",
                &[],
            )?,
        ),
        (
            "triggers",
            table(
                "trigger_catalog:t trigger_schema:t trigger_name:t event_manipulation:t event_object_table:t",
                &[],
            )?,
        ),
    ])
}

const SCHEMATA: &str = "catalog_name:t schema_name:t schema_owner:t default_character_set_catalog:t \
    default_character_set_schema:t default_character_set_name:t sql_path:t";

fn schemata(view: &View) -> Vec<Vec<V>> {
    let rows = namespaces(view)
        .into_iter()
        .map(|name| row![CATALOG, name, OWNER, V::Null, V::Null, V::Null, V::Null]);
    rows.collect()
}

const TABLES: &str = "table_catalog:t table_schema:t table_name:t table_type:t self_referencing_column_name:t \
    reference_generation:t user_defined_type_catalog:t user_defined_type_schema:t user_defined_type_name:t \
    is_insertable_into:t is_typed:t commit_action:t";

fn table_rows(view: &View) -> Vec<Vec<V>> {
    let rows = super::tables(view).into_iter().map(|table| {
        let name = table.name();
        row![
            CATALOG,
            name.schema.clone(),
            name.table.clone(),
            "BASE TABLE",
            V::Null,
            V::Null,
            V::Null,
            V::Null,
            V::Null,
            "YES",
            "NO",
            V::Null
        ]
    });
    rows.collect()
}

const COLUMNS: &str = "table_catalog:t table_schema:t table_name:t column_name:t ordinal_position:i column_default:t \
    is_nullable:t data_type:t character_maximum_length:i character_octet_length:i numeric_precision:i \
    numeric_precision_radix:i numeric_scale:i datetime_precision:i interval_type:t collation_name:t domain_name:t \
    udt_catalog:t udt_schema:t udt_name:t is_self_referencing:t is_identity:t identity_generation:t is_generated:t \
    generation_expression:t is_updatable:t";

fn columns(view: &View) -> Vec<Vec<V>> {
    let mut rows = Vec::new();
    for table in super::tables(view) {
        let name = table.name();
        for (position, column) in (1_i64..).zip(&table.schema().columns) {
            let (number, _) = column_type(&column.data_type);
            let modifier = i64::from(modifier_of(&column.data_type));
            let data_type = match item_of(number) {
                Some(_) => "ARRAY".to_owned(),
                None => format_type(number.into(), -1),
            };
            let (precision, radix, scale) = match number {
                oid::INT2 => (V::from(16), V::from(2), V::from(0)),
                oid::INT4 => (V::from(32), V::from(2), V::from(0)),
                oid::INT8 => (V::from(64), V::from(2), V::from(0)),
                oid::FLOAT4 => (V::from(24), V::from(2), V::Null),
                oid::FLOAT8 => (V::from(53), V::from(2), V::Null),
                oid::NUMERIC if modifier >= 4 => {
                    (V::from((modifier - 4) >> 16), V::from(10), V::from((modifier - 4) & 0xffff))
                }
                oid::NUMERIC => (V::Null, V::from(10), V::Null),
                _ => (V::Null, V::Null, V::Null),
            };
            let moments = match number {
                oid::DATE => V::from(0),
                oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL => V::from(6),
                _ => V::Null,
            };
            rows.push(row![
                CATALOG,
                name.schema.clone(),
                name.table.clone(),
                column.name.clone(),
                position,
                V::Null,
                if column.nullable { "YES" } else { "NO" },
                data_type,
                V::Null,
                V::Null,
                precision,
                radix,
                scale,
                moments,
                V::Null,
                V::Null,
                V::Null,
                CATALOG,
                "pg_catalog",
                type_name(number),
                "NO",
                "NO",
                V::Null,
                "NEVER",
                V::Null,
                "YES"
            ]);
        }
    }
    rows
}

const TABLE_CONSTRAINTS: &str = "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t table_schema:t \
    table_name:t constraint_type:t is_deferrable:t initially_deferred:t enforced:t";

fn table_constraints(view: &View) -> Vec<Vec<V>> {
    let row_of = |key: Key| {
        row![
            CATALOG,
            key.schema.clone(),
            key.name,
            CATALOG,
            key.schema,
            key.table,
            "PRIMARY KEY",
            "NO",
            "NO",
            "YES"
        ]
    };
    keys(view).into_iter().map(row_of).collect()
}

const KEY_COLUMN_USAGE: &str = "constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t table_schema:t \
    table_name:t column_name:t ordinal_position:i position_in_unique_constraint:i";

fn key_column_usage(view: &View) -> Vec<Vec<V>> {
    let mut rows = Vec::new();
    for key in keys(view) {
        for (position, column) in (1_i64..).zip(&key.names) {
            rows.push(row![
                CATALOG,
                key.schema.clone(),
                key.name.clone(),
                CATALOG,
                key.schema.clone(),
                key.table.clone(),
                column.clone(),
                position,
                V::Null
            ]);
        }
    }
    rows
}

const CONSTRAINT_COLUMN_USAGE: &str = "table_catalog:t table_schema:t table_name:t column_name:t constraint_catalog:t \
    constraint_schema:t constraint_name:t";

fn constraint_column_usage(view: &View) -> Vec<Vec<V>> {
    let mut rows = Vec::new();
    for key in keys(view) {
        for column in &key.names {
            rows.push(row![
                CATALOG,
                key.schema.clone(),
                key.table.clone(),
                column.clone(),
                CATALOG,
                key.schema.clone(),
                key.name.clone()
            ]);
        }
    }
    rows
}
