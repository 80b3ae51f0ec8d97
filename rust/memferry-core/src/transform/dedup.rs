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
/// Keys a block, 4 KiB.
const BLOCK: usize = 256;

/// The text by which records are compared; `None` for a record that has none, and for relations.
fn text<'a>(r: &RecordRef<'a>) -> Option<&'a str> {
    let text = match r.kind {
        Kind::Entity => r.texts[NAME],
        Kind::Memory | Kind::Observation => r.texts[CONTENT],
        Kind::Relation => None,
    };
    text.map(trimmed).filter(|text| !text.is_empty())
}

fn trimmed(text: &str) -> &str {
    // No white space is between these two, and most texts begin and end there.
    let inner = |byte: Option<&u8>| byte.is_some_and(|byte| (0x21..0x7f).contains(byte));
    let bytes = text.as_bytes();
    if inner(bytes.first()) && inner(bytes.last()) { text } else { text.trim_matches(SPACE) }
}

/// The key of a record, or `None` where it is like no other.
pub fn key(r: &RecordRef<'_>, scratch: &mut Vec<u8>) -> Option<u128> {
    let text = text(r)?;
    scratch.clear();
    scratch.extend_from_slice(MAGIC);
    let owners = || r.texts[..SCOPES].iter().chain([&r.texts[OWNER]]);
    if owners().all(Option::is_none) {
        scratch.extend_from_slice(&[r.kind as u8, 0, 0, 0, 0, 0, 0]);
    } else {
        scratch.push(r.kind as u8);
        for owner in owners() {
            scratch.push(u8::from(owner.is_some()));
            if let Some(owner) = owner {
                scratch.extend_from_slice(&(owner.len() as u64).to_le_bytes());
                scratch.extend_from_slice(owner.as_bytes());
            }
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

/// Keys of many records, about 16 bytes for each.
#[derive(Debug)]
pub struct DedupKeys {
    exact: bool,
    /// By the first byte.
    shards: Vec<Shard>,
    sorted: bool,
}

impl DedupKeys {
    /// No keys. `exact`: of [`body`], else of [`key`].
    pub fn new(exact: bool) -> Self {
        Self { exact, shards: (0..SHARDS).map(|_| Shard::default()).collect(), sorted: true }
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
            self.shards[(key >> 120) as usize].push(key);
        }
        self.sorted = false;
    }

    /// Keys that were added.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held for the keys.
    pub fn held_bytes(&self) -> usize {
        self.shards.iter().map(Shard::held_bytes).sum()
    }

    fn sort(&mut self) {
        if !self.sorted {
            let mut sorter = Sorter::default();
            for shard in &mut self.shards {
                sorter.sort(shard);
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
            let mut keys = shard.iter().peekable();
            while let Some(key) = keys.next() {
                let mut count = 1;
                while keys.next_if_eq(&key).is_some() {
                    count += 1;
                }
                if count > 1 {
                    repeated.extend([key]);
                    records += count;
                }
            }
        }
        (repeated, records)
    }

    /// Row and key of the records whose key was added.
    pub fn members(&mut self, records: &RecordBatch) -> Result<Vec<(usize, u128)>> {
        self.sort();
        let keys = self.keys(records)?;
        let known = |key: u128| self.shards[(key >> 120) as usize].contains(key);
        Ok(keys.into_iter().enumerate().filter_map(|(row, key)| Some((row, key.filter(|key| known(*key))?))).collect())
    }
}

/// Keys with one first byte, in blocks of one size: growing copies nothing.
#[derive(Debug, Default)]
struct Shard {
    /// All full but for the last one.
    blocks: Vec<Vec<u128>>,
}

impl Shard {
    fn push(&mut self, key: u128) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(key),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(key);
                self.blocks.push(block);
            }
        }
    }

    fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    fn held_bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.capacity() * size_of::<u128>()).sum();
        blocks + self.blocks.capacity() * size_of::<Vec<u128>>()
    }

    fn iter(&self) -> impl Iterator<Item = u128> {
        self.blocks.iter().flatten().copied()
    }

    /// Whether a sorted shard has the key.
    fn contains(&self, key: u128) -> bool {
        let i = self.blocks.partition_point(|block| block.last().is_some_and(|last| *last < key));
        self.blocks.get(i).is_some_and(|block| block.binary_search(&key).is_ok())
    }
}

/// Sorts shards, one after another. Keys are hashes, so their next bits say about where each one goes.
#[derive(Debug, Default)]
struct Sorter {
    /// Where the next key of each bucket goes.
    places: Vec<u32>,
    sorted: Vec<u128>,
}

impl Sorter {
    fn sort(&mut self, shard: &mut Shard) {
        let bits = shard.len().max(2).ilog2().min(16);
        let bucket = |key: u128| ((key << 8) >> (128 - bits)) as usize;
        self.places.clear();
        self.places.resize((1 << bits) + 1, 0);
        for key in shard.iter() {
            self.places[bucket(key) + 1] += 1;
        }
        let mut before = 0;
        for place in &mut self.places {
            before += *place;
            *place = before;
        }
        self.sorted.clear();
        self.sorted.resize(shard.len(), 0);
        for key in shard.iter() {
            let place = &mut self.places[bucket(key)];
            self.sorted[*place as usize] = key;
            *place += 1;
        }
        // Each bucket begins now where the one before it ends.
        let mut start = 0;
        for end in &self.places[..1 << bits] {
            let end = *end as usize;
            if end - start > 1 {
                self.sorted[start..end].sort_unstable();
            }
            start = end;
        }
        for (block, sorted) in shard.blocks.iter_mut().zip(self.sorted.chunks(BLOCK)) {
            block.copy_from_slice(sorted);
        }
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
    fn any_keys_are_sorted_and_found() {
        let spread = |n: u128| xxh3_128(&n.to_le_bytes());
        let sets: [Vec<u128>; 6] = [
            vec![],
            vec![7],
            vec![7; 1000],
            (0..2000).rev().collect(),
            (0..3000).map(|n| spread(n % 900)).collect(),
            (0..BLOCK as u128 * 3).map(|n| n << 100 | 0xff << 120).collect(),
        ];
        for set in sets {
            let mut keys = DedupKeys::new(false);
            keys.extend(set.iter().copied());
            assert_eq!(set.len(), keys.len());
            keys.sort();
            let mut expected = set.clone();
            expected.sort_unstable();
            assert_eq!(expected, keys.shards.iter().flat_map(Shard::iter).collect::<Vec<_>>());
            for key in set.iter().copied().chain([0, 1, spread(1_000_000), u128::MAX]) {
                assert_eq!(set.contains(&key), keys.shards[(key >> 120) as usize].contains(key), "{key}");
            }
            let groups: Vec<_> = expected.chunk_by(|a, b| a == b).filter(|group| group.len() > 1).collect();
            let (repeated, records) = keys.repeated();
            assert_eq!(groups.len(), repeated.len());
            assert_eq!(groups.iter().map(|group| group.len() as u64).sum::<u64>(), records);
        }
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
