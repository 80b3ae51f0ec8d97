//! Vectors: both the deprecated flat fields and the newer oneof on input, only the oneof on
//! output, as the current real server does.
#![expect(deprecated, reason = "older clients still send the deprecated fields")]

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    SparseVector, TypedMultiDenseVector, VectorInternal, VectorPersisted, VectorStructInternal, VectorStructPersisted,
};

use crate::error::{Error, Result};

/// The vectors of one upserted point.
pub fn vectors_in(vectors: Option<pb::Vectors>) -> Result<VectorStructPersisted> {
    use pb::vectors::VectorsOptions;
    match vectors.and_then(|vectors| vectors.vectors_options) {
        None => Err(Error::malformed("Expected some vectors")),
        Some(VectorsOptions::Vector(vector)) => match vector_in(vector)? {
            VectorPersisted::Dense(dense) => Ok(VectorStructPersisted::Single(dense)),
            VectorPersisted::MultiDense(multi) => Ok(VectorStructPersisted::MultiDense(multi)),
            VectorPersisted::Sparse(_) => Err(Error::malformed("Sparse vector must be named")),
        },
        Some(VectorsOptions::Vectors(named)) => {
            let named: Result<_> =
                named.vectors.into_iter().map(|(name, vector)| Ok((name, vector_in(vector)?))).collect();
            Ok(VectorStructPersisted::Named(named?))
        }
    }
}

fn vector_in(vector: pb::Vector) -> Result<VectorPersisted> {
    use pb::vector::Vector;
    if let Some(vector) = vector.vector {
        return match vector {
            Vector::Dense(dense) => Ok(VectorPersisted::Dense(dense.data)),
            Vector::Sparse(sparse) => sparse_in(sparse.indices, sparse.values),
            Vector::MultiDense(multi) => multi_in(multi),
            Vector::Document(_) | Vector::Image(_) | Vector::Object(_) => {
                Err(Error::unimplemented("server-side inference"))
            }
        };
    }
    if let Some(indices) = vector.indices {
        return sparse_in(indices.data, vector.data);
    }
    match vector.vectors_count {
        None => Ok(VectorPersisted::Dense(vector.data)),
        Some(count) => {
            let count = count as usize;
            if count == 0 || vector.data.is_empty() || !vector.data.len().is_multiple_of(count) {
                return Err(Error::malformed(format!(
                    "Unable to convert to multi-dense vector: {} values in {count} vectors",
                    vector.data.len()
                )));
            }
            let dim = vector.data.len() / count;
            let rows = vector.data.chunks(dim).map(<[f32]>::to_vec).collect();
            Ok(VectorPersisted::MultiDense(rows))
        }
    }
}

fn sparse_in(indices: Vec<u32>, values: Vec<f32>) -> Result<VectorPersisted> {
    Ok(VectorPersisted::Sparse(sparse(indices, values)?))
}

fn multi_in(multi: pb::MultiDenseVector) -> Result<VectorPersisted> {
    let rows: Vec<Vec<f32>> = multi.vectors.into_iter().map(|row| row.data).collect();
    let dim = rows.first().map_or(0, Vec::len);
    if dim == 0 || rows.iter().any(|row| row.len() != dim) {
        return Err(Error::malformed(
            "Validation error in body: all vectors of a multi vector must be of one, non-zero size",
        ));
    }
    Ok(VectorPersisted::MultiDense(rows))
}

fn sparse(indices: Vec<u32>, values: Vec<f32>) -> Result<SparseVector> {
    SparseVector::new(indices, values)
        .map_err(|error| Error::malformed(format!("Validation error in body: [sparse vector: {error}]")))
}

/// The vector of a query; a point id is resolved by the caller.
pub fn query_vector_in(variant: pb::vector_input::Variant) -> Result<VectorInternal> {
    use pb::vector_input::Variant;
    match variant {
        Variant::Dense(dense) => Ok(VectorInternal::Dense(dense.data)),
        Variant::Sparse(vector) => Ok(VectorInternal::Sparse(sparse(vector.indices, vector.values)?)),
        Variant::MultiDense(multi) => {
            let rows = multi.vectors.into_iter().map(|row| row.data).collect();
            Ok(VectorInternal::MultiDense(TypedMultiDenseVector::try_from_matrix(rows)?))
        }
        Variant::Id(_) => Err(Error::Service("a point id is resolved by the caller".into())),
        Variant::Document(_) | Variant::Image(_) | Variant::Object(_) => {
            Err(Error::unimplemented("server-side inference"))
        }
    }
}

/// The query vector of the deprecated `Search` call.
pub fn search_vector_in(values: Vec<f32>, indices: Option<pb::SparseIndices>) -> Result<VectorInternal> {
    match indices {
        None => Ok(VectorInternal::Dense(values)),
        Some(indices) => Ok(VectorInternal::Sparse(sparse(indices.data, values)?)),
    }
}

/// The vectors of a point that is read.
pub fn vectors_out(vectors: VectorStructInternal) -> pb::VectorsOutput {
    use pb::vectors_output::VectorsOptions;
    let options = match vectors {
        VectorStructInternal::Single(dense) => VectorsOptions::Vector(vector_out(VectorInternal::Dense(dense))),
        VectorStructInternal::MultiDense(multi) => {
            VectorsOptions::Vector(vector_out(VectorInternal::MultiDense(multi)))
        }
        VectorStructInternal::Named(named) => VectorsOptions::Vectors(pb::NamedVectorsOutput {
            vectors: named.into_iter().map(|(name, vector)| (name, vector_out(vector))).collect(),
        }),
    };
    pb::VectorsOutput { vectors_options: Some(options) }
}

fn vector_out(vector: VectorInternal) -> pb::VectorOutput {
    use pb::vector_output::Vector;
    let vector = match vector {
        VectorInternal::Dense(data) => Vector::Dense(pb::DenseVector { data }),
        VectorInternal::Sparse(SparseVector { indices, values }) => {
            Vector::Sparse(pb::SparseVector { values, indices })
        }
        VectorInternal::MultiDense(multi) => {
            let rows = multi.flattened_vectors.chunks(multi.dim.max(1));
            Vector::MultiDense(pb::MultiDenseVector {
                vectors: rows.map(|row| pb::DenseVector { data: row.to_vec() }).collect(),
            })
        }
    };
    pb::VectorOutput { vector: Some(vector), ..Default::default() }
}

/// The vector called `name` ("" for the unnamed one) of a point that was read.
pub fn take_named(vectors: VectorStructInternal, name: &str) -> Option<VectorInternal> {
    match vectors {
        VectorStructInternal::Single(dense) if name.is_empty() => Some(VectorInternal::Dense(dense)),
        VectorStructInternal::MultiDense(multi) if name.is_empty() => Some(VectorInternal::MultiDense(multi)),
        VectorStructInternal::Named(mut named) => named.remove(name),
        _ => None,
    }
}
