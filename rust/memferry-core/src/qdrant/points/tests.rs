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
    let sparse = VectorRef { kind: VectorKind::Sparse, dim: 0, indices: Some(&indices), ..dense("sparse", &odd[..12]) };
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
