//! The collections service.

use std::time::Instant;

use qdrant_client::qdrant as pb;
use qdrant_client::qdrant::collections_server::Collections;
use tonic::{Request, Response, Status};

use super::{Shared, blocking, not_served};
use crate::convert::index::info_out;
use crate::error::{Error, Result as ServerResult};
use crate::storage::{Collection, Health};

pub struct CollectionsService(pub Shared);

impl CollectionsService {
    async fn operate(
        &self,
        work: impl FnOnce(&crate::storage::Storage) -> ServerResult<bool> + Send + 'static,
    ) -> Result<Response<pb::CollectionOperationResponse>, Status> {
        let begun = Instant::now();
        let storage = self.0.storage.clone();
        let result = blocking(move || work(&storage)).await?;
        Ok(Response::new(pb::CollectionOperationResponse { result, time: begun.elapsed().as_secs_f64() }))
    }

    fn list_aliases_of(&self, collection: Option<&str>, begun: Instant) -> pb::ListAliasesResponse {
        let aliases = self.0.storage.aliases(collection).into_iter();
        pb::ListAliasesResponse {
            aliases: aliases
                .map(|(alias_name, collection_name)| pb::AliasDescription { alias_name, collection_name })
                .collect(),
            time: begun.elapsed().as_secs_f64(),
        }
    }
}

/// What a client sees of a collection.
fn describe(collection: &Collection) -> ServerResult<pb::CollectionInfo> {
    // First the health: it may wait for the optimizer, and the numbers have to be from after that.
    let (status, failure) = match collection.health() {
        Health::Green => (pb::CollectionStatus::Green, None),
        Health::Yellow => (pb::CollectionStatus::Yellow, None),
        Health::Red(reason) => (pb::CollectionStatus::Red, Some(reason)),
    };
    let (points, shard) = collection.info()?;
    let payload_schema: ServerResult<_> =
        shard.payload_schema.iter().map(|(field, info)| Ok((field.to_string(), info_out(info)?))).collect();
    Ok(pb::CollectionInfo {
        status: status.into(),
        optimizer_status: Some(pb::OptimizerStatus { ok: failure.is_none(), error: failure.unwrap_or_default() }),
        segments_count: shard.segments_count as u64,
        config: Some(collection.config()),
        payload_schema: payload_schema?,
        points_count: Some(points as u64),
        indexed_vectors_count: Some(shard.indexed_vectors_count as u64),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl Collections for CollectionsService {
    async fn get(
        &self,
        request: Request<pb::GetCollectionInfoRequest>,
    ) -> Result<Response<pb::GetCollectionInfoResponse>, Status> {
        let begun = Instant::now();
        let storage = self.0.storage.clone();
        let name = request.into_inner().collection_name;
        let info = blocking(move || describe(&*storage.get(&name)?)).await?;
        Ok(Response::new(pb::GetCollectionInfoResponse { result: Some(info), time: begun.elapsed().as_secs_f64() }))
    }

    async fn list(
        &self,
        _request: Request<pb::ListCollectionsRequest>,
    ) -> Result<Response<pb::ListCollectionsResponse>, Status> {
        let begun = Instant::now();
        let names = self.0.storage.names().into_iter();
        Ok(Response::new(pb::ListCollectionsResponse {
            collections: names.map(|name| pb::CollectionDescription { name }).collect(),
            time: begun.elapsed().as_secs_f64(),
        }))
    }

    async fn create(
        &self,
        request: Request<pb::CreateCollection>,
    ) -> Result<Response<pb::CollectionOperationResponse>, Status> {
        let request = request.into_inner();
        self.operate(move |storage| storage.create(request).map(|()| true)).await
    }

    async fn update(
        &self,
        request: Request<pb::UpdateCollection>,
    ) -> Result<Response<pb::CollectionOperationResponse>, Status> {
        let request = request.into_inner();
        self.operate(move |storage| {
            let collection = storage.get(&request.collection_name)?;
            collection.reconfigure(request).map(|()| true)
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteCollection>,
    ) -> Result<Response<pb::CollectionOperationResponse>, Status> {
        let name = request.into_inner().collection_name;
        self.operate(move |storage| storage.delete(&name)).await
    }

    async fn update_aliases(
        &self,
        request: Request<pb::ChangeAliases>,
    ) -> Result<Response<pb::CollectionOperationResponse>, Status> {
        let actions = request.into_inner().actions;
        self.operate(move |storage| storage.change_aliases(actions).map(|()| true)).await
    }

    async fn list_collection_aliases(
        &self,
        request: Request<pb::ListCollectionAliasesRequest>,
    ) -> Result<Response<pb::ListAliasesResponse>, Status> {
        let begun = Instant::now();
        let name = request.into_inner().collection_name;
        let collection = self.0.storage.get(&name)?;
        let aliases = self.list_aliases_of(Some(collection.name()), begun);
        Ok(Response::new(aliases))
    }

    async fn list_aliases(
        &self,
        _request: Request<pb::ListAliasesRequest>,
    ) -> Result<Response<pb::ListAliasesResponse>, Status> {
        Ok(Response::new(self.list_aliases_of(None, Instant::now())))
    }

    async fn collection_exists(
        &self,
        request: Request<pb::CollectionExistsRequest>,
    ) -> Result<Response<pb::CollectionExistsResponse>, Status> {
        let begun = Instant::now();
        let exists = match self.0.storage.get(&request.into_inner().collection_name) {
            Ok(_) => true,
            Err(Error::NotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(pb::CollectionExistsResponse {
            result: Some(pb::CollectionExists { exists }),
            time: begun.elapsed().as_secs_f64(),
        }))
    }

    async fn collection_cluster_info(
        &self,
        _request: Request<pb::CollectionClusterInfoRequest>,
    ) -> Result<Response<pb::CollectionClusterInfoResponse>, Status> {
        not_served("cluster information")
    }

    async fn update_collection_cluster_setup(
        &self,
        _request: Request<pb::UpdateCollectionClusterSetupRequest>,
    ) -> Result<Response<pb::UpdateCollectionClusterSetupResponse>, Status> {
        not_served("cluster setup")
    }

    async fn create_shard_key(
        &self,
        _request: Request<pb::CreateShardKeyRequest>,
    ) -> Result<Response<pb::CreateShardKeyResponse>, Status> {
        not_served("shard keys")
    }

    async fn delete_shard_key(
        &self,
        _request: Request<pb::DeleteShardKeyRequest>,
    ) -> Result<Response<pb::DeleteShardKeyResponse>, Status> {
        not_served("shard keys")
    }

    async fn list_shard_keys(
        &self,
        _request: Request<pb::ListShardKeysRequest>,
    ) -> Result<Response<pb::ListShardKeysResponse>, Status> {
        not_served("shard keys")
    }
}
