//! Nothing makes it panic.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(body);
    }

    #[test]
    fn bytes_that_mean_something(
        body in proptest::collection::vec(
            prop_oneof![
                prop::sample::select(&b"t, =\n\\\"\r\tix0123456789-.eEdunTf#\x00\x01\x02\x0a\x0e\x10\x17\xff"[..]).prop_map(|b| vec![b]),
                Just(b"t x=".to_vec()),
                Just(b"==\x0e\x0a\x01\x01\0\0\0".to_vec()),
                Just(b"=\x3d\x10".to_vec()),
                Just(b"\nt,a=b ".to_vec()),
                Just(b"\x17\x00\x02".to_vec()),
            ],
            0..80,
        ),
        columns in any::<bool>(),
    ) {
        let body = body.concat();
        let known = match columns {
            false => Known::default(),
            true => Known::with("t", Some("x"), &[
                ("x", DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None)),
                ("a", DataType::Decimal64(5, 2)),
                ("", DataType::Int8),
            ]),
        };
        read_with(settings(), &known, [body.as_slice()]);
    }
}
