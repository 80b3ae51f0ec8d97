//! Writing and deleting records. Callers hold a transaction.

use arrow_array::RecordBatch;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Statement, ToSql};

use super::Store;
use super::schema::{COLUMNS, VECTORS_PER_RECORD, column_list};
use crate::digest::digest;
use crate::error::Result;
use crate::record::{Kind, RecordRef, RecordView};
use crate::value::{canonical_f64, write_text};

/// Prepared statements of one kind.
struct Statements<'s> {
    find: Statement<'s>,
    insert: Statement<'s>,
    update: Statement<'s>,
    drop_vectors: Statement<'s>,
    insert_vector: Statement<'s>,
    index: TextIndex<'s>,
}

/// Keeps the text index in step, row by row. `None`: it is behind anyway, or about to be marked so.
struct TextIndex<'s>(Option<(Statement<'s>, Statement<'s>)>);

impl TextIndex<'_> {
    /// Before a row is changed: the index needs the old texts to forget them.
    fn forget(&mut self, seq: i64) -> Result<()> {
        if let Some((forget, _)) = &mut self.0 {
            forget.execute([seq])?;
        }
        Ok(())
    }

    fn learn(&mut self, seq: i64) -> Result<()> {
        if let Some((_, learn)) = &mut self.0 {
            learn.execute([seq])?;
        }
        Ok(())
    }
}

impl Store {
    /// Writes every record of the batch, over a record of the same kind and id where there is one.
    ///
    /// `marker`: the migration that writes; `None` leaves marker columns as the batch has them.
    /// `fresh`: no record of the batch is there yet, so none is looked for.
    /// `indexed`: the text index is kept in step; else the caller marks it as behind.
    /// The rows with more vectors than fit come back; they are not written.
    pub fn write(&self, records: &RecordBatch, marker: Option<&str>, fresh: bool, indexed: bool) -> Result<Vec<usize>> {
        let view = RecordView::new(records)?;
        let mut scratch = Vec::new();
        let mut refused = Vec::new();
        for kind in Kind::ALL {
            if !(0..view.len()).any(|row| view.kind(row) == kind) {
                continue;
            }
            let mut statements = self.statements(kind, indexed)?;
            let mut next = self.bounds(kind)?.map_or(1, |(_, high)| high + 1);
            for (row, r) in view.iter().enumerate().filter(|(_, r)| r.kind == kind) {
                if r.vectors.len() as i64 > VECTORS_PER_RECORD {
                    refused.push(row);
                    continue;
                }
                let digest = marker.map_or(r.marker_digest, |_| Some(digest(&r, &mut scratch).to_be_bytes()));
                let marker = marker.or(r.marker_migration);
                let known = if fresh {
                    None
                } else {
                    statements.find.query_row([r.id], |row| row.get::<_, i64>(0)).optional()?
                };
                let seq = known.unwrap_or(next);
                if known.is_none() {
                    next += 1;
                }
                if known.is_some() {
                    statements.index.forget(seq)?;
                }
                write_row(&mut statements, seq, known.is_some(), &r, marker, digest)
                    .map_err(|e| e.at(format!("{} {:?}", kind.as_str(), r.id)))?;
                statements.index.learn(seq)?;
            }
        }
        Ok(refused)
    }

    /// Deletes records of `kind`; how many were there. `indexed` as in [`Store::write`].
    pub fn delete(&self, kind: Kind, ids: &[&str], indexed: bool) -> Result<u64> {
        let table = kind.as_str();
        let mut find = self.conn.prepare_cached(&format!("SELECT seq FROM {table} WHERE id = ?1"))?;
        let mut record = self.conn.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?1"))?;
        let mut vectors = self
            .conn
            .prepare_cached(&format!("DELETE FROM {table}_vector WHERE vector_id >= ?1 AND vector_id < ?2"))?;
        let mut index = self.text_index(kind, indexed)?;
        let mut deleted = 0;
        for id in ids {
            let seq: Option<i64> = find.query_row([id], |row| row.get(0)).optional()?;
            if let Some(seq) = seq {
                index.forget(seq)?;
                record.execute([seq])?;
                vectors.execute([seq * VECTORS_PER_RECORD, (seq + 1) * VECTORS_PER_RECORD])?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Within the caller's transaction nobody else marks the index as behind, or rebuilds it.
    fn text_index(&self, kind: Kind, indexed: bool) -> Result<TextIndex<'_>> {
        if !indexed || self.text_stale()? {
            return Ok(TextIndex(None));
        }
        let table = kind.as_str();
        let forget = self.conn.prepare(&format!(
            "INSERT INTO {table}_fts ({table}_fts, rowid, content, name)
             SELECT 'delete', seq, content, name FROM {table} WHERE seq = ?1"
        ))?;
        let learn = self.conn.prepare(&format!(
            "INSERT INTO {table}_fts (rowid, content, name) SELECT seq, content, name FROM {table} WHERE seq = ?1"
        ))?;
        Ok(TextIndex(Some((forget, learn))))
    }

    fn statements(&self, kind: Kind, indexed: bool) -> Result<Statements<'_>> {
        let table = kind.as_str();
        let columns = COLUMNS.len();
        let marks = (1..=columns + 1).map(|i| format!("?{i}")).collect::<Vec<_>>().join(", ");
        let sets = COLUMNS.iter().enumerate().map(|(i, c)| format!("{c} = ?{}", i + 2)).collect::<Vec<_>>().join(", ");
        Ok(Statements {
            find: self.conn.prepare(&format!("SELECT seq FROM {table} WHERE id = ?1"))?,
            insert: self.conn.prepare(&format!("INSERT INTO {table} (seq, {}) VALUES ({marks})", column_list()))?,
            update: self.conn.prepare(&format!("UPDATE {table} SET {sets} WHERE seq = ?1"))?,
            drop_vectors: self
                .conn
                .prepare(&format!("DELETE FROM {table}_vector WHERE vector_id >= ?1 AND vector_id < ?2"))?,
            insert_vector: self
                .conn
                .prepare(&format!("INSERT INTO {table}_vector VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?,
            index: self.text_index(kind, indexed)?,
        })
    }
}

fn text(value: Option<&str>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(value.map_or(ValueRef::Null, |t| ValueRef::Text(t.as_bytes())))
}

fn blob(value: Option<&[u8]>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(value.map_or(ValueRef::Null, ValueRef::Blob))
}

fn write_row(
    statements: &mut Statements<'_>,
    seq: i64,
    known: bool,
    r: &RecordRef<'_>,
    marker: Option<&str>,
    digest: Option<[u8; 16]>,
) -> Result<()> {
    let scores = r.scores.map(|score| score.map(canonical_f64));
    let tags = r.tags.as_ref().map(|tags| {
        let mut json = String::from("[");
        for (i, tag) in tags.iter().enumerate() {
            if i > 0 {
                json.push(',');
            }
            write_text(tag, &mut json);
        }
        json.push(']');
        json
    });
    let statement = if known { &mut statements.update } else { &mut statements.insert };
    let mut column = 1;
    let mut bind = |value: &dyn ToSql| {
        let bound = statement.raw_bind_parameter(column, value);
        column += 1;
        bound
    };
    bind(&seq)?;
    bind(&text(Some(r.id)))?;
    for value in r.texts {
        bind(&text(value))?;
    }
    for time in r.times {
        bind(&time.micros)?;
        bind(&text(time.text))?;
    }
    bind(&r.version)?;
    for score in &scores {
        bind(&text(score.as_deref()))?;
    }
    bind(&text(tags.as_deref()))?;
    bind(&text(Some(r.extra).filter(|extra| *extra != "{}")))?;
    bind(&text(marker))?;
    bind(&blob(digest.as_ref().map(<[u8; 16]>::as_slice)))?;
    statement.raw_execute()?;
    if known {
        statements.drop_vectors.execute([seq * VECTORS_PER_RECORD, (seq + 1) * VECTORS_PER_RECORD])?;
    }
    for (i, v) in r.vectors.iter().enumerate() {
        let values: [&dyn ToSql; 8] = [
            &(seq * VECTORS_PER_RECORD + i as i64),
            &text(Some(v.name)),
            &text(v.model),
            &v.dim,
            &v.normalized,
            &(v.kind as u8),
            &blob(v.indices),
            &blob(Some(v.data)),
        ];
        statements.insert_vector.execute(values.as_slice())?;
    }
    Ok(())
}
