//! The direct way says what the long way says.

#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::gaps::GapSet;
use crate::mapper::{Mapper, Outcome, encode, vectors};
use crate::raw::RawBuilder;
use crate::record::{RecordBuilder, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TYPE, TimeRef, VectorKind};
use crate::value::{Map, Value};
use proptest::prelude::*;

const POINT: &str = include_str!("../../../../../python/memferry/profiles/native-point.json");
const NODE: &str = include_str!("../../../../../python/memferry/profiles/native-node.json");

fn mapper(table: &str) -> Mapper {
    Mapper::new(Profile::from_json(table).unwrap(), true)
}

/// The body that the long way writes.
fn long_way(mapper: &Mapper, r: &RecordRef<'_>, key: &str, marker: Option<(&str, u128)>) -> Outcome<String> {
    let map = encode::body(mapper.profile().of(r.kind).unwrap(), r, key, &[], marker)?;
    let mut body = String::new();
    mapper.write(&Value::Map(map), &mut body).map(|()| body)
}

#[test]
fn our_own_points_and_no_foreign_ones_go_the_direct_way() {
    assert!(mapper(POINT).direct.is_some());
    for table in [
        include_str!("../../../../../python/memferry/profiles/mem0-point.json"),
        include_str!("../../../../../python/memferry/profiles/plain-point.json"),
        include_str!("../../../../../python/memferry/profiles/server-memory-document.json"),
    ] {
        assert!(mapper(table).direct.is_none());
    }
}

#[test]
fn what_is_odd_goes_the_long_way() {
    let mapper = mapper(POINT);
    let read = |body: &str| mapper.direct.as_ref().unwrap().read(body.as_bytes(), &mut Found::default());
    assert_eq!(Some(Kind::Entity), read(r#"{"id":"a","kind":"entity","scope":{"user":"u"}}"#));
    for odd in [
        "",
        "[]",
        "{}",
        r#"{"id":"a"}"#,
        r#"{"id":"a","kind":"other"}"#,
        r#"{"id":"a","kind":1}"#,
        r#"{"id":1,"kind":"entity"}"#,
        r#"{"kind":"entity","id":"a"}"#,
        r#"{"kind":"entity","kind":"entity"}"#,
        r#"{"kind":"entity","scope":{}}"#,
        r#"{"kind":"entity","scope":{"other":"u"}}"#,
        r#"{"kind":"entity","scope":"u"}"#,
        r#"{"kind":"entity","zzz":1}"#,
        r#"{"aaa":1,"kind":"entity"}"#,
        r#"{"kind":"entity"} x"#,
        r#"{"extra":"{}x","kind":"entity"}"#,
        r#"{"extra":"{\"$top\":{}}","kind":"entity"}"#,
        r#"{"confidence":"0.50","kind":"entity"}"#,
        r#"{"kind":"entity","tags":["a",1]}"#,
        r#"{"_memferry":{"digest":"00","migration":"m"},"kind":"entity"}"#,
        r#"{"kind":"entity","version":1.5}"#,
    ] {
        assert_eq!(None, read(odd), "{odd}");
    }
}

fn extras() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        "[a$\\\\\"\n\u{1}é]{0,40}".prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Bytes),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::List),
            prop::collection::btree_map("[a-c$\"é]{0,3}", inner, 0..3)
                .prop_map(|m| Value::Map(m.into_iter().collect::<Map>())),
        ]
    });
    let keys = "[a-c$\"é]{0,3}|id|kind|\\$top|\\$missing|\\$position|\\$f64";
    let object = prop::collection::btree_map(keys, value, 0..3)
        .prop_map(|m| Value::Map(m.into_iter().collect::<Map>()).to_canonical());
    prop_oneof![Just("{}".to_owned()), object, Just("{ }".to_owned()), Just("no object".to_owned())]
}

fn times() -> impl Strategy<Value = (Option<i64>, Option<String>)> {
    prop_oneof![
        Just((None, None)),
        any::<i64>().prop_map(|micros| (Some(micros), None)),
        (0_i64..2_000_000_000_000_000).prop_map(|micros| (Some(micros), None)),
        (any::<Option<i64>>(), "2024-06-15T10:30:00.1234567Z|2024-06-15|yesterday|.{0,5}")
            .prop_map(|(micros, text)| (micros, Some(text))),
    ]
}

#[derive(Debug, Clone)]
struct Sample {
    kind: usize,
    id: String,
    texts: Vec<Option<String>>,
    times: Vec<(Option<i64>, Option<String>)>,
    version: Option<i64>,
    scores: Vec<Option<u64>>,
    tags: Option<Vec<String>>,
    extra: String,
    provenance: Option<String>,
    vectors: Vec<(String, Option<String>, Option<bool>)>,
    marker: Option<u128>,
}

fn samples() -> impl Strategy<Value = Sample> {
    let text = "[a$\\\\\"\n\u{1}é]{0,40}";
    let first = (
        0_usize..4,
        "[0-9]{1,3}|[a\"é]{0,4}|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        prop::collection::vec(prop::option::of(text), TEXT_FIELDS.len()),
        prop::collection::vec(times(), TIME_FIELDS.len()),
        any::<Option<i64>>(),
        prop::collection::vec(any::<Option<u64>>(), SCORE_FIELDS.len()),
    );
    let second = (
        prop::option::of(prop::collection::vec(text, 0..3)),
        extras(),
        prop::option::of(prop_oneof![extras(), Just("\"text\"".to_owned()), Just("[1]".to_owned())]),
        prop::collection::vec(("|default|a", prop::option::of("m|\""), any::<Option<bool>>()), 0..3),
        any::<Option<u128>>(),
    );
    (first, second).prop_map(
        |((kind, id, texts, times, version, scores), (tags, extra, provenance, vectors, marker))| Sample {
            kind,
            id,
            texts,
            times,
            version,
            scores,
            tags,
            extra,
            provenance,
            vectors,
            marker,
        },
    )
}

fn record(sample: &Sample) -> RecordRef<'_> {
    let mut r = RecordRef::new(Kind::ALL[sample.kind], &sample.id);
    for (slot, text) in r.texts.iter_mut().zip(&sample.texts) {
        *slot = text.as_deref();
    }
    r.texts[TEXT_FIELDS.len() - 1] = sample.provenance.as_deref();
    for (slot, (micros, text)) in r.times.iter_mut().zip(&sample.times) {
        *slot = TimeRef { micros: *micros, text: text.as_deref() };
    }
    r.version = sample.version;
    for (slot, bits) in r.scores.iter_mut().zip(&sample.scores) {
        *slot = bits.map(f64::from_bits);
    }
    r.tags = sample.tags.as_ref().map(|tags| tags.iter().map(String::as_str).collect());
    r.extra = &sample.extra;
    r.vectors = sample
        .vectors
        .iter()
        .map(|(name, model, normalized)| VectorRef {
            name,
            model: model.as_deref(),
            dim: 1,
            normalized: *normalized,
            kind: VectorKind::Dense,
            indices: None,
            data: &[0, 0, 128, 63],
        })
        .collect();
    r.marker_migration = sample.marker.map(|_| "migration");
    r.marker_digest = sample.marker.map(u128::to_be_bytes);
    r
}

/// What a mapper reads: the records, or why not.
fn read(mapper: &Mapper, raw: &arrow_array::RecordBatch) -> Result<arrow_array::RecordBatch, (&'static str, String)> {
    let decoded = mapper.decode(raw).unwrap();
    match decoded.quarantined.into_iter().next() {
        Some(bad) => Err((bad.reason, bad.message)),
        None => Ok(decoded.records),
    }
}

#[test]
fn a_usual_record_goes_the_direct_way_there_and_back() {
    let numbers = [0, 0, 128, 63];
    let mut r = RecordRef::new(Kind::Relation, "r");
    r.texts[0] = Some("u");
    r.texts[TYPE] = Some("knows \"well\"");
    r.texts[TEXT_FIELDS.len() - 1] = Some(r#"{"a":[1]}"#);
    r.times[0].micros = Some(1_718_447_400_123_456);
    r.times[1].text = Some("yesterday");
    r.tags = Some(["a", "b"].into_iter().collect());
    r.scores[1] = Some(0.1);
    r.version = Some(-7);
    r.extra = r#"{"channel":"chat","turn":1}"#;
    r.vectors.push(VectorRef {
        name: "",
        model: Some("m"),
        dim: 1,
        normalized: None,
        kind: VectorKind::Dense,
        indices: None,
        data: &numbers,
    });
    for table in [POINT, NODE] {
        let mapper = mapper(table);
        let Some(direct) = &mapper.direct else { continue };
        let (mut body, marker) = (String::new(), Some(("migration", 1)));
        direct.write(&Written { record: &r, key: "7", marker }, &mut body).unwrap();
        assert_eq!(long_way(&mapper, &r, "7", marker).unwrap(), body);
        let mut found = Found::default();
        assert_eq!(Some(Kind::Relation), direct.read(body.as_bytes(), &mut found));
        let mut expected = r.reborrow();
        expected.key = Some("7");
        expected.vectors.clear();
        expected.marker_migration = Some("migration");
        expected.marker_digest = Some(1_u128.to_be_bytes());
        let read = found.record(Kind::Relation, "7");
        assert_eq!(expected, read);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn both_ways_say_the_same(sample in samples(), edit: Option<(prop::sample::Index, prop::sample::Index)>) {
        for table in [POINT, NODE] {
            let direct = mapper(table);
            let long = Mapper { direct: None, ..mapper(table) };
            let r = record(&sample);
            let marker = r.marker_migration.zip(r.marker_digest.map(u128::from_be_bytes));
            let expected = long_way(&long, &r, "7", marker);
            let mut body = String::new();
            let written = direct.encode_row(long.profile().of(r.kind).unwrap(), &r, "7", &[], marker, &mut body);
            prop_assert_eq!(&expected, &written.map(|()| body.clone()));
            let Ok(mut body) = expected else { continue };
            if let Some((at, with)) = edit {
                let mut chars: Vec<char> = body.chars().collect();
                let at = at.index(chars.len());
                chars[at] = *with.get(&"{}[]\",:\\$0a1 null".chars().collect::<Vec<_>>());
                body = chars.into_iter().collect();
            }
            let mut raw = RawBuilder::default();
            let stored = vectors::stored(&long.profile().of(r.kind).unwrap().vectors, true, r.vectors.clone());
            raw.push("7", body.as_bytes(), &stored);
            let raw = raw.finish().unwrap();
            prop_assert_eq!(read(&long, &raw), read(&direct, &raw), "{}", body);
        }
    }

    #[test]
    fn whole_batches_too(samples in prop::collection::vec(samples(), 0..6), mark: bool) {
        let direct = mapper(POINT);
        let long = Mapper { direct: None, ..mapper(POINT) };
        let mut builder = RecordBuilder::default();
        for sample in &samples {
            builder.push(&record(sample)).unwrap();
        }
        let records = builder.finish().unwrap();
        let encode = |mapper: &Mapper| {
            let marker = mark.then_some("m");
            mapper.encode(&records, Some(uuid::Uuid::nil()), GapSet::default(), &hashbrown::HashMap::default(), marker).unwrap()
        };
        let (one, other) = (encode(&long), encode(&direct));
        prop_assert_eq!(&one.raw, &other.raw);
        prop_assert_eq!((&one.rows, &one.quarantined), (&other.rows, &other.quarantined));
        let (one, other) = (long.decode(&one.raw).unwrap(), direct.decode(&other.raw).unwrap());
        prop_assert_eq!(&one.records, &other.records);
        prop_assert_eq!(one.quarantined, other.quarantined);
    }
}
