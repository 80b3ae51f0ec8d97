//! The embedded store in Python.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use memferry_core::embedded::Store;
use memferry_core::record::Kind;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};
use crate::mapper::{QuarantinedParts, parts};

/// One connection to an embedded store.
#[pyclass(frozen, module = "memferry._native")]
pub struct EmbeddedStore {
    inner: Mutex<Store>,
}

impl EmbeddedStore {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Store) -> memferry_core::error::Result<T> + Send,
    ) -> PyRes<T> {
        py.detach(|| {
            let store: MutexGuard<'_, Store> = self.inner.lock().map_err(poisoned)?;
            Ok(work(&store).map_err(|e| e.in_file(store.path()))?)
        })
    }
}

fn borrowed(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

#[pymethods]
impl EmbeddedStore {
    /// Opens a store read-only.
    #[staticmethod]
    fn open_source(py: Python<'_>, path: PathBuf) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| Store::open_source(&path))?) })
    }

    /// Opens a store to write it, making it where there is none.
    #[staticmethod]
    fn open_target(py: Python<'_>, path: PathBuf) -> PyRes<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| Store::open_target(&path))?) })
    }

    fn store_id(&self, py: Python<'_>) -> PyRes<String> {
        self.with(py, Store::store_id)
    }

    fn data_version(&self, py: Python<'_>) -> PyRes<i64> {
        self.with(py, Store::data_version)
    }

    fn count(&self, py: Python<'_>, kind: &str) -> PyRes<u64> {
        let kind = Kind::parse(kind)?;
        self.with(py, |store| store.count(kind))
    }

    fn bounds(&self, py: Python<'_>, kind: &str) -> PyRes<Option<(i64, i64)>> {
        let kind = Kind::parse(kind)?;
        self.with(py, |store| store.bounds(kind))
    }

    /// Records, quarantined rows, rows read, `seq` to go on after.
    #[pyo3(signature = (kind, after, until, max_records, max_bytes, *, with_vectors=true))]
    #[expect(clippy::too_many_arguments, reason = "a page is what it is")]
    fn read_page(
        &self,
        py: Python<'_>,
        kind: &str,
        after: i64,
        until: Option<i64>,
        max_records: usize,
        max_bytes: usize,
        with_vectors: bool,
    ) -> PyRes<(Batch, Vec<QuarantinedParts>, u64, Option<i64>)> {
        let kind = Kind::parse(kind)?;
        let page = self.with(py, |store| store.read_page(kind, after, until, max_records, max_bytes, with_vectors))?;
        Ok((page.records.into(), parts(page.quarantined), page.read, page.next))
    }

    fn fetch(&self, py: Python<'_>, kind: &str, ids: Vec<String>) -> PyRes<(Batch, Vec<QuarantinedParts>)> {
        let kind = Kind::parse(kind)?;
        let (records, quarantined) = self.with(py, |store| store.fetch(kind, &borrowed(&ids)))?;
        Ok((records.into(), parts(quarantined)))
    }

    fn begin(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::begin)
    }

    fn commit(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::commit)
    }

    fn abort(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::abort)
    }

    /// `indexed` keeps the text index in step; without it the caller marks the index as behind.
    #[pyo3(signature = (records, *, marker=None, fresh=false, indexed=false))]
    fn write(
        &self,
        py: Python<'_>,
        records: &Batch,
        marker: Option<&str>,
        fresh: bool,
        indexed: bool,
    ) -> PyRes<Vec<usize>> {
        self.with(py, |store| store.write(&records.inner, marker, fresh, indexed))
    }

    #[pyo3(signature = (kind, ids, *, indexed=false))]
    fn delete(&self, py: Python<'_>, kind: &str, ids: Vec<String>, indexed: bool) -> PyRes<u64> {
        let kind = Kind::parse(kind)?;
        self.with(py, |store| store.delete(kind, &borrowed(&ids), indexed))
    }

    fn ledger_put(&self, py: Python<'_>, migration: &str, key: &str, value: &str) -> PyRes<()> {
        self.with(py, |store| store.ledger_put(migration, key, value))
    }

    fn ledger_get(&self, py: Python<'_>, migration: &str, key: &str) -> PyRes<Option<String>> {
        self.with(py, |store| store.ledger_get(migration, key))
    }

    fn ledger_scan(
        &self,
        py: Python<'_>,
        migration: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> PyRes<Vec<(String, String)>> {
        self.with(py, |store| store.ledger_scan(migration, prefix, after, limit))
    }

    fn ledger_delete(&self, py: Python<'_>, migration: &str, prefix: &str) -> PyRes<()> {
        self.with(py, |store| store.ledger_delete(migration, prefix))
    }

    fn ledger_migrations(&self, py: Python<'_>) -> PyRes<Vec<String>> {
        self.with(py, Store::ledger_migrations)
    }

    /// Makes the journal of a foreign target where there is none.
    fn journal_open(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::journal_open)
    }

    /// Says that a migration is about to write these records, as the target will give them back.
    fn journal_intend(&self, py: Python<'_>, records: &Batch, migration: &str) -> PyRes<()> {
        self.with(py, |store| store.journal_intend(&records.inner, migration))
    }

    /// Says that these records are in the target.
    fn journal_confirm(&self, py: Python<'_>, records: &Batch, migration: &str) -> PyRes<()> {
        self.with(py, |store| store.journal_confirm(&records.inner, migration))
    }

    /// Says that everything a migration intended is in the target.
    fn journal_confirm_all(&self, py: Python<'_>, migration: &str) -> PyRes<()> {
        self.with(py, |store| store.journal_confirm_all(migration))
    }

    /// Records of the target with their markers.
    fn journal_mark(&self, py: Python<'_>, records: &Batch) -> PyRes<Batch> {
        Ok(self.with(py, |store| store.journal_mark(&records.inner))?.into())
    }

    /// Drops what is known of records that are gone.
    fn journal_forget(&self, py: Python<'_>, identities: Vec<(String, String)>) -> PyRes<()> {
        let keys =
            identities.iter().map(|(kind, id)| Ok((Kind::parse(kind)?, id.as_str()))).collect::<PyRes<Vec<_>>>()?;
        self.with(py, |store| store.journal_forget(&keys))
    }

    /// Drops what is known of a migration.
    fn journal_drop(&self, py: Python<'_>, migration: &str) -> PyRes<()> {
        self.with(py, |store| store.journal_drop(migration))
    }

    fn mark_text_stale(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::mark_text_stale)
    }

    fn rebuild_text(&self, py: Python<'_>) -> PyRes<()> {
        self.with(py, Store::rebuild_text)
    }

    fn quick_check(&self, py: Python<'_>) -> PyRes<String> {
        self.with(py, Store::quick_check)
    }

    #[pyo3(signature = (kind, words, limit, *, scope=vec![]))]
    fn search_text(
        &self,
        py: Python<'_>,
        kind: &str,
        words: &str,
        limit: usize,
        scope: Vec<(String, String)>,
    ) -> PyRes<Vec<(String, f64)>> {
        let kind = Kind::parse(kind)?;
        let hits = self.with(py, |store| store.search_text(kind, words, limit, &scope))?;
        Ok(hits.into_iter().map(|hit| (hit.id, hit.score)).collect())
    }

    #[pyo3(signature = (kind, name, query, limit, *, scope=vec![]))]
    fn search_vector(
        &self,
        py: Python<'_>,
        kind: &str,
        name: &str,
        query: Vec<f32>,
        limit: usize,
        scope: Vec<(String, String)>,
    ) -> PyRes<Vec<(String, f64)>> {
        let kind = Kind::parse(kind)?;
        let hits = self.with(py, |store| store.search_vector(kind, name, &query, limit, &scope))?;
        Ok(hits.into_iter().map(|hit| (hit.id, hit.score)).collect())
    }
}
