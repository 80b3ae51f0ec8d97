//! Canonical to raw.

use std::sync::LazyLock;

use crate::gaps::{GATHERED, MISSING, POSITION};
use crate::profile::{ExtraPlace, FillValue, IdRule, KindMap, Profile, Target, VectorsPlace, lookup};
use crate::raw::Quarantined;
use crate::record::{CONTENT, RecordRef, TEXT_FIELDS, TIME_FIELDS};
use crate::value::{Map, Value, canonical_f64, insert, remove};

use super::{Outcome, TOP, put, vectors};

/// The table of native documents, in which quarantine entries are kept whatever the target is.
static NATIVE: LazyLock<Option<Profile>> = LazyLock::new(|| {
    Profile::from_json(include_str!("../../../../python/memferry/profiles/native-document.json")).ok()
});

/// Index of `provenance` in [`TEXT_FIELDS`].
const PROVENANCE: usize = TEXT_FIELDS.len() - 1;

/// A canonical record as a quarantine entry, in the form of a native document.
pub fn whole(record: &RecordRef<'_>, reason: &'static str, message: String) -> Quarantined {
    Quarantined {
        key: record.key.unwrap_or(record.id).to_owned(),
        kind: Some(record.kind.as_str()),
        id: Some(record.id.to_owned()),
        reason,
        message,
        raw: Value::Map(native_document(record)).to_canonical().into_bytes(),
    }
}

fn native_document(record: &RecordRef<'_>) -> Map {
    let write = |r: &RecordRef<'_>| {
        let map = NATIVE.as_ref().and_then(|profile| profile.of(r.kind));
        map.and_then(|map| body(map, r, r.id, &[], None).ok())
    };
    write(record).unwrap_or_else(|| {
        // A column of a damaged store that is no canonical text stays as the text it is.
        let mut rest = record.clone();
        rest.extra = "{}";
        rest.texts[PROVENANCE] = None;
        let mut body = write(&rest).unwrap_or_default();
        insert(&mut body, "extra", Value::Text(record.extra.to_owned()));
        if let Some(provenance) = record.texts[PROVENANCE] {
            insert(&mut body, "provenance", Value::Text(provenance.to_owned()));
        }
        body
    })
}

/// The body of a record; `items`: the texts of its list where the table explodes one.
pub(super) fn body(
    map: &KindMap,
    r: &RecordRef<'_>,
    key: &str,
    items: &[String],
    marker: Option<(&str, u128)>,
) -> Outcome<Map> {
    let (mut body, without_list) = encode_extra(map, r.extra)?;
    if map.extra != ExtraPlace::Flat
        && let Some(field) = map
            .fields
            .iter()
            .find(|f| lookup(&body, f.path.keys()).is_some_and(|value| super::decode::reads(f.target, value.clone())))
    {
        // A value that another layout had no field for would become this one's.
        let path = field.path.keys().join(".");
        return Err(("field-clash", format!("an unmapped field at {path:?} would be read as {}", field.name)));
    }
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
    if let IdRule::Join(paths) = &map.id
        && let Some(path) = paths.iter().find(|path| !matches!(lookup(&body, path.keys()), Some(Value::Text(_))))
    {
        return Err(("no-id", format!("no text for {:?}, which is part of the id", path.keys().join("."))));
    }
    match &map.vectors {
        VectorsPlace::Objects(path) if !r.vectors.is_empty() => {
            put(&mut body, path.keys(), vectors::to_objects(&r.vectors))?;
        }
        VectorsPlace::Floats(path) => {
            if let Some(list) = vectors::to_floats(&r.vectors) {
                put(&mut body, path.keys(), list)?;
            }
        }
        VectorsPlace::StoreWithMeta(path) => {
            if let Some(list) = vectors::write_notes(&r.vectors)? {
                put(&mut body, path.keys(), list)?;
            }
        }
        VectorsPlace::Objects(_) | VectorsPlace::None | VectorsPlace::Store => {}
    }
    if let Some(explode) = &map.explode {
        let keys = explode.path.keys();
        // Where something else than a list of texts stands, or no list stood, and there is nothing to list, so it stays.
        let stays = without_list || lookup(&body, keys).is_some();
        if !(stays && items.is_empty()) {
            put(&mut body, keys, Value::List(items.iter().cloned().map(Value::Text).collect()))?;
        }
    }
    for fill in &map.fill {
        if lookup(&body, fill.path.keys()).is_none() {
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
    Ok(body)
}

/// The unmapped fields in their place, and whether the record had no list to explode.
fn encode_extra(map: &KindMap, extra: &str) -> Outcome<(Map, bool)> {
    if extra == "{}" {
        return Ok((Map::new(), false));
    }
    let no_object = |what: &str| ("bad-extra", format!("{what} are not an object"));
    let Ok(Value::Map(mut extra)) = Value::from_canonical(extra) else { return Err(no_object("the unmapped fields")) };
    let flat = map.extra == ExtraPlace::Flat;
    let mut missing = false;
    if flat || map.explode.is_some() {
        missing = remove(&mut extra, MISSING).is_some();
    }
    if map.explode.is_some() {
        remove(&mut extra, GATHERED);
    }
    if flat {
        // A system's own layout has no place for our notes.
        remove(&mut extra, POSITION);
    }
    let mut body = match remove(&mut extra, TOP) {
        Some(Value::Map(top)) => top,
        Some(_) => return Err(no_object("the fields beside the unmapped ones")),
        None => Map::new(),
    };
    match &map.extra {
        // What the system would drop is not written; its loss was accepted.
        ExtraPlace::Flat if map.fixed => body.clear(),
        ExtraPlace::Flat => {
            for (key, value) in body {
                if insert(&mut extra, &key, value).is_some() {
                    return Err(("field-clash", format!("two unmapped fields are called {key:?}")));
                }
            }
            body = extra;
        }
        _ if extra.is_empty() => {}
        ExtraPlace::Object(path) => put(&mut body, path.keys(), Value::Map(extra))?,
        ExtraPlace::Text(path) => put(&mut body, path.keys(), Value::Text(Value::Map(extra).to_canonical()))?,
    }
    Ok((body, missing))
}

fn encode_field(target: Target, r: &RecordRef<'_>) -> Outcome<Option<Value>> {
    Ok(match target {
        Target::Text(i) => r.texts[i].map(|t| Value::Text(t.to_owned())),
        Target::Json(i) => match r.texts[i] {
            Some(text) => Some(Value::from_canonical(text).map_err(|e| ("bad-json", e.message))?),
            None => None,
        },
        Target::Time(i, codec) => {
            let time = r.times[i];
            if time.micros.is_none() && time.text.is_none() {
                return Ok(None);
            }
            let value = codec.encode(time.micros, time.text);
            if value.is_none() {
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::record::Kind;

    fn entry(r: &RecordRef<'_>) -> String {
        String::from_utf8(whole(r, "conflict", String::new()).raw).unwrap()
    }

    #[test]
    fn quarantine_entries_are_native_documents_and_lose_nothing() {
        let mut r = RecordRef::new(Kind::Memory, "a");
        r.texts[0] = Some("u");
        r.texts[PROVENANCE] = Some(r#"{"p":1}"#);
        r.extra = r#"{"$position":3,"$top":{"x":1}}"#;
        let text =
            r#"{"extra":{"$position":3},"id":"a","kind":"memory","provenance":{"p":1},"scope":{"user":"u"},"x":1}"#;
        assert_eq!(text, entry(&r));
        r.extra = r#"{"$top":{"id":"b"}}"#;
        let text = r#"{"extra":"{\"$top\":{\"id\":\"b\"}}","id":"a","kind":"memory","provenance":"{\"p\":1}","scope":{"user":"u"}}"#;
        assert_eq!(text, entry(&r));
        r.extra = "{";
        r.texts[PROVENANCE] = Some("}");
        let text = r#"{"extra":"{","id":"a","kind":"memory","provenance":"}","scope":{"user":"u"}}"#;
        assert_eq!(text, entry(&r));
    }
}
