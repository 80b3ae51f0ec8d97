//! Vectors that were computed once, so that a resumed run, a proof and a sync have the same numbers and pay nothing.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::Made;
use crate::error::{Code, Error, Result};
use crate::locks::use_wal;

/// BLAKE3 of a text in UTF-8.
pub type TextKey = [u8; 32];

/// `mfev`.
const APPLICATION_ID: i64 = 0x6d66_6576;
/// Version of the format.
const VERSION: i64 = 1;
/// Several processes may share a cache; each holds it for one small write.
const BUSY: Duration = Duration::from_secs(30);

/// The key of a text.
pub fn key_of(text: &str) -> TextKey {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// The vectors of one model at one number of dimensions, in one file.
pub struct Cache {
    conn: Connection,
    vector_bytes: usize,
}

impl Cache {
    /// Opens the file, making it where there is none.
    pub fn open(path: &Path, model: &str, dimensions: u32) -> Result<Self> {
        let at = |e: Error| e.at(path.display());
        let conn = Connection::open(path).map_err(|e| at(e.into()))?;
        conn.busy_timeout(BUSY)?;
        let cache = Self { conn, vector_bytes: dimensions as usize * 4 };
        cache.prepare(model, dimensions).map_err(at)?;
        Ok(cache)
    }

    fn prepare(&self, model: &str, dimensions: u32) -> Result<()> {
        // Large enough for a vector of 1,536 numbers; it counts only where the file is made.
        self.conn.pragma_update(None, "page_size", 8192)?;
        use_wal(&self.conn, BUSY)?;
        // What is lost with the power is asked again.
        self.conn.pragma_update(None, "synchronous", "normal")?;
        self.conn.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS memferry_model (model TEXT NOT NULL, dimensions INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS memferry_embeddings
                 (text_blake3 BLOB NOT NULL UNIQUE, vector BLOB NOT NULL);
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {};
             COMMIT",
            VERSION.max(self.conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
        ))?;
        let version: i64 = self.conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > VERSION {
            return Err(Error::new(
                Code::FormatNewer,
                format!("format {version}, this memferry knows up to {VERSION}"),
            ));
        }
        // One statement: of two that make the file at once, one says which model it is for.
        self.conn.execute(
            "INSERT INTO memferry_model SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM memferry_model)",
            (model, dimensions),
        )?;
        let (m, d): (String, u32) = self
            .conn
            .query_row("SELECT model, dimensions FROM memferry_model", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if m == model && d == dimensions {
            return Ok(());
        }
        Err(Error::new(Code::StoreFormat, format!("holds vectors of {m} with {d} dimensions")))
    }

    /// The vector of a text, None where it was not computed yet.
    pub fn get(&self, key: &TextKey) -> Result<Option<Made>> {
        let mut statement =
            self.conn.prepare_cached("SELECT vector FROM memferry_embeddings WHERE text_blake3 = ?1")?;
        let vector: Option<Vec<u8>> = statement.query_row([key], |row| row.get(0)).optional()?;
        match vector {
            Some(vector) if vector.len() != self.vector_bytes => {
                Err(Error::new(Code::StoreCorrupt, "a vector in the cache of embeddings has another length"))
            }
            vector => Ok(vector.map(Made::Vector)),
        }
    }

    /// Whether there is one.
    pub fn contains(&self, key: &TextKey) -> Result<bool> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM memferry_embeddings WHERE text_blake3 = ?1")?;
        Ok(statement.exists([key])?)
    }

    /// Keeps vectors, all or none; one that is there already stays.
    ///
    /// Refuses another number of dimensions, NaN and infinities.
    pub fn keep(&mut self, vectors: &[(TextKey, &[u8])]) -> Result<()> {
        for (_, vector) in vectors {
            self.check(vector)?;
        }
        let transaction = self.conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut statement =
                transaction.prepare_cached("INSERT OR IGNORE INTO memferry_embeddings VALUES (?1, ?2)")?;
            for (key, vector) in vectors {
                statement.execute((key, vector))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn check(&self, vector: &[u8]) -> Result<()> {
        if vector.len() != self.vector_bytes {
            let (got, wanted) = (vector.len() / 4, self.vector_bytes / 4);
            return Err(Error::new(
                Code::Refused,
                format!("the endpoint gave a vector of {got} dimensions, planned are {wanted}"),
            ));
        }
        let finite = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).is_finite();
        if vector.chunks_exact(4).all(finite) {
            return Ok(());
        }
        Err(Error::new(Code::Refused, "the endpoint gave a vector with NaN or an infinity in it"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn open(folder: &tempfile::TempDir) -> Result<Cache> {
        Cache::open(&folder.path().join("cache.db"), "mini", 2)
    }

    fn bytes(numbers: [f32; 2]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn what_was_kept_is_found_by_another_process_and_stays_as_it_was() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (first, second) = (bytes([0.6, 0.8]), bytes([0.8, 0.6]));
        open(&folder)?.keep(&[(key_of("tea"), &first)])?;
        let mut again = open(&folder)?;
        again.keep(&[(key_of("tea"), &second)])?;
        assert!(matches!(again.get(&key_of("tea"))?, Some(Made::Vector(found)) if found == first));
        assert!(again.get(&key_of("Tea"))?.is_none());
        Ok(())
    }

    #[test]
    fn a_cache_that_many_make_at_once_is_for_one_model() -> Result<()> {
        for _ in 0..20 {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("cache.db");
            let begin = Barrier::new(8);
            let refused = std::thread::scope(|scope| {
                let open = |number: usize| {
                    let (path, begin) = (&path, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        Cache::open(path, ["mini", "maxi"][number % 2], 2).err()
                    })
                };
                let threads: Vec<_> = (0..8).map(open).collect();
                threads.into_iter().map(|thread| thread.join().ok()).collect::<Vec<_>>()
            });
            let codes: Vec<Code> = refused.into_iter().flatten().flatten().map(|error| error.code).collect();
            assert_eq!(codes, [Code::StoreFormat; 4]);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_kept_of_an_answer_with_a_bad_vector() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut cache = open(&folder)?;
        let good = bytes([0.6, 0.8]);
        for bad in [bytes([f32::NAN, 0.0]), bytes([f32::INFINITY, 0.0]), good[..4].to_vec(), Vec::new()] {
            let error = cache.keep(&[(key_of("good"), &good), (key_of("bad"), &bad)]).err();
            assert_eq!(error.map(|e| e.code), Some(Code::Refused));
            assert!(!cache.contains(&key_of("good"))?);
        }
        Ok(())
    }

    #[test]
    fn a_file_of_another_model_or_format_is_refused() -> Result<()> {
        let folder = tempfile::tempdir()?;
        drop(open(&folder)?);
        let path = folder.path().join("cache.db");
        assert_eq!(Cache::open(&path, "mini", 3).err().map(|e| e.code), Some(Code::StoreFormat));
        assert_eq!(Cache::open(&path, "maxi", 2).err().map(|e| e.code), Some(Code::StoreFormat));
        Connection::open(&path)?.pragma_update(None, "user_version", 2)?;
        assert_eq!(open(&folder).err().map(|e| e.code), Some(Code::FormatNewer));
        Ok(())
    }
}
