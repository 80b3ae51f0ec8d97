//! The canonical record, one row of a batch.
//!
//! A batch is an Arrow `RecordBatch` with the schema of [`schema`]. [`RecordBuilder`] fills one from borrowed rows and
//! [`RecordView`] gives borrowed rows back, so that no copy is made but the one into the columns. The meaning of each
//! column is specified in `docs/record.md`.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder, ListBuilder,
    PrimitiveBuilder, StringBuilder, UInt8Builder, UInt32Builder,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    ListArray, RecordBatch, StringArray, StructArray, UInt8Array, UInt32Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use smallvec::SmallVec;

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

/// What a vector's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum VectorKind {
    /// `dim` numbers.
    Dense = 0,
    /// As many numbers as indices.
    Sparse = 1,
    /// Rows of `dim` numbers.
    Multi = 2,
}

impl VectorKind {
    /// From the number in the column.
    pub fn from_u8(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Dense),
            1 => Ok(Self::Sparse),
            2 => Ok(Self::Multi),
            n => Err(Error::invalid(format!("unknown vector kind {n}, allowed: 0 dense, 1 sparse, 2 multi"))),
        }
    }
}

/// One embedding of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VectorRef<'a> {
    /// Name within the record; empty for the only one.
    pub name: &'a str,
    /// Model that made it, if known.
    pub model: Option<&'a str>,
    /// Numbers a row; 0 for sparse vectors.
    pub dim: u32,
    /// Whether it has length one, if known.
    pub normalized: Option<bool>,
    /// Dense, sparse or multi.
    pub kind: VectorKind,
    /// `u32` little-endian indices of a sparse vector.
    pub indices: Option<&'a [u8]>,
    /// `f32` little-endian numbers.
    pub data: &'a [u8],
}

impl VectorRef<'_> {
    /// Checks lengths against kind and dimension.
    pub fn check(&self) -> Result<()> {
        let numbers = self.data.len() / 4;
        let dim = self.dim as usize;
        let ok = self.data.len().is_multiple_of(4)
            && match self.kind {
                VectorKind::Dense => numbers == dim && self.indices.is_none(),
                VectorKind::Multi => dim > 0 && numbers.is_multiple_of(dim) && self.indices.is_none(),
                VectorKind::Sparse => dim == 0 && self.indices.is_some_and(|i| i.len() == self.data.len()),
            };
        if ok {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "vector {:?}: {} bytes of numbers and {} bytes of indices do not fit a {:?} vector of dimension {dim}",
            self.name,
            self.data.len(),
            self.indices.map_or(0, <[u8]>::len),
            self.kind,
        )))
    }
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

fn vector_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("model", DataType::Utf8, true),
        Field::new("dim", DataType::UInt32, false),
        Field::new("normalized", DataType::Boolean, true),
        Field::new("kind", DataType::UInt8, false),
        Field::new("indices", DataType::Binary, true),
        Field::new("data", DataType::Binary, false),
    ])
}

/// The Arrow type of a `vectors` column.
pub fn vectors_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(vector_fields()), false)))
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

/// Builds a `vectors` column.
#[derive(Default)]
pub struct VectorsBuilder {
    offsets: Vec<i32>,
    names: StringBuilder,
    models: StringBuilder,
    dims: UInt32Builder,
    normalized: BooleanBuilder,
    kinds: UInt8Builder,
    indices: BinaryBuilder,
    data: BinaryBuilder,
    count: i32,
}

impl VectorsBuilder {
    /// Appends the vectors of one record.
    pub fn push(&mut self, vectors: &[VectorRef<'_>]) {
        for v in vectors {
            self.names.append_value(v.name);
            self.models.append_option(v.model);
            self.dims.append_value(v.dim);
            self.normalized.append_option(v.normalized);
            self.kinds.append_value(v.kind as u8);
            self.indices.append_option(v.indices);
            self.data.append_value(v.data);
        }
        self.count += vectors.len() as i32;
        self.offsets.push(self.count);
    }

    /// The finished column.
    pub fn finish(mut self) -> Result<ArrayRef> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.names.finish()),
            Arc::new(self.models.finish()),
            Arc::new(self.dims.finish()),
            Arc::new(self.normalized.finish()),
            Arc::new(self.kinds.finish()),
            Arc::new(self.indices.finish()),
            Arc::new(self.data.finish()),
        ];
        let values = StructArray::try_new(vector_fields(), columns, None::<NullBuffer>)?;
        let mut offsets = vec![0];
        offsets.append(&mut self.offsets);
        let item = Arc::new(Field::new("item", DataType::Struct(vector_fields()), false));
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), Arc::new(values), None)?))
    }
}

/// Reads a `vectors` column.
pub struct VectorsView<'a> {
    list: &'a ListArray,
    names: &'a StringArray,
    models: &'a StringArray,
    dims: &'a UInt32Array,
    normalized: &'a BooleanArray,
    kinds: &'a UInt8Array,
    indices: &'a BinaryArray,
    data: &'a BinaryArray,
}

impl<'a> VectorsView<'a> {
    /// Checks the type of the column.
    pub fn new(column: &'a ArrayRef) -> Result<Self> {
        let list: &ListArray = cast(column, "vectors")?;
        let values: &StructArray = cast(list.values(), "vectors.item")?;
        if values.num_columns() != 7 {
            return Err(Error::invalid("column vectors: expected 7 fields"));
        }
        Ok(Self {
            list,
            names: cast(values.column(0), "vectors.name")?,
            models: cast(values.column(1), "vectors.model")?,
            dims: cast(values.column(2), "vectors.dim")?,
            normalized: cast(values.column(3), "vectors.normalized")?,
            kinds: cast(values.column(4), "vectors.kind")?,
            indices: cast(values.column(5), "vectors.indices")?,
            data: cast(values.column(6), "vectors.data")?,
        })
    }

    /// The vectors of row `row`.
    pub fn get(&self, row: usize) -> Vectors<'a> {
        let offsets = self.list.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize)
            .map(|i| VectorRef {
                name: self.names.value(i),
                model: option(self.models, i),
                dim: self.dims.value(i),
                normalized: self.normalized.is_valid(i).then(|| self.normalized.value(i)),
                kind: VectorKind::from_u8(self.kinds.value(i)).unwrap_or(VectorKind::Dense),
                indices: self.indices.is_valid(i).then(|| self.indices.value(i)),
                data: self.data.value(i),
            })
            .collect()
    }
}

/// A column that is mostly null: rows without a value are only counted until one has a value, or the batch ends.
trait Sparse: ArrayBuilder {
    fn nulls(&mut self, count: usize);

    /// Brings the column to `rows` rows.
    fn fill(&mut self, rows: usize) {
        if self.len() < rows {
            self.nulls(rows - self.len());
        }
    }
}

impl Sparse for StringBuilder {
    fn nulls(&mut self, count: usize) {
        self.append_nulls(count);
    }
}

impl<T: ArrowPrimitiveType> Sparse for PrimitiveBuilder<T> {
    fn nulls(&mut self, count: usize) {
        self.append_nulls(count);
    }
}

/// Builds a canonical batch.
pub struct RecordBuilder {
    kinds: UInt8Builder,
    keys: StringBuilder,
    ids: StringBuilder,
    texts: [StringBuilder; TEXT_FIELDS.len()],
    times: [(Int64Builder, StringBuilder); TIME_FIELDS.len()],
    versions: Int64Builder,
    scores: [Float64Builder; SCORE_FIELDS.len()],
    tags: ListBuilder<StringBuilder>,
    extras: StringBuilder,
    vectors: VectorsBuilder,
    marker_migrations: StringBuilder,
    marker_digests: FixedSizeBinaryBuilder,
    bytes: usize,
}

impl Default for RecordBuilder {
    fn default() -> Self {
        Self {
            kinds: UInt8Builder::new(),
            keys: StringBuilder::new(),
            ids: StringBuilder::new(),
            texts: std::array::from_fn(|_| StringBuilder::new()),
            times: std::array::from_fn(|_| (Int64Builder::new(), StringBuilder::new())),
            versions: Int64Builder::new(),
            scores: std::array::from_fn(|_| Float64Builder::new()),
            tags: ListBuilder::new(StringBuilder::new()),
            extras: StringBuilder::new(),
            vectors: VectorsBuilder::default(),
            marker_migrations: StringBuilder::new(),
            marker_digests: FixedSizeBinaryBuilder::new(16),
            bytes: 0,
        }
    }
}

impl RecordBuilder {
    /// Rows so far.
    pub fn len(&self) -> usize {
        self.extras.offsets_slice().len() - 1
    }

    /// Whether there is no row yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of content so far, for the page limit.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends one record.
    pub fn push(&mut self, r: &RecordRef<'_>) -> Result<()> {
        for vector in &r.vectors {
            vector.check()?;
        }
        let row = self.len();
        self.kinds.append_value(r.kind as u8);
        self.keys.append_option(r.key);
        self.ids.append_value(r.id);
        for (builder, text) in self.texts.iter_mut().zip(r.texts) {
            if let Some(text) = text {
                builder.fill(row);
                builder.append_value(text);
                self.bytes += text.len();
            }
        }
        for ((micros, text), time) in self.times.iter_mut().zip(r.times) {
            if let Some(value) = time.micros {
                micros.fill(row);
                micros.append_value(value);
            }
            if let Some(value) = time.text {
                text.fill(row);
                text.append_value(value);
            }
        }
        if let Some(version) = r.version {
            self.versions.fill(row);
            self.versions.append_value(version);
        }
        for (builder, score) in self.scores.iter_mut().zip(r.scores) {
            if let Some(score) = score {
                builder.fill(row);
                builder.append_value(score);
            }
        }
        if let Some(tags) = &r.tags {
            for tag in tags {
                self.tags.values().append_value(tag);
                self.bytes += tag.len();
            }
            self.tags.append(true);
        } else {
            self.tags.append(false);
        }
        self.extras.append_value(r.extra);
        self.vectors.push(&r.vectors);
        self.marker_migrations.append_option(r.marker_migration);
        match r.marker_digest {
            Some(digest) => self.marker_digests.append_value(digest)?,
            None => self.marker_digests.append_null(),
        }
        self.bytes += r.id.len() + r.extra.len() + 64;
        self.bytes += r.vectors.iter().map(|v| v.data.len() + v.indices.map_or(0, <[u8]>::len)).sum::<usize>();
        Ok(())
    }

    /// The finished batch.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let rows = self.len();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(self.kinds.finish()), Arc::new(self.keys.finish()), Arc::new(self.ids.finish())];
        for builder in &mut self.texts {
            builder.fill(rows);
            columns.push(Arc::new(builder.finish()));
        }
        for (micros, text) in &mut self.times {
            micros.fill(rows);
            text.fill(rows);
            columns.push(Arc::new(micros.finish()));
            columns.push(Arc::new(text.finish()));
        }
        self.versions.fill(rows);
        columns.push(Arc::new(self.versions.finish()));
        for builder in &mut self.scores {
            builder.fill(rows);
            columns.push(Arc::new(builder.finish()));
        }
        columns.push(Arc::new(self.tags.finish()));
        columns.push(Arc::new(self.extras.finish()));
        columns.push(self.vectors.finish()?);
        columns.push(Arc::new(self.marker_migrations.finish()));
        columns.push(Arc::new(self.marker_digests.finish()));
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// Borrowed access to the rows of a canonical batch.
pub struct RecordView<'a> {
    kinds: &'a UInt8Array,
    keys: &'a StringArray,
    ids: &'a StringArray,
    texts: [&'a StringArray; TEXT_FIELDS.len()],
    times: [(&'a Int64Array, &'a StringArray); TIME_FIELDS.len()],
    versions: &'a Int64Array,
    scores: [&'a Float64Array; SCORE_FIELDS.len()],
    tags: &'a ListArray,
    tag_values: &'a StringArray,
    extras: &'a StringArray,
    vectors: VectorsView<'a>,
    marker_migrations: &'a StringArray,
    marker_digests: &'a FixedSizeBinaryArray,
}

impl<'a> RecordView<'a> {
    /// Checks that `batch` has the canonical schema.
    pub fn new(batch: &'a RecordBatch) -> Result<Self> {
        if batch.num_columns() != schema().fields().len() {
            return Err(Error::invalid("not a canonical batch: wrong number of columns"));
        }
        let mut columns = batch.columns().iter().zip(batch.schema_ref().fields());
        let mut next = || columns.next().ok_or_else(|| Error::invalid("not a canonical batch"));
        macro_rules! take {
            () => {{
                let (column, field) = next()?;
                cast(column, field.name())?
            }};
        }
        let (kinds, keys, ids) = (take!(), take!(), take!());
        let mut texts = [keys; TEXT_FIELDS.len()];
        for slot in &mut texts {
            *slot = take!();
        }
        let mut times = Vec::with_capacity(TIME_FIELDS.len());
        for _ in TIME_FIELDS {
            let micros: &Int64Array = take!();
            let text: &StringArray = take!();
            times.push((micros, text));
        }
        let times = times.try_into().map_err(|_| Error::invalid("not a canonical batch"))?;
        let versions = take!();
        let scores = [take!(), take!(), take!()];
        let tags: &ListArray = take!();
        let tag_values = cast(tags.values(), "tags.item")?;
        let extras = take!();
        let vectors = VectorsView::new(next()?.0)?;
        let (marker_migrations, marker_digests) = (take!(), take!());
        Ok(Self {
            kinds,
            keys,
            ids,
            texts,
            times,
            versions,
            scores,
            tags,
            tag_values,
            extras,
            vectors,
            marker_migrations,
            marker_digests,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'a>> + '_ {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Kind of row `row`.
    pub fn kind(&self, row: usize) -> Kind {
        Kind::from_u8(self.kinds.value(row)).unwrap_or(Kind::Memory)
    }

    /// Id of row `row`.
    pub fn id(&self, row: usize) -> &'a str {
        self.ids.value(row)
    }

    /// Row `row`.
    pub fn get(&self, row: usize) -> RecordRef<'a> {
        let tags = self.tags.is_valid(row).then(|| {
            let offsets = self.tags.value_offsets();
            (offsets[row] as usize..offsets[row + 1] as usize).map(|i| self.tag_values.value(i)).collect()
        });
        RecordRef {
            kind: self.kind(row),
            key: option(self.keys, row),
            id: self.ids.value(row),
            texts: self.texts.map(|column| option(column, row)),
            times: std::array::from_fn(|i| TimeRef {
                micros: self.times[i].0.is_valid(row).then(|| self.times[i].0.value(row)),
                text: option(self.times[i].1, row),
            }),
            version: self.versions.is_valid(row).then(|| self.versions.value(row)),
            scores: self.scores.map(|column| column.is_valid(row).then(|| column.value(row))),
            tags,
            extra: self.extras.value(row),
            vectors: self.vectors.get(row),
            marker_migration: option(self.marker_migrations, row),
            marker_digest: self
                .marker_digests
                .is_valid(row)
                .then(|| self.marker_digests.value(row).try_into().unwrap_or_default()),
        }
    }
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
