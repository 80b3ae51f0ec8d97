//! The raw shape: what a backend reads or writes before a profile gives it meaning.
//!
//! One schema carries every shape: `key` is the store's own key of the row, `body` the document, payload, properties or
//! columns as text, `vectors` what the store keeps beside the body. A node's labels and an edge's type and ends are
//! members of the body under reserved keys (`$labels`, `$type`, `$from`, `$to`).

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::record::{VectorRef, Vectors, VectorsBuilder, VectorsView, cast, vectors_type};

/// A row that could not be moved, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The store's key of the row: point id, byte offset, table row.
    pub key: String,
    /// Word of the kind, when it was known.
    pub kind: Option<&'static str>,
    /// Original id, when it was known.
    pub id: Option<String>,
    /// Why, as a stable slug.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// The row as it was read.
    pub raw: Vec<u8>,
}

/// The schema of every raw batch.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("body", DataType::Binary, false),
            Field::new("vectors", vectors_type(), false),
        ]))
    });
    SCHEMA.clone()
}

/// Builds a raw batch.
#[derive(Default)]
pub struct RawBuilder {
    keys: StringBuilder,
    bodies: BinaryBuilder,
    vectors: VectorsBuilder,
    rows: usize,
    bytes: usize,
}

impl RawBuilder {
    /// A builder whose vectors share their numbers with a `vectors` column, as far as they are the ones there.
    pub fn sharing(vectors: &ArrayRef) -> Result<Self> {
        Ok(Self { vectors: VectorsBuilder::sharing(vectors)?, ..Self::default() })
    }

    /// Appends a row.
    pub fn push(&mut self, key: &str, body: &[u8], vectors: &[VectorRef<'_>]) {
        self.vectors.push(vectors);
        self.keys.append_value(key);
        self.bodies.append_value(body);
        self.rows += 1;
        self.bytes += key.len() + body.len() + vectors.iter().map(|v| v.data.len()).sum::<usize>();
    }

    /// Rows so far.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row yet.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes so far, for the page limit.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The finished batch.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.keys.finish()), Arc::new(self.bodies.finish()), self.vectors.finish()?];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// Borrowed access to a raw batch.
pub struct RawView<'a> {
    keys: &'a StringArray,
    bodies: &'a BinaryArray,
    vectors: VectorsView<'a>,
}

impl<'a> RawView<'a> {
    /// Checks the schema.
    pub fn new(batch: &'a RecordBatch) -> Result<Self> {
        if batch.num_columns() != 3 {
            return Err(Error::invalid("not a raw batch: expected key, body, vectors"));
        }
        Ok(Self {
            keys: cast(batch.column(0), "key")?,
            bodies: cast(batch.column(1), "body")?,
            vectors: VectorsView::new(batch.column(2))?,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        use arrow_array::Array as _;
        self.keys.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key of a row.
    pub fn key(&self, row: usize) -> &'a str {
        self.keys.value(row)
    }

    /// Body of a row.
    pub fn body(&self, row: usize) -> &'a [u8] {
        self.bodies.value(row)
    }

    /// Vectors of a row.
    pub fn vectors(&self, row: usize) -> Vectors<'a> {
        self.vectors.get(row)
    }
}
