//! The points service: one short handler per call of the official trait.

use qdrant_client::qdrant as pb;
use qdrant_client::qdrant::points_server::Points;
use tonic::{Request, Response, Status};

use super::{Shared, not_served, reads, writes};
use crate::error::Result as ServerResult;
use crate::faults::Kind;
use crate::storage::Storage;

pub struct PointsService(pub Shared);

/// A handler: the call, its messages, whether it writes, and what does the work.
macro_rules! handle {
    ($service:expr, $request:expr, $kind:expr, $work:expr) => {
        $service
            .0
            .point_call(
                $request,
                $kind,
                |message| message.collection_name.as_str(),
                $work,
                |mut answer, time| {
                    answer.time = time;
                    answer
                },
            )
            .await
    };
}

/// Runs one write: makes the operation, applies it, wraps the result.
macro_rules! written {
    ($service:expr, $request:expr, $message:ident, $operation:expr) => {
        handle!($service, $request, Kind::Write, |storage, $message| {
            // Moved into the operation below, so kept here first.
            let (collection, wait) = ($message.collection_name.clone(), $message.wait);
            let target = writes::Target { collection: &collection, wait };
            applied(storage, &target, $operation)
        })
    };
}

fn applied(
    storage: &Storage,
    target: &writes::Target,
    operation: ServerResult<qdrant_edge::UpdateOperation>,
) -> ServerResult<pb::PointsOperationResponse> {
    writes::apply(storage, target, operation?).map(writes::response)
}

type Answer<T> = Result<Response<T>, Status>;
type Written = Answer<pb::PointsOperationResponse>;

#[tonic::async_trait]
impl Points for PointsService {
    async fn upsert(&self, request: Request<pb::UpsertPoints>) -> Written {
        written!(self, request, m, writes::upsert(m.points, m.update_filter, m.update_mode, m.shard_key_selector))
    }

    async fn delete(&self, request: Request<pb::DeletePoints>) -> Written {
        written!(self, request, m, writes::delete(m.points, m.shard_key_selector))
    }

    async fn update_vectors(&self, request: Request<pb::UpdatePointVectors>) -> Written {
        written!(self, request, m, writes::update_vectors(m.points, m.update_filter, m.shard_key_selector))
    }

    async fn delete_vectors(&self, request: Request<pb::DeletePointVectors>) -> Written {
        written!(self, request, m, writes::delete_vectors(m.points_selector, m.vectors, m.shard_key_selector))
    }

    async fn set_payload(&self, request: Request<pb::SetPayloadPoints>) -> Written {
        written!(self, request, m, {
            let (points, shard_key) = (m.points_selector, m.shard_key_selector);
            writes::set_payload(m.payload, points, m.key, shard_key, false)
        })
    }

    async fn overwrite_payload(&self, request: Request<pb::SetPayloadPoints>) -> Written {
        written!(self, request, m, {
            let (points, shard_key) = (m.points_selector, m.shard_key_selector);
            writes::set_payload(m.payload, points, m.key, shard_key, true)
        })
    }

    async fn delete_payload(&self, request: Request<pb::DeletePayloadPoints>) -> Written {
        written!(self, request, m, writes::delete_payload(&m.keys, m.points_selector, m.shard_key_selector))
    }

    async fn clear_payload(&self, request: Request<pb::ClearPayloadPoints>) -> Written {
        written!(self, request, m, writes::clear_payload(m.points, m.shard_key_selector))
    }

    async fn create_field_index(&self, request: Request<pb::CreateFieldIndexCollection>) -> Written {
        written!(self, request, m, writes::create_index(m))
    }

    async fn delete_field_index(&self, request: Request<pb::DeleteFieldIndexCollection>) -> Written {
        written!(self, request, m, writes::delete_index(&m.field_name))
    }

    async fn update_batch(&self, request: Request<pb::UpdateBatchPoints>) -> Answer<pb::UpdateBatchResponse> {
        handle!(self, request, Kind::Write, writes::batch)
    }

    async fn get(&self, request: Request<pb::GetPoints>) -> Answer<pb::GetResponse> {
        handle!(self, request, Kind::Read, reads::get)
    }

    async fn scroll(&self, request: Request<pb::ScrollPoints>) -> Answer<pb::ScrollResponse> {
        handle!(self, request, Kind::Read, reads::scroll)
    }

    async fn count(&self, request: Request<pb::CountPoints>) -> Answer<pb::CountResponse> {
        handle!(self, request, Kind::Read, reads::count)
    }

    async fn facet(&self, request: Request<pb::FacetCounts>) -> Answer<pb::FacetResponse> {
        handle!(self, request, Kind::Read, reads::facet)
    }

    async fn query(&self, request: Request<pb::QueryPoints>) -> Answer<pb::QueryResponse> {
        handle!(self, request, Kind::Read, |storage, message| {
            Ok(pb::QueryResponse { result: reads::query(storage, message)?, ..Default::default() })
        })
    }

    async fn query_batch(&self, request: Request<pb::QueryBatchPoints>) -> Answer<pb::QueryBatchResponse> {
        handle!(self, request, Kind::Read, reads::query_batch)
    }

    async fn search(&self, request: Request<pb::SearchPoints>) -> Answer<pb::SearchResponse> {
        handle!(self, request, Kind::Read, |storage, message| {
            Ok(pb::SearchResponse { result: reads::search(storage, message)?, ..Default::default() })
        })
    }

    async fn search_batch(&self, request: Request<pb::SearchBatchPoints>) -> Answer<pb::SearchBatchResponse> {
        handle!(self, request, Kind::Read, reads::search_batch)
    }

    async fn create_vector_name(&self, _: Request<pb::CreateVectorNameRequest>) -> Written {
        not_served("adding a vector name")
    }

    async fn delete_vector_name(&self, _: Request<pb::DeleteVectorNameRequest>) -> Written {
        not_served("removing a vector name")
    }

    async fn search_groups(&self, _: Request<pb::SearchPointGroups>) -> Answer<pb::SearchGroupsResponse> {
        not_served("search groups")
    }

    async fn recommend(&self, _: Request<pb::RecommendPoints>) -> Answer<pb::RecommendResponse> {
        not_served("recommend")
    }

    async fn recommend_batch(&self, _: Request<pb::RecommendBatchPoints>) -> Answer<pb::RecommendBatchResponse> {
        not_served("recommend")
    }

    async fn recommend_groups(&self, _: Request<pb::RecommendPointGroups>) -> Answer<pb::RecommendGroupsResponse> {
        not_served("recommend")
    }

    async fn discover(&self, _: Request<pb::DiscoverPoints>) -> Answer<pb::DiscoverResponse> {
        not_served("discover")
    }

    async fn discover_batch(&self, _: Request<pb::DiscoverBatchPoints>) -> Answer<pb::DiscoverBatchResponse> {
        not_served("discover")
    }

    async fn query_groups(&self, _: Request<pb::QueryPointGroups>) -> Answer<pb::QueryGroupsResponse> {
        not_served("query groups")
    }

    async fn search_matrix_pairs(&self, _: Request<pb::SearchMatrixPoints>) -> Answer<pb::SearchMatrixPairsResponse> {
        not_served("the distance matrix")
    }

    async fn search_matrix_offsets(
        &self,
        _: Request<pb::SearchMatrixPoints>,
    ) -> Answer<pb::SearchMatrixOffsetsResponse> {
        not_served("the distance matrix")
    }
}
