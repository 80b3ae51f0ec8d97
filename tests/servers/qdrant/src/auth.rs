//! The API key, read from a file so that it never stands in a command line.

use tonic::{Request, Status};

/// Checks `api-key` or `authorization: Bearer`, as the real server does. The health check is not
/// behind it there either.
#[derive(Clone)]
pub struct ApiKey(Option<String>);

impl ApiKey {
    pub fn new(key: Option<String>) -> Self {
        Self(key)
    }
}

impl tonic::service::Interceptor for ApiKey {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(expected) = &self.0 else {
            return Ok(request);
        };
        let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
        let bearer = || header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match header("api-key").or_else(bearer) {
            None => Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token")),
            Some(given) if given == expected => Ok(request),
            Some(_) => Err(Status::unauthenticated("Invalid API key or JWT")),
        }
    }
}
