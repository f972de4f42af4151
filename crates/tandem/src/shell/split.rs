//! Cutting text into statements, with an eye for quotes, comments and dollar quotes.

use tandem_sql::text::{blank_len, token_len};

/// What stands at the beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A statement that its `;` completed; the semicolon is left out.
    Statement(&'a str),
    /// A line that begins with a backslash, or is one of a few words and nothing else.
    Meta(&'a str),
    /// Text without its semicolon yet; blank if nothing but space and comments is left.
    Rest(&'a str),
}

/// Takes the first piece off `text`; returns it and what follows.
pub fn next_piece(text: &str) -> (Piece<'_>, &str) {
    let start = blank_len(text);
    let body = text.get(start..).unwrap_or_default();
    if body.starts_with('\\') {
        let end = body.find('\n').unwrap_or(body.len());
        let (line, after) = body.split_at(end);
        return (Piece::Meta(line.trim_end()), after);
    }
    let line = body.lines().next().unwrap_or_default();
    if is_word(line) {
        return (Piece::Meta(line.trim_end()), body.get(line.len()..).unwrap_or_default());
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

/// Whether a line is a word that whoever looks for the way out, or for help, types: no statement is one word like that.
fn is_word(line: &str) -> bool {
    let line = line.trim_end().trim_end_matches(';').trim_end();
    ["help", "exit", "quit"].iter().any(|word| line.eq_ignore_ascii_case(word))
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
    fn quotes_may_be_escaped_and_names_stand_in_backticks() {
        assert_eq!(all("select E'\\';', `a;b`; select 2;").0, ["select E'\\';', `a;b`", "select 2"]);
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
    fn words_of_people_who_look_for_the_way_out_need_no_semicolon() {
        for text in ["exit", "quit\n", " Help ", "quit ;", "EXIT;"] {
            assert!(is_complete(text), "{text}");
            assert!(matches!(next_piece(text).0, Piece::Meta(_)), "{text}");
        }
        assert_eq!(all("select 1;\nexit\nselect 2").0, ["select 1", "exit"]);
        for text in ["exit now", "select\nexit", "exits", "\"exit\"", "help select"] {
            assert!(!matches!(next_piece(text).0, Piece::Meta(_)), "{text}");
        }
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
