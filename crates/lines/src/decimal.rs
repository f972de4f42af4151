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
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 200 || exponent.abs() > 200 {
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
    while scale < 0 {
        unscaled = unscaled.checked_mul(ten)?;
        scale += 1;
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
    let mut number = unscaled;
    for _ in 0..steps.unsigned_abs() {
        if number == i256::ZERO {
            break;
        }
        number = match steps > 0 {
            true => number.checked_mul(ten)?,
            false if number.checked_rem(ten)? == i256::ZERO => number.checked_div(ten)?,
            false => return None,
        };
    }
    let bound = ten.checked_pow(u32::from(precision))?;
    (number < bound && number > bound.checked_neg()?).then_some(number)
}
