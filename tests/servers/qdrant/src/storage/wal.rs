//! Reading the engine's write-ahead log back after a crash.
//!
//! The engine (as a library) writes every operation to its log before it applies it, but its
//! `load` never reads the log, and nothing ever shortens it: the real server does both outside
//! the library. This module reads the engine's own files, so that nothing is written twice.
//!
//! An operation's number is its place in the log, and segments skip what they already hold by
//! that number. So a replay must give every operation the number it had: the log is emptied, told
//! where to go on counting, and then the operations are put through the engine once more.
//!
//! File format: 8 bytes of header (`wal`, version 0, CRC seed), then entries of length (u64),
//! data, padding to 8 bytes, CRC-32C chained from entry to entry. The first entry whose CRC does
//! not fit is the end.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use qdrant_edge::UpdateOperation;

use crate::error::{Error, Result};

const HEADER: usize = 8;
const CRC: usize = 4;

/// One log file and the number of its first entry.
struct LogFile {
    path: PathBuf,
    first: u64,
}

/// Number of the entry after the last one, or `None` for an empty log.
pub fn end(dir: &Path) -> Result<Option<u64>> {
    let mut end = None;
    for_each(dir, 0, |number, _| {
        end = Some(number + 1);
        Ok(())
    })?;
    Ok(end)
}

/// Calls `apply` with every operation from number `from` on, in order.
pub fn replay(dir: &Path, from: u64, mut apply: impl FnMut(u64, UpdateOperation) -> Result<()>) -> Result<()> {
    for_each(dir, from, |number, data| {
        let operation = serde_cbor::from_slice(data)
            .map_err(|error| Error::Service(format!("log entry {number} is not an operation: {error}")))?;
        apply(number, operation)
    })
}

/// Makes an empty log whose next entry gets number `next`.
pub fn reset(dir: &Path, next: u64) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    if next > 0 {
        // An empty closed file that starts at `next` is how the log remembers where it was.
        let mut file = fs::File::create(dir.join(format!("closed-{next}")))?;
        file.write_all(b"wal\0\x51\x44\x54\x53")?;
        file.sync_all()?;
    }
    Ok(())
}

/// Bytes of the log files that are full, that is, not counting the preallocated open one.
pub fn closed_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("closed-"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn for_each(dir: &Path, from: u64, mut visit: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    for file in files(dir)? {
        let bytes = fs::read(&file.path)?;
        for (place, data) in entries(&bytes).enumerate() {
            let number = file.first + place as u64;
            if number >= from {
                visit(number, data)?;
            }
        }
    }
    Ok(())
}

/// The log files in order. Only closed files carry a number; open files follow them, and more
/// than one open file holds entries when the process died while it closed one.
fn files(dir: &Path) -> Result<Vec<LogFile>> {
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number =
            |text: &str| text.parse::<u64>().map_err(|_| Error::Service(format!("unexpected file in the log: {name}")));
        if let Some(text) = name.strip_prefix("closed-") {
            closed.push((number(text)?, entry.path()));
        } else if let Some(text) = name.strip_prefix("open-") {
            open.push((number(text)?, entry.path()));
        }
    }
    closed.sort();
    open.sort();
    let mut next = closed.first().map_or(0, |(first, _)| *first);
    let mut files = Vec::new();
    for (first, path) in closed {
        if first != next {
            return Err(Error::Service(format!("log entries {next} to {first} are missing")));
        }
        next = first + count(&path)?;
        files.push(LogFile { path, first });
    }
    for (_, path) in open {
        let first = next;
        next += count(&path)?;
        files.push(LogFile { path, first });
    }
    Ok(files)
}

fn count(path: &Path) -> Result<u64> {
    Ok(entries(&fs::read(path)?).count() as u64)
}

/// The valid entries of one file.
fn entries(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let valid = bytes.len() >= HEADER && bytes.starts_with(b"wal\0");
    let mut crc = if valid { read_u32(bytes, 4) } else { 0 };
    let mut offset = if valid { HEADER } else { bytes.len() };
    std::iter::from_fn(move || {
        let start = offset + HEADER;
        if start + CRC >= bytes.len() {
            return None;
        }
        let length = usize::try_from(read_u64(bytes, offset)).ok()?;
        // Header and CRC are 12 bytes: padding the data to 4 modulo 8 keeps entries aligned.
        let padded = length.checked_add(4usize.wrapping_sub(length) & 7)?;
        let end = start.checked_add(padded)?;
        if end.checked_add(CRC)? > bytes.len() {
            return None;
        }
        let expected = crc32c::crc32c_append(!crc.reverse_bits(), &bytes[offset..end]);
        if expected != read_u32(bytes, end) {
            return None;
        }
        crc = expected;
        offset = end + CRC;
        Some(&bytes[start..start + length])
    })
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}
