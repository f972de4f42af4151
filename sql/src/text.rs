//! Text of statements, looked at without being understood: where one ends, and which words it begins with. Quotes and comments
//! are those of the dialect that statements are parsed in.

/// The statements of a text, without their semicolons; those of nothing but space and comments left out.
pub fn statements(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let left = text.get(at..).unwrap_or_default();
        if left.starts_with(';') {
            all.push(text.get(start..at).unwrap_or_default());
            at += 1;
            start = at;
        } else {
            at += token_len(left).max(1);
        }
    }
    all.push(text.get(start..).unwrap_or_default());
    all.retain(|statement| blank_len(statement) < statement.len());
    all.into_iter().map(str::trim).collect()
}

/// The tokens that a statement begins with, at most `count`: words in lower case, all else as it is.
pub fn leading(statement: &str, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut left = statement;
    while tokens.len() < count {
        left = left.get(blank_len(left)..).unwrap_or_default();
        if left.is_empty() {
            break;
        }
        let (token, after) = left.split_at(token_len(left).clamp(1, left.len()));
        let is_word = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        tokens.push(if is_word { token.to_lowercase() } else { token.to_owned() });
        left = after;
    }
    tokens
}

/// A token and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// In bytes.
    pub at: usize,
    pub text: &'a str,
}

/// All tokens of a statement, as they are written.
pub fn tokens(statement: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    let mut at = 0;
    loop {
        at += blank_len(statement.get(at..).unwrap_or_default());
        let left = statement.get(at..).unwrap_or_default();
        if left.is_empty() {
            return all;
        }
        let length = token_len(left).clamp(1, left.len());
        all.push(Token { at, text: left.get(..length).unwrap_or_default() });
        at += length;
    }
}

/// What follows the first `count` tokens.
pub fn after(statement: &str, count: usize) -> &str {
    let mut left = statement;
    for _ in 0..count {
        left = left.get(blank_len(left)..).unwrap_or_default();
        left = left.get(token_len(left).max(1)..).unwrap_or_default();
    }
    left.trim()
}

/// Length of the spaces and comments that a text begins with.
pub fn blank_len(text: &str) -> usize {
    let mut at = 0;
    loop {
        let left = text.get(at..).unwrap_or_default();
        match left.chars().next() {
            Some(c) if c.is_whitespace() => at += c.len_utf8(),
            Some(_) if left.starts_with("--") || left.starts_with("/*") => at += token_len(left),
            _ => return at,
        }
    }
}

/// Length of what a text begins with: a quoted thing, a comment, a word, or one character. What is not closed reaches to
/// the end.
pub fn token_len(text: &str) -> usize {
    let whole = text.len();
    let mut letters = text.char_indices();
    match letters.next().map(|(_, letter)| letter) {
        None => 0,
        Some(quote @ ('\'' | '"' | '`')) => {
            text.get(1..).and_then(|rest| rest.find(quote)).map_or(whole, |end| end + 2)
        }
        Some('e' | 'E') if text.get(1..2) == Some("'") => escaped_len(text),
        Some('-') if text.starts_with("--") => text.find('\n').unwrap_or(whole),
        Some('/') if text.starts_with("/*") => comment_len(text),
        Some('$') => match dollar_tag(text) {
            Some(tag) => {
                let body = text.get(tag.len()..).unwrap_or_default();
                body.find(tag).map_or(whole, |end| end + 2 * tag.len())
            }
            None => 1,
        },
        Some(first) if first.is_alphanumeric() || first == '_' => {
            text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(whole)
        }
        Some(other) => other.len_utf8(),
    }
}

/// `E'…'`, in which a backslash hides the next letter.
fn escaped_len(text: &str) -> usize {
    let mut hidden = false;
    for (at, letter) in text.char_indices().skip(2) {
        match letter {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            '\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn comment_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth.saturating_sub(1), at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// `$$` or `$tag$`; `$1` is a parameter.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.get(1..)?.find('$')? + 1;
    let tag = text.get(1..end)?;
    let fits = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if fits { text.get(..=end) } else { None }
}

/// A word or a quoted text without its quotes.
pub fn unquoted(token: &str) -> String {
    for quote in ['\'', '"', '`'] {
        if let Some(inner) = token.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    token.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let text = "SELECT ';' ; -- a;b\n /* ; /* ; */ */ INSERT INTO \"a;b\" (`c;`) VALUES (E'\\';', $$;$$, $t$;$t$, $1);;\n";
        assert_eq!(
            statements(text),
            [
                "SELECT ';'",
                "-- a;b\n /* ; /* ; */ */ INSERT INTO \"a;b\" (`c;`) VALUES (E'\\';', $$;$$, $t$;$t$, $1)"
            ]
        );
        assert_eq!(statements(" ; -- nothing\n;"), [""; 0]);
        assert_eq!(statements("SELECT 'open; "), ["SELECT 'open;"]);
    }

    #[test]
    fn leading_words_are_found_behind_comments() {
        let text = "/* hint */ SeT\n-- more\n Search_Path = 'Public'";
        assert_eq!(leading(text, 4), ["set", "search_path", "=", "'Public'"]);
        assert_eq!(leading(text, 2), ["set", "search_path"]);
        assert_eq!(after(text, 3), "'Public'");
        assert_eq!(after("begin", 3), "");
        assert_eq!(
            (unquoted("'it''s'"), unquoted("\"A\""), unquoted("a")),
            ("it's".into(), "A".into(), "a".into())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_cut(text in "[a-z'\"`$;E\\\\/* \n-]{0,40}") {
            for statement in statements(&text) {
                prop_assert!(text.contains(statement));
                let _ = (leading(statement, 5), after(statement, 3));
            }
        }
    }
}
