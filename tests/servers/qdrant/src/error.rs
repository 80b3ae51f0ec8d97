//! One error type, mapped to gRPC codes with the texts of the real server.
//!
//! Clients under test match on the code and sometimes on the text, so both follow Qdrant:
//! `Wrong input:`, `Not found:`, `Service internal error:`.

use qdrant_edge::OperationError;
use tonic::Status;

/// What can go wrong between the wire and the engine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is well formed but does not fit the collection.
    #[error("Wrong input: {0}")]
    BadInput(String),
    /// The request itself cannot be understood.
    #[error("{0}")]
    Malformed(String),
    #[error("Wrong input: {0}")]
    AlreadyExists(String),
    #[error("Not found: {0}")]
    NotFound(String),
    #[error("Service internal error: {0}")]
    Service(String),
    /// A part of Qdrant that this test server does not have, said aloud instead of guessed.
    #[error("qdrant-testserver does not serve {0}")]
    Unimplemented(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn unimplemented(what: impl Into<String>) -> Self {
        Self::Unimplemented(what.into())
    }

    pub fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub fn bad_input(what: impl Into<String>) -> Self {
        Self::BadInput(what.into())
    }

    pub fn no_collection(name: &str) -> Self {
        Self::NotFound(format!("Collection `{name}` doesn't exist!"))
    }
}

impl From<OperationError> for Error {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::PointIdError { .. } => Self::NotFound(error.to_string()),
            OperationError::WrongSparse => Self::bad_input("Conversion between sparse and regular vectors failed"),
            OperationError::WrongMulti => Self::bad_input("Conversion between multi and regular vectors failed"),
            OperationError::ServiceError { description, .. } => Self::Service(description),
            OperationError::InconsistentStorage { .. }
            | OperationError::OutOfMemory { .. }
            | OperationError::Cancelled { .. }
            | OperationError::Timeout { .. } => Self::Service(error.to_string()),
            _ => Self::BadInput(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Service(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::BadInput(_) | Error::Malformed(_) => Self::invalid_argument(text),
            Error::AlreadyExists(_) => Self::already_exists(text),
            Error::NotFound(_) => Self::not_found(text),
            Error::Service(_) => Self::internal(text),
            Error::Unimplemented(_) => Self::unimplemented(text),
        }
    }
}
