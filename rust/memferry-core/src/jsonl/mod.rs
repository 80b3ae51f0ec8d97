//! Files with one JSON document a line, plain or compressed (`.gz`, `.zst`).

mod index;
mod read;
mod write;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{Code, Error, Result};

pub use index::Index;
pub use read::{Page, Reader, align};
pub use write::{Part, concatenate, sync_folder};

/// Longest line that is read; a longer one stops the run, for nothing could hold it whole.
pub const MAX_LINE_BYTES: u64 = 256 << 20;

/// How the bytes of a file are packed, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain text.
    None,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames.
    Zstd,
}

impl Compression {
    /// From the ending.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::None,
        }
    }
}

fn open(path: &Path) -> Result<File> {
    if !path.is_file() {
        return Err(Error::new(Code::StoreMissing, format!("no file: {}", path.display())));
    }
    File::open(path).map_err(|e| Error::from(e).at(path.display()))
}

fn unpack(path: &Path, compression: Compression) -> Result<Box<dyn Read + Send>> {
    let file = BufReader::with_capacity(1 << 20, open(path)?);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
    })
}
