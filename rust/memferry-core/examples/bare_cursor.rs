//! The anchor of the reading benchmark: a bare cursor over every column, beside our own page loop, in one process.
//!
//! `cargo run --release --example bare_cursor STORE` prints lines of `name rows_per_sec rows_per_cpu_sec`.

use std::path::Path;
use std::time::Instant;

use memferry_core::embedded::Store;
use memferry_core::error::{Error, Result};
use memferry_core::record::Kind;
use memferry_core::transform::dedup::DedupKeys;
use memferry_core::verify::Buckets;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

fn touch(rows: &mut rusqlite::Rows<'_>, columns: usize) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            bytes += match row.get_ref(column)? {
                ValueRef::Text(data) | ValueRef::Blob(data) => data.len() as u64,
                _ => 1,
            };
        }
        count += 1;
    }
    Ok((count, bytes))
}

fn bare(path: &str) -> Result<u64> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let mut rows = 0;
    for table in ["memory", "memory_vector"] {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let (count, bytes) = touch(&mut statement.query([])?, columns)?;
        std::hint::black_box(bytes);
        rows = rows.max(count);
    }
    Ok(rows)
}

fn ours(path: &str) -> Result<u64> {
    let store = Store::open_source(Path::new(path))?;
    let (mut buckets, mut keys) = (Buckets::new(4096), DedupKeys::new(false));
    let (mut after, mut rows) = (-1, 0);
    loop {
        let page = store.read_page(Kind::Memory, after, None, 4096, 8 << 20, true)?;
        keys.extend(keys.keys(&page.records)?.into_iter().flatten());
        buckets.add(&page.records, None)?;
        rows += page.read;
        match page.next {
            Some(next) => after = next,
            None => return Ok(rows),
        }
    }
}

/// Seconds that this thread was on a processor.
fn cpu_secs() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    Ok(nanos.ok_or_else(|| Error::invalid("no schedstat"))? / 1e9)
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| Error::invalid("usage: bare_cursor STORE [bare|memferry]"))?;
    let only = std::env::args().nth(2);
    for round in 0..4 {
        for (name, run) in [("bare", bare as fn(&str) -> Result<u64>), ("memferry", ours)] {
            if only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            let (began, cpu) = (Instant::now(), cpu_secs()?);
            let rows = run(&path)? as f64;
            let cpu = cpu_secs()? - cpu;
            if round > 0 {
                #[expect(clippy::print_stdout, reason = "the answer of a benchmark")]
                {
                    println!("{name} {:.0} {:.0}", rows / began.elapsed().as_secs_f64(), rows / cpu);
                }
            }
        }
    }
    Ok(())
}
