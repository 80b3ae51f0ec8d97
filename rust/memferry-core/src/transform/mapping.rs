//! `--map`: fields moved, set and dropped, and scopes renamed, by a table of the user's. Specified in `docs/mapping.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as JsonValue;

use crate::error::{Code, Error, Result};
use crate::gaps::{EXTRA, GapSet, SCORES, TAGS, TEXTS, TIMES, VECTORS, VERSIONS};
use crate::mapper::{put, take};
use crate::profile::lookup;
use crate::record::{Kind, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TimeRef};
use crate::times::TimeCodec;
use crate::value::{MAX_DEPTH, Map, Value};

mod read;

const PROVENANCE: usize = TEXT_FIELDS.len() - 1;
/// Text fields that are ids of other records, which stay as they are.
const REFERENCES: [&str; 4] = ["from_id", "to_id", "owner_id", "supersedes"];
const SCOPES: usize = 5;

/// Reason and message of a quarantine entry.
pub type Refusal = (&'static str, String);

/// A field that a table can name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Text(usize),
    Time(usize),
    Score(usize),
    Version,
    Tags,
    Extra(Vec<String>),
    Vectors,
}

impl Place {
    fn parse(json: &JsonValue, at: &str) -> Result<Self> {
        let keys: Vec<String> = match json {
            JsonValue::String(dotted) => dotted.split('.').map(str::to_owned).collect(),
            JsonValue::Array(items) => {
                let keys = items.iter().map(|key| key.as_str().map(str::to_owned));
                keys.collect::<Option<_>>().ok_or_else(|| refuse(at, "a list of texts is needed"))?
            }
            _ => return Err(refuse(at, "a text or a list of texts is needed")),
        };
        let word = keys.first().map_or("", String::as_str);
        if word == "extra" && keys.len() > 1 && keys.iter().all(|key| !key.is_empty()) {
            return Ok(Self::Extra(keys[1..].to_vec()));
        }
        let position = |names: &[&str]| names.iter().position(|name| *name == word);
        let known = match word {
            _ if keys.len() != 1 => None,
            "version" => Some(Self::Version),
            "tags" => Some(Self::Tags),
            "vectors" => Some(Self::Vectors),
            _ if REFERENCES.contains(&word) => return Err(refuse(at, &format!("`{word}` is an id, and ids stay"))),
            _ => position(&TEXT_FIELDS)
                .map(Self::Text)
                .or_else(|| position(&TIME_FIELDS).map(Self::Time))
                .or_else(|| position(&SCORE_FIELDS).map(Self::Score)),
        };
        known.ok_or_else(|| {
            let fields = TEXT_FIELDS.iter().chain(&TIME_FIELDS).chain(&SCORE_FIELDS);
            let names: Vec<&str> = fields.copied().filter(|name| !REFERENCES.contains(name)).collect();
            let names = names.join(", ");
            refuse(at, &format!("unknown field `{}`, allowed: {names}, version, tags, extra.<key>", keys.join(".")))
        })
    }

    /// The gap of losing what stands here.
    fn gaps(&self, r: &Changed<'_>) -> GapSet {
        let mut gaps = GapSet::default();
        match self {
            Self::Text(i) => gaps.add(TEXTS + i),
            Self::Time(i) => gaps.add(TIMES + i),
            Self::Score(i) => gaps.add(SCORES + i),
            Self::Version => gaps.add(VERSIONS),
            Self::Tags => gaps.add(TAGS),
            Self::Extra(_) => gaps.add(EXTRA),
            Self::Vectors => {
                for vector in &r.record.vectors {
                    gaps.add(VECTORS + vector.kind as usize);
                }
            }
        }
        gaps
    }
}

fn refuse(at: &str, what: &str) -> Error {
    Error::new(Code::Profile, format!("{at}: {what}"))
}

/// Which kinds a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds([bool; 4]);

impl Kinds {
    fn parse(json: Option<&JsonValue>, at: &str) -> Result<Self> {
        let Some(json) = json else { return Ok(Self([true; 4])) };
        let at = format!("{at}.kinds");
        let words = json.as_array().filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| refuse(&at, "a list of kinds is needed"))?;
        let mut kinds = [false; 4];
        for word in words {
            let word = word.as_str().ok_or_else(|| refuse(&at, "a list of kinds is needed"))?;
            kinds[Kind::parse(word).map_err(|e| refuse(&at, &e.message))? as usize] = true;
        }
        Ok(Self(kinds))
    }

    fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| *a && b)
    }
}

#[derive(Debug)]
struct Move {
    from: Place,
    to: Place,
    codec: TimeCodec,
    kinds: Kinds,
}

#[derive(Debug)]
struct Set {
    field: Place,
    value: Value,
    replace: bool,
    codec: TimeCodec,
    kinds: Kinds,
}

#[derive(Debug)]
struct Removal {
    field: Place,
    kinds: Kinds,
}

/// A table of the user's, ready to run.
#[derive(Debug)]
pub struct Mapping {
    moves: Vec<Move>,
    drops: Vec<Removal>,
    sets: Vec<Set>,
    scopes: [BTreeMap<String, String>; SCOPES],
}

impl Mapping {
    /// Runs the table on one record: what becomes of it, and the gaps of what it lost.
    pub fn apply<'a>(&self, r: &RecordRef<'a>) -> std::result::Result<(Changed<'a>, GapSet), Refusal> {
        let mut record = Changed::new(r);
        let mut lost = GapSet::default();
        let kind = r.kind as usize;
        for line in self.moves.iter().filter(|line| line.kinds.0[kind]) {
            let Some(value) = record.take(&line.from, line.codec)? else { continue };
            if record.has(&line.to)? {
                return Err(("field-clash", "a field that is moved and one that is there want one place".to_owned()));
            }
            if let Err(value) = record.put(&line.to, value, line.codec)? {
                // The same as in a profile: what a field does not take stays where it was.
                let _ = record.put(&line.from, value, line.codec)?;
            }
        }
        for line in self.drops.iter().filter(|line| line.kinds.0[kind]) {
            if record.has(&line.field)? {
                lost = lost.with(line.field.gaps(&record));
                record.remove(&line.field)?;
            }
        }
        for line in self.sets.iter().filter(|line| line.kinds.0[kind]) {
            if record.has(&line.field)? {
                if !line.replace {
                    continue;
                }
                let old = record.take(&line.field, TimeCodec::Native)?.unwrap_or(Value::Null);
                if old.to_canonical() != line.value.to_canonical() {
                    lost = lost.with(line.field.gaps(&record));
                }
            }
            if record.put(&line.field, line.value.clone(), line.codec)?.is_err() {
                return Err(("field-clash", "a field that is set has no place in this record".to_owned()));
            }
        }
        for (text, names) in record.texts.iter_mut().zip(&self.scopes) {
            if let Some(new) = text.as_deref().and_then(|old| names.get(old)) {
                *text = Some(Cow::Owned(new.clone()));
            }
        }
        record.close()?;
        Ok((record, lost))
    }
}

/// A record whose fields are being changed; what stays is borrowed.
pub struct Changed<'a> {
    record: RecordRef<'a>,
    texts: [Option<Cow<'a, str>>; TEXT_FIELDS.len()],
    times: [(Option<i64>, Option<Cow<'a, str>>); TIME_FIELDS.len()],
    tags: Option<Vec<Cow<'a, str>>>,
    /// Read when it is first needed.
    extra: Option<Map>,
    extra_text: Cow<'a, str>,
}

type Step<T> = std::result::Result<T, Refusal>;

fn canonical(text: &str) -> Step<Value> {
    Value::from_canonical(text).map_err(|e| ("bad-record", format!("a field is no canonical text: {}", e.message)))
}

impl<'a> Changed<'a> {
    fn new(r: &RecordRef<'a>) -> Self {
        Self {
            record: r.clone(),
            texts: r.texts.map(|text| text.map(Cow::Borrowed)),
            times: r.times.map(|time| (time.micros, time.text.map(Cow::Borrowed))),
            tags: r.tags.as_ref().map(|tags| tags.iter().map(|tag| Cow::Borrowed(*tag)).collect()),
            extra: None,
            extra_text: Cow::Borrowed(r.extra),
        }
    }

    /// The record as it is now.
    pub fn borrow(&self) -> RecordRef<'_> {
        let mut r = self.record.reborrow();
        r.texts = std::array::from_fn(|i| self.texts[i].as_deref());
        r.times = std::array::from_fn(|i| TimeRef { micros: self.times[i].0, text: self.times[i].1.as_deref() });
        r.tags = self.tags.as_ref().map(|tags| tags.iter().map(AsRef::as_ref).collect());
        r.extra = &self.extra_text;
        r
    }

    fn extra(&mut self) -> Step<&mut Map> {
        if self.extra.is_none() {
            let Value::Map(map) = canonical(&self.extra_text)? else {
                return Err(("bad-record", "the unmapped fields are no object".to_owned()));
            };
            self.extra = Some(map);
        }
        Ok(self.extra.get_or_insert_default())
    }

    /// Writes the unmapped fields back, if they were read.
    fn close(&mut self) -> Step<()> {
        if let Some(map) = self.extra.take() {
            let value = Value::Map(map);
            if value.depth(true) > MAX_DEPTH {
                return Err(("too-deep", format!("nested deeper than {MAX_DEPTH}, which nobody would read")));
            }
            self.extra_text = Cow::Owned(value.to_canonical());
        }
        Ok(())
    }

    fn has(&mut self, place: &Place) -> Step<bool> {
        Ok(match place {
            Place::Text(i) => self.texts[*i].is_some(),
            Place::Time(i) => self.times[*i].0.is_some() || self.times[*i].1.is_some(),
            Place::Score(i) => self.record.scores[*i].is_some(),
            Place::Version => self.record.version.is_some(),
            Place::Tags => self.tags.is_some(),
            Place::Vectors => !self.record.vectors.is_empty(),
            Place::Extra(path) => lookup(self.extra()?, path).is_some(),
        })
    }

    fn remove(&mut self, place: &Place) -> Step<()> {
        match place {
            Place::Text(i) => self.texts[*i] = None,
            Place::Time(i) => self.times[*i] = (None, None),
            Place::Score(i) => self.record.scores[*i] = None,
            Place::Version => self.record.version = None,
            Place::Tags => self.tags = None,
            Place::Vectors => self.record.vectors.clear(),
            Place::Extra(path) => _ = take(self.extra()?, path),
        }
        Ok(())
    }

    /// Takes a field out; `None` where there is nothing, or nothing that a value could say.
    fn take(&mut self, place: &Place, codec: TimeCodec) -> Step<Option<Value>> {
        let value = match place {
            Place::Text(PROVENANCE) => self.texts[PROVENANCE].as_deref().map(canonical).transpose()?,
            Place::Text(i) => self.texts[*i].as_deref().map(|text| Value::Text(text.to_owned())),
            Place::Time(i) if self.has(place)? => codec.encode(self.times[*i].0, self.times[*i].1.as_deref()),
            Place::Score(i) => self.record.scores[*i].map(Value::Float),
            Place::Version => self.record.version.map(Value::Int),
            Place::Tags => self
                .tags
                .as_ref()
                .map(|tags| Value::List(tags.iter().map(|tag| Value::Text(tag.clone().into_owned())).collect())),
            Place::Extra(path) => return Ok(take(self.extra()?, path)),
            Place::Time(_) | Place::Vectors => None,
        };
        if value.is_some() {
            self.remove(place)?;
        }
        Ok(value)
    }

    /// Puts a value into a free place; gives it back when the field does not take it.
    fn put(&mut self, place: &Place, value: Value, codec: TimeCodec) -> Step<std::result::Result<(), Value>> {
        match (place, value) {
            (Place::Text(PROVENANCE), value @ (Value::Map(_) | Value::List(_) | Value::Text(_))) => {
                self.texts[PROVENANCE] = Some(Cow::Owned(value.to_canonical()));
            }
            (Place::Text(i), Value::Text(text)) if *i != PROVENANCE => self.texts[*i] = Some(Cow::Owned(text)),
            (Place::Time(i), value) => match codec.decode(&value) {
                Some(time) => self.times[*i] = (time.micros, time.text.map(Cow::Owned)),
                None => return Ok(Err(value)),
            },
            (Place::Score(i), Value::Float(f)) => self.record.scores[*i] = Some(f),
            (Place::Score(i), Value::Int(n)) if n.unsigned_abs() <= 1 << 53 => {
                self.record.scores[*i] = Some(n as f64);
            }
            (Place::Version, Value::Int(n)) => self.record.version = Some(n),
            (Place::Tags, Value::List(items)) if items.iter().all(|item| matches!(item, Value::Text(_))) => {
                let texts = items.into_iter().filter_map(|item| match item {
                    Value::Text(text) => Some(Cow::Owned(text)),
                    _ => None,
                });
                self.tags = Some(texts.collect());
            }
            (Place::Extra(path), value) => put(self.extra()?, path, value)?,
            (_, value) => return Ok(Err(value)),
        }
        Ok(Ok(()))
    }
}
