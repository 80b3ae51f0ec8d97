//! The official gRPC services. Handlers translate and delegate; the engine is synchronous, so
//! its work runs on the blocking pool.

mod collections;
mod health;
mod points;
mod reads;
mod snapshots;
mod writes;

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

pub use collections::CollectionsService;
pub use health::HealthService;
pub use points::PointsService;
pub use snapshots::SnapshotsService;

use crate::error::{Error, Result};
use crate::faults::{Faults, Kind};
use crate::storage::Storage;

/// What every service needs.
#[derive(Clone)]
pub struct Shared {
    pub storage: Arc<Storage>,
    pub faults: Arc<Faults>,
}

impl Shared {
    /// Runs one point operation: faults first, then the work, then the rest of the faults.
    async fn point_call<Q, A>(
        &self,
        request: Request<Q>,
        kind: Kind,
        collection: impl Fn(&Q) -> &str,
        work: impl FnOnce(&Storage, Q) -> Result<A> + Send + 'static,
        answer: impl FnOnce(A, f64) -> A,
    ) -> Result<Response<A>, Status>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let begun = Instant::now();
        let name = collection(request.get_ref()).to_owned();
        let pass = self.faults.meet(&request, kind, &name).await?;
        let storage = Arc::clone(&self.storage);
        let message = request.into_inner();
        let result = blocking(move || work(&storage, message)).await;
        pass.finish().await?;
        Ok(Response::new(answer(result?, begun.elapsed().as_secs_f64())))
    }
}

/// Runs engine work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::from(Error::Service("the engine panicked".to_owned())))?
        .map_err(Status::from)
}

/// The answer to a call that this server does not have.
fn not_served<T>(call: &str) -> Result<Response<T>, Status> {
    Err(Error::unimplemented(call).into())
}
