//! The mapper in Python.

use hashbrown::HashMap;
use memferry_core::error::Error;
use memferry_core::gaps::{GAPS, GapSet};
use memferry_core::mapper::{Mapper as Core, store_key, whole};
use memferry_core::profile::Profile;
use memferry_core::raw::Quarantined;
use memferry_core::record::{Kind, RecordRef, RecordView};
use pyo3::prelude::*;
use uuid::Uuid;

use crate::batch::Batch;
use crate::error::PyRes;

/// A quarantined row: key, kind, id, reason, message, raw.
pub type QuarantinedParts = (String, Option<&'static str>, Option<String>, &'static str, String, Vec<u8>);

pub fn parts(rows: Vec<Quarantined>) -> Vec<QuarantinedParts> {
    rows.into_iter().map(|q| (q.key, q.kind, q.id, q.reason, q.message, q.raw)).collect()
}

/// Runs one profile table.
#[pyclass(frozen, module = "memferry._native")]
pub struct Mapper {
    pub inner: Core,
}

#[pymethods]
impl Mapper {
    #[new]
    #[pyo3(signature = (profile_json, escaped, *, gathering=false))]
    fn new(profile_json: &str, escaped: bool, gathering: bool) -> PyRes<Self> {
        let inner = Core::new(Profile::from_json(profile_json)?, escaped);
        Ok(Self { inner: if gathering { inner.gathering() } else { inner } })
    }

    /// Name of the profile.
    #[getter]
    fn profile(&self) -> &str {
        &self.inner.profile().name
    }

    /// Whether observations live inside their owners.
    #[getter]
    fn nests_observations(&self) -> bool {
        self.inner.nests(Kind::Observation)
    }

    /// Kinds with a table of their own.
    #[getter]
    fn kinds(&self) -> Vec<&'static str> {
        self.inner.profile().kinds.iter().map(|map| map.kind.as_str()).collect()
    }

    /// Raw to canonical: records, quarantined rows, records exploded out of others.
    fn decode(&self, py: Python<'_>, raw: &Batch) -> PyRes<(Batch, Vec<QuarantinedParts>, u64)> {
        let decoded = py.detach(|| self.inner.decode(&raw.inner))?;
        Ok((decoded.records.into(), parts(decoded.quarantined), decoded.exploded))
    }

    /// Canonical to raw: raw batch, row numbers behind it, quarantined records, observations nested.
    #[pyo3(signature = (records, *, namespace=None, accepted=vec![], nested=None, marker=None))]
    fn encode(
        &self,
        py: Python<'_>,
        records: &Batch,
        namespace: Option<&str>,
        accepted: Vec<String>,
        nested: Option<std::collections::HashMap<String, Vec<String>>>,
        marker: Option<&str>,
    ) -> PyRes<(Batch, Vec<usize>, Vec<QuarantinedParts>, u64)> {
        let namespace =
            namespace.map(Uuid::try_parse).transpose().map_err(|e| Error::invalid(format!("namespace: {e}")))?;
        let accepted = gap_set(&accepted)?;
        let nested: HashMap<String, Vec<String>> = nested.unwrap_or_default().into_iter().collect();
        let encoded = py.detach(|| self.inner.encode(&records.inner, namespace, accepted, &nested, marker))?;
        Ok((encoded.raw.into(), encoded.rows, parts(encoded.quarantined), encoded.nested))
    }

    /// Gaps of the records against this profile: name, records, id of the first.
    fn gaps(&self, py: Python<'_>, records: &Batch) -> PyRes<Vec<(&'static str, u64, String)>> {
        let counts = py.detach(|| {
            let mut counts: Vec<(u64, Option<String>)> = vec![(0, None); GAPS.len()];
            for record in RecordView::new(&records.inner)?.iter() {
                for i in self.inner.gaps(&record).positions() {
                    counts[i].0 += 1;
                    counts[i].1.get_or_insert_with(|| record.id.to_owned());
                }
            }
            Ok::<_, Error>(counts)
        })?;
        let named = GAPS.iter().zip(counts).filter(|(_, (n, _))| *n > 0);
        Ok(named.map(|(name, (n, id))| (*name, n, id.unwrap_or_default())).collect())
    }

    /// Records as quarantine entries, whole, for a reason found outside the mapper.
    #[staticmethod]
    fn quarantine(py: Python<'_>, records: &Batch, reason: &str, message: &str) -> PyRes<Vec<QuarantinedParts>> {
        let reason = REASONS
            .into_iter()
            .find(|known| *known == reason)
            .ok_or_else(|| Error::invalid(format!("unknown quarantine reason {reason:?}")))?;
        let rows = py.detach(|| {
            let view = RecordView::new(&records.inner)?;
            Ok::<_, Error>(view.iter().map(|r| whole(&r, reason, message.to_owned())).collect())
        })?;
        Ok(parts(rows))
    }
}

/// Reasons that Python may give: its own, and those that one half of a hybrid store gave for its part of a record.
const REASONS: [&str; 17] = [
    "bad-extra",
    "bad-json",
    "bad-vector",
    "conflict",
    "field-clash",
    "gap",
    "missing-end",
    "no-id",
    "no-json",
    "no-record",
    "rejected",
    "repeated-id",
    "tags",
    "time",
    "too-deep",
    "too-many-vectors",
    "vectors-missing",
];

fn gap_set(names: &[String]) -> Result<GapSet, Error> {
    GapSet::of(names.iter().map(String::as_str))
        .map_err(|name| Error::invalid(format!("unknown gap {name:?}, allowed: {}", GAPS.join(", "))))
}

/// The keys under which a store that takes only UUIDs and u64 files records of these kinds and ids.
#[pyfunction]
pub fn store_keys(identities: Vec<(String, String)>, namespace: &str) -> PyRes<Vec<String>> {
    let namespace = Uuid::try_parse(namespace).map_err(|e| Error::invalid(format!("namespace: {e}")))?;
    identities
        .iter()
        .map(|(kind, id)| Ok(store_key(&RecordRef::new(Kind::parse(kind)?, id), Some(namespace)).into_owned()))
        .collect()
}

/// Names of all gaps.
#[pyfunction]
pub fn gap_names() -> Vec<&'static str> {
    GAPS.to_vec()
}
