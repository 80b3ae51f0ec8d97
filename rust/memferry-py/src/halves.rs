//! Records in two halves.

use memferry_core::halves;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::batch::Batch;
use crate::error::PyRes;

/// Records without the vectors that a vector store holds, and those vectors with kind, id and scope.
#[pyfunction]
pub fn split_halves(py: Python<'_>, records: &Batch) -> PyRes<(Batch, Batch)> {
    let (rest, points) = py.detach(|| halves::split(&records.inner))?;
    Ok((rest.into(), points.into()))
}

/// Whole records, and one byte a record: 1 where a vector that it knows of is missing.
///
/// With `scopes_of_points` they have the scope that their vectors are filtered by.
#[pyfunction]
#[pyo3(signature = (records, points, *, scopes_of_points=false))]
pub fn join_halves<'py>(
    py: Python<'py>,
    records: &Batch,
    points: &Batch,
    scopes_of_points: bool,
) -> PyRes<(Batch, Bound<'py, PyBytes>)> {
    let (joined, torn) = py.detach(|| halves::join(&records.inner, &points.inner, scopes_of_points))?;
    Ok((joined.into(), mask(py, torn)))
}

/// One byte a row of vectors: 1 where there is a record that it belongs to.
#[pyfunction]
pub fn owned_points<'py>(py: Python<'py>, records: &Batch, points: &Batch) -> PyRes<Bound<'py, PyBytes>> {
    let owned = py.detach(|| halves::owned(&records.inner, &points.inner))?;
    Ok(mask(py, owned))
}

fn mask(py: Python<'_>, flags: Vec<bool>) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &flags.into_iter().map(u8::from).collect::<Vec<_>>())
}
