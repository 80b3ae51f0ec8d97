//! Reading records in pages by `seq`, and by id.

use std::fmt::Write as _;
use std::sync::LazyLock;

use arrow_array::RecordBatch;
use jiter::{Jiter, Peek};
use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement, ToSql};

use super::Store;
use super::schema::{COLUMNS, VECTORS_PER_RECORD, column_list};
use crate::canonical::is_canonical_object;
use crate::error::{Error, Result};
use crate::raw::Quarantined;
use crate::record::{
    Kind, RecordBuilder, RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, Tags, TimeRef, VectorKind, VectorRef,
};
use crate::value::{NATIVE_DEPTH, Value, parse_canonical_f64};

/// Records of one page.
pub struct Page {
    /// Canonical batch.
    pub records: RecordBatch,
    /// Rows that are not valid records.
    pub quarantined: Vec<Quarantined>,
    /// Rows that were read.
    pub read: u64,
    /// `seq` of the last row; `None` when the range is at its end.
    pub next: Option<i64>,
}

/// Why a row is no record.
struct Bad(&'static str, String);

type RowResult<T> = std::result::Result<T, Bad>;

impl Store {
    /// Rows of `kind`.
    pub fn count(&self, kind: Kind) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", kind.as_str());
        Ok(self.conn.query_row(&sql, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Smallest and largest `seq` of `kind`.
    pub fn bounds(&self, kind: Kind) -> Result<Option<(i64, i64)>> {
        let sql = format!("SELECT min(seq), max(seq) FROM {}", kind.as_str());
        let (low, high): (Option<i64>, Option<i64>) =
            self.conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(low.zip(high))
    }

    /// Reads rows with `after < seq < until` until one of the limits is met.
    pub fn read_page(
        &self,
        kind: Kind,
        after: i64,
        until: Option<i64>,
        max_records: usize,
        max_bytes: usize,
        with_vectors: bool,
    ) -> Result<Page> {
        let table = kind.as_str();
        let sql =
            format!("SELECT seq, {} FROM {table} WHERE seq > ?1 AND seq < ?2 ORDER BY seq LIMIT ?3", column_list());
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut vectors = if with_vectors { Some(self.vector_statement(kind)?) } else { None };
        let until = until.unwrap_or(i64::MAX);
        let mut cursor = match &mut vectors {
            Some(statement) => Some(VectorCursor::new(statement, after)?),
            None => None,
        };
        let mut rows = statement.query([&after as &dyn ToSql, &until, &(max_records as i64)])?;
        let mut builder = RecordBuilder::default();
        let (mut quarantined, mut read, mut last) = (Vec::new(), 0, None);
        let mut arena = Arena::default();
        while builder.bytes() < max_bytes {
            let Some(row) = rows.next()? else {
                // The last row may be the last of the page or of the range; the next page tells.
                let more = read == max_records as u64;
                return Ok(Page { records: builder.finish()?, quarantined, read, next: last.filter(|_| more) });
            };
            let seq: i64 = row.get(0)?;
            (read, last) = (read + 1, Some(seq));
            push_row(kind, seq, row, cursor.as_mut(), &mut arena, &mut builder, &mut quarantined)?;
        }
        Ok(Page { records: builder.finish()?, quarantined, read, next: last })
    }

    /// Reads the records of `kind` with these ids; those that are not there are left out.
    pub fn fetch(&self, kind: Kind, ids: &[&str]) -> Result<(RecordBatch, Vec<Quarantined>)> {
        let sql = format!("SELECT seq, {} FROM {} WHERE id = ?1", column_list(), kind.as_str());
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut vectors = self.vector_statement(kind)?;
        let mut builder = RecordBuilder::default();
        let mut quarantined = Vec::new();
        let mut arena = Arena::default();
        for id in ids {
            let mut rows = statement.query([id])?;
            if let Some(row) = rows.next()? {
                let seq: i64 = row.get(0)?;
                let mut cursor = VectorCursor::new(&mut vectors, seq - 1)?;
                push_row(kind, seq, row, Some(&mut cursor), &mut arena, &mut builder, &mut quarantined)?;
            }
        }
        Ok((builder.finish()?, quarantined))
    }

    fn vector_statement(&self, kind: Kind) -> Result<rusqlite::CachedStatement<'_>> {
        Ok(self.conn.prepare_cached(&format!(
            "SELECT vector_id, name, model, dim, normalized, kind, indices, data FROM {}_vector
             WHERE vector_id >= ?1 ORDER BY vector_id",
            kind.as_str()
        ))?)
    }
}

fn push_row(
    kind: Kind,
    seq: i64,
    row: &Row<'_>,
    cursor: Option<&mut VectorCursor<'_>>,
    arena: &mut Arena,
    builder: &mut RecordBuilder,
    quarantined: &mut Vec<Quarantined>,
) -> Result<()> {
    arena.start(seq);
    let vectors = match cursor {
        Some(cursor) => cursor.collect(seq, arena),
        None => Ok(()),
    };
    let pushed = match vectors {
        Ok(()) => arena
            .add_tags(row)
            .and_then(|()| record(kind, row, arena))
            .and_then(|r| builder.push(&r).map_err(|e| Bad("bad-vector", e.message))),
        Err(VectorError::Row(bad)) => Err(bad),
        Err(VectorError::Store(e)) => return Err(e),
    };
    if let Err(Bad(reason, message)) = pushed {
        quarantined.push(Quarantined {
            id: row.get::<_, String>(1).ok(),
            key: arena.key.clone(),
            kind: Some(kind.as_str()),
            reason,
            message,
            raw: row_text(row, arena)?,
        });
    }
    Ok(())
}

/// Place of the column `tags`; the ones behind it follow.
static TAGS: LazyLock<usize> = LazyLock::new(|| COLUMNS.iter().position(|name| name == "tags").unwrap_or(0) + 1);

fn text<'r>(row: &'r Row<'_>, column: usize, name: &str) -> RowResult<Option<&'r str>> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|e| Bad("not-utf8", format!("column {name}: not UTF-8 from byte {}", e.valid_up_to()))),
        Ok(other) => Err(Bad("bad-type", format!("column {name}: expected text, got {:?}", other.data_type()))),
        Err(e) => Err(Bad("bad-type", e.to_string())),
    }
}

fn integer(row: &Row<'_>, column: usize, name: &str) -> RowResult<Option<i64>> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Integer(i)) => Ok(Some(i)),
        Ok(other) => Err(Bad("bad-type", format!("column {name}: expected integer, got {:?}", other.data_type()))),
        Err(e) => Err(Bad("bad-type", e.to_string())),
    }
}

fn record<'a>(kind: Kind, row: &'a Row<'_>, arena: &'a Arena) -> RowResult<RecordRef<'a>> {
    let id = text(row, 1, "id")?.ok_or_else(|| Bad("no-id", "column id is null".to_owned()))?;
    let mut r = RecordRef::new(kind, id);
    r.key = Some(&arena.key);
    let mut column = 2;
    for (slot, name) in r.texts.iter_mut().zip(TEXT_FIELDS) {
        *slot = text(row, column, name)?;
        column += 1;
    }
    for (slot, name) in r.times.iter_mut().zip(TIME_FIELDS) {
        *slot = TimeRef { micros: integer(row, column, name)?, text: text(row, column + 1, name)? };
        column += 2;
    }
    r.version = integer(row, column, "version")?;
    column += 1;
    for (slot, name) in r.scores.iter_mut().zip(SCORE_FIELDS) {
        *slot = match text(row, column, name)? {
            None => None,
            Some(t) => Some(
                parse_canonical_f64(t)
                    .ok_or_else(|| Bad("bad-type", format!("column {name}: not a canonical double: {t:?}")))?,
            ),
        };
        column += 1;
    }
    if let Some(extra) = text(row, column + 1, "extra")? {
        // What stood beside `extra` in a document stands a level deeper here.
        if !is_canonical_object(extra, NATIVE_DEPTH + 1) {
            return Err(Bad("bad-type", "column extra: not an object in canonical text".to_owned()));
        }
        r.extra = extra;
    }
    r.marker_migration = text(row, column + 2, "marker_migration")?;
    if let Ok(ValueRef::Blob(blob)) = row.get_ref(column + 3) {
        r.marker_digest = blob.try_into().ok();
    }
    r.tags = arena.tags();
    r.vectors = arena.vectors().collect();
    Ok(r)
}

/// The row as an object, for the quarantine.
fn row_text(row: &Row<'_>, arena: &Arena) -> Result<Vec<u8>> {
    let mut map = Vec::new();
    let names: &rusqlite::Statement<'_> = row.as_ref();
    for (i, name) in names.column_names().enumerate() {
        let value = match row.get_ref(i)? {
            ValueRef::Null => continue,
            ValueRef::Integer(i) => Value::Int(i),
            ValueRef::Real(f) => Value::Float(f),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(bytes.to_vec()),
            },
            ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        };
        crate::value::insert(&mut map, name, value);
    }
    let data = arena.vectors().map(|v| Value::Bytes(v.data.to_vec())).collect();
    crate::value::insert(&mut map, "vectors", Value::List(data));
    Ok(Value::Map(map).to_canonical().into_bytes())
}

/// What the row at hand cannot lend as it is: key, tags, vectors. Buffers are kept from row to row.
#[derive(Default)]
struct Arena {
    key: String,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    tags: Option<Vec<std::ops::Range<usize>>>,
}

struct Entry {
    name: std::ops::Range<usize>,
    model: Option<std::ops::Range<usize>>,
    dim: u32,
    normalized: Option<bool>,
    kind: VectorKind,
    indices: Option<std::ops::Range<usize>>,
    data: std::ops::Range<usize>,
}

impl Arena {
    fn start(&mut self, seq: i64) {
        self.key.clear();
        write!(self.key, "{seq}").unwrap_or_default();
        self.bytes.clear();
        self.entries.clear();
        self.tags = None;
    }

    /// Reads the list of texts that the tags are kept as.
    fn add_tags(&mut self, row: &Row<'_>) -> RowResult<()> {
        let Some(json) = text(row, *TAGS, "tags")? else { return Ok(()) };
        let mut tags = Vec::new();
        let mut read = || -> Option<()> {
            let mut json = Jiter::new(json.as_bytes());
            let mut next = json.next_array().ok()?;
            while let Some(peek) = next {
                if peek != Peek::String {
                    return None;
                }
                tags.push(self.add(json.known_str().ok()?.as_bytes()));
                next = json.array_step().ok()?;
            }
            json.finish().ok()
        };
        read().ok_or_else(|| Bad("bad-type", "column tags: not a list of texts".to_owned()))?;
        self.tags = Some(tags);
        Ok(())
    }

    fn tags(&self) -> Option<Tags<'_>> {
        self.tags.as_ref().map(|tags| tags.iter().map(|tag| self.text(tag)).collect())
    }

    fn add(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn text(&self, range: &std::ops::Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }

    fn vectors(&self) -> impl Iterator<Item = VectorRef<'_>> {
        self.entries.iter().map(|e| VectorRef {
            name: self.text(&e.name),
            model: e.model.as_ref().map(|m| self.text(m)),
            dim: e.dim,
            normalized: e.normalized,
            kind: e.kind,
            indices: e.indices.as_ref().map(|i| &self.bytes[i.clone()]),
            data: &self.bytes[e.data.clone()],
        })
    }
}

/// Walks the vector table beside the record table.
struct VectorCursor<'s> {
    rows: rusqlite::Rows<'s>,
    pending: bool,
    done: bool,
}

enum VectorError {
    Row(Bad),
    Store(Error),
}

impl From<rusqlite::Error> for VectorError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Store(e.into())
    }
}

impl<'s> VectorCursor<'s> {
    fn new(statement: &'s mut Statement<'_>, after: i64) -> Result<Self> {
        let first = after.saturating_add(1).saturating_mul(VECTORS_PER_RECORD);
        Ok(Self { rows: statement.query([first])?, pending: false, done: false })
    }

    /// Puts the vectors of record `seq` into the arena.
    fn collect(&mut self, seq: i64, arena: &mut Arena) -> std::result::Result<(), VectorError> {
        let (first, end) = (seq * VECTORS_PER_RECORD, (seq + 1) * VECTORS_PER_RECORD);
        let mut bad = None;
        while !self.done {
            if !self.pending {
                self.done = self.rows.next()?.is_none();
                self.pending = true;
                continue;
            }
            // `get` gives the row that the last `next` found.
            let Some(row) = self.rows.get_row() else { break };
            let id: i64 = row.get(0)?;
            if id >= end {
                break;
            }
            self.pending = false;
            if id >= first && bad.is_none() {
                bad = add_vector(row, arena).err();
            }
        }
        bad.map_or(Ok(()), |bad| Err(VectorError::Row(bad)))
    }
}

trait CurrentRow<'s> {
    fn get_row(&self) -> Option<&Row<'s>>;
}

impl<'s> CurrentRow<'s> for rusqlite::Rows<'s> {
    fn get_row(&self) -> Option<&Row<'s>> {
        fallible_streaming_iterator::FallibleStreamingIterator::get(self)
    }
}

fn add_vector(row: &Row<'_>, arena: &mut Arena) -> RowResult<()> {
    let blob = |column: usize, name: &str| match row.get_ref(column) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Blob(bytes)) => Ok(Some(bytes)),
        _ => Err(Bad("bad-vector", format!("vector column {name}: expected a blob"))),
    };
    let number = |column: usize, name: &str| {
        integer(row, column, name)?.ok_or_else(|| Bad("bad-vector", format!("vector column {name} is null")))
    };
    let bad = |e: Error| Bad("bad-vector", e.message);
    let kind = u8::try_from(number(5, "kind")?).unwrap_or(u8::MAX);
    let entry = Entry {
        name: arena.add(text(row, 1, "name")?.unwrap_or_default().as_bytes()),
        model: text(row, 2, "model")?.map(|m| arena.add(m.as_bytes())),
        dim: u32::try_from(number(3, "dim")?).map_err(|e| Bad("bad-vector", e.to_string()))?,
        normalized: integer(row, 4, "normalized")?.map(|n| n != 0),
        kind: VectorKind::from_u8(kind).map_err(bad)?,
        indices: blob(6, "indices")?.map(|b| arena.add(b)),
        data: blob(7, "data")?
            .map(|b| arena.add(b))
            .ok_or_else(|| Bad("bad-vector", "vector column data is null".to_owned()))?,
    };
    arena.entries.push(entry);
    Ok(())
}
