//! States as checkpoints, and back.

use std::collections::HashSet;

use arrow_schema::DataType;
use tandem_format::{
    CheckpointRoot, DataFile, FileName, PartEntry, PartRef, Primary, Replace, SectionPart, decode_part,
    decode_root, encode_part, encode_root,
};
use tandem_types::{Epoch, ErrorKind, Partition};

use super::*;

/// Root and parts through bytes, and the state that they hold.
pub(super) fn reload(state: &Manifest) -> Manifest {
    let (root, parts) = stored(state);
    Manifest::from_checkpoint(&root, parts.into_iter().map(|(_, entries)| Ok(entries))).unwrap()
}

fn stored(state: &Manifest) -> (CheckpointRoot, Vec<(PartRef, Vec<PartEntry>)>) {
    let parts: Vec<(PartRef, Vec<PartEntry>)> = state
        .checkpoint_parts()
        .iter()
        .map(|entries| {
            let (bytes, part) = encode_part(state.seq(), entries).unwrap();
            assert!(bytes.len() <= PART_BYTES, "a part of {} bytes", bytes.len());
            (part, decode_part(&part, &bytes).unwrap())
        })
        .collect();
    let root = state.checkpoint_root(parts.iter().map(|(part, _)| *part).collect());
    let (bytes, _) = encode_root(&root).unwrap();
    (decode_root(&bytes).unwrap().0, parts)
}

/// A table with so many files.
fn many_files(count: i64) -> Log {
    let mut log = Log::new();
    log.must(vec![create("t", &[("ts", TS)])]);
    let partitions: Vec<(i64, u64)> = (0..count).map(|p| (p, 1)).collect();
    let sections = vec![section(1, &partitions, Some(object(Seq(1), 5)))];
    log.must(vec![append_on(log.head(), "t", SchemaPolicy::Strict, &[("ts", TS)], sections)]);
    let all = 0..count;
    log.must(vec![compact(log.head(), all, &[])]);
    log
}

fn compact(state: &Manifest, partitions: std::ops::Range<i64>, files: &[FileName]) -> Step {
    let table = state.require(&name("t")).unwrap();
    let key = table.tail().next().map(|s| s.key);
    let parts =
        partitions.clone().flat_map(|p| key.map(|section| SectionPart { section, partition: Partition(p) }));
    let outputs = partitions.clone().map(|p| DataFile {
        name: FileName { partition: Partition(p), object: object(state.seq(), p as u64) },
        rows: 1,
        size: 100 + p as u64,
        body_end: 50,
        tail_crc32c: 7,
        time: Some((p, p)),
        folded_through: state.seq(),
        level: 0,
    });
    Step::Replace(Replace {
        table: table.id(),
        base: state.seq(),
        files: files.to_vec(),
        parts: parts.collect(),
        outputs: outputs.collect(),
    })
}

#[test]
fn one_changed_file_of_five_thousand_changes_few_parts() {
    let mut log = many_files(5_000);
    let hashes = |state: &Manifest| -> HashSet<[u8; 32]> {
        stored(state).1.into_iter().map(|(part, _)| part.hash).collect()
    };
    let before = hashes(log.head());
    assert!(before.len() >= 2, "{} parts", before.len());
    for partition in [0, 2_500, 4_999] {
        let old =
            log.head().require(&name("t")).unwrap().files().find(|f| f.file.name.partition.0 == partition);
        let old = old.unwrap().file.name;
        let state = log.head().clone();
        log.must(vec![compact(&state, partition..partition + 1, &[old])]);
        let (was, is) = (hashes(&state), hashes(log.head()));
        let fresh = is.difference(&was).count();
        // The part that held the file, its neighbours if a cut moved, and the list of what was removed.
        assert!((1..=4).contains(&fresh), "{fresh} of {} parts are new", is.len());
    }
}

#[test]
fn many_small_tables_share_their_parts() {
    let mut log = Log::new();
    for chunk in 0..5 {
        let steps = (0..100).map(|i| {
            let fields = [("ts", TS)];
            let sections = vec![section(1, &[(1, 5)], None)];
            append_on(log.head(), &format!("t{chunk}_{i}"), SchemaPolicy::Create, &fields, sections)
        });
        let steps = steps.collect();
        log.must(steps);
    }
    assert!(log.head().checkpoint_parts().len() < 10, "{} parts", log.head().checkpoint_parts().len());
    assert_eq!(reload(log.head()).digest(), log.head().digest());
}

#[test]
fn whatever_a_root_says_otherwise_is_found() {
    let mut log = many_files(3);
    let tokened = Intent {
        token: token(1, 1, 1, 0),
        ..log.intent(vec![
            add("t", "v", DataType::Int32),
            Step::CreateSchema { name: "lab".into(), if_not_exists: false },
        ])
    };
    assert!(log.commit(&[tokened])[0].stands());
    let (node_id, address) = ("a".to_owned(), "http://a:1".to_owned());
    let primary = Some(Primary { node_id: node_id.clone(), address: address.clone() });
    log.must(vec![
        Step::Checkpoint { seq: Seq(2), root_hash: [3; 32], after: None },
        Step::Promote { epoch: Epoch(1), primary },
        Step::Lease { holder: node_id, address, term: 1 },
    ]);
    let client = Intent {
        token: foreign("x", None),
        ..log.intent(vec![Step::CreateSchema { name: "other".into(), if_not_exists: false }])
    };
    assert!(log.commit(&[client])[0].stands());
    let (root, parts) = stored(log.head());
    let load = |root: &CheckpointRoot, parts: &[(PartRef, Vec<PartEntry>)]| {
        Manifest::from_checkpoint(root, parts.iter().map(|(_, entries)| Ok(entries.clone())))
    };
    assert_eq!(load(&root, &parts).unwrap().checkpoint(), Some((Seq(2), [3; 32])));
    type Edit = fn(&mut CheckpointRoot);
    let edits: [(&str, Edit); 14] = [
        ("seq", |r| r.seq = Seq(99)),
        ("database", |r| r.database = DatabaseId(99)),
        ("header hash", |r| r.header_hash[5] ^= 1),
        ("commit time", |r| r.commit_time += 1),
        ("age", |r| r.age += 1),
        ("next table", |r| r.next_table = r.next_table.next()),
        ("token floor", |r| r.token_floor = Seq(1)),
        ("recorded", |r| r.recorded = None),
        ("primary", |r| r.primary = None),
        ("lease", |r| r.lease.as_mut().unwrap().term += 1),
        ("schemas", |r| r.schemas.push("more".into())),
        ("settings", |r| r.settings.push(("a".into(), "b".into()))),
        ("table", |r| r.tables[0].def.options.push(("a".into(), "b".into()))),
        ("next column", |r| r.tables[0].next_column = r.tables[0].next_column.next()),
    ];
    for (what, edit) in edits {
        let mut wrong = root.clone();
        edit(&mut wrong);
        assert_eq!(load(&wrong, &parts).unwrap_err().kind(), ErrorKind::Damaged, "{what}");
    }
    for missing in 0..parts.len() {
        let mut fewer = parts.clone();
        fewer.remove(missing);
        assert_eq!(load(&root, &fewer).unwrap_err().kind(), ErrorKind::Damaged, "part {missing}");
    }
}

#[test]
fn the_digest_of_a_state_is_frozen() {
    let mut log = many_files(3);
    let old = log.head().require(&name("t")).unwrap().files().next().unwrap().file.name;
    let state = log.head().clone();
    log.must(vec![compact(&state, 0..1, &[old])]);
    let tokened = Intent {
        token: token(1, 1, 1, 0),
        digest: vec![1, 2],
        ..log.intent(vec![
            Step::CreateSchema { name: "lab".into(), if_not_exists: false },
            Step::SetSettings { settings: vec![("checkpoint_commits".into(), Some("5".into()))] },
            append_on(
                log.head(),
                "t",
                SchemaPolicy::Add,
                &[("ts", TS), ("v", DataType::Int32)],
                vec![section(2, &[(1, 5)], None)],
            ),
        ])
    };
    assert!(log.commit(&[tokened])[0].stands());
    assert_eq!(
        format!("{:032x}", log.head().digest()),
        "de26026201f6fc441d69ab1df2ad0fb5",
        "the digest of one and the same state changed. Roots of checkpoints out there hold the old one: a node of this \
         version would call them damaged. Hash the entries as before, or raise FORMAT_VERSION and keep the old way for \
         old roots. If the bytes of Arrow schemas changed with arrow-ipc, tandem-format's golden tests say so as well."
    );
}

#[test]
fn a_checkpoint_is_recorded_only_on_top_of_the_one_that_it_goes_on_from() {
    let mut log = many_files(3);
    let begun = log.head().seq();
    let checkpoint = |seq, hash, after| Step::Checkpoint { seq, root_hash: [hash; 32], after };
    // Two nodes write one each, of different states, at the same time.
    log.must(vec![checkpoint(Seq(2), 2, None)]);
    match log.run(vec![checkpoint(begun, 3, None)]) {
        Fate::Refused(error) => assert_eq!(error.kind(), ErrorKind::Serialization),
        other => panic!("{other:?}"),
    }
    log.must(vec![checkpoint(begun, 3, Some((Seq(2), [2; 32])))]);
    assert_eq!(log.head().checkpoint(), Some((begun, [3; 32])));
    // The older one comes late: what was wanted is there.
    assert_eq!(log.run(vec![checkpoint(Seq(2), 2, None)]), Fate::NoOp);
}
