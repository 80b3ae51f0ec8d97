//! The mapper: runs a profile table over batches, raw to canonical and back.

mod decode;
mod direct;
mod encode;
mod vectors;

use std::borrow::Cow;

use arrow_array::RecordBatch;
use hashbrown::HashMap;
use uuid::Uuid;

use direct::{Direct, Found, Written};
pub use encode::whole;

use crate::error::Result;
use crate::gaps::{Carries, GapSet, kind_gap, nested_gaps};
use crate::gather;
use crate::profile::{KindMap, Profile};
use crate::raw::{Quarantined, RawBuilder, RawView};
use crate::record::{Kind, RecordBuilder, RecordRef, RecordView};
use crate::value::{FOREIGN_DEPTH, Map, NATIVE_DEPTH, Value, insert, remove};

/// Members of a document that stand beside its `extra`, within `extra`.
const TOP: &str = "$top";

/// Why a row or a record cannot be moved: reason and message of its quarantine entry.
type Refusal = (&'static str, String);
type Outcome<T> = std::result::Result<T, Refusal>;

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
    /// Deepest nesting of a body.
    depth: usize,
    /// Lists stay with their record, as the note [`GATHERED`](crate::gaps::GATHERED), instead of becoming records.
    gathering: bool,
    carries: [Option<Carries>; 4],
    direct: Option<Direct>,
}

impl Mapper {
    /// A mapper for `profile`. `escaped`: bodies are canonical text, as every backend but plain JSON files makes them.
    pub fn new(profile: Profile, escaped: bool) -> Self {
        let carries = Kind::ALL.map(|kind| profile.of(kind).map(|map| Carries::new(map, profile.native)));
        let depth = if profile.native { NATIVE_DEPTH } else { FOREIGN_DEPTH };
        let direct = if escaped { Direct::of(&profile, depth) } else { None };
        Self { profile, escaped, depth, gathering: false, carries, direct }
    }

    /// The same mapper for a target whose observations live inside their entity: read and written with it.
    #[must_use]
    pub const fn gathering(mut self) -> Self {
        self.gathering = true;
        self
    }

    /// The profile it runs.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The gaps of one record against this profile.
    pub fn gaps(&self, r: &RecordRef<'_>) -> GapSet {
        match &self.carries[r.kind as usize] {
            Some(carries) => carries.gaps(r),
            None if self.nests(r.kind) => nested_gaps(r),
            None => kind_gap(r.kind),
        }
    }

    /// Whether records of `kind` live in a list inside their owner.
    pub fn nests(&self, kind: Kind) -> bool {
        kind == Kind::Observation && self.profile.kinds.iter().any(|map| map.explode.is_some())
    }

    /// Reads a raw batch.
    pub fn decode(&self, raw: &RecordBatch) -> Result<Decoded> {
        let view = RawView::new(raw)?;
        let mut records = RecordBuilder::sharing(raw.column(2))?;
        let (mut quarantined, mut found) = (Vec::new(), Found::default());
        let mut exploded = 0;
        for row in 0..view.len() {
            let (key, body) = (view.key(row), view.body(row));
            match self.decode_row(key, body, &view.vectors(row), &mut found, &mut records) {
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

    /// Writes a canonical batch.
    ///
    /// `namespace`: the store takes only UUIDs and u64 as keys; other ids become UUIDv5 under it. `accepted`: gaps that
    /// may be dropped; a record with any other gap is quarantined. `nested`: observations by owner for profiles that
    /// keep them inside. `marker`: migration to mark the records with; without one they keep the markers they have.
    pub fn encode(
        &self,
        records: &RecordBatch,
        namespace: Option<Uuid>,
        accepted: GapSet,
        nested: &HashMap<String, Vec<String>>,
        marker: Option<&str>,
    ) -> Result<Encoded> {
        let view = RecordView::new(records)?;
        let mut raw = RawBuilder::sharing(RecordView::vectors_of(records)?)?;
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
            let gathered = if self.gathering { gather::texts(record.extra) } else { Vec::new() };
            let listed = map.explode.as_ref().and_then(|_| nested.get(record.id)).map_or(&[][..], Vec::as_slice);
            let items = if gathered.is_empty() { listed } else { gathered.as_slice() };
            let mark = match marker {
                Some(migration) => Some((migration, crate::digest::digest(&record, &mut scratch))),
                None => record.marker_migration.zip(record.marker_digest.map(u128::from_be_bytes)),
            };
            body.clear();
            let written = self.encode_row(map, &record, &key, items, mark, &mut body);
            match written {
                Ok(()) => {
                    raw.push(
                        &key,
                        body.as_bytes(),
                        &vectors::stored(&map.vectors, self.profile.native, record.vectors),
                    );
                    rows.push(row);
                    nested_count += items.len() as u64;
                }
                Err((reason, message)) => quarantined.push(whole(&record, reason, message)),
            }
        }
        Ok(Encoded { raw: raw.finish()?, rows, quarantined, nested: nested_count })
    }

    fn encode_row(
        &self,
        map: &KindMap,
        record: &RecordRef<'_>,
        key: &str,
        items: &[String],
        marker: Option<(&str, u128)>,
        body: &mut String,
    ) -> Outcome<()> {
        let direct = self.direct.as_ref().and_then(|direct| direct.write(&Written { record, key, marker }, body));
        if direct.is_some() {
            return Ok(());
        }
        body.clear();
        self.write(&Value::Map(encode::body(map, record, key, items, marker)?), body)
    }

    fn write(&self, value: &Value, body: &mut String) -> Outcome<()> {
        if value.depth(self.escaped) > self.depth {
            return Err(("too-deep", format!("nested deeper than {}, which nobody would read", self.depth)));
        }
        if self.escaped {
            value.write_canonical(body);
            return Ok(());
        }
        value.write_json(body).map_err(|e| ("no-json", e.message))
    }
}

/// The key under which a store files a record: its id, or a UUIDv5 where the store takes only UUIDs and u64.
pub fn store_key<'a>(record: &RecordRef<'a>, namespace: Option<Uuid>) -> Cow<'a, str> {
    let Some(namespace) = namespace else { return record.id.into() };
    let hyphenated = |u: Uuid| *u.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *record.id;
    let uuid = Uuid::try_parse(record.id).is_ok_and(hyphenated);
    // Only memories keep numbers: the tables of other kinds count from 1 too.
    let number = record.kind == Kind::Memory && record.id.parse::<u64>().is_ok_and(|n| n.to_string() == record.id);
    if uuid || number {
        return record.id.into();
    }
    let name = format!("{}:{}", record.kind.as_str(), record.id);
    Uuid::new_v5(&namespace, name.as_bytes()).hyphenated().to_string().into()
}

/// Takes the value at a path out of `map`; objects that become empty by it go too.
pub(crate) fn take(map: &mut Map, keys: &[String]) -> Option<Value> {
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
pub(crate) fn put(map: &mut Map, keys: &[String], value: Value) -> Outcome<()> {
    let clash = || ("field-clash", format!("an unmapped field and a mapped one both want {:?}", keys.join(".")));
    let Some((first, rest)) = keys.split_first() else { return Ok(()) };
    if rest.is_empty() {
        return if insert(map, first, value).is_some() { Err(clash()) } else { Ok(()) };
    }
    let i = map.binary_search_by(|(k, _)| k.cmp(first)).unwrap_or_else(|i| {
        map.insert(i, (first.clone(), Value::Map(Map::new())));
        i
    });
    match &mut map[i].1 {
        Value::Map(inner) => put(inner, rest, value),
        _ => Err(clash()),
    }
}
