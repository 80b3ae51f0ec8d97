//! Records, digests, mapping and stores of memferry. No Python here; `memferry-py` binds this crate.

mod canonical;
pub mod digest;
pub mod embedded;
pub mod embedding;
pub mod error;
pub mod gaps;
pub mod gather;
pub mod halves;
mod hashes;
pub mod jsonl;
pub mod keys;
mod locks;
pub mod mapper;
pub mod profile;
pub mod qdrant;
pub mod raw;
pub mod record;
pub mod sync;
pub mod times;
pub mod transform;
pub mod value;
pub mod vectors;
pub mod verify;
