//! Errors of the core as the exceptions of `memferry.errors`, which owns the hierarchy.

use memferry_core::error::{Code, Error};
use pyo3::prelude::*;

/// Carries an error of the core through `?` to Python.
pub struct NativeError(Error);

/// Result of every binding.
pub type PyRes<T> = Result<T, NativeError>;

impl From<Error> for NativeError {
    fn from(e: Error) -> Self {
        Self(e)
    }
}

impl From<NativeError> for PyErr {
    fn from(e: NativeError) -> Self {
        let Error { code, message, retry_after_secs } = e.0;
        Python::attach(|py| {
            py.import("memferry.errors")
                .and_then(|errors| errors.call_method1("from_native", (code.slug(), message, retry_after_secs)))
                .map_or_else(|e| e, PyErr::from_value)
        })
    }
}

/// An error for a mutex whose holder panicked.
pub fn poisoned<T>(_: std::sync::PoisonError<T>) -> NativeError {
    NativeError(Error::new(Code::Io, "a thread died while it used this object"))
}

/// All codes with whether they are transient.
#[pyfunction]
pub fn error_codes() -> Vec<(&'static str, bool)> {
    Code::ALL.into_iter().map(|code| (code.slug(), code.transient())).collect()
}
