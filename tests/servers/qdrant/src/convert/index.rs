//! Payload index schemas, through JSON: the engine's own field names are the REST names, so a
//! JSON object in between replaces eight pairs of nearly equal conversions.
#![expect(deprecated, reason = "`on_disk` is what the engine of this version knows")]

use qdrant_client::qdrant as pb;
use qdrant_edge::{PayloadFieldSchema, PayloadIndexInfo};
use serde_json::{Map, Value as Json, json};

use crate::error::{Error, Result};

/// The schema of a `CreateFieldIndex` request.
pub fn schema_in(
    field_type: Option<i32>,
    params: Option<pb::PayloadIndexParams>,
) -> Result<Option<PayloadFieldSchema>> {
    let json = match params.and_then(|params| params.index_params) {
        Some(params) => params_in(params)?,
        None => match field_type {
            None => return Ok(None),
            Some(kind) => {
                let kind = pb::FieldType::try_from(kind)
                    .map_err(|_| Error::malformed(format!("Unknown field type: {kind}")))?;
                Json::String(kind.as_str_name().trim_start_matches("FieldType").to_lowercase())
            }
        },
    };
    serde_json::from_value(json)
        .map(Some)
        .map_err(|error| Error::malformed(format!("Malformed payload index schema: {error}")))
}

fn params_in(params: pb::payload_index_params::IndexParams) -> Result<Json> {
    use pb::payload_index_params::IndexParams;
    let not_nested = |nested: Option<String>| match nested {
        None => Ok(()),
        Some(_) => Err(Error::unimplemented("nested payload indexes")),
    };
    let json = match params {
        IndexParams::KeywordIndexParams(p) => {
            not_nested(p.nested)?;
            if p.prefix.is_some() {
                return Err(Error::unimplemented("prefix keyword indexes"));
            }
            json!({"type": "keyword", "is_tenant": p.is_tenant,
                "on_disk": on_disk(p.on_disk, p.memory), "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::IntegerIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "integer", "lookup": p.lookup, "range": p.range,
                "is_principal": p.is_principal,
                "on_disk": on_disk(p.on_disk, p.memory), "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::FloatIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "float", "is_principal": p.is_principal,
                "on_disk": on_disk(p.on_disk, p.memory), "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::GeoIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "geo", "on_disk": on_disk(p.on_disk, p.memory),
                "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::BoolIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "bool", "on_disk": on_disk(p.on_disk, p.memory),
                "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::DatetimeIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "datetime", "is_principal": p.is_principal,
                "on_disk": on_disk(p.on_disk, p.memory), "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::UuidIndexParams(p) => {
            not_nested(p.nested)?;
            json!({"type": "uuid", "is_tenant": p.is_tenant,
                "on_disk": on_disk(p.on_disk, p.memory), "enable_hnsw": p.enable_hnsw})
        }
        IndexParams::TextIndexParams(p) => {
            not_nested(p.nested.clone())?;
            text_in(p)?
        }
    };
    Ok(without_nulls(json))
}

fn text_in(params: pb::TextIndexParams) -> Result<Json> {
    use pb::stemming_algorithm::StemmingParams;
    let tokenizer = match pb::TokenizerType::try_from(params.tokenizer) {
        Ok(pb::TokenizerType::Prefix) => "prefix",
        Ok(pb::TokenizerType::Whitespace) => "whitespace",
        Ok(pb::TokenizerType::Unknown | pb::TokenizerType::Word) => "word",
        Ok(pb::TokenizerType::Multilingual) => "multilingual",
        _ => return Err(Error::unimplemented("this text tokenizer")),
    };
    let stemmer = match params.stemmer.and_then(|stemmer| stemmer.stemming_params) {
        None => None,
        Some(StemmingParams::Snowball(snowball)) => {
            Some(json!({"type": "snowball", "language": snowball.language.to_lowercase()}))
        }
        Some(StemmingParams::Disabled(_)) => {
            return Err(Error::unimplemented("an explicitly disabled stemmer"));
        }
    };
    if params.scoring.is_some() {
        return Err(Error::unimplemented("text index scoring"));
    }
    let stopwords = params.stopwords.map(|words| json!({"languages": words.languages, "custom": words.custom}));
    Ok(json!({
        "type": "text", "tokenizer": tokenizer, "lowercase": params.lowercase,
        "min_token_len": params.min_token_len, "max_token_len": params.max_token_len,
        "on_disk": on_disk(params.on_disk, params.memory), "stopwords": stopwords,
        "phrase_matching": params.phrase_matching, "stemmer": stemmer,
        "ascii_folding": params.ascii_folding, "enable_hnsw": params.enable_hnsw,
    }))
}

/// The newer `memory` placement in the words of the engine.
pub fn on_disk(on_disk: Option<bool>, memory: Option<i32>) -> Option<bool> {
    match memory.map(pb::Memory::try_from) {
        Some(Ok(pb::Memory::Cold)) => Some(true),
        Some(Ok(pb::Memory::Cached | pb::Memory::Pinned)) => Some(false),
        _ => on_disk,
    }
}

/// The engine refuses `null` where a field may only be absent.
fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(fields) => Json::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

/// An entry of a collection's `payload_schema`.
pub fn info_out(info: &PayloadIndexInfo) -> Result<pb::PayloadSchemaInfo> {
    let broken = |error: serde_json::Error| Error::Service(error.to_string());
    let kind = serde_json::to_value(info.data_type).map_err(broken)?;
    let data_type = match kind.as_str().unwrap_or_default() {
        "keyword" => pb::PayloadSchemaType::Keyword,
        "integer" => pb::PayloadSchemaType::Integer,
        "float" => pb::PayloadSchemaType::Float,
        "geo" => pb::PayloadSchemaType::Geo,
        "text" => pb::PayloadSchemaType::Text,
        "bool" => pb::PayloadSchemaType::Bool,
        "datetime" => pb::PayloadSchemaType::Datetime,
        "uuid" => pb::PayloadSchemaType::Uuid,
        _ => pb::PayloadSchemaType::UnknownType,
    };
    let params = match &info.params {
        None => None,
        Some(params) => match serde_json::to_value(params).map_err(broken)? {
            Json::Object(fields) => Some(params_out(data_type, &fields)),
            _ => None,
        },
    };
    Ok(pb::PayloadSchemaInfo { data_type: data_type.into(), params, points: Some(info.points as u64) })
}

fn params_out(kind: pb::PayloadSchemaType, fields: &Map<String, Json>) -> pb::PayloadIndexParams {
    use pb::payload_index_params::IndexParams;
    let flag = |name: &str| fields.get(name).and_then(Json::as_bool);
    let (on_disk, enable_hnsw) = (flag("on_disk"), flag("enable_hnsw"));
    let (is_principal, is_tenant) = (flag("is_principal"), flag("is_tenant"));
    let params = match kind {
        pb::PayloadSchemaType::Keyword => Some(IndexParams::KeywordIndexParams(pb::KeywordIndexParams {
            is_tenant,
            on_disk,
            enable_hnsw,
            ..Default::default()
        })),
        pb::PayloadSchemaType::Integer => Some(IndexParams::IntegerIndexParams(pb::IntegerIndexParams {
            lookup: flag("lookup"),
            range: flag("range"),
            is_principal,
            on_disk,
            enable_hnsw,
            ..Default::default()
        })),
        pb::PayloadSchemaType::Float => Some(IndexParams::FloatIndexParams(pb::FloatIndexParams {
            is_principal,
            on_disk,
            enable_hnsw,
            ..Default::default()
        })),
        pb::PayloadSchemaType::Geo => {
            Some(IndexParams::GeoIndexParams(pb::GeoIndexParams { on_disk, enable_hnsw, ..Default::default() }))
        }
        pb::PayloadSchemaType::Bool => {
            Some(IndexParams::BoolIndexParams(pb::BoolIndexParams { on_disk, enable_hnsw, ..Default::default() }))
        }
        pb::PayloadSchemaType::Datetime => Some(IndexParams::DatetimeIndexParams(pb::DatetimeIndexParams {
            is_principal,
            on_disk,
            enable_hnsw,
            ..Default::default()
        })),
        pb::PayloadSchemaType::Uuid => Some(IndexParams::UuidIndexParams(pb::UuidIndexParams {
            is_tenant,
            on_disk,
            enable_hnsw,
            ..Default::default()
        })),
        pb::PayloadSchemaType::Text => Some(IndexParams::TextIndexParams(text_out(fields))),
        pb::PayloadSchemaType::UnknownType => None,
    };
    pb::PayloadIndexParams { index_params: params }
}

fn text_out(fields: &Map<String, Json>) -> pb::TextIndexParams {
    use pb::stemming_algorithm::StemmingParams;
    let flag = |name: &str| fields.get(name).and_then(Json::as_bool);
    let words = |value: Option<&Json>| -> Vec<String> {
        let list = value.and_then(Json::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let tokenizer = match fields.get("tokenizer").and_then(Json::as_str) {
        Some("prefix") => pb::TokenizerType::Prefix,
        Some("whitespace") => pb::TokenizerType::Whitespace,
        Some("multilingual") => pb::TokenizerType::Multilingual,
        _ => pb::TokenizerType::Word,
    };
    pb::TextIndexParams {
        tokenizer: tokenizer.into(),
        lowercase: flag("lowercase"),
        min_token_len: fields.get("min_token_len").and_then(Json::as_u64),
        max_token_len: fields.get("max_token_len").and_then(Json::as_u64),
        on_disk: flag("on_disk"),
        stopwords: fields
            .get("stopwords")
            .map(|set| pb::StopwordsSet { languages: words(set.get("languages")), custom: words(set.get("custom")) }),
        phrase_matching: flag("phrase_matching"),
        stemmer: fields.get("stemmer").and_then(|stemmer| stemmer.get("language")).and_then(Json::as_str).map(
            |language| pb::StemmingAlgorithm {
                stemming_params: Some(StemmingParams::Snowball(pb::SnowballParams { language: language.to_owned() })),
            },
        ),
        ascii_folding: flag("ascii_folding"),
        enable_hnsw: flag("enable_hnsw"),
        ..Default::default()
    }
}
