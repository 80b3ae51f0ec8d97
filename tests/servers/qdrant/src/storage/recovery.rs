//! Opening a shard so that it holds everything that was ever acknowledged.
//!
//! A collection directory holds `flushed.json` (operations below this number are safely in the
//! segments), `shard/` (the engine's files) and, while a replay is under way, `replay/` (the log
//! as the dead process left it) and `doubles.cbor`. `replay/` is removed only after its operations were flushed, so
//! a second crash in the middle starts the same replay again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use qdrant_edge::{
    Condition, CountRequest, EdgeShard, Filter, HasIdCondition, PointId, PointInsertOperations, PointOperations,
    PointStructPersisted, ScrollRequest, UpdateOperation, VectorStructInternal, WithPayloadInterface, WithVector,
};
use serde::{Deserialize, Serialize};

use super::collection::write_atomically;
use super::wal;
use crate::error::{Error, Result};

pub const SHARD: &str = "shard";
pub const LOG: &str = "wal";
const REPLAY: &str = "replay";
const DOUBLES: &str = "doubles.cbor";
/// Where the engine builds a segment before it counts.
const UNFINISHED_SEGMENTS: &str = "temp_segments";
const PAGE: usize = 1_000;

#[derive(Serialize, Deserialize, Default)]
struct Flushed {
    next: u64,
}

pub fn save_flushed(dir: &Path, next: u64) -> Result<()> {
    let json = serde_json::to_vec(&Flushed { next }).unwrap_or_default();
    write_atomically(&dir.join("flushed.json"), &json)
}

fn load_flushed(dir: &Path) -> Result<u64> {
    let path = dir.join("flushed.json");
    if !path.exists() {
        return Ok(0);
    }
    serde_json::from_slice::<Flushed>(&fs::read(path)?)
        .map(|flushed| flushed.next)
        .map_err(|error| Error::Service(format!("flushed.json: {error}")))
}

/// Opens the shard of a collection directory; returns it with the number of its next operation.
pub fn open_shard(dir: &Path) -> Result<(EdgeShard, u64)> {
    let flushed = load_flushed(dir)?;
    let (shard_dir, replay_dir) = (dir.join(SHARD), dir.join(REPLAY));
    let log = shard_dir.join(LOG);
    let unfinished = shard_dir.join(UNFINISHED_SEGMENTS);
    if unfinished.exists() {
        fs::remove_dir_all(unfinished)?;
    }
    if !replay_dir.exists() && log.exists() && wal::end(&log)?.is_some_and(|end| end > flushed) {
        fs::rename(&log, &replay_dir)?;
    }
    wal::reset(&log, flushed)?;
    let shard = EdgeShard::load(&shard_dir, None)?;
    if !replay_dir.exists() {
        return Ok((shard, flushed));
    }

    let mut next = flushed;
    wal::replay(&replay_dir, flushed, |number, operation| {
        if number != next {
            return Err(Error::Service(format!("log entry {next} is missing")));
        }
        next += 1;
        match shard.update(operation).map_err(Error::from) {
            // An operation that was refused then is refused now, and its client knows.
            Err(Error::Service(text)) => Err(Error::Service(text)),
            Ok(()) | Err(_) => Ok(()),
        }
    })?;
    drop_doubles(dir, &shard, &mut next)?;
    shard.flush();
    save_flushed(dir, next)?;
    if dir.join(DOUBLES).exists() {
        fs::remove_file(dir.join(DOUBLES))?;
    }
    fs::remove_dir_all(replay_dir)?;
    Ok((shard, next))
}

/// A crash while points move between segments can leave a point in two of them. The real server
/// removes one when it starts; the library does not offer that, so the point is deleted, which
/// reaches both, and stored again. What is stored again is saved first: a crash in between finds
/// it and does the same once more.
fn drop_doubles(dir: &Path, shard: &EdgeShard, next: &mut u64) -> Result<()> {
    let saved = dir.join(DOUBLES);
    let broken = |error: serde_cbor::Error| Error::Service(format!("{DOUBLES}: {error}"));
    let upsert: UpdateOperation = if saved.exists() {
        serde_cbor::from_slice(&fs::read(&saved)?).map_err(broken)?
    } else {
        let ids = doubles(shard)?;
        if ids.is_empty() {
            return Ok(());
        }
        eprintln!("{} points were stored twice after a crash", ids.len());
        let upsert = points(shard, &ids)?;
        write_atomically(&saved, &serde_cbor::to_vec(&upsert).map_err(broken)?)?;
        upsert
    };
    let ids = upsert.point_ids().unwrap_or_default();
    let delete = UpdateOperation::PointOperation(PointOperations::DeletePoints { ids });
    for operation in [delete, upsert] {
        shard.update(operation)?;
        *next += 1;
    }
    Ok(())
}

/// The points that more than one segment holds.
fn doubles(shard: &EdgeShard) -> Result<Vec<PointId>> {
    let count = |ids: &[PointId]| {
        let has_id = Condition::HasId(ids.iter().copied().collect::<HasIdCondition>());
        let filter = Filter { must: Some(vec![has_id]), ..Filter::default() };
        shard.count(CountRequest { filter: Some(filter), exact: true })
    };
    let mut doubles = Vec::new();
    for page in all_ids(shard)?.chunks(PAGE) {
        if count(page)? == page.len() {
            continue;
        }
        for id in page {
            if count(&[*id])? > 1 {
                doubles.push(*id);
            }
        }
    }
    Ok(doubles)
}

fn points(shard: &EdgeShard, ids: &[PointId]) -> Result<UpdateOperation> {
    let records = shard.retrieve(ids, Some(WithPayloadInterface::Bool(true)), Some(WithVector::Bool(true)))?;
    let points = records.into_iter().map(|record| PointStructPersisted {
        id: record.id,
        vector: record.vector.unwrap_or_else(|| VectorStructInternal::Named(HashMap::new())).into(),
        payload: record.payload,
    });
    let points = PointInsertOperations::PointsList(points.collect());
    Ok(UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)))
}

fn all_ids(shard: &EdgeShard) -> Result<Vec<PointId>> {
    let (mut ids, mut offset) = (Vec::new(), None);
    loop {
        let (records, next) = shard.scroll(ScrollRequest {
            offset,
            limit: Some(10 * PAGE),
            filter: None,
            with_payload: Some(WithPayloadInterface::Bool(false)),
            with_vector: WithVector::Bool(false),
            order_by: None,
        })?;
        ids.extend(records.into_iter().map(|record| record.id));
        if next.is_none() {
            return Ok(ids);
        }
        offset = next;
    }
}
