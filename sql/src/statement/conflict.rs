//! `INSERT … ON CONFLICT (key) DO NOTHING | DO UPDATE SET c = excluded.c`.

use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, Expr, ObjectNamePart, OnConflictAction, OnInsert,
};
use tandem_manifest::OnConflict;
use tandem_types::{Error, Result};

use super::front::folded_ident;

/// The name of the row that was to be inserted.
const EXCLUDED: &str = "excluded";

/// What an `INSERT` says of rows whose key is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key's columns as they were named, in whatever order; empty: not named.
    pub key: Vec<String>,
    pub action: OnConflict,
}

/// What stands behind an `INSERT`'s rows.
pub(super) fn conflict(on: OnInsert) -> Result<Conflict> {
    let on = match on {
        OnInsert::OnConflict(on) => on,
        OnInsert::DuplicateKeyUpdate(_) => {
            return Err(Error::unsupported(
                "ON DUPLICATE KEY UPDATE is not supported: write ON CONFLICT (key) DO UPDATE SET c = excluded.c",
            ));
        }
        _ => return Err(Error::unsupported("this clause of INSERT is not supported")),
    };
    let key = match on.conflict_target {
        None => Vec::new(),
        Some(ConflictTarget::Columns(columns)) => columns.iter().map(folded_ident).collect(),
        Some(ConflictTarget::OnConstraint(_)) => {
            return Err(Error::unsupported(
                "ON CONFLICT ON CONSTRAINT is not supported: name the key's columns",
            ));
        }
    };
    let action = match on.action {
        OnConflictAction::DoNothing => OnConflict::DoNothing,
        OnConflictAction::DoUpdate(update) => {
            if update.selection.is_some() {
                return Err(Error::unsupported("WHERE behind DO UPDATE is not supported"));
            }
            let mut columns: Vec<String> = Vec::with_capacity(update.assignments.len());
            for assignment in &update.assignments {
                let column = plain_assignment(assignment)?;
                if columns.contains(&column) {
                    return Err(Error::invalid(format!("column {column:?} is assigned twice")));
                }
                columns.push(column);
            }
            OnConflict::Update(columns)
        }
    };
    Ok(Conflict { key, action })
}

/// The column of `c = excluded.c`.
fn plain_assignment(assignment: &ast::Assignment) -> Result<String> {
    let refused = || {
        Error::unsupported(format!(
            "DO UPDATE SET {assignment} is not supported: all nodes decide it from the log alone, so each assignment has \
             the form c = excluded.c"
        ))
    };
    let AssignmentTarget::ColumnName(target) = &assignment.target else { return Err(refused()) };
    let [ObjectNamePart::Identifier(target)] = target.0.as_slice() else { return Err(refused()) };
    let Expr::CompoundIdentifier(value) = &assignment.value else { return Err(refused()) };
    let [row, column] = value.as_slice() else { return Err(refused()) };
    let target = folded_ident(target);
    if folded_ident(row) != EXCLUDED || folded_ident(column) != target {
        return Err(refused());
    }
    Ok(target)
}
