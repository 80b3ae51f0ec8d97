//! Queries: the part of the universal query that the engine can answer on its own.

use qdrant_client::qdrant as pb;
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AcornSearchParams, Condition, Direction, Filter, Fusion, HasIdCondition, Mmr, NamedQuery, OrderBy, PointId,
    Prefetch, QuantizationSearchParams, QueryEnum, QueryRequest, Sample, ScoringQuery, SearchParams, StartFrom,
    VectorInternal,
};

use super::filter::{some_filter_in, timestamp_in};
use super::payload::json_path;
use super::points::{id_in, with_payload_in, with_vectors_in};
use super::vectors::{query_vector_in, search_vector_in};
use crate::error::{Error, Result};

/// What the real server uses where a request says nothing.
const DEFAULT_LIMIT: usize = 10;
const DEFAULT_RRF_K: usize = 2;
const DEFAULT_MMR_DIVERSITY: f32 = 0.5;

/// Finds the stored vector of a point, for queries by point id: `(id, vector name)`.
pub type Resolve<'a> = &'a dyn Fn(PointId, &str) -> Result<VectorInternal>;

pub fn query_in(request: pb::QueryPoints, resolve: Resolve) -> Result<QueryRequest> {
    if request.lookup_from.is_some() {
        return Err(Error::unimplemented("lookup_from"));
    }
    let mut filter = some_filter_in(request.filter)?;
    let using = request.using.unwrap_or_default();
    let limit = request.limit.map_or(DEFAULT_LIMIT, |n| n as usize);
    let query = request.query.map(|query| scoring_in(query, using, limit, &mut filter, resolve)).transpose()?;
    let prefetches: Result<_> = request.prefetch.into_iter().map(|prefetch| prefetch_in(prefetch, resolve)).collect();
    Ok(QueryRequest {
        prefetches: prefetches?,
        query,
        filter,
        score_threshold: request.score_threshold.map(OrderedFloat),
        limit,
        offset: request.offset.unwrap_or_default() as usize,
        params: request.params.as_ref().map(params_in).transpose()?,
        with_vector: with_vectors_in(request.with_vectors),
        with_payload: with_payload_in(request.with_payload, false)?,
    })
}

fn prefetch_in(prefetch: pb::PrefetchQuery, resolve: Resolve) -> Result<Prefetch> {
    if prefetch.lookup_from.is_some() {
        return Err(Error::unimplemented("lookup_from"));
    }
    let mut filter = some_filter_in(prefetch.filter)?;
    let using = prefetch.using.unwrap_or_default();
    let limit = prefetch.limit.map_or(DEFAULT_LIMIT, |n| n as usize);
    let query = prefetch.query.map(|query| scoring_in(query, using, limit, &mut filter, resolve)).transpose()?;
    let prefetches: Result<_> = prefetch.prefetch.into_iter().map(|prefetch| prefetch_in(prefetch, resolve)).collect();
    Ok(Prefetch {
        prefetches: prefetches?,
        query,
        limit,
        params: prefetch.params.as_ref().map(params_in).transpose()?,
        filter,
        score_threshold: prefetch.score_threshold.map(OrderedFloat),
    })
}

/// The deprecated `Search` call is a nearest query with other field names.
pub fn search_in(request: pb::SearchPoints) -> Result<QueryRequest> {
    let vector = search_vector_in(request.vector, request.sparse_indices)?;
    let name = request.vector_name.unwrap_or_default();
    Ok(QueryRequest {
        prefetches: Vec::new(),
        query: Some(nearest(vector, name)),
        filter: some_filter_in(request.filter)?,
        score_threshold: request.score_threshold.map(OrderedFloat),
        limit: request.limit as usize,
        offset: request.offset.unwrap_or_default() as usize,
        params: request.params.as_ref().map(params_in).transpose()?,
        with_vector: with_vectors_in(request.with_vectors),
        with_payload: with_payload_in(request.with_payload, false)?,
    })
}

fn nearest(vector: VectorInternal, name: String) -> ScoringQuery {
    ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery::new(vector, name)))
}

fn scoring_in(
    query: pb::Query,
    using: String,
    limit: usize,
    filter: &mut Option<Filter>,
    resolve: Resolve,
) -> Result<ScoringQuery> {
    use pb::query::Variant;
    let variant = query.variant.ok_or_else(|| Error::malformed("Query variant is missing"))?;
    match variant {
        Variant::Nearest(input) => {
            let vector = input_in(input, &using, filter, resolve)?;
            Ok(nearest(vector, using))
        }
        Variant::NearestWithMmr(input) => {
            let nearest = input.nearest.ok_or_else(|| Error::malformed("nearest vector is missing"))?;
            let mmr = input.mmr.unwrap_or_default();
            let diversity = mmr.diversity.unwrap_or(DEFAULT_MMR_DIVERSITY);
            Ok(ScoringQuery::Mmr(Mmr {
                vector: input_in(nearest, &using, filter, resolve)?,
                using,
                lambda: OrderedFloat(1.0 - diversity),
                candidates_limit: mmr.candidates_limit.map_or(limit, |n| n as usize),
            }))
        }
        Variant::OrderBy(order) => Ok(ScoringQuery::OrderBy(order_by_in(order)?)),
        Variant::Fusion(fusion) => match pb::Fusion::try_from(fusion) {
            Ok(pb::Fusion::Rrf) => Ok(rrf(DEFAULT_RRF_K, None)),
            Ok(pb::Fusion::Dbsf) => Ok(ScoringQuery::Fusion(Fusion::Dbsf)),
            Err(_) => Err(Error::malformed("fusion is malformed")),
        },
        Variant::Rrf(options) => {
            let weights = options.weights.into_iter().map(OrderedFloat).collect();
            let weights = Some(weights).filter(|list: &Vec<_>| !list.is_empty());
            let k = options.k.map_or(DEFAULT_RRF_K, |k| k as usize);
            Ok(rrf(k, weights))
        }
        Variant::Sample(_) => Ok(ScoringQuery::Sample(Sample::Random)),
        Variant::Recommend(_) => Err(Error::unimplemented("recommend queries")),
        Variant::Discover(_) => Err(Error::unimplemented("discover queries")),
        Variant::Context(_) => Err(Error::unimplemented("context queries")),
        Variant::Formula(_) => Err(Error::unimplemented("formula queries")),
        Variant::RelevanceFeedback(_) => Err(Error::unimplemented("relevance feedback queries")),
        Variant::Text(_) => Err(Error::unimplemented("text queries")),
    }
}

fn rrf(k: usize, weights: Option<Vec<OrderedFloat<f32>>>) -> ScoringQuery {
    ScoringQuery::Fusion(Fusion::Rrf { k, weights })
}

/// A query by point id never returns that point itself.
fn input_in(
    input: pb::VectorInput,
    using: &str,
    filter: &mut Option<Filter>,
    resolve: Resolve,
) -> Result<VectorInternal> {
    use pb::vector_input::Variant;
    match input.variant {
        Some(Variant::Id(id)) => {
            let id = id_in(id)?;
            let not_itself = Condition::HasId(std::iter::once(id).collect::<HasIdCondition>());
            filter.get_or_insert_default().must_not.get_or_insert_default().push(not_itself);
            resolve(id, using)
        }
        Some(variant) => query_vector_in(variant),
        None => Err(Error::malformed("VectorInput variant is missing")),
    }
}

pub fn order_by_in(order: pb::OrderBy) -> Result<OrderBy> {
    use pb::start_from::Value;
    let direction = match order.direction.map(pb::Direction::try_from) {
        None => None,
        Some(Ok(pb::Direction::Asc)) => Some(Direction::Asc),
        Some(Ok(pb::Direction::Desc)) => Some(Direction::Desc),
        Some(Err(_)) => return Err(Error::malformed("Unknown direction")),
    };
    let start_from = match order.start_from.and_then(|start| start.value) {
        None => None,
        Some(Value::Float(float)) => Some(StartFrom::Float(float)),
        Some(Value::Integer(int)) => Some(StartFrom::Integer(int)),
        Some(Value::Timestamp(time)) => Some(StartFrom::Datetime(timestamp_in(time)?)),
        Some(Value::Datetime(text)) => {
            let time = text.parse().map_err(|_| Error::malformed(format!("Unable to parse datetime: {text}")))?;
            Some(StartFrom::Datetime(time))
        }
    };
    Ok(OrderBy { key: json_path(&order.key)?, direction, start_from })
}

fn params_in(params: &pb::SearchParams) -> Result<SearchParams> {
    if params.idf.is_some() {
        return Err(Error::unimplemented("the idf search parameter"));
    }
    Ok(SearchParams {
        hnsw_ef: params.hnsw_ef.map(|ef| ef as usize),
        exact: params.exact.unwrap_or_default(),
        quantization: params.quantization.map(|quantization| QuantizationSearchParams {
            ignore: quantization.ignore.unwrap_or_default(),
            rescore: quantization.rescore,
            oversampling: quantization.oversampling,
        }),
        indexed_only: params.indexed_only.unwrap_or_default(),
        acorn: params.acorn.map(|acorn| AcornSearchParams {
            enable: acorn.enable.unwrap_or_default(),
            max_selectivity: acorn.max_selectivity.map(OrderedFloat),
        }),
    })
}
