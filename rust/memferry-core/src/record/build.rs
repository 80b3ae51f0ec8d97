//! Filling a canonical batch.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder, ListBuilder, PrimitiveBuilder, StringBuilder,
    UInt8Builder,
};
use arrow_array::{ArrayRef, ArrowPrimitiveType, RecordBatch};

use super::{RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorsBuilder, schema};
use crate::error::Result;

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
    /// A builder whose vectors share their numbers with a `vectors` column, as far as they are the ones there.
    pub fn sharing(vectors: &ArrayRef) -> Result<Self> {
        Ok(Self { vectors: VectorsBuilder::sharing(vectors)?, ..Self::default() })
    }

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
