//! The mapper: runs a profile table over batches, raw to canonical and back.

use arrow_array::RecordBatch;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hashbrown::HashMap;
use uuid::Uuid;

use crate::error::Result;
use crate::gaps::{Carries, GapSet, kind_gap};
use crate::profile::{ExtraPlace, FillValue, IdRule, KindMap, Profile, Target, VectorsPlace, lookup};
use crate::raw::{Quarantined, RawBuilder, RawView};
use crate::record::{
    CONTENT, Kind, OWNER, RecordBuilder, RecordRef, RecordView, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TimeRef,
    VectorKind, VectorRef, Vectors,
};
use crate::times::Time;
use crate::value::{Map, Value, canonical_f64, get, insert, parse_canonical_f64, remove};

/// Where an exploded item stood in its list, among the unmapped fields of its record.
const POSITION: &str = "$position";
/// Unknown members of a native document that stand beside `extra`.
const TOP: &str = "$top";

/// What came of decoding a page.
pub struct Decoded {
    /// Canonical batch.
    pub records: RecordBatch,
    /// Rows that could not be decoded.
    pub quarantined: Vec<Quarantined>,
    /// Records made out of lists inside others; not counted as read.
    pub exploded: u64,
}

/// What came of encoding a page.
pub struct Encoded {
    /// Raw batch.
    pub raw: RecordBatch,
    /// Row of the canonical batch behind each row of `raw`.
    pub rows: Vec<usize>,
    /// Records the target cannot hold.
    pub quarantined: Vec<Quarantined>,
    /// Observations that went into the list of their owner.
    pub nested: u64,
}

/// Runs one profile over the bodies of one backend.
pub struct Mapper {
    profile: Profile,
    escaped: bool,
    carries: [Option<Carries>; 4],
}

/// A record being decoded.
#[derive(Default)]
struct Owned {
    id: String,
    texts: [Option<String>; TEXT_FIELDS.len()],
    times: [Time; TIME_FIELDS.len()],
    version: Option<i64>,
    scores: [Option<f64>; SCORE_FIELDS.len()],
    tags: Option<Vec<String>>,
    extra: String,
    vectors: Vec<OwnedVector>,
    meta: Vec<VectorMeta>,
    marker: Option<(String, [u8; 16])>,
}

/// What a store that keeps only names and numbers has no room for.
struct VectorMeta {
    stored: String,
    name: String,
    model: Option<String>,
    normalized: Option<bool>,
}

/// Name under which a store keeps a vector; not every store takes an empty one.
fn stored_name(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}

struct OwnedVector {
    name: String,
    model: Option<String>,
    dim: u32,
    normalized: Option<bool>,
    kind: VectorKind,
    indices: Option<Vec<u8>>,
    data: Vec<u8>,
}

impl OwnedVector {
    fn borrow(&self) -> VectorRef<'_> {
        VectorRef {
            name: &self.name,
            model: self.model.as_deref(),
            dim: self.dim,
            normalized: self.normalized,
            kind: self.kind,
            indices: self.indices.as_deref(),
            data: &self.data,
        }
    }
}

impl Owned {
    fn borrow<'a>(&'a self, kind: Kind, key: &'a str, stored: &[VectorRef<'a>]) -> RecordRef<'a> {
        let mut r = RecordRef::new(kind, &self.id);
        r.key = Some(key);
        r.texts = std::array::from_fn(|i| self.texts[i].as_deref());
        r.times =
            std::array::from_fn(|i| TimeRef { micros: self.times[i].micros, text: self.times[i].text.as_deref() });
        r.version = self.version;
        r.scores = self.scores;
        r.tags = self.tags.as_ref().map(|tags| tags.iter().map(String::as_str).collect());
        r.extra = if self.extra.is_empty() { "{}" } else { &self.extra };
        r.vectors = if self.vectors.is_empty() {
            stored.iter().copied().collect()
        } else {
            self.vectors.iter().map(OwnedVector::borrow).collect()
        };
        r.marker_migration = self.marker.as_ref().map(|m| m.0.as_str());
        r.marker_digest = self.marker.as_ref().map(|m| m.1);
        r
    }
}

impl Mapper {
    /// A mapper for `profile`. `escaped`: bodies are canonical text, as every backend but plain JSON files makes them.
    pub fn new(profile: Profile, escaped: bool) -> Self {
        let carries = Kind::ALL.map(|kind| profile.of(kind).map(|map| Carries::new(map, profile.native)));
        Self { profile, escaped, carries }
    }

    /// The profile it runs.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The gaps of one record against this profile.
    pub fn gaps(&self, r: &RecordRef<'_>) -> GapSet {
        self.carries[r.kind as usize].map_or_else(
            || if self.nests(r.kind) { GapSet::default() } else { kind_gap(r.kind) },
            |carries| carries.gaps(r),
        )
    }

    /// Whether records of `kind` live in a list inside their owner.
    pub fn nests(&self, kind: Kind) -> bool {
        kind == Kind::Observation && self.profile.kinds.iter().any(|map| map.explode.is_some())
    }

    /// Reads a raw batch.
    pub fn decode(&self, raw: &RecordBatch) -> Result<Decoded> {
        let view = RawView::new(raw)?;
        let mut records = RecordBuilder::default();
        let mut quarantined = Vec::new();
        let mut exploded = 0;
        for row in 0..view.len() {
            let (key, body) = (view.key(row), view.body(row));
            match self.decode_row(key, body, &view.vectors(row), &mut records) {
                Ok(n) => exploded += n,
                Err((kind, reason, message)) => quarantined.push(Quarantined {
                    key: key.to_owned(),
                    kind,
                    id: None,
                    reason,
                    message,
                    raw: body.to_vec(),
                }),
            }
        }
        Ok(Decoded { records: records.finish()?, quarantined, exploded })
    }

    fn decode_row(
        &self,
        key: &str,
        body: &[u8],
        stored: &[VectorRef<'_>],
        out: &mut RecordBuilder,
    ) -> std::result::Result<u64, (Option<&'static str>, &'static str, String)> {
        let value = if self.escaped {
            std::str::from_utf8(body)
                .map_err(|e| crate::error::Error::invalid(e.to_string()))
                .and_then(Value::from_canonical)
        } else {
            Value::from_json(body)
        }
        .map_err(|e| (None, "not-json", e.message))?;
        let Value::Map(_) = value else {
            return Err((None, "not-an-object", format!("expected an object, got {}", value.type_name())));
        };
        let map = self.profile.kinds.iter().find(|map| map.selects(&value)).ok_or_else(|| {
            (None, "unclaimed", format!("no kind of profile {} claims this record", self.profile.name))
        })?;
        let kind = Some(map.kind.as_str());
        let (owned, items) = decode_body(map, key, value).map_err(|(reason, message)| (kind, reason, message))?;
        let mut stored: Vectors<'_> =
            if Profile::stores_vectors(&map.vectors) { stored.iter().copied().collect() } else { Vectors::new() };
        for vector in &mut stored {
            if let Some(meta) = owned.meta.iter().find(|meta| meta.stored == vector.name) {
                vector.name = &meta.name;
                vector.model = meta.model.as_deref();
                vector.normalized = meta.normalized;
            }
        }
        let record = owned.borrow(map.kind, key, &stored);
        for vector in &record.vectors {
            vector.check().map_err(|e| (kind, "bad-vector", e.message))?;
        }
        out.push(&record).map_err(|e| (kind, "bad-record", e.message))?;
        for (position, item) in items.iter().enumerate() {
            let id = format!("{}#{position}", owned.id);
            let extra = format!("{{\"{POSITION}\":{position}}}");
            let mut observation = RecordRef::new(Kind::Observation, &id);
            observation.key = Some(key);
            observation.texts[CONTENT] = Some(item);
            observation.texts[OWNER] = Some(&owned.id);
            observation.extra = &extra;
            out.push(&observation).map_err(|e| (kind, "bad-record", e.message))?;
        }
        Ok(items.len() as u64)
    }

    /// Writes a canonical batch.
    ///
    /// `namespace`: the store takes only UUIDs and u64 as keys; other ids become UUIDv5 under it. `accepted`: gaps that
    /// may be dropped; a record with any other gap is quarantined. `nested`: observations by owner for profiles that
    /// keep them inside. `marker`: migration to mark the records with.
    pub fn encode(
        &self,
        records: &RecordBatch,
        namespace: Option<Uuid>,
        accepted: GapSet,
        nested: &HashMap<String, Vec<String>>,
        marker: Option<&str>,
    ) -> Result<Encoded> {
        let view = RecordView::new(records)?;
        let mut raw = RawBuilder::default();
        let (mut rows, mut quarantined, mut nested_count) = (Vec::new(), Vec::new(), 0);
        let mut scratch = Vec::new();
        let mut body = String::new();
        for (row, record) in view.iter().enumerate() {
            let gaps = self.gaps(&record).minus(accepted);
            if !gaps.is_empty() {
                let names = gaps.names().collect::<Vec<_>>().join(", ");
                quarantined.push(whole(&record, "gap", format!("the target cannot hold: {names}")));
                continue;
            }
            let Some(map) = self.profile.of(record.kind) else { continue };
            let key = store_key(&record, namespace);
            let items = map.explode.as_ref().and_then(|_| nested.get(record.id));
            let mark = marker.map(|migration| (migration, crate::digest::digest(&record, &mut scratch)));
            body.clear();
            let written = encode_body(map, &record, &key, items, mark).and_then(|value| {
                if self.escaped {
                    value.write_canonical(&mut body);
                    Ok(())
                } else {
                    value.write_json(&mut body).map_err(|e| ("no-json", e.message))
                }
            });
            match written {
                Ok(()) => {
                    let mut stored =
                        if Profile::stores_vectors(&map.vectors) { record.vectors } else { Vectors::new() };
                    if matches!(map.vectors, VectorsPlace::StoreWithMeta(_)) {
                        for vector in &mut stored {
                            vector.name = stored_name(vector.name);
                        }
                    }
                    raw.push(&key, body.as_bytes(), &stored);
                    rows.push(row);
                    nested_count += items.map_or(0, Vec::len) as u64;
                }
                Err((reason, message)) => quarantined.push(whole(&record, reason, message)),
            }
        }
        Ok(Encoded { raw: raw.finish()?, rows, quarantined, nested: nested_count })
    }
}

/// The key under which a store files a record: its id, or a UUIDv5 where the store takes only UUIDs and u64.
pub fn store_key(record: &RecordRef<'_>, namespace: Option<Uuid>) -> String {
    let Some(namespace) = namespace else { return record.id.to_owned() };
    let uuid = Uuid::try_parse(record.id).is_ok_and(|u| u.hyphenated().to_string() == record.id);
    // Only memories keep numbers: the tables of other kinds count from 1 too.
    let number = record.kind == Kind::Memory && record.id.parse::<u64>().is_ok_and(|n| n.to_string() == record.id);
    if uuid || number {
        return record.id.to_owned();
    }
    let name = format!("{}:{}", record.kind.as_str(), record.id);
    Uuid::new_v5(&namespace, name.as_bytes()).hyphenated().to_string()
}

/// A canonical record as a quarantine entry, in the form of a native document.
pub fn whole(record: &RecordRef<'_>, reason: &'static str, message: String) -> Quarantined {
    let mut map = Map::new();
    insert(&mut map, "kind", Value::Text(record.kind.as_str().to_owned()));
    insert(&mut map, "id", Value::Text(record.id.to_owned()));
    for (name, text) in TEXT_FIELDS.iter().zip(record.texts) {
        if let Some(text) = text {
            insert(&mut map, name, Value::Text(text.to_owned()));
        }
    }
    for (name, time) in TIME_FIELDS.iter().zip(record.times) {
        if let Some(value) = encode_time(crate::times::TimeCodec::Native, time) {
            insert(&mut map, name, value);
        }
    }
    for (name, score) in SCORE_FIELDS.iter().zip(record.scores) {
        if let Some(score) = score {
            insert(&mut map, name, Value::Float(score));
        }
    }
    if let Some(version) = record.version {
        insert(&mut map, "version", Value::Int(version));
    }
    if let Some(tags) = &record.tags {
        insert(&mut map, "tags", Value::List(tags.iter().map(|t| Value::Text((*t).to_owned())).collect()));
    }
    insert(&mut map, "extra", Value::from_canonical(record.extra).unwrap_or(Value::Null));
    insert(&mut map, "vectors", vector_objects(&record.vectors));
    Quarantined {
        key: record.key.unwrap_or(record.id).to_owned(),
        kind: Some(record.kind.as_str()),
        id: Some(record.id.to_owned()),
        reason,
        message,
        raw: Value::Map(map).to_canonical().into_bytes(),
    }
}

fn encode_time(codec: crate::times::TimeCodec, time: TimeRef<'_>) -> Option<Value> {
    if time.micros.is_none() && time.text.is_none() {
        return None;
    }
    codec.encode(time.micros, time.text)
}

type Refusal = (&'static str, String);

/// Takes the value at a path out of `map`; objects that become empty by it go too.
fn take(map: &mut Map, keys: &[String]) -> Option<Value> {
    let (first, rest) = keys.split_first()?;
    if rest.is_empty() {
        return remove(map, first);
    }
    let i = map.binary_search_by(|(k, _)| k.cmp(first)).ok()?;
    let Value::Map(inner) = &mut map[i].1 else { return None };
    let value = take(inner, rest)?;
    if inner.is_empty() {
        map.remove(i);
    }
    Some(value)
}

/// Puts a value at a path; a refusal when something else is there.
fn put(map: &mut Map, keys: &[String], value: Value) -> std::result::Result<(), Refusal> {
    let clash = || ("field-clash", format!("an unmapped field and a mapped one both want {:?}", keys.join(".")));
    let Some((first, rest)) = keys.split_first() else { return Ok(()) };
    if rest.is_empty() {
        return if insert(map, first, value).is_some() { Err(clash()) } else { Ok(()) };
    }
    if get(map, first).is_none() {
        insert(map, first, Value::Map(Map::new()));
    }
    match map.binary_search_by(|(k, _)| k.cmp(first)).map(|i| &mut map[i].1) {
        Ok(Value::Map(inner)) => put(inner, rest, value),
        _ => Err(clash()),
    }
}

fn decode_body(map: &KindMap, key: &str, body: Value) -> std::result::Result<(Owned, Vec<String>), Refusal> {
    let Value::Map(mut body) = body else { return Err(("not-an-object", String::new())) };
    let mut owned = Owned::default();
    if let Some(path) = &map.marker {
        if let Some(marker) = take(&mut body, path.keys()) {
            match decode_marker(&marker) {
                Some(decoded) => owned.marker = Some(decoded),
                None => put(&mut body, path.keys(), marker)?,
            }
        }
    }
    for select in &map.select {
        take(&mut body, select.path.keys());
    }
    owned.id = decode_id(&map.id, key, &mut body)?;
    let items = match &map.explode {
        Some(explode) => take_items(&mut body, explode.path.keys())?,
        None => Vec::new(),
    };
    match &map.vectors {
        VectorsPlace::Objects(path) => {
            if let Some(list) = take(&mut body, path.keys()) {
                owned.vectors = decode_vector_objects(&list)?;
            }
        }
        VectorsPlace::Floats(path) => decode_floats(&mut body, path.keys(), &mut owned)?,
        VectorsPlace::StoreWithMeta(path) => {
            if let Some(list) = take(&mut body, path.keys()) {
                owned.meta = decode_vector_meta(&list)?;
            }
        }
        VectorsPlace::None | VectorsPlace::Store => {}
    }
    for field in &map.fields {
        if let Some(value) = take(&mut body, field.path.keys()) {
            if let Some(value) = decode_field(field.target, value, &mut owned) {
                put(&mut body, field.path.keys(), value)?;
            }
        }
    }
    owned.extra = decode_extra(&map.extra, body)?;
    Ok((owned, items))
}

fn decode_marker(value: &Value) -> Option<(String, [u8; 16])> {
    let Value::Map(map) = value else { return None };
    match (get(map, "migration")?, get(map, "digest")?) {
        (Value::Text(migration), Value::Text(hex)) if map.len() == 2 && hex.len() == 32 => {
            Some((migration.clone(), u128::from_str_radix(hex, 16).ok()?.to_be_bytes()))
        }
        _ => None,
    }
}

fn decode_id(rule: &IdRule, key: &str, body: &mut Map) -> std::result::Result<String, Refusal> {
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
        IdRule::Join(paths) => {
            // The parts stay where they are: they are fields too.
            let whole = Value::Map(std::mem::take(body));
            let parts: std::result::Result<Vec<String>, Refusal> = paths
                .iter()
                .map(|path| match lookup(&whole, path.keys()) {
                    Some(Value::Text(t)) => Ok(format!("{}:{t}", t.chars().count())),
                    _ => Err(("no-id", format!("no text at {:?}, which is part of the id", path.keys().join(".")))),
                })
                .collect();
            if let Value::Map(map) = whole {
                *body = map;
            }
            Ok(parts?.join("|"))
        }
    }
}

fn take_items(body: &mut Map, keys: &[String]) -> std::result::Result<Vec<String>, Refusal> {
    let Some(value) = take(body, keys) else { return Ok(Vec::new()) };
    if let Value::List(items) = &value {
        if items.iter().all(|i| matches!(i, Value::Text(_))) {
            let Value::List(items) = value else { return Ok(Vec::new()) };
            return Ok(items.into_iter().filter_map(|i| if let Value::Text(t) = i { Some(t) } else { None }).collect());
        }
    }
    put(body, keys, value)?;
    Ok(Vec::new())
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
        (Target::Tags(false), Value::List(items)) => {
            if items.iter().any(|i| !matches!(i, Value::Text(_))) {
                return Some(Value::List(items));
            }
            owned.tags =
                Some(items.into_iter().filter_map(|i| if let Value::Text(t) = i { Some(t) } else { None }).collect());
        }
        (Target::Tags(true), Value::Text(t)) if !t.is_empty() => {
            owned.tags = Some(t.split(',').map(str::to_owned).collect());
        }
        (_, value) => return Some(value),
    }
    None
}

fn decode_extra(place: &ExtraPlace, mut body: Map) -> std::result::Result<String, Refusal> {
    let (path, text) = match place {
        ExtraPlace::Flat => {
            return Ok(if body.is_empty() { String::new() } else { Value::Map(body).to_canonical() });
        }
        ExtraPlace::Object(path) => (path, false),
        ExtraPlace::Text(path) => (path, true),
    };
    let mut extra = match take(&mut body, path.keys()) {
        Some(Value::Map(map)) if !text => map,
        Some(Value::Text(t)) if text => match Value::from_canonical(&t) {
            Ok(Value::Map(map)) => map,
            _ => return Err(("bad-extra", "the unmapped fields are not an object in canonical text".to_owned())),
        },
        None => Map::new(),
        Some(other) => {
            put(&mut body, path.keys(), other)?;
            Map::new()
        }
    };
    if !body.is_empty() {
        insert(&mut extra, TOP, Value::Map(body));
    }
    Ok(if extra.is_empty() { String::new() } else { Value::Map(extra).to_canonical() })
}

fn encode_body(
    map: &KindMap,
    r: &RecordRef<'_>,
    key: &str,
    items: Option<&Vec<String>>,
    marker: Option<(&str, u128)>,
) -> std::result::Result<Value, Refusal> {
    let mut body = encode_extra(&map.extra, r.extra)?;
    for select in &map.select {
        put(&mut body, select.path.keys(), Value::Text(select.equals.clone()))?;
    }
    match &map.id {
        IdRule::Path(path) => put(&mut body, path.keys(), Value::Text(r.id.to_owned()))?,
        IdRule::PathOrKey(path) if r.id != key => put(&mut body, path.keys(), Value::Text(r.id.to_owned()))?,
        IdRule::Key | IdRule::PathOrKey(_) | IdRule::Join(_) => {}
    }
    for field in &map.fields {
        if let Some(value) = encode_field(field.target, r)? {
            put(&mut body, field.path.keys(), value)?;
        }
    }
    match &map.vectors {
        VectorsPlace::Objects(path) if !r.vectors.is_empty() => {
            put(&mut body, path.keys(), vector_objects(&r.vectors))?;
        }
        VectorsPlace::Floats(path) => {
            if let Some(v) = r.vectors.iter().find(|v| v.kind == VectorKind::Dense) {
                put(&mut body, path.keys(), Value::List(floats(v.data).map(|f| Value::Float(f64::from(f))).collect()))?;
            }
        }
        VectorsPlace::StoreWithMeta(path) => {
            if let Some(list) = vector_meta(&r.vectors)? {
                put(&mut body, path.keys(), list)?;
            }
        }
        VectorsPlace::Objects(_) | VectorsPlace::None | VectorsPlace::Store => {}
    }
    if let Some(explode) = &map.explode {
        if !has(&body, explode.path.keys()) {
            let list = items.map_or_else(Vec::new, |items| items.iter().cloned().map(Value::Text).collect());
            put(&mut body, explode.path.keys(), Value::List(list))?;
        }
    }
    for fill in &map.fill {
        if !has(&body, fill.path.keys()) {
            let value = match fill.value {
                FillValue::ContentMd5 => {
                    Value::Text(crate::hashes::md5_hex(r.texts[CONTENT].unwrap_or_default().as_bytes()))
                }
                FillValue::EmptyList => Value::List(Vec::new()),
            };
            put(&mut body, fill.path.keys(), value)?;
        }
    }
    if let (Some(path), Some((migration, digest))) = (&map.marker, marker) {
        let value = Value::Map(vec![
            ("digest".to_owned(), Value::Text(format!("{digest:032x}"))),
            ("migration".to_owned(), Value::Text(migration.to_owned())),
        ]);
        put(&mut body, path.keys(), value)?;
    }
    Ok(Value::Map(body))
}

fn has(body: &Map, keys: &[String]) -> bool {
    match keys.split_first() {
        None => true,
        Some((first, rest)) => match get(body, first) {
            Some(Value::Map(inner)) => rest.is_empty() || has(inner, rest),
            Some(_) => rest.is_empty(),
            None => false,
        },
    }
}

fn encode_extra(place: &ExtraPlace, extra: &str) -> std::result::Result<Map, Refusal> {
    if extra == "{}" {
        return Ok(Map::new());
    }
    let Ok(Value::Map(mut map)) = Value::from_canonical(extra) else {
        return Err(("bad-extra", "the unmapped fields are not an object".to_owned()));
    };
    remove(&mut map, POSITION);
    let top = match remove(&mut map, TOP) {
        Some(Value::Map(top)) => top,
        _ => Map::new(),
    };
    match place {
        ExtraPlace::Flat => {
            for (key, value) in top {
                if insert(&mut map, &key, value).is_some() {
                    return Err(("field-clash", format!("two unmapped fields are called {key:?}")));
                }
            }
            Ok(map)
        }
        ExtraPlace::Object(path) => {
            let mut body = top;
            if !map.is_empty() {
                put(&mut body, path.keys(), Value::Map(map))?;
            }
            Ok(body)
        }
        ExtraPlace::Text(path) => {
            let mut body = top;
            if !map.is_empty() {
                put(&mut body, path.keys(), Value::Text(Value::Map(map).to_canonical()))?;
            }
            Ok(body)
        }
    }
}

fn encode_field(target: Target, r: &RecordRef<'_>) -> std::result::Result<Option<Value>, Refusal> {
    Ok(match target {
        Target::Text(i) => r.texts[i].map(|t| Value::Text(t.to_owned())),
        Target::Json(i) => match r.texts[i] {
            Some(text) => Some(Value::from_canonical(text).map_err(|e| ("bad-json", e.message))?),
            None => None,
        },
        Target::Time(i, codec) => {
            let time = r.times[i];
            let value = encode_time(codec, time);
            if value.is_none() && (time.micros.is_some() || time.text.is_some()) {
                return Err(("time", format!("{}: the target cannot hold this time", TIME_FIELDS[i])));
            }
            value
        }
        Target::Score(i, false) => r.scores[i].map(Value::Float),
        Target::Score(i, true) => r.scores[i].map(|f| Value::Text(canonical_f64(f))),
        Target::Version => r.version.map(Value::Int),
        Target::Tags(false) => {
            r.tags.as_ref().map(|tags| Value::List(tags.iter().map(|t| Value::Text((*t).to_owned())).collect()))
        }
        Target::Tags(true) => match &r.tags {
            Some(tags) if tags.is_empty() || tags.iter().any(|t| t.contains(',')) => {
                return Err(("tags", "the target joins tags by commas, and these have none or contain one".to_owned()));
            }
            Some(tags) => Some(Value::Text(tags.join(","))),
            None => None,
        },
    })
}

fn floats(data: &[u8]) -> impl Iterator<Item = f32> + '_ {
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn vector_meta(vectors: &[VectorRef<'_>]) -> std::result::Result<Option<Value>, Refusal> {
    let mut list = Vec::new();
    for v in vectors {
        let stored = stored_name(v.name);
        if vectors.iter().filter(|other| stored_name(other.name) == stored).count() > 1 {
            return Err(("bad-vector", format!("two vectors would be called {stored:?} in the target")));
        }
        if v.name == stored && v.model.is_none() && v.normalized.is_none() {
            continue;
        }
        let mut map = Map::new();
        insert(&mut map, "stored", Value::Text(stored.to_owned()));
        insert(&mut map, "name", Value::Text(v.name.to_owned()));
        insert(&mut map, "model", v.model.map_or(Value::Null, |m| Value::Text(m.to_owned())));
        insert(&mut map, "normalized", v.normalized.map_or(Value::Null, Value::Bool));
        list.push(Value::Map(map));
    }
    Ok((!list.is_empty()).then_some(Value::List(list)))
}

fn decode_vector_meta(list: &Value) -> std::result::Result<Vec<VectorMeta>, Refusal> {
    let bad = || ("bad-vector", "the notes about the vectors are not what memferry writes".to_owned());
    let Value::List(items) = list else { return Err(bad()) };
    items
        .iter()
        .map(|item| {
            let Value::Map(map) = item else { return Err(bad()) };
            let (Some(Value::Text(stored)), Some(Value::Text(name))) = (get(map, "stored"), get(map, "name")) else {
                return Err(bad());
            };
            let model = match get(map, "model") {
                Some(Value::Text(m)) => Some(m.clone()),
                Some(Value::Null) => None,
                _ => return Err(bad()),
            };
            let normalized = match get(map, "normalized") {
                Some(Value::Bool(b)) => Some(*b),
                Some(Value::Null) => None,
                _ => return Err(bad()),
            };
            Ok(VectorMeta { stored: stored.clone(), name: name.clone(), model, normalized })
        })
        .collect()
}

fn vector_objects(vectors: &[VectorRef<'_>]) -> Value {
    let object = |v: &VectorRef<'_>| {
        let mut map = Map::new();
        if !v.name.is_empty() {
            insert(&mut map, "name", Value::Text(v.name.to_owned()));
        }
        if let Some(model) = v.model {
            insert(&mut map, "model", Value::Text(model.to_owned()));
        }
        if let Some(normalized) = v.normalized {
            insert(&mut map, "normalized", Value::Bool(normalized));
        }
        let kind = match v.kind {
            VectorKind::Dense => "dense",
            VectorKind::Sparse => "sparse",
            VectorKind::Multi => "multi",
        };
        insert(&mut map, "kind", Value::Text(kind.to_owned()));
        insert(&mut map, "dim", Value::Int(i64::from(v.dim)));
        if let Some(indices) = v.indices {
            insert(&mut map, "indices", Value::Text(STANDARD.encode(indices)));
        }
        insert(&mut map, "data", Value::Text(STANDARD.encode(v.data)));
        Value::Map(map)
    };
    Value::List(vectors.iter().map(object).collect())
}

fn decode_vector_objects(list: &Value) -> std::result::Result<Vec<OwnedVector>, Refusal> {
    let bad = |what: &str| ("bad-vector", format!("vectors: {what}"));
    let Value::List(items) = list else { return Err(bad("expected a list")) };
    let bytes = |value: Option<&Value>| match value {
        Some(Value::Text(t)) => STANDARD.decode(t).map(Some).map_err(|e| bad(&e.to_string())),
        None => Ok(None),
        Some(_) => Err(bad("expected base64 text")),
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(t)) => Ok(Some(t.clone())),
        None => Ok(None),
        Some(_) => Err(bad("expected a text")),
    };
    items
        .iter()
        .map(|item| {
            let Value::Map(map) = item else { return Err(bad("expected objects")) };
            let known = ["data", "dim", "indices", "kind", "model", "name", "normalized"];
            if let Some((key, _)) = map.iter().find(|(k, _)| !known.contains(&k.as_str())) {
                return Err(bad(&format!("unknown member {key:?}")));
            }
            let kind = match get(map, "kind") {
                Some(Value::Text(t)) if t == "dense" => VectorKind::Dense,
                Some(Value::Text(t)) if t == "sparse" => VectorKind::Sparse,
                Some(Value::Text(t)) if t == "multi" => VectorKind::Multi,
                _ => return Err(bad("kind: expected dense, sparse or multi")),
            };
            let dim = match get(map, "dim") {
                Some(Value::Int(d)) => u32::try_from(*d).map_err(|e| bad(&e.to_string()))?,
                _ => return Err(bad("dim: expected an integer")),
            };
            let normalized = match get(map, "normalized") {
                Some(Value::Bool(b)) => Some(*b),
                None => None,
                Some(_) => return Err(bad("normalized: expected a boolean")),
            };
            Ok(OwnedVector {
                name: text(get(map, "name"))?.unwrap_or_default(),
                model: text(get(map, "model"))?,
                dim,
                normalized,
                kind,
                indices: bytes(get(map, "indices"))?,
                data: bytes(get(map, "data"))?.ok_or_else(|| bad("no data"))?,
            })
        })
        .collect()
}

/// Reads a list of numbers as one dense vector when every number is exactly an `f32`; else it stays unmapped.
fn decode_floats(body: &mut Map, keys: &[String], owned: &mut Owned) -> std::result::Result<(), Refusal> {
    let Some(value) = take(body, keys) else { return Ok(()) };
    if let Value::List(items) = &value {
        let exact: Option<Vec<f32>> = items
            .iter()
            .map(|item| match item {
                #[expect(clippy::float_cmp, reason = "exactness is the question")]
                Value::Float(f) => Some(*f as f32).filter(|x| f64::from(*x) == *f),
                _ => None,
            })
            .collect();
        if let Some(numbers) = exact.filter(|n| !n.is_empty()) {
            owned.vectors.push(OwnedVector {
                name: String::new(),
                model: None,
                dim: numbers.len() as u32,
                normalized: None,
                kind: VectorKind::Dense,
                indices: None,
                data: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            });
            return Ok(());
        }
    }
    put(body, keys, value)
}
