//! Canonical text to records.

use jiter::{Jiter, Peek};
use smallvec::SmallVec;

use crate::canonical::is_canonical_object;
use crate::mapper::vectors::VectorNote;
use crate::mapper::{TOP, decode};
use crate::profile::Target;
use crate::record::{Kind, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, TimeRef};
use crate::value::{NATIVE_DEPTH, Value, canonical_f64, number, parse_canonical_f64};

use super::{Member, Place};

/// Where a text lies in [`Found::bytes`].
pub(super) type Piece = (usize, usize);

/// What was found in a body. Its buffers are kept from body to body.
#[derive(Default)]
pub(in crate::mapper) struct Found {
    bytes: String,
    pub(super) selects: SmallVec<[Option<Piece>; 2]>,
    id: Option<Piece>,
    texts: [Option<Piece>; TEXT_FIELDS.len()],
    times: [(Option<i64>, Option<Piece>); TIME_FIELDS.len()],
    version: Option<i64>,
    scores: [Option<f64>; SCORE_FIELDS.len()],
    tags: Vec<Piece>,
    has_tags: bool,
    extra: Option<Piece>,
    notes: SmallVec<[VectorNote<Piece>; 1]>,
    marker: Option<(Piece, [u8; 16])>,
}

impl Found {
    pub(super) fn clear(&mut self) {
        let (mut bytes, mut tags) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.tags));
        bytes.clear();
        tags.clear();
        *self = Self { bytes, tags, ..Self::default() };
    }

    fn keep(&mut self, text: &str) -> Piece {
        let start = self.bytes.len();
        self.bytes.push_str(text);
        (start, self.bytes.len())
    }

    pub(super) fn text(&self, (start, end): Piece) -> &str {
        &self.bytes[start..end]
    }

    /// The notes about the vectors.
    pub(in crate::mapper) fn notes(&self) -> SmallVec<[VectorNote<&str>; 1]> {
        self.notes.iter().map(|note| note.map(|piece| self.text(piece))).collect()
    }

    /// The record, without its vectors.
    pub(in crate::mapper) fn record<'a>(&'a self, kind: Kind, key: &'a str) -> RecordRef<'a> {
        let mut r = RecordRef::new(kind, self.id.map_or(key, |id| self.text(id)));
        r.key = Some(key);
        r.texts = self.texts.map(|piece| piece.map(|piece| self.text(piece)));
        r.times = self.times.map(|(micros, text)| TimeRef { micros, text: text.map(|text| self.text(text)) });
        r.version = self.version;
        r.scores = self.scores;
        r.tags = self.has_tags.then(|| self.tags.iter().map(|tag| self.text(*tag)).collect());
        r.extra = self.extra.map_or("{}", |extra| self.text(extra));
        r.marker_migration = self.marker.map(|(migration, _)| self.text(migration));
        r.marker_digest = self.marker.map(|(_, digest)| digest);
        r
    }
}

/// Reads one body.
pub(super) struct Reader<'r, 'j> {
    pub(super) json: &'r mut Jiter<'j>,
    pub(super) body: &'j [u8],
    pub(super) found: &'r mut Found,
    pub(super) depth: usize,
}

impl Reader<'_, '_> {
    /// The object that is next: some of these members, in their order, and nothing else.
    pub(super) fn object(&mut self, members: &[Member], depth: usize) -> Option<()> {
        let mut left = members.iter();
        let mut any = false;
        let mut key = self.json.known_object().ok()?;
        while let Some(found) = key {
            let member = left.find(|member| member.key.as_str() >= found).filter(|member| member.key == found)?;
            self.place(&member.place, depth)?;
            any = true;
            key = self.json.next_key().ok()?;
        }
        // An empty object is one that nobody mapped.
        any.then_some(())
    }

    fn place(&mut self, place: &Place, depth: usize) -> Option<()> {
        match place {
            Place::Object(members) => {
                self.next_is(Peek::Object)?;
                self.object(members, depth + 1)?;
            }
            Place::Select(i) => {
                let piece = self.text()?;
                let len = self.found.selects.len().max(i + 1);
                self.found.selects.resize(len, None);
                self.found.selects[*i] = Some(piece);
            }
            Place::Id => self.found.id = Some(self.text()?),
            Place::Field(target) => self.field(*target, depth)?,
            Place::Extra { text } => {
                let (piece, deepest) = if *text {
                    (self.text()?, NATIVE_DEPTH.checked_sub(depth)?)
                } else {
                    (self.raw()?, self.depth.checked_sub(depth)?)
                };
                let extra = self.found.text(piece);
                if extra.contains(TOP) || !is_canonical_object(extra, deepest) {
                    return None;
                }
                self.found.extra = Some(piece);
            }
            Place::Notes => self.notes()?,
            Place::Marker => self.marker()?,
        }
        Some(())
    }

    fn next_is(&mut self, wanted: Peek) -> Option<()> {
        (self.json.peek().ok()? == wanted).then_some(())
    }

    /// The text that is next.
    fn text(&mut self) -> Option<Piece> {
        self.next_is(Peek::String)?;
        Some(self.found.keep(self.json.known_str().ok()?))
    }

    /// The value that is next as it stands there.
    fn raw(&mut self) -> Option<Piece> {
        let peek = self.json.peek().ok()?;
        let start = self.json.current_index();
        self.json.known_skip(peek).ok()?;
        let end = self.json.current_index();
        Some(self.found.keep(std::str::from_utf8(&self.body[start..end]).ok()?))
    }

    fn number(&mut self) -> Option<Value> {
        let peek = self.json.peek().ok().filter(|peek| peek.is_num())?;
        number(std::str::from_utf8(self.json.known_number_bytes(peek).ok()?).ok()?).ok()
    }

    fn key(&mut self, wanted: &str) -> Option<()> {
        (self.json.next_key().ok()?? == wanted).then_some(())
    }

    fn field(&mut self, target: Target, depth: usize) -> Option<()> {
        match target {
            Target::Text(i) => self.found.texts[i] = Some(self.text()?),
            Target::Json(i) => {
                let piece = self.raw()?;
                if !is_canonical_object(self.found.text(piece), self.depth.checked_sub(depth)?) {
                    return None;
                }
                self.found.texts[i] = Some(piece);
            }
            Target::Time(i, codec) => {
                let piece = self.text()?;
                let (micros, canonical) = codec.read_text(self.found.text(piece))?;
                self.found.times[i] = (micros, (!canonical).then_some(piece));
            }
            Target::Score(i, true) => {
                let piece = self.text()?;
                let text = self.found.text(piece);
                let float = parse_canonical_f64(text).filter(|float| canonical_f64(*float) == text)?;
                self.found.scores[i] = Some(float);
            }
            Target::Score(i, false) => {
                let Value::Float(float) = self.number()? else { return None };
                self.found.scores[i] = Some(float);
            }
            Target::Version => {
                let Value::Int(version) = self.number()? else { return None };
                self.found.version = Some(version);
            }
            Target::Tags(false) => {
                self.next_is(Peek::Array)?;
                let mut next = self.json.known_array().ok()?;
                while let Some(peek) = next {
                    if peek != Peek::String {
                        return None;
                    }
                    let tag = self.found.keep(self.json.known_str().ok()?);
                    self.found.tags.push(tag);
                    next = self.json.array_step().ok()?;
                }
                self.found.has_tags = true;
            }
            Target::Tags(true) => return None,
        }
        Some(())
    }

    fn notes(&mut self) -> Option<()> {
        self.next_is(Peek::Array)?;
        let mut next = self.json.known_array().ok()?;
        while let Some(peek) = next {
            if peek != Peek::Object || self.json.known_object().ok()?? != "model" {
                return None;
            }
            let model = match self.json.peek().ok()? {
                Peek::Null => self.json.known_null().ok().map(|()| None)?,
                _ => Some(self.text()?),
            };
            self.key("name")?;
            let name = self.text()?;
            self.key("normalized")?;
            let normalized = match self.json.peek().ok()? {
                Peek::Null => self.json.known_null().ok().map(|()| None)?,
                peek => Some(self.json.known_bool(peek).ok()?),
            };
            self.key("stored")?;
            let stored = self.text()?;
            if self.json.next_key().ok()?.is_some() {
                return None;
            }
            self.found.notes.push(VectorNote { stored, name, model, normalized });
            next = self.json.array_step().ok()?;
        }
        Some(())
    }

    fn marker(&mut self) -> Option<()> {
        self.next_is(Peek::Object)?;
        if self.json.known_object().ok()?? != "digest" {
            return None;
        }
        self.next_is(Peek::String)?;
        let digest = decode::digest_of_hex(self.json.known_str().ok()?)?;
        self.key("migration")?;
        let migration = self.text()?;
        if self.json.next_key().ok()?.is_some() {
            return None;
        }
        self.found.marker = Some((migration, digest));
        Some(())
    }
}
