//! What happens to a record between decode and encode: map, filter, dedup. One [`Transform`] decides it from the plan
//! alone, so that scan, copy and proof agree.

pub mod dedup;
mod filter;
mod mapping;

use arrow_array::{BooleanArray, RecordBatch};
use hashbrown::{HashMap, HashSet};
use serde::Deserialize;

use crate::digest::identity;
use crate::error::{Error, Result};
use crate::gaps::{GAPS, GapSet};
use crate::mapper::whole;
use crate::raw::Quarantined;
use crate::record::{FROM, Kind, OWNER, RecordBuilder, RecordRef, RecordView, SUPERSEDES, TO};

pub use filter::Where;
pub use mapping::Mapping;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It goes on, perhaps changed.
    Kept = 0,
    /// Left out by `--where`, `--sample` or `--limit`.
    Filtered = 1,
    /// Merged into another record.
    Deduplicated = 2,
    /// It could not be decided or mapped.
    Quarantined = 3,
}

/// The decisions of a plan, as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Decisions {
    r#where: Option<String>,
    /// A mapping file in its JSON form.
    map: Option<String>,
    /// Kind, id of the loser, id of the winner.
    merged: Vec<(String, String, String)>,
    /// The largest identity of the sample, in hex.
    sample: Option<String>,
    /// Kind and id of the only records that go on.
    kept: Option<Vec<(String, String)>>,
    /// Gaps that the user accepted; none are held back where it is missing.
    accepted: Option<Vec<String>>,
}

/// Runs the decisions of a plan.
pub struct Transform {
    filter: Option<Where>,
    mapping: Option<Mapping>,
    /// Winner by the identity of the loser.
    merged: HashMap<u128, String>,
    sample: Option<u128>,
    kept: Option<HashSet<u128>>,
    accepted: Option<GapSet>,
}

/// What came of a batch.
pub struct Transformed {
    /// The records that go on.
    pub records: RecordBatch,
    /// One a row of the batch that was given.
    pub fates: Vec<Fate>,
    /// Rows that could not be decided or mapped.
    pub quarantined: Vec<Quarantined>,
    /// Position in [`GAPS`], records and id of the first: what the mapping dropped.
    pub lost: Vec<(usize, u64, String)>,
}

impl Transform {
    /// Reads the decisions and compiles what they hold.
    pub fn from_json(text: &str) -> Result<Self> {
        let decisions: Decisions = serde_json::from_str(text).map_err(|e| Error::invalid(format!("transform: {e}")))?;
        let of = |kind: &str, id: &str| Ok::<_, Error>(identity(Kind::parse(kind)?, id));
        let merged = decisions.merged.iter().map(|(kind, loser, winner)| Ok((of(kind, loser)?, winner.clone())));
        let kept = decisions.kept.map(|kept| kept.iter().map(|(kind, id)| of(kind, id)).collect());
        let sample = decisions.sample.map(|hex| u128::from_str_radix(&hex, 16));
        let accepted = decisions.accepted.map(|names| GapSet::of(names.iter().map(String::as_str)));
        Ok(Self {
            filter: decisions.r#where.as_deref().map(Where::compile).transpose()?,
            mapping: decisions.map.as_deref().map(Mapping::from_json).transpose()?,
            merged: merged.collect::<Result<_>>()?,
            sample: sample.transpose().map_err(|e| Error::invalid(format!("transform: sample: {e}")))?,
            kept: kept.transpose()?,
            accepted: accepted.transpose().map_err(|name| Error::invalid(format!("transform: unknown gap {name}")))?,
        })
    }

    /// Runs over a batch.
    pub fn apply(&self, records: &RecordBatch) -> Result<Transformed> {
        let view = RecordView::new(records)?;
        let mut run = Run { transform: self, lost: vec![(0, None); GAPS.len()], quarantined: Vec::new() };
        // Rows are copied only where one of them can change.
        let mut changed = (self.mapping.is_some() || !self.merged.is_empty()).then(RecordBuilder::default);
        let mut fates = Vec::with_capacity(view.len());
        for r in view.iter() {
            fates.push(run.row(&r, changed.as_mut())?);
        }
        let records = match changed {
            Some(changed) => changed.finish()?,
            None if fates.iter().all(|fate| *fate == Fate::Kept) => records.clone(),
            None => {
                let mask: BooleanArray = fates.iter().map(|fate| Some(*fate == Fate::Kept)).collect();
                arrow_select::filter::filter_record_batch(records, &mask)?
            }
        };
        let lost = run.lost.into_iter().enumerate();
        let lost = lost.filter_map(|(i, (n, id))| id.map(|id| (i, n, id))).collect();
        Ok(Transformed { records, fates, quarantined: run.quarantined, lost })
    }

    /// The winner, where the record with this kind and id was merged.
    fn winner(&self, kind: Kind, id: &str) -> Option<&str> {
        self.merged.get(&identity(kind, id)).map(String::as_str)
    }

    /// Points a record at the winners of those it refers to.
    fn repoint<'a>(&'a self, r: &mut RecordRef<'a>) {
        if self.merged.is_empty() {
            return;
        }
        let entity = |id: &str| self.winner(Kind::Entity, id);
        for end in [FROM, TO] {
            // An end is an entity; some systems relate memories, and no merged memory has the id of an entity.
            if let Some(id) = r.texts[end] {
                r.texts[end] = entity(id).or_else(|| self.winner(Kind::Memory, id)).or(Some(id));
            }
        }
        if let Some(id) = r.texts[OWNER] {
            r.texts[OWNER] = entity(id).or(Some(id));
        }
        if let Some(id) = r.texts[SUPERSEDES] {
            r.texts[SUPERSEDES] = self.winner(r.kind, id).or(Some(id));
        }
    }
}

struct Run<'t> {
    transform: &'t Transform,
    /// By position in [`GAPS`].
    lost: Vec<(u64, Option<String>)>,
    quarantined: Vec<Quarantined>,
}

impl Run<'_> {
    /// Decides one row; what is kept goes to `out`, where rows are copied.
    fn row(&mut self, original: &RecordRef<'_>, out: Option<&mut RecordBuilder>) -> Result<Fate> {
        let transform = self.transform;
        let mapped = transform.mapping.as_ref().map(|mapping| mapping.apply(original)).transpose();
        let (mapped, lost) = match mapped {
            Ok(mapped) => mapped.unzip(),
            Err((reason, message)) => return Ok(self.quarantine(original, reason, message)),
        };
        let lost = lost.unwrap_or_default();
        let mut r = mapped.as_ref().map_or_else(|| original.reborrow(), mapping::Changed::borrow);
        match transform.filter.as_ref().map(|filter| filter.test(&r)).transpose() {
            Ok(Some(false)) => return Ok(Fate::Filtered),
            Ok(_) => {}
            Err(why) => return Ok(self.quarantine(original, "where", format!("--where: {why}"))),
        }
        let key = identity(r.kind, r.id);
        if transform.sample.is_some_and(|largest| key > largest)
            || transform.kept.as_ref().is_some_and(|kept| !kept.contains(&key))
        {
            return Ok(Fate::Filtered);
        }
        if transform.merged.contains_key(&key) {
            return Ok(Fate::Deduplicated);
        }
        let open = transform.accepted.map_or(GapSet::default(), |accepted| lost.minus(accepted));
        if !open.is_empty() {
            let names = open.names().collect::<Vec<_>>().join(", ");
            return Ok(self.quarantine(original, "gap", format!("the mapping drops what was not accepted: {names}")));
        }
        for i in lost.positions() {
            self.lost[i].0 += 1;
            self.lost[i].1.get_or_insert_with(|| r.id.to_owned());
        }
        if let Some(out) = out {
            transform.repoint(&mut r);
            out.push(&r)?;
        }
        Ok(Fate::Kept)
    }

    fn quarantine(&mut self, r: &RecordRef<'_>, reason: &'static str, message: String) -> Fate {
        self.quarantined.push(whole(r, reason, message));
        Fate::Quarantined
    }
}
