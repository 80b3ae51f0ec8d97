//! A collection's configuration: what a client reads back, and what the engine is told.
//!
//! The wire's own `CollectionConfig` message is what is stored, with the real server's defaults
//! filled in, so that a client can read a setting, change it and put it back.
#![expect(deprecated, reason = "clients still send `on_disk`")]

use std::collections::HashMap;

use qdrant_client::qdrant as pb;
use qdrant_edge::{
    Distance, EdgeConfig, EdgeOptimizersConfig, EdgeSparseVectorParams, EdgeVectorParams, HnswIndexConfig, Modifier,
    MultiVectorConfig, VectorStorageDatatype,
};

use super::quantization::quantization_in;
use crate::convert::index::on_disk;
use crate::error::{Error, Result};

/// `flush_interval_sec` of the real server's default configuration.
pub const DEFAULT_FLUSH_SECS: u64 = 5;

/// The configuration of a new collection.
pub fn from_create(request: pb::CreateCollection) -> Result<pb::CollectionConfig> {
    if request.shard_number.unwrap_or(1) != 1 {
        return Err(Error::unimplemented("more than one shard"));
    }
    if request.sharding_method.unwrap_or_default() != pb::ShardingMethod::Auto as i32 {
        return Err(Error::unimplemented("custom sharding"));
    }
    let strict = request.strict_mode_config;
    if strict.as_ref().and_then(|strict| strict.enabled) == Some(true) {
        return Err(Error::unimplemented("strict mode"));
    }
    let mut config = pb::CollectionConfig {
        params: Some(pb::CollectionParams {
            shard_number: 1,
            on_disk_payload: request.on_disk_payload.unwrap_or(true),
            vectors_config: Some(request.vectors_config.unwrap_or(pb::VectorsConfig {
                config: Some(pb::vectors_config::Config::ParamsMap(pb::VectorParamsMap::default())),
            })),
            replication_factor: Some(request.replication_factor.unwrap_or(1)),
            write_consistency_factor: Some(request.write_consistency_factor.unwrap_or(1)),
            sparse_vectors_config: request.sparse_vectors_config,
            payload: request.payload,
            id_tracker: request.id_tracker,
            ..Default::default()
        }),
        hnsw_config: Some(default_hnsw()),
        optimizer_config: Some(default_optimizers()),
        wal_config: Some(pb::WalConfigDiff {
            wal_capacity_mb: Some(32),
            wal_segments_ahead: Some(0),
            wal_retain_closed: Some(1),
        }),
        quantization_config: request.quantization_config,
        strict_mode_config: strict,
        metadata: request.metadata,
    };
    merge_hnsw(config.hnsw_config.get_or_insert_default(), request.hnsw_config);
    merge_optimizers(config.optimizer_config.get_or_insert_default(), request.optimizers_config)?;
    if let (Some(wal), Some(diff)) = (&mut config.wal_config, request.wal_config) {
        wal.wal_capacity_mb = diff.wal_capacity_mb.or(wal.wal_capacity_mb);
        wal.wal_segments_ahead = diff.wal_segments_ahead.or(wal.wal_segments_ahead);
        wal.wal_retain_closed = diff.wal_retain_closed.or(wal.wal_retain_closed);
    }
    engine_config(&config)?;
    Ok(config)
}

/// Applies an update; what the engine cannot change on a living collection is refused.
pub fn apply_update(config: &mut pb::CollectionConfig, request: pb::UpdateCollection) -> Result<()> {
    if request.quantization_config.is_some() {
        return Err(Error::unimplemented("changes of the quantization"));
    }
    if request.sparse_vectors_config.is_some() {
        return Err(Error::unimplemented("changes of sparse vector parameters"));
    }
    if request.strict_mode_config.is_some_and(|strict| strict.enabled == Some(true)) {
        return Err(Error::unimplemented("strict mode"));
    }
    merge_hnsw(config.hnsw_config.get_or_insert_default(), request.hnsw_config);
    merge_optimizers(config.optimizer_config.get_or_insert_default(), request.optimizers_config)?;
    let params = config.params.get_or_insert_default();
    if let Some(diff) = request.params {
        if diff.on_disk_payload.is_some() || diff.payload.is_some() || diff.id_tracker.is_some() {
            return Err(Error::unimplemented("changes of where data is kept"));
        }
        params.replication_factor = diff.replication_factor.or(params.replication_factor);
        params.write_consistency_factor = diff.write_consistency_factor.or(params.write_consistency_factor);
        params.read_fan_out_factor = diff.read_fan_out_factor.or(params.read_fan_out_factor);
        params.read_fan_out_delay_ms = diff.read_fan_out_delay_ms.or(params.read_fan_out_delay_ms);
    }
    if let Some(diff) = request.vectors_config.and_then(|diff| diff.config) {
        merge_vectors(params.vectors_config.get_or_insert_default(), diff)?;
    }
    config.metadata.extend(request.metadata);
    engine_config(config)?;
    Ok(())
}

fn merge_vectors(config: &mut pb::VectorsConfig, diff: pb::vectors_config_diff::Config) -> Result<()> {
    use pb::{vectors_config::Config, vectors_config_diff::Config as Diff};
    let diffs = match diff {
        Diff::Params(diff) => HashMap::from([(String::new(), diff)]),
        Diff::ParamsMap(diffs) => diffs.map,
    };
    for (name, diff) in diffs {
        let params = match &mut config.config {
            Some(Config::Params(params)) if name.is_empty() => Some(params),
            Some(Config::ParamsMap(map)) => map.map.get_mut(&name),
            _ => None,
        };
        let Some(params) = params else {
            return Err(Error::bad_input(format!("Not existing vector name error: {name}")));
        };
        if diff.quantization_config.is_some() || diff.on_disk.is_some() || diff.memory.is_some() {
            return Err(Error::unimplemented("changes of a vector's quantization or placement"));
        }
        if diff.hnsw_config.is_some() {
            merge_hnsw(params.hnsw_config.get_or_insert_default(), diff.hnsw_config);
        }
    }
    Ok(())
}

fn default_hnsw() -> pb::HnswConfigDiff {
    pb::HnswConfigDiff {
        m: Some(16),
        ef_construct: Some(100),
        full_scan_threshold: Some(10_000),
        max_indexing_threads: Some(0),
        on_disk: Some(false),
        ..Default::default()
    }
}

fn default_optimizers() -> pb::OptimizersConfigDiff {
    pb::OptimizersConfigDiff {
        deleted_threshold: Some(0.2),
        vacuum_min_vector_number: Some(1000),
        default_segment_number: Some(0),
        indexing_threshold: Some(10_000),
        flush_interval_sec: Some(DEFAULT_FLUSH_SECS),
        ..Default::default()
    }
}

fn merge_hnsw(config: &mut pb::HnswConfigDiff, diff: Option<pb::HnswConfigDiff>) {
    let Some(diff) = diff else { return };
    config.m = diff.m.or(config.m);
    config.ef_construct = diff.ef_construct.or(config.ef_construct);
    config.full_scan_threshold = diff.full_scan_threshold.or(config.full_scan_threshold);
    config.max_indexing_threads = diff.max_indexing_threads.or(config.max_indexing_threads);
    config.on_disk = diff.on_disk.or(config.on_disk);
    config.payload_m = diff.payload_m.or(config.payload_m);
    config.inline_storage = diff.inline_storage.or(config.inline_storage);
    config.memory = diff.memory.or(config.memory);
}

fn merge_optimizers(config: &mut pb::OptimizersConfigDiff, diff: Option<pb::OptimizersConfigDiff>) -> Result<()> {
    let Some(diff) = diff else { return Ok(()) };
    if diff.prevent_unoptimized == Some(true) {
        return Err(Error::unimplemented("prevent_unoptimized"));
    }
    config.deleted_threshold = diff.deleted_threshold.or(config.deleted_threshold);
    config.vacuum_min_vector_number = diff.vacuum_min_vector_number.or(config.vacuum_min_vector_number);
    config.default_segment_number = diff.default_segment_number.or(config.default_segment_number);
    config.max_segment_size = diff.max_segment_size.or(config.max_segment_size);
    config.memmap_threshold = diff.memmap_threshold.or(config.memmap_threshold);
    config.indexing_threshold = diff.indexing_threshold.or(config.indexing_threshold);
    config.flush_interval_sec = diff.flush_interval_sec.or(config.flush_interval_sec);
    config.deprecated_max_optimization_threads =
        diff.deprecated_max_optimization_threads.or(config.deprecated_max_optimization_threads);
    config.max_optimization_threads = diff.max_optimization_threads.or(config.max_optimization_threads);
    config.prevent_unoptimized = diff.prevent_unoptimized.or(config.prevent_unoptimized);
    Ok(())
}

/// Whether the client switched optimization off by `max_optimization_threads: 0`.
pub fn optimizers_disabled(config: &pb::CollectionConfig) -> bool {
    use pb::max_optimization_threads::Variant;
    let Some(config) = &config.optimizer_config else {
        return false;
    };
    let newer = config.max_optimization_threads.as_ref().and_then(|threads| threads.variant);
    matches!(newer, Some(Variant::Value(0)))
        || (newer.is_none() && config.deprecated_max_optimization_threads == Some(0))
}

/// The engine's configuration. Fails on what the engine of this version does not know.
pub fn engine_config(config: &pb::CollectionConfig) -> Result<EdgeConfig> {
    use pb::vectors_config::Config;
    let params = config.params.clone().unwrap_or_default();
    let hnsw = hnsw_in(config.hnsw_config.as_ref());
    let vectors = match params.vectors_config.and_then(|vectors| vectors.config) {
        Some(Config::Params(params)) => HashMap::from([(String::new(), params)]),
        Some(Config::ParamsMap(map)) => map.map,
        None => HashMap::new(),
    };
    let vectors: Result<HashMap<_, _>> =
        vectors.into_iter().map(|(name, params)| Ok((name, vector_in(params, &hnsw)?))).collect();
    let vectors = vectors?;
    let sparse = params.sparse_vectors_config.unwrap_or_default().map;
    let sparse: Result<HashMap<_, _>> =
        sparse.into_iter().map(|(name, params)| Ok((name, sparse_in(&params)?))).collect();
    let sparse = sparse?;
    if let Some(name) = vectors.keys().find(|name| sparse.contains_key(*name)) {
        return Err(Error::bad_input(format!(
            "Dense and sparse vector names must be unique - duplicate found with '{name}'"
        )));
    }
    Ok(EdgeConfig {
        on_disk_payload: params.on_disk_payload,
        vectors,
        sparse_vectors: sparse,
        hnsw_config: hnsw,
        quantization_config: config.quantization_config.map(quantization_in).transpose()?,
        optimizers: optimizers_in(config),
        wal_options: None,
    })
}

pub fn optimizers_in(config: &pb::CollectionConfig) -> EdgeOptimizersConfig {
    let optimizers = config.optimizer_config.unwrap_or_default();
    EdgeOptimizersConfig {
        deleted_threshold: optimizers.deleted_threshold,
        vacuum_min_vector_number: optimizers.vacuum_min_vector_number.map(|n| n as usize),
        default_segment_number: optimizers.default_segment_number.map(|n| n as usize),
        max_segment_size: optimizers.max_segment_size.map(|n| n as usize),
        indexing_threshold: optimizers.indexing_threshold.map(|n| n as usize),
        prevent_unoptimized: None,
    }
}

fn hnsw_in(diff: Option<&pb::HnswConfigDiff>) -> HnswIndexConfig {
    let mut full = default_hnsw();
    merge_hnsw(&mut full, diff.copied());
    HnswIndexConfig {
        m: full.m.unwrap_or(16) as usize,
        ef_construct: full.ef_construct.unwrap_or(100) as usize,
        full_scan_threshold: full.full_scan_threshold.unwrap_or(10_000) as usize,
        max_indexing_threads: full.max_indexing_threads.unwrap_or(0) as usize,
        on_disk: on_disk(full.on_disk, full.memory),
        payload_m: full.payload_m.map(|m| m as usize),
        inline_storage: full.inline_storage,
    }
}

fn vector_in(params: pb::VectorParams, global: &HnswIndexConfig) -> Result<EdgeVectorParams> {
    let distance = match pb::Distance::try_from(params.distance) {
        Ok(pb::Distance::Cosine) => Distance::Cosine,
        Ok(pb::Distance::Euclid) => Distance::Euclid,
        Ok(pb::Distance::Dot) => Distance::Dot,
        Ok(pb::Distance::Manhattan) => Distance::Manhattan,
        _ => return Err(Error::malformed("Unknown distance")),
    };
    if !(1..=65_536).contains(&params.size) {
        return Err(Error::malformed(format!(
            "Validation error in body: [vectors.size: value {} invalid, must be from 1 to 65536]",
            params.size
        )));
    }
    let hnsw_config = params.hnsw_config.map(|diff| HnswIndexConfig {
        m: diff.m.map_or(global.m, |n| n as usize),
        ef_construct: diff.ef_construct.map_or(global.ef_construct, |n| n as usize),
        full_scan_threshold: diff.full_scan_threshold.map_or(global.full_scan_threshold, |n| n as usize),
        max_indexing_threads: diff.max_indexing_threads.map_or(global.max_indexing_threads, |n| n as usize),
        on_disk: on_disk(diff.on_disk, diff.memory).or(global.on_disk),
        payload_m: diff.payload_m.map(|n| n as usize).or(global.payload_m),
        inline_storage: diff.inline_storage.or(global.inline_storage),
    });
    Ok(EdgeVectorParams {
        size: params.size as usize,
        distance,
        on_disk: on_disk(params.on_disk, params.memory),
        multivector_config: params.multivector_config.map(|_| MultiVectorConfig::default()),
        datatype: datatype_in(params.datatype)?,
        quantization_config: params.quantization_config.map(quantization_in).transpose()?,
        hnsw_config,
    })
}

fn sparse_in(params: &pb::SparseVectorParams) -> Result<EdgeSparseVectorParams> {
    let index = params.index.unwrap_or_default();
    Ok(EdgeSparseVectorParams {
        full_scan_threshold: index.full_scan_threshold.map(|n| n as usize),
        on_disk: on_disk(index.on_disk, index.memory),
        modifier: match params.modifier.map(pb::Modifier::try_from) {
            Some(Ok(pb::Modifier::Idf)) => Some(Modifier::Idf),
            Some(Ok(pb::Modifier::None)) => Some(Modifier::None),
            Some(Err(_)) => return Err(Error::malformed("Unknown modifier")),
            None => None,
        },
        datatype: datatype_in(index.datatype)?,
    })
}

fn datatype_in(datatype: Option<i32>) -> Result<Option<VectorStorageDatatype>> {
    match datatype.map(pb::Datatype::try_from) {
        None | Some(Ok(pb::Datatype::Default)) => Ok(None),
        Some(Ok(pb::Datatype::Float32)) => Ok(Some(VectorStorageDatatype::Float32)),
        Some(Ok(pb::Datatype::Float16)) => Ok(Some(VectorStorageDatatype::Float16)),
        Some(Ok(pb::Datatype::Uint8)) => Ok(Some(VectorStorageDatatype::Uint8)),
        Some(_) => Err(Error::unimplemented("turbo vector datatypes")),
    }
}
