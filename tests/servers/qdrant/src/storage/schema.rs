//! Checks that the vectors of a whole request fit their collection before anything is logged:
//! one bad point rejects the request, and the log never holds an operation that cannot apply.

use std::collections::HashMap;

use qdrant_edge::{
    EdgeConfig, OperationError, PointInsertOperations, PointOperations, UpdateOperation, VectorOperations,
    VectorPersisted, VectorStructPersisted,
};

use crate::error::{Error, Result};

enum Kind {
    Dense(usize),
    Multi(usize),
    Sparse,
}

/// The vectors of a collection, by name; the unnamed one is "".
pub struct Schema(HashMap<String, Kind>);

/// A borrowed vector of an operation.
enum Given<'a> {
    Dense(&'a [f32]),
    Multi(&'a [Vec<f32>]),
    Sparse,
}

impl Schema {
    pub fn new(config: &EdgeConfig) -> Self {
        let dense = config.vectors.iter().map(|(name, params)| {
            let kind = match params.multivector_config {
                None => Kind::Dense(params.size),
                Some(_) => Kind::Multi(params.size),
            };
            (name.clone(), kind)
        });
        let sparse = config.sparse_vectors.keys().map(|name| (name.clone(), Kind::Sparse));
        Self(dense.chain(sparse).collect())
    }

    /// Fails on the first vector that the collection cannot hold.
    pub fn check(&self, operation: &UpdateOperation) -> Result<()> {
        match operation {
            UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)) => self.check_points(points),
            UpdateOperation::PointOperation(PointOperations::UpsertPointsConditional(upsert)) => {
                self.check_points(&upsert.points_op)
            }
            UpdateOperation::VectorOperation(VectorOperations::UpdateVectors(update)) => {
                update.points.iter().try_for_each(|point| self.check_vectors(&point.vector))
            }
            UpdateOperation::VectorOperation(
                VectorOperations::DeleteVectors(_, names) | VectorOperations::DeleteVectorsByFilter(_, names),
            ) => names.iter().try_for_each(|name| self.kind(name).map(|_| ())),
            _ => Ok(()),
        }
    }

    fn check_points(&self, points: &PointInsertOperations) -> Result<()> {
        match points {
            PointInsertOperations::PointsList(points) => {
                points.iter().try_for_each(|point| self.check_vectors(&point.vector))
            }
            // The wire has no batch form, so this server never makes one.
            PointInsertOperations::PointsBatch(_) => Ok(()),
        }
    }

    fn check_vectors(&self, vectors: &VectorStructPersisted) -> Result<()> {
        match vectors {
            VectorStructPersisted::Single(dense) => self.check_one("", &Given::Dense(dense)),
            VectorStructPersisted::MultiDense(rows) => self.check_one("", &Given::Multi(rows)),
            VectorStructPersisted::Named(named) => named.iter().try_for_each(|(name, vector)| match vector {
                VectorPersisted::Dense(dense) => self.check_one(name, &Given::Dense(dense)),
                VectorPersisted::MultiDense(rows) => self.check_one(name, &Given::Multi(rows)),
                VectorPersisted::Sparse(_) => self.check_one(name, &Given::Sparse),
            }),
        }
    }

    fn kind(&self, name: &str) -> Result<&Kind> {
        self.0
            .get(name)
            .ok_or_else(|| Error::from(OperationError::VectorNameNotExists { received_name: name.to_owned() }))
    }

    fn check_one(&self, name: &str, given: &Given) -> Result<()> {
        let fits = |expected: usize, received: usize| {
            if expected == received {
                return Ok(());
            }
            Err(Error::from(OperationError::WrongVectorDimension { expected_dim: expected, received_dim: received }))
        };
        match (self.kind(name)?, given) {
            (Kind::Dense(dim) | Kind::Multi(dim), Given::Dense(vector)) => fits(*dim, vector.len()),
            (Kind::Multi(dim), Given::Multi(rows)) => rows.iter().try_for_each(|row| fits(*dim, row.len())),
            (Kind::Dense(_) | Kind::Sparse, Given::Multi(_)) => Err(OperationError::WrongMulti.into()),
            (Kind::Sparse, Given::Sparse) => Ok(()),
            (Kind::Sparse, Given::Dense(_)) | (Kind::Dense(_) | Kind::Multi(_), Given::Sparse) => {
                Err(OperationError::WrongSparse.into())
            }
        }
    }
}
