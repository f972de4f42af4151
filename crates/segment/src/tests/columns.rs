//! Random columns of many types.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::i256;
use arrow_schema::{DataType, Field};

use super::Rng;

pub const KINDS: usize = 32;

fn options<T>(rows: usize, rng: &mut Rng, mut value: impl FnMut(&mut Rng) -> T) -> Vec<Option<T>> {
    let nulls = rng.one_in(2);
    (0..rows).map(|_| if nulls && rng.one_in(4) { None } else { Some(value(rng)) }).collect()
}

fn text(rng: &mut Rng) -> String {
    let len = rng.below(30);
    (0..len).map(|_| ['a', 'b', 'ü', '中', ' '][rng.below(5)]).collect()
}

fn nulls(rows: usize, rng: &mut Rng) -> Option<NullBuffer> {
    rng.one_in(2).then(|| (0..rows).map(|_| !rng.one_in(4)).collect())
}

fn lengths(rows: usize, rng: &mut Rng) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths((0..rows).map(|_| rng.below(4)).collect::<Vec<_>>())
}

fn item(array: &ArrayRef) -> Arc<Field> {
    Arc::new(Field::new("item", array.data_type().clone(), true))
}

/// A list whose values are of another kind.
fn list(kind: usize, rows: usize, rng: &mut Rng) -> ArrayRef {
    let offsets = lengths(rows, rng);
    let (_, values) = column(kind, offsets.last().copied().unwrap_or(0) as usize, rng);
    Arc::new(ListArray::new(item(&values), offsets, values, nulls(rows, rng)))
}

fn dictionary<K: arrow::datatypes::ArrowDictionaryKeyType>(
    rows: usize,
    rng: &mut Rng,
    values: ArrayRef,
    key: impl Fn(usize) -> K::Native,
) -> ArrayRef {
    let size = values.len();
    let keys: PrimitiveArray<K> = options(rows, rng, |r| key(r.below(size))).into_iter().collect();
    Arc::new(DictionaryArray::new(keys, values))
}

fn tags(rng: &mut Rng) -> Vec<String> {
    (0..1 + rng.below(20)).map(|i| format!("{i}{}", text(rng))).collect()
}

fn structure(kinds: &[usize], rows: usize, rng: &mut Rng) -> StructArray {
    let (fields, arrays): (Vec<Field>, Vec<_>) = kinds.iter().map(|&k| column(k, rows, rng)).unzip();
    StructArray::new(fields.into(), arrays, nulls(rows, rng))
}

pub fn column(kind: usize, rows: usize, rng: &mut Rng) -> (Field, ArrayRef) {
    let array: ArrayRef = match kind {
        0 => Arc::new(Int64Array::from(options(rows, rng, |r| r.next() as i64))),
        1 => Arc::new(StringArray::from(options(rows, rng, text))),
        2 => Arc::new(StringViewArray::from(options(rows, rng, text))),
        3 => Arc::new(BooleanArray::from(options(rows, rng, |r| r.one_in(2)))),
        4 => Arc::new(Decimal32Array::from(options(rows, rng, |r| r.below(99999) as i32))),
        5 => Arc::new(Decimal64Array::from(options(rows, rng, |r| r.below(99999) as i64))),
        6 => {
            let values: Decimal128Array = options(rows, rng, |r| -(r.below(1 << 40) as i128)).into();
            Arc::new(values.with_precision_and_scale(30, 4).unwrap())
        }
        7 => Arc::new(Decimal256Array::from(options(rows, rng, |r| i256::from_i128(r.next() as i128)))),
        8 => {
            let values: TimestampMicrosecondArray = options(rows, rng, |r| r.next() as i64).into();
            Arc::new(values.with_timezone("+02:00"))
        }
        9 => {
            let values = options(rows, rng, |r| [r.next() as u8; 5]);
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 5).unwrap())
        }
        10 => Arc::new(NullArray::new(rows)),
        11 => {
            let values = Arc::new(StringArray::from(tags(rng)));
            dictionary::<arrow::datatypes::Int32Type>(rows, rng, values, |i| i as i32)
        }
        12 => list(0, rows, rng),
        13 => Arc::new(structure(&[1, 20], rows, rng)),
        14 => {
            let offsets = lengths(rows, rng);
            let n = offsets.last().copied().unwrap_or(0) as usize;
            let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|_| text(rng))));
            let (_, values) = column(11, n, rng);
            let entries = StructArray::new(
                vec![
                    Field::new("keys", DataType::Utf8, false),
                    Field::new("values", values.data_type().clone(), true),
                ]
                .into(),
                vec![keys, values],
                None,
            );
            let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
            Arc::new(MapArray::new(field, offsets, entries, nulls(rows, rng), false))
        }
        15 => {
            let values = options(rows, rng, |r| text(r).into_bytes());
            Arc::new(BinaryViewArray::from_iter(values))
        }
        16 => Arc::new(LargeStringArray::from(options(rows, rng, text))),
        17 => Arc::new(Float64Array::from(options(rows, rng, |r| f64::from_bits(r.next())))),
        18 => list(22, rows, rng),
        19 => {
            let (_, values) = column(0, rows * 3, rng);
            Arc::new(FixedSizeListArray::new(item(&values), 3, values, nulls(rows, rng)))
        }
        20 => Arc::new(UInt8Array::from(options(rows, rng, |r| r.next() as u8))),
        21 => Arc::new(Date32Array::from(options(rows, rng, |r| r.next() as i32))),
        22 => {
            let values = Arc::new(StringViewArray::from_iter_values(tags(rng)));
            dictionary::<arrow::datatypes::UInt16Type>(rows, rng, values, |i| i as u16)
        }
        23 => Arc::new(Float32Array::from(options(rows, rng, |r| r.below(1000) as f32))),
        24 => {
            let (_, values) = column(1, 10, rng);
            let sizes: Vec<i32> = (0..rows).map(|_| rng.below(5) as i32).collect();
            let starts: Vec<i32> = (0..rows).map(|_| rng.below(5) as i32).collect();
            let (starts, sizes) = (ScalarBuffer::from(starts), ScalarBuffer::from(sizes));
            Arc::new(ListViewArray::new(item(&values), starts, sizes, values, nulls(rows, rng)))
        }
        25 => Arc::new(structure(&[11, 10, 22], rows, rng)),
        26 => list(2, rows, rng),
        27 => Arc::new(BinaryArray::from_iter(options(rows, rng, |r| text(r).into_bytes()))),
        28 => Arc::new(Time64NanosecondArray::from(options(rows, rng, |r| r.next() as i64))),
        29 => {
            let values: Vec<i64> = (0..1 + rng.below(9) as i64).collect();
            dictionary::<arrow::datatypes::Int8Type>(rows, rng, Arc::new(Int64Array::from(values)), |i| {
                i as i8
            })
        }
        30 => list(14, rows, rng),
        _ => {
            let ids: ScalarBuffer<i8> = (0..rows).map(|_| rng.below(2) as i8).collect();
            let (a, b) = (column(0, rows, rng).1, column(1, rows, rng).1);
            let fields = arrow_schema::UnionFields::try_new(
                [0, 1],
                [Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)],
            )
            .unwrap();
            Arc::new(UnionArray::try_new(fields, ids, None, vec![a, b]).unwrap())
        }
    };
    (Field::new(format!("c{kind}"), array.data_type().clone(), true), array)
}
