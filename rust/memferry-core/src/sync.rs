//! What to do with a source record, seen against what the target holds: the three-way comparison of promise 5.

use arrow_array::RecordBatch;
use hashbrown::HashMap;

use crate::digest::{digest, identity};
use crate::error::Result;
use crate::record::RecordView;

/// Decision for one source record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// The target does not have it.
    Create = 0,
    /// The target has it as we last wrote it, and the source has changed.
    Update = 1,
    /// The target has it as the source has it.
    Unchanged = 2,
    /// We wrote it and someone changed it since.
    Conflict = 3,
    /// Someone else wrote it.
    Existing = 4,
}

/// Compares each record of `source` with the record of the same kind and id in `existing`.
pub fn classify(source: &RecordBatch, existing: &RecordBatch, migration: &str) -> Result<Vec<Action>> {
    let (source, existing) = (RecordView::new(source)?, RecordView::new(existing)?);
    let mut scratch = Vec::new();
    let mut known = HashMap::with_capacity(existing.len());
    for r in existing.iter() {
        let ours = r.marker_migration == Some(migration);
        let now = digest(&r, &mut scratch);
        let intact = ours && r.marker_digest == Some(now.to_be_bytes());
        known.insert(identity(r.kind, r.id), (now, ours, intact));
    }
    Ok(source
        .iter()
        .map(|r| match known.get(&identity(r.kind, r.id)) {
            None => Action::Create,
            Some((now, _, _)) if *now == digest(&r, &mut scratch) => Action::Unchanged,
            Some((_, _, true)) => Action::Update,
            Some((_, true, false)) => Action::Conflict,
            Some((_, false, _)) => Action::Existing,
        })
        .collect())
}
