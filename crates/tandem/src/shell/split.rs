//! Cutting text into statements, with an eye for quotes, comments and dollar quotes.

/// What stands at the beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A statement that its `;` completed; the semicolon is left out.
    Statement(&'a str),
    /// A line that begins with a backslash.
    Meta(&'a str),
    /// Text without its semicolon yet; blank if nothing but space and comments is left.
    Rest(&'a str),
}

/// Takes the first piece off `text`; returns it and what follows.
pub fn next_piece(text: &str) -> (Piece<'_>, &str) {
    let start = blank_prefix(text);
    let body = text.get(start..).unwrap_or_default();
    if body.starts_with('\\') {
        let end = body.find('\n').unwrap_or(body.len());
        let (line, after) = body.split_at(end);
        return (Piece::Meta(line.trim_end()), after);
    }
    let mut at = 0;
    while let Some(c) = body.get(at..).and_then(|s| s.chars().next()) {
        if c == ';' {
            let (statement, after) = body.split_at(at);
            let after = after.strip_prefix(';').unwrap_or(after);
            if statement.is_empty() {
                return next_piece(after);
            }
            return (Piece::Statement(statement.trim_end()), after);
        }
        at += token_len(body.get(at..).unwrap_or_default());
    }
    (Piece::Rest(body.trim_end()), "")
}

/// Whether a text is whole: every statement has its semicolon, or it is a meta command.
pub fn is_complete(text: &str) -> bool {
    let mut left = text;
    loop {
        let (piece, after) = next_piece(left);
        if let Piece::Rest(rest) = piece {
            return rest.is_empty();
        }
        left = after;
    }
}

/// Length of the spaces and comments that `text` begins with.
pub fn blank_prefix(text: &str) -> usize {
    let mut at = 0;
    loop {
        let left = text.get(at..).unwrap_or_default();
        let Some(c) = left.chars().next() else { return at };
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if left.starts_with("--") || left.starts_with("/*") {
            at += token_len(left);
        } else {
            return at;
        }
    }
}

/// Length of what `text` begins with: a quoted thing, a comment, a dollar quote, or one character.
/// What is not closed reaches to the end of the text.
pub fn token_len(text: &str) -> usize {
    let to_end = text.len();
    match text.chars().next() {
        None => 0,
        Some(quote @ ('\'' | '"' | '`')) => {
            text.get(1..).and_then(|s| s.find(quote)).map_or(to_end, |i| i + 2)
        }
        Some('-') if text.starts_with("--") => text.find('\n').unwrap_or(to_end),
        Some('/') if text.starts_with("/*") => comment_len(text),
        Some('$') => dollar_tag(text).map_or(1, |tag| {
            let body = text.get(tag.len()..).unwrap_or_default();
            body.find(tag).map_or(to_end, |i| i + 2 * tag.len())
        }),
        // A word is taken whole, so that a dollar inside a name opens no quote.
        Some(c) if c.is_alphanumeric() || c == '_' => {
            text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(to_end)
        }
        Some(c) => c.len_utf8(),
    }
}

fn comment_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// `$$` or `$tag$` at the beginning of `text`; `$1` is a parameter, not a quote.
fn dollar_tag(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let end = name.find('$')?;
    let tag = name.get(..end)?;
    let fits = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if fits { text.get(..end + 2) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> (Vec<String>, String) {
        let (mut found, mut left) = (Vec::new(), text);
        loop {
            let (piece, after) = next_piece(left);
            match piece {
                Piece::Statement(s) => found.push(s.to_owned()),
                Piece::Meta(m) => found.push(m.to_owned()),
                Piece::Rest(rest) => return (found, rest.to_owned()),
            }
            left = after;
        }
    }

    #[test]
    fn semicolons_inside_quotes_and_comments_end_nothing() {
        let text =
            "SELECT ';''; ', \";\" -- a;b\n, 1; /* ; /* ; */ ; */ select $$;$$, $t$ $$;$u$ $t$ ; select 3";
        let (found, rest) = all(text);
        assert_eq!(found, ["SELECT ';''; ', \";\" -- a;b\n, 1", "select $$;$$, $t$ $$;$u$ $t$"]);
        assert_eq!(rest, "select 3");
    }

    #[test]
    fn parameters_and_names_with_dollars_open_no_quote() {
        assert_eq!(all("select $1, $2; select a$b$;").0, ["select $1, $2", "select a$b$"]);
    }

    #[test]
    fn meta_commands_end_with_their_line_and_only_begin_statements() {
        let (found, rest) = all("\\d t; x\nselect 1\n\\q\n; -- note\n  \\timing\n");
        assert_eq!(found, ["\\d t; x", "select 1\n\\q", "\\timing"]);
        assert_eq!(rest, "");
    }

    #[test]
    fn completeness_is_what_multi_line_input_waits_for() {
        for text in ["", "  -- c", "select 1;", "\\d", "a; b; -- end", ";;"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["select 1", "select ';", "a; b", "select $$;"] {
            assert!(!is_complete(text), "{text}");
        }
        // An open comment after the last semicolon holds no statement.
        assert!(is_complete("a; /* ;"));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_loss_of_words(text in "[a-z;'\"$/*\\- \\n\\\\é]{0,60}") {
            let (found, rest) = all(&text);
            prop_assert!(found.iter().all(|s| text.contains(s.as_str())));
            prop_assert!(text.contains(&rest));
        }
    }
}
