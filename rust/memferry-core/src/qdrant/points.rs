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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use qdrant_client::qdrant as pb;

    const POINTS: u32 = 3;

    fn le(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|f| f.to_le_bytes()).collect()
    }

    fn numbers(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn dense<'a>(name: &'a str, data: &'a [u8]) -> VectorRef<'a> {
        VectorRef {
            name,
            model: None,
            dim: (data.len() / 4) as u32,
            normalized: None,
            kind: VectorKind::Dense,
            indices: None,
            data,
        }
    }

    /// The points that the official types read of the rows of a batch, each alone in its request.
    fn written(batch: &arrow_array::RecordBatch) -> Vec<std::result::Result<pb::PointStruct, String>> {
        let view = RawView::new(batch).unwrap();
        let mut writer = PointWriter::default();
        let write = |row| {
            let mut request = Vec::new();
            writer.write(&view, row, POINTS, &mut request)?;
            Ok(pb::UpsertPoints::decode(&*request).unwrap().points.remove(0))
        };
        (0..view.len()).map(write).collect()
    }

    /// A vector as the official types have it.
    fn official(v: &VectorRef<'_>) -> pb::Vector {
        use pb::vector::Vector;
        let vector = match v.kind {
            VectorKind::Dense => Vector::Dense(pb::DenseVector { data: numbers(v.data) }),
            VectorKind::Sparse => Vector::Sparse(pb::SparseVector {
                values: numbers(v.data),
                indices: v.indices.unwrap().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
            }),
            VectorKind::Multi => Vector::MultiDense(pb::MultiDenseVector {
                vectors: v.data.chunks(v.dim as usize * 4).map(|row| pb::DenseVector { data: numbers(row) }).collect(),
            }),
        };
        pb::Vector { vector: Some(vector), ..Default::default() }
    }

    fn answered(vector: pb::Vector) -> pb::VectorOutput {
        use pb::{vector::Vector as In, vector_output::Vector as Out};
        let vector = match vector.vector.unwrap() {
            In::Dense(v) => Out::Dense(v),
            In::Sparse(v) => Out::Sparse(v),
            In::MultiDense(v) => Out::MultiDense(v),
            _ => unreachable!(),
        };
        pb::VectorOutput { vector: Some(vector), ..Default::default() }
    }

    /// The batch that is read of an answer with this point.
    fn read_back(point: pb::PointStruct) -> arrow_array::RecordBatch {
        use pb::{vectors::VectorsOptions as In, vectors_output::VectorsOptions as Out};
        let options = match point.vectors.unwrap().vectors_options.unwrap() {
            In::Vector(one) => Out::Vector(answered(one)),
            In::Vectors(named) => Out::Vectors(pb::NamedVectorsOutput {
                vectors: named.vectors.into_iter().map(|(name, v)| (name, answered(v))).collect(),
            }),
        };
        let retrieved = pb::RetrievedPoint {
            id: point.id,
            payload: point.payload,
            vectors: Some(pb::VectorsOutput { vectors_options: Some(options) }),
            ..Default::default()
        };
        let bytes = retrieved.encode_to_vec();
        let point = PointRef::read(&bytes).unwrap();
        let mut reader = PointReader::default();
        reader.push(point.id().unwrap(), point).unwrap();
        reader.rows.finish().unwrap()
    }

    fn bits(vector: &pb::Vector) -> Vec<Vec<u32>> {
        use pb::vector::Vector;
        let of = |floats: &[f32]| floats.iter().map(|f| f.to_bits()).collect();
        match vector.vector.as_ref().unwrap() {
            Vector::Dense(v) => vec![of(&v.data)],
            Vector::Sparse(v) => vec![of(&v.values), v.indices.clone()],
            Vector::MultiDense(v) => v.vectors.iter().map(|row| of(&row.data)).collect(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn all_kinds_of_vectors_travel_unchanged() {
        let odd = le(&[-0.0, f32::NAN, f32::INFINITY, f32::from_bits(1), 0.1, f32::from_bits(0xffc0_1234)]);
        let indices: Vec<u8> = [7_u32, 1, u32::MAX].iter().flat_map(|i| i.to_le_bytes()).collect();
        let multi = VectorRef { kind: VectorKind::Multi, dim: 3, ..dense("multi", &odd) };
        let sparse =
            VectorRef { kind: VectorKind::Sparse, dim: 0, indices: Some(&indices), ..dense("sparse", &odd[..12]) };
        for vectors in [
            vec![],
            vec![dense("", &odd)],
            vec![VectorRef { name: "", ..multi }],
            vec![dense("", &odd), multi, sparse],
            vec![dense("a", &odd), dense("b", &odd[..4])],
            vec![dense("empty", &[])],
        ] {
            let mut builder = RawBuilder::default();
            builder.push("17", b"{\"a\":1}", &vectors);
            let batch = builder.finish().unwrap();
            let point = written(&batch).remove(0).unwrap();
            match point.vectors.as_ref().unwrap().vectors_options.as_ref().unwrap() {
                pb::vectors::VectorsOptions::Vector(one) => assert_eq!(bits(&official(&vectors[0])), bits(one)),
                pb::vectors::VectorsOptions::Vectors(named) => {
                    assert_eq!(vectors.len(), named.vectors.len());
                    for v in &vectors {
                        assert_eq!(bits(&official(v)), bits(&named.vectors[v.name]));
                    }
                }
            }
            assert_eq!(batch, read_back(point));
        }
    }

    #[test]
    #[expect(deprecated, reason = "older servers know nothing else")]
    fn flat_answers_of_older_servers_are_read() {
        let kind = |old: &pb::VectorOutput| Numbers::read(&old.encode_to_vec()).map(|n| (n.kind, n.dim, n.data.len()));
        let mut old = pb::VectorOutput { data: vec![1.0, 2.0, 3.0, 4.0], ..Default::default() };
        assert_eq!((VectorKind::Dense, 4, 16), kind(&old).unwrap());
        old.vectors_count = Some(2);
        assert_eq!((VectorKind::Multi, 2, 16), kind(&old).unwrap());
        old.vectors_count = Some(3);
        assert!(kind(&old).is_err());
        old.indices = Some(pb::SparseIndices { data: vec![1, 2, 3, u32::MAX] });
        assert_eq!((VectorKind::Sparse, 0, 16), kind(&old).unwrap());
    }

    #[test]
    fn rows_of_a_multi_vector_are_of_one_length() {
        for rows in [vec![], vec![vec![]], vec![vec![1.0], vec![1.0, 2.0]]] {
            let vectors = rows.into_iter().map(|data| pb::DenseVector { data }).collect();
            let multi = pb::vector_output::Vector::MultiDense(pb::MultiDenseVector { vectors });
            let output = pb::VectorOutput { vector: Some(multi), ..Default::default() };
            assert_eq!(Some(Code::StoreFormat), Numbers::read(&output.encode_to_vec()).err().map(|e| e.code));
        }
    }

    #[test]
    fn bad_rows_say_why() {
        let numbers = le(&[1.0, 2.0]);
        let wrong = VectorRef { dim: 3, ..dense("a", &numbers) };
        let mut builder = RawBuilder::default();
        builder.push("no id", b"{}", &[]);
        builder.push("1", b"{\"a\":{\"$bytes\":\"\"}}", &[]);
        builder.push("1", b"{}", &[wrong]);
        builder.push("1", b"{}", &[dense("a", &numbers), dense("a", &numbers)]);
        for (row, point) in written(&builder.finish().unwrap()).into_iter().enumerate() {
            assert!(point.is_err(), "{row}");
        }
    }

    #[test]
    fn points_without_an_id_are_refused() {
        let point = pb::RetrievedPoint::default().encode_to_vec();
        assert_eq!(Code::StoreFormat, PointRef::read(&point).unwrap().id().unwrap_err().code);
    }

    proptest! {
        #[test]
        fn points_travel_unchanged(
            number: Option<u64>,
            uuid: u128,
            name in ".*",
            floats in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..300),
        ) {
            let key = number.map_or_else(|| uuid::Uuid::from_u128(uuid).to_string(), |number| number.to_string());
            let data = le(&floats);
            let mut builder = RawBuilder::default();
            builder.push(&key, b"{\"a\":[1.5,{\"b\":null}]}", &[dense(&name, &data)]);
            let batch = builder.finish().unwrap();
            prop_assert_eq!(&batch, &read_back(written(&batch).remove(0).unwrap()));
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(point) = PointRef::read(&bytes)
                && let Ok(id) = point.id()
            {
                let _ = PointReader::default().push(id, point);
            }
        }
    }
}
