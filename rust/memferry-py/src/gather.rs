//! Gathering observations, in Python.

use std::path::PathBuf;
use std::sync::Mutex;

use memferry_core::gather;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};

/// Observations on their way to the entities they go into.
#[pyclass(frozen, module = "memferry._native")]
pub struct Spill {
    inner: Mutex<gather::Spill>,
}

#[pymethods]
impl Spill {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, cache_bytes: u64) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| gather::Spill::create(&folder, cache_bytes))?) })
    }

    /// Adds the observations of a batch.
    fn add(&self, py: Python<'_>, records: &Batch) -> PyRes<()> {
        py.detach(|| Ok(self.inner.lock().map_err(poisoned)?.add(&records.inner)?))
    }

    /// The batch with the observations of its entities within them, and how many those are.
    fn attach(&self, py: Python<'_>, records: &Batch) -> PyRes<(Batch, u64)> {
        let (records, attached) = py.detach(|| {
            let spill = self.inner.lock().map_err(poisoned)?;
            PyRes::Ok(spill.attach(&records.inner)?)
        })?;
        Ok((records.into(), attached))
    }

    /// How many observations do not get the place that their id says, and the id of one; None where all do.
    fn displaced(&self, py: Python<'_>) -> PyRes<Option<(u64, String)>> {
        py.detach(|| Ok(self.inner.lock().map_err(poisoned)?.displaced()?))
    }
}

/// How many observations were gathered into the entities of a batch.
#[pyfunction]
pub fn gathered(py: Python<'_>, records: &Batch) -> PyRes<u64> {
    Ok(py.detach(|| gather::gathered(&records.inner))?)
}
