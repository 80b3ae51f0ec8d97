//! Which records say the same. The key is specified in `docs/mapping.md`; 16 bytes of it are held for each record.

use arrow_array::RecordBatch;
use unicode_normalization::UnicodeNormalization as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::digest::digest;
use crate::error::Result;
use crate::record::{CONTENT, Kind, NAME, OWNER, RecordRef, RecordView, TimeRef};

/// First bytes of every encoding: the name and version of the key.
const MAGIC: &[u8] = b"memferry-dedup-1\n";
/// White space that is trimmed: the property `White_Space`, written out, so that no library changes the key.
const SPACE: [char; 25] = [
    '\u{9}', '\u{a}', '\u{b}', '\u{c}', '\u{d}', '\u{20}', '\u{85}', '\u{a0}', '\u{1680}', '\u{2000}', '\u{2001}',
    '\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}', '\u{2009}', '\u{200a}',
    '\u{2028}', '\u{2029}', '\u{202f}', '\u{205f}', '\u{3000}',
];
const SCOPES: usize = 5;
const SHARDS: usize = 256;

/// The text by which records are compared; `None` for a record that has none, and for relations.
fn text<'a>(r: &RecordRef<'a>) -> Option<&'a str> {
    let text = match r.kind {
        Kind::Entity => r.texts[NAME],
        Kind::Memory | Kind::Observation => r.texts[CONTENT],
        Kind::Relation => None,
    };
    text.map(|text| text.trim_matches(SPACE)).filter(|text| !text.is_empty())
}

/// The key of a record, or `None` where it is like no other.
pub fn key(r: &RecordRef<'_>, scratch: &mut Vec<u8>) -> Option<u128> {
    let text = text(r)?;
    scratch.clear();
    scratch.extend_from_slice(MAGIC);
    scratch.push(r.kind as u8);
    for scope in r.texts[..SCOPES].iter().chain([&r.texts[OWNER]]) {
        scratch.push(u8::from(scope.is_some()));
        if let Some(scope) = scope {
            scratch.extend_from_slice(&(scope.len() as u64).to_le_bytes());
            scratch.extend_from_slice(scope.as_bytes());
        }
    }
    if text.is_ascii() {
        scratch.extend_from_slice(text.as_bytes());
    } else {
        let mut bytes = [0; 4];
        for c in text.nfc() {
            scratch.extend_from_slice(c.encode_utf8(&mut bytes).as_bytes());
        }
    }
    Some(xxh3_128(scratch))
}

/// A digest of everything but id and times, for records that have a key.
pub fn body(r: &RecordRef<'_>, scratch: &mut Vec<u8>) -> Option<u128> {
    text(r)?;
    let mut rest = r.clone();
    rest.id = "";
    rest.times = [TimeRef::default(); 5];
    Some(digest(&rest, scratch))
}

/// Keys of many records, at most 20 bytes for each.
#[derive(Debug)]
pub struct DedupKeys {
    exact: bool,
    /// By the first byte, so that no vector is ever long enough for its growth to matter.
    shards: Vec<Vec<u128>>,
    sorted: bool,
}

impl DedupKeys {
    /// No keys. `exact`: of [`body`], else of [`key`].
    pub fn new(exact: bool) -> Self {
        Self { exact, shards: vec![Vec::new(); SHARDS], sorted: true }
    }

    /// Whether the keys are of [`body`].
    pub const fn exact(&self) -> bool {
        self.exact
    }

    fn of(&self, r: &RecordRef<'_>, scratch: &mut Vec<u8>) -> Option<u128> {
        if self.exact { body(r, scratch) } else { key(r, scratch) }
    }

    /// Keys of a batch, `None` for records without one.
    pub fn keys(&self, records: &RecordBatch) -> Result<Vec<Option<u128>>> {
        let mut scratch = Vec::new();
        Ok(RecordView::new(records)?.iter().map(|r| self.of(&r, &mut scratch)).collect())
    }

    /// Adds keys.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = u128>) {
        for key in keys {
            let shard = &mut self.shards[(key >> 120) as usize];
            if shard.len() == shard.capacity() {
                shard.reserve_exact((shard.len() / 4).max(16));
            }
            shard.push(key);
        }
        self.sorted = false;
    }

    /// Keys that were added.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held for the keys.
    pub fn held_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.capacity() * size_of::<u128>()).sum()
    }

    fn sort(&mut self) {
        if !self.sorted {
            for shard in &mut self.shards {
                shard.sort_unstable();
            }
            self.sorted = true;
        }
    }

    /// Only the keys that stand more than once, each once, and how many records have one of them.
    pub fn repeated(&mut self) -> (Self, u64) {
        self.sort();
        let mut repeated = Self::new(self.exact);
        let mut records = 0;
        for shard in &self.shards {
            for group in shard.chunk_by(|a, b| a == b).filter(|group| group.len() > 1) {
                repeated.extend([group[0]]);
                records += group.len() as u64;
            }
        }
        (repeated, records)
    }

    /// Row and key of the records whose key was added.
    pub fn members(&mut self, records: &RecordBatch) -> Result<Vec<(usize, u128)>> {
        self.sort();
        let keys = self.keys(records)?;
        let known = |key: u128| self.shards[(key >> 120) as usize].binary_search(&key).is_ok();
        Ok(keys.into_iter().enumerate().filter_map(|(row, key)| Some((row, key.filter(|key| known(*key))?))).collect())
    }
}

/// The smallest identities that were added: a sample that does not depend on order, and can be told by its largest.
#[derive(Debug)]
pub struct Smallest {
    size: usize,
    heap: std::collections::BinaryHeap<u128>,
}

impl Smallest {
    /// Of at most `size` identities.
    pub fn new(size: usize) -> Self {
        Self { size, heap: std::collections::BinaryHeap::new() }
    }

    /// Adds identities.
    pub fn extend(&mut self, identities: impl IntoIterator<Item = u128>) {
        for identity in identities {
            self.heap.push(identity);
            if self.heap.len() > self.size {
                self.heap.pop();
            }
        }
    }

    /// The largest of them, `None` where nothing was added.
    pub fn largest(&self) -> Option<u128> {
        self.heap.peek().copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn memory(content: &str) -> RecordRef<'_> {
        let mut r = RecordRef::new(Kind::Memory, "m");
        r.texts[CONTENT] = Some(content);
        r
    }

    #[test]
    fn spelling_and_space_do_not_matter_and_everything_else_does() {
        let mut scratch = Vec::new();
        let mut of = |text: &str| key(&memory(text), &mut scratch);
        assert_eq!(of("caf\u{e9}"), of("\u{3000} cafe\u{301}\n"));
        assert_ne!(of("cafe"), of("Cafe"));
        assert_ne!(of("a b"), of("a  b"));
        assert_eq!(None, of(" \u{85}\t"));
        assert!(of("\u{200b}").is_some());
    }

    #[test]
    fn the_tables_are_of_the_version_in_the_specification() {
        assert_eq!((18, 0, 0), unicode_normalization::UNICODE_VERSION);
        assert!(SPACE.iter().all(|c| c.is_whitespace()));
        assert_eq!(25, (0..=0x0010_ffff).filter_map(char::from_u32).filter(|c| c.is_whitespace()).count());
    }

    #[test]
    fn what_differs_in_id_and_times_has_one_body() {
        let mut scratch = Vec::new();
        let mut other = memory("x");
        other.id = "n";
        other.times[0].micros = Some(1);
        assert_eq!(body(&memory("x"), &mut scratch), body(&other, &mut scratch));
        other.version = Some(1);
        assert_ne!(body(&memory("x"), &mut scratch), body(&other, &mut scratch));
        assert_eq!(None, body(&RecordRef::new(Kind::Relation, "r"), &mut scratch));
    }

    #[test]
    fn groups_are_counted_within_the_promised_memory() {
        let mut keys = DedupKeys::new(false);
        let spread = |n: u128| xxh3_128(&n.to_le_bytes());
        keys.extend((0..200_000).map(spread));
        keys.extend((0..100).chain(0..50).map(spread));
        assert!(keys.held_bytes() <= keys.len() * 24, "{}", keys.held_bytes() / keys.len());
        let (repeated, records) = keys.repeated();
        assert_eq!((100, 250), (repeated.len(), records));
    }

    #[test]
    fn a_sample_is_the_same_in_any_order() {
        let (mut a, mut b) = (Smallest::new(3), Smallest::new(3));
        a.extend([5, 1, 9, 4, 7]);
        b.extend([9, 7, 5]);
        b.extend([4, 1]);
        assert_eq!((Some(5), Some(5)), (a.largest(), b.largest()));
        assert_eq!(None, Smallest::new(3).largest());
        assert!(DedupKeys::new(true).keys(&RecordBatch::new_empty(crate::record::schema())).unwrap().is_empty());
    }
}
