//! Functions of PostgreSQL's that catalogs are asked with and that depend on the state.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::DataType;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use tandem_sql::text::unquoted;
use tandem_types::Error;

use super::View;
use super::tables::{self, namespace_oid};
use crate::errors::UNDEFINED_TABLE;
use crate::types::{TYPES, by_oid, item_of};

/// What a number stands for.
type TextOf = dyn Fn(i64) -> Option<String> + Send + Sync;
/// The number of a name.
type NumberOf = dyn Fn(&str) -> Result<Option<i64>, Error> + Send + Sync;

pub(super) fn register(context: &SessionContext, view: &View) {
    let names = Arc::new(Names::of(view));
    let text_of = |name: &str, of: Arc<TextOf>| {
        let body = move |args: &[ColumnarValue]| {
            let numbers = one(args)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            let texts: StringArray = numbers.iter().map(|number| number.and_then(|n| of(n))).collect();
            Ok(ColumnarValue::Array(Arc::new(texts)))
        };
        context.register_udf(create_udf(
            name,
            vec![DataType::Int64],
            DataType::Utf8,
            Volatility::Stable,
            Arc::new(body),
        ));
    };
    let known = names.clone();
    text_of("tandem_relname", Arc::new(move |oid| Some(known.relation(oid))));
    let known = names.clone();
    text_of("tandem_nspname", Arc::new(move |oid| known.namespaces.get(&oid).cloned()));
    let known = names.clone();
    text_of("tandem_definition", Arc::new(move |oid| known.definitions.get(&oid).cloned()));
    let known = names.clone();
    text_of("tandem_constraint", Arc::new(move |oid| known.constraints.get(&oid).cloned()));
    text_of("pg_size_pretty", Arc::new(|bytes| Some(pretty(bytes))));

    let number_of = |name: &str, of: Arc<NumberOf>| {
        let body = move |args: &[ColumnarValue]| {
            let texts = one(args)?;
            let texts = texts.as_string::<i32>();
            let numbers = texts.iter().map(|text| text.map_or(Ok(None), |text| of(text)));
            let numbers: Result<Int64Array, Error> = numbers.collect();
            let numbers = numbers.map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok(ColumnarValue::Array(Arc::new(numbers)))
        };
        context.register_udf(create_udf(
            name,
            vec![DataType::Utf8],
            DataType::Int64,
            Volatility::Stable,
            Arc::new(body),
        ));
    };
    let known = names.clone();
    number_of("tandem_find_relation", Arc::new(move |name| Ok(known.find(name))));
    let known = names.clone();
    number_of(
        "tandem_regclass",
        Arc::new(move |name| match known.find(name) {
            Some(oid) => Ok(Some(oid)),
            None => Err(Error::not_found(format!("{UNDEFINED_TABLE} {name:?} does not exist"))),
        }),
    );
    number_of("tandem_find_type", Arc::new(|name| Ok(find_type(name))));
    number_of("tandem_find_namespace", Arc::new(|name| Ok(Some(namespace_oid(&unquoted(name))))));

    let settings = view.facts.settings.clone();
    let schema = view.facts.schema.clone();
    let body = move |args: &[ColumnarValue]| {
        let texts = one(args)?;
        let value = |name: &str| {
            let known = settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            known.map(|(_, value)| value.clone()).or_else(|| (name == "search_path").then(|| schema.clone()))
        };
        let values: StringArray = texts.as_string::<i32>().iter().map(|name| value(name?)).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    };
    context.register_udf(create_udf(
        "tandem_setting",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(body),
    ));

    let sizes: HashMap<i64, i64> = tables::sizes(view);
    let body = move |args: &[ColumnarValue]| {
        let numbers = one(args)?;
        let sizes: Int64Array =
            numbers.as_primitive::<Int64Type>().iter().map(|oid| sizes.get(&oid?).copied()).collect();
        Ok(ColumnarValue::Array(Arc::new(sizes)))
    };
    context.register_udf(create_udf(
        "tandem_size",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Stable,
        Arc::new(body),
    ));

    let body = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (Some(oids), Some(modifiers)) = (arrays.first(), arrays.get(1)) else {
            return Err(DataFusionError::Plan("format_type takes a type and a modifier".to_owned()));
        };
        let (oids, modifiers) = (oids.as_primitive::<Int64Type>(), modifiers.as_primitive::<Int64Type>());
        let texts = (0..oids.len()).map(|row| {
            oids.is_valid(row).then(|| {
                let modifier = if modifiers.is_valid(row) { modifiers.value(row) } else { -1 };
                format_type(oids.value(row), modifier)
            })
        });
        Ok(ColumnarValue::Array(Arc::new(texts.collect::<StringArray>())))
    };
    let takes = vec![DataType::Int64, DataType::Int64];
    context.register_udf(create_udf(
        "format_type",
        takes,
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(body),
    ));

    let body = |args: &[ColumnarValue]| {
        let texts = one(args)?;
        let quoted = texts.as_string::<i32>().iter().map(|text| text.map(quote_ident));
        Ok(ColumnarValue::Array(Arc::new(quoted.collect::<StringArray>())))
    };
    context.register_udf(create_udf(
        "quote_ident",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(body),
    ));
}

fn one(args: &[ColumnarValue]) -> DfResult<ArrayRef> {
    let mut arrays = ColumnarValue::values_to_arrays(args)?;
    arrays.pop().ok_or_else(|| DataFusionError::Plan("a function was called without its argument".to_owned()))
}

/// What numbers stand for, and back.
struct Names {
    /// The session's schema, whose tables go without it.
    schema: String,
    relations: HashMap<i64, (String, String)>,
    namespaces: HashMap<i64, String>,
    /// Of indexes and of constraints.
    definitions: HashMap<i64, String>,
    constraints: HashMap<i64, String>,
}

impl Names {
    fn of(view: &View) -> Self {
        let mut names = Self {
            schema: view.facts.schema.clone(),
            relations: tables::relations(view),
            namespaces: tables::namespaces(view)
                .into_iter()
                .map(|name| (namespace_oid(&name), name))
                .collect(),
            definitions: HashMap::new(),
            constraints: HashMap::new(),
        };
        for key in tables::keys(view) {
            let columns = key.names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ");
            let (schema, table) = (quote_ident(&key.schema), quote_ident(&key.table));
            names.definitions.insert(
                key.index,
                format!(
                    "CREATE UNIQUE INDEX {} ON {schema}.{table} USING btree ({columns})",
                    quote_ident(&key.name)
                ),
            );
            names.constraints.insert(key.constraint, format!("PRIMARY KEY ({columns})"));
        }
        names
    }

    fn relation(&self, oid: i64) -> String {
        match self.relations.get(&oid) {
            Some((schema, name)) if *schema == self.schema || schema == "pg_catalog" => quote_ident(name),
            Some((schema, name)) => format!("{}.{}", quote_ident(schema), quote_ident(name)),
            None => oid.to_string(),
        }
    }

    /// The number of a relation, by its name or by its number as text.
    fn find(&self, text: &str) -> Option<i64> {
        if let Ok(number) = text.trim().parse() {
            return Some(number);
        }
        let tokens = tandem_sql::text::tokens(text);
        let parts: Vec<String> =
            tokens
                .iter()
                .filter(|token| token.text != ".")
                .map(|token| {
                    if token.text.starts_with('"') { unquoted(token.text) } else { token.text.to_lowercase() }
                })
                .collect();
        let (schema, name) = match parts.as_slice() {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema), name),
            _ => return None,
        };
        let fits = |found: &String| match schema {
            Some(schema) => found == schema,
            None => *found == self.schema || found == "pg_catalog",
        };
        let found = self.relations.iter().filter(|(_, (schema, known))| known == name && fits(schema));
        found.map(|(oid, _)| *oid).min()
    }
}

fn find_type(name: &str) -> Option<i64> {
    if let Ok(number) = name.trim().parse() {
        return Some(number);
    }
    let name = name.trim().trim_start_matches("pg_catalog.").to_lowercase();
    let plain = name.strip_suffix("[]").unwrap_or(&name);
    let known = TYPES.iter().find(|known| known.name == plain || known.long_name == plain)?;
    Some(i64::from(if plain == name { known.oid } else { known.array }))
}

/// A type as people write it.
pub(super) fn format_type(oid: i64, modifier: i64) -> String {
    let Ok(number) = u32::try_from(oid) else { return "???".to_owned() };
    match (by_oid(number), item_of(number)) {
        (Some(known), _) if known.oid == crate::types::oid::NUMERIC && modifier >= 4 => {
            format!("numeric({},{})", (modifier - 4) >> 16, (modifier - 4) & 0xffff)
        }
        (Some(known), _) => known.long_name.to_owned(),
        (None, Some(item)) => format!("{}[]", item.long_name),
        (None, None) if number == 0 => "-".to_owned(),
        (None, None) => "???".to_owned(),
    }
}

/// A name, quoted where it must be.
pub(super) fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn pretty(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes, 0);
    while value.abs() >= 10_240 && unit + 1 < UNITS.len() {
        value = (value + 512) / 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS.get(unit).unwrap_or(&"TB"))
}
