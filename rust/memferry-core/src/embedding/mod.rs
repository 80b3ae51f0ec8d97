//! Re-embedding: the vector of one name is replaced by one of another model, made from the record's text.
//!
//! Nothing is asked here. [`Embedding::texts`] says what has to be embedded, a [`Cache`] keeps what was, and
//! [`Embedding::apply`] puts it into the records, the same in copy and proof. Before anything was embedded,
//! [`Embedding::preview`] shows what records will look like, for the plan.

mod cache;

use arrow_array::RecordBatch;
use hashbrown::{HashMap, HashSet};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::gaps::{GAPS, GapSet};
use crate::mapper::whole;
use crate::raw::Quarantined;
use crate::record::{CONTENT, Kind, NAME, RecordBuilder, RecordRef, RecordView, VectorKind, VectorRef};
use crate::transform::{Fate, Transformed};

pub use cache::{Cache, TextKey, key_of};

/// Gap of a vector that is replaced.
const REPLACED: &str = "re-embedded";
/// Gap of a vector that is dropped, because its record has no text to make another one from.
const WITHOUT_TEXT: &str = "vectors-without-text";

/// Which text of a record is embedded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TextField {
    /// `content`, and `name` where there is none.
    #[default]
    ContentOrName,
    Content,
    Name,
}

impl TextField {
    /// The text, unless it is missing or blank.
    fn of<'r>(self, r: &RecordRef<'r>) -> Option<&'r str> {
        let text = |field: usize| r.texts[field].filter(|text| !text.trim().is_empty());
        match self {
            Self::ContentOrName => text(CONTENT).or_else(|| text(NAME)),
            Self::Content => text(CONTENT),
            Self::Name => text(NAME),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    model: String,
    dimensions: u32,
    vector: String,
    keep_old: Option<String>,
    #[serde(default)]
    text: TextField,
    kinds: Vec<String>,
    /// Gaps that the user accepted; none are held back where it is missing.
    accepted: Option<Vec<String>>,
}

/// What is embedded, and how it is recorded.
pub struct Embedding {
    model: String,
    dimensions: u32,
    vector: String,
    keep_old: Option<String>,
    text: TextField,
    /// Kinds that get a vector even where they had none.
    kinds: Vec<Kind>,
    accepted: Option<GapSet>,
    replaced: usize,
    without_text: usize,
}

/// What is known of a text.
#[derive(Debug, Clone)]
pub enum Made {
    /// Its vector, `f32` little-endian.
    Vector(Vec<u8>),
    /// Why the endpoint does not take it.
    Refused(String),
}

/// What happens to the vectors of a record.
enum Choice<'r> {
    /// They stay as they are.
    Stay,
    /// A new one is made from this text, in place of the old one where there is one.
    Embed(&'r str),
    /// The old one goes, or is kept under its other name; there is no text for a new one.
    Drop,
}

impl Embedding {
    /// Reads the settings.
    pub fn from_json(text: &str) -> Result<Self> {
        let settings: Settings = serde_json::from_str(text).map_err(|e| Error::invalid(format!("embedding: {e}")))?;
        let accepted = settings.accepted.map(|names| GapSet::of(names.iter().map(String::as_str)));
        let position = |name: &str| {
            GAPS.iter().position(|gap| *gap == name).ok_or_else(|| Error::invalid(format!("unknown gap {name}")))
        };
        Ok(Self {
            model: settings.model,
            dimensions: settings.dimensions,
            vector: settings.vector,
            keep_old: settings.keep_old,
            text: settings.text,
            kinds: settings.kinds.iter().map(|kind| Kind::parse(kind)).collect::<Result<_>>()?,
            accepted: accepted.transpose().map_err(|name| Error::invalid(format!("embedding: unknown gap {name}")))?,
            replaced: position(REPLACED)?,
            without_text: position(WITHOUT_TEXT)?,
        })
    }

    /// The texts that are to be embedded, each once, in the order of the records.
    pub fn texts<'a>(&self, records: &'a RecordBatch) -> Result<Vec<(TextKey, &'a str)>> {
        let view = RecordView::new(records)?;
        let mut seen = HashSet::new();
        let mut texts = Vec::new();
        for row in 0..view.len() {
            if let Choice::Embed(text) = self.choose(&view.get(row)) {
                let key = key_of(text);
                if seen.insert(key) {
                    texts.push((key, text));
                }
            }
        }
        Ok(texts)
    }

    /// How many records get a new vector, and the bytes of their texts.
    pub fn extent(&self, records: &RecordBatch) -> Result<(u64, u64)> {
        let view = RecordView::new(records)?;
        let texts = view.iter().filter_map(|r| match self.choose(&r) {
            Choice::Embed(text) => Some(text.len() as u64),
            _ => None,
        });
        Ok(texts.fold((0, 0), |(records, bytes), len| (records + 1, bytes + len)))
    }

    /// The records as they will be, with a sample in place of the vectors that nobody has made yet.
    pub fn preview(&self, records: &RecordBatch, sample: &[u8]) -> Result<Transformed> {
        let sample = Made::Vector(sample.to_vec());
        self.run(records, |_| Ok(&sample))
    }

    /// The records with their new vectors.
    ///
    /// Fails where `made` lacks a text of [`Self::texts`].
    pub fn apply(&self, records: &RecordBatch, made: &HashMap<TextKey, Made>) -> Result<Transformed> {
        self.run(records, |text| {
            made.get(&key_of(text)).ok_or_else(|| Error::invalid("a text was not embedded before it was needed"))
        })
    }

    fn run<'m>(&self, records: &RecordBatch, made: impl Fn(&str) -> Result<&'m Made>) -> Result<Transformed> {
        let view = RecordView::new(records)?;
        let mut out = RecordBuilder::default();
        let mut run = Run { lost: vec![(0, None); GAPS.len()], quarantined: Vec::new() };
        let mut fates = Vec::with_capacity(view.len());
        for r in view.iter() {
            let fate = match self.choose(&r) {
                Choice::Stay => {
                    out.push(&r)?;
                    Fate::Kept
                }
                Choice::Drop => self.row(&r, None, &mut run, &mut out)?,
                Choice::Embed(text) => self.row(&r, Some(made(text)?), &mut run, &mut out)?,
            };
            fates.push(fate);
        }
        let lost = run.lost.into_iter().enumerate();
        let lost = lost.filter_map(|(i, (n, id))| id.map(|id| (i, n, id))).collect();
        Ok(Transformed { records: out.finish()?, fates, quarantined: run.quarantined, lost })
    }

    fn choose<'r>(&self, r: &RecordRef<'r>) -> Choice<'r> {
        let old = r.vectors.iter().find(|vector| vector.name == self.vector);
        if old.is_some_and(|old| self.is_new(old)) || (old.is_none() && !self.kinds.contains(&r.kind)) {
            return Choice::Stay;
        }
        match (self.text.of(r), old) {
            (Some(text), _) => Choice::Embed(text),
            (None, Some(_)) => Choice::Drop,
            (None, None) => Choice::Stay,
        }
    }

    /// Whether the model has made a vector already, in an earlier hop.
    fn is_new(&self, vector: &VectorRef<'_>) -> bool {
        vector.kind == VectorKind::Dense && vector.dim == self.dimensions && vector.model == Some(self.model.as_str())
    }

    /// One record whose vectors change.
    fn row<'r>(
        &'r self,
        r: &'r RecordRef<'_>,
        made: Option<&'r Made>,
        run: &mut Run,
        out: &mut RecordBuilder,
    ) -> Result<Fate> {
        let mut r = r.reborrow();
        if let Some(Made::Refused(why)) = made {
            return Ok(run.quarantine(&r, "embedding", format!("the endpoint does not take its text: {why}")));
        }
        let old = r.vectors.iter().position(|vector| vector.name == self.vector);
        if let (Some(old), Some(name)) = (old, self.keep_old.as_deref()) {
            if r.vectors.iter().any(|vector| vector.name == name) {
                return Ok(run.quarantine(&r, "field-clash", format!("it has a vector {name:?} already")));
            }
            r.vectors[old].name = name;
        } else if let Some(old) = old {
            let gap = if made.is_some() { self.replaced } else { self.without_text };
            if self.accepted.is_some_and(|accepted| !accepted.positions().any(|accepted| accepted == gap)) {
                return Ok(run.quarantine(&r, "gap", format!("not accepted: {}", GAPS[gap])));
            }
            run.lose(gap, r.id);
            r.vectors.remove(old);
        }
        if let Some(Made::Vector(data)) = made {
            r.vectors.push(VectorRef {
                name: &self.vector,
                model: Some(&self.model),
                dim: self.dimensions,
                normalized: None,
                kind: VectorKind::Dense,
                indices: None,
                data,
            });
        }
        // As the canonical encoding orders them.
        r.vectors.sort_by(|a, b| a.name.cmp(b.name));
        out.push(&r)?;
        Ok(Fate::Kept)
    }
}

struct Run {
    /// By position in [`GAPS`].
    lost: Vec<(u64, Option<String>)>,
    quarantined: Vec<Quarantined>,
}

impl Run {
    fn lose(&mut self, gap: usize, id: &str) {
        self.lost[gap].0 += 1;
        self.lost[gap].1.get_or_insert_with(|| id.to_owned());
    }

    fn quarantine(&mut self, r: &RecordRef<'_>, reason: &'static str, message: String) -> Fate {
        self.quarantined.push(whole(r, reason, message));
        Fate::Quarantined
    }
}
