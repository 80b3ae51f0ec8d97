//! The canonical record, one row of a batch.
//!
//! A batch is an Arrow `RecordBatch` with the schema of [`schema`]. [`RecordBuilder`] fills one from borrowed rows and
//! [`RecordView`] gives borrowed rows back, so that no copy is made but the one into the columns. The meaning of each
//! column is specified in `docs/record.md`.

mod build;
mod vectors;
mod view;

use std::sync::{Arc, LazyLock};

use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use smallvec::SmallVec;

pub use build::RecordBuilder;
pub use vectors::{VectorKind, VectorRef, VectorsBuilder, VectorsView, vectors_type};
pub use view::RecordView;

use crate::error::{Error, Result};

/// The four kinds, in the order in which they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A thing that is known.
    Entity = 0,
    /// A remembered text.
    Memory = 1,
    /// A statement that belongs to one entity.
    Observation = 2,
    /// A directed, typed edge between two entities.
    Relation = 3,
}

impl Kind {
    /// All kinds in copy order.
    pub const ALL: [Self; 4] = [Self::Entity, Self::Memory, Self::Observation, Self::Relation];

    /// The word used in manifests, tables and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Memory => "memory",
            Self::Observation => "observation",
            Self::Relation => "relation",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == word).ok_or_else(|| {
            Error::invalid(format!("unknown kind {word:?}, allowed: entity, memory, observation, relation"))
        })
    }

    /// From the number in the `kind` column.
    pub fn from_u8(number: u8) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|k| *k as u8 == number)
            .ok_or_else(|| Error::invalid(format!("unknown kind number {number}")))
    }
}

/// Text columns in schema order; index into [`RecordRef::texts`].
pub const TEXT_FIELDS: [&str; 13] = [
    "scope_user",
    "scope_agent",
    "scope_session",
    "scope_namespace",
    "scope_tenant",
    "content",
    "name",
    "type",
    "from_id",
    "to_id",
    "owner_id",
    "supersedes",
    "provenance",
];
/// Time columns; each has a `<name>_text` beside it. Index into [`RecordRef::times`].
pub const TIME_FIELDS: [&str; 5] = ["created_at", "updated_at", "valid_from", "valid_to", "observed_at"];
/// Score columns; index into [`RecordRef::scores`].
pub const SCORE_FIELDS: [&str; 3] = ["confidence", "strength", "importance"];

/// Index of `content` in [`TEXT_FIELDS`].
pub const CONTENT: usize = 5;
/// Index of `name` in [`TEXT_FIELDS`].
pub const NAME: usize = 6;
/// Index of `type` in [`TEXT_FIELDS`].
pub const TYPE: usize = 7;
/// Index of `from_id` in [`TEXT_FIELDS`].
pub const FROM: usize = 8;
/// Index of `to_id` in [`TEXT_FIELDS`].
pub const TO: usize = 9;
/// Index of `owner_id` in [`TEXT_FIELDS`].
pub const OWNER: usize = 10;
/// Index of `supersedes` in [`TEXT_FIELDS`].
pub const SUPERSEDES: usize = 11;

/// A point in time: microseconds since 1970 in UTC, and the original text where that says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRef<'a> {
    /// Microseconds since 1970-01-01T00:00:00Z; a naive time is counted as if it were UTC.
    pub micros: Option<i64>,
    /// The text as it was written, when the canonical text of `micros` differs from it.
    pub text: Option<&'a str>,
}

/// Tags in their order.
pub type Tags<'a> = SmallVec<[&'a str; 8]>;
/// Vectors of one record.
pub type Vectors<'a> = SmallVec<[VectorRef<'a>; 1]>;

/// One record, borrowed from wherever it lives.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordRef<'a> {
    /// Kind of the record.
    pub kind: Kind,
    /// Key in the store it was read from, as that store shows it; not part of the record.
    pub key: Option<&'a str>,
    /// Original id.
    pub id: &'a str,
    /// By [`TEXT_FIELDS`].
    pub texts: [Option<&'a str>; TEXT_FIELDS.len()],
    /// By [`TIME_FIELDS`].
    pub times: [TimeRef<'a>; TIME_FIELDS.len()],
    /// Version number in the source.
    pub version: Option<i64>,
    /// By [`SCORE_FIELDS`].
    pub scores: [Option<f64>; SCORE_FIELDS.len()],
    /// Ordered tags; an empty list is not a missing one.
    pub tags: Option<Tags<'a>>,
    /// Canonical text of every field nobody mapped, an object.
    pub extra: &'a str,
    /// Embeddings.
    pub vectors: Vectors<'a>,
    /// Migration that wrote it, where the store is native; not part of the record.
    pub marker_migration: Option<&'a str>,
    /// Digest it was written with; not part of the record.
    pub marker_digest: Option<[u8; 16]>,
}

impl<'a> RecordRef<'a> {
    /// A record with nothing but its kind and id.
    pub fn new(kind: Kind, id: &'a str) -> Self {
        Self {
            kind,
            key: None,
            id,
            texts: [None; TEXT_FIELDS.len()],
            times: [TimeRef::default(); TIME_FIELDS.len()],
            version: None,
            scores: [None; SCORE_FIELDS.len()],
            tags: None,
            extra: "{}",
            vectors: Vectors::new(),
            marker_migration: None,
            marker_digest: None,
        }
    }
}

impl RecordRef<'_> {
    /// The same record for a shorter time; lists of one length in place do not shrink by themselves.
    pub fn reborrow(&self) -> RecordRef<'_> {
        RecordRef {
            kind: self.kind,
            key: self.key,
            id: self.id,
            texts: self.texts,
            times: self.times,
            version: self.version,
            scores: self.scores,
            tags: self.tags.as_ref().map(|tags| tags.iter().copied().collect()),
            extra: self.extra,
            vectors: self.vectors.iter().copied().collect(),
            marker_migration: self.marker_migration,
            marker_digest: self.marker_digest,
        }
    }
}

/// The schema of every canonical batch.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = vec![
            Field::new("kind", DataType::UInt8, false),
            Field::new("key", DataType::Utf8, true),
            Field::new("id", DataType::Utf8, false),
        ];
        fields.extend(TEXT_FIELDS.iter().map(|name| Field::new(*name, DataType::Utf8, true)));
        for name in TIME_FIELDS {
            fields.push(Field::new(name, DataType::Int64, true));
            fields.push(Field::new(format!("{name}_text"), DataType::Utf8, true));
        }
        fields.push(Field::new("version", DataType::Int64, true));
        fields.extend(SCORE_FIELDS.iter().map(|name| Field::new(*name, DataType::Float64, true)));
        fields.push(Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true));
        fields.push(Field::new("extra", DataType::Utf8, false));
        fields.push(Field::new("vectors", vectors_type(), false));
        fields.push(Field::new("marker_migration", DataType::Utf8, true));
        fields.push(Field::new("marker_digest", DataType::FixedSizeBinary(16), true));
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// Downcasts a column or says which one has the wrong type.
pub fn cast<'a, T: Array + 'static>(column: &'a ArrayRef, name: &str) -> Result<&'a T> {
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| Error::invalid(format!("column {name}: unexpected type {}", column.data_type())))
}

/// The text at `row`, if there is one.
pub fn option(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}
