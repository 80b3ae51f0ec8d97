//! Gaps: what a record has and a target profile cannot hold, by name.

use crate::profile::{ExtraPlace, KindMap, Target, VectorsPlace};
use crate::record::{Kind, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorKind};

/// Names of all gaps; a set of them is a bit mask in this order.
pub const GAPS: [&str; 38] = [
    // one a kind
    "entities",
    "memories",
    "observations",
    "relations",
    // one a text field, in the order of `TEXT_FIELDS`
    "scope-user",
    "scope-agent",
    "scope-session",
    "scope-namespace",
    "scope-tenant",
    "content",
    "names",
    "types",
    "relation-source",
    "relation-target",
    "observation-owner",
    "supersedes",
    "provenance",
    // one a time field, in the order of `TIME_FIELDS`
    "created-at",
    "updated-at",
    "valid-from",
    "valid-to",
    "observed-at",
    // one a score, in the order of `SCORE_FIELDS`
    "confidence",
    "strength",
    "importance",
    // the rest
    "versions",
    "tags",
    "extra-fields",
    "vectors",
    "sparse-vectors",
    "multi-vectors",
    "several-vectors",
    "vector-models",
    "ids",
    "time-precision",
    "orphan-relations",
    "re-embedded",
    "vector-lengths",
];

const KINDS: usize = 0;
const TEXTS: usize = 4;
const TIMES: usize = TEXTS + TEXT_FIELDS.len();
const SCORES: usize = TIMES + TIME_FIELDS.len();
const VERSIONS: usize = SCORES + SCORE_FIELDS.len();

/// A set of gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GapSet(pub u64);

impl GapSet {
    /// The set of these names; unknown names are returned as the error.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> std::result::Result<Self, String> {
        let mut set = Self::default();
        for name in names {
            let i = GAPS.iter().position(|gap| *gap == name).ok_or_else(|| name.to_owned())?;
            set.0 |= 1 << i;
        }
        Ok(set)
    }

    fn add(&mut self, i: usize) {
        self.0 |= 1 << i;
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        GAPS.iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, name)| *name)
    }

    /// The positions in [`GAPS`].
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..GAPS.len()).filter(move |i| self.0 & (1 << i) != 0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The gap of a whole kind.
pub fn kind_gap(kind: Kind) -> GapSet {
    GapSet(1 << (KINDS + kind as usize))
}

/// What of a record a kind's table can carry.
#[derive(Debug, Clone, Copy)]
pub struct Carries {
    fields: GapSet,
    extra: bool,
    vectors: bool,
    one_dense_vector: bool,
    vector_models: bool,
}

impl Carries {
    /// Reads the table. `vector_models`: the place of the vectors has room for the model's name.
    pub fn new(map: &KindMap, native: bool) -> Self {
        let mut fields = GapSet::default();
        for field in &map.fields {
            match field.target {
                Target::Text(i) | Target::Json(i) => fields.add(TEXTS + i),
                Target::Time(i, _) => fields.add(TIMES + i),
                Target::Score(i, _) => fields.add(SCORES + i),
                Target::Version => fields.add(VERSIONS),
                Target::Tags(_) => fields.add(VERSIONS + 1),
            }
        }
        Self {
            fields,
            extra: native || map.extra != ExtraPlace::Flat || !map.fixed,
            vectors: map.vectors != VectorsPlace::None,
            one_dense_vector: matches!(map.vectors, VectorsPlace::Floats(_)),
            vector_models: native || matches!(map.vectors, VectorsPlace::Objects(_)),
        }
    }

    /// The gaps of one record.
    pub fn gaps(&self, r: &RecordRef<'_>) -> GapSet {
        let mut has = GapSet::default();
        for (i, text) in r.texts.iter().enumerate() {
            if text.is_some() {
                has.add(TEXTS + i);
            }
        }
        for (i, time) in r.times.iter().enumerate() {
            if time.micros.is_some() || time.text.is_some() {
                has.add(TIMES + i);
            }
        }
        for (i, score) in r.scores.iter().enumerate() {
            if score.is_some() {
                has.add(SCORES + i);
            }
        }
        if r.version.is_some() {
            has.add(VERSIONS);
        }
        if r.tags.is_some() {
            has.add(VERSIONS + 1);
        }
        let mut gaps = has.minus(self.fields);
        if !self.extra && r.extra != "{}" {
            gaps.add(VERSIONS + 2);
        }
        for vector in &r.vectors {
            let unheld = !self.vectors || (self.one_dense_vector && vector.kind != VectorKind::Dense);
            if unheld {
                gaps.add(VERSIONS + 3 + vector.kind as usize);
            }
            if !unheld && !self.vector_models && vector.model.is_some() {
                gaps.add(VERSIONS + 7);
            }
        }
        if self.one_dense_vector && r.vectors.len() > 1 {
            gaps.add(VERSIONS + 6);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn positions_are_those_of_the_names() {
        let name = |i: usize| GAPS[i];
        assert_eq!("provenance", name(TEXTS + 12));
        assert_eq!("observed-at", name(TIMES + 4));
        assert_eq!("importance", name(SCORES + 2));
        assert_eq!(["versions", "tags", "extra-fields", "vectors"], [0, 1, 2, 3].map(|i| name(VERSIONS + i)));
        assert_eq!("vector-models", name(VERSIONS + 7));
        assert_eq!(vec!["versions"], GapSet::of(["versions"]).unwrap().names().collect::<Vec<_>>());
    }
}
