//! Records in two halves: everything but the vectors in one store, the vectors in another, joined again when read.
//!
//! The half without vectors says in a note among its unmapped fields which ones it left to the other half, so that a
//! missing one is seen. Each half carries the marker of what it holds; the joined record has a marker of its own that
//! holds when both halves are as they were written. So a kill between the two writes, which leaves a new half beside
//! an old one, is no change by someone else.

use arrow_array::RecordBatch;
use hashbrown::HashMap;

use crate::digest::{digest, identity};
use crate::error::Result;
use crate::record::{CONTENT, RecordBuilder, RecordRef, RecordView, VectorKind, VectorRef, Vectors};
use crate::value::{Value, insert, remove};

/// The note about vectors in the other half: a list of their names.
const NOTE: &str = "$vectors";
/// How the note begins in canonical text.
const NOTE_TEXT: &str = "\"$vectors\":";
/// Longest dense vector, and longest row of a multi vector, that a vector store takes.
const MAX_DIM: u32 = 65_536;

/// Whether a vector store gives this vector back: finite numbers, at least one. Others stay with the rest.
fn movable(vector: &VectorRef<'_>) -> bool {
    let finite = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite();
    !vector.data.is_empty()
        && vector.data.chunks_exact(4).all(finite)
        && (vector.kind == VectorKind::Sparse || vector.dim <= MAX_DIM)
}

/// The vectors that go to the other half, and those that stay: what it cannot hold, and names given twice.
fn divide<'a>(vectors: &Vectors<'a>) -> (Vectors<'a>, Vectors<'a>) {
    let only = |v: &VectorRef<'_>| vectors.iter().filter(|other| other.stored_name() == v.stored_name()).count() == 1;
    vectors.iter().copied().partition(|v| movable(v) && only(v))
}

/// The unmapped fields with the note; `None` where they are no object, in a damaged store.
fn with_note(extra: &str, moved: &Vectors<'_>) -> Option<String> {
    let Ok(Value::Map(mut fields)) = Value::from_canonical(extra) else { return None };
    let names = moved.iter().map(|v| Value::Text(v.name.to_owned())).collect();
    insert(&mut fields, NOTE, Value::List(names));
    Some(Value::Map(fields).to_canonical())
}

/// The names in the note and the unmapped fields without it, if there is one.
fn read_note(extra: &str) -> Option<(Vec<String>, String)> {
    if !extra.contains(NOTE_TEXT) {
        return None;
    }
    let Ok(Value::Map(mut fields)) = Value::from_canonical(extra) else { return None };
    let Value::List(items) = remove(&mut fields, NOTE)? else { return None };
    let name = |item| if let Value::Text(name) = item { Some(name) } else { None };
    let names = items.into_iter().map(name).collect::<Option<Vec<_>>>()?;
    Some((names, Value::Map(fields).to_canonical()))
}

/// Cuts records in two: every record without the vectors that the other half holds, and those vectors with what they
/// are found and filtered by.
pub fn split(records: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
    let view = RecordView::new(records)?;
    let (mut rest, mut points) = (RecordBuilder::default(), RecordBuilder::default());
    let mut scratch = Vec::new();
    for row in 0..view.len() {
        #[expect(clippy::needless_late_init, reason = "it has to live longer than what borrows from the row")]
        let note;
        let r = view.get(row);
        let (moved, kept) = divide(&r.vectors);
        let noted = if moved.is_empty() { None } else { with_note(r.extra, &moved) };
        let Some(extra) = noted else {
            rest.push(&r)?;
            continue;
        };
        note = extra;
        let mut half = RecordRef { extra: &note, vectors: kept, ..r.clone() };
        let mut point = RecordRef::new(r.kind, r.id);
        // The fields before the content are the scope.
        point.texts[..CONTENT].copy_from_slice(&r.texts[..CONTENT]);
        point.vectors = moved;
        point.marker_migration = r.marker_migration;
        point.marker_digest = r.marker_digest;
        if r.marker_digest == Some(digest(&r, &mut scratch).to_be_bytes()) {
            half.marker_digest = Some(digest(&half, &mut scratch).to_be_bytes());
            point.marker_digest = Some(digest(&point, &mut scratch).to_be_bytes());
        }
        rest.push(&half)?;
        points.push(&point)?;
    }
    Ok((rest.finish()?, points.finish()?))
}

/// Whether vectors belong to the record of the same kind and id.
///
/// Not those that the record does not know of and another migration wrote: it was killed before it wrote the rest.
fn belongs(record: &RecordRef<'_>, noted: bool, point: &RecordRef<'_>) -> bool {
    noted || point.marker_migration.is_none() || point.marker_migration == record.marker_migration
}

/// Rows by kind and id.
fn rows(view: &RecordView<'_>) -> HashMap<u128, usize> {
    (0..view.len()).map(|row| (identity(view.kind(row), view.id(row)), row)).collect()
}

/// Puts the vectors back; for each record whether one that it knows of is missing.
///
/// `scopes_of_points`: the joined record shows the scope that its vectors are filtered by, which is a copy; so a proof
/// finds one that has become another.
pub fn join(records: &RecordBatch, points: &RecordBatch, scopes_of_points: bool) -> Result<(RecordBatch, Vec<bool>)> {
    let (view, points) = (RecordView::new(records)?, RecordView::new(points)?);
    let known = rows(&points);
    let mut out = RecordBuilder::default();
    let mut torn = Vec::with_capacity(view.len());
    let mut scratch = Vec::new();
    for row in 0..view.len() {
        #[expect(clippy::needless_late_init, reason = "it has to live longer than what borrows from the row")]
        let note;
        let r = view.get(row);
        note = read_note(r.extra);
        let names = note.as_ref().map_or(&[][..], |(names, _)| names);
        let point = known.get(&identity(r.kind, r.id)).map(|row| points.get(*row));
        let point = point.filter(|point| belongs(&r, note.is_some(), point));
        let vectors = point.as_ref().map_or(&[][..], |point| &point.vectors);
        torn.push(names.iter().any(|name| vectors.iter().all(|v| v.name != name)));
        let mut whole = r.clone();
        if let Some((_, extra)) = &note {
            whole.extra = extra;
        }
        whole.vectors.extend(vectors.iter().copied());
        if let Some(point) = point.as_ref().filter(|_| scopes_of_points) {
            whole.texts[..CONTENT].copy_from_slice(&point.texts[..CONTENT]);
        }
        let as_written = r.marker_digest == Some(digest(&r, &mut scratch).to_be_bytes())
            && point.as_ref().map_or(note.is_none(), |point| {
                point.marker_migration == r.marker_migration
                    && point.marker_digest == Some(digest(point, &mut scratch).to_be_bytes())
            });
        if as_written {
            whole.marker_digest = Some(digest(&whole, &mut scratch).to_be_bytes());
        }
        out.push(&whole)?;
    }
    Ok((out.finish()?, torn))
}

/// For each row of vectors whether there is a record that it belongs to.
pub fn owned(records: &RecordBatch, points: &RecordBatch) -> Result<Vec<bool>> {
    let (view, points) = (RecordView::new(records)?, RecordView::new(points)?);
    let known = rows(&view);
    let has_owner = |point: RecordRef<'_>| {
        known.get(&identity(point.kind, point.id)).is_some_and(|row| {
            let r = view.get(*row);
            belongs(&r, read_note(r.extra).is_some(), &point)
        })
    };
    Ok(points.iter().map(has_owner).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::digest::digests;
    use crate::record::Kind;

    const ONE: [u8; 4] = 1.0_f32.to_le_bytes();
    const NAN: [u8; 4] = f32::NAN.to_le_bytes();

    fn dense<'a>(name: &'a str, data: &'a [u8]) -> VectorRef<'a> {
        let dim = data.len() as u32 / 4;
        VectorRef { name, model: Some("m"), dim, normalized: None, kind: VectorKind::Dense, indices: None, data }
    }

    fn batch(records: &[RecordRef<'_>]) -> RecordBatch {
        let mut builder = RecordBuilder::default();
        for r in records {
            builder.push(r).unwrap();
        }
        builder.finish().unwrap()
    }

    fn marked(records: &RecordBatch, migration: &str) -> RecordBatch {
        let view = RecordView::new(records).unwrap();
        let digests = digests(records).unwrap();
        let mut builder = RecordBuilder::default();
        for (mut r, digest) in view.iter().zip(digests) {
            r.marker_migration = Some(migration);
            r.marker_digest = Some(digest.to_be_bytes());
            builder.push(&r).unwrap();
        }
        builder.finish().unwrap()
    }

    fn memory<'a>(id: &'a str, vectors: &[VectorRef<'a>]) -> RecordRef<'a> {
        let mut r = RecordRef::new(Kind::Memory, id);
        r.texts[0] = Some("ann");
        r.texts[CONTENT] = Some("text");
        r.vectors = vectors.iter().copied().collect();
        r
    }

    fn intact(records: &RecordBatch) -> Vec<bool> {
        let digests = digests(records).unwrap();
        let view = RecordView::new(records).unwrap();
        view.iter().zip(digests).map(|(r, d)| r.marker_digest == Some(d.to_be_bytes())).collect()
    }

    #[test]
    fn what_is_split_is_joined_again_and_vectors_no_store_takes_stay() {
        let vectors = [dense("", &ONE), dense("t", &ONE), dense("nan", &NAN), dense("none", &[])];
        let mut noted = memory("c", &[dense("a", &ONE), dense("a", &ONE), dense("", &ONE), dense("default", &ONE)]);
        noted.extra = r#"{"$$vectors":["data"],"z":1}"#;
        let records = marked(&batch(&[memory("a", &[]), memory("b", &vectors), noted]), "m");
        let (rest, points) = split(&records).unwrap();
        assert_eq!(vec![true; 3], intact(&rest));
        assert_eq!(vec![true], intact(&points));
        let view = RecordView::new(&points).unwrap();
        assert_eq!(("b", 2, Some("ann"), None), {
            let p = view.get(0);
            (p.id, p.vectors.len(), p.texts[0], p.texts[CONTENT])
        });
        let (joined, torn) = join(&rest, &points, false).unwrap();
        assert_eq!(digests(&records).unwrap(), digests(&joined).unwrap());
        assert_eq!((vec![false; 3], vec![true; 3]), (torn, intact(&joined)));
        assert_eq!(vec![true], owned(&rest, &points).unwrap());
    }

    #[test]
    fn a_missing_or_changed_half_is_seen_and_a_newer_one_of_ours_is_not_a_change() {
        let records = marked(&batch(&[memory("a", &[dense("", &ONE)])]), "m");
        let (rest, points) = split(&records).unwrap();
        let none = batch(&[]);
        let (joined, torn) = join(&rest, &none, false).unwrap();
        assert_eq!((vec![true], vec![false]), (torn, intact(&joined)));

        let two = 2.0_f32.to_le_bytes();
        let newer = marked(&batch(&[memory("a", &[dense("", &two)])]), "m");
        let (_, newer) = split(&newer).unwrap();
        let (joined, torn) = join(&rest, &newer, false).unwrap();
        assert_eq!((vec![false], vec![true]), (torn, intact(&joined)));
        assert_ne!(digests(&records).unwrap(), digests(&joined).unwrap());

        let mut changed = RecordView::new(&points).unwrap().get(0);
        changed.vectors = Vectors::from_iter([dense("", &two)]);
        let (joined, _) = join(&rest, &batch(&[changed]), false).unwrap();
        assert_eq!(vec![false], intact(&joined));
    }

    #[test]
    fn the_scope_of_a_point_is_shown_where_it_is_asked_for() {
        let records = marked(&batch(&[memory("a", &[dense("", &ONE)]), memory("b", &[])]), "m");
        let (rest, points) = split(&records).unwrap();
        let (joined, _) = join(&rest, &points, true).unwrap();
        assert_eq!(digests(&records).unwrap(), digests(&joined).unwrap());

        let mut moved = RecordView::new(&points).unwrap().get(0);
        moved.texts[0] = Some("bob");
        let moved = batch(&[moved]);
        let (read, _) = join(&rest, &moved, false).unwrap();
        assert_eq!(digests(&records).unwrap(), digests(&read).unwrap());
        let (shown, _) = join(&rest, &moved, true).unwrap();
        assert_eq!(Some("bob"), RecordView::new(&shown).unwrap().get(0).texts[0]);
        assert_ne!(digests(&records).unwrap()[0], digests(&shown).unwrap()[0]);
        assert_eq!(digests(&records).unwrap()[1], digests(&shown).unwrap()[1]);
    }

    #[test]
    fn vectors_of_a_killed_migration_belong_to_no_record_of_others() {
        let theirs = batch(&[memory("a", &[])]);
        let (_, points) = split(&marked(&batch(&[memory("a", &[dense("", &ONE)])]), "m")).unwrap();
        let (joined, torn) = join(&theirs, &points, false).unwrap();
        assert_eq!(digests(&theirs).unwrap(), digests(&joined).unwrap());
        assert_eq!((vec![false], vec![false]), (torn, owned(&theirs, &points).unwrap()));
        let ours = marked(&theirs, "m");
        assert_eq!(vec![true], owned(&ours, &points).unwrap());
        assert_eq!(vec![false], owned(&batch(&[]), &points).unwrap());
    }
}
