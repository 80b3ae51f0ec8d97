//! Reading a canonical batch.

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, UInt8Array,
};

use super::{Kind, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TimeRef, VectorsView, cast, option, schema};
use crate::error::{Error, Result};

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

    /// The column of the vectors of a canonical batch.
    pub fn vectors_of(batch: &RecordBatch) -> Result<&ArrayRef> {
        batch.column_by_name("vectors").ok_or_else(|| Error::invalid("not a canonical batch: no vectors"))
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
