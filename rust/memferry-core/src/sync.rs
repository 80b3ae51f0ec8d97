//! What to do with a source record, seen against what the target holds: the three-way comparison of promise 5.

use arrow_array::RecordBatch;
use hashbrown::HashMap;

use crate::digest::{digest, identity};
use crate::error::Result;
use crate::record::{RecordRef, RecordView};

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

/// How a record of the target stands to a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Another one wrote it, or nobody we know.
    Foreign = 0,
    /// It is as the migration wrote it.
    Intact = 1,
    /// Someone changed it since.
    Changed = 2,
}

fn standing(r: &RecordRef<'_>, migration: &str, now: impl FnOnce() -> u128) -> Standing {
    if r.marker_migration != Some(migration) {
        Standing::Foreign
    } else if r.marker_digest == Some(now().to_be_bytes()) {
        Standing::Intact
    } else {
        Standing::Changed
    }
}

/// How each record stands to the migration.
pub fn standings(records: &RecordBatch, migration: &str) -> Result<Vec<Standing>> {
    let mut scratch = Vec::new();
    Ok(RecordView::new(records)?.iter().map(|r| standing(&r, migration, || digest(&r, &mut scratch))).collect())
}

/// Compares each record of `source` with the record of the same kind and id in `existing`.
pub fn classify(source: &RecordBatch, existing: &RecordBatch, migration: &str) -> Result<Vec<Action>> {
    let (source, existing) = (RecordView::new(source)?, RecordView::new(existing)?);
    let mut scratch = Vec::new();
    let mut known = HashMap::with_capacity(existing.len());
    for r in existing.iter() {
        let now = digest(&r, &mut scratch);
        known.insert(identity(r.kind, r.id), (now, standing(&r, migration, || now)));
    }
    Ok(source
        .iter()
        .map(|r| match known.get(&identity(r.kind, r.id)) {
            None => Action::Create,
            Some((now, _)) if *now == digest(&r, &mut scratch) => Action::Unchanged,
            Some((_, Standing::Intact)) => Action::Update,
            Some((_, Standing::Changed)) => Action::Conflict,
            Some((_, Standing::Foreign)) => Action::Existing,
        })
        .collect())
}
