//! What the client has to know of a statement before it is sent: whether it sets an option of the session, which must
//! outlive the connection, and whether it surely only reads, so that it needs no token.

/// A statement that changes an option of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The option's name in lower case, and its value as written, without quotes.
    Set(String, String),
    Reset(String),
}

/// The setting that a statement makes, if it makes one.
pub(crate) fn setting(sql: &str) -> Option<Setting> {
    let text = sql[blank_prefix(sql)..].trim_end().trim_end_matches(';').trim_end();
    let (word, rest) = first_word(text);
    if word.eq_ignore_ascii_case("reset") {
        return Some(Setting::Reset(name(rest)?));
    }
    if !word.eq_ignore_ascii_case("set") {
        return None;
    }
    let (word, after) = first_word(rest.trim_start());
    let is_name =
        after.trim_start().starts_with('=') || first_word(after.trim_start()).0.eq_ignore_ascii_case("to");
    let rest = if word.eq_ignore_ascii_case("session") && !is_name { after } else { rest };
    let rest = rest.trim_start();
    let end = rest.find(|c: char| c == '=' || c.is_whitespace())?;
    let (option, rest) = rest.split_at(end);
    let rest = rest.trim_start();
    let value = match rest.strip_prefix('=') {
        Some(value) => value,
        None => Some(first_word(rest)).filter(|(to, _)| to.eq_ignore_ascii_case("to"))?.1,
    };
    Some(Setting::Set(name(option)?, unquoted(value.trim())))
}

/// Whether a statement begins a transaction (`Some(true)`) or ends one (`Some(false)`).
pub(crate) fn transaction(sql: &str) -> Option<bool> {
    let (word, rest) = first_word(sql[blank_prefix(sql)..].trim_end());
    let is = |words: &[&str]| words.iter().any(|w| word.eq_ignore_ascii_case(w));
    if is(&["begin", "start"]) {
        return Some(true);
    }
    let is_partial = || rest.split_whitespace().any(|word| word.eq_ignore_ascii_case("to"));
    (is(&["commit", "end"]) || (is(&["rollback", "abort"]) && !is_partial())).then_some(false)
}

/// Whether a statement can do nothing but read. `false` for what is not known.
pub(crate) fn only_reads(sql: &str) -> bool {
    let (word, _) = first_word(sql[blank_prefix(sql)..].trim_start_matches(['(', ' ', '\n', '\t']));
    ["select", "values", "show", "describe", "desc"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

fn name(text: &str) -> Option<String> {
    let name = text.trim().replace('"', "").to_ascii_lowercase();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => value.to_owned(),
    }
}

fn first_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// The length of the white space and comments that a text begins with.
fn blank_prefix(text: &str) -> usize {
    let mut left = text;
    loop {
        left = left.trim_start();
        if let Some(comment) = left.strip_prefix("--") {
            left = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = left.strip_prefix("/*") {
            left = after_comment(comment);
        } else {
            return text.len() - left.len();
        }
    }
}

/// What follows a comment whose opening was read; comments nest.
fn after_comment(text: &str) -> &str {
    let mut depth = 1_usize;
    let mut left = text;
    while depth > 0 {
        let (open, close) = (left.find("/*"), left.find("*/"));
        let (at, step) = match (open, close) {
            (Some(open), Some(close)) if open < close => (open, 1),
            (_, Some(close)) => (close, -1),
            _ => return "",
        };
        depth = depth.saturating_add_signed(step);
        left = left.get(at + 2..).unwrap_or_default();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_from_other_statements() {
        let set = |name: &str, value: &str| Some(Setting::Set(name.into(), value.into()));
        assert_eq!(setting("SET tandem.ack = 'quorum(2)';"), set("tandem.ack", "quorum(2)"));
        assert_eq!(setting("-- why\n set /* x /* y */ */ "), None);
        assert_eq!(setting("/* a */ set session Tandem.Min_Seq to 5"), set("tandem.min_seq", "5"));
        assert_eq!(setting("set schema='it''s'"), set("schema", "it's"));
        assert_eq!(setting("set session = x"), set("session", "x"));
        assert_eq!(setting("set \"tandem\".\"ack\"=store"), set("tandem.ack", "store"));
        assert_eq!(setting("RESET tandem.ack"), Some(Setting::Reset("tandem.ack".into())));
        for other in ["", "SET", "SET x", "settle = 1", "SELECT 1", "update t set a = 1", "/* open", "RESET"]
        {
            assert_eq!(setting(other), None, "{other}");
        }
    }

    #[test]
    fn transactions_are_seen_to_begin_and_to_end() {
        for begin in ["BEGIN", " begin read only;", "-- c\nSTART TRANSACTION"] {
            assert_eq!(transaction(begin), Some(true), "{begin}");
        }
        for end in ["COMMIT;", "end work", "ROLLBACK", "rollback work", "/* x */ abort"] {
            assert_eq!(transaction(end), Some(false), "{end}");
        }
        for other in ["ROLLBACK TO s", "rollback work to savepoint s", "SAVEPOINT s", "select 1", ""] {
            assert_eq!(transaction(other), None, "{other}");
        }
    }

    #[test]
    fn only_sure_reads_count_as_reads() {
        for read in ["select 1", " (\n(SELECT 1))", "-- c\nVALUES (1)", "show tables", "/*x*/ describe t"] {
            assert!(only_reads(read), "{read}");
        }
        for other in
            ["insert into t select 1", "with a as (select 1) insert into t", "explain x", "selected", ""]
        {
            assert!(!only_reads(other), "{other}");
        }
    }
}
