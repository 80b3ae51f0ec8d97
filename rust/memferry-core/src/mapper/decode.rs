//! Raw to canonical.

use crate::gaps::{GATHERED, MISSING, POSITION};
use crate::profile::{ExtraPlace, IdRule, KindMap, Target, VectorsPlace, join_id, lookup};
use crate::record::{
    CONTENT, Kind, OWNER, RecordBuilder, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TimeRef, VectorRef, Vectors,
};
use crate::times::Time;
use crate::value::{Map, NATIVE_DEPTH, Value, canonical_f64, get, insert, parse_canonical_f64};

use super::direct::Found;
use super::vectors::{OwnedVector, VectorNote};
use super::{Mapper, Outcome, TOP, put, take, vectors};

/// A record being decoded.
#[derive(Default)]
struct Owned {
    id: String,
    texts: [Option<String>; TEXT_FIELDS.len()],
    times: [Time; TIME_FIELDS.len()],
    version: Option<i64>,
    scores: [Option<f64>; SCORE_FIELDS.len()],
    tags: Option<Vec<String>>,
    extra: Map,
    vectors: Vec<OwnedVector>,
    notes: Vec<VectorNote>,
    marker: Option<(String, [u8; 16])>,
}

impl Owned {
    fn borrow<'a>(&'a self, kind: Kind, key: &'a str, extra: &'a str, stored: Vectors<'a>) -> RecordRef<'a> {
        let mut r = RecordRef::new(kind, &self.id);
        r.key = Some(key);
        r.texts = std::array::from_fn(|i| self.texts[i].as_deref());
        r.times =
            std::array::from_fn(|i| TimeRef { micros: self.times[i].micros, text: self.times[i].text.as_deref() });
        r.version = self.version;
        r.scores = self.scores;
        r.tags = self.tags.as_ref().map(|tags| tags.iter().map(String::as_str).collect());
        r.extra = extra;
        r.vectors =
            if self.vectors.is_empty() { stored } else { self.vectors.iter().map(OwnedVector::borrow).collect() };
        r.marker_migration = self.marker.as_ref().map(|m| m.0.as_str());
        r.marker_digest = self.marker.as_ref().map(|m| m.1);
        r
    }
}

/// A refusal with the word of the kind, where it is known.
type RowRefusal = (Option<&'static str>, &'static str, String);

impl Mapper {
    /// Appends the records of one row to `out`; how many of them came out of a list.
    pub(super) fn decode_row(
        &self,
        key: &str,
        body: &[u8],
        stored: &[VectorRef<'_>],
        found: &mut Found,
        out: &mut RecordBuilder,
    ) -> std::result::Result<u64, RowRefusal> {
        if self.decode_directly(key, body, stored, found, out).is_some() {
            return Ok(0);
        }
        let value = Value::from_document(body, self.escaped, self.depth).map_err(|e| (None, "not-json", e.message))?;
        let Value::Map(body) = value else {
            return Err((None, "not-an-object", format!("expected an object, got {}", value.type_name())));
        };
        let map = self.profile.kinds.iter().find(|map| map.selects(&body)).ok_or_else(|| {
            (None, "unclaimed", format!("no kind of profile {} claims this record", self.profile.name))
        })?;
        decode_claimed(map, self.gathering, key, body, stored, out)
            .map_err(|(reason, message)| (Some(map.kind.as_str()), reason, message))
    }
}

impl Mapper {
    /// The same where the table can go the direct way and the body is as it should be; else nothing was appended.
    fn decode_directly(
        &self,
        key: &str,
        body: &[u8],
        stored: &[VectorRef<'_>],
        found: &mut Found,
        out: &mut RecordBuilder,
    ) -> Option<()> {
        let kind = self.direct.as_ref()?.read(body, found)?;
        let notes = found.notes();
        let mut record = found.record(kind, key);
        record.vectors = vectors::named(&self.profile.of(kind)?.vectors, stored, &notes);
        if record.vectors.iter().any(|vector| vectors::check(vector).is_err()) {
            return None;
        }
        out.push(&record).ok()
    }
}

fn decode_claimed(
    map: &KindMap,
    gathering: bool,
    key: &str,
    body: Map,
    stored: &[VectorRef<'_>],
    out: &mut RecordBuilder,
) -> Outcome<u64> {
    let (mut owned, mut items) = decode_body(map, key, body)?;
    if gathering && !items.is_empty() {
        let list = std::mem::take(&mut items).into_iter().map(Value::Text).collect();
        insert(&mut owned.extra, GATHERED, Value::List(list));
    }
    let extra = Value::Map(std::mem::take(&mut owned.extra)).to_canonical();
    let stored = vectors::named(&map.vectors, stored, &owned.notes);
    let record = owned.borrow(map.kind, key, &extra, stored);
    for vector in &record.vectors {
        vectors::check(vector)?;
    }
    out.push(&record).map_err(|e| ("bad-record", e.message))?;
    for (position, item) in items.iter().enumerate() {
        let id = format!("{}#{position}", owned.id);
        let extra = format!("{{\"{POSITION}\":{position}}}");
        let mut observation = RecordRef::new(Kind::Observation, &id);
        observation.key = Some(key);
        observation.texts[CONTENT] = Some(item);
        observation.texts[OWNER] = Some(&owned.id);
        observation.extra = &extra;
        out.push(&observation).map_err(|e| ("bad-record", e.message))?;
    }
    Ok(items.len() as u64)
}

fn decode_body(map: &KindMap, key: &str, mut body: Map) -> Outcome<(Owned, Vec<String>)> {
    let mut owned = Owned::default();
    if let Some(path) = &map.marker
        && let Some(marker) = take(&mut body, path.keys())
    {
        match decode_marker(&marker) {
            Some(decoded) => owned.marker = Some(decoded),
            None => put(&mut body, path.keys(), marker)?,
        }
    }
    for select in &map.select {
        take(&mut body, select.path.keys());
    }
    owned.id = decode_id(&map.id, key, &mut body)?;
    let (mut items, mut missing) = (Vec::new(), false);
    if let Some(explode) = &map.explode {
        match take(&mut body, explode.path.keys()).map(texts) {
            Some(Ok(texts)) => items = texts,
            Some(Err(other)) => put(&mut body, explode.path.keys(), other)?,
            None => missing = true,
        }
    }
    match &map.vectors {
        VectorsPlace::Objects(path) => {
            if let Some(list) = take(&mut body, path.keys()) {
                owned.vectors = vectors::from_objects(list)?;
            }
        }
        VectorsPlace::Floats(path) => {
            if let Some(list) = take(&mut body, path.keys()) {
                match vectors::from_floats(&list) {
                    Some(vector) => owned.vectors.push(vector),
                    None => put(&mut body, path.keys(), list)?,
                }
            }
        }
        VectorsPlace::StoreWithMeta(path) => {
            if let Some(list) = take(&mut body, path.keys()) {
                owned.notes = vectors::read_notes(&list)?;
            }
        }
        VectorsPlace::None | VectorsPlace::Store => {}
    }
    for field in &map.fields {
        if let Some(value) = take(&mut body, field.path.keys())
            && let Some(value) = decode_field(field.target, value, &mut owned)
        {
            put(&mut body, field.path.keys(), value)?;
        }
    }
    owned.extra = decode_extra(&map.extra, body)?;
    if missing {
        insert(&mut owned.extra, MISSING, Value::Bool(true));
    }
    Ok((owned, items))
}

fn decode_marker(value: &Value) -> Option<(String, [u8; 16])> {
    let Value::Map(map) = value else { return None };
    match (get(map, "migration")?, get(map, "digest")?) {
        (Value::Text(migration), Value::Text(hex)) if map.len() == 2 => Some((migration.clone(), digest_of_hex(hex)?)),
        _ => None,
    }
}

/// The digest of a marker.
pub(super) fn digest_of_hex(hex: &str) -> Option<[u8; 16]> {
    let digits = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(hex, 16).ok().filter(|_| digits).map(u128::to_be_bytes)
}

fn decode_id(rule: &IdRule, key: &str, body: &mut Map) -> Outcome<String> {
    let text = |value: Value, keys: &[String]| match value {
        Value::Text(t) => Ok(t),
        other => Err(("bad-id", format!("id at {:?}: expected a text, got {}", keys.join("."), other.type_name()))),
    };
    match rule {
        IdRule::Key => Ok(key.to_owned()),
        IdRule::Path(path) => {
            let value =
                take(body, path.keys()).ok_or_else(|| ("no-id", format!("no id at {:?}", path.keys().join("."))))?;
            text(value, path.keys())
        }
        IdRule::PathOrKey(path) => {
            take(body, path.keys()).map_or_else(|| Ok(key.to_owned()), |value| text(value, path.keys()))
        }
        // The parts stay where they are: they are fields too.
        IdRule::Join(paths) => {
            let parts = paths.iter().map(|path| match lookup(body, path.keys()) {
                Some(Value::Text(t)) => Ok(t.as_str()),
                _ => Err(("no-id", format!("no text at {:?}, which is part of the id", path.keys().join(".")))),
            });
            Ok(join_id(parts.collect::<Outcome<Vec<_>>>()?))
        }
    }
}

/// The texts of a list that has nothing else; else the value as it was.
fn texts(value: Value) -> std::result::Result<Vec<String>, Value> {
    match value {
        Value::List(items) if items.iter().all(|i| matches!(i, Value::Text(_))) => {
            Ok(items.into_iter().filter_map(|i| if let Value::Text(t) = i { Some(t) } else { None }).collect())
        }
        other => Err(other),
    }
}

/// Whether a codec takes a value for its field.
pub(super) fn reads(target: Target, value: Value) -> bool {
    decode_field(target, value, &mut Owned::default()).is_none()
}

/// Puts a value into its column; gives it back when it is not what the codec reads.
fn decode_field(target: Target, value: Value, owned: &mut Owned) -> Option<Value> {
    match (target, value) {
        (Target::Text(i), Value::Text(t)) => owned.texts[i] = Some(t),
        (Target::Json(i), value @ (Value::Map(_) | Value::List(_) | Value::Text(_))) => {
            owned.texts[i] = Some(value.to_canonical());
        }
        (Target::Time(i, codec), value) => match codec.decode(&value) {
            Some(time) => owned.times[i] = time,
            None => return Some(value),
        },
        (Target::Score(i, false), Value::Float(f)) => owned.scores[i] = Some(f),
        (Target::Score(i, true), Value::Text(t)) => match parse_canonical_f64(&t) {
            Some(f) if canonical_f64(f) == t => owned.scores[i] = Some(f),
            _ => return Some(Value::Text(t)),
        },
        (Target::Version, Value::Int(v)) => owned.version = Some(v),
        (Target::Tags(false), value) => match texts(value) {
            Ok(tags) => owned.tags = Some(tags),
            Err(value) => return Some(value),
        },
        (Target::Tags(true), Value::Text(t)) if !t.is_empty() => {
            owned.tags = Some(t.split(',').map(str::to_owned).collect());
        }
        (_, value) => return Some(value),
    }
    None
}

fn decode_extra(place: &ExtraPlace, mut body: Map) -> Outcome<Map> {
    let made_by_us = || Err(("bad-extra", format!("the unmapped fields have {TOP}, which only memferry makes")));
    let extra = match place {
        ExtraPlace::Flat if get(&body, TOP).is_some() => return made_by_us(),
        ExtraPlace::Flat => return Ok(body),
        ExtraPlace::Object(path) => match take(&mut body, path.keys()) {
            Some(Value::Map(map)) => Ok(map),
            other => Err((path, other)),
        },
        ExtraPlace::Text(path) => match take(&mut body, path.keys()) {
            Some(Value::Text(t)) => {
                // As deep as an object in its place could be.
                match Value::from_document(t.as_bytes(), true, NATIVE_DEPTH - path.keys().len()) {
                    Ok(Value::Map(map)) => Ok(map),
                    _ => return Err(("bad-extra", "the unmapped fields are no object in canonical text".to_owned())),
                }
            }
            other => Err((path, other)),
        },
    };
    let mut extra = match extra {
        Ok(map) => map,
        Err((path, other)) => {
            if let Some(other) = other {
                put(&mut body, path.keys(), other)?;
            }
            Map::new()
        }
    };
    if get(&extra, TOP).is_some() {
        return made_by_us();
    }
    if !body.is_empty() {
        insert(&mut extra, TOP, Value::Map(body));
    }
    Ok(extra)
}
