//! Payloads: canonical text to the messages of the wire and back.

use std::collections::HashMap;
use std::fmt::Write as _;

use qdrant_client::qdrant::{ListValue, NullValue, Struct, Value as Wire, value::Kind};
use smallvec::SmallVec;

use crate::value::{Value, canonical_f64, unescape_key, write_text};

/// Messages that may lie within each other below a payload, so that a point stays readable: Protocol Buffers readers
/// refuse a hundred, and a point in its request or answer takes some of them.
const MAX_MESSAGES: usize = 96;

type Fields = HashMap<String, Wire>;

/// Reads a body for the wire; why not, if it cannot be said there.
pub fn from_body(body: &[u8]) -> Result<Fields, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    match Value::from_canonical(text).map_err(|e| e.message)? {
        Value::Map(map) => fields(map, 0),
        other => Err(format!("a payload is an object, got: {}", other.type_name())),
    }
}

/// Any object for the wire.
pub fn fields(map: crate::value::Map, messages: usize) -> Result<Fields, String> {
    map.into_iter()
        .map(|(key, value)| {
            let plain = unescape_key(&key).ok_or_else(|| format!("a payload has no place for the key {key:?}"))?;
            // The entry of the map and the value in it.
            let value = wire(value, messages + 2)?;
            let plain = if plain.len() == key.len() { key } else { plain.to_owned() };
            Ok((plain, value))
        })
        .collect()
}

fn wire(value: Value, messages: usize) -> Result<Wire, String> {
    if messages > MAX_MESSAGES {
        return Err("nested deeper than the wire can carry".to_owned());
    }
    let kind = match value {
        Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Int(int) => Kind::IntegerValue(int),
        Value::Float(float) if float.is_finite() => Kind::DoubleValue(float),
        Value::Text(text) => Kind::StringValue(text),
        Value::List(items) => {
            let values: Result<_, _> = items.into_iter().map(|item| wire(item, messages + 2)).collect();
            Kind::ListValue(ListValue { values: values? })
        }
        Value::Map(map) => Kind::StructValue(Struct { fields: fields(map, messages + 1)? }),
        Value::UInt(uint) => return Err(format!("a payload has no integer above 9223372036854775807, got: {uint}")),
        Value::Float(float) => return Err(format!("a payload has no number for {float}")),
        Value::Number(text) => return Err(format!("a payload has no exact number for {text}")),
        Value::Bytes(_) => return Err("a payload has no bytes".to_owned()),
    };
    Ok(Wire { kind: Some(kind) })
}

/// Appends the canonical text of a payload.
pub fn write_body(fields: &Fields, out: &mut String) {
    // Escaping puts one more `$` before each key that has one, so it does not change the order.
    let mut members: SmallVec<[(&String, &Wire); 32]> = fields.iter().collect();
    members.sort_unstable_by(|a, b| a.0.cmp(b.0));
    out.push('{');
    for (i, (key, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if key.starts_with('$') {
            out.push_str("\"$");
            let quote = out.len();
            write_text(key, out);
            out.remove(quote);
        } else {
            write_text(key, out);
        }
        out.push(':');
        write_value(value, out);
    }
    out.push('}');
}

fn write_value(value: &Wire, out: &mut String) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.push_str("null"),
        Some(Kind::BoolValue(flag)) => out.push_str(if *flag { "true" } else { "false" }),
        Some(Kind::IntegerValue(int)) => write!(out, "{int}").unwrap_or_default(),
        Some(Kind::DoubleValue(float)) if float.is_finite() => {
            out.push_str(ryu::Buffer::new().format_finite(*float));
        }
        Some(Kind::DoubleValue(float)) => out.push_str(&canonical_f64(*float)),
        Some(Kind::StringValue(text)) => write_text(text, out),
        Some(Kind::ListValue(list)) => {
            out.push('[');
            for (i, item) in list.values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Some(Kind::StructValue(object)) => write_body(&object.fields, out),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::value::{Map, escape_key};
    use proptest::prelude::*;
    use prost::Message as _;
    use qdrant_client::qdrant::{PointStruct, RetrievedPoint, ScrollResponse, UpsertPoints};

    fn round_trip(body: &str) -> Result<String, String> {
        let payload = from_body(body.as_bytes())?;
        let request =
            UpsertPoints { points: vec![PointStruct { payload, ..Default::default() }], ..Default::default() };
        let mut read = UpsertPoints::decode(&*request.encode_to_vec()).map_err(|e| e.to_string()).unwrap();
        let payload = read.points.remove(0).payload;
        let answer =
            ScrollResponse { result: vec![RetrievedPoint { payload, ..Default::default() }], ..Default::default() };
        let read = ScrollResponse::decode(&*answer.encode_to_vec()).unwrap();
        let mut text = String::new();
        write_body(&read.result[0].payload, &mut text);
        Ok(text)
    }

    #[test]
    fn types_stay_what_they_are() {
        let body = r#"{"$$f64":"x","a":1,"b":1.0,"c":-0.0,"d":null,"e":{},"f":[],"g":[{"$$":true}],"h":"ü\u0001"}"#;
        assert_eq!(body, round_trip(body).unwrap());
    }

    #[test]
    fn what_the_wire_cannot_say_is_refused() {
        for body in [
            r#"{"a":9223372036854775808}"#,
            r#"{"a":{"$number":"1e400"}}"#,
            r#"{"a":[{"$bytes":"AA=="}]}"#,
            r#"{"a":{"$f64":"7ff0000000000000"}}"#,
            r#"{"$labels":[],"a":1}"#,
            "[]",
            "{",
        ] {
            assert!(round_trip(body).is_err(), "{body}");
        }
    }

    #[test]
    fn doubles_without_json_are_read() {
        let fields = Fields::from([("a".to_owned(), Wire { kind: Some(Kind::DoubleValue(f64::NEG_INFINITY)) })]);
        let mut text = String::new();
        write_body(&fields, &mut text);
        assert_eq!(r#"{"a":{"$f64":"fff0000000000000"}}"#, text);
    }

    #[test]
    fn depth_is_refused_before_readers_stop() {
        let mut accepted = (0, 0);
        for depth in 1..100 {
            let list = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
            let object = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            // `round_trip` panics where the wire does not carry what was accepted.
            accepted.0 += usize::from(round_trip(&list).is_ok());
            accepted.1 += usize::from(round_trip(&object).is_ok());
        }
        assert_eq!((47, 32), accepted);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::Float),
            ".*".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                objects(inner).prop_map(Value::Map),
            ]
        })
    }

    fn objects(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map> {
        prop::collection::btree_map("\\${0,2}.*", inner, 0..4).prop_map(|m| {
            let mut map: Map = m.into_iter().map(|(k, v)| (escape_key(&k), v)).collect();
            map.sort_by(|a, b| a.0.cmp(&b.0));
            map
        })
    }

    proptest! {
        #[test]
        fn payloads_travel_unchanged(map in objects(values())) {
            let body = Value::Map(map).to_canonical();
            prop_assert_eq!(&body, &round_trip(&body).unwrap());
        }
    }
}
