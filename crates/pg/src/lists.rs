//! Arrays of PostgreSQL's, in text or binary, as lists of one row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, NullArray, StringArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow_schema::{DataType, Field};
use bytes::{Buf, Bytes};
use tandem_types::{Error, Result};

/// Items that are held one by one; a longer list is held in pieces of so many, which take little more than they say.
const PIECE: usize = 1024;

/// `{a,"b c",NULL}`, of one dimension. `item` reads one of its items.
pub(crate) fn text_list(list: &str, item: impl Fn(&str) -> Result<ArrayRef>) -> Result<ArrayRef> {
    let mut items = Items::default();
    let count = text_items(list, item, &mut items)?;
    items.lists(&[Some(count)])
}

/// Many of them.
pub(crate) fn text_lists(lists: &StringArray, item: impl Fn(&str) -> Result<ArrayRef>) -> Result<ArrayRef> {
    let mut items = Items::default();
    let counts = lists.iter().map(|list| list.map(|list| text_items(list, &item, &mut items)).transpose());
    let counts: Vec<Option<usize>> = counts.collect::<Result<_>>()?;
    items.lists(&counts)
}

/// Adds the items of a list; how many they are.
fn text_items(list: &str, item: impl Fn(&str) -> Result<ArrayRef>, items: &mut Items) -> Result<usize> {
    let wrong =
        || Error::invalid(format!("{list:?} is no array of one dimension: it looks like {{1,2,NULL}}"));
    let inner = list.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?;
    let mut count = 0;
    let mut letters = inner.chars().peekable();
    while letters.peek().is_some() {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = letters.next_if_eq(&'"').is_some();
        let mut closed = !quoted;
        while let Some(letter) = letters.next_if(|letter| quoted || *letter != ',') {
            match letter {
                '\\' => value.push(letters.next().ok_or_else(wrong)?),
                '"' if quoted => {
                    closed = true;
                    break;
                }
                '{' | '}' | '"' if !quoted => return Err(wrong()),
                other => value.push(other),
            }
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let more = letters.next_if_eq(&',').is_some();
        if !closed || (!more && letters.peek().is_some()) || (more && letters.peek().is_none()) {
            return Err(wrong());
        }
        let is_null = !quoted && value.trim().eq_ignore_ascii_case("null");
        items.push(if is_null { None } else { Some(item(if quoted { &value } else { value.trim() })?) })?;
        count += 1;
    }
    Ok(count)
}

/// As PostgreSQL sends arrays in binary. `item` reads one of its items, of the type with that number.
pub(crate) fn binary_list(
    mut bytes: Bytes,
    item: impl Fn(u32, Bytes) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let short = || Error::invalid("an array ends too early");
    let word = |bytes: &mut Bytes| {
        if bytes.len() < 4 { Err(short()) } else { Ok(bytes.get_i32()) }
    };
    let (dimensions, _has_nulls, oid) = (word(&mut bytes)?, word(&mut bytes)?, word(&mut bytes)?);
    if dimensions == 0 {
        return Items::default().lists(&[Some(0)]);
    }
    if dimensions != 1 {
        return Err(Error::unsupported(format!(
            "an array of {dimensions} dimensions; one is understood here"
        )));
    }
    let (count, _first) = (word(&mut bytes)?, word(&mut bytes)?);
    let mut items = Items::default();
    for _ in 0..count {
        items.push(match usize::try_from(word(&mut bytes)?) {
            Err(_) => None,
            Ok(length) if bytes.len() < length => return Err(short()),
            Ok(length) => Some(item(oid.cast_unsigned(), bytes.split_to(length))?),
        })?;
    }
    items.lists(&[Some(usize::try_from(count).unwrap_or(0))])
}

/// Items of a list, each an array of one row.
#[derive(Default)]
struct Items {
    pieces: Vec<ArrayRef>,
    last: Vec<Option<ArrayRef>>,
}

impl Items {
    fn push(&mut self, item: Option<ArrayRef>) -> Result<()> {
        self.last.push(item);
        if self.last.len() < PIECE { Ok(()) } else { self.close_piece() }
    }

    fn close_piece(&mut self) -> Result<()> {
        let null: ArrayRef = Arc::new(NullArray::new(1));
        let items: Vec<ArrayRef> =
            self.last.drain(..).map(|item| item.unwrap_or_else(|| null.clone())).collect();
        self.pieces.push(together(&items)?);
        Ok(())
    }

    /// Lists of so many of these items each; `None` is null.
    fn lists(mut self, counts: &[Option<usize>]) -> Result<ArrayRef> {
        if !self.last.is_empty() {
            self.close_piece()?;
        }
        let values = together(&self.pieces)?;
        let values = match values.data_type() {
            DataType::Null => new_null_array(&DataType::Utf8, values.len()),
            _ => values,
        };
        let offsets = OffsetBuffer::from_lengths(counts.iter().map(|count| count.unwrap_or(0)));
        let nulls = counts.iter().any(Option::is_none);
        let nulls = nulls.then(|| NullBuffer::from_iter(counts.iter().map(Option::is_some)));
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls).map_err(apart)?))
    }
}

fn apart(error: arrow_schema::ArrowError) -> Error {
    Error::invalid(format!("the items of an array do not go together: {error}"))
}

/// The arrays one after the other, in the type that holds them all.
fn together(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let mut common = DataType::Null;
    for array in arrays {
        common = widest(common, array.data_type());
    }
    match concatenated(arrays, &common) {
        Err(error) => match common {
            // More digits than the shorter decimal has.
            DataType::Decimal128(_, scale) => concatenated(arrays, &DataType::Decimal256(76, scale)),
            _ => Err(error),
        },
        all => all,
    }
}

fn concatenated(arrays: &[ArrayRef], common: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = arrays.iter().map(|array| match array.data_type() {
        same if same == common => Ok(array.clone()),
        DataType::Null => Ok(new_null_array(common, array.len())),
        _ => cast_with_options(array, common, &strict).map_err(apart),
    });
    let cast: Vec<ArrayRef> = cast.collect::<Result<_>>()?;
    let all: Vec<&dyn Array> = cast.iter().map(AsRef::as_ref).collect();
    if all.is_empty() { Ok(new_null_array(common, 0)) } else { concat(&all).map_err(apart) }
}

/// The type that holds values of both. Numerics differ by their digits; all other items are of one type.
fn widest(a: DataType, b: &DataType) -> DataType {
    use DataType::{Decimal128, Decimal256, Float64, Null};
    match (&a, b) {
        (_, Null) => a,
        (Null, _) => b.clone(),
        (_, other) if a == *other => a,
        (Decimal128(_, x), Decimal128(_, y)) => Decimal128(38, *x.max(y)),
        (Decimal128(_, x) | Decimal256(_, x), Decimal128(_, y) | Decimal256(_, y)) => {
            Decimal256(76, *x.max(y))
        }
        (Float64, other) | (other, Float64) if other.is_decimal() => Float64,
        _ => a,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn long_lists_are_whole() {
        let text: Vec<String> =
            (0..3000).map(|n| if n < 1500 { "NULL".to_owned() } else { n.to_string() }).collect();
        let item = |text: &str| {
            let number = text.parse::<i64>().map_err(|_| Error::invalid("no number"))?;
            Ok(Arc::new(Int64Array::from(vec![number])) as ArrayRef)
        };
        let list = text_list(&format!("{{{}}}", text.join(",")), item).unwrap();
        let values = list.as_list::<i32>().value(0);
        let values = values.as_primitive::<Int64Type>();
        assert_eq!((values.len(), values.null_count()), (3000, 1500));
        assert_eq!((1500..3000).map(|at| values.value(at)).sum::<i64>(), (1500..3000).sum::<i64>());
    }
}
