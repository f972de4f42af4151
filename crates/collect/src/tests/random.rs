use tandem_env::Chance;
use tandem_env::sim::SimChance;
use tandem_format::{ObjectName, Pin};
use tandem_manifest::Step;
use tandem_types::{Seq, TableName};

use super::{Db, NOW, append_step, delete_step, run, store};
use crate::Collector;

const TABLES: [&str; 2] = ["t", "u"];

/// Whatever is committed, written, cut and collected, in any order: what is kept stays readable, and what somebody has
/// uploaded is either taken or refused, never taken and gone.
#[test]
fn nothing_that_is_kept_is_deleted() {
    let mut sum = Sum::default();
    for seed in 1..=60 {
        history(seed, &mut sum);
    }
    println!("{sum:?}");
    assert!(
        sum.deleted > 300 && sum.floors > 40 && sum.refused > 15 && sum.restored > 60 && sum.deletes > 60,
        "{sum:?}"
    );
}

#[derive(Debug, Default)]
struct Sum {
    deleted: u64,
    floors: u64,
    refused: u64,
    restored: u64,
    deletes: u64,
}

fn history(seed: u64, sum: &mut Sum) {
    let store = store();
    run(&store, async {
        let dice = SimChance::new(seed);
        let mut db = Db::open(&store).await;
        // Uploaded, and not committed yet; a checkpoint written, and not recorded yet.
        let mut uploaded: Vec<ObjectName> = Vec::new();
        let mut written = None;
        for step in 0..60 {
            let table = TABLES[dice.below(2) as usize];
            let there = db.state.table_named(&TableName::public(table)).is_some();
            let context = format!("seed {seed}, step {step}");
            match dice.below(18) {
                0..=2 => db.append(table, None).await,
                3 => uploaded.push(db.upload().await),
                4 | 5 => {
                    if let Some(segment) = uploaded.pop()
                        && !db.try_commit(append_step(table, Some(segment))).await
                    {
                        sum.refused += 1;
                    }
                }
                6 | 7 if there => {
                    let (replace, _, path) = db.replacement(table);
                    if !replace.parts.is_empty() || !replace.files.is_empty() {
                        db.put(&path).await;
                        // Somebody else may come first, history may be cut meanwhile.
                        if dice.below(3) == 0 {
                            db.append(table, None).await;
                            db.cut(&NOW).await;
                        }
                        db.try_commit(Step::Replace(replace)).await;
                    }
                }
                8 if there => {
                    let name = TableName::public(table);
                    db.commit(Step::DropTable { name, if_exists: false }).await;
                }
                9 => {
                    let start = db.state.history_start().0.max(1);
                    let as_of = Seq(start + dice.below(db.state.seq().0 - start + 1));
                    let past = &db.states[as_of.0 as usize];
                    let found = past.table_named(&TableName::public(table)).map(|t| t.image(as_of));
                    if let Some(image) = found
                        && db.try_commit(Step::RestoreTable { image: Box::new(image), name: None }).await
                    {
                        sum.restored += 1;
                    }
                }
                10 => {
                    db.checkpoint().await;
                }
                11 => match written.take() {
                    None => {
                        written = db.log.write_checkpoint(&db.state, None).await.ok();
                    }
                    Some(one) => {
                        db.try_commit(one.record()).await;
                    }
                },
                12 => {
                    let start = db.state.history_start().0;
                    let seq = Seq(start + dice.below(db.state.seq().0 - start + 1));
                    let pin = Pin {
                        id: format!("p{}", dice.below(3)),
                        seq,
                        store: None,
                        reason: "somebody asks".into(),
                        expires: Some(db.state.age() + dice.below(200_000).cast_signed()),
                    };
                    db.commit(Step::Pin(pin)).await;
                }
                13 => {
                    let segment = if dice.below(2) == 0 { Some(db.upload().await) } else { None };
                    if let Some(step) = delete_step(&db.state, table, segment)
                        && db.try_commit(step).await
                    {
                        sum.deletes += 1;
                    }
                }
                _ => {
                    db.cut(&NOW).await;
                    let before = db.log.floor().await.unwrap();
                    if dice.below(4) == 0 {
                        db.collector = Collector::default();
                    }
                    let there = db.paths().await;
                    let planned = db.collector.survey(&db.log, &db.state, &NOW, &[], |_| {}).await.unwrap();
                    assert_eq!(db.paths().await, there, "{context}: a survey deletes nothing");
                    let done = db.collect(&NOW).await;
                    assert_eq!((&done.garbage, done.deleted), (&planned.garbage, planned.garbage_total()));
                    assert_eq!((done.floor, &done.held), (planned.floor, &planned.held), "{context}");
                    sum.deleted += done.deleted.objects;
                    sum.floors += u64::from(db.log.floor().await.unwrap() > before);
                    db.check(&context).await;
                }
            }
        }
        db.check(&format!("seed {seed}, at the end")).await;
    });
}
