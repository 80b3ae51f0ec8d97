#![expect(clippy::unwrap_used, reason = "tests")]
use std::collections::HashMap;

use super::*;
use crate::value::escape_key;
use proptest::prelude::*;
use prost::Message as _;
use qdrant_client::qdrant::{
    ListValue, NullValue, PointStruct, RetrievedPoint, Struct, UpsertPoints, Value as Wire, value::Kind,
};

const PAYLOAD: u32 = 3;

/// A payload as the official types have it.
fn official(map: &Map) -> HashMap<String, Wire> {
    map.iter().map(|(key, value)| (unescape_key(key).unwrap().to_owned(), official_value(value))).collect()
}

fn official_value(value: &Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Int(int) => Kind::IntegerValue(*int),
        Value::Float(float) => Kind::DoubleValue(*float),
        Value::Text(text) => Kind::StringValue(text.clone()),
        Value::List(items) => Kind::ListValue(ListValue { values: items.iter().map(official_value).collect() }),
        Value::Map(map) => Kind::StructValue(Struct { fields: official(map) }),
        other => panic!("not to be said: {other:?}"),
    };
    Wire { kind: Some(kind) }
}

/// What the official types read of the bytes that are written for `body`, within a request.
fn written(body: &str) -> std::result::Result<HashMap<String, Wire>, String> {
    let mut point = Vec::new();
    write(body.as_bytes(), PAYLOAD, &mut point)?;
    let mut request = Vec::new();
    wire::put_bytes(&mut request, 3, &point);
    let mut read = UpsertPoints::decode(&*request).unwrap();
    Ok(read.points.remove(0).payload)
}

/// The text that is read of a payload which the official types have written.
fn read(payload: &HashMap<String, Wire>) -> Result<String> {
    let point = RetrievedPoint { payload: payload.clone(), ..Default::default() }.encode_to_vec();
    let (mut entries, mut text) = (Entries::default(), String::new());
    wire::fields(&point, |_, field| entries.push(field.bytes()?).map(ControlFlow::Continue))?;
    entries.write(&mut text).map(|()| text)
}

#[test]
fn types_stay_what_they_are() {
    let body = r#"{"":2,"$$f64":"x","a":1,"b":1.0,"c":-0.0,"d":null,"e":{},"f":[],"g":[{"$$":true}],"h":"ü\u0001"}"#;
    let payload = written(body).unwrap();
    assert_eq!(Some(&Kind::IntegerValue(1)), payload["a"].kind.as_ref());
    assert_eq!(Some(&Kind::DoubleValue(1.0)), payload["b"].kind.as_ref());
    assert_eq!(Some(&Kind::StringValue("x".to_owned())), payload["$f64"].kind.as_ref());
    assert_eq!(body, read(&payload).unwrap());
}

#[test]
fn texts_that_are_not_canonical_are_read_too() {
    let (body, odd) = (r#"{"":0,"a":1,"b":{"c":[]}}"#, r#" {"b" :{"c":[ ] },"a":1, "":0} "#);
    assert_eq!(written(body), written(odd));
}

#[test]
fn what_the_wire_cannot_say_is_refused() {
    for body in [
        r#"{"a":9223372036854775808}"#,
        r#"{"a":{"$number":"1e400"}}"#,
        r#"{"a":[{"$bytes":"AA=="}]}"#,
        r#"{"a":{"$f64":"7ff0000000000000"}}"#,
        r#"{"$labels":[],"a":1}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"":1,"":1}"#,
        "{} {}",
        "[]",
        "{",
        "",
    ] {
        assert!(written(body).is_err(), "{body}");
    }
}

#[test]
fn doubles_without_json_are_read() {
    let payload = HashMap::from([("a".to_owned(), Wire { kind: Some(Kind::DoubleValue(f64::NEG_INFINITY)) })]);
    assert_eq!(r#"{"a":{"$f64":"fff0000000000000"}}"#, read(&payload).unwrap());
}

#[test]
fn values_that_are_nothing_are_null_and_later_entries_count() {
    let nothing = HashMap::from([("a".to_owned(), Wire { kind: None })]);
    assert_eq!(r#"{"a":null}"#, read(&nothing).unwrap());
    let entry = |number| {
        let value = Wire { kind: Some(Kind::IntegerValue(number)) };
        let mut message = Vec::new();
        wire::put_bytes(&mut message, entry::KEY, b"a");
        wire::put_bytes(&mut message, entry::VALUE, &value.encode_to_vec());
        message
    };
    let (one, two) = (entry(1), entry(2));
    let (mut entries, mut text) = (Entries::default(), String::new());
    entries.push(&one).unwrap();
    entries.push(&two).unwrap();
    entries.write(&mut text).unwrap();
    assert_eq!(r#"{"a":2}"#, text);
}

#[test]
fn depth_is_refused_before_readers_stop() {
    let mut accepted = (0, 0);
    for depth in 1..100 {
        let list = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        let object = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        // `written` panics where the official types do not read what was accepted.
        accepted.0 += usize::from(written(&list).is_ok());
        accepted.1 += usize::from(written(&object).is_ok());
    }
    assert_eq!((47, 32), accepted);
}

#[test]
fn a_payload_without_end_is_an_error() {
    let mut value = vec![0x08, 0];
    for _ in 0..1000 {
        let mut list = Vec::new();
        wire::put_bytes(&mut list, ITEMS, &value);
        value.clear();
        wire::put_bytes(&mut value, kind::LIST, &list);
    }
    let mut message = Vec::new();
    wire::put_bytes(&mut message, entry::VALUE, &value);
    let mut entries = Entries::default();
    entries.push(&message).unwrap();
    assert_eq!(Code::StoreFormat, entries.write(&mut String::new()).unwrap_err().code);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::Float),
        ".*".prop_map(Value::Text),
        "[a\\\\\"\n\u{1}é]{0,300}".prop_map(Value::Text),
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
        let expected = official(&map);
        let body = Value::Map(map).to_canonical();
        prop_assert_eq!(&expected, &written(&body).unwrap());
        prop_assert_eq!(&body, &read(&expected).unwrap());
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_more(map in objects(values()), at: prop::sample::Index, with: u8) {
        let payload = official(&map);
        let mut point = PointStruct { payload, ..Default::default() }.encode_to_vec();
        if !point.is_empty() {
            let at = at.index(point.len());
            point[at] = with;
        }
        let mut entries = Entries::default();
        let seen = wire::fields(&point, |_, field| entries.push(field.bytes()?).map(ControlFlow::Continue));
        let mut text = String::new();
        if seen.and_then(|()| entries.write(&mut text)).is_ok() {
            prop_assert_eq!(&text, &Value::from_canonical(&text).unwrap().to_canonical());
        }
    }
}
