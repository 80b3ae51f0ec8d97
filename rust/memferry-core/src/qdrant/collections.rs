//! Collections: what they are, making, tuning and dropping them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use qdrant_client::qdrant as pb;
use serde::{Deserialize, Serialize};

use super::{Client, Link};
use crate::error::{Code, Error, Result};

/// `indexing_threshold` in KiB of a server that was not configured otherwise.
const DEFAULT_INDEXING_THRESHOLD: u64 = 10_000;
const POLL: Duration = Duration::from_millis(200);

/// One vector of a collection: what [`Client::info`] tells and [`Client::create`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    /// Its name; empty for the one of a collection without names.
    pub name: String,
    /// `dense`, `sparse` or `multi`.
    pub kind: String,
    /// Numbers a row; 0 for sparse.
    #[serde(default)]
    pub dim: u64,
    /// `cosine`, `dot`, `euclid` or `manhattan`; sparse has none.
    #[serde(default)]
    pub distance: Option<String>,
    /// `float32`, `float16`, `uint8` and what newer servers have, by its number where it is unknown here; the server's
    /// default without it.
    #[serde(default)]
    pub datatype: Option<String>,
    /// `idf` for sparse vectors whose query weights the server makes.
    #[serde(default)]
    pub modifier: Option<String>,
}

/// HNSW settings of a collection, as far as the server tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hnsw {
    /// Edges a node.
    pub m: Option<u64>,
    /// Candidates while building.
    pub ef_construct: Option<u64>,
    /// KiB below which search is exact.
    pub full_scan_threshold: Option<u64>,
}

/// What is known of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CollectionInfo {
    /// Points; approximate on some servers, [`Client::count`] is exact.
    pub points_count: u64,
    /// Vectors in an index.
    pub indexed_vectors_count: u64,
    /// `green`, `yellow` (optimizing), `grey` (optimizing waits for a write) or `red`.
    pub status: String,
    /// What the optimizer complains about.
    pub optimizer_error: Option<String>,
    /// Its vectors by name.
    pub vectors: Vec<VectorSpec>,
    /// HNSW settings.
    pub hnsw: Hnsw,
    /// KiB of vectors in a segment from which it is indexed; 0 for never.
    pub indexing_threshold: Option<u64>,
    /// Whether vectors are also kept quantized.
    pub quantized: bool,
    /// Shards.
    pub shards: u32,
    /// Types of the payload indexes by field.
    pub payload_indexes: BTreeMap<String, String>,
}

const DISTANCES: [(&str, pb::Distance); 4] = [
    ("cosine", pb::Distance::Cosine),
    ("dot", pb::Distance::Dot),
    ("euclid", pb::Distance::Euclid),
    ("manhattan", pb::Distance::Manhattan),
];
const DATATYPES: [(&str, pb::Datatype); 6] = [
    ("float32", pb::Datatype::Float32),
    ("float16", pb::Datatype::Float16),
    ("uint8", pb::Datatype::Uint8),
    ("turbo4", pb::Datatype::Turbo4),
    ("turbo8", pb::Datatype::Turbo8),
    ("turbo16", pb::Datatype::Turbo16),
];
const FIELD_TYPES: [(&str, pb::FieldType); 8] = [
    ("keyword", pb::FieldType::Keyword),
    ("integer", pb::FieldType::Integer),
    ("float", pb::FieldType::Float),
    ("geo", pb::FieldType::Geo),
    ("text", pb::FieldType::Text),
    ("bool", pb::FieldType::Bool),
    ("datetime", pb::FieldType::Datetime),
    ("uuid", pb::FieldType::Uuid),
];

fn from_word<T: Copy>(table: &[(&str, T)], what: &str, word: &str) -> Result<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
        let allowed: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        Error::invalid(format!("{what} {word:?}, allowed: {}", allowed.join(", ")))
    })
}

fn to_word<T: Copy + Into<i32>>(table: &[(&str, T)], value: i32) -> Option<String> {
    table.iter().find(|(_, one)| (*one).into() == value).map(|(name, _)| (*name).to_owned())
}

fn vectors_to_wire(vectors: &[VectorSpec]) -> Result<(pb::VectorsConfig, Option<pb::SparseVectorConfig>)> {
    use pb::vectors_config::Config;
    let mut dense = HashMap::new();
    let mut sparse = HashMap::new();
    for v in vectors {
        let at = |e: Error| e.at(format!("vector {:?}", v.name));
        let datatype = v.datatype.as_deref().map(|word| from_word(&DATATYPES, "datatype", word)).transpose();
        let datatype = datatype.map_err(at)?.map(Into::into);
        if v.kind == "sparse" {
            let modifier = match v.modifier.as_deref() {
                None | Some("none") => None,
                Some("idf") => Some(pb::Modifier::Idf.into()),
                Some(other) => return Err(at(Error::invalid(format!("modifier {other:?}, allowed: idf, none")))),
            };
            let index = datatype.map(|_| pb::SparseIndexConfig { datatype, ..Default::default() });
            sparse.insert(v.name.clone(), pb::SparseVectorParams { index, modifier });
            continue;
        }
        let multivector_config = match v.kind.as_str() {
            "dense" => None,
            "multi" => Some(pb::MultiVectorConfig { comparator: pb::MultiVectorComparator::MaxSim.into() }),
            other => return Err(at(Error::invalid(format!("kind {other:?}, allowed: dense, sparse, multi")))),
        };
        let distance = from_word(&DISTANCES, "distance", v.distance.as_deref().unwrap_or_default()).map_err(at)?;
        let params = pb::VectorParams {
            size: v.dim,
            distance: distance.into(),
            datatype,
            multivector_config,
            ..Default::default()
        };
        dense.insert(v.name.clone(), params);
    }
    if dense.len() + sparse.len() != vectors.len() {
        return Err(Error::invalid("two vectors have one name"));
    }
    let config = match dense.remove("") {
        Some(only) if dense.is_empty() => Config::Params(only),
        Some(_) => return Err(Error::invalid("dense vectors with names beside one without")),
        None => Config::ParamsMap(pb::VectorParamsMap { map: dense }),
    };
    let sparse = (!sparse.is_empty()).then_some(pb::SparseVectorConfig { map: sparse });
    Ok((pb::VectorsConfig { config: Some(config) }, sparse))
}

fn vectors_from_wire(params: pb::CollectionParams) -> Vec<VectorSpec> {
    use pb::vectors_config::Config;
    let dense = match params.vectors_config.and_then(|config| config.config) {
        Some(Config::Params(only)) => HashMap::from([(String::new(), only)]),
        Some(Config::ParamsMap(named)) => named.map,
        None => HashMap::new(),
    };
    let datatype = |number: Option<i32>| {
        let number = number.filter(|number| *number != i32::from(pb::Datatype::Default))?;
        Some(to_word(&DATATYPES, number).unwrap_or_else(|| format!("type {number}")))
    };
    let mut vectors: Vec<VectorSpec> = dense
        .into_iter()
        .map(|(name, v)| VectorSpec {
            name,
            kind: if v.multivector_config.is_some() { "multi" } else { "dense" }.to_owned(),
            dim: v.size,
            distance: to_word(&DISTANCES, v.distance),
            datatype: datatype(v.datatype),
            modifier: None,
        })
        .collect();
    let sparse = params.sparse_vectors_config.unwrap_or_default().map;
    vectors.extend(sparse.into_iter().map(|(name, v)| VectorSpec {
        name,
        kind: "sparse".to_owned(),
        dim: 0,
        distance: None,
        datatype: datatype(v.index.and_then(|index| index.datatype)),
        modifier: (v.modifier == Some(pb::Modifier::Idf.into())).then(|| "idf".to_owned()),
    }));
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    vectors
}

fn info_from_wire(info: pb::CollectionInfo) -> CollectionInfo {
    let status = match pb::CollectionStatus::try_from(info.status) {
        Ok(pb::CollectionStatus::Green) => "green",
        Ok(pb::CollectionStatus::Yellow) => "yellow",
        Ok(pb::CollectionStatus::Grey) => "grey",
        Ok(pb::CollectionStatus::Red) => "red",
        _ => "unknown",
    };
    let config = info.config.unwrap_or_default();
    let hnsw = config.hnsw_config.unwrap_or_default();
    let params = config.params.unwrap_or_default();
    let index = |schema: &pb::PayloadSchemaInfo| {
        pb::PayloadSchemaType::try_from(schema.data_type).map_or("unknown", |t| t.as_str_name()).to_lowercase()
    };
    CollectionInfo {
        points_count: info.points_count.unwrap_or_default(),
        indexed_vectors_count: info.indexed_vectors_count.unwrap_or_default(),
        status: status.to_owned(),
        optimizer_error: info.optimizer_status.map(|status| status.error).filter(|error| !error.is_empty()),
        hnsw: Hnsw { m: hnsw.m, ef_construct: hnsw.ef_construct, full_scan_threshold: hnsw.full_scan_threshold },
        indexing_threshold: config.optimizer_config.and_then(|optimizers| optimizers.indexing_threshold),
        quantized: config.quantization_config.is_some_and(|config| config.quantization.is_some()),
        shards: params.shard_number,
        payload_indexes: info.payload_schema.iter().map(|(field, schema)| (field.clone(), index(schema))).collect(),
        vectors: vectors_from_wire(params),
    }
}

impl Link {
    async fn info(&self, name: &str) -> Result<CollectionInfo> {
        let request = pb::GetCollectionInfoRequest { collection_name: name.to_owned() };
        let answer = self.call(&format!("collection {name}"), self.collections().get(request)).await?;
        Ok(info_from_wire(answer.result.unwrap_or_default()))
    }

    async fn update(&self, name: &str, indexing_threshold: Option<u64>) -> Result<()> {
        let optimizers_config = Some(pb::OptimizersConfigDiff { indexing_threshold, ..Default::default() });
        let request =
            pb::UpdateCollection { collection_name: name.to_owned(), optimizers_config, ..Default::default() };
        let what = format!("update of collection {name}");
        let answer = self.call(&what, Box::pin(self.collections().update(request))).await?;
        self.done(&what, answer.result)
    }

    fn done(&self, what: &str, done: bool) -> Result<()> {
        if done { Ok(()) } else { Err(Error::new(Code::Refused, format!("{} {what}: not done", self.url))) }
    }
}

impl Client {
    /// Whether there is a collection or an alias `name`.
    pub fn exists(&self, name: &str) -> Result<bool> {
        self.runtime.block_on(self.is_there(name))
    }

    async fn is_there(&self, name: &str) -> Result<bool> {
        let request = pb::CollectionExistsRequest { collection_name: name.to_owned() };
        let what = format!("collection {name}");
        let answer = self.link.call(&what, self.link.collections().collection_exists(request)).await?;
        Ok(answer.result.is_some_and(|result| result.exists))
    }

    /// Names of all collections, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        self.runtime.block_on(async {
            let answer =
                self.link.call("collections", self.link.collections().list(pb::ListCollectionsRequest {})).await?;
            let mut names: Vec<String> = answer.collections.into_iter().map(|one| one.name).collect();
            names.sort();
            Ok(names)
        })
    }

    /// What is known of a collection.
    pub fn info(&self, name: &str) -> Result<CollectionInfo> {
        self.runtime.block_on(self.link.info(name))
    }

    /// Makes a collection and, if `deferred_index`, sets its `indexing_threshold` to 0; returns what it was before.
    ///
    /// The threshold and not `m = 0`: it is one number that no vector overrides, and it leaves the index's own
    /// settings as they will be, so a collection that a kill left behind shows its true configuration and needs one
    /// number to be right again.
    pub fn create(&self, name: &str, vectors: &[VectorSpec], deferred_index: bool) -> Result<Option<u64>> {
        let (vectors, sparse_vectors_config) = vectors_to_wire(vectors)?;
        let request = pb::CreateCollection {
            collection_name: name.to_owned(),
            vectors_config: Some(vectors),
            sparse_vectors_config,
            ..Default::default()
        };
        self.runtime.block_on(async {
            let what = format!("making collection {name}");
            match self.link.call(&what, Box::pin(self.link.collections().create(request))).await {
                Ok(answer) => self.link.done(&what, answer.result)?,
                // Asked for by a process that was killed before the answer, most likely.
                Err(e) if !self.is_there(name).await? => return Err(e),
                Err(_) => {}
            }
            if !deferred_index {
                return Ok(None);
            }
            let before = self.link.info(name).await?.indexing_threshold;
            self.link.update(name, Some(0)).await?;
            Ok(before)
        })
    }

    /// Sets `indexing_threshold` in KiB, 0 for no index; `None` for the documented default of servers.
    pub fn set_indexing_threshold(&self, name: &str, threshold: Option<u64>) -> Result<()> {
        self.runtime.block_on(self.link.update(name, Some(threshold.unwrap_or(DEFAULT_INDEXING_THRESHOLD))))
    }

    /// Deletes a collection; whether there was one.
    pub fn delete_collection(&self, name: &str) -> Result<bool> {
        self.runtime.block_on(async {
            let request = pb::DeleteCollection { collection_name: name.to_owned(), timeout: None };
            let what = format!("deleting collection {name}");
            match self.link.call(&what, self.link.collections().delete(request)).await {
                Ok(answer) => Ok(answer.result),
                Err(e) if e.code == Code::StoreMissing => Ok(false),
                Err(e) => Err(e),
            }
        })
    }

    /// Makes an index on a payload field and waits for it; there is no harm in asking twice.
    pub fn create_payload_index(&self, name: &str, field: &str, field_type: &str) -> Result<()> {
        let field_type = from_word(&FIELD_TYPES, "index type", field_type)?;
        self.runtime.block_on(async {
            let request = pb::CreateFieldIndexCollection {
                collection_name: name.to_owned(),
                wait: Some(true),
                field_name: field.to_owned(),
                field_type: Some(field_type.into()),
                ..Default::default()
            };
            let what = format!("index on {field} of collection {name}");
            self.link.call(&what, self.link.points().create_field_index(request)).await.map(drop)
        })
    }

    /// Waits until a collection is optimized; whether it was within `deadline`. Trouble on the server is an error.
    pub fn wait_green(&self, name: &str, deadline: Duration) -> Result<bool> {
        let end = Instant::now() + deadline;
        self.runtime.block_on(async {
            loop {
                let info = self.link.info(name).await?;
                match info.status.as_str() {
                    "green" => return Ok(true),
                    "red" => {
                        let why = info.optimizer_error.unwrap_or_else(|| "status red".to_owned());
                        return Err(Error::new(Code::Refused, format!("{} collection {name}: {why}", self.link.url)));
                    }
                    // After a restart the server waits for any update before it goes on optimizing.
                    "grey" => self.link.update(name, None).await?,
                    _ => {}
                }
                if Instant::now() + POLL > end {
                    return Ok(false);
                }
                tokio::time::sleep(POLL).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn spec(json: &str) -> Vec<VectorSpec> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_told_can_be_made_again() {
        for json in [
            "[]",
            r#"[{"name":"","kind":"dense","dim":4,"distance":"cosine"}]"#,
            r#"[{"name":"","kind":"multi","dim":4,"distance":"dot","datatype":"float16"},
                {"name":"s","kind":"sparse","modifier":"idf","datatype":"uint8"}]"#,
            r#"[{"name":"a","kind":"dense","dim":2,"distance":"euclid"},
                {"name":"b","kind":"multi","dim":3,"distance":"manhattan","datatype":"uint8"},
                {"name":"c","kind":"sparse"}]"#,
        ] {
            let (vectors, sparse_vectors_config) = vectors_to_wire(&spec(json)).unwrap();
            let params =
                pb::CollectionParams { vectors_config: Some(vectors), sparse_vectors_config, ..Default::default() };
            assert_eq!(spec(json), vectors_from_wire(params));
        }
    }

    #[test]
    fn bad_specifications_are_refused() {
        for json in [
            r#"[{"name":"a","kind":"dense","dim":4}]"#,
            r#"[{"name":"a","kind":"thick","dim":4,"distance":"dot"}]"#,
            r#"[{"name":"a","kind":"dense","dim":4,"distance":"dot","datatype":"float8"}]"#,
            r#"[{"name":"a","kind":"sparse"},{"name":"a","kind":"sparse"}]"#,
            r#"[{"name":"","kind":"dense","dim":4,"distance":"dot"},{"name":"a","kind":"dense","dim":4,"distance":"dot"}]"#,
        ] {
            assert!(vectors_to_wire(&spec(json)).is_err(), "{json}");
        }
    }
}
