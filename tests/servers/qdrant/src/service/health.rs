//! The health check, which clients also use to learn the version.

use qdrant_client::qdrant as pb;
use qdrant_client::qdrant::qdrant_server::Qdrant;
use tonic::{Request, Response, Status};

pub struct HealthService;

/// The wire that is spoken: the version of the official client crate that holds the traits.
const WIRE_VERSION: &str = "1.20.0";

#[tonic::async_trait]
impl Qdrant for HealthService {
    async fn health_check(
        &self,
        _request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckReply>, Status> {
        Ok(Response::new(pb::HealthCheckReply {
            // Says what it is: nobody should take it for the real server.
            title: "qdrant-testserver - Qdrant's storage engine behind a test server".to_owned(),
            version: WIRE_VERSION.to_owned(),
            commit: None,
        }))
    }
}
