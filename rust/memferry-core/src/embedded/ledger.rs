//! The ledger's documents: small JSON texts under a migration and a key, in the data's own transaction.
//!
//! The same table serves as the ledger of stores that cannot keep one: then it stands alone in a file of its own.

use rusqlite::OptionalExtension;

use super::Store;
use crate::error::Result;

impl Store {
    /// Writes a document.
    pub fn ledger_put(&self, migration: &str, key: &str, value: &str) -> Result<()> {
        let mut statement = self.conn.prepare_cached("INSERT OR REPLACE INTO memferry_ledger VALUES (?1, ?2, ?3)")?;
        statement.execute([migration, key, value])?;
        Ok(())
    }

    /// Reads a document.
    pub fn ledger_get(&self, migration: &str, key: &str) -> Result<Option<String>> {
        let mut statement =
            self.conn.prepare_cached("SELECT value FROM memferry_ledger WHERE migration = ?1 AND key = ?2")?;
        Ok(statement.query_row([migration, key], |row| row.get(0)).optional()?)
    }

    /// Documents whose key starts with `prefix`, in the order of their keys, after `after`, at most `limit`.
    pub fn ledger_scan(
        &self,
        migration: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>> {
        // A key that starts with the prefix lies before the prefix followed by the last code point.
        let end = format!("{prefix}\u{10ffff}");
        let mut statement = self.conn.prepare_cached(
            "SELECT key, value FROM memferry_ledger
             WHERE migration = ?1 AND key >= ?2 AND key > ?3 AND key < ?4 ORDER BY key LIMIT ?5",
        )?;
        let rows =
            statement.query_map((migration, prefix, after, end, limit as i64), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Deletes documents whose key starts with `prefix`.
    pub fn ledger_delete(&self, migration: &str, prefix: &str) -> Result<()> {
        self.conn.execute(
            "DELETE FROM memferry_ledger WHERE migration = ?1 AND key >= ?2 AND key < ?3",
            [migration, prefix, &format!("{prefix}\u{10ffff}")],
        )?;
        Ok(())
    }

    /// Migrations that have documents here.
    pub fn ledger_migrations(&self) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare("SELECT DISTINCT migration FROM memferry_ledger ORDER BY migration")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}
