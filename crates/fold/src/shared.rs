//! Look-ups that all phases of a program share.
//!
//! Where mutations assign what later ones compare, there are many phases. Which rows have `host = 'a'` is the same in all of
//! them as long as nothing assigns the host: it is asked once.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;
use tandem_types::{ColumnId, Result};

use crate::code::agree;
use crate::frame::{Frame, field_of};
use crate::index::by_values;
use crate::phase::{Index, Phase};
use crate::selection::Handle;

/// Handles on fields that no mutation assigns.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Their clauses are numbers in `places`.
    indexes: Vec<Index>,
    /// Which clause of which phase.
    places: Vec<(usize, usize)>,
}

/// For some clauses of a phase, the rows that their handles select, ascending.
pub(crate) type Found = Vec<(usize, Vec<u32>)>;

impl Shared {
    /// Takes the handles that several phases have on a field which none assigns; their clauses are marked.
    pub(crate) fn new(
        phases: &mut [Phase],
        assigned: &BTreeSet<usize>,
        ids: &[ColumnId],
        schema: &SchemaRef,
    ) -> Result<Self> {
        let mut by_field: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (phase, clauses) in phases.iter().map(|phase| &phase.clauses).enumerate() {
            for (clause, handle) in clauses.iter().enumerate().filter_map(|(at, c)| Some((at, c.handle()?))) {
                let field = field_of(ids, handle.column)?;
                if !assigned.contains(&field)
                    && agree(schema.field(field).data_type(), handle.values.data_type())
                {
                    by_field.entry(field).or_default().push((phase, clause));
                }
            }
        }
        let mut shared = Self::default();
        for (field, places) in by_field {
            let several = places.first().map(|(phase, _)| phase) != places.last().map(|(phase, _)| phase);
            if several {
                shared.take(phases, field, places, schema)?;
            }
        }
        Ok(shared)
    }

    fn take(
        &mut self,
        phases: &mut [Phase],
        field: usize,
        places: Vec<(usize, usize)>,
        schema: &SchemaRef,
    ) -> Result<()> {
        let first = self.places.len();
        let clause = |(phase, clause): &(usize, usize)| phases.get(*phase)?.clauses.get(*clause);
        let handles: Vec<(usize, &Handle)> = (first..)
            .zip(&places)
            .filter_map(|(number, place)| Some((number, clause(place)?.handle()?)))
            .collect();
        self.indexes.push(by_values(field, schema, &handles)?);
        for (phase, clause) in &places {
            if let Some(clause) = phases.get_mut(*phase).and_then(|phase| phase.clauses.get_mut(*clause)) {
                clause.shared = true;
            }
        }
        self.places.extend(places);
        Ok(())
    }

    /// What it selects for each phase; phases without any row are left out.
    pub(crate) fn find(&self, frame: Frame<'_>) -> Result<BTreeMap<usize, Found>> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.places.len()];
        for index in &self.indexes {
            index.probe(frame, |row, number| {
                index.entries.each(number, |place, _| {
                    if let Some(rows) = rows.get_mut(place) {
                        rows.push(row);
                    }
                });
            })?;
        }
        let mut found: BTreeMap<usize, Found> = BTreeMap::new();
        for ((phase, clause), rows) in self.places.iter().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            found.entry(*phase).or_default().push((*clause, rows));
        }
        Ok(found)
    }
}
