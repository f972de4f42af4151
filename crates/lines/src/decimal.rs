//! Decimals: an integer of up to 256 bits and the place of the point.

use arrow::datatypes::i256;

use crate::value::Value;

/// Digits that 256 bits can hold.
pub(crate) const MAX_DIGITS: u8 = 76;

/// Of its decimal notation, the suffix taken off.
pub(crate) fn parse(text: &str) -> Option<Value<'static>> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Some(Value::Null);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (negative, whole) = match whole.strip_prefix('-') {
        Some(whole) => (true, whole),
        None => (false, whole.strip_prefix('+').unwrap_or(whole)),
    };
    if whole.len() + fraction.len() == 0
        || whole.len() + fraction.len() > 200
        || exponent.unsigned_abs() > 200
    {
        return None;
    }
    // Zeros at the end say nothing that the scale would have to keep.
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let mut scale = i32::try_from(fraction.len()).ok()? - exponent;
    while scale > 0 && digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
        scale -= 1;
    }
    let ten = i256::from_i128(10);
    let mut unscaled = i256::ZERO;
    for digit in digits {
        let digit = char::from(digit).to_digit(10)?;
        unscaled = unscaled.checked_mul(ten)?.checked_add(i256::from_i128(i128::from(digit)))?;
    }
    if scale < 0 {
        unscaled = shifted(unscaled, scale.unsigned_abs())?;
        scale = 0;
    }
    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= MAX_DIGITS)?;
    let unscaled = if negative { unscaled.checked_neg()? } else { unscaled };
    Some(Value::Decimal { unscaled, scale })
}

/// Of up to 32 bytes, most significant first, in two's complement; of none, null.
pub(crate) fn from_bytes(bytes: &[u8], scale: u8) -> Value<'static> {
    let Some(first) = bytes.first() else { return Value::Null };
    let sign = if first & 0x80 == 0 { 0 } else { 0xff };
    let mut whole = [sign; 32];
    for (to, from) in whole.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    Value::Decimal { unscaled: i256::from_be_bytes(whole), scale }
}

/// The same number at another scale; `None` if it does not fit there, into that many digits, without loss.
pub(crate) fn rescaled(unscaled: i256, from: u8, to: i8, precision: u8) -> Option<i256> {
    let ten = i256::from_i128(10);
    let steps = i32::from(to) - i32::from(from);
    let number = match steps {
        0.. => shifted(unscaled, steps.unsigned_abs())?,
        _ if unscaled == i256::ZERO => unscaled,
        _ => {
            // Where that overflows, nothing but zero can be divided by it.
            let divisor = ten.checked_pow(steps.unsigned_abs())?;
            match unscaled.checked_rem(divisor)? == i256::ZERO {
                true => unscaled.checked_div(divisor)?,
                false => return None,
            }
        }
    };
    let bound = ten.checked_pow(u32::from(precision))?;
    (number < bound && number > bound.checked_neg()?).then_some(number)
}

/// A number with so many zeros behind it.
fn shifted(number: i256, zeros: u32) -> Option<i256> {
    if number == i256::ZERO {
        return Some(number);
    }
    number.checked_mul(i256::from_i128(10).checked_pow(zeros)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_change_without_loss_or_not_at_all() {
        let of = |number: i128| i256::from_i128(number);
        for (number, from, to, precision, expected) in [
            (125, 2, 5, 38, Some(of(125_000))),
            (125, 2, 2, 3, Some(of(125))),
            (125, 2, 2, 2, None),
            (1250, 3, 2, 38, Some(of(125))),
            (125, 2, 1, 38, None),
            (-1000, 3, 0, 1, Some(of(-1))),
            (-1000, 0, -3, 1, Some(of(-1))),
            (-1001, 0, -3, 9, None),
            (0, 76, -76, 1, Some(of(0))),
            (0, 0, 76, 1, Some(of(0))),
            (1, 0, 75, 76, Some(of(10).checked_pow(75).unwrap())),
            (1, 0, 76, 76, None),
            (1, 76, -76, 76, None),
        ] {
            assert_eq!(rescaled(of(number), from, to, precision), expected, "{number} {from} {to}");
        }
        for (text, expected) in [
            ("0e200", Some((0, 0))),
            ("12.50e1", Some((125, 0))),
            ("12.5e2", Some((1250, 0))),
            ("-1e-76", Some((-1, 76))),
            ("1e77", None),
        ] {
            let found = match parse(text) {
                Some(Value::Decimal { unscaled, scale }) => Some((unscaled, scale)),
                _ => None,
            };
            assert_eq!(found, expected.map(|(number, scale)| (of(number), scale)), "{text}");
        }
    }
}
