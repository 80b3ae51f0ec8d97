//! Records, digests, mapping and stores of memferry. No Python here; `memferry-py` binds this crate.

pub mod digest;
pub mod error;
pub mod record;
pub mod value;
