//! Payload values: protobuf `Value` to JSON and back.

use std::collections::HashMap;

use qdrant_client::qdrant::{ListValue, Struct, Value, value::Kind};
use qdrant_edge::{JsonPath, Payload};
use serde_json::{Map, Number, Value as Json};

use crate::error::{Error, Result};

/// Parses a payload path such as `a.b[].c`.
pub fn json_path(text: &str) -> Result<JsonPath> {
    text.parse().map_err(|()| Error::malformed(format!("Invalid json path: '{text}'")))
}

/// A whole payload from the wire.
pub fn payload_in(fields: HashMap<String, Value>) -> Result<Payload> {
    Ok(Payload(object_in(fields)?))
}

/// A whole payload to the wire.
pub fn payload_out(payload: Payload) -> HashMap<String, Value> {
    payload.0.into_iter().map(|(key, value)| (key, value_out(value))).collect()
}

fn object_in(fields: HashMap<String, Value>) -> Result<Map<String, Json>> {
    fields.into_iter().map(|(key, value)| Ok((key, value_in(value)?))).collect()
}

fn value_in(value: Value) -> Result<Json> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(flag)) => Json::Bool(flag),
        Some(Kind::IntegerValue(int)) => Json::Number(int.into()),
        // JSON has no NaN and no infinity: the real server refuses them too.
        Some(Kind::DoubleValue(float)) => Number::from_f64(float)
            .map(Json::Number)
            .ok_or_else(|| Error::malformed("cannot convert to json number"))?,
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::ListValue(list)) => {
            let items: Result<Vec<_>> = list.values.into_iter().map(value_in).collect();
            Json::Array(items?)
        }
        Some(Kind::StructValue(object)) => Json::Object(object_in(object.fields)?),
    })
}

fn value_out(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(flag),
        // As the real server: what fits i64 is an integer, everything else a double.
        Json::Number(number) => match number.as_i64() {
            Some(int) => Kind::IntegerValue(int),
            None => Kind::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(value_out).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(key, value)| (key, value_out(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
