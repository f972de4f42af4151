//! The text forms, one by one.

use super::*;
use crate::{Limits, LineErrorKind};

#[test]
fn a_line_of_each_type() {
    let line = "weather,city=Oslo,site=north\\ west temp=-3.5,count=4i,big=18446744073709551615u,wet=t,\
                text=\"a \\\"b\\\" \\\\ c, d=e\",at=1700000000000000t,fine=1700000000000000001n,price=12.340d 1700000000000000000\n";
    let batch = one(line);
    let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(
        names,
        ["timestamp", "city", "site", "temp", "count", "big", "wet", "text", "at", "fine", "price"]
    );
    let row: Vec<String> = names.iter().map(|name| shown(&batch, name).remove(0)).collect();
    assert_eq!(
        row,
        [
            "1700000000000000000",
            "Oslo",
            "north west",
            "-3.5",
            "4",
            "18446744073709551615",
            "true",
            "a \"b\" \\ c, d=e",
            "1700000000000000",
            "1700000000000000001",
            "12.340000000000000000"
        ]
    );
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(*column(&batch, "city").data_type(), dictionary);
    assert_eq!(*column(&batch, "text").data_type(), DataType::Utf8);
    assert_eq!(*column(&batch, "price").data_type(), DataType::Decimal128(38, 18));
    assert!(!batch.schema().field(0).is_nullable() && batch.schema().field(1).is_nullable());
}

#[test]
fn rows_lack_what_their_lines_do_not_name() {
    let batch = one("t,a=x b=1 1\nt c=2 2\nt,a=y b=3,c=4 3\nt,d=q 4\nt,a=z 5\n");
    assert_eq!(shown(&batch, "timestamp"), ["1", "2", "3", "4", "5"]);
    assert_eq!(shown(&batch, "a"), ["x", "-", "y", "-", "z"]);
    assert_eq!(shown(&batch, "b"), ["1.0", "-", "3.0", "-", "-"]);
    assert_eq!(shown(&batch, "c"), ["-", "2.0", "4.0", "-", "-"]);
    assert_eq!(shown(&batch, "d"), ["-", "-", "-", "q", "-"]);
}

#[test]
fn tables_are_kept_apart() {
    let batches = good("a x=1i 1\nb y=2i 2\na x=3i 3\nb y=4i 4\nc\\,d z=1i 5");
    let found: Vec<(&str, usize)> = batches.iter().map(|b| (b.table.as_str(), b.batch.num_rows())).collect();
    assert_eq!(found, [("a", 2), ("b", 2), ("c,d", 1)]);
    assert!(batches.iter().all(|b| b.timestamp == "timestamp"));
}

#[test]
fn names_and_texts_are_unescaped() {
    let batch = one("my\\ table\\=x,t\\ a\\,g\\==v\\ a\\,l\\=u\\\\e f\\=\\ 1=1i 5\n");
    assert_eq!(shown(&batch, "t a,g="), ["v a,l=u\\e"]);
    assert_eq!(shown(&batch, "f= 1"), ["1"]);
    // Backslashes before anything else stand for themselves, and line ends may be escaped or stand in quotes.
    let batch = one("t,path=C:\\dir,line=a\\\nb s=\"x\ny\",r=\"a\\\nb\\n\" 5\n");
    assert_eq!(shown(&batch, "path"), ["C:\\dir"]);
    assert_eq!(shown(&batch, "line"), ["a\nb"]);
    assert_eq!(shown(&batch, "s"), ["x\ny"]);
    assert_eq!(shown(&batch, "r"), ["a\nb\\n"]);
    assert_eq!(good("my\\ table x=1").remove(0).table, "my table");
}

#[test]
fn empty_lines_comments_and_line_ends() {
    let batch = one("\n  \n# t x=1 1\nt x=1i 1\r\n\r\n   t x=2i 2  \n#\nt x=3i\r\nt,a=b\r\nt,a=c x=5i   3");
    assert_eq!(shown(&batch, "timestamp"), ["1", "2", "7", "7", "3"]);
    assert_eq!(shown(&batch, "x"), ["1", "2", "3", "-", "5"]);
    assert_eq!(shown(&batch, "a"), ["-", "-", "-", "b", "c"]);
    assert_eq!(good(""), []);
    assert_eq!(good("\n\n"), []);
    assert_eq!(good("# nothing"), []);
}

#[test]
fn the_first_of_two_values_counts() {
    let batch = one("t,a=1,a=2 b=1i,b=2i,a=\"3\",b=true 1\n");
    assert_eq!((shown(&batch, "a"), shown(&batch, "b")), (vec!["1".to_owned()], vec!["1".to_owned()]));
}

#[test]
fn a_tag_without_text_is_none() {
    let batch = one("t,a=,b=x c=1i 1\nt,a=q c=2i 2\n");
    assert_eq!(shown(&batch, "a"), ["-", "q"]);
    assert_eq!(shown(&batch, "b"), ["x", "-"]);
}

#[test]
fn booleans_and_floats_in_all_spellings() {
    let batch = one("b a=t,b=T,c=true,d=True,e=TRUE,f=f,g=F,h=false,i=False,j=FALSE 1\n");
    let row: Vec<String> = "abcdefghij".chars().map(|c| shown(&batch, &c.to_string()).remove(0)).collect();
    assert_eq!(row, ["true", "true", "true", "true", "true", "false", "false", "false", "false", "false"]);
    let batch =
        one("f x=1\nf x=-1.5e-3\nf x=+2\nf x=.5\nf x=1E5\nf x=NaN\nf x=Infinity\nf x=-Infinity\nf x=5.\n");
    assert_eq!(shown(&batch, "x"), ["1.0", "-0.0015", "2.0", "0.5", "100000.0", "NaN", "inf", "-inf", "5.0"]);
    let batch = one(
        "i x=-9223372036854775808i\ni x=9223372036854775807i\ni x=+5i\ni x=0i\ni x=123456789012345678i\n",
    );
    assert_eq!(
        shown(&batch, "x"),
        ["-9223372036854775808", "9223372036854775807", "5", "0", "123456789012345678"]
    );
}

#[test]
fn numbers_beyond_a_double_are_refused_and_not_made_infinite() {
    for number in ["1e400", "-1e400", "1.8e308", &"9".repeat(400), &format!("-{}.5", "9".repeat(310))] {
        let told = fault(format!("f x={number} 1\n"));
        assert!(told.contains("column \"x\"") && told.contains("is beyond what a double holds"), "{told}");
    }
    let batch = one("f x=1.7976931348623157e308\nf x=1e-400\nf x=+inf\nf x=-infinity\n");
    assert_eq!(shown(&batch, "x"), ["1.7976931348623157e308", "0.0", "inf", "-inf"]);
}

#[test]
fn precisions_of_row_timestamps() {
    let stamp = |precision, text: &str| {
        let body = format!("t x=1i {text}\n");
        let read = read_with(precisely(precision), &Known::default(), [body.as_bytes()]);
        match read.batches.first() {
            Some(found) => shown(&found.batch, "timestamp").remove(0),
            None => read.errors[0].message.clone(),
        }
    };
    for (precision, text, nanos) in [
        (Precision::Nanosecond, "1700000000000000001", "1700000000000000001"),
        (Precision::Microsecond, "1700000000000001", "1700000000000001000"),
        (Precision::Millisecond, "1700000000001", "1700000000001000000"),
        (Precision::Second, "-1", "-1000000000"),
        (Precision::Minute, "2", "120000000000"),
        (Precision::Hour, "1", "3600000000000"),
        (Precision::Auto, "4999999999", "4999999999000000000"),
        (Precision::Auto, "4999999999999", "4999999999999000000"),
        (Precision::Auto, "4999999999999999", "4999999999999999000"),
        (Precision::Auto, "5000000000000000", "5000000000000000"),
        (Precision::Second, "1700000000000001t", "1700000000000001000"),
        (Precision::Second, "1700000000000000001n", "1700000000000000001"),
    ] {
        assert_eq!(stamp(precision, text), nanos, "{precision:?} {text}");
    }
    assert!(stamp(Precision::Second, "9223372036854775807").contains("beyond"), "seconds as nanoseconds");
    assert!(stamp(Precision::Hour, "9223372036854775807").contains("out of range"));
    for name in ["n", "ns", "u", "us", "ms", "s", "m", "h", "auto", "second", "millisecond"] {
        assert!(Precision::parse(name).is_ok(), "{name}");
    }
    assert!(Precision::parse("d").is_err());
}

#[test]
fn errors_name_line_byte_table_and_column() {
    for (body, error) in [
        (
            "t x=1 1\nt,a=b y=oops 2\n",
            "line 2, byte 9, table \"t\", column \"y\": \"oops\" is no value: strings stand in quotes",
        ),
        ("t x=1i,y=5z\n", "line 1, byte 10, table \"t\", column \"y\": \"5z\" is no number"),
        ("\n#\nt\n", "line 3, byte 2: the line has no values"),
        ("t \n", "line 1, byte 3, table \"t\": the name of a column is followed by '='"),
        (",a=b x=1\n", "line 1, byte 1: the name of the table is missing"),
        ("t =1\n", "line 1, byte 3, table \"t\": the name of the column is missing"),
        ("t x=\n", "line 1, byte 5, table \"t\", column \"x\": the value is missing"),
        ("t x=1 abc\n", "line 1, byte 7, table \"t\": \"abc\" is no timestamp of 64 bits"),
        ("t x=1 1 2\n", "line 1, byte 9, table \"t\": the line goes on behind its timestamp"),
        (
            "t x=\"a\"b 1\n",
            "line 1, byte 8, table \"t\": a value is followed by a comma, a blank or the line's end",
        ),
        ("t x=\"abc\n", "line 1, byte 10: the body ends within the line"),
        (
            "t x=9223372036854775808i\n",
            "line 1, byte 5, table \"t\", column \"x\": \"9223372036854775808i\" is no integer of 64 bits",
        ),
        (
            "t x=1i\nt x=1.5\n",
            "line 2, byte 5, table \"t\", column \"x\": the lines before have integers in it, the line has a float",
        ),
        (
            "t timestamp=5i\n",
            "line 1, byte 3, table \"t\", column \"timestamp\": the column is the table's designated timestamp, whose value stands at the end of the line",
        ),
    ] {
        assert_eq!(fault(body), error, "{body:?}");
    }
    assert_eq!(fault(b"t,a=\xff x=1\n"), "line 1, byte 5, table \"t\", column \"a\": the text is no UTF-8");
    assert!(fault(b"\xff x=1\n").contains("UTF-8"));
    assert!(fault(b"t \xff=1\n").contains("UTF-8"));
}

#[test]
fn a_refused_line_leaves_no_trace() {
    let read =
        read("t,a=x b=1i 1\nt,a=y,n=z c=1,b=2i,d=\"q\",e=bad 2\nu v=1 x\nt,a=w c=\"now a string\",n=1i 3\n");
    assert_eq!((read.errors.len(), read.rows), (2, 2));
    assert_eq!(read.batches.len(), 1, "no table u");
    let batch = &read.batches[0].batch;
    assert_eq!(shown(batch, "a"), ["x", "w"]);
    assert_eq!(shown(batch, "b"), ["1", "-"]);
    assert_eq!(shown(batch, "c"), ["-", "now a string"]);
    assert_eq!(shown(batch, "n"), ["-", "1"], "no tag n");
    assert!(batch.column_by_name("d").is_none());
    assert_eq!(read.errors[0].original, "t,a=y,n=z c=1,b=2i,d=\"q\",e=bad 2");
    assert_eq!((read.errors[0].line, read.errors[1].line), (2, 3));
}

#[test]
fn what_refused_lines_named_may_come_again_as_something_else() {
    // The same new column under two spellings, gone again; then another one takes its place.
    let body = "t x=1i 1\nt a\\ b=1i,a\\ b=2i,x=\"no\" 2\nt c=\"c\" 3\nt a\\ b=\"text\" 4\nt a\\ b=\"more\",c=\"d\" 5\n";
    let read = read(body);
    assert_eq!((read.errors.len(), read.rows), (1, 4));
    let batch = &read.batches[0].batch;
    assert_eq!(shown(batch, "c"), ["-", "c", "-", "d"]);
    assert_eq!(shown(batch, "a b"), ["-", "-", "text", "more"]);
    let known = Known::with("t", None, &[("x", DataType::Int64)]);
    let read = read_with(
        settings(),
        &known,
        [b"t x=t 1\nt x=f 2\nt y=1i,x=2i 3\nt z=1i,x=t 4\nt z=\"z\" 5".as_slice()],
    );
    assert_eq!((read.errors.len(), read.rows), (3, 2));
    assert_eq!(shown(&read.batches[0].batch, "z"), ["-", "z"]);
}

#[test]
fn bounds_are_kept() {
    let limits = Limits { line_bytes: 40, columns: 2, tables: 2, errors: 3, ..Limits::default() };
    let settings = Settings { limits, ..settings() };
    let long = format!("t x=\"{}\"\n", "a".repeat(100));
    let body = format!("t x=1,y=2,z=3\n{long}t y=5\nu a=1\nv a=1\nt z=4\n# {long}t x=3");
    let read = read_with(settings, &Known::default(), [body.as_bytes()]);
    assert_eq!(read.rows, 3);
    assert_eq!(read.errors.len(), 3, "the rest is counted only");
    assert!(read.errors.iter().all(|e| e.kind == LineErrorKind::Limit), "{:?}", read.errors);
    assert!(read.errors[1].message.contains("longer than 40 bytes"));
    // Columns of all tables together; other ways to write a name are not remembered then, but read.
    let settings = Settings { limits: Limits { names: 3, ..Limits::default() }, ..settings };
    let body = "t x=1\nu x=oops,y=1\nu y=1\nt \\x=2\nt \\\\x=3\nt z=1\nu z=1\nv z=1\nt x=3\n";
    let read = read_with(settings, &Known::default(), [body.as_bytes()]);
    assert_eq!((read.rows, read.errors.iter().map(|e| e.line).collect::<Vec<_>>()), (5, vec![2, 6, 7, 8]));
    assert!(read.errors[3].to_string().contains("column \"z\": the body names more than 3 columns"));
    assert_eq!(shown(&read.batches[0].batch, "\\x"), ["-", "2.0", "3.0", "-"]);
}
