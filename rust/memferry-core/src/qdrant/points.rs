//! Points: rows of a raw batch to the messages of the wire and back.

use qdrant_client::qdrant as pb;
use smallvec::SmallVec;

use super::key::Key;
use super::payload;
use crate::error::{Code, Error, Result};
use crate::raw::{RawBuilder, RawView};
use crate::record::{VectorKind, VectorRef, Vectors};

/// One row as a point; why not, if the wire or the server has no place for it.
pub fn point(raw: &RawView<'_>, row: usize) -> std::result::Result<pb::PointStruct, String> {
    let id = Key::parse(raw.key(row)).map_err(|e| e.message)?;
    let payload = payload::from_body(raw.body(row))?;
    let vectors = vectors(&raw.vectors(row))?;
    Ok(pb::PointStruct { id: Some(id.to_wire()), payload, vectors: Some(vectors) })
}

fn vectors(vectors: &Vectors<'_>) -> std::result::Result<pb::Vectors, String> {
    use pb::vectors::VectorsOptions;
    let options = match vectors.as_slice() {
        // The only vector of a collection without names; beside named ones its name is empty on the wire too.
        [only] if only.name.is_empty() => VectorsOptions::Vector(vector(only)?),
        several => {
            let mut named = pb::NamedVectors::default();
            for one in several {
                if named.vectors.insert(one.name.to_owned(), vector(one)?).is_some() {
                    return Err(format!("vector {:?} is given twice", one.name));
                }
            }
            VectorsOptions::Vectors(named)
        }
    };
    Ok(pb::Vectors { vectors_options: Some(options) })
}

fn vector(v: &VectorRef<'_>) -> std::result::Result<pb::Vector, String> {
    use pb::vector::Vector;
    v.check().map_err(|e| e.message)?;
    let vector = match v.kind {
        VectorKind::Dense => Vector::Dense(pb::DenseVector { data: floats(v.data) }),
        VectorKind::Sparse => Vector::Sparse(pb::SparseVector {
            values: floats(v.data),
            indices: numbers(v.indices.unwrap_or_default()).into_iter().map(u32::from_le).collect(),
        }),
        VectorKind::Multi => {
            let rows = v.data.chunks_exact(v.dim as usize * 4);
            Vector::MultiDense(pb::MultiDenseVector {
                vectors: rows.map(|row| pb::DenseVector { data: floats(row) }).collect(),
            })
        }
    };
    Ok(pb::Vector { vector: Some(vector), ..Default::default() })
}

/// Little-endian bytes as numbers, in one copy.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let mut floats: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
    if cfg!(target_endian = "big") {
        for float in &mut floats {
            *float = f32::from_bits(float.to_bits().swap_bytes());
        }
    }
    floats
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Numbers as little-endian bytes; borrowed where the machine is little-endian.
fn bytes(floats: &[f32]) -> std::borrow::Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(floats).into()
    } else {
        floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>().into()
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
    pub fn push(&mut self, id: Key, point: &pb::RetrievedPoint) -> Result<()> {
        use pb::vectors_output::VectorsOptions;
        use std::fmt::Write as _;
        self.key.clear();
        write!(self.key, "{id}").unwrap_or_default();
        self.body.clear();
        payload::write_body(&point.payload, &mut self.body);
        let mut named: SmallVec<[(&str, &pb::VectorOutput); 4]> = SmallVec::new();
        match point.vectors.as_ref().and_then(|v| v.vectors_options.as_ref()) {
            None => {}
            Some(VectorsOptions::Vector(one)) => named.push(("", one)),
            Some(VectorsOptions::Vectors(map)) => {
                named.extend(map.vectors.iter().map(|(name, vector)| (name.as_str(), vector)));
                named.sort_unstable_by_key(|(name, _)| *name);
            }
        }
        let numbers = named
            .iter()
            .map(|(name, vector)| Numbers::of(vector).map_err(|e| e.at(format!("point {id}, vector {name:?}"))))
            .collect::<Result<SmallVec<[_; 4]>>>()?;
        let vectors: Vectors<'_> =
            named.iter().zip(&numbers).map(|((name, _), numbers)| numbers.vector(name)).collect();
        self.rows.push(&self.key, self.body.as_bytes(), &vectors);
        Ok(())
    }
}

/// Numbers of a vector that was read, as bytes.
struct Numbers<'a> {
    kind: VectorKind,
    dim: u32,
    indices: Option<Vec<u8>>,
    data: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Numbers<'a> {
    fn of(vector: &'a pb::VectorOutput) -> Result<Self> {
        use pb::vector_output::Vector;
        match &vector.vector {
            Some(Vector::Dense(dense)) => Ok(Self::dense(&dense.data)),
            Some(Vector::Sparse(sparse)) => Ok(Self::sparse(&sparse.indices, &sparse.values)),
            Some(Vector::MultiDense(multi)) => {
                let dim = multi.vectors.first().map_or(0, |row| row.data.len());
                if dim == 0 || multi.vectors.iter().any(|row| row.data.len() != dim) {
                    return Err(Error::new(Code::StoreFormat, "rows of a multi vector differ in length"));
                }
                let data: Vec<u8> = multi.vectors.iter().flat_map(|row| bytes(&row.data).into_owned()).collect();
                Ok(Self { kind: VectorKind::Multi, dim: dim as u32, indices: None, data: data.into() })
            }
            None => Self::flat(vector),
        }
    }

    /// As servers before 1.16 answer.
    #[expect(deprecated, reason = "older servers know nothing else")]
    fn flat(vector: &'a pb::VectorOutput) -> Result<Self> {
        match (&vector.indices, vector.vectors_count) {
            (Some(indices), _) => Ok(Self::sparse(&indices.data, &vector.data)),
            (None, None) => Ok(Self::dense(&vector.data)),
            (None, Some(rows)) => {
                let rows = rows as usize;
                if rows == 0 || vector.data.is_empty() || !vector.data.len().is_multiple_of(rows) {
                    return Err(Error::new(Code::StoreFormat, "rows of a multi vector differ in length"));
                }
                let dim = (vector.data.len() / rows) as u32;
                Ok(Self { kind: VectorKind::Multi, dim, ..Self::dense(&vector.data) })
            }
        }
    }

    fn dense(data: &'a [f32]) -> Self {
        Self { kind: VectorKind::Dense, dim: data.len() as u32, indices: None, data: bytes(data) }
    }

    fn sparse(indices: &[u32], values: &'a [f32]) -> Self {
        let indices = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
        Self { kind: VectorKind::Sparse, dim: 0, indices: Some(indices), data: bytes(values) }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn le(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|f| f.to_le_bytes()).collect()
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

    fn output(vector: pb::Vector) -> pb::VectorOutput {
        use pb::{vector::Vector as In, vector_output::Vector as Out};
        let vector = match vector.vector.unwrap() {
            In::Dense(v) => Out::Dense(v),
            In::Sparse(v) => Out::Sparse(v),
            In::MultiDense(v) => Out::MultiDense(v),
            _ => unreachable!(),
        };
        pb::VectorOutput { vector: Some(vector), ..Default::default() }
    }

    fn read_back(point: pb::PointStruct) -> arrow_array::RecordBatch {
        use pb::{vectors::VectorsOptions as In, vectors_output::VectorsOptions as Out};
        let options = match point.vectors.unwrap().vectors_options.unwrap() {
            In::Vector(one) => Out::Vector(output(one)),
            In::Vectors(named) => Out::Vectors(pb::NamedVectorsOutput {
                vectors: named.vectors.into_iter().map(|(name, v)| (name, output(v))).collect(),
            }),
        };
        let retrieved = pb::RetrievedPoint {
            id: point.id,
            payload: point.payload,
            vectors: Some(pb::VectorsOutput { vectors_options: Some(options) }),
            ..Default::default()
        };
        let mut reader = PointReader::default();
        reader.push(Key::from_wire(retrieved.id.as_ref()).unwrap(), &retrieved).unwrap();
        reader.rows.finish().unwrap()
    }

    #[test]
    fn all_kinds_of_vectors_travel_unchanged() {
        let odd = le(&[-0.0, f32::NAN, f32::INFINITY, f32::from_bits(1), 0.1, 2.0]);
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
        ] {
            let mut builder = RawBuilder::default();
            builder.push("17", b"{\"a\":1}", &vectors);
            let batch = builder.finish().unwrap();
            let point = point(&RawView::new(&batch).unwrap(), 0).unwrap();
            assert_eq!(batch, read_back(point));
        }
    }

    #[test]
    #[expect(deprecated, reason = "older servers know nothing else")]
    fn flat_answers_of_older_servers_are_read() {
        let mut old = pb::VectorOutput { data: vec![1.0, 2.0, 3.0, 4.0], ..Default::default() };
        assert_eq!((VectorKind::Dense, 4), Numbers::of(&old).map(|n| (n.kind, n.dim)).unwrap());
        old.vectors_count = Some(2);
        assert_eq!((VectorKind::Multi, 2), Numbers::of(&old).map(|n| (n.kind, n.dim)).unwrap());
        old.vectors_count = Some(3);
        assert!(Numbers::of(&old).is_err());
        old.indices = Some(pb::SparseIndices { data: vec![1, 2, 3, 4] });
        assert_eq!((VectorKind::Sparse, 0), Numbers::of(&old).map(|n| (n.kind, n.dim)).unwrap());
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
        let batch = builder.finish().unwrap();
        let view = RawView::new(&batch).unwrap();
        for row in 0..view.len() {
            assert!(point(&view, row).is_err(), "{row}");
        }
    }
}
