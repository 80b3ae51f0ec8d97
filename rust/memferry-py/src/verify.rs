//! Comparing both ends, in Python.

use std::sync::Mutex;

use arrow_array::RecordBatch;
use hashbrown::HashMap;
use memferry_core::digest::{identity, same};
use memferry_core::error::Error;
use memferry_core::mapper::store_key;
use memferry_core::record::{Kind, OWNER, RecordView};
use memferry_core::{keys, sync, verify};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use uuid::Uuid;

use crate::batch::Batch;
use crate::error::{PyRes, poisoned};

/// Count and sum by bucket.
#[pyclass(frozen, module = "memferry._native")]
pub struct Buckets {
    inner: Mutex<verify::Buckets>,
}

impl Buckets {
    fn len(&self) -> PyRes<usize> {
        Ok(self.inner.lock().map_err(poisoned)?.len())
    }

    fn items(&self, records: &RecordBatch, of: Option<verify::Owner<'_>>) -> PyRes<verify::Items> {
        Ok(verify::Items::of(records, self.len()?, of)?)
    }
}

#[pymethods]
impl Buckets {
    #[new]
    fn new(buckets: usize) -> Self {
        Self { inner: Mutex::new(verify::Buckets::new(buckets)) }
    }

    /// Adds records, with `only` those marked by that migration, or with `unmarked` by none; how many were left out.
    #[pyo3(signature = (records, *, only=None, unmarked=false))]
    fn add(&self, py: Python<'_>, records: &Batch, only: Option<&str>, unmarked: bool) -> PyRes<u64> {
        let of = only.map(|migration| verify::Owner { migration, unmarked });
        py.detach(|| {
            let items = self.items(&records.inner, of)?;
            self.inner.lock().map_err(poisoned)?.add_items(&items);
            Ok(items.left_out)
        })
    }

    /// Adds records here and their images to `others`; digests are made once where these are the records themselves.
    fn add_with_images(&self, py: Python<'_>, records: &Batch, images: &Batch, others: &Self) -> PyRes<()> {
        py.detach(|| {
            let items = self.items(&records.inner, None)?;
            self.inner.lock().map_err(poisoned)?.add_items(&items);
            let one = same(&records.inner, &images.inner) && self.len()? == others.len()?;
            let items = if one { items } else { others.items(&images.inner, None)? };
            others.inner.lock().map_err(poisoned)?.add_items(&items);
            Ok(())
        })
    }

    /// Buckets that differ.
    fn unequal(&self, other: &Self) -> PyRes<Vec<usize>> {
        let other = other.inner.lock().map_err(poisoned)?.clone();
        Ok(self.inner.lock().map_err(poisoned)?.unequal(&other)?)
    }

    /// Records added: entities, memories, observations, relations.
    fn by_kind(&self) -> PyRes<[u64; 4]> {
        Ok(self.inner.lock().map_err(poisoned)?.by_kind())
    }

    /// Hex digest over everything.
    fn total(&self) -> PyRes<String> {
        Ok(format!("{:032x}", self.inner.lock().map_err(poisoned)?.total()))
    }
}

/// Record by record comparison within some buckets.
#[pyclass(frozen, module = "memferry._native")]
pub struct Drill {
    inner: Mutex<verify::Drill>,
}

#[pymethods]
impl Drill {
    #[new]
    fn new(buckets: usize, wanted: Vec<usize>) -> Self {
        Self { inner: Mutex::new(verify::Drill::new(buckets, wanted)) }
    }

    /// Adds records as the target is expected to hold them.
    fn expect(&self, py: Python<'_>, records: &Batch) -> PyRes<()> {
        py.detach(|| Ok(self.inner.lock().map_err(poisoned)?.add_expected(&records.inner)?))
    }

    /// Adds records the target holds.
    #[pyo3(signature = (records, *, marker=None, unmarked=false))]
    fn find(&self, py: Python<'_>, records: &Batch, marker: Option<&str>, unmarked: bool) -> PyRes<()> {
        let of = marker.map(|migration| verify::Owner { migration, unmarked });
        py.detach(|| Ok(self.inner.lock().map_err(poisoned)?.find(&records.inner, of)?))
    }

    /// What, kind and id of everything that differs.
    fn findings(&self) -> PyRes<Vec<(&'static str, &'static str, String)>> {
        let findings = self.inner.lock().map_err(poisoned)?.findings();
        Ok(findings.into_iter().map(|f| (f.what, f.kind.as_str(), f.id)).collect())
    }
}

/// Keys of records, 16 bytes each.
#[pyclass(frozen, module = "memferry._native")]
pub struct Keys {
    inner: Mutex<keys::Keys>,
}

#[pymethods]
impl Keys {
    #[new]
    fn new() -> Self {
        Self { inner: Mutex::new(keys::Keys::default()) }
    }

    fn __len__(&self) -> PyRes<usize> {
        Ok(self.inner.lock().map_err(poisoned)?.len())
    }

    /// Adds kind and id of every record.
    fn add(&self, py: Python<'_>, records: &Batch) -> PyRes<()> {
        py.detach(|| {
            let view = RecordView::new(&records.inner)?;
            let identities = (0..view.len()).map(|row| identity(view.kind(row), view.id(row)));
            self.inner.lock().map_err(poisoned)?.extend(identities);
            Ok(())
        })
    }

    /// Adds kinds and ids.
    fn add_identities(&self, identities: Vec<(String, String)>) -> PyRes<()> {
        let keys = identities
            .iter()
            .map(|(kind, id)| Ok(identity(Kind::parse(kind)?, id)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.inner.lock().map_err(poisoned)?.extend(keys);
        Ok(())
    }

    /// One byte a record: 1 where its kind and id were added.
    fn contains<'py>(&self, py: Python<'py>, records: &Batch) -> PyRes<Bound<'py, PyBytes>> {
        let mask = py.detach(|| {
            let view = RecordView::new(&records.inner)?;
            let mut keys = self.inner.lock().map_err(poisoned)?;
            let mask = (0..view.len()).map(|row| u8::from(keys.contains(identity(view.kind(row), view.id(row)))));
            PyRes::Ok(mask.collect::<Vec<_>>())
        })?;
        Ok(PyBytes::new(py, &mask))
    }

    /// Adds where a store that files all kinds together, under UUIDs and numbers, has every record.
    fn add_places(&self, py: Python<'_>, records: &Batch, namespace: &str) -> PyRes<()> {
        let places = py.detach(|| places(&records.inner, namespace))?;
        self.inner.lock().map_err(poisoned)?.extend(places);
        Ok(())
    }

    /// One byte a record: 1 where its place was added.
    fn contains_places<'py>(&self, py: Python<'py>, records: &Batch, namespace: &str) -> PyRes<Bound<'py, PyBytes>> {
        let mask = py.detach(|| {
            let places = places(&records.inner, namespace)?;
            let mut keys = self.inner.lock().map_err(poisoned)?;
            PyRes::Ok(places.into_iter().map(|place| u8::from(keys.contains(place))).collect::<Vec<_>>())
        })?;
        Ok(PyBytes::new(py, &mask))
    }

    /// One byte a record: 1 where its owner was added as an entity.
    fn contains_owners<'py>(&self, py: Python<'py>, records: &Batch) -> PyRes<Bound<'py, PyBytes>> {
        let mask = py.detach(|| {
            let view = RecordView::new(&records.inner)?;
            let mut keys = self.inner.lock().map_err(poisoned)?;
            let mut there = |owner| keys.contains(identity(Kind::Entity, owner));
            PyRes::Ok(view.iter().map(|r| u8::from(r.texts[OWNER].is_some_and(&mut there))).collect::<Vec<_>>())
        })?;
        Ok(PyBytes::new(py, &mask))
    }

    /// One byte an identity: 1 where this kind and id were added.
    fn contains_identities<'py>(
        &self,
        py: Python<'py>,
        identities: Vec<(String, String)>,
    ) -> PyRes<Bound<'py, PyBytes>> {
        let mut keys = self.inner.lock().map_err(poisoned)?;
        let mask = identities.iter().map(|(kind, id)| Ok(u8::from(keys.contains(identity(Kind::parse(kind)?, id)))));
        Ok(PyBytes::new(py, &mask.collect::<Result<Vec<_>, Error>>()?))
    }

    /// Only the keys that were added more than once.
    fn repeated(&self, py: Python<'_>) -> PyRes<Self> {
        py.detach(|| {
            let mut repeated = keys::Keys::default();
            repeated.extend(self.inner.lock().map_err(poisoned)?.repeated());
            Ok(Self { inner: Mutex::new(repeated) })
        })
    }
}

fn places(records: &RecordBatch, namespace: &str) -> PyRes<Vec<u128>> {
    let namespace = Uuid::try_parse(namespace).map_err(|e| Error::invalid(format!("namespace: {e}")))?;
    // Of one kind, whatever they are: the store tells them apart by nothing but this.
    Ok(RecordView::new(records)?.iter().map(|r| identity(Kind::Memory, &store_key(&r, Some(namespace)))).collect())
}

/// One byte a source record: 0 create, 1 update, 2 unchanged, 3 conflict, 4 existing.
#[pyfunction]
pub fn classify<'py>(py: Python<'py>, source: &Batch, existing: &Batch, migration: &str) -> PyRes<Bound<'py, PyBytes>> {
    let actions = py.detach(|| sync::classify(&source.inner, &existing.inner, migration))?;
    Ok(PyBytes::new(py, &actions.iter().map(|a| *a as u8).collect::<Vec<_>>()))
}

/// One byte a record: 0 not written by the migration, 1 as it wrote it, 2 changed since.
#[pyfunction]
pub fn standings<'py>(py: Python<'py>, records: &Batch, migration: &str) -> PyRes<Bound<'py, PyBytes>> {
    let standings = py.detach(|| sync::standings(&records.inner, migration))?;
    Ok(PyBytes::new(py, &standings.iter().map(|s| *s as u8).collect::<Vec<_>>()))
}

/// Field differences of records with the same kind and id.
type RecordDiffs = Vec<(&'static str, String, Vec<verify::FieldDiff>)>;

/// Kind, id and differing fields of the records that stand in both batches and are not equal.
#[pyfunction]
pub fn diff(py: Python<'_>, expected: &Batch, found: &Batch) -> PyRes<RecordDiffs> {
    let diffs = py.detach(|| {
        let (expected, found) = (RecordView::new(&expected.inner)?, RecordView::new(&found.inner)?);
        let known: HashMap<u128, _> = found.iter().map(|r| (identity(r.kind, r.id), r)).collect();
        let mut diffs = RecordDiffs::new();
        for r in expected.iter() {
            if let Some(other) = known.get(&identity(r.kind, r.id)) {
                let fields = verify::diff(&r, other);
                if !fields.is_empty() {
                    diffs.push((r.kind.as_str(), r.id.to_owned(), fields));
                }
            }
        }
        Ok::<_, Error>(diffs)
    })?;
    Ok(diffs)
}

/// Hex BLAKE3 of bytes.
#[pyfunction]
pub fn blake3_hex(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}
