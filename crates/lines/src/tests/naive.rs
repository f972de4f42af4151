//! A slow reader of single text lines, made for being read, and the comparison with it.

use proptest::prelude::*;

use super::*;

/// Table, columns in the order of the line with their values as text, row timestamp.
type Line = (String, Vec<(String, String)>, String);

/// A text up to a character that no backslash stands before, and the rest.
fn until(text: &str, ends: &str, escapable: &str) -> Option<(String, String)> {
    let mut out = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            let (_, next) = chars.next()?;
            if !escapable.contains(next) {
                out.push('\\');
            }
            out.push(next);
        } else if ends.contains(c) {
            return Some((out, text[at..].to_owned()));
        } else {
            out.push(c);
        }
    }
    None
}

const ESCAPABLE: &str = ", =\\\n\r";

fn scalar(token: &str) -> Option<String> {
    let int = |t: &str| t.chars().all(|c| c.is_ascii_digit() || c == '-' || c == '+');
    match token {
        "t" | "T" | "true" | "True" | "TRUE" => return Some("true".to_owned()),
        "f" | "F" | "false" | "False" | "FALSE" => return Some("false".to_owned()),
        _ => {}
    }
    if let Some(i) = token.strip_suffix('i').filter(|i| int(i)) {
        return i.parse::<i64>().ok().map(|i| i.to_string());
    }
    if let Some(u) = token.strip_suffix('u').filter(|u| int(u)) {
        return u.parse::<u64>().ok().map(|u| u.to_string());
    }
    token.parse::<f64>().ok().map(|f| format!("{f:?}"))
}

fn naive(line: &str) -> Option<Line> {
    let (table, mut rest) = until(line.trim_start_matches([' ', '\t']), ", \n", ESCAPABLE)?;
    if table.is_empty() || rest.starts_with('\n') {
        return None;
    }
    let mut columns: Vec<(String, String)> = Vec::new();
    let mut put = |name: String, value: String| {
        if columns.iter().all(|(n, _)| *n != name) {
            columns.push((name, value));
        }
    };
    while let Some(tag) = rest.strip_prefix(',') {
        let (name, after) = until(tag, ", =\n", ESCAPABLE)?;
        let (text, after) = until(after.strip_prefix('=')?, ", \n", ESCAPABLE)?;
        if name.is_empty() || name == "timestamp" {
            return None;
        }
        if !text.is_empty() {
            put(name, text);
        }
        rest = after;
    }
    let tagged =
        line.trim_start().contains(',') && until(line.trim_start(), ", \n", ESCAPABLE)?.1.starts_with(',');
    rest = rest.trim_start_matches([' ', '\t']).to_owned();
    let number = rest.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && until(&rest, ", =\n", ESCAPABLE)?.1.starts_with([' ', '\n']);
    let no_fields = tagged && (number || rest.starts_with('\n'));
    let mut more = !no_fields;
    while more {
        let (name, after) = until(&rest, ", =\n", ESCAPABLE)?;
        let after = after.strip_prefix('=')?;
        if name.is_empty() || name == "timestamp" {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (text, after) = until(quoted, "\"", "\"\\\n\r")?;
                (text, after[1..].to_owned())
            }
            None => {
                let end = after.find([',', ' ', '\n'])?;
                (scalar(&after[..end])?, after[end..].to_owned())
            }
        };
        put(name, value);
        match after.strip_prefix(',') {
            Some(next) => rest = next.to_owned(),
            None if after.starts_with([' ', '\n']) => {
                rest = after;
                more = false;
            }
            None => return None,
        }
    }
    let stamp = rest.trim_start_matches([' ', '\t']);
    let (stamp, end) = stamp.split_at(stamp.find([',', ' ', '\n'])?);
    if end.trim_start_matches([' ', '\t']) != "\n" {
        return None;
    }
    let stamp = if stamp.is_empty() { 7 } else { stamp.parse::<i64>().ok()? };
    Some((table, columns, stamp.to_string()))
}

fn fast(line: &str) -> Option<Line> {
    let read = read(line);
    if !read.errors.is_empty() || read.rows != 1 {
        return None;
    }
    let found = &read.batches[0];
    let schema = found.batch.schema();
    let columns = schema.fields().iter().skip(1).map(|f| {
        let mut values = shown(&found.batch, f.name());
        (f.name().clone(), values.remove(0))
    });
    Some((found.table.clone(), columns.collect(), shown(&found.batch, "timestamp").remove(0)))
}

fn comparable(line: &str) -> bool {
    // What the slow one does not know: comments, carriage returns, control characters in names, several lines,
    // timestamps with suffix, decimals, binary values.
    !line.trim_start().starts_with('#')
        && !line.contains(['\r', '\t', '\0'])
        && line.matches('\n').count() == 1
        && !line.contains("==")
        && !line
            .as_bytes()
            .windows(2)
            .any(|pair| b"0123456789.".contains(&pair[0]) && b"tnd".contains(&pair[1]))
}

fn texts() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            4 => "[a-z]{1,3}".prop_map(|s| s),
            1 => Just("\\ ".to_owned()),
            1 => Just("\\,".to_owned()),
            1 => Just("\\=".to_owned()),
            1 => Just("\\\\".to_owned()),
            1 => Just("ü".to_owned()),
            1 => Just("\"".to_owned()),
        ],
        1..4,
    )
    .prop_map(|parts| parts.concat())
}

fn fields() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|i| format!("{i}i")),
        any::<u64>().prop_map(|u| format!("{u}u")),
        any::<f64>().prop_map(|f| format!("{f:?}")),
        any::<bool>().prop_map(|b| b.to_string()),
        "[a-z ,=]{0,6}".prop_map(|s| format!("\"{s}\\\"\"")),
    ]
}

fn lines() -> impl Strategy<Value = String> {
    let pairs = proptest::collection::vec((texts(), texts()), 0..3);
    let values = proptest::collection::vec((texts(), fields()), 1..4);
    (texts(), pairs, values, proptest::option::of(any::<i64>())).prop_map(|(table, tags, fields, stamp)| {
        let tags: String = tags.iter().map(|(n, v)| format!(",{n}={v}")).collect();
        let fields: Vec<String> = fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let stamp = stamp.map_or(String::new(), |stamp| format!(" {stamp}"));
        format!("{table}{tags} {}{stamp}\n", fields.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn good_lines_are_read_alike(line in lines()) {
        prop_assert!(naive(&line).is_some(), "{line:?}");
        prop_assert_eq!(fast(&line), naive(&line), "{:?}", line);
    }

    #[test]
    fn spoilt_lines_are_read_alike(
        line in lines(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b",= \\\"xi1-.\n"[..])), 1..4),
    ) {
        let mut chars: Vec<char> = line.chars().collect();
        for (at, byte) in edits {
            let at = at.index(chars.len() - 1);
            chars[at] = char::from(byte);
        }
        let line: String = chars.into_iter().collect();
        if comparable(&line) {
            prop_assert_eq!(fast(&line), naive(&line), "{:?}", line);
        }
    }
}
