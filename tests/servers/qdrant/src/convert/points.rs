//! Point ids, selectors and whole points.

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    Filter, PayloadSelector, PayloadSelectorExclude, PayloadSelectorInclude, PointId, PointStructPersisted,
    PointVectorsPersisted, UpdateMode, WithPayloadInterface, WithVector,
};
use uuid::Uuid;

use super::{filter::filter_in, payload, vectors::vectors_in};
use crate::error::{Error, Result};

/// A point id from the wire; uuids are read in every form that the `uuid` crate reads.
pub fn id_in(id: pb::PointId) -> Result<PointId> {
    use pb::point_id::PointIdOptions;
    match id.point_id_options {
        Some(PointIdOptions::Num(number)) => Ok(PointId::NumId(number)),
        Some(PointIdOptions::Uuid(text)) => Uuid::parse_str(&text)
            .map(PointId::Uuid)
            .map_err(|_| Error::malformed(format!("Unable to parse UUID: {text}"))),
        None => Err(Error::malformed("No ID options provided")),
    }
}

pub fn ids_in(ids: Vec<pb::PointId>) -> Result<Vec<PointId>> {
    ids.into_iter().map(id_in).collect()
}

pub fn id_out(id: PointId) -> pb::PointId {
    use pb::point_id::PointIdOptions;
    let options = match id {
        PointId::NumId(number) => PointIdOptions::Num(number),
        PointId::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
    };
    pb::PointId { point_id_options: Some(options) }
}

/// Which points an operation is about.
pub enum Selection {
    Ids(Vec<PointId>),
    Filter(Filter),
}

pub fn selection_in(selector: Option<pb::PointsSelector>) -> Result<Selection> {
    use pb::points_selector::PointsSelectorOneOf;
    match selector.and_then(|selector| selector.points_selector_one_of) {
        Some(PointsSelectorOneOf::Points(list)) => Ok(Selection::Ids(ids_in(list.ids)?)),
        Some(PointsSelectorOneOf::Filter(filter)) => Ok(Selection::Filter(filter_in(filter)?)),
        None => Err(Error::malformed("PointSelector is missing")),
    }
}

/// A point of an upsert. An empty payload means "none", as in the real server.
pub fn point_in(point: pb::PointStruct) -> Result<PointStructPersisted> {
    let id = point.id.ok_or_else(|| Error::malformed("Empty ID is not allowed"))?;
    Ok(PointStructPersisted {
        id: id_in(id)?,
        vector: vectors_in(point.vectors)?,
        payload: if point.payload.is_empty() { None } else { Some(payload::payload_in(point.payload)?) },
    })
}

pub fn point_vectors_in(point: pb::PointVectors) -> Result<PointVectorsPersisted> {
    let id = point.id.ok_or_else(|| Error::malformed("id is expected"))?;
    Ok(PointVectorsPersisted { id: id_in(id)?, vector: vectors_in(point.vectors)? })
}

pub fn update_mode_in(mode: Option<i32>) -> Result<Option<UpdateMode>> {
    mode.map(|mode| match pb::UpdateMode::try_from(mode) {
        Ok(pb::UpdateMode::Upsert) => Ok(UpdateMode::Upsert),
        Ok(pb::UpdateMode::InsertOnly) => Ok(UpdateMode::InsertOnly),
        Ok(pb::UpdateMode::UpdateOnly) => Ok(UpdateMode::UpdateOnly),
        Err(_) => Err(Error::malformed(format!("Unknown update mode: {mode}"))),
    })
    .transpose()
}

/// `with_payload`; what an absent selector means differs per call, so the caller says it.
pub fn with_payload_in(selector: Option<pb::WithPayloadSelector>, default: bool) -> Result<WithPayloadInterface> {
    use pb::with_payload_selector::SelectorOptions;
    let paths =
        |fields: Vec<String>| -> Result<Vec<_>> { fields.iter().map(|field| payload::json_path(field)).collect() };
    let Some(selector) = selector else {
        return Ok(WithPayloadInterface::Bool(default));
    };
    match selector.selector_options {
        Some(SelectorOptions::Enable(flag)) => Ok(WithPayloadInterface::Bool(flag)),
        Some(SelectorOptions::Include(include)) => {
            Ok(WithPayloadInterface::Selector(PayloadSelector::Include(PayloadSelectorInclude {
                include: paths(include.fields)?,
            })))
        }
        Some(SelectorOptions::Exclude(exclude)) => {
            Ok(WithPayloadInterface::Selector(PayloadSelector::Exclude(PayloadSelectorExclude {
                exclude: paths(exclude.fields)?,
            })))
        }
        None => Err(Error::malformed("No PayloadSelector")),
    }
}

pub fn with_vectors_in(selector: Option<pb::WithVectorsSelector>) -> WithVector {
    use pb::with_vectors_selector::SelectorOptions;
    match selector.and_then(|selector| selector.selector_options) {
        Some(SelectorOptions::Enable(flag)) => WithVector::Bool(flag),
        Some(SelectorOptions::Include(include)) => WithVector::Selector(include.names),
        None => WithVector::Bool(false),
    }
}
