//! Questions in PostgreSQL's dialect, brought to what DataFusion plans.
//!
//! Pieces are replaced by text that is parsed again: that says best what becomes of what.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinOperator,
    ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value, VisitMut,
    VisitorMut, visit_expressions, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tandem_sql::text::{tokens, unquoted};
use tandem_types::{Error, Result};

use super::View;
use super::tables::{OWNER, is_empty};
use crate::settings::SERVER_VERSION;

/// Of the text of a question; those of tools have some thousand bytes.
const MAX_BYTES: usize = 64 << 10;
/// Between a column's name and what tells it from others of the same name.
const TWIN: char = '\u{1}';

/// Functions that only a catalog answers.
const FUNCTIONS: &[&str] = &[
    "version",
    "current_schema",
    "current_schemas",
    "current_database",
    "current_catalog",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "current_setting",
    "format_type",
    "to_regclass",
    "to_regtype",
    "to_regnamespace",
    "obj_description",
    "col_description",
    "shobj_description",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "quote_ident",
];

/// Functions that aggregate: a query of them has a row even where its tables have none.
const AGGREGATES: &[&str] =
    &["count", "min", "max", "sum", "avg", "array_agg", "string_agg", "bool_or", "bool_and", "json_agg"];

/// The statement and the number of its parameters, if it is a question to the catalogs.
pub(super) fn question(sql: &str) -> Result<Option<(Statement, usize)>> {
    if sql.len() > MAX_BYTES {
        return Ok(None);
    }
    let tokens = tokens(sql);
    let first = tokens.first().map(|token| token.text.to_lowercase()).unwrap_or_default();
    if !matches!(first.as_str(), "select" | "with" | "(" | "table" | "values") {
        return Ok(None);
    }
    let hints = |word: &str| {
        word.starts_with("pg_")
            || word.starts_with("reg")
            || word == "information_schema"
            || FUNCTIONS.contains(&word)
    };
    let hinted = tokens.iter().any(|token| hints(&unquoted(token.text).to_lowercase()));
    if !hinted {
        return Ok(None);
    }
    let parsed = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(64).try_with_sql(sql);
    let parsed = parsed.and_then(|mut parser| parser.parse_statements());
    // What is none of PostgreSQL's dialect is one of ours.
    let Ok(mut statements) = parsed else { return Ok(None) };
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else { return Ok(None) };
    if !matches!(statement, Statement::Query(_)) || !is_question(&statement) {
        return Ok(None);
    }
    let parameters = tokens.windows(2).filter_map(|pair| match pair {
        [dollar, number] if dollar.text == "$" => number.text.parse::<usize>().ok(),
        _ => None,
    });
    let parameters = parameters.max().unwrap_or(0);
    if parameters > 1_000 {
        return Err(Error::invalid("a question to the catalogs takes 1000 parameters at most"));
    }
    Ok(Some((statement, parameters)))
}

fn is_question(statement: &Statement) -> bool {
    let (mut catalogs, mut others) = (false, false);
    let _: ControlFlow<()> = visit_relations(statement, |name| {
        if catalog_table(name).is_some() {
            catalogs = true;
        } else {
            others = true;
        }
        ControlFlow::Continue(())
    });
    if catalogs || others {
        return catalogs;
    }
    let mut asks = false;
    let _: ControlFlow<()> = visit_expressions(statement, |expr| {
        asks |= match expr {
            Expr::Function(function) => {
                let name = function_name(&function.name);
                name.starts_with("pg_") || FUNCTIONS.contains(&name.as_str())
            }
            Expr::Cast { data_type, .. } => type_name(&data_type.to_string()).starts_with("reg"),
            _ => false,
        };
        ControlFlow::Continue(())
    });
    asks
}

fn idents(name: &ObjectName) -> Vec<String> {
    let part = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) if ident.quote_style.is_none() => Some(ident.value.to_lowercase()),
        ObjectNamePart::Identifier(ident) => Some(ident.value.clone()),
        ObjectNamePart::Function(_) => None,
    };
    name.0.iter().filter_map(part).collect()
}

/// Schema and name of a table of the catalogs.
fn catalog_table(name: &ObjectName) -> Option<(String, String)> {
    let parts = idents(name);
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [schema @ ("pg_catalog" | "information_schema"), table]
        | [_, schema @ ("pg_catalog" | "information_schema"), table] => {
            Some(((*schema).to_owned(), (*table).to_owned()))
        }
        [table] if table.starts_with("pg_") => Some(("pg_catalog".to_owned(), (*table).to_owned())),
        _ => None,
    }
}

/// Without its schema, in lower case.
fn function_name(name: &ObjectName) -> String {
    idents(name).pop().unwrap_or_default().to_lowercase()
}

/// A type's name without its schema, in lower case.
fn type_name(text: &str) -> String {
    let text = text.to_lowercase().replace('"', "");
    let plain = text.trim_start_matches("pg_catalog.").trim_start_matches("information_schema.");
    plain.to_owned()
}

/// The question as DataFusion plans it.
pub(super) fn rewritten(mut statement: Statement, view: &View) -> Result<Statement> {
    let mut rewriter = Rewriter { view };
    match statement.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A column's name without what tells it from its twins.
pub(super) fn shown_name(name: &str) -> &str {
    name.split(TWIN).next().unwrap_or(name)
}

struct Rewriter<'a> {
    view: &'a View,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // They lock nothing that is there.
        query.locks.clear();
        match emptied(&mut query.body) {
            Ok(true) => {
                // There is nothing to put into an order, and the columns for it are gone.
                query.order_by = None;
                ControlFlow::Continue(())
            }
            Ok(false) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Error> {
        if let Some((schema, table)) = catalog_table(relation) {
            *relation = ObjectName::from(vec![Ident::new(schema), Ident::with_quote('"', table)]);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        // As Grafana asks which schemas are searched: with an array's elements by number, which are not planned.
        if let Expr::InSubquery { expr: left, subquery, negated } = expr
            && subquery.to_string().to_lowercase().contains("search_path")
        {
            let not = if *negated { "NOT " } else { "" };
            let text = format!("{left} {not}IN ({})", quoted(&self.view.facts.schema));
            return replace(expr, &text);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => match self.function(function) {
                Ok(Some(text)) => replace(expr, &text),
                Ok(None) => {
                    let name = function_name(&function.name);
                    function.name = ObjectName::from(vec![Ident::new(name)]);
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            },
            Expr::Cast { expr: inner, data_type, .. } => {
                let to = type_name(&data_type.to_string());
                match cast(inner, &to) {
                    Some(text) => replace(expr, &text),
                    None => ControlFlow::Continue(()),
                }
            }
            Expr::Collate { expr: inner, .. } => {
                *expr = inner.as_ref().clone();
                ControlFlow::Continue(())
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(known) = parts.last().and_then(|symbol| operator(symbol))
                {
                    *op = known;
                }
                ControlFlow::Continue(())
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                let text = any(left, right, "");
                replace(expr, &text)
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                let text = any(left, right, "NOT ");
                replace(expr, &text)
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                // The one that DataFusion knows is the backslash.
                match escape_char.take().map(|escape| escape.to_string().trim_matches('\'').to_owned()) {
                    Some(escape) if escape.len() == 1 && escape != "\\" => {
                        let text = format!("replace({pattern}, '{escape}', '\\')");
                        replace(pattern, &text)
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
            Expr::Subquery(query) => {
                one_row(query);
                ControlFlow::Continue(())
            }
            Expr::Value(value) => {
                if let Value::EscapedStringLiteral(text) = &value.value {
                    value.value = Value::SingleQuotedString(text.clone());
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check(done: Result<()>) -> ControlFlow<Error> {
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn parsed(text: &str) -> Result<Parser<'static>> {
    static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};
    Parser::new(&DIALECT).try_with_sql(text).map_err(|e| internal(text, &e))
}

fn internal(text: &str, e: &dyn std::fmt::Display) -> Error {
    Error::unsupported(format!("a question to the catalogs cannot be asked so, at {text}: {e}"))
}

fn replace(expr: &mut Expr, text: &str) -> ControlFlow<Error> {
    let parsed = parsed(text).and_then(|mut parser| parser.parse_expr().map_err(|e| internal(text, &e)));
    check(parsed.map(|new| *expr = new))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text between quotes.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn is_placeholder(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_placeholder(expr),
        _ => false,
    }
}

// Tables that never have a row.

/// Replaces what selects from tables without rows by a selection without tables: its expressions need not be planned.
/// Whether nothing is left of it.
fn emptied(body: &mut SetExpr) -> Result<bool> {
    match body {
        SetExpr::Select(select) if selects_nothing(select) => {
            let columns = select.projection.iter().enumerate().map(|(at, item)| {
                let name = item_name(item).unwrap_or_else(|| format!("column{at}"));
                format!("CAST(NULL AS TEXT) AS \"{}\"", name.replace('"', "\"\""))
            });
            let text = format!("SELECT {} WHERE 1 = 0", columns.collect::<Vec<_>>().join(", "));
            let query = parsed(&text)?.parse_query().map_err(|e| internal(&text, &e))?;
            *body = *query.body;
            Ok(true)
        }
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (emptied(left)?, emptied(right)?);
            Ok(left && right)
        }
        _ => Ok(false),
    }
}

fn selects_nothing(select: &Select) -> bool {
    let aggregates = select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => aggregates(expr),
        _ => false,
    });
    let wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    if aggregates || wildcard || select.having.is_some() {
        return false;
    }
    select.from.iter().any(|table| {
        let mut empty = has_no_rows(&table.relation);
        for join in &table.joins {
            let right = has_no_rows(&join.relation);
            empty = match join.join_operator {
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => empty || right,
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => empty,
                _ => false,
            };
        }
        empty
    })
}

fn has_no_rows(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => {
            catalog_table(name).is_some_and(|(schema, table)| schema == "pg_catalog" && is_empty(&table))
        }
        _ => false,
    }
}

fn aggregates(expr: &Expr) -> bool {
    let mut found = false;
    let _: ControlFlow<()> = visit_expressions(expr, |expr| {
        if let Expr::Function(function) = expr {
            found |= AGGREGATES.contains(&function_name(&function.name).as_str());
        }
        ControlFlow::Continue(())
    });
    found
}

// Names of columns.

/// Gives columns the names that PostgreSQL gives them, and tells apart what has the same.
fn name_columns(items: &mut [SelectItem]) {
    let mut seen = HashSet::new();
    for (at, item) in items.iter_mut().enumerate() {
        let Some(name) = item_name(item) else { continue };
        let first = seen.insert(name.clone());
        let plain =
            matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
        if first && (plain || matches!(item, SelectItem::ExprWithAlias { .. })) {
            continue;
        }
        let alias = if first { name } else { format!("{name}{TWIN}{at}") };
        let alias = Ident::with_quote('"', alias);
        match item {
            SelectItem::UnnamedExpr(expr) => {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            _ => {}
        }
    }
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(expr_name(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(ident_name(alias)),
        _ => None,
    }
}

fn ident_name(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn expr_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident_name(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(ident_name).unwrap_or_default(),
        Expr::Function(function) => function_name(&function.name),
        Expr::Cast { expr, data_type, .. } => match expr_name(expr).as_str() {
            "?column?" => type_name(&data_type.to_string()),
            name => name.to_owned(),
        },
        Expr::Collate { expr, .. } | Expr::Nested(expr) => expr_name(expr),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => select.projection.first().and_then(item_name).unwrap_or_default(),
            _ => "?column?".to_owned(),
        },
        _ => "?column?".to_owned(),
    }
}

// Subqueries.

/// A subquery in an expression has one row, which DataFusion believes only of an aggregate.
fn one_row(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if select.from.is_empty() {
        return;
    }
    if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_mut_slice()
        && !aggregates(expr)
    {
        let text = format!("max({expr})");
        if replace(expr, &text).is_continue() {
            query.order_by = None;
            query.limit_clause = None;
        }
    }
}

// Operators and casts.

fn operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// `left = ANY (right)` where what is compared with is a list that is written down, a query, or an array.
fn any(left: &Expr, right: &Expr, not: &str) -> String {
    let inner = match right {
        Expr::Nested(inner) => inner,
        other => other,
    };
    match inner {
        Expr::Array(array) if !array.elem.is_empty() => {
            let items: Vec<String> = array.elem.iter().map(ToString::to_string).collect();
            format!("{left} {not}IN ({})", items.join(", "))
        }
        Expr::Subquery(query) => format!("{left} {not}IN ({query})"),
        other => match literal(other).and_then(|text| text.strip_prefix('{')?.strip_suffix('}')) {
            Some(items) if !items.is_empty() => {
                let items: Vec<String> =
                    items.split(',').map(|item| quoted(&unquoted(item.trim()))).collect();
                format!("{left} {not}IN ({})", items.join(", "))
            }
            Some(_) => format!("{}(1 = 0)", not),
            None => format!("{not}array_has({other}, {left})"),
        },
    }
}

/// What a cast to a type of the catalogs becomes; `None` for types that DataFusion knows.
fn cast(inner: &Expr, to: &str) -> Option<String> {
    let asked = literal(inner).is_some() || is_placeholder(inner);
    Some(match to {
        "regclass" if asked => format!("tandem_regclass({inner})"),
        "regclass" => format!("tandem_relname({inner})"),
        "regtype" if asked => format!("tandem_find_type({inner})"),
        "regtype" => format!("format_type({inner}, -1)"),
        "regnamespace" if asked => format!("tandem_find_namespace({inner})"),
        "regnamespace" => format!("tandem_nspname({inner})"),
        "regrole" => quoted(OWNER),
        "regproc" | "regprocedure" | "regoper" | "name" | "char" | "\"char\"" | "bpchar" | "citext"
        | "text" | "sql_identifier" | "character_data" | "yes_or_no" | "xid" => {
            format!("CAST({inner} AS TEXT)")
        }
        "oid" | "cardinal_number" | "int8" => format!("CAST({inner} AS BIGINT)"),
        "int4" | "int2" => format!("CAST({inner} AS INT)"),
        "bool" => format!("CAST({inner} AS BOOLEAN)"),
        "float8" => format!("CAST({inner} AS DOUBLE)"),
        "anyarray" | "int2vector" | "oidvector" | "array" => inner.to_string(),
        list if list.ends_with("[]") || list.starts_with('_') => inner.to_string(),
        _ => return None,
    })
}

// Functions.

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let expr = |arg| match arg {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().filter_map(expr).collect()
}

impl Rewriter<'_> {
    /// What stands for a function; `None` for those that DataFusion has.
    fn function(&self, function: &Function) -> Result<Option<String>> {
        let facts = &self.view.facts;
        let name = function_name(&function.name);
        let args = arguments(function);
        let arg = |at: usize| args.get(at).map(ToString::to_string).unwrap_or_else(|| "NULL".to_owned());
        Ok(Some(match name.as_str() {
            "version" => {
                quoted(&format!("PostgreSQL {SERVER_VERSION} (TandemDB {})", env!("CARGO_PKG_VERSION")))
            }
            "current_database" | "current_catalog" => quoted("tandem"),
            "current_schema" => quoted(&facts.schema),
            "current_schemas" if arg(0).eq_ignore_ascii_case("true") => {
                format!("make_array('pg_catalog', {})", quoted(&facts.schema))
            }
            "current_schemas" => format!("make_array({})", quoted(&facts.schema)),
            "current_user" | "session_user" | "user" | "current_role" => quoted(&facts.user),
            "current_setting" => self.setting(&args)?,
            "pg_backend_pid" => facts.process.to_string(),
            "pg_get_userbyid" => quoted(OWNER),
            "pg_encoding_to_char" => quoted("UTF8"),
            "pg_is_in_recovery" | "pg_is_other_temp_schema" => "false".to_owned(),
            "pg_my_temp_schema" => "0".to_owned(),
            "pg_get_constraintdef" => format!("tandem_constraint({})", arg(0)),
            "pg_get_indexdef" if args.len() < 2 || arg(1) == "0" => format!("tandem_definition({})", arg(0)),
            "pg_table_size" | "pg_total_relation_size" | "pg_relation_size" => {
                format!("tandem_size({})", arg(0))
            }
            "pg_indexes_size" => "0".to_owned(),
            "pg_database_size" => {
                let all: i64 = super::tables::sizes(self.view).values().sum();
                format!("CAST({all} AS BIGINT)")
            }
            "to_regclass" => format!("tandem_find_relation({})", arg(0)),
            "to_regtype" => format!("tandem_find_type({})", arg(0)),
            "to_regnamespace" => format!("tandem_find_namespace({})", arg(0)),
            "generate_subscripts" => format!("unnest(generate_series(1, cardinality({})))", arg(0)),
            // Arrays of access rights and of options, which nothing has.
            "array_to_string"
                if ["acl", "options"].iter().any(|what| arg(0).to_lowercase().contains(what))
                    || arg(0) == "NULL" =>
            {
                "CAST(NULL AS TEXT)".to_owned()
            }
            "array" => "NULL".to_owned(),
            "obj_description"
            | "col_description"
            | "shobj_description"
            | "pg_get_expr"
            | "pg_get_viewdef"
            | "pg_get_ruledef"
            | "pg_get_triggerdef"
            | "pg_get_functiondef"
            | "pg_get_serial_sequence"
            | "pg_get_partkeydef"
            | "pg_get_indexdef"
            | "pg_tablespace_location"
            | "pg_get_statisticsobjdef_columns" => "CAST(NULL AS TEXT)".to_owned(),
            _ if name.ends_with("_is_visible") => "true".to_owned(),
            _ if name.starts_with("has_") && name.ends_with("_privilege") || name == "pg_has_role" => {
                "true".to_owned()
            }
            _ => return Ok(None),
        }))
    }

    fn setting(&self, args: &[&Expr]) -> Result<String> {
        let Some(name) = args.first().and_then(|arg| literal(arg)) else {
            // A parameter, for instance.
            let arg = args.first().map(ToString::to_string).unwrap_or_else(|| "NULL".to_owned());
            return Ok(format!("tandem_setting({arg})"));
        };
        if name.eq_ignore_ascii_case("search_path") {
            return Ok(quoted(&self.view.facts.schema));
        }
        let known = self.view.facts.settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        match (known, args.get(1)) {
            (Some((_, value)), _) => Ok(quoted(value)),
            (None, Some(missing)) if missing.to_string().eq_ignore_ascii_case("true") => {
                Ok("CAST(NULL AS TEXT)".to_owned())
            }
            (None, _) => Err(Error::invalid(format!("unrecognized configuration parameter {name:?}"))),
        }
    }
}
