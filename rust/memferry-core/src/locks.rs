//! Files of SQLite that several open at once.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::error::Result;

/// How long a locked file is waited for before the error says so.
pub const BUSY: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(5);

/// Turns the write-ahead log on.
///
/// Who turns it on goes from a reader's lock to a writer's. Where two do so at once, SQLite tells one of them that the
/// file is busy without waiting, whatever `busy_timeout` says, for both would wait for ever. So it is tried again here.
pub fn use_wal(conn: &Connection) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match conn.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_file_that_many_open_for_the_first_time_is_never_busy() {
        let path = std::env::temp_dir().join(format!("memferry-locks-{}.db", uuid::Uuid::new_v4()));
        for _ in 0..40 {
            let begin = Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let conn = Connection::open(&path).unwrap();
                        conn.busy_timeout(BUSY).unwrap();
                        begin.wait();
                        use_wal(&conn).unwrap();
                        conn.execute_batch("CREATE TABLE IF NOT EXISTS t (a); INSERT INTO t VALUES (1)").unwrap();
                    });
                }
            });
            let conn = Connection::open(&path).unwrap();
            let rows: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 8);
            drop(conn);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
