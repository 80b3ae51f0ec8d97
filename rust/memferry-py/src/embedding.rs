//! Re-embedding in Python, which asks the endpoint.

use std::path::PathBuf;
use std::sync::Mutex;

use hashbrown::HashMap;
use memferry_core::embedding::{Cache, Embedding as Core, Made, TextKey, key_of};
use memferry_core::error::Error;
use memferry_core::transform::Transformed;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};
use crate::transform::{Outcome, outcome};

/// What is embedded, and the vectors that were made so far.
#[pyclass(frozen, module = "memferry._native")]
pub struct Embedding {
    inner: Core,
}

/// The vectors of one model, kept in a file.
#[pyclass(frozen, module = "memferry._native")]
pub struct EmbeddingCache {
    inner: Mutex<Cache>,
}

#[pymethods]
impl Embedding {
    #[new]
    fn new(settings_json: &str) -> PyRes<Self> {
        Ok(Self { inner: Core::from_json(settings_json)? })
    }

    /// The records as they will be, with a sample where a new vector is to be made.
    fn preview<'py>(&self, py: Python<'py>, records: &Batch, sample: Vec<u8>) -> PyRes<Outcome<'py>> {
        Ok(outcome(py, py.detach(|| self.inner.preview(&records.inner, &sample))?))
    }

    /// How many records get a new vector, and the bytes of their texts.
    fn extent(&self, py: Python<'_>, records: &Batch) -> PyRes<(u64, u64)> {
        Ok(py.detach(|| self.inner.extent(&records.inner))?)
    }

    /// Keys and texts of those that the cache lacks, each once.
    fn missing<'py>(
        &self,
        py: Python<'py>,
        records: &Batch,
        cache: &EmbeddingCache,
    ) -> PyRes<Vec<(Bound<'py, PyBytes>, String)>> {
        let missing = py.detach(|| {
            let cache = cache.inner.lock().map_err(poisoned)?;
            let mut missing = Vec::new();
            for (key, text) in self.inner.texts(&records.inner)? {
                if !cache.contains(&key)? {
                    missing.push((key, text.to_owned()));
                }
            }
            PyRes::Ok(missing)
        })?;
        Ok(missing.into_iter().map(|(key, text)| (PyBytes::new(py, &key), text)).collect())
    }

    /// The records with the vectors of the cache; those whose text was refused are quarantined.
    fn apply<'py>(
        &self,
        py: Python<'py>,
        records: &Batch,
        cache: &EmbeddingCache,
        refused: Vec<(Vec<u8>, String)>,
    ) -> PyRes<Outcome<'py>> {
        let done: Transformed = py.detach(|| {
            let mut made = HashMap::new();
            for (key, why) in refused {
                made.insert(key_from(&key)?, Made::Refused(why));
            }
            {
                let cache = cache.inner.lock().map_err(poisoned)?;
                for (key, _) in self.inner.texts(&records.inner)? {
                    if let Some(vector) = cache.get(&key)? {
                        made.insert(key, vector);
                    }
                }
            }
            PyRes::Ok(self.inner.apply(&records.inner, &made)?)
        })?;
        Ok(outcome(py, done))
    }
}

#[pymethods]
impl EmbeddingCache {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, model: &str, dimensions: u32) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| Cache::open(&path, model, dimensions))?) })
    }

    /// The vector of a text, `f32` little-endian; None where it was not made yet.
    fn get<'py>(&self, py: Python<'py>, text: &str) -> PyRes<Option<Bound<'py, PyBytes>>> {
        Ok(match self.inner.lock().map_err(poisoned)?.get(&key_of(text))? {
            Some(Made::Vector(vector)) => Some(PyBytes::new(py, &vector)),
            _ => None,
        })
    }

    /// Keeps vectors under the keys of their texts, all or none.
    fn keep(&self, py: Python<'_>, keys: Vec<Vec<u8>>, vectors: Vec<Vec<u8>>) -> PyRes<()> {
        py.detach(|| {
            let keys = keys.iter().map(|key| key_from(key)).collect::<PyRes<Vec<_>>>()?;
            let vectors: Vec<_> = keys.into_iter().zip(vectors.iter().map(Vec::as_slice)).collect();
            Ok(self.inner.lock().map_err(poisoned)?.keep(&vectors)?)
        })
    }
}

fn key_from(bytes: &[u8]) -> PyRes<TextKey> {
    Ok(bytes.try_into().map_err(|_| Error::invalid("a key of a text has 32 bytes"))?)
}

/// The key under which the vector of a text is kept.
#[pyfunction]
pub fn text_key<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &key_of(text))
}
