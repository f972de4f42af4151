//! Lossless widening, a rule of the format: every node must decide it alike, for ever.
//!
//! Allowed are: a (u)int to a wider (u)int of its sign; a uint to the next wider int; integers of up to
//! 16 bits to float32 and of up to 32 bits to float64; float16 → float32 → float64; a decimal to one
//! with at least its scale and its integer digits; Utf8, LargeUtf8, Utf8View and their dictionaries
//! are one type, the binaries likewise; Null to anything. Nothing else: timestamps with and without
//! zone never mix.

use arrow_schema::DataType::{self, *};

/// Strings and binaries come in several encodings of one logical type.
#[derive(PartialEq)]
enum Logical<'a> {
    Text,
    Bytes,
    Other(&'a DataType),
}

fn logical(t: &DataType) -> Logical<'_> {
    match t {
        Utf8 | LargeUtf8 | Utf8View => Logical::Text,
        Binary | LargeBinary | BinaryView => Logical::Bytes,
        Dictionary(_, value) => logical(value),
        other => Logical::Other(other),
    }
}

/// Whether two types are encodings of one logical type, so that neither is wider.
pub fn logical_equal(a: &DataType, b: &DataType) -> bool {
    logical(a) == logical(b)
}

/// Whether every value of `from` is a value of `to`. Reflexive.
pub fn widens_to(from: &DataType, to: &DataType) -> bool {
    if from == to || logical_equal(from, to) || matches!(from, Null) {
        return true;
    }
    match (logical(from), logical(to)) {
        (Logical::Other(a), Logical::Other(b)) => primitive_widens(a, b),
        _ => false,
    }
}

fn primitive_widens(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, UInt16 | UInt32 | UInt64) | (UInt16, UInt32 | UInt64) | (UInt32, UInt64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32, Int64) => true,
        (Int8 | Int16 | UInt8 | UInt16, Float32 | Float64) => true,
        (Int32 | UInt32, Float64) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        _ => match (decimal(from), decimal(to)) {
            (Some((width_a, p1, s1)), Some((width_b, p2, s2))) => {
                let integer_digits = |p: u8, s: i8| i16::from(p) - i16::from(s);
                width_b >= width_a && s2 >= s1 && integer_digits(p2, s2) >= integer_digits(p1, s1)
            }
            _ => false,
        },
    }
}

/// Bits, precision and scale of a decimal.
fn decimal(t: &DataType) -> Option<(u16, u8, i8)> {
    match t {
        Decimal32(p, s) => Some((32, *p, *s)),
        Decimal64(p, s) => Some((64, *p, *s)),
        Decimal128(p, s) => Some((128, *p, *s)),
        Decimal256(p, s) => Some((256, *p, *s)),
        _ => None,
    }
}

/// The narrowest type that both widen to; `a` is preferred where both are one logical type.
pub fn common_supertype(a: &DataType, b: &DataType) -> Option<DataType> {
    if widens_to(b, a) {
        return Some(a.clone());
    }
    if widens_to(a, b) {
        return Some(b.clone());
    }
    // Neither holds the other: the narrowest third type that holds both, tried in order of width.
    [Int16, Int32, Int64, Float32, Float64]
        .into_iter()
        .find(|t| widens_to(a, t) && widens_to(b, t))
        .or_else(|| decimal_supertype(a, b))
}

fn decimal_supertype(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((w1, p1, s1), (w2, p2, s2)) = (decimal(a)?, decimal(b)?);
    let scale = s1.max(s2);
    let integer_digits = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    let precision = u8::try_from(integer_digits + i16::from(scale)).ok()?;
    let width = w1.max(w2);
    match precision {
        0..=9 if width <= 32 => Some(Decimal32(precision, scale)),
        0..=18 if width <= 64 => Some(Decimal64(precision, scale)),
        0..=38 if width <= 128 => Some(Decimal128(precision, scale)),
        0..=76 => Some(Decimal256(precision, scale)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::TimeUnit;

    fn dict(value: DataType) -> DataType {
        Dictionary(Box::new(Int32), Box::new(value))
    }

    #[test]
    fn the_table_of_widenings_is_frozen() {
        let numbers = [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64];
        let mut golden = String::new();
        for a in &numbers {
            let to: Vec<String> =
                numbers.iter().filter(|b| *b != a && widens_to(a, b)).map(ToString::to_string).collect();
            golden.push_str(&format!("{a}: {}\n", to.join(" ")));
        }
        let expected = "\
Int8: Int16 Int32 Int64 Float32 Float64
Int16: Int32 Int64 Float32 Float64
Int32: Int64 Float64
Int64: 
UInt8: Int16 Int32 Int64 UInt16 UInt32 UInt64 Float32 Float64
UInt16: Int32 Int64 UInt32 UInt64 Float32 Float64
UInt32: Int64 UInt64 Float64
UInt64: 
Float16: Float32 Float64
Float32: Float64
Float64: 
";
        assert_eq!(
            golden, expected,
            "widening decides what old logs mean: changing it changes the answer of committed \
             transactions. A new rule needs a new record kind, not an edit here."
        );
    }

    #[test]
    fn strings_are_one_type_in_every_encoding() {
        for (a, b) in [(Utf8, LargeUtf8), (Utf8View, dict(Utf8)), (Binary, dict(BinaryView))] {
            assert!(widens_to(&a, &b) && widens_to(&b, &a), "{a} {b}");
            assert_eq!(common_supertype(&a, &b), Some(a.clone()));
        }
        assert!(!widens_to(&Utf8, &Binary));
        assert!(!widens_to(&Int32, &Utf8));
    }

    #[test]
    fn timestamps_never_widen() {
        let ms = Timestamp(TimeUnit::Millisecond, None);
        let ns = Timestamp(TimeUnit::Nanosecond, None);
        let zoned = Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        assert_eq!(common_supertype(&ms, &ns), None);
        assert_eq!(common_supertype(&ms, &zoned), None);
        assert_eq!(common_supertype(&Null, &zoned), Some(zoned));
    }

    #[test]
    fn supertypes_of_mixed_signs_and_decimals() {
        assert_eq!(common_supertype(&Int8, &UInt8), Some(Int16));
        assert_eq!(common_supertype(&UInt32, &Int8), Some(Int64));
        assert_eq!(common_supertype(&Int64, &UInt64), None);
        assert_eq!(common_supertype(&Int32, &Float32), Some(Float64));
        assert_eq!(common_supertype(&Int64, &Float64), None);
        assert_eq!(common_supertype(&Decimal128(10, 2), &Decimal128(8, 4)), Some(Decimal128(12, 4)));
        assert_eq!(common_supertype(&Decimal128(38, 0), &Decimal128(38, 38)), Some(Decimal256(76, 38)));
    }
}
