//! Gaps: what a record has and a target profile cannot hold, by name.

use crate::profile::{KindMap, Target, VectorsPlace, join_id};
use crate::record::{CONTENT, Kind, OWNER, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorKind, VectorRef};
use crate::value::{Value, get};

/// Note within `extra`: where an exploded item stood in its list.
pub const POSITION: &str = "$position";
/// Note within `extra`: the record had no such list, not even an empty one.
pub const MISSING: &str = "$missing";
/// Note within `extra`: the texts of the observations that were gathered for an entity, where they live inside it.
pub const GATHERED: &str = "$observations";
/// An `extra` of nothing but [`MISSING`].
const ONLY_MISSING: &str = r#"{"$missing":true}"#;

/// Names of all gaps; a set of them is a bit mask in this order.
pub const GAPS: [&str; 43] = [
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
    "doubles",
    "vectors-without-text",
    "vector-names",
    "vector-normalized",
    "vectors-not-finite",
];

const KINDS: usize = 0;
pub(crate) const TEXTS: usize = 4;
pub(crate) const TIMES: usize = TEXTS + TEXT_FIELDS.len();
pub(crate) const SCORES: usize = TIMES + TIME_FIELDS.len();
pub(crate) const VERSIONS: usize = SCORES + SCORE_FIELDS.len();
pub(crate) const TAGS: usize = VERSIONS + 1;
pub(crate) const EXTRA: usize = VERSIONS + 2;
/// Also of the next two: one a vector kind, in the order of `VectorKind`.
pub(crate) const VECTORS: usize = VERSIONS + 3;
const SEVERAL_VECTORS: usize = VERSIONS + 6;
const VECTOR_MODELS: usize = VERSIONS + 7;
const IDS: usize = VERSIONS + 8;
const VECTOR_NAMES: usize = VERSIONS + 15;
const VECTOR_NORMALIZED: usize = VERSIONS + 16;

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

    /// Adds the gap at a position of [`GAPS`].
    pub(crate) fn add(&mut self, i: usize) {
        self.0 |= 1 << i;
    }

    /// Those of either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
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

/// The gaps that a record's columns would be, if nothing had a place for them.
fn columns(r: &RecordRef<'_>) -> GapSet {
    let mut has = GapSet::default();
    let texts = r.texts.iter().map(Option::is_some);
    let times = r.times.iter().map(|time| time.micros.is_some() || time.text.is_some());
    let scores = r.scores.iter().map(Option::is_some);
    // In the order of `GAPS`.
    let all = texts.chain(times).chain(scores).chain([r.version.is_some(), r.tags.is_some()]);
    for (i, _) in all.enumerate().filter(|(_, there)| *there) {
        has.add(TEXTS + i);
    }
    has
}

/// The gaps of an observation that goes into a list of its owner, where only its text and its place are kept.
pub fn nested_gaps(r: &RecordRef<'_>) -> GapSet {
    let kept = GapSet(1 << (TEXTS + CONTENT) | 1 << (TEXTS + OWNER));
    // Without them there is no text to list, or no list.
    let has = columns(r);
    let mut gaps = GapSet(has.minus(kept).0 | kept.minus(has).0);
    for vector in &r.vectors {
        gaps.add(VECTORS + vector.kind as usize);
    }
    let (position, others) = match Value::from_canonical(r.extra) {
        Ok(Value::Map(map)) => match get(&map, POSITION) {
            Some(Value::Int(position)) => (Some(*position), map.len() > 1),
            _ => (None, !map.is_empty()),
        },
        _ => (None, true),
    };
    if others {
        gaps.add(EXTRA);
    }
    let id = r.texts[OWNER].zip(position).map(|(owner, position)| format!("{owner}#{position}"));
    if id.as_deref() != Some(r.id) {
        gaps.add(IDS);
    }
    gaps
}

/// Which vectors have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    None,
    OneDense,
    /// One a name.
    Named,
    /// One a name, where an empty one becomes a word.
    StoredNames,
    All,
}

/// What of a record a kind's table can carry.
#[derive(Debug, Clone)]
pub struct Carries {
    fields: GapSet,
    extra: bool,
    vectors: Room,
    /// Whether the model and `normalized` have a place with it.
    vector_notes: bool,
    /// Text columns of which the id is made.
    joined: Option<Vec<usize>>,
}

impl Carries {
    /// Reads the table. `native`: the place of the vectors has room for what is said of them, whatever their names.
    pub fn new(map: &KindMap, native: bool) -> Self {
        let mut fields = GapSet::default();
        for field in &map.fields {
            match field.target {
                Target::Text(i) | Target::Json(i) => fields.add(TEXTS + i),
                Target::Time(i, _) => fields.add(TIMES + i),
                Target::Score(i, _) => fields.add(SCORES + i),
                Target::Version => fields.add(VERSIONS),
                Target::Tags(_) => fields.add(TAGS),
            }
        }
        Self {
            fields,
            extra: !map.drops_unmapped(),
            vectors: match map.vectors {
                VectorsPlace::None => Room::None,
                VectorsPlace::Floats(_) => Room::OneDense,
                VectorsPlace::Store if !native => Room::Named,
                VectorsPlace::StoreWithMeta(_) => Room::StoredNames,
                VectorsPlace::Store | VectorsPlace::Objects(_) => Room::All,
            },
            vector_notes: native || matches!(map.vectors, VectorsPlace::Objects(_)),
            joined: map.joined_texts(),
        }
    }

    /// The gaps of one record.
    pub fn gaps(&self, r: &RecordRef<'_>) -> GapSet {
        let mut gaps = columns(r).minus(self.fields);
        if !self.extra && r.extra != "{}" && r.extra != ONLY_MISSING && has_more_than_notes(r.extra) {
            gaps.add(EXTRA);
        }
        for vector in &r.vectors {
            let held = match self.vectors {
                Room::None => false,
                Room::OneDense => vector.kind == VectorKind::Dense,
                Room::Named | Room::StoredNames | Room::All => true,
            };
            if !held {
                gaps.add(VECTORS + vector.kind as usize);
                continue;
            }
            let notes = [
                (VECTOR_MODELS, !self.vector_notes && vector.model.is_some()),
                (VECTOR_NORMALIZED, !self.vector_notes && vector.normalized.is_some()),
                (VECTOR_NAMES, self.vectors == Room::OneDense && !vector.name.is_empty()),
            ];
            for (gap, _) in notes.into_iter().filter(|(_, lost)| *lost) {
                gaps.add(gap);
            }
        }
        let several = match self.vectors {
            Room::None | Room::All => false,
            Room::OneDense => r.vectors.len() > 1,
            Room::Named => meet(&r.vectors, |v| v.name),
            Room::StoredNames => meet(&r.vectors, VectorRef::stored_name),
        };
        if several {
            gaps.add(SEVERAL_VECTORS);
        }
        if let Some(joined) = &self.joined {
            // A part that is missing is no gap: such a record has no key there, whatever is accepted.
            let parts: Option<Vec<&str>> = joined.iter().map(|i| r.texts[*i]).collect();
            if parts.is_some_and(|parts| join_id(parts) != r.id) {
                gaps.add(IDS);
            }
        }
        gaps
    }
}

/// Whether two of the vectors have one name.
pub(crate) fn meet<'a>(vectors: &[VectorRef<'a>], name: impl Fn(&VectorRef<'a>) -> &'a str) -> bool {
    vectors.iter().enumerate().any(|(i, v)| vectors[..i].iter().any(|before| name(before) == name(v)))
}

/// Whether there are unmapped fields beside our notes.
fn has_more_than_notes(extra: &str) -> bool {
    match Value::from_canonical(extra) {
        Ok(Value::Map(map)) => map.iter().any(|(key, _)| key != MISSING && key != GATHERED),
        _ => true,
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
        assert_eq!(["versions", "tags", "extra-fields", "vectors"], [VERSIONS, TAGS, EXTRA, VECTORS].map(name));
        assert_eq!("multi-vectors", name(VECTORS + VectorKind::Multi as usize));
        assert_eq!(["several-vectors", "vector-models", "ids"], [SEVERAL_VECTORS, VECTOR_MODELS, IDS].map(name));
        assert_eq!(["vector-names", "vector-normalized"], [VECTOR_NAMES, VECTOR_NORMALIZED].map(name));
        assert_eq!(vec!["versions"], GapSet::of(["versions"]).unwrap().names().collect::<Vec<_>>());
    }
}
