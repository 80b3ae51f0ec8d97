//! Full-text search and exact vector search.

use rusqlite::ToSql;

use super::Store;
use super::schema::VECTORS_PER_RECORD;
use crate::error::{Code, Error, Result};
use crate::record::{Kind, TEXT_FIELDS};

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
        if self.conn.is_readonly("main")? {
            let why = "the text index is behind since a bulk load, and this store is only read; open it once to write";
            return Err(Error::new(Code::Refused, why));
        }
        self.atomically(|| {
            for kind in Kind::ALL {
                let table = kind.as_str();
                self.conn.execute_batch(&format!("INSERT INTO {table}_fts ({table}_fts) VALUES ('rebuild')"))?;
            }
            self.conn.execute("DELETE FROM memferry_meta WHERE key = 'text_index'", [])?;
            Ok(())
        })
    }

    /// Whether the full-text index is behind.
    pub fn text_stale(&self) -> Result<bool> {
        let sql = "SELECT count(*) FROM memferry_meta WHERE key = 'text_index'";
        Ok(self.conn.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0)
    }

    /// Records whose content or name has every word of `words`, within `scope`: columns and their values.
    pub fn search_text(&self, kind: Kind, words: &str, limit: usize, scope: &[(String, String)]) -> Result<Vec<Hit>> {
        let table = kind.as_str();
        // Each word quoted: the data may look like FTS5's own operators. A NUL would end the query.
        let words = words.replace('\0', " ");
        let query =
            words.split_whitespace().map(|w| format!("\"{}\"", w.replace('"', "\"\""))).collect::<Vec<_>>().join(" ");
        if query.is_empty() {
            return Err(Error::invalid("search: no words"));
        }
        let limit = limit as i64;
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT t.id, -f.rank FROM {table}_fts f JOIN {table} t ON t.seq = f.rowid
             WHERE {table}_fts MATCH ?1{} ORDER BY f.rank, t.seq LIMIT ?2",
            conditions(scope)?
        ))?;
        let values: Vec<&dyn ToSql> =
            [&query as &dyn ToSql, &limit].into_iter().chain(scope.iter().map(|(_, value)| value as _)).collect();
        let rows = statement.query_map(values.as_slice(), |row| Ok(Hit { id: row.get(0)?, score: row.get(1)? }))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The records with the nearest dense vectors named `name` by cosine similarity, every one in `scope` compared.
    pub fn search_vector(
        &self,
        kind: Kind,
        name: &str,
        query: &[f32],
        limit: usize,
        scope: &[(String, String)],
    ) -> Result<Vec<Hit>> {
        let table = kind.as_str();
        let dim = query.len() as i64;
        let join = if scope.is_empty() {
            String::new()
        } else {
            format!("JOIN {table} t ON t.seq = v.vector_id / {VECTORS_PER_RECORD}")
        };
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT v.vector_id, v.data FROM {table}_vector v {join}
             WHERE v.name = ?1 AND v.kind = 0 AND v.dim = ?2{}",
            conditions(scope)?
        ))?;
        let values: Vec<&dyn ToSql> =
            [&name as &dyn ToSql, &dim].into_iter().chain(scope.iter().map(|(_, value)| value as _)).collect();
        let mut rows = statement.query(values.as_slice())?;
        let mut best: Vec<(f64, i64)> = Vec::new();
        while let Some(row) = rows.next()? {
            let data = row.get_ref(1)?.as_blob().map_err(|e| Error::invalid(e.to_string()))?;
            let near = cosine(query, data);
            // NaN compares with nothing: such a vector is never near.
            let enters = best.len() < limit || best.last().is_some_and(|worst| near > worst.0);
            if near.is_nan() || !enters {
                continue;
            }
            let seq = row.get::<_, i64>(0)? / VECTORS_PER_RECORD;
            if let Some(known) = best.iter().position(|(_, other)| *other == seq) {
                // Another vector of that name in the same record.
                if best[known].0 >= near {
                    continue;
                }
                best.remove(known);
            }
            let at = best.partition_point(|(s, _)| *s >= near);
            best.insert(at, (near, seq));
            best.truncate(limit);
        }
        let mut find = self.conn.prepare_cached(&format!("SELECT id FROM {table} WHERE seq = ?1"))?;
        best.into_iter().map(|(score, seq)| Ok(Hit { id: find.query_row([seq], |row| row.get(0))?, score })).collect()
    }
}

/// What ties `t` to a scope, with values from the third parameter on.
fn conditions(scope: &[(String, String)]) -> Result<String> {
    let condition = |(i, (column, _)): (usize, &(String, String))| {
        if column.starts_with("scope_") && TEXT_FIELDS.contains(&column.as_str()) {
            Ok(format!(" AND t.{column} = ?{}", i + 3))
        } else {
            Err(Error::invalid(format!("search: no scope {column:?}")))
        }
    };
    scope.iter().enumerate().map(condition).collect()
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
