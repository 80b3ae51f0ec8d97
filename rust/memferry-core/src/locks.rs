//! Files of SQLite that several open at once.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::error::Result;

const PAUSE: Duration = Duration::from_millis(5);

/// Turns the write-ahead log on, waiting up to `wait` for whoever holds the file.
///
/// That goes from a reader's lock to a writer's. Where two do so at once, SQLite tells one of them that the file is
/// busy without waiting, whatever `busy_timeout` says, for both would wait for ever. So it is tried again here.
pub fn use_wal(conn: &Connection, wait: Duration) -> Result<()> {
    let end = Instant::now() + wait;
    loop {
        match conn.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            done => return Ok(done?),
        }
    }
}
