//! `UPDATE` and `DELETE`: read by the SQL parser, held against an allow-list, and turned into the query that tells what
//! they do.
//!
//! The query selects the new values, one column for each assignment, of the rows that the statement acts on. Its first
//! table is the target. So names, subqueries and joins mean in a change what they mean in a query, and what the planner
//! would read over in silence is refused by the same list.

use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, Expr, FromTable, Ident, ObjectNamePart, SelectItem, SetExpr, TableFactor,
    TableWithJoins, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::parser::Parser;
use tandem_types::{Error, Result, TableName};

use super::Statement;
use super::front::{Front, folded_ident};
use super::query::check;
use super::tokens::DIALECT;

/// An `UPDATE` or a `DELETE`.
#[derive(Clone, Debug)]
pub struct Dml {
    pub table: TableName,
    /// The columns to assign, in the order of the query's; `None`: a `DELETE`.
    pub assigned: Option<Vec<String>>,
    /// Whether other tables are joined to the target.
    pub joined: bool,
    /// `SELECT values FROM target, … WHERE …`.
    pub query: Box<ast::Query>,
}

/// After the word `UPDATE`.
pub(super) fn update(front: &mut Front<'_>) -> Result<Statement> {
    let place = front.place();
    let token = front.peek().clone();
    let parsed = front.with_parser(|p| p.parse_update(token))?;
    let ast::Statement::Update(update) = parsed else {
        return Err(Error::unsupported(format!("{place}: this form of UPDATE is not supported")));
    };
    let refused = |what: &str| Err(Error::unsupported(format!("{place}: {what} in UPDATE is not supported")));
    // Every field is named, so that a parser which learns more does not make us ignore it.
    let ast::Update {
        update_token: _,
        optimizer_hints,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    if returning.is_some() || output.is_some() {
        return refused("RETURNING");
    }
    if or.is_some() {
        return refused("OR");
    }
    if !order_by.is_empty() || limit.is_some() {
        return refused("ORDER BY and LIMIT");
    }
    if !optimizer_hints.is_empty() {
        return refused("an optimizer hint");
    }
    let from = match from {
        None => Vec::new(),
        Some(UpdateTableFromKind::AfterSet(from)) => from,
        Some(UpdateTableFromKind::BeforeSet(_)) => return refused("FROM before SET"),
    };
    let mut assigned: Vec<String> = Vec::with_capacity(assignments.len());
    let mut values = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let column = assigned_column(&assignment.target).map_err(|e| e.context(&place))?;
        if assigned.contains(&column) {
            return Err(Error::invalid(format!("{place}: column {column:?} is assigned twice")));
        }
        assigned.push(column);
        values.push(assignment.value);
    }
    let table_name = target(front, &table).map_err(|e| e.context(&place))?;
    let joined = !from.is_empty();
    let query = query(front, values, table, from, selection).map_err(|e| e.context(&place))?;
    Ok(Statement::Dml(Dml { table: table_name, assigned: Some(assigned), joined, query }))
}

/// After the word `DELETE`.
pub(super) fn delete(front: &mut Front<'_>) -> Result<Statement> {
    let place = front.place();
    let token = front.peek().clone();
    let parsed = front.with_parser(|p| p.parse_delete(token))?;
    let ast::Statement::Delete(delete) = parsed else {
        return Err(Error::unsupported(format!("{place}: this form of DELETE is not supported")));
    };
    let refused = |what: &str| Err(Error::unsupported(format!("{place}: {what} in DELETE is not supported")));
    let ast::Delete {
        delete_token: _,
        optimizer_hints,
        tables,
        from,
        using,
        selection,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    if returning.is_some() || output.is_some() {
        return refused("RETURNING");
    }
    if !order_by.is_empty() || limit.is_some() {
        return refused("ORDER BY and LIMIT");
    }
    if !optimizer_hints.is_empty() {
        return refused("an optimizer hint");
    }
    let FromTable::WithFromKeyword(from) = from else {
        return Err(Error::invalid(format!("{place}: expected FROM")));
    };
    let mut from = from.into_iter();
    let (Some(table), None, true) = (from.next(), from.next(), tables.is_empty()) else {
        return refused("more than one table, where others stand behind USING,");
    };
    let table_name = target(front, &table).map_err(|e| e.context(&place))?;
    let using = using.unwrap_or_default();
    let joined = !using.is_empty();
    let query = query(front, Vec::new(), table, using, selection).map_err(|e| e.context(&place))?;
    Ok(Statement::Dml(Dml { table: table_name, assigned: None, joined, query }))
}

fn assigned_column(target: &AssignmentTarget) -> Result<String> {
    match target {
        AssignmentTarget::ColumnName(name) => match name.0.as_slice() {
            [ObjectNamePart::Identifier(column)] => Ok(folded_ident(column)),
            _ => Err(Error::invalid(format!("{name} is no column's name: SET takes it without its table's"))),
        },
        AssignmentTarget::Tuple(_) => {
            Err(Error::unsupported("assigning several columns at once is not supported: write a = …, b = …"))
        }
    }
}

/// The table that is changed: a plain one, perhaps under another name.
fn target(front: &Front<'_>, table: &TableWithJoins) -> Result<TableName> {
    let TableFactor::Table { name, alias, .. } = &table.relation else {
        return Err(Error::invalid("only a table can be changed"));
    };
    if !table.joins.is_empty() {
        return Err(Error::unsupported(
            "a JOIN before SET or WHERE is not supported: name the other tables behind FROM or USING",
        ));
    }
    if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return Err(Error::unsupported(
            "other names for the columns of the table to change are not supported",
        ));
    }
    front.target_of(name)
}

fn query(
    front: &mut Front<'_>,
    values: Vec<Expr>,
    table: TableWithJoins,
    others: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Box<ast::Query>> {
    // The parser knows what all the other fields of a query are when nothing is said of them.
    let template = Parser::parse_sql(&DIALECT, "SELECT 1 FROM t WHERE true");
    let impossible = || Error::internal("a query cannot be put together");
    let Some(ast::Statement::Query(mut query)) = template.ok().and_then(|mut parsed| parsed.pop()) else {
        return Err(impossible());
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(impossible()) };
    if !values.is_empty() {
        let named = values.into_iter().enumerate();
        select.projection = named
            .map(|(i, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', i.to_string()) })
            .collect();
    }
    select.from = std::iter::once(table).chain(others).collect();
    if let Some(selection) = selection {
        select.selection = Some(selection);
    }
    front.attach_versions(&mut query);
    if let SetExpr::Select(select) = query.body.as_ref()
        && let Some(TableFactor::Table { version: Some(_), .. }) =
            select.from.first().map(|from| &from.relation)
    {
        return Err(Error::invalid("the past of a table cannot be changed"));
    }
    check(&query)?;
    Ok(query)
}
