//! Point operations that change data: the engine's operation for each request.

use std::collections::HashMap;

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    ConditionalInsertOperation, CreateIndex, DeletePayloadOp, FieldIndexOperations, Filter, PayloadOps,
    PointInsertOperations, PointOperations, SetPayloadOp, UpdateMode, UpdateOperation, UpdateVectorsOp,
    VectorOperations,
};

use crate::convert::filter::some_filter_in;
use crate::convert::index::schema_in;
use crate::convert::payload::{json_path, payload_in};
use crate::convert::points::{Selection, point_in, point_vectors_in, selection_in, update_mode_in};
use crate::error::{Error, Result};
use crate::storage::{Collection, Storage};

/// Where an operation goes and how it is answered.
pub struct Target<'a> {
    pub collection: &'a str,
    pub wait: Option<bool>,
}

/// Applies one operation. As on the real server, a request that does not wait is acknowledged
/// before its vectors are looked at: what is wrong with them is only in the log.
pub fn apply(storage: &Storage, target: &Target, operation: UpdateOperation) -> Result<pb::UpdateResult> {
    let collection = storage.get(target.collection)?;
    apply_to(&collection, target.wait.unwrap_or(false), operation)
}

fn apply_to(collection: &Collection, wait: bool, operation: UpdateOperation) -> Result<pb::UpdateResult> {
    let (number, status) = match (collection.update(operation), wait) {
        (Ok(number), true) => (Some(number), pb::UpdateStatus::Completed),
        (Ok(number), false) => (Some(number), pb::UpdateStatus::Acknowledged),
        (Err(error @ (Error::BadInput(_) | Error::NotFound(_))), false) => {
            let name = collection.name();
            eprintln!("collection `{name}`: an acknowledged operation failed: {error}");
            (None, pb::UpdateStatus::Acknowledged)
        }
        (Err(error), _) => return Err(error),
    };
    Ok(pb::UpdateResult { operation_id: number, status: status.into() })
}

pub fn response(result: pb::UpdateResult) -> pb::PointsOperationResponse {
    pb::PointsOperationResponse { result: Some(result), time: 0.0, usage: None }
}

fn no_shard_key(selector: Option<pb::ShardKeySelector>) -> Result<()> {
    match selector {
        Some(selector) if !selector.shard_keys.is_empty() => Err(Error::unimplemented("shard keys")),
        _ => Ok(()),
    }
}

pub fn upsert(
    points: Vec<pb::PointStruct>,
    filter: Option<pb::Filter>,
    mode: Option<i32>,
    shard_key: Option<pb::ShardKeySelector>,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    let points: Result<Vec<_>> = points.into_iter().map(point_in).collect();
    let points = PointInsertOperations::PointsList(points?);
    let (filter, mode) = (some_filter_in(filter)?, update_mode_in(mode)?);
    let operation = match (filter, mode) {
        (None, None | Some(UpdateMode::Upsert)) => PointOperations::UpsertPoints(points),
        (filter, update_mode) => PointOperations::UpsertPointsConditional(ConditionalInsertOperation {
            points_op: points,
            condition: filter.unwrap_or_else(Filter::default),
            update_mode,
        }),
    };
    Ok(UpdateOperation::PointOperation(operation))
}

pub fn delete(points: Option<pb::PointsSelector>, shard_key: Option<pb::ShardKeySelector>) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    Ok(UpdateOperation::PointOperation(match selection_in(points)? {
        Selection::Ids(ids) => PointOperations::DeletePoints { ids },
        Selection::Filter(filter) => PointOperations::DeletePointsByFilter(filter),
    }))
}

pub fn update_vectors(
    points: Vec<pb::PointVectors>,
    filter: Option<pb::Filter>,
    shard_key: Option<pb::ShardKeySelector>,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    let points: Result<Vec<_>> = points.into_iter().map(point_vectors_in).collect();
    Ok(UpdateOperation::VectorOperation(VectorOperations::UpdateVectors(UpdateVectorsOp {
        points: points?,
        update_filter: some_filter_in(filter)?,
    })))
}

pub fn delete_vectors(
    points: Option<pb::PointsSelector>,
    vectors: Option<pb::VectorsSelector>,
    shard_key: Option<pb::ShardKeySelector>,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    let names = vectors.map(|vectors| vectors.names).unwrap_or_default();
    Ok(UpdateOperation::VectorOperation(match selection_in(points)? {
        Selection::Ids(ids) => VectorOperations::DeleteVectors(ids.into(), names),
        Selection::Filter(filter) => VectorOperations::DeleteVectorsByFilter(filter, names),
    }))
}

/// A payload to set, or to put in the place of the old one.
pub fn set_payload(
    payload: HashMap<String, pb::Value>,
    points: Option<pb::PointsSelector>,
    key: Option<String>,
    shard_key: Option<pb::ShardKeySelector>,
    overwrite: bool,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    let (points, filter) = halves(selection_in(points)?);
    let set = SetPayloadOp {
        payload: payload_in(payload)?,
        points,
        filter,
        key: key.map(|key| json_path(&key)).transpose()?,
    };
    Ok(UpdateOperation::PayloadOperation(if overwrite {
        PayloadOps::OverwritePayload(set)
    } else {
        PayloadOps::SetPayload(set)
    }))
}

pub fn delete_payload(
    keys: &[String],
    points: Option<pb::PointsSelector>,
    shard_key: Option<pb::ShardKeySelector>,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    let keys: Result<Vec<_>> = keys.iter().map(|key| json_path(key)).collect();
    let (points, filter) = halves(selection_in(points)?);
    Ok(UpdateOperation::PayloadOperation(PayloadOps::DeletePayload(DeletePayloadOp { keys: keys?, points, filter })))
}

pub fn clear_payload(
    points: Option<pb::PointsSelector>,
    shard_key: Option<pb::ShardKeySelector>,
) -> Result<UpdateOperation> {
    no_shard_key(shard_key)?;
    Ok(UpdateOperation::PayloadOperation(match selection_in(points)? {
        Selection::Ids(points) => PayloadOps::ClearPayload { points },
        Selection::Filter(filter) => PayloadOps::ClearPayloadByFilter(filter),
    }))
}

fn halves(selection: Selection) -> (Option<Vec<qdrant_edge::PointId>>, Option<Filter>) {
    match selection {
        Selection::Ids(ids) => (Some(ids), None),
        Selection::Filter(filter) => (None, Some(filter)),
    }
}

pub fn create_index(request: pb::CreateFieldIndexCollection) -> Result<UpdateOperation> {
    let index = CreateIndex {
        field_name: json_path(&request.field_name)?,
        field_schema: schema_in(request.field_type, request.field_index_params)?,
    };
    Ok(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index)))
}

pub fn delete_index(field: &str) -> Result<UpdateOperation> {
    Ok(UpdateOperation::FieldIndexOperation(FieldIndexOperations::DeleteIndex(json_path(field)?)))
}

/// The operations of a batch, one after another; all are understood before the first is applied.
pub fn batch(storage: &Storage, request: pb::UpdateBatchPoints) -> Result<pb::UpdateBatchResponse> {
    let collection = storage.get(&request.collection_name)?;
    let operations: Result<Vec<_>> = request
        .operations
        .into_iter()
        .map(|operation| {
            let operation = operation.operation;
            batched(operation.ok_or_else(|| Error::malformed("Malformed operation"))?)
        })
        .collect();
    let wait = request.wait.unwrap_or(false);
    let results: Result<Vec<_>> =
        operations?.into_iter().map(|operation| apply_to(&collection, wait, operation)).collect();
    Ok(pb::UpdateBatchResponse { result: results?, ..Default::default() })
}

#[expect(deprecated, reason = "older clients send the deprecated forms")]
fn batched(operation: pb::points_update_operation::Operation) -> Result<UpdateOperation> {
    use pb::points_update_operation::Operation;
    match operation {
        Operation::Upsert(op) => upsert(op.points, op.update_filter, op.update_mode, op.shard_key_selector),
        Operation::DeleteDeprecated(points) => delete(Some(points), None),
        Operation::DeletePoints(op) => delete(op.points, op.shard_key_selector),
        Operation::SetPayload(op) => set_payload(op.payload, op.points_selector, op.key, op.shard_key_selector, false),
        Operation::OverwritePayload(op) => {
            set_payload(op.payload, op.points_selector, op.key, op.shard_key_selector, true)
        }
        Operation::DeletePayload(op) => delete_payload(&op.keys, op.points_selector, op.shard_key_selector),
        Operation::ClearPayloadDeprecated(points) => clear_payload(Some(points), None),
        Operation::ClearPayload(op) => clear_payload(op.points, op.shard_key_selector),
        Operation::UpdateVectors(op) => update_vectors(op.points, op.update_filter, op.shard_key_selector),
        Operation::DeleteVectors(op) => delete_vectors(op.points_selector, op.vectors, op.shard_key_selector),
    }
}
