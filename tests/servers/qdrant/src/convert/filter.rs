//! Filters: every condition that the engine of this version knows.

use qdrant_client::qdrant as pb;
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    Condition, DateTimeWrapper, FieldCondition, Filter, GeoBoundingBox, GeoPoint, GeoPolygon, GeoRadius,
    HasIdCondition, HasVectorCondition, IsEmptyCondition, IsNullCondition, Match, MatchExcept, MatchPhrase,
    MatchTextAny, MinShould, Nested, NestedCondition, Range, RangeInterface, ValuesCount,
};
use serde_json::json;

use super::{payload::json_path, points::ids_in};
use crate::error::{Error, Result};

pub fn filter_in(filter: pb::Filter) -> Result<Filter> {
    Ok(Filter {
        should: some_conditions(filter.should)?,
        min_should: filter
            .min_should
            .map(|min| {
                Ok::<_, Error>(MinShould { conditions: conditions(min.conditions)?, min_count: min.min_count as usize })
            })
            .transpose()?,
        must: some_conditions(filter.must)?,
        must_not: some_conditions(filter.must_not)?,
    })
}

pub fn some_filter_in(filter: Option<pb::Filter>) -> Result<Option<Filter>> {
    filter.map(filter_in).transpose()
}

fn some_conditions(list: Vec<pb::Condition>) -> Result<Option<Vec<Condition>>> {
    if list.is_empty() {
        return Ok(None);
    }
    conditions(list).map(Some)
}

/// Empty conditions are dropped, as the real server drops them.
fn conditions(list: Vec<pb::Condition>) -> Result<Vec<Condition>> {
    list.into_iter().filter_map(|condition| condition.condition_one_of).map(condition_in).collect()
}

fn condition_in(condition: pb::condition::ConditionOneOf) -> Result<Condition> {
    use pb::condition::ConditionOneOf;
    Ok(match condition {
        ConditionOneOf::Field(field) => Condition::Field(field_in(field)?),
        ConditionOneOf::IsEmpty(empty) => Condition::IsEmpty(IsEmptyCondition::from(json_path(&empty.key)?)),
        ConditionOneOf::IsNull(null) => Condition::IsNull(IsNullCondition::from(json_path(&null.key)?)),
        ConditionOneOf::HasId(has) => Condition::HasId(ids_in(has.has_id)?.into_iter().collect::<HasIdCondition>()),
        ConditionOneOf::HasVector(has) => Condition::HasVector(HasVectorCondition::from(has.has_vector)),
        ConditionOneOf::Filter(filter) => Condition::Filter(filter_in(filter)?),
        ConditionOneOf::Nested(nested) => {
            let filter = nested.filter.ok_or_else(|| Error::malformed("Nested condition must have a filter"))?;
            Condition::Nested(NestedCondition::new(Nested { key: json_path(&nested.key)?, filter: filter_in(filter)? }))
        }
        ConditionOneOf::Slice(_) => return Err(Error::unimplemented("slice conditions")),
    })
}

fn field_in(field: pb::FieldCondition) -> Result<FieldCondition> {
    let range = match (field.range, field.datetime_range) {
        (Some(range), _) => Some(RangeInterface::Float(Range {
            lt: range.lt.map(OrderedFloat),
            gt: range.gt.map(OrderedFloat),
            gte: range.gte.map(OrderedFloat),
            lte: range.lte.map(OrderedFloat),
        })),
        (None, Some(range)) => Some(RangeInterface::DateTime(Range {
            lt: range.lt.map(timestamp_in).transpose()?,
            gt: range.gt.map(timestamp_in).transpose()?,
            gte: range.gte.map(timestamp_in).transpose()?,
            lte: range.lte.map(timestamp_in).transpose()?,
        })),
        (None, None) => None,
    };
    Ok(FieldCondition {
        key: json_path(&field.key)?,
        r#match: field.r#match.map(match_in).transpose()?,
        range,
        geo_bounding_box: field.geo_bounding_box.map(bounding_box_in).transpose()?,
        geo_radius: field.geo_radius.map(radius_in).transpose()?,
        geo_polygon: field.geo_polygon.as_ref().map(polygon_in).transpose()?,
        values_count: field.values_count.map(|count| ValuesCount {
            lt: count.lt.map(|n| n as usize),
            gt: count.gt.map(|n| n as usize),
            gte: count.gte.map(|n| n as usize),
            lte: count.lte.map(|n| n as usize),
        }),
        is_empty: field.is_empty,
        is_null: field.is_null,
    })
}

fn match_in(matching: pb::Match) -> Result<Match> {
    use pb::r#match::MatchValue;
    Ok(match matching.match_value {
        Some(MatchValue::Keyword(text)) => Match::from(text),
        Some(MatchValue::Integer(int)) => Match::from(int),
        Some(MatchValue::Boolean(flag)) => Match::from(flag),
        Some(MatchValue::Text(text)) => Match::new_text(&text),
        Some(MatchValue::Phrase(phrase)) => Match::Phrase(MatchPhrase { phrase }),
        Some(MatchValue::TextAny(text_any)) => Match::TextAny(MatchTextAny { text_any }),
        Some(MatchValue::Keywords(list)) => Match::from(list.strings),
        Some(MatchValue::Integers(list)) => Match::from(list.integers),
        Some(MatchValue::ExceptKeywords(list)) => Match::Except(MatchExcept::from(list.strings)),
        Some(MatchValue::ExceptIntegers(list)) => Match::Except(MatchExcept::from(list.integers)),
        Some(MatchValue::Prefix(_)) => return Err(Error::unimplemented("prefix matches")),
        Some(MatchValue::Substring(_)) => return Err(Error::unimplemented("substring matches")),
        None => return Err(Error::malformed("Malformed Match condition")),
    })
}

/// Nanoseconds are kept; the engine rounds to microseconds itself.
pub fn timestamp_in(timestamp: prost_types::Timestamp) -> Result<DateTimeWrapper> {
    let nanos = u32::try_from(timestamp.nanos).unwrap_or(u32::MAX);
    chrono::DateTime::from_timestamp(timestamp.seconds, nanos)
        .map(DateTimeWrapper)
        .ok_or_else(|| Error::malformed(format!("Unable to parse timestamp: {timestamp:?}")))
}

fn geo_point_in(point: Option<pb::GeoPoint>) -> Result<GeoPoint> {
    let point = point.ok_or_else(|| Error::malformed("Malformed geo condition"))?;
    GeoPoint::new(point.lon, point.lat).map_err(|error| Error::malformed(error.to_string()))
}

fn bounding_box_in(area: pb::GeoBoundingBox) -> Result<GeoBoundingBox> {
    Ok(GeoBoundingBox { top_left: geo_point_in(area.top_left)?, bottom_right: geo_point_in(area.bottom_right)? })
}

fn radius_in(area: pb::GeoRadius) -> Result<GeoRadius> {
    Ok(GeoRadius { center: geo_point_in(area.center)?, radius: OrderedFloat(f64::from(area.radius)) })
}

/// Through JSON, because the engine does not export its line type.
fn polygon_in(area: &pb::GeoPolygon) -> Result<GeoPolygon> {
    let line = |line: &pb::GeoLineString| {
        let points: Vec<_> = line.points.iter().map(|point| json!({"lon": point.lon, "lat": point.lat})).collect();
        json!({ "points": points })
    };
    let exterior = area.exterior.as_ref().ok_or_else(|| Error::malformed("Malformed GeoPolygon type"))?;
    let interiors: Vec<_> = area.interiors.iter().map(line).collect();
    serde_json::from_value(json!({"exterior": line(exterior), "interiors": interiors}))
        .map_err(|error| Error::malformed(format!("Malformed GeoPolygon type: {error}")))
}
