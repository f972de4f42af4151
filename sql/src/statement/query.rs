//! Queries: read by the SQL parser, then held against an allow-list.
//!
//! DataFusion's planner ignores some of what the parser reads (a table's version, a sample, hints). Ignored
//! syntax gives wrong answers, so all of it is refused here.

use std::ops::ControlFlow;

use datafusion::common::format::{ExplainFormat, ExplainStatementOptions};
use datafusion::sql::parser;
use datafusion::sql::sqlparser::ast::{
    self, Query, Select, SetExpr, TableFactor, TableVersion, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use tandem_types::{Error, Result};

use super::Statement;
use super::conflict::conflict;
use super::front::{Front, folded_ident};

/// A query as a statement of DataFusion.
pub(super) fn statement(query: Box<Query>) -> parser::Statement {
    parser::Statement::Statement(Box::new(ast::Statement::Query(query)))
}

/// After the word `EXPLAIN`: `[ANALYZE] [VERBOSE] [FORMAT f]` or `(options)`, and a query.
pub(super) fn explain(front: &mut Front<'_>) -> Result<Statement> {
    let query_in_parentheses =
        ["select", "with", "values", "from", "table"].iter().any(|w| front.at_word(1, w))
            || front.at_token(1, &Token::LParen);
    let options = if front.at_token(0, &Token::LParen) && !query_in_parentheses {
        let place = front.place();
        let options = front.with_parser(|p| p.parse_utility_options())?;
        ExplainStatementOptions::from_utility_options(&options)
            .map_err(|e| Error::invalid(format!("{place}: {}", e.strip_backtrace())))?
    } else {
        let analyze = front.word("analyze");
        let verbose = front.word("verbose");
        let format = if front.word("format") { Some(explain_format(front)?) } else { None };
        ExplainStatementOptions { analyze, verbose, format, ..Default::default() }
    };
    if !front.at_query() {
        return Err(front.unsupported("only queries can be explained"));
    }
    let inner = Box::new(statement(front.query()?));
    let explain = parser::ExplainStatement { options, statement: inner };
    Ok(Statement::Query(Box::new(parser::Statement::Explain(explain))))
}

fn explain_format(front: &mut Front<'_>) -> Result<ExplainFormat> {
    let place = front.place();
    let name = match front.peek().token {
        Token::SingleQuotedString(_) => front.string("a format")?,
        _ => front.name("a format such as TREE")?,
    };
    name.parse().map_err(|_| {
        Error::invalid(format!("{place}: {name:?} is no format; known are indent, tree, pgjson and graphviz"))
    })
}

/// After the word `INSERT`.
pub(super) fn insert(front: &mut Front<'_>) -> Result<Statement> {
    if front.at_word(0, "overwrite") {
        return Err(front.unsupported("INSERT OVERWRITE is not supported"));
    }
    let place = front.place();
    let token = front.peek().clone();
    let parsed = front.with_parser(|p| p.parse_insert(token))?;
    let ast::Statement::Insert(insert) = parsed else {
        return Err(Error::unsupported(format!("{place}: this form of INSERT is not supported")));
    };
    let refused = |what: &str| Err(Error::unsupported(format!("{place}: {what} in INSERT is not supported")));
    // Every field is named, so that a parser which learns more does not make us ignore it.
    let ast::Insert {
        insert_token: _,
        optimizer_hints,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    if or.is_some() || ignore || replace_into {
        return refused("OR and IGNORE, in whose place stands ON CONFLICT (key) DO …,");
    }
    if returning.is_some() || output.is_some() {
        return refused("RETURNING");
    }
    if overwrite {
        return refused("OVERWRITE");
    }
    if partitioned.is_some() || !after_columns.is_empty() {
        return refused("PARTITION");
    }
    let unknown = table_alias.is_some()
        || !assignments.is_empty()
        || !optimizer_hints.is_empty()
        || priority.is_some()
        || insert_alias.is_some()
        || settings.is_some()
        || format_clause.is_some()
        || multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    if unknown {
        return refused("an extension of another system");
    }
    let ast::TableObject::TableName(name) = table else { return refused("a table function") };
    let table = front.target_of(&name).map_err(|e| e.context(&place))?;
    let Some(mut source) = source else { return refused("DEFAULT VALUES") };
    front.attach_versions(&mut source);
    check(&source)?;
    let columns = columns.iter().map(|name| insert_column(name, &place)).collect::<Result<Vec<_>>>()?;
    for (i, column) in columns.iter().enumerate() {
        if columns.iter().take(i).any(|c| c == column) {
            return Err(Error::invalid(format!("{place}: column {column:?} is named twice")));
        }
    }
    let conflict = on.map(conflict).transpose().map_err(|e| e.context(&place))?;
    Ok(Statement::Insert { table, columns, source, conflict })
}

fn insert_column(name: &ast::ObjectName, place: &str) -> Result<String> {
    match name.0.as_slice() {
        [ast::ObjectNamePart::Identifier(ident)] => Ok(folded_ident(ident)),
        _ => Err(Error::invalid(format!("{place}: {name} is no column's name"))),
    }
}

/// Refuses what the planner would ignore, and what writes.
pub(super) fn check(query: &Query) -> Result<()> {
    match query.visit(&mut AllowList) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct AllowList;

impl Visitor for AllowList {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        when(!query.locks.is_empty(), "FOR UPDATE and FOR SHARE")?;
        when(query.for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE")?;
        when(query.settings.is_some() || query.format_clause.is_some(), "SETTINGS and FORMAT")?;
        // The visitor shows nested queries, but not the kinds of the set expressions between them.
        let mut bodies = vec![query.body.as_ref()];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
                SetExpr::SetOperation { left, right, .. } => bodies.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Table(_) => when(true, "TABLE as a query: write SELECT * FROM, it")?,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    when(true, "a statement that writes within a query, also behind WITH,")?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        when(select.into.is_some(), "SELECT INTO: write CREATE TABLE AS, it")?;
        when(!select.optimizer_hints.is_empty(), "an optimizer hint")?;
        when(select.select_modifiers.is_some(), "a modifier of SELECT")?;
        when(select.top.is_some(), "TOP: write LIMIT, it")?;
        when(select.prewhere.is_some(), "PREWHERE")?;
        when(!select.connect_by.is_empty(), "CONNECT BY")?;
        when(select.value_table_mode.is_some(), "SELECT AS STRUCT or VALUE")?;
        when(!select.lateral_views.is_empty(), "LATERAL VIEW")?;
        let hive = [select.cluster_by.is_empty(), select.distribute_by.is_empty(), select.sort_by.is_empty()];
        when(hive.contains(&false), "CLUSTER BY, DISTRIBUTE BY and SORT BY")
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::Table {
                name: _,
                alias: _,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let known = |version: &TableVersion| {
                    matches!(version, TableVersion::ForSystemTimeAsOf(_) | TableVersion::VersionAsOf(_))
                };
                when(version.as_ref().is_some_and(|v| !known(v)), "this way to name a version of a table")?;
                when(sample.is_some(), "TABLESAMPLE")?;
                when(args.as_ref().is_some_and(|args| args.settings.is_some()), "SETTINGS")?;
                let hints = !with_hints.is_empty() || !index_hints.is_empty() || json_path.is_some();
                when(hints, "a hint on a table")?;
                when(!partitions.is_empty(), "PARTITION on a table")?;
                when(*with_ordinality, "WITH ORDINALITY")
            }
            TableFactor::Derived { sample, .. } => when(sample.is_some(), "TABLESAMPLE"),
            TableFactor::Function { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => when(true, "this kind of table expression"),
        }
    }

    fn pre_visit_statement(&mut self, statement: &ast::Statement) -> ControlFlow<Error> {
        let is_query = matches!(statement, ast::Statement::Query(_));
        when(!is_query, "a statement that writes within a query")
    }
}

fn when(found: bool, what: &str) -> ControlFlow<Error> {
    if found {
        return ControlFlow::Break(Error::unsupported(format!("{what} is not supported")));
    }
    ControlFlow::Continue(())
}
