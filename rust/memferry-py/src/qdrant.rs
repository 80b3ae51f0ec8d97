//! Qdrant in Python.

use std::sync::Mutex;
use std::time::Duration;

use memferry_core::error::Error;
use memferry_core::qdrant::{Client, Options, Rejected, Span, Ticket, VectorSpec};
use memferry_core::vectors;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};

/// A client of one Qdrant server; threads may share it.
#[pyclass(frozen, module = "memferry._native")]
pub struct QdrantStore {
    inner: Client,
}

/// A batch on its way to a server.
#[pyclass(frozen, module = "memferry._native")]
pub struct QdrantTicket {
    inner: Mutex<Option<Ticket>>,
}

impl QdrantStore {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Client) -> memferry_core::error::Result<T> + Send,
    ) -> PyRes<T> {
        Ok(py.detach(|| work(&self.inner))?)
    }
}

fn borrowed(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

fn seconds(secs: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(secs).map_err(|_| Error::invalid(format!("not a time in seconds: {secs}")))
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::invalid(e.to_string()))
}

#[pymethods]
impl QdrantStore {
    #[new]
    #[pyo3(signature = (url, *, api_key=None, ca_pem=None, timeout_secs=60.0))]
    fn new(
        py: Python<'_>,
        url: String,
        api_key: Option<String>,
        ca_pem: Option<String>,
        timeout_secs: f64,
    ) -> PyRes<Self> {
        let options = Options { url, api_key, ca_pem, timeout: seconds(timeout_secs)? };
        Ok(Self { inner: py.detach(|| Client::new(options))? })
    }

    fn exists(&self, py: Python<'_>, collection: &str) -> PyRes<bool> {
        self.with(py, |client| client.exists(collection))
    }

    /// Names of all collections.
    fn collections(&self, py: Python<'_>) -> PyRes<Vec<String>> {
        self.with(py, Client::list)
    }

    /// What is known of a collection, as JSON.
    fn info(&self, py: Python<'_>, collection: &str) -> PyRes<String> {
        self.with(py, |client| json(&client.info(collection)?))
    }

    /// Makes a collection; the indexing threshold it had before it was deferred.
    #[pyo3(signature = (collection, vectors_json, *, deferred_index=false))]
    fn create(&self, py: Python<'_>, collection: &str, vectors_json: &str, deferred_index: bool) -> PyRes<Option<u64>> {
        let vectors: Vec<VectorSpec> =
            serde_json::from_str(vectors_json).map_err(|e| Error::invalid(format!("vectors: {e}")))?;
        self.with(py, |client| client.create(collection, &vectors, deferred_index))
    }

    /// Sets it in KiB; 0 for no index, None for the default of servers.
    fn set_indexing_threshold(&self, py: Python<'_>, collection: &str, threshold: Option<u64>) -> PyRes<()> {
        self.with(py, |client| client.set_indexing_threshold(collection, threshold))
    }

    fn delete_collection(&self, py: Python<'_>, collection: &str) -> PyRes<bool> {
        self.with(py, |client| client.delete_collection(collection))
    }

    fn create_payload_index(&self, py: Python<'_>, collection: &str, field: &str, field_type: &str) -> PyRes<()> {
        self.with(py, |client| client.create_payload_index(collection, field, field_type))
    }

    /// Whether the collection is optimized within the deadline.
    fn wait_green(&self, py: Python<'_>, collection: &str, deadline_secs: f64) -> PyRes<bool> {
        let deadline = seconds(deadline_secs)?;
        self.with(py, |client| client.wait_green(collection, deadline))
    }

    /// Raw batch, points read, id to go on at.
    #[pyo3(signature = (collection, start, until, max_records, max_bytes, *, filter=vec![], with_vectors=true))]
    #[expect(clippy::too_many_arguments, reason = "a page is what it is")]
    fn scroll(
        &self,
        py: Python<'_>,
        collection: &str,
        start: Option<&str>,
        until: Option<&str>,
        max_records: usize,
        max_bytes: usize,
        filter: Vec<(String, String)>,
        with_vectors: bool,
    ) -> PyRes<(Batch, u64, Option<String>)> {
        let span = Span { start, until, max_records, max_bytes, filter: &filter, with_vectors };
        let page = self.with(py, |client| client.scroll(collection, span))?;
        Ok((page.raw.into(), page.read, page.next))
    }

    /// The points with these ids that there are, in the order of the ids.
    #[pyo3(signature = (collection, keys, *, with_vectors=true))]
    fn get(&self, py: Python<'_>, collection: &str, keys: Vec<String>, with_vectors: bool) -> PyRes<Batch> {
        Ok(self.with(py, |client| client.get(collection, &borrowed(&keys), with_vectors))?.into())
    }

    #[pyo3(signature = (collection, *, filter=vec![], exact=true))]
    fn count(&self, py: Python<'_>, collection: &str, filter: Vec<(String, String)>, exact: bool) -> PyRes<u64> {
        self.with(py, |client| client.count(collection, &filter, exact))
    }

    /// Writes a raw batch and waits until it is applied; rows that were not written, with the reason.
    fn upsert(&self, py: Python<'_>, collection: &str, raw: &Batch) -> PyRes<Vec<Rejected>> {
        self.with(py, |client| client.upsert(collection, &raw.inner))
    }

    /// Starts to write a raw batch.
    fn submit(&self, py: Python<'_>, collection: &str, raw: &Batch) -> PyRes<QdrantTicket> {
        let ticket = self.with(py, |client| client.submit(collection, &raw.inner))?;
        Ok(QdrantTicket { inner: Mutex::new(Some(ticket)) })
    }

    fn delete(&self, py: Python<'_>, collection: &str, keys: Vec<String>) -> PyRes<()> {
        self.with(py, |client| client.delete(collection, &borrowed(&keys)))
    }

    /// Writes JSON objects under ids as payloads without vectors.
    fn put_documents(&self, py: Python<'_>, collection: &str, documents: Vec<(String, String)>) -> PyRes<()> {
        self.with(py, |client| client.put_documents(collection, &documents))
    }

    /// Ids and scores of the nearest points, best first.
    #[pyo3(signature = (collection, vector_name, vector, limit, *, filter=vec![], exact=false))]
    #[expect(clippy::too_many_arguments, reason = "a query is what it is")]
    fn query(
        &self,
        py: Python<'_>,
        collection: &str,
        vector_name: &str,
        vector: Vec<f32>,
        limit: usize,
        filter: Vec<(String, String)>,
        exact: bool,
    ) -> PyRes<Vec<(String, f32)>> {
        self.with(py, |client| client.query(collection, vector_name, &vector, limit, &filter, exact))
    }
}

#[pymethods]
impl QdrantTicket {
    /// Waits until the batch is applied; rows that were not written, with the reason. Only once.
    fn ack(&self, py: Python<'_>) -> PyRes<Vec<Rejected>> {
        py.detach(|| {
            let ticket = self.inner.lock().map_err(poisoned)?.take();
            Ok(ticket.ok_or_else(|| Error::invalid("this ticket was acknowledged before"))?.ack()?)
        })
    }
}

/// The batch with every dense or multi vector of these names at length one, so that a Cosine collection keeps it.
#[pyfunction]
pub fn normalize_vectors(py: Python<'_>, records: &Batch, names: Vec<String>) -> PyRes<Batch> {
    Ok(py.detach(|| vectors::normalize(&records.inner, &names))?.into())
}

/// Rows with a NaN or an infinity in a dense or multi vector of these names.
#[pyfunction]
pub fn vectors_not_finite(py: Python<'_>, records: &Batch, names: Vec<String>) -> PyRes<Vec<usize>> {
    Ok(py.detach(|| vectors::not_finite(&records.inner, &names))?)
}

/// The batch without vectors that a store cannot keep: those of the names in `finite` with a NaN or an infinity, and
/// those whose name one before has, if `unnamed` says what one without a name is called.
#[pyfunction]
#[pyo3(signature = (records, *, finite=vec![], unnamed=None))]
pub fn give_up_vectors(py: Python<'_>, records: &Batch, finite: Vec<String>, unnamed: Option<&str>) -> PyRes<Batch> {
    Ok(py.detach(|| vectors::give_up(&records.inner, &finite, unnamed))?.into())
}

/// A raw batch with doubles as Qdrant gives them back, and the rows in which one changes by it.
#[pyfunction]
pub fn qdrant_given_back(py: Python<'_>, raw: &Batch) -> PyRes<(Batch, Vec<usize>)> {
    let (kept, changed) = py.detach(|| memferry_core::qdrant::given_back(&raw.inner))?;
    Ok((kept.into(), changed))
}

/// A raw batch that was read from Qdrant, with the doubles that have to be written so that it comes back as it is.
#[pyfunction]
pub fn qdrant_to_come_back(py: Python<'_>, raw: &Batch) -> PyRes<Batch> {
    Ok(py.detach(|| memferry_core::qdrant::to_come_back(&raw.inner))?.into())
}
