//! What tables ask of lines beside their types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tandem_lines::{Catalog, KnownTable, LineErrorKind, Parser, Rules, Settings};

/// One table, `t`, with these rules; others do not exist, and have them as well.
struct Ruled(Rules);

impl Catalog for Ruled {
    fn table(&self, name: &str) -> Option<KnownTable> {
        let tag = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let columns = [
            ("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
            ("host", tag.clone()),
            ("dc", tag),
            ("v", DataType::Int64),
            ("small", DataType::Int16),
            ("byte", DataType::UInt8),
            ("real", DataType::Float32),
        ];
        let fields: Vec<Field> = columns.into_iter().map(|(name, t)| Field::new(name, t, true)).collect();
        (name == "t")
            .then(|| KnownTable { timestamp: Some("ts".to_owned()), columns: Arc::new(Schema::new(fields)) })
    }

    fn rules(&self, _: &str) -> Rules {
        self.0.clone()
    }
}

/// Rows that were taken, errors as people read them, and what was kept aside: its column and line.
fn read(rules: Rules, body: &str) -> (u64, Vec<String>, Vec<(String, String)>) {
    let mut parser = Parser::new(Settings::default(), Arc::new(Ruled(rules)));
    let mut aside = Vec::new();
    // In pieces, so that lines are cut.
    for piece in body.as_bytes().chunks(7) {
        parser.feed(piece).unwrap();
        aside.extend(parser.take_diverted());
    }
    parser.finish().unwrap();
    aside.extend(parser.take_diverted());
    let errors = parser.errors().iter().map(ToString::to_string).collect();
    (parser.rows(), errors, aside.into_iter().map(|line| (line.column, line.line)).collect())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn columns_that_are_never_null_have_a_value_in_each_line() {
    let rules = Rules { required: names(&["host", "v"]), ..Rules::default() };
    let body = "t,host=a v=1i 1\nt v=2i 2\nt,host=b x=1i 3\nt,host= v=4i 4\nt,host=a v=5i 5\nt,host=a,host=b v=6i 6\n";
    let (rows, errors, _) = read(rules.clone(), body);
    assert_eq!(rows, 3);
    let about: Vec<_> = errors.iter().map(|error| error.split(", byte").next().unwrap()).collect();
    assert_eq!(about, ["line 2", "line 3", "line 4"], "{errors:?}");
    assert!(errors[0].contains("column \"host\": the column is NOT NULL"), "{errors:?}");
    assert!(errors[1].contains("column \"v\""), "{errors:?}");
    // The same lines over and over, so that they are known by then.
    let (rows, errors, _) = read(rules, &"t,host=a v=1i 1\nt,dc=x v=2i 2\n".repeat(50));
    assert_eq!((rows, errors.len()), (50, 50));
}

#[test]
fn other_tags_than_those_of_the_key_are_refused() {
    let rules = Rules { tags: Some(names(&["host"])), ..Rules::default() };
    let body = "t,host=a v=1i 1\nt,host=a,dc=x v=1i 2\nt,rack=r v=1i 3\nt,host=b v=2i,note=\"x\" 4\n";
    let (rows, errors, _) = read(rules.clone(), body);
    assert_eq!(rows, 2);
    assert!(
        errors[0].starts_with("line 2, byte 10, table \"t\", column \"dc\": the tag is not in"),
        "{errors:?}"
    );
    assert!(errors[1].starts_with("line 3, byte 3, table \"t\", column \"rack\""), "{errors:?}");
    let (rows, errors, _) = read(rules.clone(), &"t,host=a,dc=x v=1i 2\nt,host=a v=1i 2\n".repeat(50));
    assert_eq!((rows, errors.len()), (50, 50));
    // Whatever a field of that name did before.
    let (rows, errors, _) = read(rules, "t,host=a dc=\"x\" 1\nt,host=a,dc=x v=1i 2\n");
    assert_eq!(rows, 1);
    assert!(errors[0].starts_with("line 2, byte 10, table \"t\", column \"dc\""), "{errors:?}");
}

#[test]
fn fixed_columns_are_not_added_to() {
    let rules = Rules { fixed: true, ..Rules::default() };
    let (rows, errors, _) = read(rules, "t v=1i 1\nt v=1i,w=2i 2\nu v=1i 3\nt,host=a v=1i 4\n");
    assert_eq!(rows, 2);
    assert!(errors[0].contains("column \"w\": the table has no such column"), "{errors:?}");
    assert!(errors[1].contains("table \"u\", column \"v\": the table does not exist"), "{errors:?}");
}

#[test]
fn tables_that_lines_conflict_with_are_told_though_the_lines_are_not_listed() {
    let mut parser = Parser::new(Settings::default(), Arc::new(Ruled(Rules::default())));
    let malformed = "t v=oops 1\n".repeat(Settings::default().limits.errors);
    parser.feed(format!("{malformed}t v=\"x\" 1\nu a=1i 1\nu a=t 1\nw a=oops 1\n").as_bytes()).unwrap();
    parser.finish().unwrap();
    assert!(parser.errors().iter().all(|error| error.kind == LineErrorKind::Malformed));
    assert_eq!(parser.conflicts().iter().collect::<Vec<_>>(), ["t", "u"]);
    assert!(parser.held() > 0, "columns have names");
}

#[test]
fn fixed_columns_are_not_widened() {
    let body = "t small=7i,byte=8u,real=1.5 1\nt small=40000i 2\nt byte=256u 3\nt byte=-1i 4\nt real=0.1 5\n\
        t small=-32768i,byte=255i,real=2i 6\nt real=16777217i 7\nt small=65535u 8\nt real=NaN 9\n";
    let fixed = Rules { fixed: true, ..Rules::default() };
    let (rows, errors, _) = read(fixed.clone(), body);
    assert_eq!((rows, errors.len()), (3, 6), "{errors:?}");
    assert_eq!(
        errors[0],
        "line 2, byte 9, table \"t\", column \"small\": the column is Int16, the line has an integer, and this one does \
         not fit without loss"
    );
    // The same columns over and over, so that they are expected by then.
    let (rows, errors, _) =
        read(fixed.clone(), &"t small=1i,real=1 1\nt small=40000i,real=0.1 2\n".repeat(50));
    assert_eq!((rows, errors.len()), (50, 50));
    let (rows, errors, aside) = read(Rules { divert: true, ..fixed }, body);
    assert_eq!((rows, errors.len(), aside.len()), (3, 0, 6), "{errors:?}");
    let (rows, errors, _) = read(Rules::default(), body);
    assert_eq!((rows, errors.len()), (8, 1), "else all but the negative one widen their columns");
}

#[test]
fn values_of_a_wrong_type_are_kept_aside() {
    let rules = Rules { divert: true, ..Rules::default() };
    let body =
        "t v=1i 1\nt,host=a v=\"te\nxt\" 2\nu v=1i 3\nu w=1i,v=t 4\nt v=oops 5\nt v=1i,v=2 6\nu v=2i 7";
    let (rows, errors, aside) = read(rules, body);
    let line = |column: &str, line: &str| (column.to_owned(), line.to_owned());
    assert_eq!(aside, [line("v", "t,host=a v=\"te\nxt\" 2"), line("v", "u w=1i,v=t 4")]);
    assert_eq!(rows, 4, "a line end within a text is one of the text, and a column's first value counts");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("line 5, byte 5"), "{errors:?}");
    for (line, stamped) in [
        ("t v=\"x\" 5", true),
        ("t v=\"x\" 5t\r", true),
        ("t,v=x 5", true),
        ("t v=\"x\"", false),
        ("t v=\"x 5\"", false),
        // The blank is one of the text.
        ("t,v=x\\ 5", false),
    ] {
        let mut parser =
            Parser::new(Settings::default(), Arc::new(Ruled(Rules { divert: true, ..Rules::default() })));
        parser.feed(format!("t v=1i 1\n{line}\n").as_bytes()).unwrap();
        parser.finish().unwrap();
        assert_eq!((parser.take_diverted().len(), parser.all_stamped()), (1, stamped), "{line}");
    }
}
