//! What the engine returns, as the wire wants it.

use qdrant_client::qdrant as pb;
use qdrant_edge::{FacetHit, FacetValue, OrderValue, Record, ScoredPoint};

use super::{payload::payload_out, points::id_out, vectors::vectors_out};

pub fn record_out(record: Record) -> pb::RetrievedPoint {
    pb::RetrievedPoint {
        id: Some(id_out(record.id)),
        payload: record.payload.map(payload_out).unwrap_or_default(),
        vectors: record.vector.map(vectors_out),
        shard_key: None,
        order_value: record.order_value.map(order_value_out),
    }
}

pub fn scored_out(point: ScoredPoint) -> pb::ScoredPoint {
    pb::ScoredPoint {
        id: Some(id_out(point.id)),
        payload: point.payload.map(payload_out).unwrap_or_default(),
        score: point.score,
        version: point.version,
        vectors: point.vector.map(vectors_out),
        shard_key: None,
        order_value: point.order_value.map(order_value_out),
    }
}

fn order_value_out(value: OrderValue) -> pb::OrderValue {
    use pb::order_value::Variant;
    pb::OrderValue {
        variant: Some(match value {
            OrderValue::Int(int) => Variant::Int(int),
            OrderValue::Float(float) => Variant::Float(float),
        }),
    }
}

pub fn facet_out(hit: FacetHit<FacetValue>) -> pb::FacetHit {
    use pb::facet_value::Variant;
    let value = match hit.value {
        FacetValue::Keyword(text) => Variant::StringValue(text),
        FacetValue::Int(int) => Variant::IntegerValue(int),
        FacetValue::Uuid(uuid) => Variant::StringValue(uuid::Uuid::from_u128(uuid).to_string()),
        FacetValue::Bool(flag) => Variant::BoolValue(flag),
    };
    pb::FacetHit { value: Some(pb::FacetValue { variant: Some(value) }), count: hit.count as u64 }
}
