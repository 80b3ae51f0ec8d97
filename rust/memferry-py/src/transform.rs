//! Map, filter and dedup in Python.

use std::sync::Mutex;

use memferry_core::digest::identity;
use memferry_core::gaps::GAPS;
use memferry_core::record::RecordView;
use memferry_core::transform::{Mapping, Transform as Core, Transformed, dedup};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};
use crate::mapper::{QuarantinedParts, parts};

/// Runs the decisions of a plan on batches.
#[pyclass(frozen, module = "memferry._native")]
pub struct Transform {
    inner: Core,
}

/// Records, a byte a row, quarantined rows, what was dropped.
pub type Outcome<'py> = (Batch, Bound<'py, PyBytes>, Vec<QuarantinedParts>, Vec<(&'static str, u64, String)>);

#[pymethods]
impl Transform {
    #[new]
    fn new(decisions_json: &str) -> PyRes<Self> {
        Ok(Self { inner: Core::from_json(decisions_json)? })
    }

    /// The records that go on; one byte a row that was given: 0 kept, 1 filtered, 2 deduplicated, 3 quarantined;
    /// quarantined rows; gaps of what the mapping dropped: name, records, id of the first.
    fn apply<'py>(&self, py: Python<'py>, records: &Batch) -> PyRes<Outcome<'py>> {
        Ok(outcome(py, py.detach(|| self.inner.apply(&records.inner))?))
    }
}

/// What came of a batch, for Python.
pub fn outcome(py: Python<'_>, done: Transformed) -> Outcome<'_> {
    let fates: Vec<u8> = done.fates.iter().map(|fate| *fate as u8).collect();
    let lost = done.lost.into_iter().map(|(i, n, id)| (GAPS[i], n, id)).collect();
    (done.records.into(), PyBytes::new(py, &fates), parts(done.quarantined), lost)
}

/// Keys by which records say the same, at most 20 bytes each.
#[pyclass(frozen, module = "memferry._native")]
pub struct DedupKeys {
    inner: Mutex<dedup::DedupKeys>,
}

#[pymethods]
impl DedupKeys {
    #[new]
    #[pyo3(signature = (*, exact=false))]
    fn new(exact: bool) -> Self {
        Self { inner: Mutex::new(dedup::DedupKeys::new(exact)) }
    }

    fn __len__(&self) -> PyRes<usize> {
        Ok(self.inner.lock().map_err(poisoned)?.len())
    }

    /// Bytes held for the keys.
    #[getter]
    fn held_bytes(&self) -> PyRes<usize> {
        Ok(self.inner.lock().map_err(poisoned)?.held_bytes())
    }

    /// Adds the keys of records.
    fn add(&self, py: Python<'_>, records: &Batch) -> PyRes<()> {
        py.detach(|| {
            // Hashed before the lock is taken, so that ranges are scanned in parallel.
            let blank = dedup::DedupKeys::new(self.inner.lock().map_err(poisoned)?.exact());
            let keys = blank.keys(&records.inner)?;
            self.inner.lock().map_err(poisoned)?.extend(keys.into_iter().flatten());
            Ok(())
        })
    }

    /// Hex key of each record, None where it has no text to compare.
    fn keys(&self, py: Python<'_>, records: &Batch) -> PyRes<Vec<Option<String>>> {
        let keys = py.detach(|| PyRes::Ok(self.inner.lock().map_err(poisoned)?.keys(&records.inner)?))?;
        Ok(keys.into_iter().map(|key| key.map(|key| format!("{key:032x}"))).collect())
    }

    /// Only the keys that stand more than once, each once, and how many records have one of them.
    fn repeated(&self, py: Python<'_>) -> PyRes<(Self, u64)> {
        let (repeated, records) = py.detach(|| PyRes::Ok(self.inner.lock().map_err(poisoned)?.repeated()))?;
        Ok((Self { inner: Mutex::new(repeated) }, records))
    }

    /// Row and hex key of the records whose key was added.
    fn members(&self, py: Python<'_>, records: &Batch) -> PyRes<Vec<(usize, String)>> {
        let members = py.detach(|| PyRes::Ok(self.inner.lock().map_err(poisoned)?.members(&records.inner)?))?;
        Ok(members.into_iter().map(|(row, key)| (row, format!("{key:032x}"))).collect())
    }
}

/// A sample of records that does not depend on their order.
#[pyclass(frozen, module = "memferry._native")]
pub struct Sample {
    inner: Mutex<dedup::Smallest>,
}

#[pymethods]
impl Sample {
    #[new]
    fn new(size: usize) -> Self {
        Self { inner: Mutex::new(dedup::Smallest::new(size)) }
    }

    /// Adds records.
    fn add(&self, py: Python<'_>, records: &Batch) -> PyRes<()> {
        py.detach(|| {
            let view = RecordView::new(&records.inner)?;
            let identities = (0..view.len()).map(|row| identity(view.kind(row), view.id(row)));
            self.inner.lock().map_err(poisoned)?.extend(identities);
            Ok(())
        })
    }

    /// Hex of the largest identity that is in it, None where there is none.
    fn largest(&self) -> PyRes<Option<String>> {
        Ok(self.inner.lock().map_err(poisoned)?.largest().map(|largest| format!("{largest:032x}")))
    }
}

/// Refuses a mapping in its JSON form that contradicts itself; the error begins with the path of what is wrong.
#[pyfunction]
pub fn check_mapping(mapping_json: &str) -> PyRes<()> {
    Mapping::from_json(mapping_json)?;
    Ok(())
}

/// Refuses a filter that does not compile or cannot give yes or no.
#[pyfunction]
pub fn check_where(expression: &str) -> PyRes<()> {
    memferry_core::transform::Where::compile(expression)?;
    Ok(())
}
