//! JSONL files in Python.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use memferry_core::error::Error;
use memferry_core::jsonl::{Compression, Index, Part, Reader, align, concatenate};
use memferry_core::record::Kind;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};
use crate::mapper::Mapper;

/// Reads one file in pages.
#[pyclass(frozen, module = "memferry._native")]
pub struct JsonlReader {
    inner: Mutex<Reader>,
}

#[pymethods]
impl JsonlReader {
    #[new]
    fn new(path: PathBuf) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(Reader::open(&path)?) })
    }

    /// Whether byte ranges can be read in parallel.
    #[getter]
    fn seekable(&self) -> PyRes<bool> {
        Ok(self.inner.lock().map_err(poisoned)?.seekable())
    }

    /// Raw batch, lines read, offset to go on at.
    fn read_page(
        &self,
        py: Python<'_>,
        start: u64,
        until: Option<u64>,
        max_records: usize,
        max_bytes: usize,
    ) -> PyRes<(Batch, u64, Option<u64>)> {
        let page = py.detach(|| {
            let mut reader = self.inner.lock().map_err(poisoned)?;
            PyRes::Ok(reader.read_page(start, until, max_records, max_bytes)?)
        })?;
        Ok((page.raw.into(), page.read, page.next))
    }
}

/// Writes one part file.
#[pyclass(frozen, module = "memferry._native")]
pub struct JsonlPart {
    inner: Mutex<Option<Part>>,
}

fn ended() -> Error {
    Error::invalid("this part is finished")
}

#[pymethods]
impl JsonlPart {
    /// Starts `path` over; packed as the name of `whole` says.
    #[new]
    fn new(path: PathBuf, whole: PathBuf) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(Some(Part::create(&path, Compression::of(&whole))?)) })
    }

    /// Appends one line a row.
    fn append(&self, py: Python<'_>, raw: &Batch) -> PyRes<()> {
        py.detach(|| {
            let mut part = self.inner.lock().map_err(poisoned)?;
            Ok(part.as_mut().ok_or_else(ended)?.append(&raw.inner)?)
        })
    }

    /// Ends the part: on return it is on the disk.
    fn finish(&self, py: Python<'_>) -> PyRes<()> {
        py.detach(|| {
            let part = self.inner.lock().map_err(poisoned)?.take();
            Ok(part.ok_or_else(ended)?.finish()?)
        })
    }
}

/// Finds records of an existing file.
#[pyclass(frozen, module = "memferry._native")]
pub struct JsonlIndex {
    inner: Mutex<Index>,
}

fn keys(identities: &[(String, String)]) -> Result<Vec<(Kind, &str)>, Error> {
    identities.iter().map(|(kind, id)| Ok((Kind::parse(kind)?, id.as_str()))).collect()
}

#[pymethods]
impl JsonlIndex {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, mapper: &Mapper) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| Index::build(&path, &mapper.inner))?) })
    }

    /// The records with these kinds and ids.
    fn fetch(&self, py: Python<'_>, mapper: &Mapper, identities: Vec<(String, String)>) -> PyRes<Batch> {
        py.detach(|| {
            let mut index = self.inner.lock().map_err(poisoned)?;
            Ok(index.fetch(&mapper.inner, &keys(&identities)?)?.into())
        })
    }

    /// Leaves these records out of the rest.
    fn replace(&self, identities: Vec<(String, String)>) -> PyRes<()> {
        self.inner.lock().map_err(poisoned)?.replace(&keys(&identities)?);
        Ok(())
    }

    /// Lines nobody replaced from an offset on, and where to go on.
    fn rest(&self, py: Python<'_>, start: u64) -> PyRes<(Batch, Option<u64>)> {
        let (raw, next) = py.detach(|| {
            let mut index = self.inner.lock().map_err(poisoned)?;
            PyRes::Ok(index.rest(start)?)
        })?;
        Ok((raw.into(), next))
    }
}

/// The start of the first line at or after `offset`.
#[pyfunction]
pub fn jsonl_align(path: PathBuf, offset: u64) -> PyRes<u64> {
    Ok(align(&path, offset)?)
}

/// Joins part files and renames the result into place.
#[pyfunction]
pub fn jsonl_concatenate(py: Python<'_>, parts: Vec<PathBuf>, whole: PathBuf) -> PyRes<()> {
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    Ok(py.detach(|| concatenate(&parts, &whole))?)
}
