//! Reading lines in pages by byte offset.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;

use super::{Compression, MAX_LINE_BYTES, open, unpack};
use crate::error::{Code, Error, Result};
use crate::raw::RawBuilder;

/// Lines of one page.
pub struct Page {
    /// Raw batch; the key of a row is the byte offset of its line, unpacked.
    pub raw: RecordBatch,
    /// Lines that were read, blank ones apart.
    pub read: u64,
    /// Offset of the next line; `None` at the end of the range.
    pub next: Option<u64>,
}

/// Reads one file; keeps its place, so that reading on costs nothing.
pub struct Reader {
    path: PathBuf,
    compression: Compression,
    stream: Option<BufReader<Box<dyn Read + Send>>>,
    position: u64,
    line: Vec<u8>,
}

impl Reader {
    /// Opens the file.
    pub fn open(path: &Path) -> Result<Self> {
        drop(open(path)?);
        Ok(Self {
            path: path.to_owned(),
            compression: Compression::of(path),
            stream: None,
            position: 0,
            line: Vec::new(),
        })
    }

    /// Whether byte ranges can be read in parallel.
    pub fn seekable(&self) -> bool {
        self.compression == Compression::None
    }

    fn go_to(&mut self, offset: u64) -> Result<()> {
        if self.stream.is_some() && self.position == offset {
            return Ok(());
        }
        let stream: Box<dyn Read + Send> = if self.seekable() {
            let mut file = open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            Box::new(file)
        } else {
            let mut stream = unpack(&self.path, self.compression)?;
            let skipped = std::io::copy(&mut stream.by_ref().take(offset), &mut std::io::sink())?;
            if skipped < offset {
                return Err(Error::new(Code::StoreCorrupt, format!("{}: shorter than before", self.path.display())));
            }
            stream
        };
        self.stream = Some(BufReader::with_capacity(1 << 20, stream));
        self.position = offset;
        Ok(())
    }

    /// The next line without its end; `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<u64>> {
        let start = self.position;
        let Some(stream) = &mut self.stream else { return Ok(None) };
        self.line.clear();
        let read = stream.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut self.line).map_err(|e| {
            let code = if self.compression == Compression::None { Code::Io } else { Code::StoreCorrupt };
            Error::new(code, format!("{} at byte {start}: {e}", self.path.display()))
        })? as u64;
        if read > MAX_LINE_BYTES {
            let place = self.path.display();
            return Err(Error::invalid(format!("{place} at byte {start}: a line longer than {MAX_LINE_BYTES} bytes")));
        }
        if read == 0 {
            return Ok(None);
        }
        self.position += read;
        while matches!(self.line.last(), Some(b'\n' | b'\r')) {
            self.line.pop();
        }
        if start == 0 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        Ok(Some(start))
    }

    /// Reads lines that start in `from..until` until one of the limits is met.
    pub fn read_page(&mut self, from: u64, until: Option<u64>, max_records: usize, max_bytes: usize) -> Result<Page> {
        self.go_to(from)?;
        let until = until.unwrap_or(u64::MAX);
        let mut raw = RawBuilder::default();
        let mut next = None;
        while self.position < until {
            if raw.len() == max_records || raw.bytes() >= max_bytes {
                next = Some(self.position);
                break;
            }
            let Some(start) = self.next_line()? else { break };
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                raw.push(&start.to_string(), &self.line, &[]);
            }
        }
        let read = raw.len() as u64;
        Ok(Page { raw: raw.finish()?, read, next })
    }
}

/// The start of the first line at or after `offset`, or the length of the file.
pub fn align(path: &Path, offset: u64) -> Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let mut file = open(path)?;
    file.seek(SeekFrom::Start(offset - 1))?;
    let mut skipped = 0_u64;
    let mut reader = BufReader::new(file);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(offset - 1 + skipped);
        }
        let found = memchr::memchr(b'\n', buffer);
        let used = found.map_or(buffer.len(), |i| i + 1);
        reader.consume(used);
        skipped += used as u64;
        if found.is_some() {
            return Ok(offset - 1 + skipped);
        }
    }
}
