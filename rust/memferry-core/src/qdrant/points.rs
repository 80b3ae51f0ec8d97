//! Points: rows of a raw batch to the bytes of the wire and back. Numbers of vectors are little-endian on both sides,
//! so they are copied as they are.

use std::borrow::Cow;
use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::key::Key;
use super::payload::{self, Entries};
use super::wire::{self, Field};
use crate::error::{Code, Error, Result};
use crate::raw::{RawBuilder, RawView};
use crate::record::{VectorKind, VectorRef, Vectors};

/// Fields of a point, written and read.
mod point {
    pub const ID: u32 = 1;
    pub const PAYLOAD_WRITTEN: u32 = 3;
    pub const PAYLOAD_READ: u32 = 2;
    pub const VECTORS: u32 = 4;
}
/// Fields of `Vectors` and `VectorsOutput`.
mod vectors {
    pub const ONLY: u32 = 1;
    pub const NAMED: u32 = 2;
    /// Of the message that is `NAMED`.
    pub const ENTRIES: u32 = 1;
    pub const NAME: u32 = 1;
    pub const VECTOR: u32 = 2;
}
/// Fields of `Vector` and `VectorOutput`; what servers before 1.16 answer is flat.
mod vector {
    pub const FLAT_NUMBERS: u32 = 1;
    pub const FLAT_INDICES: u32 = 2;
    pub const FLAT_ROWS: u32 = 3;
    pub const DENSE: u32 = 101;
    pub const SPARSE: u32 = 102;
    pub const MULTI: u32 = 103;
    /// Of the messages that are `DENSE`, `SPARSE` and `FLAT_INDICES`.
    pub const NUMBERS: u32 = 1;
    pub const INDICES: u32 = 2;
    /// Of the message that is `MULTI`.
    pub const ROWS: u32 = 1;
}

/// Writes points. Its buffer is kept from point to point.
#[derive(Default)]
pub struct PointWriter {
    head: Vec<u8>,
}

impl PointWriter {
    /// Appends a row as `field` of a message; why not, if the wire or the server has no place for it. `out` is then as
    /// it was.
    pub fn write(
        &mut self,
        raw: &RawView<'_>,
        row: usize,
        field: u32,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        let id = Key::parse(raw.key(row)).map_err(|e| e.message)?;
        self.head(id, raw.body(row))?;
        let vectors = raw.vectors(row);
        check(&vectors)?;
        self.put(field, &vectors, out);
        Ok(())
    }

    /// Appends a point without vectors.
    pub fn write_document(
        &mut self,
        id: Key,
        body: &[u8],
        field: u32,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        self.head(id, body)?;
        self.put(field, &[], out);
        Ok(())
    }

    fn head(&mut self, id: Key, body: &[u8]) -> std::result::Result<(), String> {
        self.head.clear();
        id.write(point::ID, &mut self.head);
        payload::write(body, point::PAYLOAD_WRITTEN, &mut self.head)
    }

    fn put(&self, field: u32, vectors: &[VectorRef<'_>], out: &mut Vec<u8>) {
        let numbers: usize = vectors.iter().map(|v| v.data.len()).sum();
        let point = wire::begin_message(out, field, self.head.len() + numbers);
        out.extend_from_slice(&self.head);
        let all = wire::begin_message(out, point::VECTORS, numbers);
        match vectors {
            // The only vector of a collection without names; beside named ones its name is empty on the wire too.
            [only] if only.name.is_empty() => put_vector(vectors::ONLY, only, out),
            several => {
                let named = wire::begin_message(out, vectors::NAMED, numbers);
                for one in several {
                    let entry = wire::begin_message(out, vectors::ENTRIES, one.data.len());
                    wire::put_bytes(out, vectors::NAME, one.name.as_bytes());
                    put_vector(vectors::VECTOR, one, out);
                    wire::end_message(out, &entry);
                }
                wire::end_message(out, &named);
            }
        }
        wire::end_message(out, &all);
        wire::end_message(out, &point);
    }
}

/// Whether vectors are what they say and no two have one name.
fn check(vectors: &[VectorRef<'_>]) -> std::result::Result<(), String> {
    for (i, one) in vectors.iter().enumerate() {
        one.check().map_err(|e| e.message)?;
        if vectors[..i].iter().any(|other| other.name == one.name) {
            return Err(format!("vector {:?} is given twice", one.name));
        }
    }
    Ok(())
}

fn put_vector(field: u32, v: &VectorRef<'_>, out: &mut Vec<u8>) {
    let open = wire::begin_message(out, field, v.data.len());
    match v.kind {
        VectorKind::Dense => {
            wire::put_len(out, vector::DENSE, wire::field_len(vector::NUMBERS, v.data.len()));
            wire::put_bytes(out, vector::NUMBERS, v.data);
        }
        VectorKind::Sparse => {
            let sparse = wire::begin_message(out, vector::SPARSE, v.data.len());
            wire::put_bytes(out, vector::NUMBERS, v.data);
            let indices = wire::begin_message(out, vector::INDICES, v.data.len());
            for index in v.indices.unwrap_or_default().as_chunks::<4>().0 {
                wire::put_varint(out, u32::from_le_bytes(*index).into());
            }
            wire::end_message(out, &indices);
            wire::end_message(out, &sparse);
        }
        VectorKind::Multi => {
            let multi = wire::begin_message(out, vector::MULTI, v.data.len());
            for row in v.data.chunks_exact(v.dim as usize * 4) {
                wire::put_len(out, vector::ROWS, wire::field_len(vector::NUMBERS, row.len()));
                wire::put_bytes(out, vector::NUMBERS, row);
            }
            wire::end_message(out, &multi);
        }
    }
    wire::end_message(out, &open);
}

/// A point of an answer, still encoded.
#[derive(Default)]
pub struct PointRef<'a> {
    id: Option<Key>,
    payload: Entries<'a>,
    vectors: &'a [u8],
}

impl<'a> PointRef<'a> {
    /// Finds its parts.
    pub fn read(message: &'a [u8]) -> Result<Self> {
        let mut found = Self::default();
        wire::fields(message, |number, field| {
            match number {
                point::ID => found.id = Some(Key::read(field.bytes()?)?),
                point::PAYLOAD_READ => found.payload.push(field.bytes()?)?,
                point::VECTORS => found.vectors = field.bytes()?,
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Its id.
    pub fn id(&self) -> Result<Key> {
        self.id.ok_or_else(|| Error::new(Code::StoreFormat, "a point without an id"))
    }
}

/// Appends points to a raw batch.
#[derive(Default)]
pub struct PointReader {
    /// What was read so far.
    pub rows: RawBuilder,
    body: String,
    key: String,
}

impl PointReader {
    /// Appends one point. Vectors are in the order of their names.
    pub fn push(&mut self, id: Key, point: PointRef<'_>) -> Result<()> {
        use std::fmt::Write as _;
        self.key.clear();
        write!(self.key, "{id}").unwrap_or_default();
        self.body.clear();
        point.payload.write(&mut self.body)?;
        let named = named_vectors(point.vectors).map_err(|e| e.at(format!("point {id}")))?;
        let vectors: Vectors<'_> = named.iter().map(|(name, numbers)| numbers.vector(name)).collect();
        self.rows.push(&self.key, self.body.as_bytes(), &vectors);
        Ok(())
    }
}

type Named<'a> = SmallVec<[(&'a str, Numbers<'a>); 2]>;

fn named_vectors(message: &[u8]) -> Result<Named<'_>> {
    let mut named = Named::new();
    wire::fields(message, |number, field| {
        match number {
            vectors::ONLY => {
                named.clear();
                named.push(("", Numbers::read(field.bytes()?).map_err(|e| e.at("vector \"\""))?));
            }
            vectors::NAMED => {
                wire::fields(field.bytes()?, |number, field| {
                    if number == vectors::ENTRIES {
                        named.push(named_vector(field.bytes()?)?);
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    named.sort_by_key(|(name, _)| *name);
    Ok(named)
}

fn named_vector(entry: &[u8]) -> Result<(&str, Numbers<'_>)> {
    let (mut name, mut vector) = ("", &[][..]);
    wire::fields(entry, |number, field| {
        match number {
            vectors::NAME => name = field.text()?,
            vectors::VECTOR => vector = field.bytes()?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((name, Numbers::read(vector).map_err(|e| e.at(format!("vector {name:?}")))?))
}

/// Numbers of a vector that was read, as bytes.
struct Numbers<'a> {
    kind: VectorKind,
    dim: u32,
    indices: Option<Vec<u8>>,
    data: Cow<'a, [u8]>,
}

impl<'a> Numbers<'a> {
    fn read(message: &'a [u8]) -> Result<Self> {
        let mut found = None;
        let (mut flat, mut flat_indices, mut flat_rows) = (Packed::default(), None, None);
        wire::fields(message, |number, field| {
            match number {
                vector::DENSE => found = Some(Self::dense(floats(field.bytes()?)?)),
                vector::SPARSE => found = Some(Self::sparse(field.bytes()?)?),
                vector::MULTI => found = Some(Self::multi(field.bytes()?)?),
                vector::FLAT_NUMBERS => flat.push(field)?,
                vector::FLAT_INDICES => flat_indices = Some(indices(field.bytes()?, vector::NUMBERS)?),
                vector::FLAT_ROWS => flat_rows = Some(field.number()? as usize),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        found.map_or_else(|| Self::flat(flat.done()?, flat_indices, flat_rows), Ok)
    }

    fn dense(data: Cow<'a, [u8]>) -> Self {
        Self { kind: VectorKind::Dense, dim: (data.len() / 4) as u32, indices: None, data }
    }

    fn sparse(message: &'a [u8]) -> Result<Self> {
        let indices = indices(message, vector::INDICES)?;
        Ok(Self { kind: VectorKind::Sparse, dim: 0, indices: Some(indices), data: floats(message)? })
    }

    fn multi(message: &'a [u8]) -> Result<Self> {
        let (mut dim, mut data) = (None, Vec::new());
        wire::fields(message, |number, field| {
            if number == vector::ROWS {
                let row = floats(field.bytes()?)?;
                if row.is_empty() || *dim.get_or_insert(row.len()) != row.len() {
                    return Err(uneven());
                }
                data.extend_from_slice(&row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let dim = dim.ok_or_else(uneven)? as u32 / 4;
        Ok(Self { kind: VectorKind::Multi, dim, indices: None, data: data.into() })
    }

    /// As servers before 1.16 answer.
    fn flat(data: Cow<'a, [u8]>, indices: Option<Vec<u8>>, rows: Option<usize>) -> Result<Self> {
        match (indices, rows) {
            (indices @ Some(_), _) => Ok(Self { kind: VectorKind::Sparse, dim: 0, indices, data }),
            (None, None) => Ok(Self::dense(data)),
            (None, Some(rows)) => {
                if rows == 0 || data.is_empty() || !data.len().is_multiple_of(rows * 4) {
                    return Err(uneven());
                }
                let dim = (data.len() / 4 / rows) as u32;
                Ok(Self { kind: VectorKind::Multi, dim, indices: None, data })
            }
        }
    }

    fn vector<'n>(&'n self, name: &'n str) -> VectorRef<'n> {
        VectorRef {
            name,
            model: None,
            dim: self.dim,
            normalized: None,
            kind: self.kind,
            indices: self.indices.as_deref(),
            data: &self.data,
        }
    }
}

fn uneven() -> Error {
    Error::new(Code::StoreFormat, "rows of a multi vector differ in length")
}

/// The numbers of a list of `f32`, which may come in one piece, in several, or one by one.
#[derive(Default)]
struct Packed<'a>(Cow<'a, [u8]>);

impl<'a> Packed<'a> {
    fn push(&mut self, field: Field<'a>) -> Result<()> {
        match field {
            Field::Bytes(bytes) if self.0.is_empty() => self.0 = bytes.into(),
            Field::Bytes(bytes) => self.0.to_mut().extend_from_slice(bytes),
            Field::Four(bytes) => self.0.to_mut().extend_from_slice(bytes),
            Field::Number(_) | Field::Eight(_) => {
                return Err(Error::new(Code::StoreFormat, "numbers of a vector that are none"));
            }
        }
        Ok(())
    }

    fn done(self) -> Result<Cow<'a, [u8]>> {
        if self.0.len().is_multiple_of(4) {
            return Ok(self.0);
        }
        Err(Error::new(Code::StoreFormat, "numbers of a vector that are cut"))
    }
}

/// The numbers of a dense or a sparse vector.
fn floats(message: &[u8]) -> Result<Cow<'_, [u8]>> {
    let mut packed = Packed::default();
    wire::fields(message, |number, field| {
        if number == vector::NUMBERS {
            packed.push(field)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    packed.done()
}

/// Indices, which the field `wanted` has, as little-endian bytes.
fn indices(message: &[u8], wanted: u32) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    wire::fields(message, |number, field| {
        if number == wanted {
            let mut push = |index: u64| found.extend_from_slice(&(index as u32).to_le_bytes());
            match field {
                Field::Number(index) => push(index),
                field => wire::numbers(field.bytes()?, push)?,
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests;
