//! `PRIMARY KEY (…)` and `DEDUP UPSERT KEYS(…)`: the columns by which rows are told apart.

use tandem_types::{Error, Result};

use super::front::Front;

/// Whether `PRIMARY KEY` comes next.
pub(super) fn at_primary_key(front: &Front<'_>) -> bool {
    front.at_words(&["primary", "key"])
}

/// `PRIMARY KEY (…)` or `DEDUP UPSERT KEYS (…)`, which mean the same, if one of them comes next.
pub(super) fn clause(front: &mut Front<'_>) -> Result<Option<Vec<String>>> {
    if front.words(&["primary", "key"]) {
        return columns(front).map(Some);
    }
    if front.word("dedup") {
        front.expect_word("upsert")?;
        front.expect_word("keys")?;
        return columns(front).map(Some);
    }
    Ok(None)
}

fn columns(front: &mut Front<'_>) -> Result<Vec<String>> {
    let place = front.place();
    let names = front.names("a column's name")?;
    check(&names).map_err(|e| e.context(place))?;
    Ok(names)
}

/// What can be said of a key without its table.
pub(super) fn check(names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Err(Error::invalid("a key has columns"));
    }
    for (i, name) in names.iter().enumerate() {
        if names.iter().take(i).any(|n| n == name) {
            return Err(Error::invalid(format!("column {name:?} is in the key twice")));
        }
    }
    Ok(())
}
