//! The binary forms of QuestDB's versions 2 and 3.

use arrow::datatypes::i256;

use super::*;

fn double(value: f64) -> Vec<u8> {
    [b"=\x10".as_slice(), &value.to_le_bytes()].concat()
}

fn array(shape: &[u32], values: &[f64]) -> Vec<u8> {
    let mut out = vec![b'=', 0x0E, 10, shape.len() as u8];
    shape.iter().for_each(|length| out.extend(length.to_le_bytes()));
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    out
}

fn decimal(scale: u8, bytes: &[u8]) -> Vec<u8> {
    [&[b'=', 0x17, scale, bytes.len() as u8], bytes].concat()
}

fn line(fields: &[(&str, Vec<u8>)], stamp: &str) -> Vec<u8> {
    let fields: Vec<Vec<u8>> =
        fields.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()).collect();
    [b"t,a=x ".as_slice(), &fields.join(b",".as_slice()), b" ", stamp.as_bytes(), b"\n"].concat()
}

#[test]
fn doubles_are_read_by_length() {
    // Bytes that are line ends, commas and blanks.
    let odd = f64::from_le_bytes(*b"\n, =\n\n,\n");
    let body =
        [line(&[("x", double(odd)), ("y", double(-0.5))], "1t"), line(&[("x", double(2.0))], "2n")].concat();
    let batch = one(body);
    assert_eq!(shown(&batch, "x"), [format!("{odd:?}"), "2.0".to_owned()]);
    assert_eq!(shown(&batch, "y"), ["-0.5", "-"]);
    assert_eq!(shown(&batch, "timestamp"), ["1000", "2"]);
}

#[test]
fn arrays_of_several_dimensions() {
    let values: Vec<f64> = (0..6).map(f64::from).collect();
    let rows = [
        line(&[("m", array(&[2, 3], &values)), ("v", array(&[2], &[1.0, 2.0]))], "1n"),
        line(&[("v", array(&[0], &[]))], "2n"),
        line(&[("m", array(&[1, 1], &[9.5]))], "3n"),
    ];
    let batch = one(rows.concat());
    assert_eq!(shown(&batch, "m"), ["[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]", "-", "[[9.5]]"]);
    assert_eq!(shown(&batch, "v"), ["[1.0, 2.0]", "[]", "-"]);
    let shape = |batch: &RecordBatch, name| column(batch, name).data_type().clone();
    assert_eq!(shape(&batch, "v"), DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))));

    let refused = [line(&[("v", array(&[1], &[1.0]))], "1n"), line(&[("v", array(&[1, 1], &[1.0]))], "2n")];
    let read = read(refused.concat());
    assert_eq!(read.rows, 1);
    assert!(read.errors[0].message.contains("the line has an array"), "{:?}", read.errors);
}

#[test]
fn arrays_may_be_null() {
    // Nothing stands behind the type of null, which QuestDB has renumbered.
    for null in [33, 40] {
        let null = vec![b'=', 0x0E, null];
        let rows = [
            line(&[("v", null.clone()), ("x", double(1.0))], "1n"),
            line(&[("x", double(2.0)), ("v", array(&[1], &[7.5]))], "2n"),
            line(&[("v", null.clone())], "3n"),
            line(&[("x", null)], "4n"),
        ];
        let batch = one(rows.concat());
        assert_eq!(shown(&batch, "v"), ["-", "[7.5]", "-", "-"]);
        assert_eq!(shown(&batch, "x"), ["1.0", "2.0", "-", "-"]);
    }
}

#[test]
fn arrays_that_lie_about_themselves() {
    let shapes: [&[u32]; 4] = [&[u32::MAX], &[u32::MAX, 0], &[1000, 0], &[u32::MAX, u32::MAX, u32::MAX]];
    for shape in shapes {
        let read = read([line(&[("v", array(shape, &[1.0]))], "1n"), b"t x=1i 5\n".to_vec()].concat());
        assert!(!read.errors.is_empty() && read.rows <= 1, "{shape:?}: {read:?}");
    }
    assert!(fault(line(&[("v", vec![b'=', 0x0E, 9, 1, 0, 0, 0, 0])], "1n")).contains("element type 9"));
    assert!(fault(line(&[("v", vec![b'=', 0x0E, 10, 0])], "1n")).contains("0 dimensions"));
    assert!(fault(line(&[("v", vec![b'=', 0x0E, 10, 33])], "1n")).contains("33 dimensions"));
    assert!(fault(line(&[("v", vec![b'=', 0x42])], "1n")).contains("0x42"));
}

#[test]
fn decimals_of_any_length() {
    let rows = [
        line(&[("d", decimal(2, &[0x04, 0xd2]))], "1n"),
        line(&[("d", decimal(0, &[0xff]))], "2n"),
        line(&[("d", decimal(3, &i256::from_i128(-1500).to_be_bytes()))], "3n"),
        line(&[("d", decimal(0, &[]))], "4n"),
        line(&[("d", b"0.5d".to_vec())], "5n"),
    ];
    let batch = one(rows.concat());
    let tail = "000000000000000";
    let expected: Vec<String> = ["12.340", "-1.000", "-1.500"].iter().map(|d| format!("{d}{tail}")).collect();
    assert_eq!(shown(&batch, "d")[..3], expected);
    assert_eq!(shown(&batch, "d")[3..], ["-".to_owned(), format!("0.500{tail}")]);
    assert!(fault(line(&[("d", decimal(77, &[1]))], "1n")).contains("scale 77"));
    assert!(fault(line(&[("d", decimal(0, &[1; 33]))], "1n")).contains("33 bytes"));
    assert!(fault(line(&[("d", decimal(19, &[1]))], "1n")).contains("does not fit"));
}
