//! Vectors beside and within bodies.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::profile::{Profile, VectorsPlace};
use crate::record::{VectorKind, VectorRef, Vectors};
use crate::value::{Map, Value, get, insert, remove, write_text};

use super::Outcome;

/// What a store that keeps only names and numbers has no room for; `T` is what holds a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VectorNote<T = String> {
    pub(super) stored: T,
    pub(super) name: T,
    pub(super) model: Option<T>,
    pub(super) normalized: Option<bool>,
}

impl<T: Copy> VectorNote<T> {
    /// The same note with its texts in other hands.
    pub(super) fn map<U>(&self, text: impl Fn(T) -> U) -> VectorNote<U> {
        VectorNote {
            stored: text(self.stored),
            name: text(self.name),
            model: self.model.map(&text),
            normalized: self.normalized,
        }
    }
}

/// A vector out of a body.
pub(super) struct OwnedVector {
    name: String,
    model: Option<String>,
    dim: u32,
    normalized: Option<bool>,
    kind: VectorKind,
    indices: Option<Vec<u8>>,
    data: Vec<u8>,
}

impl OwnedVector {
    pub(super) fn borrow(&self) -> VectorRef<'_> {
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

/// Lengths that fit, and no index twice.
pub(super) fn check(vector: &VectorRef<'_>) -> Outcome<()> {
    vector.check().map_err(|e| ("bad-vector", e.message))?;
    let Some(indices) = vector.indices else { return Ok(()) };
    let mut indices: Vec<u32> = indices.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    indices.sort_unstable();
    match indices.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(("bad-vector", format!("vector {:?}: index {} is given twice", vector.name, pair[0]))),
        None => Ok(()),
    }
}

/// The vectors a store keeps beside a body, under the names it keeps them by.
///
/// `native`: one of our own layouts, whose store has a place for what is said of a vector too.
pub(super) fn stored<'a>(place: &VectorsPlace, native: bool, mut vectors: Vectors<'a>) -> Vectors<'a> {
    if !Profile::stores_vectors(place) {
        return Vectors::new();
    }
    for vector in &mut vectors {
        if matches!(place, VectorsPlace::StoreWithMeta(_)) {
            vector.name = vector.stored_name();
        }
        if !native {
            vector.model = None;
            vector.normalized = None;
        }
    }
    vectors
}

/// The reverse of [`stored`], with the notes about them.
pub(super) fn named<'a, T: AsRef<str>>(
    place: &VectorsPlace,
    vectors: &[VectorRef<'a>],
    notes: &'a [VectorNote<T>],
) -> Vectors<'a> {
    if !Profile::stores_vectors(place) {
        return Vectors::new();
    }
    let mut vectors: Vectors<'a> = vectors.iter().copied().collect();
    for vector in &mut vectors {
        if let Some(note) = notes.iter().find(|note| note.stored.as_ref() == vector.name) {
            vector.name = note.name.as_ref();
            vector.model = note.model.as_ref().map(AsRef::as_ref);
            vector.normalized = note.normalized;
        }
    }
    vectors
}

/// Whether a store that keeps only names and numbers would forget something of a vector.
pub(super) fn needs_note(v: &VectorRef<'_>) -> bool {
    v.name != v.stored_name() || v.model.is_some() || v.normalized.is_some()
}

/// Appends the notes about these vectors as canonical text.
pub(super) fn write_note_texts(vectors: &[VectorRef<'_>], out: &mut String) {
    let mut before = '[';
    for v in vectors.iter().filter(|v| needs_note(v)) {
        out.push(before);
        before = ',';
        out.push_str("{\"model\":");
        match v.model {
            Some(model) => write_text(model, out),
            None => out.push_str("null"),
        }
        out.push_str(",\"name\":");
        write_text(v.name, out);
        out.push_str(",\"normalized\":");
        out.push_str(match v.normalized {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        });
        out.push_str(",\"stored\":");
        write_text(v.stored_name(), out);
        out.push('}');
    }
    out.push(']');
}

/// The notes about these vectors, if any needs one.
pub(super) fn write_notes(vectors: &[VectorRef<'_>]) -> Outcome<Option<Value>> {
    let mut list = Vec::new();
    for v in vectors {
        let stored = v.stored_name();
        if vectors.iter().filter(|other| other.stored_name() == stored).count() > 1 {
            return Err(("bad-vector", format!("two vectors would be called {stored:?} in the target")));
        }
        if !needs_note(v) {
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

/// The reverse of [`write_notes`].
pub(super) fn read_notes(list: &Value) -> Outcome<Vec<VectorNote>> {
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
            Ok(VectorNote { stored: stored.clone(), name: name.clone(), model, normalized })
        })
        .collect()
}

/// Vectors as in native documents.
pub(super) fn to_objects(vectors: &[VectorRef<'_>]) -> Value {
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

/// The reverse of [`to_objects`].
pub(super) fn from_objects(list: Value) -> Outcome<Vec<OwnedVector>> {
    let Value::List(items) = list else { return Err(bad("expected a list")) };
    items.into_iter().map(from_object).collect()
}

fn bad(what: &str) -> super::Refusal {
    ("bad-vector", format!("vectors: {what}"))
}

fn from_object(item: Value) -> Outcome<OwnedVector> {
    let Value::Map(mut map) = item else { return Err(bad("expected objects")) };
    let mut text = |key: &str| match remove(&mut map, key) {
        Some(Value::Text(t)) => Ok(Some(t)),
        None => Ok(None),
        Some(_) => Err(bad(&format!("{key}: expected a text"))),
    };
    let bytes = |text: Option<String>| text.map(|t| STANDARD.decode(t)).transpose().map_err(|e| bad(&e.to_string()));
    let name = text("name")?.unwrap_or_default();
    let model = text("model")?;
    let kind = match text("kind")?.as_deref() {
        Some("dense") => VectorKind::Dense,
        Some("sparse") => VectorKind::Sparse,
        Some("multi") => VectorKind::Multi,
        _ => return Err(bad("kind: expected dense, sparse or multi")),
    };
    let indices = bytes(text("indices")?)?;
    let data = bytes(text("data")?)?.ok_or_else(|| bad("no data"))?;
    let dim = match remove(&mut map, "dim") {
        Some(Value::Int(d)) => u32::try_from(d).map_err(|e| bad(&e.to_string()))?,
        _ => return Err(bad("dim: expected an integer")),
    };
    let normalized = match remove(&mut map, "normalized") {
        Some(Value::Bool(b)) => Some(b),
        None => None,
        Some(_) => return Err(bad("normalized: expected a boolean")),
    };
    match map.first() {
        Some((key, _)) => Err(bad(&format!("unknown member {key:?}"))),
        None => Ok(OwnedVector { name, model, dim, normalized, kind, indices, data }),
    }
}

/// The first dense vector as one list of numbers.
pub(super) fn to_floats(vectors: &[VectorRef<'_>]) -> Option<Value> {
    let vector = vectors.iter().find(|v| v.kind == VectorKind::Dense)?;
    let number = |b: &[u8]| Value::Float(f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    Some(Value::List(vector.data.chunks_exact(4).map(number).collect()))
}

/// A list of numbers as one dense vector, when there is a number and each is exactly an `f32`.
pub(super) fn from_floats(list: &Value) -> Option<OwnedVector> {
    let Value::List(items) = list else { return None };
    let exact = |item: &Value| match item {
        #[expect(clippy::float_cmp, reason = "exactness is the question")]
        Value::Float(f) => Some(*f as f32).filter(|x| f64::from(*x) == *f).map(f32::to_le_bytes),
        _ => None,
    };
    let data = items.iter().map(exact).collect::<Option<Vec<_>>>()?.concat();
    (!data.is_empty()).then(|| OwnedVector {
        name: String::new(),
        model: None,
        dim: items.len() as u32,
        normalized: None,
        kind: VectorKind::Dense,
        indices: None,
        data,
    })
}
