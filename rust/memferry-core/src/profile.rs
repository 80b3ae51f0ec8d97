//! Profile tables: how canonical fields lie in a raw shape, as data. The mapper in [`crate::mapper`] runs them.
//!
//! A profile is a JSON document in `python/memferry/profiles/`; `docs/profiles.md` describes every key.

use serde::Deserialize;

use crate::record::Kind;
use crate::times::TimeCodec;
use crate::value::{Map, Value, get};

mod check;

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

/// The value at a path.
pub fn lookup<'a>(body: &'a Map, keys: &[String]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    match get(body, first)? {
        value if rest.is_empty() => Some(value),
        Value::Map(inner) => lookup(inner, rest),
        _ => None,
    }
}
