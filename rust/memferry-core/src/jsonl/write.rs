//! Writing part files, and joining them into the file that was asked for.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;

use super::Compression;
use crate::error::{Error, Result};
use crate::raw::RawView;

enum Packer {
    Plain(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<File>>),
}

/// One part: the lines of one range, packed as the whole file will be. Members and frames may follow one another.
pub struct Part {
    path: PathBuf,
    packer: Packer,
}

impl Part {
    /// Starts the part over.
    pub fn create(path: &Path, compression: Compression) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::from(e).at(path.display()))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let packer = match compression {
            Compression::None => Packer::Plain(file),
            Compression::Gzip => Packer::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::new(6))),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(file, 3)?;
                encoder.include_checksum(true)?;
                Packer::Zstd(encoder)
            }
        };
        Ok(Self { path: path.to_owned(), packer })
    }

    /// Appends one line a row.
    pub fn append(&mut self, raw: &RecordBatch) -> Result<()> {
        self.write(&RawView::new(raw)?).map_err(|e| Error::from(e).in_file(&self.path))
    }

    fn write(&mut self, view: &RawView<'_>) -> std::io::Result<()> {
        let out: &mut dyn Write = match &mut self.packer {
            Packer::Plain(out) => out,
            Packer::Gzip(out) => out,
            Packer::Zstd(out) => out,
        };
        for row in 0..view.len() {
            out.write_all(view.body(row))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Ends the part: on return it is on the disk.
    pub fn finish(self) -> Result<()> {
        let Self { path, packer } = self;
        end(packer).map_err(|e| Error::from(e).in_file(&path))
    }
}

fn end(packer: Packer) -> std::io::Result<()> {
    let buffered = match packer {
        Packer::Plain(out) => out,
        Packer::Gzip(out) => out.finish()?,
        Packer::Zstd(out) => out.finish()?,
    };
    buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// Joins `parts` into `whole`: written beside it, synced, then renamed over it.
pub fn concatenate(parts: &[&Path], whole: &Path) -> Result<()> {
    let mut name = whole.as_os_str().to_owned();
    name.push(".memferry-new");
    let fresh = Path::new(&name);
    let at = |e: std::io::Error| Error::from(e).in_file(fresh);
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(fresh).map_err(at)?;
    for part in parts {
        let mut file = File::open(part).map_err(|e| Error::from(e).at(part.display()))?;
        std::io::copy(&mut file, &mut out).map_err(at)?;
    }
    out.sync_all().map_err(at)?;
    std::fs::rename(fresh, whole).map_err(at)?;
    sync_folder(whole)
}

/// Makes a rename durable.
pub fn sync_folder(file: &Path) -> Result<()> {
    let folder = std::path::absolute(file)?;
    if let Some(folder) = folder.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
