//! Full-text search and exact vector search.

use rusqlite::params;

use super::Store;
use super::schema::VECTORS_PER_RECORD;
use crate::error::{Error, Result};
use crate::record::Kind;

/// One answer of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Id of the record.
    pub id: String,
    /// Higher is nearer: cosine similarity, or minus the BM25 rank of FTS5.
    pub score: f64,
}

impl Store {
    /// Says that the full-text index is behind, in the caller's transaction, before records are written in bulk.
    pub fn mark_text_stale(&self) -> Result<()> {
        self.conn.execute("INSERT OR REPLACE INTO memferry_meta VALUES ('text_index', 'stale')", [])?;
        Ok(())
    }

    /// Rebuilds the full-text index if it is behind; a kill before the end leaves the mark.
    pub fn rebuild_text(&self) -> Result<()> {
        if !self.text_stale()? {
            return Ok(());
        }
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        for kind in Kind::ALL {
            let table = kind.as_str();
            self.conn.execute_batch(&format!("INSERT INTO {table}_fts ({table}_fts) VALUES ('rebuild')"))?;
        }
        self.conn.execute("DELETE FROM memferry_meta WHERE key = 'text_index'", [])?;
        self.conn.execute_batch("COMMIT")?;
        Ok(())
    }

    fn text_stale(&self) -> Result<bool> {
        let sql = "SELECT count(*) FROM memferry_meta WHERE key = 'text_index'";
        Ok(self.conn.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0)
    }

    /// Records whose content or name has every word of `words`.
    pub fn search_text(&self, kind: Kind, words: &str, limit: usize) -> Result<Vec<Hit>> {
        let table = kind.as_str();
        // Each word quoted: the data may look like FTS5's own operators.
        let query =
            words.split_whitespace().map(|w| format!("\"{}\"", w.replace('"', "\"\""))).collect::<Vec<_>>().join(" ");
        if query.is_empty() {
            return Err(Error::invalid("search: no words"));
        }
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT t.id, -f.rank FROM {table}_fts f JOIN {table} t ON t.seq = f.rowid
             WHERE {table}_fts MATCH ?1 ORDER BY f.rank, t.seq LIMIT ?2"
        ))?;
        let rows =
            statement.query_map(params![query, limit as i64], |row| Ok(Hit { id: row.get(0)?, score: row.get(1)? }))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The nearest dense vectors named `name` by cosine similarity, every one compared.
    pub fn search_vector(&self, kind: Kind, name: &str, query: &[f32], limit: usize) -> Result<Vec<Hit>> {
        let table = kind.as_str();
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT v.vector_id, v.data FROM {table}_vector v WHERE v.name = ?1 AND v.kind = 0 AND v.dim = ?2"
        ))?;
        let mut rows = statement.query(params![name, query.len() as i64])?;
        let mut best: Vec<(f64, i64)> = Vec::new();
        while let Some(row) = rows.next()? {
            let data = row.get_ref(1)?.as_blob().map_err(|e| Error::invalid(e.to_string()))?;
            let score = cosine(query, data);
            if best.len() < limit || best.last().is_some_and(|worst| score > worst.0) {
                let at = best.partition_point(|(s, _)| *s >= score);
                best.insert(at, (score, row.get::<_, i64>(0)? / VECTORS_PER_RECORD));
                best.truncate(limit);
            }
        }
        let mut find = self.conn.prepare_cached(&format!("SELECT id FROM {table} WHERE seq = ?1"))?;
        best.into_iter().map(|(score, seq)| Ok(Hit { id: find.query_row([seq], |row| row.get(0))?, score })).collect()
    }
}

fn cosine(query: &[f32], data: &[u8]) -> f64 {
    let (mut dot, mut left, mut right) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (a, b) in query.iter().zip(data.chunks_exact(4)) {
        let (a, b) = (f64::from(*a), f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        dot += a * b;
        left += a * a;
        right += b * b;
    }
    if left == 0.0 || right == 0.0 { 0.0 } else { dot / (left.sqrt() * right.sqrt()) }
}
