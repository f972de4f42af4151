//! Lines by the grammar, and what may happen to them.

use super::random::Random;

const NAMES: &[&str] = &[
    "a",
    "b",
    "cpu",
    "host",
    "region",
    "usage_user",
    "n\\ m",
    "c\\,d",
    "e\\=f",
    "g\\\\",
    "timestamp",
    "ü",
    "x",
    "y",
    "z",
    "v",
];
const TABLES: &[&str] = &["t", "u", "cpu", "t\\ 2", "mem\\,x", "known"];
const TEXTS: &[&str] = &[
    "a",
    "b",
    "host_17",
    "eu-central-1a",
    "x\\ y",
    "p\\,q",
    "r\\=s",
    "back\\\\slash",
    "C:\\dir",
    "ü\u{10ffff}",
    "\"",
    "line\\\nend",
    "",
    "0123456789abcdef0123456789abcdef",
];
/// Bytes that mean something somewhere.
const SPECIAL: &[u8] = b"\n\r\t ,=\\\"#tifnudTF0123456789.-+eE\x00\x01\x0a\x0e\x10\x17\x1f\x7f\x80\xc3\xff";

/// Lines, each with its line end, that share their beginnings often.
pub fn lines(random: &mut Random, count: usize) -> Vec<Vec<u8>> {
    let heads: Vec<Vec<u8>> = (0..random.within(1, 4)).map(|_| head(random)).collect();
    (0..count)
        .map(|_| match random.below(20) {
            0 => random.pick(&[&b"\n"[..], b"\r\n", b"# t x=1 1\n", b"   \n", b"#\"\n"]).to_vec(),
            1 => bad(random),
            2 => [head(random), rest(random)].concat(),
            _ => [random.pick(&heads).clone(), rest(random)].concat(),
        })
        .collect()
}

fn head(random: &mut Random) -> Vec<u8> {
    let mut out = random.pick(TABLES).as_bytes().to_vec();
    for _ in 0..random.below(5) {
        out.extend(format!(",{}={}", random.pick(NAMES), random.pick(TEXTS)).bytes());
    }
    out
}

fn rest(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    if !random.one_in(12) {
        let blanks: [&[u8]; 5] = [b" ", b" ", b" ", b"   ", b" \t"];
        out.extend(random.pick(&blanks).iter());
        for index in 0..random.within(1, 6) {
            if index > 0 {
                out.push(b',');
            }
            out.extend(random.pick(NAMES).bytes());
            out.push(b'=');
            out.extend(value(random));
        }
    }
    if !random.one_in(4) {
        let stamp = match random.below(6) {
            0 => (random.next() as i64).to_string(),
            1 => format!("{}t", random.next() as i32),
            2 => format!("{}n", random.next() as i64),
            3 => random.below(5000).to_string(),
            _ => (1_700_000_000_000_000_000 + (random.next() % 1_000_000_000) as i64).to_string(),
        };
        out.extend(format!(" {stamp}").bytes());
    }
    let ends: [&[u8]; 6] = [b"\n", b"\n", b"\n", b"\r\n", b" \n", b"  \r\n"];
    out.extend(random.pick(&ends).iter());
    out
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(14) {
        0 => format!("{}i", random.next() as i64).into_bytes(),
        1..=3 => format!("{}i", random.below(101)).into_bytes(),
        4 => format!("{}u", random.next()).into_bytes(),
        5 => format!("{:?}", f64::from_bits(random.next())).into_bytes(),
        6 => format!("{}.{}", random.below(1000), random.below(1_000_000)).into_bytes(),
        7 => random
            .pick(&["t", "F", "true", "False", "NaN", "-Infinity", "1e5", "-0", "5."])
            .as_bytes()
            .to_vec(),
        8 => format!("{}t", random.next() as i32).into_bytes(),
        9 if random.one_in(4) => {
            let exponents = [-200, -18, -1, 0, 5, 77, 201, i32::MIN, i32::MAX, random.next() as i32];
            format!("{}e{}d", random.below(1000), random.pick(&exponents)).into_bytes()
        }
        9 => format!("{}.{}d", random.below(1000), random.below(1000)).into_bytes(),
        10 => [b"=\x10".as_slice(), &random.next().to_le_bytes()].concat(),
        11 => array(random),
        12 => {
            let length = random.below(33);
            let mut out = vec![b'=', 0x17, random.below(20) as u8, length as u8];
            out.extend((0..length).map(|_| random.next() as u8));
            out
        }
        _ => {
            let texts = ["", "a", "two words", "q \\\" q", "line\nend", "\\\\", "ü", ",= ", "{\"k\":1}", "#"];
            format!("\"{}\"", random.pick(&texts)).into_bytes()
        }
    }
}

fn array(random: &mut Random) -> Vec<u8> {
    if random.one_in(8) {
        return vec![b'=', 0x0E, 33];
    }
    let shape: Vec<u32> = (0..random.within(1, 4)).map(|_| random.below(4) as u32).collect();
    let mut out = vec![b'=', 0x0E, 10, shape.len() as u8];
    shape.iter().for_each(|length| out.extend(length.to_le_bytes()));
    for _ in 0..shape.iter().product::<u32>() {
        out.extend(random.next().to_le_bytes());
    }
    out
}

fn bad(random: &mut Random) -> Vec<u8> {
    let lines: &[&[u8]] = &[
        b"t\n",
        b"t \n",
        b"t x\n",
        b"t x=\n",
        b",a=b x=1i 1\n",
        b"t,a x=1i 1\n",
        b"t,=b x=1i 1\n",
        b"t x=1i,\n",
        b"t x=1i 1 1\n",
        b"t x=oops 1\n",
        b"t x=1i nine\n",
        b"t x=\"a\"b 1\n",
        b"t x=99999999999999999999i 1\n",
        b"t x=1e400 1\n",
        b"t,a=\xff x=1i 1\n",
        b"t x==\x42 1\n",
        b"t x==\x0e\x0a\x21 1\n",
        b"t x==\x0e\x09\x01\x01\x00\x00\x00 1\n",
        b"t x==\x17\x4d\x01\x01 1\n",
        b"t x=\"never closed\n",
        b"t x==\x0e\x0a\x02\xff\xff\xff\xff\xff\xff\xff\xff\n",
        b"t,a=b\\\n",
    ];
    random.pick(lines).to_vec()
}

/// Some damage.
pub fn spoil(random: &mut Random, body: &mut Vec<u8>) {
    for _ in 0..random.within(1, 8) {
        let at = random.below(body.len() + 1);
        match random.below(8) {
            0 => body.truncate(at),
            1 => body.insert(at, *random.pick(SPECIAL)),
            2 => body.insert(at, random.next() as u8),
            3 => {
                let from = random.below(body.len() + 1);
                let to = (from + random.below(40)).min(body.len());
                let part = body[from..to].to_vec();
                body.splice(at..at, part);
            }
            4 => {
                let to = (at + random.below(12)).min(body.len());
                body.drain(at..to);
            }
            5 => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            _ => {
                if let Some(byte) = body.get_mut(at) {
                    *byte = *random.pick(SPECIAL);
                }
            }
        }
    }
}
