//! Profile tables: how canonical fields lie in a raw shape, as data. The mapper in [`crate::mapper`] runs them.
//!
//! A profile is a JSON document in `python/memferry/profiles/`; `docs/profiles.md` describes every key.

use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::record::{Kind, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS};
use crate::times::TimeCodec;
use crate::value::{Map, Value, get};

/// Where a value lies in a raw body: keys from the outside in. A single text is a path of one key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Path {
    /// One key at the top.
    Key(String),
    /// Keys from the outside in.
    Keys(Vec<String>),
}

impl Path {
    /// The keys.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Key(key) => std::slice::from_ref(key),
            Self::Keys(keys) => keys,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    #[serde(default)]
    native: bool,
    #[serde(default)]
    escaped: bool,
    kinds: Vec<KindFile>,
    #[serde(default, rename = "description")]
    _description: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindFile {
    kind: String,
    #[serde(default)]
    select: Vec<Select>,
    id: IdRule,
    #[serde(default)]
    fields: Vec<FieldFile>,
    #[serde(default)]
    extra: ExtraPlace,
    #[serde(default)]
    vectors: VectorsPlace,
    #[serde(default)]
    explode: Option<Explode>,
    #[serde(default)]
    marker: Option<Path>,
    #[serde(default)]
    fill: Vec<Fill>,
    #[serde(default)]
    fixed: bool,
}

/// A constant that tells this kind from the others: checked and taken off when read, put back when written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Where it lies.
    pub path: Path,
    /// What it must be.
    pub equals: String,
}

/// Where the original id lies.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdRule {
    /// The store's own key of the row.
    Key,
    /// A value of the body.
    Path(Path),
    /// A value of the body where there is one, else the store's own key. Native profiles keep ids the store cannot hold this way.
    PathOrKey(Path),
    /// Several texts of the body, each with its length in front; for systems whose key is made of fields.
    Join(Vec<Path>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldFile {
    field: String,
    path: Path,
    #[serde(default)]
    codec: Option<String>,
}

/// Where the fields go that nobody mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraPlace {
    /// Beside the mapped ones, under their own keys.
    #[default]
    Flat,
    /// As an object at a path.
    Object(Path),
    /// As canonical text at a path, for stores that alter doubles.
    Text(Path),
}

/// Where vectors lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorsPlace {
    /// The system has none.
    #[default]
    None,
    /// Beside the body: the store keeps them itself.
    Store,
    /// Beside the body, with what the store has no room for (model, length, an empty name) in a list at a path.
    StoreWithMeta(Path),
    /// In the body as a list of objects with base64 data.
    Objects(Path),
    /// In the body as one list of numbers.
    Floats(Path),
}

/// A list inside a record whose items are records of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explode {
    /// Where the list of texts lies.
    pub path: Path,
}

/// A value a system expects beside its data and that follows from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// Where it goes when nothing is there.
    pub path: Path,
    /// What it is.
    pub value: FillValue,
}

/// How a [`Fill`] is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FillValue {
    /// Hex MD5 of `content` (Mem0's `hash`).
    ContentMd5,
    /// An empty list.
    EmptyList,
}

/// Which canonical column a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Index into [`TEXT_FIELDS`].
    Text(usize),
    /// `provenance`, whose value is any JSON, held as canonical text.
    Json(usize),
    /// Index into [`TIME_FIELDS`].
    Time(usize, TimeCodec),
    /// Index into [`SCORE_FIELDS`]; `true` for native documents that hold doubles as text.
    Score(usize, bool),
    /// `version`.
    Version,
    /// `tags`; `true` for one comma-joined text.
    Tags(bool),
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct FieldMap {
    /// Canonical name.
    pub name: String,
    /// Where it lies in the raw body.
    pub path: Path,
    /// Column and codec.
    pub target: Target,
}

/// The table of one kind.
#[derive(Debug, Clone)]
pub struct KindMap {
    /// Kind of the records.
    pub kind: Kind,
    /// Constants that tell it apart.
    pub select: Vec<Select>,
    /// Where the id lies.
    pub id: IdRule,
    /// The rows.
    pub fields: Vec<FieldMap>,
    /// Where unmapped fields go.
    pub extra: ExtraPlace,
    /// Where vectors go.
    pub vectors: VectorsPlace,
    /// Nested observations.
    pub explode: Option<Explode>,
    /// Where our marker lies, in native profiles.
    pub marker: Option<Path>,
    /// Derived values.
    pub fill: Vec<Fill>,
    /// The system drops fields it does not know, so unmapped ones cannot be written.
    pub fixed: bool,
}

/// A checked profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Ours and lossless, markers allowed.
    pub native: bool,
    /// Bodies are canonical text (reserved keys mean what the record specification says), not plain JSON.
    pub escaped: bool,
    /// One table a kind.
    pub kinds: Vec<KindMap>,
}

impl Profile {
    /// Reads and checks a profile document.
    pub fn from_json(text: &str) -> Result<Self> {
        let file: ProfileFile =
            serde_json::from_str(text).map_err(|e| Error::new(Code::Profile, format!("profile table: {e}")))?;
        let kinds = file
            .kinds
            .into_iter()
            .map(|kind| KindMap::check(kind).map_err(|e| e.at(format!("profile {}", file.name))))
            .collect::<Result<Vec<_>>>()?;
        let profile = Self { name: file.name, native: file.native, escaped: file.escaped, kinds };
        profile.check().map_err(|e| e.at(format!("profile {}", profile.name)))?;
        Ok(profile)
    }

    /// One table a kind, and no table behind one that takes every row of it.
    fn check(&self) -> Result<()> {
        if self.kinds.is_empty() {
            return Err(Error::new(Code::Profile, "no kinds"));
        }
        for (i, later) in self.kinds.iter().enumerate() {
            let word = later.kind.as_str();
            for earlier in &self.kinds[..i] {
                if earlier.kind == later.kind {
                    return Err(Error::new(Code::Profile, format!("{word}: two tables of one kind")));
                }
                if earlier.select.iter().all(|s| later.select.contains(s)) {
                    let taken = earlier.kind.as_str();
                    return Err(Error::new(Code::Profile, format!("{word}: never chosen, {taken} takes its rows")));
                }
            }
        }
        Ok(())
    }

    /// Whether the store keeps the vectors of these records beside the body.
    pub const fn stores_vectors(place: &VectorsPlace) -> bool {
        matches!(place, VectorsPlace::Store | VectorsPlace::StoreWithMeta(_))
    }

    /// The table of `kind`, if the system has that kind.
    pub fn of(&self, kind: Kind) -> Option<&KindMap> {
        self.kinds.iter().find(|k| k.kind == kind)
    }
}

impl KindMap {
    fn check(file: KindFile) -> Result<Self> {
        let kind = Kind::parse(&file.kind).map_err(|e| Error::new(Code::Profile, e.message))?;
        let fields = file
            .fields
            .into_iter()
            .map(|f| {
                let target = target(&f.field, f.codec.as_deref())?;
                Ok(FieldMap { name: f.field, path: f.path, target })
            })
            .collect::<Result<Vec<_>>>()?;
        let map = Self {
            kind,
            select: file.select,
            id: file.id,
            fields,
            extra: file.extra,
            vectors: file.vectors,
            explode: file.explode,
            marker: file.marker,
            fill: file.fill,
            fixed: file.fixed,
        };
        let contradiction = map.shared_place().or_else(|| map.repeated_field()).or_else(|| map.bad_join());
        match contradiction {
            Some(what) => Err(Error::new(Code::Profile, format!("{}: {what}", kind.as_str()))),
            None => Ok(map),
        }
    }

    /// Every path that is written, with what it is for. The parts of a joined id are fields already.
    fn places(&self) -> Vec<(&[String], &str)> {
        let mut places: Vec<_> = self.fields.iter().map(|f| (f.path.keys(), f.name.as_str())).collect();
        places.extend(self.select.iter().map(|s| (s.path.keys(), "select")));
        if let IdRule::Path(path) | IdRule::PathOrKey(path) = &self.id {
            places.push((path.keys(), "id"));
        }
        if let ExtraPlace::Object(path) | ExtraPlace::Text(path) = &self.extra {
            places.push((path.keys(), "extra"));
        }
        if let VectorsPlace::StoreWithMeta(path) | VectorsPlace::Objects(path) | VectorsPlace::Floats(path) =
            &self.vectors
        {
            places.push((path.keys(), "vectors"));
        }
        places.extend(self.explode.iter().map(|e| (e.path.keys(), "explode")));
        places.extend(self.marker.iter().map(|path| (path.keys(), "marker")));
        places.extend(self.fill.iter().map(|f| (f.path.keys(), "fill")));
        places
    }

    fn shared_place(&self) -> Option<String> {
        let mut places = self.places();
        places.sort();
        if let Some((_, what)) = places.iter().find(|(keys, _)| keys.is_empty()) {
            return Some(format!("the path of {what} has no key"));
        }
        let pair = places.windows(2).find(|pair| pair[1].0.starts_with(pair[0].0))?;
        Some(format!("{:?} is mapped twice: {} and {}", pair[1].0, pair[0].1, pair[1].1))
    }

    fn repeated_field(&self) -> Option<String> {
        let mut names: Vec<&str> = self.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        let pair = names.windows(2).find(|pair| pair[0] == pair[1])?;
        Some(format!("field {} is read from two places", pair[0]))
    }

    fn bad_join(&self) -> Option<String> {
        let IdRule::Join(paths) = &self.id else { return None };
        if paths.is_empty() {
            return Some("the id is joined from nothing".to_owned());
        }
        let unmapped = paths.iter().find(|path| self.text_at(path).is_none())?;
        Some(format!("the id is joined from {:?}, which is no text field", unmapped.keys()))
    }

    /// Index of the text column that lies at `path`.
    fn text_at(&self, path: &Path) -> Option<usize> {
        self.fields.iter().find(|f| f.path.keys() == path.keys()).and_then(|f| match f.target {
            Target::Text(i) => Some(i),
            _ => None,
        })
    }

    /// Text columns of which the id is joined, if it is.
    pub fn joined_texts(&self) -> Option<Vec<usize>> {
        let IdRule::Join(paths) = &self.id else { return None };
        paths.iter().map(|path| self.text_at(path)).collect()
    }

    /// Whether the system drops the fields that nobody mapped.
    pub fn drops_unmapped(&self) -> bool {
        self.fixed && self.extra == ExtraPlace::Flat
    }

    /// Whether `body` carries this kind's constants.
    pub fn selects(&self, body: &Map) -> bool {
        self.select.iter().all(|s| matches!(lookup(body, s.path.keys()), Some(Value::Text(t)) if *t == s.equals))
    }
}

/// An id made of texts: each with its length in code points in front, so that no two rows of texts meet.
pub fn join_id<'t>(parts: impl IntoIterator<Item = &'t str>) -> String {
    let parts: Vec<String> = parts.into_iter().map(|t| format!("{}:{t}", t.chars().count())).collect();
    parts.join("|")
}

fn target(field: &str, codec: Option<&str>) -> Result<Target> {
    let bad = |allowed: &str| {
        Error::new(Code::Profile, format!("field {field}: codec {:?}, allowed: {allowed}", codec.unwrap_or_default()))
    };
    if let Some(i) = TEXT_FIELDS.iter().position(|name| *name == field) {
        return match codec {
            None if field == "provenance" => Err(bad("json")),
            None => Ok(Target::Text(i)),
            Some("json") => Ok(Target::Json(i)),
            _ => Err(bad("json, or none for text")),
        };
    }
    if let Some(i) = TIME_FIELDS.iter().position(|name| *name == field) {
        let codec = TimeCodec::parse(codec.unwrap_or("iso-time"));
        return codec.map(|c| Target::Time(i, c)).ok_or_else(|| bad("time, iso-time, epoch-seconds, epoch-millis"));
    }
    if let Some(i) = SCORE_FIELDS.iter().position(|name| *name == field) {
        return match codec {
            None => Ok(Target::Score(i, false)),
            Some("text") => Ok(Target::Score(i, true)),
            _ => Err(bad("text, or none for a number")),
        };
    }
    match (field, codec) {
        ("version", None) => Ok(Target::Version),
        ("tags", None) => Ok(Target::Tags(false)),
        ("tags", Some("comma")) => Ok(Target::Tags(true)),
        ("tags", _) => Err(bad("comma, or none for a list")),
        _ => Err(Error::new(Code::Profile, format!("unknown field {field:?}"))),
    }
}

/// The value at a path.
pub fn lookup<'a>(body: &'a Map, keys: &[String]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    match get(body, first)? {
        value if rest.is_empty() => Some(value),
        Value::Map(inner) => lookup(inner, rest),
        _ => None,
    }
}
