//! Translation between the wire's types and the engine's: mechanical, because both families
//! come from one code base, and kept free of any decision about storage.

pub mod filter;
pub mod index;
pub mod payload;
pub mod points;
pub mod query;
pub mod records;
pub mod vectors;
