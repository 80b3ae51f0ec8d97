//! The direct way: tables in which every value has one place of its own are run over canonical text without a value in
//! between. What they say is what the long way (`encode`, `decode`) says; whatever it does not know (a field that nobody
//! mapped, a value of another type, text that is not canonical) goes the long way.

mod read;
#[cfg(test)]
mod tests;
mod write;

use jiter::{Jiter, Peek};

use crate::gaps::meet;
use crate::profile::{ExtraPlace, IdRule, KindMap, Profile, Target, VectorsPlace};
use crate::record::{Kind, VectorRef};
use crate::value::write_text;

pub(super) use read::Found;
use read::Reader;
use write::Writer;
pub(super) use write::Written;

/// The one shape that all tables of a profile have.
pub(super) struct Direct {
    members: Vec<Member>,
    /// Constants of each table, in the order of their places.
    selects: Vec<(Kind, Vec<String>)>,
    /// Deepest nesting of a body.
    depth: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Member {
    key: String,
    /// The key as canonical text, with the colon.
    head: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Object(Vec<Member>),
    /// Index of the constant.
    Select(usize),
    Id,
    Field(Target),
    /// The unmapped fields, as the text of an object or as the object.
    Extra {
        text: bool,
    },
    Notes,
    Marker,
}

impl Direct {
    /// The shape of a profile's tables, if they have one and it can go the direct way.
    pub(super) fn of(profile: &Profile, depth: usize) -> Option<Self> {
        let mut members: Option<Vec<Member>> = None;
        let mut selects = Vec::new();
        for map in &profile.kinds {
            let shape = shape(map)?;
            if *members.get_or_insert_with(|| shape.clone()) != shape {
                return None;
            }
            selects.push((map.kind, map.select.iter().map(|select| select.equals.clone()).collect()));
        }
        Some(Self { members: members?, selects, depth })
    }

    /// Appends the body of a record; `None` where it has to go the long way, and then anything may have been appended.
    pub(super) fn write(&self, written: &Written<'_, '_>, out: &mut String) -> Option<()> {
        let r = written.record;
        if meet(&r.vectors, VectorRef::stored_name) {
            return None;
        }
        let (_, constants) = self.selects.iter().find(|(kind, _)| *kind == r.kind)?;
        Writer { written, constants, depth: self.depth }.object(&self.members, 1, out)
    }

    /// Reads a body; the kind, or `None` where it has to go the long way.
    pub(super) fn read(&self, body: &[u8], found: &mut Found) -> Option<Kind> {
        found.clear();
        let mut json = Jiter::new(body);
        if json.peek().ok()? != Peek::Object {
            return None;
        }
        let depth = self.depth;
        Reader { json: &mut json, body, found, depth }.object(&self.members, 1)?;
        json.finish().ok()?;
        let given = |constants: &[String]| {
            let got = found.selects.iter().map(|piece| piece.map(|piece| found.text(piece)));
            constants.iter().map(|wanted| Some(wanted.as_str())).eq(got)
        };
        self.selects.iter().find(|(_, constants)| given(constants)).map(|(kind, _)| *kind)
    }
}

/// The shape of one table, if it can go the direct way.
fn shape(map: &KindMap) -> Option<Vec<Member>> {
    let plain = map.explode.is_none() && map.fill.is_empty() && !map.fixed;
    if !plain {
        return None;
    }
    let mut members = Vec::new();
    for (i, select) in map.select.iter().enumerate() {
        add(&mut members, select.path.keys(), Place::Select(i))?;
    }
    match &map.id {
        IdRule::PathOrKey(path) => add(&mut members, path.keys(), Place::Id)?,
        IdRule::Key => {}
        IdRule::Path(_) | IdRule::Join(_) => return None,
    }
    for field in &map.fields {
        add(&mut members, field.path.keys(), Place::Field(field.target))?;
    }
    match &map.extra {
        ExtraPlace::Object(path) => add(&mut members, path.keys(), Place::Extra { text: false })?,
        ExtraPlace::Text(path) => add(&mut members, path.keys(), Place::Extra { text: true })?,
        ExtraPlace::Flat => return None,
    }
    match &map.vectors {
        VectorsPlace::StoreWithMeta(path) => add(&mut members, path.keys(), Place::Notes)?,
        VectorsPlace::Store | VectorsPlace::None => {}
        VectorsPlace::Objects(_) | VectorsPlace::Floats(_) => return None,
    }
    if let Some(path) = &map.marker {
        add(&mut members, path.keys(), Place::Marker)?;
    }
    Some(members)
}

fn add(members: &mut Vec<Member>, keys: &[String], place: Place) -> Option<()> {
    let (first, rest) = keys.split_first()?;
    let found = members.binary_search_by(|member| member.key.cmp(first));
    if rest.is_empty() {
        let i = found.err()?;
        members.insert(i, Member::new(first, place));
        return Some(());
    }
    let i = found.unwrap_or_else(|i| {
        members.insert(i, Member::new(first, Place::Object(Vec::new())));
        i
    });
    let Place::Object(inner) = &mut members[i].place else { return None };
    add(inner, rest, place)
}

impl Member {
    fn new(key: &str, place: Place) -> Self {
        let mut head = String::new();
        write_text(key, &mut head);
        head.push(':');
        Self { key: key.to_owned(), head, place }
    }
}
