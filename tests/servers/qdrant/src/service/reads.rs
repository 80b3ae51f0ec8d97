//! Point operations that only read.

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    CountRequest, FacetRequest, OrderByInterface, PointId, QueryRequest, ScoringQuery, ScrollRequest, VectorInternal,
    WithPayloadInterface, WithVector,
};

use crate::convert::filter::some_filter_in;
use crate::convert::payload::json_path;
use crate::convert::points::{id_in, id_out, ids_in, with_payload_in, with_vectors_in};
use crate::convert::query::{order_by_in, query_in, search_in};
use crate::convert::records::{facet_out, record_out, scored_out};
use crate::convert::vectors::take_named;
use crate::error::{Error, Result};
use crate::storage::{Collection, Storage};

const DEFAULT_LIMIT: usize = 10;

pub fn get(storage: &Storage, request: pb::GetPoints) -> Result<pb::GetResponse> {
    let collection = storage.get(&request.collection_name)?;
    let ids = ids_in(request.ids)?;
    let payload = with_payload_in(request.with_payload, true)?;
    let vectors = with_vectors_in(request.with_vectors);
    let records = collection.read(|shard| Ok(shard.retrieve(&ids, Some(payload), Some(vectors))?))?;
    Ok(pb::GetResponse { result: records.into_iter().map(record_out).collect(), ..Default::default() })
}

pub fn scroll(storage: &Storage, request: pb::ScrollPoints) -> Result<pb::ScrollResponse> {
    if request.limit == Some(0) {
        return Err(Error::malformed("Validation error in body: [limit: value 0 invalid, must be 1 or larger]"));
    }
    let collection = storage.get(&request.collection_name)?;
    let order_by = request.order_by.map(order_by_in).transpose()?;
    let scroll = ScrollRequest {
        offset: request.offset.map(id_in).transpose()?,
        limit: Some(request.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize)),
        filter: some_filter_in(request.filter)?,
        with_payload: Some(with_payload_in(request.with_payload, true)?),
        with_vector: with_vectors_in(request.with_vectors),
        order_by: order_by.map(OrderByInterface::Struct),
    };
    let (records, next) = collection.read(|shard| Ok(shard.scroll(scroll)?))?;
    Ok(pb::ScrollResponse {
        next_page_offset: next.map(id_out),
        result: records.into_iter().map(record_out).collect(),
        ..Default::default()
    })
}

pub fn count(storage: &Storage, request: pb::CountPoints) -> Result<pb::CountResponse> {
    let collection = storage.get(&request.collection_name)?;
    let count = CountRequest { filter: some_filter_in(request.filter)?, exact: request.exact.unwrap_or(true) };
    let count = collection.read(|shard| Ok(shard.count(count)?))?;
    Ok(pb::CountResponse { result: Some(pb::CountResult { count: count as u64 }), ..Default::default() })
}

pub fn facet(storage: &Storage, request: pb::FacetCounts) -> Result<pb::FacetResponse> {
    let collection = storage.get(&request.collection_name)?;
    let facet = FacetRequest {
        key: json_path(&request.key)?,
        limit: request.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize),
        filter: some_filter_in(request.filter)?,
        exact: request.exact.unwrap_or(false),
    };
    let response = collection.read(|shard| Ok(shard.facet(facet)?))?;
    Ok(pb::FacetResponse { hits: response.hits.into_iter().map(facet_out).collect(), ..Default::default() })
}

pub fn query(storage: &Storage, request: pb::QueryPoints) -> Result<Vec<pb::ScoredPoint>> {
    let collection = storage.get(&request.collection_name)?;
    let resolve = |id: PointId, name: &str| stored_vector(&collection, id, name);
    let query = query_in(request, &resolve)?;
    run(&collection, query)
}

pub fn query_batch(storage: &Storage, request: pb::QueryBatchPoints) -> Result<pb::QueryBatchResponse> {
    let results: Result<Vec<_>> = request
        .query_points
        .into_iter()
        .map(|mut one| {
            one.collection_name.clone_from(&request.collection_name);
            query(storage, one).map(|result| pb::BatchResult { result })
        })
        .collect();
    Ok(pb::QueryBatchResponse { result: results?, ..Default::default() })
}

pub fn search(storage: &Storage, request: pb::SearchPoints) -> Result<Vec<pb::ScoredPoint>> {
    let collection = storage.get(&request.collection_name)?;
    run(&collection, search_in(request)?)
}

pub fn search_batch(storage: &Storage, request: pb::SearchBatchPoints) -> Result<pb::SearchBatchResponse> {
    let results: Result<Vec<_>> = request
        .search_points
        .into_iter()
        .map(|mut one| {
            one.collection_name.clone_from(&request.collection_name);
            search(storage, one).map(|result| pb::BatchResult { result })
        })
        .collect();
    Ok(pb::SearchBatchResponse { result: results?, ..Default::default() })
}

/// The engine returns `offset + limit` results; the real server cuts the offset off above it.
fn run(collection: &Collection, query: QueryRequest) -> Result<Vec<pb::ScoredPoint>> {
    if query.limit == 0 {
        return Err(Error::malformed("Validation error in body: [limit: value 0 invalid, must be 1 or larger]"));
    }
    let (limit, offset) = (query.limit, query.offset);
    if offset > 0 && matches!(query.query, Some(ScoringQuery::Mmr(_))) {
        return Err(Error::unimplemented("an offset in a query with mmr"));
    }
    let points = collection.read(|shard| Ok(shard.query(query)?))?;
    Ok(points.into_iter().skip(offset).take(limit).map(scored_out).collect())
}

fn stored_vector(collection: &Collection, id: PointId, name: &str) -> Result<VectorInternal> {
    let records = collection.read(|shard| {
        Ok(shard.retrieve(&[id], Some(WithPayloadInterface::Bool(false)), Some(WithVector::Bool(true)))?)
    })?;
    let record = records.into_iter().next().ok_or_else(|| Error::NotFound(format!("No point with id {id} found")))?;
    record
        .vector
        .and_then(|vectors| take_named(vectors, name))
        .ok_or_else(|| Error::bad_input(format!("Point {id} has no vector `{name}`")))
}
