//! Values as text: what counts as null, which type a column has, and turning text into values.

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Date32Type;
use arrow_schema::{DataType, TimeUnit};
use std::sync::Arc;
use tandem_types::common_supertype;

/// Words that mean "no value" in columns that are not text, unless the user names others.
const USUAL_NULLS: [&str; 6] = ["NA", "N/A", "NULL", "null", "None", "\\N"];

/// Which texts are null. The empty text always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// The usual words, except in text columns, where `NA` may be somebody's name.
    Usual,
    /// These, in every column.
    Given(Vec<String>),
}

impl Nulls {
    /// Whether a text may be null in some column: then it says nothing about the column's type.
    pub fn may_be_null(&self, text: &str) -> bool {
        self.is_null(text, false)
    }

    /// Whether a text is null in a column of text, or of another type.
    pub fn is_null(&self, text: &str, text_column: bool) -> bool {
        text.is_empty()
            || match self {
                Self::Usual => !text_column && USUAL_NULLS.contains(&text),
                Self::Given(words) => words.iter().any(|w| w == text),
            }
    }
}

const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 4;
const DATE: u8 = 8;
const TIMESTAMP: u8 = 16;
const TEXT: u8 = 32;

/// What the values of a column that were seen have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guess {
    seen: u8,
    /// Some timestamp has digits below the microsecond.
    nanoseconds: bool,
}

impl Guess {
    /// Takes a value that is not null into account.
    pub fn see(&mut self, text: &str) {
        // Nothing turns text back into something else, so most text columns cost nothing more.
        if self.seen & TEXT == 0 {
            self.seen |= self.class_of(text.trim_ascii());
        }
    }

    /// The same for a JSON string, which is no number however it looks.
    pub fn see_string(&mut self, text: &str) {
        if self.seen & TEXT == 0 {
            let class = self.class_of(text);
            self.seen |= if class & (DATE | TIMESTAMP) != 0 { class } else { TEXT };
        }
    }

    fn class_of(&mut self, text: &str) -> u8 {
        let bytes = text.as_bytes();
        match bytes.first() {
            Some(b'0'..=b'9') if bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-') => {
                self.time_class(text)
            }
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => number_class(text),
            Some(b't' | b'T' | b'f' | b'F')
                if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") =>
            {
                BOOLEAN
            }
            _ if matches!(text, "NaN" | "nan" | "inf" | "Inf" | "Infinity") => FLOAT,
            _ => TEXT,
        }
    }

    fn time_class(&mut self, text: &str) -> u8 {
        if text.len() == 10 {
            return if Date32Type::parse(text).is_some() { DATE } else { TEXT };
        }
        if string_to_datetime(&chrono::Utc, text).is_err() {
            return TEXT;
        }
        let digits = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.bytes().take_while(u8::is_ascii_digit).count());
        self.nanoseconds |= digits > 6;
        TIMESTAMP
    }

    /// The column's type; `Null` when nothing was seen.
    pub fn data_type(self) -> DataType {
        const NUMBER: u8 = INTEGER | FLOAT;
        const TIME: u8 = DATE | TIMESTAMP;
        match self.seen {
            0 => DataType::Null,
            BOOLEAN => DataType::Boolean,
            INTEGER => DataType::Int64,
            seen if seen & !NUMBER == 0 => DataType::Float64,
            DATE => DataType::Date32,
            seen if seen & !TIME == 0 => {
                let unit = if self.nanoseconds { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
                DataType::Timestamp(unit, None)
            }
            _ => DataType::Utf8,
        }
    }
}

fn number_class(text: &str) -> u8 {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        // Beyond 64 bits it is an identifier rather than a number.
        return if text.parse::<i64>().is_ok() { INTEGER } else { TEXT };
    }
    if text.parse::<f64>().is_ok() { FLOAT } else { TEXT }
}

/// The type for a column that two files or values saw differently; text holds everything that was text.
pub fn merge_types(a: &DataType, b: &DataType, from_text: bool) -> Option<DataType> {
    use DataType::{Date32, Float64, Int64, Null, Timestamp, Utf8};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Int64, Float64) | (Float64, Int64) if from_text => Some(Float64),
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) if from_text => {
            Some(Timestamp(*unit, None))
        }
        (Timestamp(one, zone), Timestamp(other, other_zone)) if zone == other_zone => {
            Some(Timestamp((*one).max(*other), zone.clone()))
        }
        _ => common_supertype(a, b)
            .or_else(|| from_text.then_some(Utf8).filter(|_| !a.is_nested() && !b.is_nested())),
    }
}

/// Why a column of text could not become values.
#[derive(Debug, PartialEq, Eq)]
pub enum CastFailure {
    /// The value of this row does not fit.
    Row(usize),
    /// No text does.
    Type(String),
}

/// Text as values of a type; nulls stay null.
pub fn cast_text(texts: &Arc<StringArray>, to: &DataType) -> Result<ArrayRef, CastFailure> {
    if *to == DataType::Utf8 {
        return Ok(texts.clone());
    }
    let options = CastOptions { safe: true, ..Default::default() };
    let values =
        cast_with_options(texts.as_ref(), to, &options).map_err(|e| CastFailure::Type(e.to_string()))?;
    if values.null_count() > texts.null_count() {
        let bad = (0..texts.len()).find(|&row| texts.is_valid(row) && values.is_null(row));
        if let Some(row) = bad {
            return Err(CastFailure::Row(row));
        }
    }
    Ok(values)
}

/// A value for a message: short, on one line.
pub fn excerpt(text: &str) -> String {
    const CHARS: usize = 60;
    if text.chars().count() <= CHARS {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(CHARS).collect();
    format!("{head:?}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(values: &[&str]) -> DataType {
        let mut guess = Guess::default();
        values.iter().for_each(|v| guess.see(v));
        guess.data_type()
    }

    const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
    const NANOS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

    #[test]
    fn types_are_guessed_from_values() {
        let table: [(&[&str], DataType); 18] = [
            (&[], DataType::Null),
            (&["true", "FALSE"], DataType::Boolean),
            (&["1", "-2", "+3", " 4 "], DataType::Int64),
            (&["1", "2.5"], DataType::Float64),
            (&["1e5", ".5", "NaN", "-1."], DataType::Float64),
            (&["99999999999999999999"], DataType::Utf8),
            (&["2013-01-01"], DataType::Date32),
            (&["2013-01-01", "2013-01-01 05:00:00"], MICROS),
            (&["2013-01-01T10:00:00Z"], MICROS),
            (&["2013-01-01T10:00:00.123+02:00"], MICROS),
            (&["2013-01-01 10:00:00.1234567"], NANOS),
            (&["2013-13-01"], DataType::Utf8),
            (&["2013-01-01 25:00:00"], DataType::Utf8),
            (&["1", "true"], DataType::Utf8),
            (&["1", "2013-01-01"], DataType::Utf8),
            (&["N14228"], DataType::Utf8),
            (&["-"], DataType::Utf8),
            (&["1.2.3"], DataType::Utf8),
        ];
        for (values, expected) in table {
            assert_eq!(guess(values), expected, "{values:?}");
        }
    }

    #[test]
    fn what_was_guessed_can_be_cast() {
        for values in [
            &["true", "False"][..],
            &["1", "-2", "+3"],
            &["1", "2.5", "NaN", "1e5", "inf", ".5", "-1."],
            &["2013-01-01", "2013-01-01 05:00:00", "2013-01-01T05:00:00.5+02:00"],
            &["2013-01-01T05:00:00.123456789Z"],
            &["2013-01-01"],
        ] {
            let texts = Arc::new(StringArray::from(values.to_vec()));
            let cast = cast_text(&texts, &guess(values));
            assert_eq!(cast.map(|c| c.null_count()), Ok(0), "{values:?}");
        }
    }

    #[test]
    fn the_first_bad_value_is_found() {
        let texts = Arc::new(StringArray::from(vec![Some("1"), None, Some("x"), Some("y")]));
        assert_eq!(cast_text(&texts, &DataType::Int64).unwrap_err(), CastFailure::Row(2));
    }

    #[test]
    fn the_usual_nulls_spare_text_columns_and_given_ones_do_not() {
        assert!(Nulls::Usual.is_null("NA", false) && !Nulls::Usual.is_null("NA", true));
        assert!(Nulls::Usual.is_null("", true));
        let given = Nulls::Given(vec!["-".into()]);
        assert!(given.is_null("-", true) && given.is_null("", true) && !given.is_null("NA", false));
    }

    #[test]
    fn types_of_several_files_are_merged() {
        use DataType::{Int64, Null, Utf8};
        assert_eq!(merge_types(&Null, &Int64, true), Some(Int64));
        assert_eq!(merge_types(&Int64, &DataType::Float64, true), Some(DataType::Float64));
        assert_eq!(merge_types(&Int64, &Utf8, true), Some(Utf8));
        assert_eq!(merge_types(&Int64, &Utf8, false), None);
        assert_eq!(merge_types(&MICROS, &NANOS, false), Some(NANOS));
        assert_eq!(merge_types(&DataType::Int16, &DataType::Int32, false), Some(DataType::Int32));
    }
}
