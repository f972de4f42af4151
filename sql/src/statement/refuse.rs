//! What is refused by name. Statements are allowed by a list; this one only gives better sentences.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use tandem_types::{Error, Result};

use super::front::Front;

/// First words of statements that later versions will know.
const NOT_YET: &[&str] = &[
    "update",
    "delete",
    "merge",
    "replace",
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "undrop",
    "upsert",
    "fork",
    "restore",
    "backup",
];

/// First words of statements of other systems, so that nobody takes them for typing mistakes.
const NEVER: &[&str] = &[
    "copy",
    "load",
    "unload",
    "grant",
    "revoke",
    "deny",
    "analyze",
    "vacuum",
    "call",
    "execute",
    "prepare",
    "deallocate",
    "declare",
    "fetch",
    "close",
    "open",
    "kill",
    "lock",
    "unlock",
    "attach",
    "detach",
    "install",
    "import",
    "export",
    "msck",
    "refresh",
    "rename",
    "comment",
    "listen",
    "notify",
    "unlisten",
    "cache",
    "uncache",
    "pragma",
    "assert",
    "discard",
    "reindex",
    "cluster",
    "do",
    "if",
    "while",
    "raise",
    "print",
    "flush",
    "repair",
];

/// Why the statement that begins here is none of ours.
pub(super) fn statement(front: &Front<'_>) -> Error {
    let Token::Word(word) = &front.peek().token else { return front.expected("a statement") };
    let name = word.value.to_ascii_lowercase();
    if NOT_YET.contains(&name.as_str()) {
        front.unsupported(format_args!("{} is not supported yet", name.to_uppercase()))
    } else if NEVER.contains(&name.as_str()) {
        front.unsupported(format_args!("{} is not supported", name.to_uppercase()))
    } else {
        front.expected("a statement")
    }
}

/// Why `CREATE`, `ALTER` or `DROP` of what comes next is none of ours.
pub(super) fn object(front: &Front<'_>, verb: &str, known: &str) -> Error {
    match &front.peek().token {
        Token::Word(word) => {
            let what = word.value.to_uppercase();
            front.unsupported(format_args!("{verb} {what} is not supported, only {verb} {known}"))
        }
        _ => front.expected(known),
    }
}

/// A constraint that begins here, on a column or on a table.
pub(super) fn constraint(front: &Front<'_>) -> Option<Error> {
    let then = |word: &str| front.at_word(1, word);
    let paren = || front.at_token(1, &Token::LParen);
    let refused = |what: &str| Some(front.unsupported(what));
    if front.at_word(0, "primary") && then("key") {
        return refused("PRIMARY KEY is not supported yet");
    }
    if front.at_word(0, "foreign") && then("key") {
        return refused("FOREIGN KEY is not supported");
    }
    if front.at_word(0, "constraint") {
        return refused("constraints are not supported, but for NOT NULL");
    }
    if front.at_word(0, "unique") && (paren() || then("key") || then("index")) {
        return refused("UNIQUE is not supported");
    }
    if front.at_word(0, "check") && paren() {
        return refused("CHECK is not supported");
    }
    None
}

/// Reading a table as it was. The parser would take `VERSION` for an alias and complain about the rest.
pub(super) fn table_version(tokens: &[TokenWithSpan]) -> Result<()> {
    let is = |token: &TokenWithSpan, words: &[&str]| {
        matches!(
            &token.token,
            Token::Word(Word { value, quote_style: None, .. }) if words.iter().any(|w| value.eq_ignore_ascii_case(w))
        )
    };
    for three in tokens.windows(3) {
        let [version, r#as, of] = three else { continue };
        if is(version, &["system_time", "version", "timestamp"]) && is(r#as, &["as"]) && is(of, &["of"]) {
            let at = version.span.start;
            return Err(Error::unsupported(format!(
                "line {}, column {}: reading an older version of a table (AS OF) is not supported yet",
                at.line, at.column
            )));
        }
    }
    Ok(())
}
