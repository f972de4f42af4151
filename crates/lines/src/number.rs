//! Numbers as almost all lines have them: short, and in digits. Whatever else there is takes the long way.

/// A number that has no other reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// Digits that any 64-bit integer can hold.
const INT_DIGITS: usize = 18;
/// Digits that a double holds exactly, as an integer.
const FLOAT_DIGITS: usize = 15;
/// Exactly doubles, so that dividing by one of them rounds once: correctly.
const POWERS_OF_TEN: [f64; FLOAT_DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The number at `at` and where it ends, if it is an integer with its suffix or a float without an exponent, if it is short, and
/// if a comma, a blank or a line end follows.
#[inline]
pub(crate) fn short_number(buf: &[u8], at: usize) -> Option<(Number, usize)> {
    let negative = buf.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let (mut number, mut end) = (0u64, first);
    let next = loop {
        match buf.get(end)? {
            digit @ b'0'..=b'9' if end - first < INT_DIGITS => {
                number = number * 10 + u64::from(digit - b'0');
                end += 1;
            }
            next => break *next,
        }
    };
    if end == first {
        return None;
    }
    if next == b'i' {
        let number = i64::try_from(number).ok()?;
        return is_end(buf, end + 1)
            .then_some((Number::Int(if negative { -number } else { number }), end + 1));
    }
    let (whole, mut fraction) = (end - first, 0);
    if next == b'.' {
        end += 1;
        while let Some(digit @ b'0'..=b'9') = buf.get(end) {
            if whole + fraction >= FLOAT_DIGITS {
                return None;
            }
            number = number * 10 + u64::from(digit - b'0');
            fraction += 1;
            end += 1;
        }
    }
    if whole + fraction > FLOAT_DIGITS || !is_end(buf, end) {
        return None;
    }
    let float = number as f64 / POWERS_OF_TEN.get(fraction)?;
    Some((Number::Float(if negative { -float } else { float }), end))
}

fn is_end(buf: &[u8], at: usize) -> bool {
    matches!(buf.get(at), Some(b',' | b' ' | b'\n'))
}

/// The row timestamp at `at` and where the line ends, if it is digits alone and nothing follows.
#[inline]
pub(crate) fn short_timestamp(buf: &[u8], at: usize) -> Option<(i64, usize)> {
    let rest = buf.get(at..)?;
    let (mut number, mut end) = (0u64, 0);
    // Twice eight: a third time would leave 64 bits.
    while end < 16
        && let Some(eight) = rest.get(end..).and_then(|rest| rest.first_chunk::<8>())
        && let Some(digits) = eight_digits(*eight)
    {
        number = number * 100_000_000 + digits;
        end += 8;
    }
    loop {
        match rest.get(end)? {
            digit @ b'0'..=b'9' if end < INT_DIGITS + 1 => {
                number = number * 10 + u64::from(digit - b'0');
                end += 1;
            }
            b'\n' if end > 0 => return i64::try_from(number).ok().map(|number| (number, at + end)),
            _ => return None,
        }
    }
}

/// The number that eight digits are, if they are digits.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    const LOW: u64 = 0x0000_00ff_0000_00ff;
    let digits = u64::from_le_bytes(text) ^ 0x3030_3030_3030_3030;
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbours are joined: digits to pairs, pairs to fours, fours to eight.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let first = (pairs & LOW).wrapping_mul(100 + (1_000_000 << 32));
    let second = ((pairs >> 16) & LOW).wrapping_mul(1 + (10_000 << 32));
    Some(first.wrapping_add(second) >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: Number) -> String {
        match number {
            Number::Int(number) => format!("{number}i"),
            Number::Float(number) => format!("{:016x}", number.to_bits()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn short_numbers_are_those_of_the_long_way(token in "-?[0-9]{0,20}(\\.[0-9]{0,18})?i?", end in "[, \n]") {
            let buf = format!("{token}{end}");
            if let Some((number, stop)) = short_number(buf.as_bytes(), 0) {
                prop_assert_eq!(stop, token.len());
                let long = match token.strip_suffix('i') {
                    Some(int) => Number::Int(int.parse().unwrap()),
                    None => Number::Float(token.parse().unwrap()),
                };
                prop_assert_eq!(text(number), text(long), "{}", token);
            }
        }

        #[test]
        fn short_floats_round_as_the_long_way(whole in 0u64..1_000_000_000_000_000, place in 0usize..15, negative in any::<bool>()) {
            let digits = format!("{whole:015}");
            let (before, behind) = digits.split_at(15 - place);
            let token = format!("{}{before}.{behind}", if negative { "-" } else { "" });
            if let Some((number, _)) = short_number(format!("{token},").as_bytes(), 0) {
                prop_assert_eq!(text(number), text(Number::Float(token.parse().unwrap())), "{}", token);
            }
        }

        #[test]
        fn eight_digits_are_digits_alone(bytes in any::<[u8; 8]>(), number in 0u64..100_000_000) {
            let parsed = std::str::from_utf8(&bytes).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            prop_assert_eq!(eight_digits(bytes), parsed.and_then(|text| text.parse().ok()));
            let text: [u8; 8] = format!("{number:08}").into_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(text), Some(number));
        }

        #[test]
        fn short_timestamps_are_those_of_the_long_way(token in "[0-9]{0,21}", end in "[ ,\n\r]") {
            let expected = token.parse::<i64>().ok().filter(|_| end == "\n" && token.len() <= 19);
            let found = short_timestamp(format!("{token}{end}").as_bytes(), 0);
            prop_assert_eq!(found, expected.map(|number| (number, token.len())));
        }
    }

    #[test]
    fn what_is_short() {
        for (token, number) in [
            ("58i,", Some(Number::Int(58))),
            ("-0i ", Some(Number::Int(0))),
            ("999999999999999999i\n", Some(Number::Int(999_999_999_999_999_999))),
            ("1000000000000000000i\n", None),
            ("1.5,", Some(Number::Float(1.5))),
            ("0.1\n", Some(Number::Float(0.1))),
            ("5. ", Some(Number::Float(5.0))),
            ("7 ", Some(Number::Float(7.0))),
            ("12345678.12345678 ", None),
            ("12345678.1234567 ", Some(Number::Float(12_345_678.123_456_7))),
            ("1234567890123456. ", None),
            (".5,", None),
            ("-,", None),
            ("i,", None),
            ("1e5,", None),
            ("1.5i,", None),
            ("1.5\r", None),
            ("1.5", None),
        ] {
            let found = short_number(token.as_bytes(), 0);
            assert_eq!(found, number.map(|number| (number, token.len() - 1)), "{token:?}");
        }
        let zero = short_number(b"-0.0,", 0);
        assert!(matches!(zero, Some((Number::Float(zero), 4)) if zero.is_sign_negative()));
    }
}
