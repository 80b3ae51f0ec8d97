//! Batches in Python: opaque, exchanged with other libraries through the Arrow PyCapsule interface.

use arrow_array::{BooleanArray, RecordBatch};
use memferry_core::digest::{digests, unlike};
use memferry_core::error::Error;
use memferry_core::raw::{RawBuilder, RawView};
use memferry_core::record::{Kind, RecordView, VectorKind, VectorRef};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::error::PyRes;

/// One vector as Python sees it: name, model, dim, normalized, kind, indices, data.
type VectorParts = (String, Option<String>, u32, Option<bool>, u8, Option<Vec<u8>>, Vec<u8>);

/// A raw row as Python sees it: key, body, vectors.
type RowParts<'py> = (String, Bound<'py, PyBytes>, Vec<VectorParts>);

/// An Arrow record batch, canonical or raw.
#[pyclass(frozen, module = "memferry._native")]
pub struct Batch {
    pub inner: RecordBatch,
}

impl From<RecordBatch> for Batch {
    fn from(inner: RecordBatch) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.inner.num_rows()
    }

    /// Bytes held by the columns.
    #[getter]
    fn nbytes(&self) -> usize {
        self.inner.get_array_memory_size()
    }

    /// Records by kind, in copy order.
    fn counts(&self) -> PyRes<Vec<(&'static str, u64)>> {
        let view = RecordView::new(&self.inner)?;
        let mut counts = [0; 4];
        for row in 0..view.len() {
            counts[view.kind(row) as usize] += 1;
        }
        Ok(Kind::ALL.into_iter().map(|kind| (kind.as_str(), counts[kind as usize])).collect())
    }

    /// Kind and id of each record.
    fn identities(&self) -> PyRes<Vec<(&'static str, &str)>> {
        let view = RecordView::new(&self.inner)?;
        Ok((0..view.len()).map(|row| (view.kind(row).as_str(), view.id(row))).collect())
    }

    /// One byte a record: the place of its kind in the copy order.
    fn kinds<'py>(&self, py: Python<'py>) -> PyRes<Bound<'py, PyBytes>> {
        let view = RecordView::new(&self.inner)?;
        Ok(PyBytes::new(py, &(0..view.len()).map(|row| view.kind(row) as u8).collect::<Vec<_>>()))
    }

    /// Name, kind (0 dense, 1 sparse, 2 multi), dimension and number of the vectors in a canonical batch.
    fn vector_specs(&self) -> PyRes<Vec<(String, u8, u32, u64)>> {
        let mut specs = std::collections::BTreeMap::new();
        for record in RecordView::new(&self.inner)?.iter() {
            for v in &record.vectors {
                *specs.entry((v.name.to_owned(), v.kind as u8, v.dim)).or_insert(0) += 1;
            }
        }
        Ok(specs.into_iter().map(|((name, kind, dim), n)| (name, kind, dim, n)).collect())
    }

    /// Marker of each record: migration and hex digest, or None.
    fn markers(&self) -> PyRes<Vec<Option<(&str, String)>>> {
        let view = RecordView::new(&self.inner)?;
        let marker = |row| {
            let record = view.get(row);
            let digest = record.marker_digest.map_or(0, u128::from_be_bytes);
            record.marker_migration.map(|migration| (migration, format!("{digest:032x}")))
        };
        Ok((0..view.len()).map(marker).collect())
    }

    /// Hex digest of each record.
    fn digests(&self, py: Python<'_>) -> PyRes<Vec<String>> {
        let digests = py.detach(|| digests(&self.inner))?;
        Ok(digests.into_iter().map(|d| format!("{d:032x}")).collect())
    }

    /// Records that are others at the same place of another batch: how many, and the id of the first; None without any.
    fn unlike(&self, py: Python<'_>, other: &Self) -> PyRes<Option<(u64, String)>> {
        Ok(py.detach(|| unlike(&self.inner, &other.inner))?)
    }

    /// The rows whose byte in `mask` is not zero.
    fn filter(&self, py: Python<'_>, mask: &[u8]) -> PyRes<Self> {
        if mask.len() != self.inner.num_rows() {
            return Err(Error::invalid("filter: one byte a row is needed").into());
        }
        let mask = BooleanArray::from(mask.iter().map(|b| *b != 0).collect::<Vec<_>>());
        let inner = py.detach(|| arrow_select::filter::filter_record_batch(&self.inner, &mask)).map_err(Error::from)?;
        Ok(inner.into())
    }

    /// Batches of one schema as one.
    #[staticmethod]
    fn concat(py: Python<'_>, batches: Vec<Py<Self>>) -> PyRes<Self> {
        let inner: Vec<RecordBatch> = batches.iter().map(|b| b.get().inner.clone()).collect();
        let schema = inner.first().map_or_else(memferry_core::record::schema, RecordBatch::schema);
        let whole = py.detach(|| arrow_select::concat::concat_batches(&schema, &inner)).map_err(Error::from)?;
        Ok(whole.into())
    }

    /// The rows with these numbers, in that order.
    fn take(&self, py: Python<'_>, rows: Vec<u64>) -> PyRes<Self> {
        let len = self.inner.num_rows();
        if let Some(row) = rows.iter().find(|row| **row >= len as u64) {
            return Err(Error::invalid(format!("there is no row {row} in a batch of {len}")).into());
        }
        let rows = arrow_array::UInt64Array::from(rows);
        let inner = py.detach(|| arrow_select::take::take_record_batch(&self.inner, &rows)).map_err(Error::from)?;
        Ok(inner.into())
    }

    /// Rows of a raw batch: key, body, vectors.
    fn rows<'py>(&self, py: Python<'py>) -> PyRes<Vec<RowParts<'py>>> {
        let view = RawView::new(&self.inner)?;
        let part = |v: &VectorRef<'_>| {
            let model = v.model.map(str::to_owned);
            let indices = v.indices.map(<[u8]>::to_vec);
            (v.name.to_owned(), model, v.dim, v.normalized, v.kind as u8, indices, v.data.to_vec())
        };
        Ok((0..view.len())
            .map(|row| {
                let vectors = view.vectors(row).iter().map(part).collect();
                (view.key(row).to_owned(), PyBytes::new(py, view.body(row)), vectors)
            })
            .collect())
    }

    /// A raw batch of rows: key, body, vectors.
    #[staticmethod]
    fn from_rows(rows: Vec<(String, Vec<u8>, Vec<VectorParts>)>) -> PyRes<Self> {
        let mut raw = RawBuilder::default();
        for (key, body, vectors) in &rows {
            let vectors = vectors
                .iter()
                .map(|(name, model, dim, normalized, kind, indices, data)| {
                    Ok(VectorRef {
                        name,
                        model: model.as_deref(),
                        dim: *dim,
                        normalized: *normalized,
                        kind: VectorKind::from_u8(*kind)?,
                        indices: indices.as_deref(),
                        data,
                    })
                })
                .collect::<Result<Vec<_>, Error>>()?;
            raw.push(key, body, &vectors);
        }
        Ok(raw.finish()?.into())
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let schema = pyo3_arrow::PySchema::from(self.inner.schema());
        schema.into_pyobject(py)?.call_method0("__arrow_c_schema__")
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let batch = pyo3_arrow::PyRecordBatch::new(self.inner.clone());
        Ok(batch.into_pyobject(py)?.call_method1("__arrow_c_array__", (requested_schema,))?.cast_into()?)
    }
}
