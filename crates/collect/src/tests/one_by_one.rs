use std::time::Duration;

use tandem_format::{Pin, commit_path, data_path, floor_path, root_path, segment_path};
use tandem_manifest::Step;
use tandem_types::{ErrorKind, PartitionUnit, Seq, TableName};

use super::{Db, NOW, listed_as_removed, run, store};
use crate::{Lease, Rules, Verdict};

#[test]
fn what_nobody_names_goes_once_the_horizon_has_passed_it() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let orphan = segment_path(&db.upload().await);
        let used = db.upload().await;
        db.append("t", Some(used)).await;
        db.put("wal/notes.txt").await;
        db.put("data/7/all/README").await;
        assert_eq!(db.collect(&NOW).await.deleted.objects, 0, "there is no horizon");
        db.checkpoint().await;
        let slow = segment_path(&db.upload().await);
        assert!(db.cut(&NOW).await);
        let late = segment_path(&db.upload().await);
        let report = db.collect(&NOW).await;
        let paths = db.paths().await;
        assert!(!paths.contains(&orphan) && paths.contains(&segment_path(&used)));
        assert!(paths.contains(&slow) && paths.contains(&late), "somebody may be about to commit it");
        assert!(paths.contains("wal/notes.txt") && paths.contains("data/7/all/README"), "nobody's to delete");
        assert_eq!((report.deleted.objects, report.deleted.bytes), (1, orphan.len() as u64));
        db.check("after one horizon").await;
    });
}

#[test]
fn what_was_replaced_goes_once_history_has_passed_it() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let segment = db.upload().await;
        db.append("t", Some(segment)).await;
        let first = db.compact("t").await;
        let old = data_path(db.table("t"), PartitionUnit::None, &first);
        db.checkpoint().await;
        db.append("t", None).await;
        db.compact("t").await;
        assert_eq!(listed_as_removed(&db.state), 1);
        assert!(db.cut(&NOW).await);
        db.collect(&NOW).await;
        let paths = db.paths().await;
        assert!(!paths.contains(&segment_path(&segment)), "replaced before history begins");
        assert!(paths.contains(&old), "the first kept snapshot names it");
        db.check("once").await;

        db.checkpoint().await;
        assert!(db.cut(&NOW).await);
        let mut seen = Vec::new();
        let planned = db
            .collector
            .survey(&db.log, &db.state, &NOW, &[], |judged| seen.push(judged.clone()))
            .await
            .unwrap();
        let judged = seen.iter().find(|judged| judged.path == old).unwrap();
        assert_eq!(judged.verdict, Verdict::Garbage);
        assert!(db.paths().await.contains(&old), "a survey deletes nothing");
        let report = db.collect(&NOW).await;
        assert_eq!(report.deleted, planned.garbage_total());
        assert_eq!((report.garbage, report.floor), (planned.garbage, planned.floor));
        assert!(!db.paths().await.contains(&old));
        db.check("twice").await;
    });
}

#[test]
fn the_log_and_its_checkpoints_are_trimmed_behind_history() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let mut checkpoints = Vec::new();
        for n in 0..6 {
            for _ in 0..5 {
                db.append("t", None).await;
            }
            db.compact("t").await;
            checkpoints.push(db.checkpoint().await.seq);
            assert!(db.cut(&NOW).await);
            db.collect(&NOW).await;
            db.check(&format!("round {n}")).await;
        }
        let paths = db.paths().await;
        let there: Vec<bool> = checkpoints.iter().map(|seq| paths.contains(&root_path(*seq))).collect();
        assert_eq!(there, [false, false, false, false, true, true], "two, in case one is damaged");
        let floor = db.log.floor().await.unwrap();
        assert_eq!(floor, checkpoints[4]);
        for seq in 1..=db.state.seq().0 {
            assert_eq!(
                paths.contains(&commit_path(Seq(seq))),
                Seq(seq) > floor,
                "commit {seq}, floor {floor}"
            );
        }
        let parts = paths.iter().filter(|path| path.starts_with("checkpoint/part/")).count();
        assert!(parts <= 10, "{parts} parts");
        // Where nothing happens, nothing is done.
        let calls = store.trace().len();
        let report = db.collect(&NOW).await;
        assert_eq!((report.deleted.objects, report.floor), (0, floor));
        assert!(store.trace().len() - calls < 12, "{}", store.trace().len() - calls);
        assert!(paths.contains(&floor_path(1)));
    });
}

#[test]
fn rows_that_lie_in_commits_hold_the_log() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        db.append("busy", None).await;
        db.append("idle", None).await;
        let rows = db.state.seq();
        for _ in 0..4 {
            db.append("busy", None).await;
            db.compact("busy").await;
            db.checkpoint().await;
            db.cut(&NOW).await;
            db.collect(&NOW).await;
            db.check("with rows in an old commit").await;
        }
        assert_eq!(db.log.floor().await.unwrap(), Seq(rows.0 - 1));
        db.compact("idle").await;
        db.checkpoint().await;
        db.cut(&NOW).await;
        db.collect(&NOW).await;
        // History begins where they were compacted already.
        let first = db.checkpoint().await.seq;
        db.cut(&NOW).await;
        db.collect(&NOW).await;
        db.check("at last").await;
        let floor = db.log.floor().await.unwrap();
        assert!(floor > rows && floor < first, "{floor}");
    });
}

#[test]
fn the_window_the_grace_pins_and_leases_hold_back_and_are_named() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let window = ("history_window".to_owned(), Some("1h".to_owned()));
        db.commit(Step::SetSettings { settings: vec![window] }).await;
        let hour = Duration::from_secs(3600);
        let minute = Duration::from_secs(60);
        let rules = Rules { job: 30 * minute, grace: 2 * hour };
        let segment = db.upload().await;
        let orphan = segment_path(&db.upload().await);
        db.append("t", Some(segment)).await;
        db.compact("t").await;
        let old = db.state.seq();
        db.checkpoint().await;
        // Age grows by ten minutes a commit, at most.
        let pass = async |db: &mut Db, minutes: u32| {
            for _ in 0..minutes / 10 {
                db.wait(10 * minute);
                db.append("t", None).await;
            }
        };
        pass(&mut db, 40).await;
        assert!(db.cut(&rules).await);
        assert_eq!((db.state.horizon(), db.state.history_start()), (old, Seq(0)), "the window is longer");
        let verdict = async |db: &mut Db, leases: &[Lease], path: &str| {
            let mut found = None;
            let see = |judged: &crate::Judged| {
                if judged.path == path {
                    found = Some(judged.verdict.clone());
                }
            };
            let report = db.collector.survey(&db.log, &db.state, &rules, leases, see).await.unwrap();
            (found.unwrap(), report)
        };
        let replaced = segment_path(&segment);
        assert_eq!(verdict(&mut db, &[], &orphan).await.0, Verdict::Grace);
        let removed = old;
        let held = |held_by: Option<&str>| Verdict::History { removed, held_by: held_by.map(str::to_owned) };
        assert_eq!(verdict(&mut db, &[], &replaced).await.0, held(None));

        // What was pinned while it was kept stays, window or not.
        let expires = Some(db.state.age() + 40 * 60_000_000);
        let pin = Pin {
            id: "lease-n1".into(),
            seq: Seq(old.0 - 1),
            store: None,
            reason: "a query of n1".into(),
            expires,
        };
        db.commit(Step::Pin(pin)).await;
        pass(&mut db, 30).await;
        assert!(!db.cut(&rules).await || db.state.history_start() < old);
        let (found, report) = verdict(&mut db, &[], &replaced).await;
        assert_eq!(found, held(Some("pin lease-n1")));
        assert_eq!((report.held_by.as_deref(), report.by_window), (Some("pin lease-n1"), old));
        // A pin ends by the log's age.
        pass(&mut db, 20).await;
        let lease = [Lease { seq: Seq(old.0 - 1), holder: "node n2".to_owned() }];
        let aim = db.collector.aim(&db.log, &db.state, &rules, &lease).await.unwrap();
        assert_eq!((aim.history_start, aim.held_by.as_deref()), (Seq(old.0 - 1), Some("node n2")));
        assert!(db.cut(&rules).await);
        assert_eq!(db.state.history_start(), old);
        assert_eq!(db.state.pins().count(), 0, "what has expired is forgotten");
        assert_eq!(verdict(&mut db, &[], &orphan).await.0, Verdict::Grace);
        db.wait(2 * hour);
        assert_eq!(verdict(&mut db, &[], &orphan).await.0, Verdict::Garbage);
        db.collect(&rules).await;
        let paths = db.paths().await;
        assert!(!paths.contains(&orphan) && !paths.contains(&replaced));
        db.check("in the end").await;
    });
}

#[test]
fn where_a_checkpoint_is_damaged_nothing_of_the_log_is_deleted() {
    for damaged in 0..3 {
        let store = store();
        run(&store, async {
            let mut db = Db::open(&store).await;
            let mut checkpoints = Vec::new();
            for _ in 0..3 {
                db.append("t", None).await;
                db.compact("t").await;
                checkpoints.push(db.checkpoint().await.seq);
            }
            db.cut(&NOW).await;
            let path = root_path(checkpoints[damaged]);
            {
                use object_store::ObjectStoreExt;
                store.put(&path.as_str().into(), b"garbage".to_vec().into()).await.unwrap();
            }
            let orphan = segment_path(&db.upload().await);
            let collected = db.collector.collect(&db.log, &db.state, &NOW, &[]).await;
            // One that nobody needs may be damaged.
            match collected {
                Ok(_) => assert!(db.log.floor().await.unwrap() <= checkpoints[damaged] || damaged == 0),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "{e}"),
            }
            let paths = db.paths().await;
            assert!(paths.contains(&orphan));
            if damaged > 0 {
                assert!(paths.contains(&commit_path(Seq(1))), "{damaged}");
                assert!(checkpoints.iter().all(|seq| paths.contains(&root_path(*seq))), "{damaged}");
            }
            let recovered = db.log.recover().await.unwrap();
            assert_eq!(recovered.manifest.digest(), db.state.digest());
        });
    }
}

/// Whoever wrote the checkpoint in the end began it with one that was recorded at that time, and that the newest ones
/// passed by: each had been begun before the other was recorded. Nodes do not record such ones any more; logs may have them.
#[test]
fn a_checkpoint_that_others_passed_by_stays_for_those_who_began_with_it() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        db.append("t", None).await;
        db.compact("t").await;
        db.checkpoint().await;
        db.append("t", None).await;
        db.compact("t").await;
        let early = db.state.clone();
        db.append("u", None).await;
        let slow = db.state.clone();
        let record = async |db: &mut Db, written: tandem_log::WrittenCheckpoint| {
            let after = db.state.checkpoint();
            db.commit(Step::Checkpoint { after, seq: written.seq, root_hash: written.root_hash }).await;
        };
        let written = db.log.write_checkpoint(&early, None).await.unwrap();
        record(&mut db, written).await;
        db.append("u", None).await;
        let newest = db.log.write_checkpoint(&db.state, None).await.unwrap();
        let written = db.log.write_checkpoint(&slow, None).await.unwrap();
        record(&mut db, written).await;
        db.append("u", None).await;
        assert!(db.cut(&NOW).await);
        db.collect(&NOW).await;
        db.check("between").await;
        let seq = newest.seq;
        record(&mut db, newest).await;
        let (loaded, _) = db.log.load_checkpoint(seq).await.expect("what it shares is there");
        assert_eq!(loaded.digest(), db.states[seq.0 as usize].digest());
        db.check("in the end").await;
    });
}

/// A replica that has slept, or stands behind.
#[test]
fn who_is_too_far_behind_is_told_so_and_starts_over() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        db.append("t", None).await;
        let behind = tandem_log::Log::open(tandem_env::sim::join(&store, 3)).await.unwrap();
        let applied = behind.recover().await.unwrap().manifest;
        let segment = db.upload().await;
        db.append("t", Some(segment)).await;
        let present = db.state.clone();
        for _ in 0..4 {
            db.compact("t").await;
            db.append("t", None).await;
            db.checkpoint().await;
            db.cut(&NOW).await;
            db.collect(&NOW).await;
        }
        assert!(db.log.floor().await.unwrap() > present.seq());
        let gone = behind.read_run(applied.seq(), 100).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
        let gone = behind.read_payload(applied.seq()).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::HistoryGone, "{gone}");
        let again = behind.recover().await.unwrap().manifest;
        assert_eq!((again.seq(), again.digest()), (db.state.seq(), db.state.digest()));
        let past = behind.state_at(present.seq(), None).await.unwrap_err();
        assert!(past.kind() != ErrorKind::Damaged, "{past}");
    });
}

/// Uploads that are not committed yet when history is cut.
#[test]
fn who_took_too_long_has_to_upload_again() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        db.append("t", None).await;
        let slow = db.upload().await;
        let (replace, _, path) = db.replacement("t");
        db.put(&path).await;
        let quick = db.upload().await;
        let restored = db.upload().await;
        db.append("u", Some(restored)).await;
        let image = db.state.table_named(&TableName::public("u")).unwrap().image(db.state.seq());
        db.commit(Step::DropTable { name: TableName::public("u"), if_exists: false }).await;
        db.append("v", Some(quick)).await;
        db.checkpoint().await;
        // Committed at the last moment, deleted or not: whoever deletes has seen either.
        let base = db.state.seq();
        db.append("t", None).await;
        assert!(db.cut(&NOW).await && db.state.horizon() <= base);
        assert!(!db.try_commit(super::append_step("t", Some(slow))).await);
        assert!(!db.try_commit(Step::Replace(replace)).await);
        let back = Step::RestoreTable { image: Box::new(image), name: None };
        assert!(!db.try_commit(back).await, "its past is gone");
        db.collect(&NOW).await;
        let paths = db.paths().await;
        for gone in [segment_path(&slow), path, segment_path(&restored)] {
            assert!(!paths.contains(&gone), "{gone}");
        }
        assert!(paths.contains(&segment_path(&quick)));
        db.check("with what is in time").await;
    });
}

/// One node's clock is years ahead: the log's age follows it by ten minutes a commit, and with many commits gets there.
#[test]
fn a_clock_that_is_ahead_deletes_no_history() {
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let hour = Duration::from_secs(3600);
        let window = ("history_window".to_owned(), Some("1d".to_owned()));
        db.commit(Step::SetSettings { settings: vec![window] }).await;
        let segment = db.upload().await;
        let orphan = segment_path(&db.upload().await);
        db.append("t", Some(segment)).await;
        db.compact("t").await;
        db.checkpoint().await;
        let rules = Rules { job: 6 * hour, grace: hour };
        db.clock_ahead = 10_000 * hour;
        for _ in 0..200 {
            db.append("t", None).await;
        }
        db.checkpoint().await;
        let pushed = db.state.age() - db.log.env().clock.now_micros();
        assert!(pushed > 24 * 3_600_000_000, "{pushed}");
        assert!(!db.cut(&rules).await, "{} {}", db.state.horizon(), db.state.history_start());
        db.collect(&rules).await;
        assert!(db.paths().await.contains(&orphan));
        // With time it is cut nevertheless.
        db.clock_ahead = Duration::ZERO;
        db.wait(30 * hour);
        db.append("t", None).await;
        assert!(db.cut(&rules).await);
        db.collect(&rules).await;
        let paths = db.paths().await;
        assert!(!paths.contains(&orphan) && !paths.contains(&segment_path(&segment)));
        db.check("in the end").await;
    });
}

/// A store may answer wrongly for a moment. What was known of the other checkpoints is known afterwards.
#[test]
fn a_checkpoint_that_cannot_be_read_for_a_moment_costs_the_others_nothing() {
    use object_store::ObjectStoreExt;
    let store = store();
    run(&store, async {
        let mut db = Db::open(&store).await;
        let mut checkpoints = Vec::new();
        for n in 0..5 {
            db.append("t", None).await;
            db.compact("t").await;
            checkpoints.push(db.checkpoint().await.seq);
            if n == 1 {
                let (id, seq) = ("p".to_owned(), db.state.seq());
                db.commit(Step::Pin(Pin { id, seq, store: None, reason: "a reader".into(), expires: None }))
                    .await;
            }
            db.collect(&NOW).await;
        }
        db.append("t", None).await;
        let newest = db.checkpoint().await.seq;
        let path = object_store::path::Path::from(root_path(newest));
        let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
        store.put(&path, b"garbage".to_vec().into()).await.unwrap();
        db.collect(&NOW).await;
        store.put(&path, whole.into()).await.unwrap();
        assert!(db.cut(&NOW).await);
        db.collect(&NOW).await;
        db.check("afterwards").await;
        for seq in &checkpoints[1..] {
            db.log.load_checkpoint(*seq).await.expect("its parts are there");
        }
    });
}
