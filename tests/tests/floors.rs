//! The house stands: crates depend downward only, and each heavy library is let in by few doors.
//!
//! Read from the `Cargo.toml` files alone, so that this neither compiles nor links what it judges.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of each crate. What users of the floors (binary, tests, measurements) are on top.
const FLOORS: &[(&str, u8)] = &[
    ("tandem-types", 0),
    ("tandem-heap", 0),
    ("tandem-format", 1),
    ("tandem-env", 1),
    ("tandem-access", 2),
    ("tandem-manifest", 2),
    ("tandem-datafile", 2),
    ("tandem-segment", 2),
    ("tandem-fold", 2),
    ("tandem-lines", 2),
    ("tandem-log", 2),
    ("tandem-compact", 3),
    ("tandem-collect", 3),
    ("tandem-verify", 3),
    ("tandem-copy", 3),
    ("tandem-client", 3),
    ("tandem-writer", 3),
    ("tandem-sql", 3),
    ("tandem-node", 4),
    ("tandem-http", 5),
    ("tandem-pg", 5),
    ("tandem-flight", 5),
    ("tandem", 6),
    ("tandem-tests", 7),
    ("tandem-simulation", 7),
    ("tandem-model", 7),
    ("tandem-history", 7),
    ("tandem-history-sql", 7),
    ("tandem-benches", 7),
];

/// Edges between neighbours on one floor, each with its reason. They must not form a circle.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("tandem-log", "tandem-manifest", "a checkpoint is a manifest written out, and recovery ends in one"),
    ("tandem-fold", "tandem-segment", "constants are decoded behind its guard"),
    ("tandem-history-sql", "tandem-history", "the same histories, played through SQL"),
];

/// Libraries that only these crates may use, because all that is built on them must be rebuilt and understood
/// with them.
const DOORS: &[(&str, &[&str])] = &[
    ("datafusion", &["tandem-sql", "tandem-node", "tandem-flight", "tandem-pg", "tandem"]),
    ("parquet", &["tandem-datafile", "tandem-sql", "tandem-compact", "tandem"]),
    ("object_store", &["tandem-env", "tandem-datafile", "tandem-sql", "tandem-compact", "tandem-node"]),
    ("tonic", &["tandem-client", "tandem-flight", "tandem"]),
    ("axum", &["tandem-http"]),
    ("prost", &["tandem-format", "tandem-writer", "tandem-client", "tandem-flight"]),
    ("rand", &["tandem-env"]),
];

/// Crates that compute and nothing else: without a runtime, a store or a clock, whatever a change may wish.
const PURE: &[&str] =
    &["tandem-types", "tandem-format", "tandem-manifest", "tandem-segment", "tandem-fold", "tandem-lines"];
const IMPURE: &[&str] = &["tokio", "async-trait", "futures", "object_store", "rand", "tandem-env", "tracing"];

/// Crate → what its code (tests left out) depends on.
type Edges = BTreeMap<String, Vec<String>>;

fn edges() -> Edges {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let workspace = parse(&root.join("Cargo.toml"));
    let mut folders: Vec<PathBuf> = Vec::new();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        match member.strip_suffix("/*") {
            Some(parent) => {
                let entries = std::fs::read_dir(root.join(parent)).unwrap().map(|e| e.unwrap().path());
                folders.extend(entries.filter(|path| path.join("Cargo.toml").exists()));
            }
            None => folders.push(root.join(member)),
        }
    }
    folders.iter().map(|folder| edges_of(&parse(&folder.join("Cargo.toml")))).collect()
}

fn parse(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn edges_of(manifest: &toml::Table) -> (String, Vec<String>) {
    let name = manifest["package"]["name"].as_str().unwrap().to_owned();
    // What builds only on some platforms counts as well.
    let targets = manifest.get("target").and_then(|t| t.as_table()).into_iter().flatten();
    let targets = targets.filter_map(|(_, target)| target.as_table());
    let tables = [manifest].into_iter().chain(targets);
    let dependencies = tables.flat_map(|table| {
        ["dependencies", "build-dependencies"].into_iter().filter_map(|kind| table.get(kind)?.as_table())
    });
    let names = dependencies.flat_map(|d| d.iter()).map(|(key, value)| {
        // A dependency may go by another name.
        value.get("package").and_then(|p| p.as_str()).unwrap_or(key).to_owned()
    });
    (name, names.collect())
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

#[test]
fn crates_depend_downward_only() {
    let mut wrong = Vec::new();
    for (name, dependencies) in &edges() {
        let Some(own) = floor(name) else {
            wrong.push(format!("{name} stands on no floor: say in this test which one is its"));
            continue;
        };
        for dependency in dependencies.iter().filter(|d| d.starts_with("tandem")) {
            let sideways = SIDEWAYS.iter().any(|(from, to, _)| from == name && to == dependency);
            match floor(dependency) {
                Some(below) if below < own => {}
                Some(beside) if beside == own && sideways => {}
                other => {
                    wrong.push(format!("{name} (floor {own}) must not depend on {dependency} ({other:?})"))
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "an arrow points upward or sideways; move the code down, or pass a value instead of calling up:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn heavy_libraries_come_in_by_their_doors_only() {
    let mut wrong = Vec::new();
    for (name, dependencies) in &edges() {
        for (library, doors) in DOORS {
            // A library's companions (`datafusion-common`, `tonic-prost`) come in by its door.
            let uses = dependencies
                .iter()
                .any(|d| d == library || d.strip_prefix(library).is_some_and(|rest| rest.starts_with('-')));
            if uses && !doors.contains(&name.as_str()) && floor(name) < Some(7) {
                wrong.push(format!("{name} uses {library}, which only {} may", doors.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_ground_is_pure() {
    let edges = edges();
    for name in PURE {
        let dependencies = edges.get(*name).unwrap_or_else(|| panic!("{name} is gone: change this test"));
        let impure: Vec<&String> = dependencies.iter().filter(|d| IMPURE.contains(&d.as_str())).collect();
        assert!(impure.is_empty(), "{name} is to be decided by its arguments alone, and uses {impure:?}");
    }
}

#[test]
fn the_lists_here_are_not_out_of_date() {
    let edges = edges();
    for (name, _) in FLOORS {
        assert!(edges.contains_key(*name), "{name} is gone: take it off its floor");
    }
    for (from, to, reason) in SIDEWAYS {
        let used = edges.get(*from).is_some_and(|d| d.iter().any(|d| d == to));
        assert!(used && !reason.is_empty(), "{from} → {to} is not used any more");
        assert!(!SIDEWAYS.iter().any(|(a, b, _)| a == to && b == from), "{from} and {to} form a circle");
    }
}
