//! The journal of a foreign target: which migration wrote which record, with the digest it gives it back with. It stands
//! for the markers that go into native stores, in a state file beside the ledger. Described in `docs/state.md`.
//!
//! A record is intended before it is written and confirmed after the store acknowledged it. After a kill between the
//! two, the record that is there tells which happened: the one with the intended digest is ours.

use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use rusqlite::OptionalExtension;

use super::Store;
use crate::digest::{digest, digests};
use crate::error::{Code, Error, Result};
use crate::record::{Kind, RecordView};

/// Version of the journal's format, kept in `memferry_meta`.
const FORMAT: &str = "1";
const FORMAT_KEY: &str = "journal_format";

const CONFIRM: &str =
    "UPDATE memferry_journal SET digest = ?4, pending = NULL WHERE kind = ?1 AND id = ?2 AND migration = ?3";

/// One line of the journal.
struct Line {
    migration: String,
    digest: Option<[u8; 16]>,
    pending: Option<[u8; 16]>,
}

impl Line {
    fn wrote(&self, now: [u8; 16]) -> bool {
        self.pending == Some(now) || self.digest == Some(now)
    }
}

/// Who wrote a record.
struct Writer<'a> {
    migration: &'a str,
    digest: [u8; 16],
    /// The write was intended, and now it is seen that it was done.
    done: bool,
}

impl Store {
    /// Makes the journal where there is none, and from here on lets a commit end on the disk.
    pub fn journal_open(&self) -> Result<()> {
        // What the ledger forgot in a power loss would look like somebody else's record in the target.
        self.conn.pragma_update(None, "synchronous", "full")?;
        let format: Option<String> = self
            .conn
            .query_row("SELECT value FROM memferry_meta WHERE key = ?1", [FORMAT_KEY], |row| row.get(0))
            .optional()?;
        match format.as_deref() {
            Some(FORMAT) => return Ok(()),
            Some(other) => {
                let place = self.path.display();
                return Err(Error::new(
                    Code::FormatNewer,
                    format!("{place}: journal format {other}, this memferry knows {FORMAT}"),
                ));
            }
            None => {}
        }
        // Several processes may come here at once.
        self.atomically(|| {
            self.conn.execute_batch(
                "CREATE TABLE IF NOT EXISTS memferry_journal (
                   kind INTEGER NOT NULL, id TEXT NOT NULL, migration TEXT NOT NULL, seq INTEGER NOT NULL,
                   digest BLOB, pending BLOB, PRIMARY KEY (kind, id, migration)
                 ) WITHOUT ROWID",
            )?;
            self.conn.execute("INSERT OR IGNORE INTO memferry_meta VALUES (?1, ?2)", [FORMAT_KEY, FORMAT])?;
            Ok(())
        })
    }

    /// Says that `migration` is about to write these records, as the target will give them back.
    pub fn journal_intend(&self, records: &RecordBatch, migration: &str) -> Result<()> {
        self.each(
            records,
            "INSERT INTO memferry_journal (kind, id, migration, seq, pending) VALUES (?1, ?2, ?3,
               1 + (SELECT coalesce(max(seq), 0) FROM memferry_journal WHERE kind = ?1 AND id = ?2), ?4)
             ON CONFLICT DO UPDATE SET seq = excluded.seq, pending = excluded.pending",
            migration,
        )
    }

    /// Says that these records are in the target.
    pub fn journal_confirm(&self, records: &RecordBatch, migration: &str) -> Result<()> {
        self.each(records, CONFIRM, migration)
    }

    /// Says that everything `migration` intended is in the target.
    pub fn journal_confirm_all(&self, migration: &str) -> Result<()> {
        self.conn.execute(
            "UPDATE memferry_journal SET digest = pending, pending = NULL WHERE migration = ?1 AND pending IS NOT NULL",
            [migration],
        )?;
        Ok(())
    }

    /// The records of a foreign target with their markers: who wrote them, and with which digest.
    pub fn journal_mark(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let view = RecordView::new(records)?;
        let (mut migrations, mut written) = (StringBuilder::new(), FixedSizeBinaryBuilder::new(16));
        let mut scratch = Vec::new();
        let mut find = self.conn.prepare_cached(
            "SELECT migration, digest, pending FROM memferry_journal WHERE kind = ?1 AND id = ?2 ORDER BY seq DESC",
        )?;
        let mut done = Vec::new();
        for r in view.iter() {
            let lines = find.query_map((r.kind as u8, r.id), |row| {
                Ok(Line { migration: row.get(0)?, digest: row.get(1)?, pending: row.get(2)? })
            })?;
            let lines = lines.collect::<std::result::Result<Vec<_>, _>>()?;
            let writer = writer(&lines, || digest(&r, &mut scratch).to_be_bytes());
            migrations.append_option(writer.as_ref().map(|w| w.migration));
            match writer {
                Some(writer) => {
                    written.append_value(writer.digest)?;
                    if writer.done {
                        done.push((r.kind as u8, r.id, writer.migration.to_owned(), writer.digest));
                    }
                }
                None => written.append_null(),
            }
        }
        // Noted before the next intention takes its place.
        if !done.is_empty() {
            self.atomically(|| {
                let mut confirm = self.conn.prepare_cached(CONFIRM)?;
                for (kind, id, migration, digest) in &done {
                    confirm.execute((kind, id, migration, digest))?;
                }
                Ok(())
            })?;
        }
        let mut columns = records.columns().to_vec();
        columns.truncate(columns.len() - 2);
        columns.extend([Arc::new(migrations.finish()) as ArrayRef, Arc::new(written.finish())]);
        Ok(RecordBatch::try_new(records.schema(), columns)?)
    }

    /// Drops what is known of records that are no longer in the target.
    pub fn journal_forget(&self, records: &[(Kind, &str)]) -> Result<()> {
        self.atomically(|| {
            let mut statement = self.conn.prepare_cached("DELETE FROM memferry_journal WHERE kind = ?1 AND id = ?2")?;
            for (kind, id) in records {
                statement.execute((*kind as u8, id))?;
            }
            Ok(())
        })
    }

    /// Drops what is known of a migration.
    pub fn journal_drop(&self, migration: &str) -> Result<()> {
        self.conn.execute("DELETE FROM memferry_journal WHERE migration = ?1", [migration])?;
        Ok(())
    }

    fn each(&self, records: &RecordBatch, sql: &str, migration: &str) -> Result<()> {
        let view = RecordView::new(records)?;
        let digests = digests(records)?;
        self.atomically(|| {
            let mut statement = self.conn.prepare_cached(sql)?;
            for (row, digest) in digests.iter().enumerate() {
                statement.execute((view.kind(row) as u8, view.id(row), migration, digest.to_be_bytes()))?;
            }
            Ok(())
        })
    }
}

/// Who wrote a record that is now there with the digest `now`; the latest line comes first.
fn writer(lines: &[Line], now: impl FnOnce() -> [u8; 16]) -> Option<Writer<'_>> {
    if lines.is_empty() {
        return None;
    }
    let now = now();
    // Whose digest it has, wrote it: also after a rollback put back what an earlier migration had written.
    let found = match lines.iter().find(|line| line.wrote(now)) {
        Some(line) => Writer { migration: &line.migration, digest: now, done: line.digest != Some(now) },
        None => lines
            .iter()
            .find_map(|line| line.digest.map(|digest| Writer { migration: &line.migration, digest, done: false }))?,
    };
    // Nobody wrote what a rollback put back.
    (!found.migration.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::record::{CONTENT, RecordBuilder, RecordRef};

    fn batch(content: &str) -> RecordBatch {
        let mut r = RecordRef::new(Kind::Memory, "a");
        r.texts[CONTENT] = Some(content);
        let mut builder = RecordBuilder::default();
        builder.push(&r).unwrap();
        builder.finish().unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_target(&folder.path().join("state.db")).unwrap();
        store.journal_open().unwrap();
        (folder, store)
    }

    /// Migration of the marker, and whether the record is still as that migration wrote it.
    fn marked(store: &Store, content: &str) -> Option<(String, bool)> {
        let marked = store.journal_mark(&batch(content)).unwrap();
        let now = digests(&marked).unwrap()[0].to_be_bytes();
        let record = RecordView::new(&marked).unwrap().get(0);
        record.marker_migration.map(|m| (m.to_owned(), record.marker_digest == Some(now)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may be none")]
    fn ours(migration: &str, intact: bool) -> Option<(String, bool)> {
        Some((migration.to_owned(), intact))
    }

    #[test]
    fn an_intended_record_is_ours_only_if_it_is_there() {
        let (_folder, store) = store();
        assert_eq!(None, marked(&store, "theirs"));
        store.journal_intend(&batch("new"), "m1").unwrap();
        assert_eq!(None, marked(&store, "theirs"));
        assert_eq!(ours("m1", true), marked(&store, "new"));
        // Seen to be there, it is ours for good, confirmed or not.
        store.journal_intend(&batch("never written"), "m1").unwrap();
        assert_eq!(ours("m1", true), marked(&store, "new"));
        assert_eq!(ours("m1", false), marked(&store, "theirs"));
        store.journal_confirm(&batch("new"), "m1").unwrap();
        store.journal_intend(&batch("newer"), "m1").unwrap();
        assert_eq!(ours("m1", true), marked(&store, "new"));
        assert_eq!(ours("m1", true), marked(&store, "newer"));
        store.journal_confirm_all("m1").unwrap();
        assert_eq!(ours("m1", false), marked(&store, "new"));
    }

    #[test]
    fn the_line_of_an_earlier_migration_counts_again_after_a_rollback() {
        let (_folder, store) = store();
        for (content, migration) in [("one", "m1"), ("two", "m2")] {
            store.journal_intend(&batch(content), migration).unwrap();
            store.journal_confirm(&batch(content), migration).unwrap();
        }
        assert_eq!(ours("m2", true), marked(&store, "two"));
        assert_eq!(ours("m2", false), marked(&store, "edited"));
        store.journal_intend(&batch("one"), "").unwrap();
        assert_eq!(None, marked(&store, "one"));
        store.journal_drop("m2").unwrap();
        store.journal_drop("").unwrap();
        assert_eq!(ours("m1", true), marked(&store, "one"));
        store.journal_forget(&[(Kind::Memory, "a")]).unwrap();
        assert_eq!(None, marked(&store, "one"));
    }

    #[test]
    fn a_newer_journal_is_refused() {
        let (_folder, store) = store();
        store.conn.execute("UPDATE memferry_meta SET value = '2' WHERE key = ?1", [FORMAT_KEY]).unwrap();
        assert_eq!(Code::FormatNewer, store.journal_open().unwrap_err().code);
    }
}
