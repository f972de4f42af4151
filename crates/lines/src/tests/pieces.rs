//! However a body is cut, it means the same.

use proptest::prelude::*;

use super::*;
use crate::Limits;

fn bodies() -> Vec<Vec<u8>> {
    let array =
        [b"t,a=x v=\x3d\x0e\x0a\x01\x03\0\0\0".as_slice(), b"\n\n, =\n\n\n12345678\n       ", b" 5n\n"]
            .concat();
    let double = [b"t,a=y d=\x3d\x10".as_slice(), b"\n\n\n\n,,  ", b",e=5i 6n\n"].concat();
    let decimal = b"t,a=z m=\x3d\x17\x02\x02\n\n,s=\"a\nb\" 7n\r\n".to_vec();
    let text = b"# first\n\nt,a=q\\ r,b=\\\\ s=\"x \\\" y\",i=5i,f=1e3,p=1.5d 8\nu,a=q b=t\n".to_vec();
    let bad = b"t i=1.5 9\nt,a x=1\nt s=\"open\nt i=7i 10\nu b=f 11".to_vec();
    vec![[array, double, decimal, text.clone()].concat(), [text, bad].concat()]
}

#[test]
fn two_pieces_cut_at_every_byte() {
    for body in bodies() {
        let whole = read(&body);
        for cut in 0..=body.len() {
            let (first, second) = body.split_at(cut);
            let parts = read_with(settings(), &Known::default(), [first, second]);
            assert_eq!(parts, whole, "cut at {cut}");
        }
        let bytes = read_with(settings(), &Known::default(), body.chunks(1));
        assert_eq!(bytes, whole);
    }
}

#[test]
fn a_body_may_end_at_every_byte() {
    for body in bodies() {
        for end in 0..=body.len() {
            let read = read(&body[..end]);
            assert!(read.rows <= 6 && read.errors.len() <= 8);
        }
    }
}

#[test]
fn batches_are_cut_before_they_grow() {
    let limits = Limits { batch_bytes: 1000, ..Limits::default() };
    let settings = Settings { limits, ..settings() };
    let body: String = (0..500).map(|i| format!("t,host=h{} x={i}i,y{}=1 {i}\n", i % 7, i % 3)).collect();
    let mut parser = Parser::new(settings, Arc::new(Known::default()));
    let mut batches = Vec::new();
    for piece in body.as_bytes().chunks(100) {
        parser.feed(piece).unwrap();
        batches.extend(parser.take());
    }
    parser.finish().unwrap();
    batches.extend(parser.take());
    assert!(batches.len() > 10, "{}", batches.len());
    let stamps: Vec<String> = batches.iter().flat_map(|b| shown(&b.batch, "timestamp")).collect();
    assert_eq!(stamps, (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
    let hosts: Vec<String> = batches.iter().flat_map(|b| shown(&b.batch, "host")).collect();
    assert_eq!(hosts, (0..500).map(|i| format!("h{}", i % 7)).collect::<Vec<_>>());
}

#[test]
fn rows_without_a_timestamp_are_noticed() {
    for (body, all) in
        [("t x=1 1\nt x=2 2\n", true), ("t x=1 1\nt x=2\nt x=3 3", false), ("t x=1 1\nt x=oops\n", true)]
    {
        let mut parser = Parser::new(settings(), Arc::new(Known::default()));
        parser.feed(body.as_bytes()).unwrap();
        parser.finish().unwrap();
        assert_eq!(parser.all_stamped(), all, "{body:?}");
    }
}

#[test]
fn an_endless_line_is_not_held() {
    let limits = Limits { line_bytes: 1000, ..Limits::default() };
    let mut parser = Parser::new(Settings { limits, ..settings() }, Arc::new(Known::default()));
    parser.feed(b"t x=\"").unwrap();
    for _ in 0..1000 {
        parser.feed(&[b'a'; 100]).unwrap();
    }
    parser.feed(b"\nt x=1 1\n").unwrap();
    parser.finish().unwrap();
    assert_eq!((parser.rows(), parser.failed()), (1, 1));
    assert!(parser.errors()[0].message.contains("longer than 1000 bytes"));
}

#[test]
fn lines_without_an_end_are_not_read_again_and_again() {
    let endless = [b"\\\n".repeat(2 << 20), b"t x==\x0e\x0a\x01\xff\xff\xff\x00\n".repeat(300_000)];
    for body in endless {
        let mut parser = Parser::new(settings(), Arc::new(Known::default()));
        for piece in body.chunks(8 << 10) {
            parser.feed(piece).unwrap();
        }
        parser.finish().unwrap();
        assert_eq!((parser.rows(), parser.failed()), (0, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn spoilt_bodies_mean_the_same_in_all_pieces(
        which in 0..2usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        piece in 1..40usize,
        line_bytes in 20..400usize,
        batch_bytes in 100..10_000usize,
    ) {
        let mut body = bodies().remove(which);
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let limits = Limits { line_bytes, batch_bytes, ..Limits::default() };
        let settings = Settings { limits, ..settings() };
        let whole = read_with(settings, &Known::default(), [body.as_slice()]);
        let parts = read_with(settings, &Known::default(), body.chunks(piece));
        prop_assert_eq!(parts, whole);
    }
}

#[test]
fn series_that_come_again_mean_the_same() {
    // Of two tables, in changing order, with refused lines of theirs between, and through several batches.
    let line = |i: usize| match i % 11 {
        3 => format!("t,host=h{} x=oops {i}\n", i % 5),
        7 => format!("u,host=h{},dc=d{} y={i}.5,host=\"not this\" {i}\n", i % 3, i % 2),
        8 => format!("u,dc=d{},host=h{} y={i}.5 {i}\n", i % 2, i % 3),
        9 => format!("t,host=,dc=d1 x={i}i {i}\n"),
        _ => format!("t,host=h{},dc=d{} x={i}i {i}\n", i % 5, i % 2),
    };
    let limits = Limits { batch_bytes: 8_000, errors: 1_000, ..Limits::default() };
    let body: String = (0..1_000).map(line).collect();
    let read = read_with(Settings { limits, ..settings() }, &Known::default(), body.as_bytes().chunks(333));
    let bad: Vec<usize> = (0..1_000).filter(|i| i % 11 == 3).collect();
    assert_eq!(read.errors.iter().map(|error| error.line as usize - 1).collect::<Vec<_>>(), bad);
    assert!(read.batches.len() > 8, "{}", read.batches.len());
    for (table, names) in [("t", ["timestamp", "host", "dc", "x"]), ("u", ["timestamp", "host", "dc", "y"])] {
        let of = |name: &str| -> Vec<String> {
            let batches = read.batches.iter().filter(|batch| batch.table == table);
            batches.flat_map(|batch| shown(&batch.batch, name)).collect()
        };
        let columns = names.map(of);
        let lines = (0..1_000).filter(|i| i % 11 != 3 && (table == "u") == matches!(i % 11, 7 | 8));
        for (row, i) in lines.enumerate() {
            let host = match (table, i % 11) {
                ("u", _) => format!("h{}", i % 3),
                (_, 9) => "-".to_owned(),
                _ => format!("h{}", i % 5),
            };
            let dc = if i % 11 == 9 { "d1".to_owned() } else { format!("d{}", i % 2) };
            let value = if table == "u" { format!("{i}.5") } else { i.to_string() };
            let found: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
            assert_eq!(found, [&i.to_string(), &host, &dc, &value]);
        }
    }
}
