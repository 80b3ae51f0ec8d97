//! Records to canonical text.

use crate::canonical::is_canonical_object;
use crate::mapper::{TOP, vectors};
use crate::profile::Target;
use crate::record::{RecordRef, TimeRef};
use crate::times::{self, TimeCodec};
use crate::value::{NATIVE_DEPTH, Value, canonical_f64, write_text};

use super::{Member, Place};

/// What a record is written with.
pub(in crate::mapper) struct Written<'a, 'r> {
    pub record: &'a RecordRef<'r>,
    pub key: &'a str,
    pub marker: Option<(&'a str, u128)>,
}

/// Writes one record.
pub(super) struct Writer<'w, 'r> {
    pub(super) written: &'w Written<'w, 'r>,
    pub(super) constants: &'w [String],
    pub(super) depth: usize,
}

impl Writer<'_, '_> {
    /// Whether a place stays empty.
    fn is_empty(&self, place: &Place) -> bool {
        let r = self.written.record;
        match place {
            Place::Object(members) => members.iter().all(|member| self.is_empty(&member.place)),
            Place::Select(_) => false,
            Place::Id => r.id == self.written.key,
            Place::Field(Target::Text(i) | Target::Json(i)) => r.texts[*i].is_none(),
            Place::Field(Target::Time(i, _)) => r.times[*i].micros.is_none() && r.times[*i].text.is_none(),
            Place::Field(Target::Score(i, _)) => r.scores[*i].is_none(),
            Place::Field(Target::Version) => r.version.is_none(),
            Place::Field(Target::Tags(_)) => r.tags.is_none(),
            Place::Extra { .. } => r.extra == "{}",
            Place::Notes => !r.vectors.iter().any(vectors::needs_note),
            Place::Marker => self.written.marker.is_none(),
        }
    }

    /// `depth`: how deep its members lie.
    pub(super) fn object(&self, members: &[Member], depth: usize, out: &mut String) -> Option<()> {
        let mut before = '{';
        for member in members {
            if !self.is_empty(&member.place) {
                out.push(before);
                out.push_str(&member.head);
                self.place(&member.place, depth, out)?;
                before = ',';
            }
        }
        if before == '{' {
            out.push('{');
        }
        out.push('}');
        Some(())
    }

    fn place(&self, place: &Place, depth: usize, out: &mut String) -> Option<()> {
        let r = self.written.record;
        match place {
            Place::Object(members) => self.object(members, depth + 1, out)?,
            Place::Select(i) => write_text(self.constants.get(*i)?, out),
            Place::Id => write_text(r.id, out),
            Place::Field(target) => self.field(*target, depth, out)?,
            Place::Extra { text } => {
                let deepest = if *text { NATIVE_DEPTH } else { self.depth.saturating_sub(depth) };
                if r.extra.contains(TOP) || !is_canonical_object(r.extra, deepest) {
                    return None;
                }
                if *text { write_text(r.extra, out) } else { out.push_str(r.extra) }
            }
            Place::Notes => vectors::write_note_texts(&r.vectors, out),
            Place::Marker => {
                let (migration, digest) = self.written.marker?;
                out.push_str("{\"digest\":\"");
                let hex = digest.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
                out.extend(hex.filter_map(|nibble| char::from_digit(nibble.into(), 16)));
                out.push_str("\",\"migration\":");
                write_text(migration, out);
                out.push('}');
            }
        }
        Some(())
    }

    fn field(&self, target: Target, depth: usize, out: &mut String) -> Option<()> {
        let r = self.written.record;
        match target {
            Target::Text(i) => write_text(r.texts[i]?, out),
            Target::Json(i) => {
                let text = r.texts[i]?;
                if !is_canonical_object(text, self.depth.checked_sub(depth)?) {
                    return None;
                }
                out.push_str(text);
            }
            Target::Time(i, codec) => match (codec, r.times[i]) {
                (TimeCodec::Native | TimeCodec::Iso, TimeRef { micros: Some(micros), text: None }) => {
                    write_text(&times::format_iso(micros)?, out);
                }
                (codec, time) => codec.encode(time.micros, time.text)?.write_canonical(out),
            },
            Target::Score(i, false) => Value::Float(r.scores[i]?).write_canonical(out),
            Target::Score(i, true) => write_text(&canonical_f64(r.scores[i]?), out),
            Target::Version => Value::Int(r.version?).write_canonical(out),
            Target::Tags(false) => {
                out.push('[');
                for (i, tag) in r.tags.as_ref()?.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(tag, out);
                }
                out.push(']');
            }
            Target::Tags(true) => return None,
        }
        Some(())
    }
}
