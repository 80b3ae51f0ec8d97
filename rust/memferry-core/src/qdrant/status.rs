//! Answers of the server that are not results, as errors of the crate.

use std::error::Error as _;

use tonic::{Code as Grpc, Status};

use crate::error::{Code, Error};

/// Texts of the server are cut here; some of them repeat whole requests.
const MAX_TEXT: usize = 500;

/// The error for `status`. `secret` never stands in its text.
pub fn error(status: &Status, secret: Option<&str>) -> Error {
    let mut message = status.message().to_owned();
    let mut source = status.source();
    let local = source.is_some();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&cause_text);
        }
        source = cause.source();
    }
    if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
        message = message.replace(secret, "***");
    }
    if let Some((end, _)) = message.char_indices().nth(MAX_TEXT) {
        message.truncate(end);
        message.push('…');
    }
    if message.is_empty() {
        status.code().description().clone_into(&mut message);
    }
    let mut error = Error::new(code(status, &message, local), message);
    if error.code == Code::Throttled {
        error.retry_after_secs = retry_after(status);
    }
    error
}

fn code(status: &Status, message: &str, local: bool) -> Code {
    match status.code() {
        Grpc::Unauthenticated | Grpc::PermissionDenied => Code::Unauthorized,
        Grpc::NotFound => Code::StoreMissing,
        // Made here from an HTTP/2 reset, whatever code that was given: the connection is gone.
        _ if local => Code::Unavailable,
        Grpc::ResourceExhausted => Code::Throttled,
        _ if message.contains("No space left on device") => Code::DiskFull,
        Grpc::Internal if undecodable(message) => Code::StoreFormat,
        Grpc::Unavailable
        | Grpc::DeadlineExceeded
        | Grpc::Cancelled
        | Grpc::Aborted
        | Grpc::Unknown
        | Grpc::Internal
        | Grpc::DataLoss => Code::Unavailable,
        _ => Code::Refused,
    }
}

/// Whether the answer itself could not be read.
fn undecodable(message: &str) -> bool {
    message.contains("failed to decode Protobuf message")
}

/// Whether the answer was larger than this client takes.
pub fn too_large(status: &Status) -> bool {
    status.code() == Grpc::OutOfRange && status.message().contains("decoded message length too large")
}

fn retry_after(status: &Status) -> Option<f64> {
    let text = status.metadata().get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().filter(|secs: &f64| secs.is_finite() && *secs >= 0.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn codes_say_whether_to_try_again() {
        for (grpc, expected) in [
            (Grpc::Unavailable, Code::Unavailable),
            (Grpc::DeadlineExceeded, Code::Unavailable),
            (Grpc::Internal, Code::Unavailable),
            (Grpc::ResourceExhausted, Code::Throttled),
            (Grpc::Unauthenticated, Code::Unauthorized),
            (Grpc::PermissionDenied, Code::Unauthorized),
            (Grpc::NotFound, Code::StoreMissing),
            (Grpc::InvalidArgument, Code::Refused),
            (Grpc::AlreadyExists, Code::Refused),
            (Grpc::Unimplemented, Code::Refused),
        ] {
            assert_eq!(expected, error(&Status::new(grpc, "text"), None).code, "{grpc:?}");
        }
        let full = Status::internal("WAL: No space left on device (os error 28)");
        assert_eq!(Code::DiskFull, error(&full, None).code);
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(Code::Unavailable, error(&broken, None).code);
    }

    #[test]
    fn throttling_carries_the_time_to_wait() {
        let mut status = Status::resource_exhausted("slow down");
        assert_eq!(None, error(&status, None).retry_after_secs);
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        assert_eq!(Some(7.0), error(&status, None).retry_after_secs);
    }

    #[test]
    fn the_key_is_in_no_text_and_texts_are_bounded() {
        let text = format!("key hunter2 is wrong {}", "é".repeat(9000));
        let error = error(&Status::unauthenticated(text), Some("hunter2"));
        assert!(!error.message.contains("hunter2"));
        assert!(error.message.chars().count() <= MAX_TEXT + 1);
    }
}
