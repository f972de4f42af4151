//! What is refused by name. Statements are allowed by a list; this one only gives better sentences.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tandem_types::Error;

use super::front::Front;

/// First words of statements that later versions will know.
const NOT_YET: &[&str] = &["merge", "replace", "upsert", "fork", "backup"];

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

/// Why `SAMPLE BY`, as other systems know it, is not understood; `None`: it is not there.
pub(super) fn sample_by(tokens: &[TokenWithSpan]) -> Option<Error> {
    let is = |token: &TokenWithSpan, word: &str| matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let mut words = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).peekable();
    while let Some(token) = words.next() {
        if is(token, "sample") && words.peek().is_some_and(|next| is(next, "by")) {
            let at = token.span.start;
            return Some(Error::unsupported(format!(
                "line {}, column {}: SAMPLE BY is not supported: select date_bin(INTERVAL '1 hour', ts) AS hour and say \
                 GROUP BY hour",
                at.line, at.column
            )));
        }
    }
    None
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
