//! Finding records of an existing file by kind and id, for a sync that rewrites it.

use std::path::Path;

use arrow_array::RecordBatch;
use hashbrown::{HashMap, HashSet};

use super::read::Reader;
use crate::digest::identity;
use crate::error::Result;
use crate::mapper::Mapper;
use crate::raw::{RawBuilder, RawView};
use crate::record::{Kind, RecordView};

/// Records of a file by identity. Holds 40 bytes a record; lines stay in the file.
pub struct Index {
    reader: Reader,
    offsets: HashMap<u128, u64>,
    replaced: HashSet<u64>,
}

impl Index {
    /// Reads the whole file once.
    pub fn build(path: &Path, mapper: &Mapper) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let mut offsets = HashMap::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let page = reader.read_page(start, None, 4096, 8 << 20)?;
            let decoded = mapper.decode(&page.raw)?;
            for r in RecordView::new(&decoded.records)?.iter() {
                if let Some(offset) = r.key.and_then(|k| k.parse().ok()) {
                    offsets.insert(identity(r.kind, r.id), offset);
                }
            }
            from = page.next;
        }
        Ok(Self { reader, offsets, replaced: HashSet::new() })
    }

    /// The lines of the records with these identities, decoded.
    pub fn fetch(&mut self, mapper: &Mapper, keys: &[(Kind, &str)]) -> Result<RecordBatch> {
        let mut raw = RawBuilder::default();
        let mut offsets: Vec<u64> =
            keys.iter().filter_map(|(kind, id)| self.offsets.get(&identity(*kind, id)).copied()).collect();
        offsets.sort_unstable();
        offsets.dedup();
        for offset in offsets {
            let page = self.reader.read_page(offset, Some(offset + 1), 1, usize::MAX)?;
            let view = RawView::new(&page.raw)?;
            if !view.is_empty() {
                raw.push(view.key(0), view.body(0), &[]);
            }
        }
        Ok(mapper.decode(&raw.finish()?)?.records)
    }

    /// Says that these records are in the new file, or are to be left out of it.
    pub fn replace(&mut self, keys: &[(Kind, &str)]) {
        for (kind, id) in keys {
            if let Some(offset) = self.offsets.get(&identity(*kind, id)) {
                self.replaced.insert(*offset);
            }
        }
    }

    /// The next lines of the old file that nobody replaced, as they are, and where to go on.
    pub fn rest(&mut self, from: u64) -> Result<(RecordBatch, Option<u64>)> {
        let page = self.reader.read_page(from, None, 4096, 8 << 20)?;
        let view = RawView::new(&page.raw)?;
        let mut raw = RawBuilder::default();
        for row in 0..view.len() {
            let replaced = view.key(row).parse::<u64>().is_ok_and(|offset| self.replaced.contains(&offset));
            if !replaced {
                raw.push(view.key(row), view.body(row), &[]);
            }
        }
        Ok((raw.finish()?, page.next))
    }
}
