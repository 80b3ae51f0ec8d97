//! The embedded store: one SQLite file, documented in `docs/embedded.md`.

mod journal;
mod ledger;
mod read;
mod schema;
mod search;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Code, Error, Result};
use crate::locks::use_wal;

pub use read::Page;
pub use search::Hit;

/// How long a locked file is waited for before the error says so.
const BUSY: Duration = Duration::from_secs(5);

/// An open embedded store. One connection; callers serialise.
pub struct Store {
    conn: Connection,
    path: PathBuf,
    /// Holds the copy of a store on read-only media, so that it ends with the connection.
    scratch: Option<PathBuf>,
}

impl Store {
    /// Opens a store to read it. Never changes it: not even a WAL left behind is checkpointed.
    pub fn open_source(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::new(Code::StoreMissing, format!("no file: {}", path.display())));
        }
        let (conn, scratch) = match open_read_only(path) {
            Ok(conn) => (conn, None),
            Err(e) if e.code == Code::StoreMissing || e.code == Code::Io => {
                let copy = copy_to_scratch(path)?;
                (open_read_only(&copy)?, Some(copy))
            }
            Err(e) => return Err(e.at(path.display())),
        };
        let store = Self { conn, path: path.to_owned(), scratch };
        store.check_format()?;
        Ok(store)
    }

    /// Opens a store to write it, making it where there is none.
    pub fn open_target(path: &Path) -> Result<Self> {
        let conn = Connection::open(path).map_err(|e| Error::from(e).in_file(path))?;
        let store = Self { conn, path: path.to_owned(), scratch: None };
        store.prepare_to_write().map_err(|e| e.in_file(path))?;
        Ok(store)
    }

    fn prepare_to_write(&self) -> Result<()> {
        self.conn.busy_timeout(BUSY)?;
        // A kill while the store was being made leaves a file without tables; it is made again.
        let tables: i64 = self.conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let fresh = tables == 0;
        if fresh {
            self.conn.pragma_update(None, "page_size", 8192)?;
        } else {
            self.check_format()?;
        }
        // Synchronous FULL would add power-loss durability per page; the WAL is synced at every checkpoint.
        use_wal(&self.conn, BUSY)?;
        self.conn.pragma_update(None, "synchronous", "normal")?;
        self.conn.pragma_update(None, "cache_size", -65_536)?;
        if fresh {
            schema::create(&self.conn)?;
            self.check_format()?;
        }
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_format(&self) -> Result<()> {
        let place = self.path.display();
        let application: i64 = self
            .conn
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(|e| Error::from(e).at(place))?;
        let version: i64 = self.conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let place = self.path.display();
        if application != schema::APPLICATION_ID {
            return Err(Error::new(
                Code::StoreFormat,
                format!("{place}: an SQLite file, but not an embedded memferry store"),
            ));
        }
        if version > schema::VERSION {
            return Err(Error::new(
                Code::FormatNewer,
                format!("{place}: format {version}, this memferry knows up to {}", schema::VERSION),
            ));
        }
        Ok(())
    }

    /// The id written into the store when it was made.
    pub fn store_id(&self) -> Result<String> {
        Ok(self.conn.query_row("SELECT value FROM memferry_meta WHERE key = 'store_id'", [], |row| row.get(0))?)
    }

    /// A number that changes when another connection changes the store.
    pub fn data_version(&self) -> Result<i64> {
        Ok(self.conn.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Starts a write transaction.
    pub fn begin(&self) -> Result<()> {
        Ok(self.conn.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Ends it and keeps what was written.
    pub fn commit(&self) -> Result<()> {
        Ok(self.conn.execute_batch("COMMIT")?)
    }

    /// Ends it and drops what was written; harmless where there is none.
    pub fn abort(&self) -> Result<()> {
        if self.conn.is_autocommit() { Ok(()) } else { Ok(self.conn.execute_batch("ROLLBACK")?) }
    }

    /// In a transaction of its own, or in the one that is open.
    fn atomically(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.conn.is_autocommit() {
            return work();
        }
        self.begin()?;
        let done = work().and_then(|()| self.commit());
        if done.is_err() {
            self.abort()?;
        }
        done
    }

    /// What `PRAGMA quick_check` says, `ok` when nothing is wrong.
    pub fn quick_check(&self) -> Result<String> {
        Ok(self.conn.pragma_query_value(None, "quick_check", |row| row.get(0))?)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(parent) = self.scratch.as_deref().and_then(Path::parent) {
            let _ = std::fs::remove_dir_all(parent);
        }
    }
}

fn uri(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)?;
    let text = absolute.to_str().ok_or_else(|| Error::invalid("the path is not UTF-8"))?;
    let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{escaped}?mode=ro"))
}

fn open_read_only(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri(path)?, flags)?;
    conn.busy_timeout(BUSY)?;
    // The first read finds out whether the -shm of a WAL can be made.
    let _: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(conn)
}

/// Copies database and WAL together; `immutable=1` would hide every row that is only in the WAL.
fn copy_to_scratch(path: &Path) -> Result<PathBuf> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    let folder = std::env::temp_dir().join(format!("memferry-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder)?;
    let copy = folder.join("store.db");
    let copied = std::fs::copy(path, &copy)
        .and_then(|_| if wal.exists() { std::fs::copy(&wal, folder.join("store.db-wal")) } else { Ok(0) });
    if let Err(e) = copied {
        let _ = std::fs::remove_dir_all(&folder);
        return Err(Error::from(e).at(format!("copy of {} in {}", path.display(), folder.display())));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_store_that_many_make_at_once_is_one() -> Result<()> {
        for _ in 0..20 {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("agents.db");
            let begin = Barrier::new(8);
            let ids = std::thread::scope(|scope| {
                let open = || {
                    begin.wait();
                    Store::open_target(&path)?.store_id()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>>>()
            })?;
            assert_eq!(ids, vec![ids[0].clone(); 8]);
        }
        Ok(())
    }
}
