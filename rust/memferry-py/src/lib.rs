//! Python bindings of memferry-core: conversions, detaching, error mapping. The stub is `python/memferry/_native.pyi`.

#![deny(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "arguments come from Python as owned values")]

mod batch;
mod embedded;
mod embedding;
mod error;
mod gather;
mod halves;
mod jsonl;
mod mapper;
mod qdrant;
mod transform;
mod verify;

#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::embedded::EmbeddedStore;
    #[pymodule_export]
    use crate::embedding::{Embedding, EmbeddingCache, text_key};
    #[pymodule_export]
    use crate::error::error_codes;
    #[pymodule_export]
    use crate::gather::{Spill, gathered};
    #[pymodule_export]
    use crate::halves::{join_halves, owned_points, split_halves};
    #[pymodule_export]
    use crate::jsonl::{JsonlIndex, JsonlPart, JsonlReader, jsonl_align, jsonl_concatenate};
    #[pymodule_export]
    use crate::mapper::{Mapper, gap_names, store_keys};
    #[pymodule_export]
    use crate::qdrant::{
        QdrantStore, QdrantTicket, give_up_vectors, normalize_vectors, qdrant_given_back, qdrant_to_come_back,
        vectors_not_finite,
    };
    #[pymodule_export]
    use crate::transform::{DedupKeys, Sample, Transform, check_mapping, check_where};
    #[pymodule_export]
    use crate::verify::{Buckets, Drill, Keys, blake3_hex, classify, diff, standings};
}
