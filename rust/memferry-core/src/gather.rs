//! Gathering: observations brought to their entities, for profiles that keep them inside. An external sort by owner and
//! place, in a file without a name that ends with the process; memory is the bound of its page cache.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::gaps::{GATHERED, POSITION};
use crate::record::{CONTENT, Kind, OWNER, RecordView, schema};
use crate::value::{Map, Value, get, insert};

/// Place of an observation that says none: after those that do, in the order in which they came.
const LAST: i64 = i64::MAX;

/// Observations on their way to their entities.
pub struct Spill {
    conn: Connection,
    added: i64,
}

impl Spill {
    /// A spill in `folder` that holds about `cache_bytes` of memory.
    pub fn create(folder: &Path, cache_bytes: u64) -> Result<Self> {
        let path = folder.join(format!("gather-{}.db", uuid::Uuid::new_v4()));
        let conn = Connection::open(&path).map_err(|e| Error::from(e).at(path.display()))?;
        conn.pragma_update(None, "locking_mode", "exclusive")?;
        conn.pragma_update(None, "journal_mode", "off")?;
        conn.pragma_update(None, "synchronous", "off")?;
        let kib = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX).max(1);
        conn.pragma_update(None, "cache_size", -kib)?;
        conn.execute_batch(
            "CREATE TABLE observation (
               owner TEXT NOT NULL, position INTEGER NOT NULL, n INTEGER NOT NULL, id TEXT NOT NULL,
               content TEXT NOT NULL, PRIMARY KEY (owner, position, n)) WITHOUT ROWID",
        )?;
        // The open file lives on; nothing is left of it after a kill.
        std::fs::remove_file(&path)?;
        Ok(Self { conn, added: 0 })
    }

    /// Adds the observations of a batch that have an owner and a text.
    pub fn add(&mut self, records: &RecordBatch) -> Result<()> {
        let view = RecordView::new(records)?;
        self.conn.execute_batch("BEGIN")?;
        let mut insert = self.conn.prepare_cached("INSERT INTO observation VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for r in view.iter().filter(|r| r.kind == Kind::Observation) {
            if let (Some(owner), Some(content)) = (r.texts[OWNER], r.texts[CONTENT]) {
                insert.execute((owner, position(r.extra).unwrap_or(LAST), self.added, r.id, content))?;
                self.added += 1;
            }
        }
        drop(insert);
        self.conn.execute_batch("COMMIT")?;
        Ok(())
    }

    /// The batch with the observations of its entities in their `extra`, and how many those are.
    pub fn attach(&self, records: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let view = RecordView::new(records)?;
        let mut find =
            self.conn.prepare_cached("SELECT content FROM observation WHERE owner = ?1 ORDER BY position, n")?;
        let mut extras = StringBuilder::new();
        let mut attached = 0;
        for r in view.iter() {
            let texts: Vec<String> = if r.kind == Kind::Entity {
                find.query_map([r.id], |row| row.get(0))?.collect::<std::result::Result<_, _>>()?
            } else {
                Vec::new()
            };
            if texts.is_empty() {
                extras.append_value(r.extra);
                continue;
            }
            attached += texts.len() as u64;
            let mut extra = object(r.extra)?;
            insert(&mut extra, GATHERED, Value::List(texts.into_iter().map(Value::Text).collect()));
            extras.append_value(Value::Map(extra).to_canonical());
        }
        let mut columns = records.columns().to_vec();
        columns[schema().index_of("extra")?] = Arc::new(extras.finish()) as ArrayRef;
        Ok((RecordBatch::try_new(records.schema(), columns)?, attached))
    }

    /// Observations whose ids say a place that they do not get, because the list of their owner has holes: how many, and
    /// the id of one.
    pub fn displaced(&self) -> Result<Option<(u64, String)>> {
        let (count, example): (i64, Option<String>) = self.conn.query_row(
            "SELECT coalesce(sum(members), 0), min(example) FROM (
               SELECT count(*) AS members, max(id) AS example FROM observation WHERE position <> ?1 GROUP BY owner
               HAVING min(position) <> 0 OR max(position) <> count(*) - 1 OR count(DISTINCT position) <> count(*))",
            [LAST],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(example.map(|id| (count.unsigned_abs(), id)))
    }
}

fn object(extra: &str) -> Result<Map> {
    match Value::from_canonical(extra) {
        Ok(Value::Map(map)) => Ok(map),
        _ => Err(Error::invalid("the unmapped fields are no object in canonical text")),
    }
}

fn position(extra: &str) -> Option<i64> {
    match get(&object(extra).ok()?, POSITION)? {
        Value::Int(position) => Some(*position),
        _ => None,
    }
}

/// The texts that were gathered into this `extra`.
pub fn texts(extra: &str) -> Vec<String> {
    if !extra.contains(GATHERED) {
        return Vec::new();
    }
    let Ok(extra) = object(extra) else { return Vec::new() };
    let Some(Value::List(items)) = get(&extra, GATHERED) else { return Vec::new() };
    items.iter().filter_map(|item| if let Value::Text(text) = item { Some(text.clone()) } else { None }).collect()
}

/// How many observations were gathered into the entities of a batch.
pub fn gathered(records: &RecordBatch) -> Result<u64> {
    Ok(RecordView::new(records)?.iter().map(|r| texts(r.extra).len() as u64).sum())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::record::{RecordBuilder, RecordRef};

    fn observation<'a>(id: &'a str, content: &'a str, extra: &'a str) -> RecordRef<'a> {
        let mut r = RecordRef::new(Kind::Observation, id);
        r.texts[OWNER] = id.split_once('#').map(|(owner, _)| owner);
        r.texts[CONTENT] = Some(content);
        r.extra = extra;
        r
    }

    fn batch(records: &[RecordRef<'_>]) -> RecordBatch {
        let mut builder = RecordBuilder::default();
        for r in records {
            builder.push(r).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn places_order_a_list_and_the_rest_follows_as_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::create(folder.path(), 4096).unwrap();
        assert_eq!(0, std::fs::read_dir(folder.path()).unwrap().count());
        spill.add(&batch(&[observation("a#x", "d", "{}"), observation("a#1", "b", r#"{"$position":1}"#)])).unwrap();
        spill.add(&batch(&[observation("a#y", "c", "{}"), observation("a#0", "a", r#"{"$position":0}"#)])).unwrap();
        spill.add(&batch(&[observation("b#0", "b", r#"{"$position":0}"#)])).unwrap();
        let (entity, other) = (RecordRef::new(Kind::Entity, "a"), RecordRef::new(Kind::Memory, "b"));
        let (attached, n) = spill.attach(&batch(&[entity, other])).unwrap();
        assert_eq!(4, n);
        assert_eq!(4, gathered(&attached).unwrap());
        let view = RecordView::new(&attached).unwrap();
        assert_eq!(["a", "b", "d", "c"].map(str::to_owned).to_vec(), texts(view.get(0).extra));
        assert_eq!("{}", view.get(1).extra);
    }

    #[test]
    fn holes_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::create(folder.path(), 4096).unwrap();
        spill.add(&batch(&[observation("a#0", "a", r#"{"$position":0}"#), observation("b#z", "a", "{}")])).unwrap();
        assert_eq!(None, spill.displaced().unwrap());
        spill.add(&batch(&[observation("a#2", "a", r#"{"$position":2}"#)])).unwrap();
        assert_eq!(Some((2, "a#2".to_owned())), spill.displaced().unwrap());
    }
}
