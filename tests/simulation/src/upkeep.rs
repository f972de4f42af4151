//! What nodes do unasked: compaction and checkpoints, several of them at once.

use std::sync::Arc;

use tandem_compact::{Job, Policy, Urgency, next_jobs};
use tandem_env::Mutant;
use tandem_format::{DataFile, FileName, ObjectName, Replace, data_path, segment_path};
use tandem_manifest::{Manifest, Step, Table};
use tandem_types::{Error, ErrorKind, Result};

use crate::check::is_definite;
use crate::node::Process;
use crate::plan::Flavour;
use crate::rows::{self, Row};
use crate::world::World;

pub async fn upkeep(world: Arc<World>, process: Arc<Process>) {
    while process.writer.is_running() {
        let hard = world.plan.flavour == Flavour::Trimmed;
        let wait = world.millis(100, if hard { 700 } else { 4000 });
        process.env.clock.sleep(wait).await;
        if process.writer.role().is_replica() || world.is_calm() {
            continue;
        }
        let began = process.writer.state();
        // Whatever fails is tried again later, or was done by somebody else.
        let done = match world.below(if hard { 2 } else { 4 }) {
            0 => checkpoint(&process).await,
            _ => compact(&world, &process).await,
        };
        let spoilt = world.plan.damage > 0;
        match done {
            Err(e) if e.kind() == ErrorKind::Damaged && !spoilt && !is_late(&world, &began) => {
                world.blame("I9", format!("upkeep of node {}: {e}", process.node));
            }
            Err(e) if e.kind() == ErrorKind::Internal => {
                world.blame("I17", format!("upkeep of node {}: {e}", process.node));
            }
            _ => {}
        }
    }
}

/// Whether history was cut further than a node knew when it began: then what it looks for may be gone.
fn is_late(world: &World, state: &Manifest) -> bool {
    let truth = world.truth();
    truth.state(truth.head()).is_some_and(|head| {
        (head.horizon(), head.history_start()) != (state.horizon(), state.history_start())
    })
}

pub async fn checkpoint(process: &Process) -> Result<()> {
    let state = process.writer.state();
    if state.seq().0 == 0 || state.checkpoint().is_some_and(|(seq, _)| seq.next() == state.seq()) {
        return Ok(());
    }
    let kept = process.checkpoint.lock().unwrap().clone();
    let previous = kept.filter(|p| state.checkpoint() == Some((p.seq, p.root_hash)));
    let written = process.log.write_checkpoint(&state, previous.as_ref()).await?;
    let step = written.record();
    process.writer.submit_upkeep(state.seq(), vec![step]).await?;
    *process.checkpoint.lock().unwrap() = Some(written);
    Ok(())
}

pub async fn compact(world: &World, process: &Process) -> Result<()> {
    let policy = Policy {
        tail_rows: 6,
        tail_bytes: 1 << 20,
        tail_sections: 3,
        fan_in: 3,
        job_bytes: 1 << 20,
        ..Policy::default()
    };
    let state = process.writer.state();
    let urgency = if world.below(3) == 0 { Urgency::Everything(state.seq()) } else { Urgency::Usual };
    let tables: Vec<&Table> = state.tables().collect();
    let Some(table) = tables.get(world.below(tables.len() as u64) as usize) else { return Ok(()) };
    let jobs = next_jobs(table, &policy, urgency);
    if jobs.is_empty() {
        return Ok(());
    }
    let mut replace = Replace {
        table: table.id(),
        base: state.seq(),
        files: Vec::new(),
        parts: Vec::new(),
        outputs: Vec::new(),
    };
    for job in jobs {
        let output = merge(process, &state, table, &job).await?;
        replace.files.extend(job.files);
        replace.parts.extend(job.parts);
        replace.outputs.push(output);
    }
    // Others may come first.
    let wait = world.millis(0, 300);
    process.env.clock.sleep(wait).await;
    submit(world, process, replace).await
}

async fn submit(world: &World, process: &Process, replace: Replace) -> Result<()> {
    let answer = process.writer.submit_upkeep(replace.base, vec![Step::Replace(replace.clone())]).await;
    match answer {
        Ok(_) => {
            if !replace.outputs.iter().all(|file| world.truth().naive.has_file(&file.name)) {
                world.blame("I1", format!("node {} compacted, and the log has nothing of it", process.node));
            }
            Ok(())
        }
        Err(e) if is_definite(e.kind()) => {
            if e.kind() == ErrorKind::Serialization && process.env.mutant(Mutant::GoneInputsDropped) {
                let rest = rest_of(replace, &process.writer.state());
                if !rest.files.is_empty() || !rest.parts.is_empty() {
                    process.writer.submit_upkeep(rest.base, vec![Step::Replace(rest)]).await?;
                }
                return Err(e);
            }
            let mut truth = world.truth();
            let committed = replace.outputs.iter().find(|file| truth.naive.has_file(&file.name)).cloned();
            truth.naive.refused_files.extend(replace.outputs.iter().map(|file| file.name));
            drop(truth);
            if let Some(file) = committed {
                world.blame(
                    "I8",
                    format!("a compaction was refused ({e}), and its {:?} is committed", file.name),
                );
            }
            Err(e)
        }
        Err(e) => Err(e),
    }
}

/// What is left of a compaction's inputs.
fn rest_of(mut replace: Replace, state: &Manifest) -> Replace {
    let table = state.table(replace.table);
    replace.files.retain(|file| table.is_some_and(|t| t.file(file).is_some()));
    replace.parts.retain(|part| {
        let section = table.and_then(|t| t.tail_section(&part.section));
        section.is_some_and(|section| section.live.contains(&part.partition))
    });
    replace
}

/// Reads a job's rows and writes them into one file.
async fn merge(process: &Process, state: &Manifest, table: &Table, job: &Job) -> Result<DataFile> {
    let store = &process.env.store;
    let mut rows: Vec<Row> = Vec::new();
    for part in &job.parts {
        let section = table.tail_section(&part.section).ok_or_else(|| Error::internal("a part is gone"))?;
        let segment = section.section.segment.ok_or_else(|| Error::internal("rows ride along"))?;
        let bytes = store.get_range(&segment_path(&segment), 0..section.section.len).await?;
        rows.extend(rows::decode(&bytes).into_iter().filter(|(partition, _)| *partition == job.partition));
    }
    for file in &job.files {
        let path = data_path(table.id(), table.partition_by(), file);
        let bytes = store.get(&path).await?.ok_or_else(|| Error::damaged(format!("{path} is missing")))?;
        rows.extend(rows::decode(&bytes));
    }
    let object =
        ObjectName { base: state.seq(), writer: process.writer.id(), random: process.env.chance.next_u64() };
    let name = FileName { partition: job.partition, object };
    let bytes = rows::encode(&rows);
    let size = bytes.len() as u64;
    store.create_data(&data_path(table.id(), table.partition_by(), &name), vec![bytes]).await?;
    Ok(DataFile {
        name,
        rows: rows.len() as u64,
        size,
        body_end: 0,
        tail_crc32c: 0,
        time: None,
        folded_through: state.seq(),
        level: job.level,
    })
}
