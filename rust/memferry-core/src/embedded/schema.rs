//! Tables of the embedded store.

use std::sync::LazyLock;

use rusqlite::Connection;

use crate::error::Result;
use crate::record::{Kind, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS};

/// `mfer`, so that `file` and we can tell our stores from other SQLite files.
pub const APPLICATION_ID: i64 = 0x6d66_6572;
/// Version of the format.
pub const VERSION: i64 = 1;

/// Vectors of a record have ids from `seq * 256`, so that a range of records is a range of vectors, without an index.
pub const VECTORS_PER_RECORD: i64 = 256;

/// Columns of a record table after `seq`, in the order in which they are read and written.
pub static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut columns = vec!["id".to_owned()];
    columns.extend(TEXT_FIELDS.iter().map(|name| (*name).to_owned()));
    for name in TIME_FIELDS {
        columns.push(name.to_owned());
        columns.push(format!("{name}_text"));
    }
    columns.push("version".to_owned());
    columns.extend(SCORE_FIELDS.iter().map(|name| (*name).to_owned()));
    columns.extend(["tags", "extra", "marker_migration", "marker_digest"].map(str::to_owned));
    columns
});

/// Column list for statements.
pub fn column_list() -> String {
    COLUMNS.join(", ")
}

/// Makes all tables, unless another process does.
pub fn create(conn: &Connection) -> Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        // Another process has made them since it was looked.
        conn.execute_batch("ROLLBACK")?;
        return Ok(());
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)?;
    conn.execute_batch(
        "CREATE TABLE memferry_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE memferry_ledger (
           migration TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (migration, key)
         ) WITHOUT ROWID;",
    )?;
    let store_id = uuid::Uuid::new_v4().hyphenated().to_string();
    conn.execute("INSERT INTO memferry_meta VALUES ('store_id', ?1)", [store_id])?;
    for kind in Kind::ALL {
        let table = kind.as_str();
        let mut columns = vec!["seq INTEGER PRIMARY KEY".to_owned(), "id TEXT NOT NULL UNIQUE".to_owned()];
        columns.extend(TEXT_FIELDS.iter().map(|name| format!("{name} TEXT")));
        for name in TIME_FIELDS {
            columns.push(format!("{name} INTEGER"));
            columns.push(format!("{name}_text TEXT"));
        }
        columns.push("version INTEGER".to_owned());
        // Text: a REAL column turns NaN into NULL and -0.0 into 0.
        columns.extend(SCORE_FIELDS.iter().map(|name| format!("{name} TEXT")));
        columns.extend(["tags TEXT", "extra TEXT", "marker_migration TEXT", "marker_digest BLOB"].map(str::to_owned));
        conn.execute_batch(&format!(
            "CREATE TABLE {table} ({});
             CREATE TABLE {table}_vector (
               vector_id INTEGER PRIMARY KEY, name TEXT NOT NULL, model TEXT, dim INTEGER NOT NULL,
               normalized INTEGER, kind INTEGER NOT NULL, indices BLOB, data BLOB NOT NULL);
             CREATE VIRTUAL TABLE {table}_fts USING fts5(content, name, content='{table}', content_rowid='seq');",
            columns.join(", "),
        ))?;
    }
    conn.execute_batch("CREATE INDEX observation_owner ON observation (owner_id)")?;
    conn.execute_batch("COMMIT")?;
    Ok(())
}
