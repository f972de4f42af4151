//! Short bounds of byte strings, for statistics: not above the least, not below the greatest value.

/// The longest prefix of `value` within `max` bytes; whole characters if `text`.
pub(crate) fn lower_bound(value: &[u8], max: usize, text: bool) -> &[u8] {
    if value.len() <= max {
        return value;
    }
    let end = match std::str::from_utf8(value) {
        Ok(s) if text => s.floor_char_boundary(max),
        _ => max,
    };
    value.get(..end).unwrap_or(value)
}

/// A byte string of about `max` bytes that is not less than `value`, and UTF-8 if `text`; `None` if there
/// is none.
pub(crate) fn upper_bound(value: &[u8], max: usize, text: bool) -> Option<Vec<u8>> {
    if value.len() <= max {
        return Some(value.to_vec());
    }
    let prefix = lower_bound(value, max, text);
    if !text {
        return increment_bytes(prefix);
    }
    // The order of UTF-8's bytes is the order of its characters: the last one that has a next takes it.
    let prefix = std::str::from_utf8(prefix).ok()?;
    prefix.char_indices().rev().find_map(|(at, last)| {
        let next = match last {
            '\u{d7ff}' => '\u{e000}',
            other => char::from_u32(u32::from(other).checked_add(1)?)?,
        };
        Some(format!("{}{next}", prefix.get(..at)?).into_bytes())
    })
}

fn increment_bytes(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|b| *b < u8::MAX)?;
    let mut bound = prefix.get(..=at)?.to_vec();
    if let Some(last) = bound.last_mut() {
        *last += 1;
    }
    Some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_short_and_on_their_side() {
        assert_eq!(upper_bound(b"host_1", 24, true), Some(b"host_1".to_vec()));
        for text in ["aaaaaaaa", "ab\u{d7ff}zzzz", "aü\u{10ffff}\u{10ffff}z", "zzzz"] {
            for max in 1..text.len() {
                let low = lower_bound(text.as_bytes(), max, true);
                assert!(low.len() <= max && low <= text.as_bytes() && std::str::from_utf8(low).is_ok());
                if let Some(high) = upper_bound(text.as_bytes(), max, true) {
                    assert!(high.len() <= max + 1 && high.as_slice() >= text.as_bytes(), "{text} {max}");
                    assert!(std::str::from_utf8(&high).is_ok());
                }
            }
        }
        let carry = [b"b".as_slice(), &[0xff; 40]].concat();
        assert_eq!(upper_bound(&carry, 24, false), Some(b"c".to_vec()));
        assert_eq!(upper_bound(&[0xff; 40], 24, false), None);
        assert_eq!(upper_bound("\u{10ffff}\u{10ffff}".as_bytes(), 4, true), None);
    }
}
