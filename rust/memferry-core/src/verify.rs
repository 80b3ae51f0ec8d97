//! Proof: sums over buckets of both ends, and the drill-down into buckets that differ.

use arrow_array::RecordBatch;
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::digest::{digest, identity};
use crate::error::{Error, Result};
use crate::record::{Kind, RecordRef, RecordView, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorRef};
use crate::value::canonical_f64;

/// Whose records of a target are judged.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Records marked by this migration are.
    pub migration: &'a str,
    /// So are records without any marker: the target was empty before the migration.
    pub unmarked: bool,
}

impl Owner<'_> {
    fn counts(&self, r: &RecordRef<'_>) -> bool {
        r.marker_migration.map_or(self.unmarked, |migration| migration == self.migration)
    }
}

/// Count and sum of the records of one end, by hash of their identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    counts: Vec<u64>,
    sums: Vec<u128>,
    by_kind: [u64; 4],
}

fn item(identity: u128, digest: u128) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&identity.to_le_bytes());
    bytes[16..].copy_from_slice(&digest.to_le_bytes());
    xxh3_128(&bytes)
}

fn bucket(identity: u128, buckets: usize) -> usize {
    (identity % buckets as u128) as usize
}

/// What records add to buckets. Made apart, so that nobody waits for the buckets meanwhile.
#[derive(Debug)]
pub struct Items {
    /// The bucket of each, and what it adds to it.
    summands: Vec<(usize, u128)>,
    by_kind: [u64; 4],
    /// Records that do not count.
    pub left_out: u64,
}

impl Items {
    /// Of records, with `of` those it counts, for that many buckets.
    pub fn of(records: &RecordBatch, buckets: usize, of: Option<Owner<'_>>) -> Result<Self> {
        let view = RecordView::new(records)?;
        let mut made = Self { summands: Vec::with_capacity(view.len()), by_kind: [0; 4], left_out: 0 };
        let mut scratch = Vec::new();
        for r in view.iter() {
            if of.is_some_and(|of| !of.counts(&r)) {
                made.left_out += 1;
                continue;
            }
            let identity = identity(r.kind, r.id);
            made.summands.push((bucket(identity, buckets), item(identity, digest(&r, &mut scratch))));
            made.by_kind[r.kind as usize] += 1;
        }
        Ok(made)
    }
}

impl Buckets {
    /// `buckets` empty buckets.
    pub fn new(buckets: usize) -> Self {
        Self { counts: vec![0; buckets.max(1)], sums: vec![0; buckets.max(1)], by_kind: [0; 4] }
    }

    /// Adds records, with `of` those it counts. How many were left out.
    pub fn add(&mut self, records: &RecordBatch, of: Option<Owner<'_>>) -> Result<u64> {
        let items = Items::of(records, self.len(), of)?;
        self.add_items(&items);
        Ok(items.left_out)
    }

    /// How many buckets there are.
    pub const fn len(&self) -> usize {
        self.counts.len()
    }

    /// Never: there is one at least.
    pub const fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds what was made of records for as many buckets as there are.
    pub fn add_items(&mut self, items: &Items) {
        for (bucket, item) in &items.summands {
            self.counts[*bucket] += 1;
            self.sums[*bucket] = self.sums[*bucket].wrapping_add(*item);
        }
        for (sum, count) in self.by_kind.iter_mut().zip(items.by_kind) {
            *sum += count;
        }
    }

    /// Records added, by kind.
    pub const fn by_kind(&self) -> [u64; 4] {
        self.by_kind
    }

    /// Buckets that are not equal.
    pub fn unequal(&self, other: &Self) -> Result<Vec<usize>> {
        if self.counts.len() != other.counts.len() {
            return Err(Error::invalid("verify: different numbers of buckets"));
        }
        Ok((0..self.counts.len())
            .filter(|&i| self.counts[i] != other.counts[i] || self.sums[i] != other.sums[i])
            .collect())
    }

    /// One digest over everything, to tell two passes over one store apart.
    pub fn total(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.counts.len() * 24);
        for (count, sum) in self.counts.iter().zip(&self.sums) {
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        xxh3_128(&bytes)
    }
}

#[derive(Debug, Clone)]
struct Seen {
    kind: Kind,
    id: String,
    digest: u128,
    marked: bool,
}

/// Record by record comparison within some buckets.
#[derive(Debug)]
pub struct Drill {
    buckets: usize,
    wanted: HashSet<usize>,
    expected: HashMap<u128, Seen>,
    found: HashMap<u128, Seen>,
}

/// One finding of the drill-down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `missing`, `extra` or `different`.
    pub what: &'static str,
    /// Kind of the record.
    pub kind: Kind,
    /// Id of the record.
    pub id: String,
}

impl Drill {
    /// Looks into `wanted` of `buckets`.
    pub fn new(buckets: usize, wanted: impl IntoIterator<Item = usize>) -> Self {
        let buckets = buckets.max(1);
        Self { buckets, wanted: wanted.into_iter().collect(), expected: HashMap::new(), found: HashMap::new() }
    }

    fn select(&self, records: &RecordBatch, of: Option<Owner<'_>>) -> Result<Vec<(u128, Seen)>> {
        let mut scratch = Vec::new();
        Ok(RecordView::new(records)?
            .iter()
            .filter_map(|r| {
                let key = identity(r.kind, r.id);
                self.wanted.contains(&bucket(key, self.buckets)).then(|| {
                    let digest = digest(&r, &mut scratch);
                    let ours = of.is_none_or(|of| of.counts(&r));
                    (key, Seen { kind: r.kind, id: r.id.to_owned(), digest, marked: ours })
                })
            })
            .collect())
    }

    /// Adds records as the target is expected to hold them.
    pub fn add_expected(&mut self, records: &RecordBatch) -> Result<()> {
        let selected = self.select(records, None)?;
        self.expected.extend(selected);
        Ok(())
    }

    /// Adds records the target holds. Without `of`, every one of them counts as ours.
    pub fn find(&mut self, records: &RecordBatch, of: Option<Owner<'_>>) -> Result<()> {
        for (key, record) in self.select(records, of)? {
            // A record can stand twice in a file; the second is one too many, under a key nobody expects.
            let mut free = key;
            while self.found.contains_key(&free) {
                free = free.wrapping_add(1);
            }
            self.found.insert(free, record);
        }
        Ok(())
    }

    /// What differs, in the order of kind and id.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut push = |what, seen: &Seen| findings.push(Finding { what, kind: seen.kind, id: seen.id.clone() });
        for (identity, seen) in &self.expected {
            match self.found.get(identity) {
                None => push("missing", seen),
                Some(found) if found.digest != seen.digest => push("different", seen),
                Some(_) => {}
            }
        }
        for (identity, seen) in &self.found {
            if !self.expected.contains_key(identity) && seen.marked {
                push("extra", seen);
            }
        }
        findings.sort_by(|a, b| (a.kind, &a.id, a.what).cmp(&(b.kind, &b.id, b.what)));
        findings
    }
}

/// A field in which two records differ: name, value there, value here.
pub type FieldDiff = (String, Option<String>, Option<String>);

/// All fields in which two records differ.
pub fn diff(expected: &RecordRef<'_>, found: &RecordRef<'_>) -> Vec<FieldDiff> {
    let mut diffs = Vec::new();
    let mut compare = |name: String, a: Option<String>, b: Option<String>| {
        if a != b {
            diffs.push((name, a, b));
        }
    };
    let own = |text: Option<&str>| text.map(str::to_owned);
    for (i, name) in TEXT_FIELDS.iter().enumerate() {
        compare((*name).to_owned(), own(expected.texts[i]), own(found.texts[i]));
    }
    for (i, name) in TIME_FIELDS.iter().enumerate() {
        let (a, b) = (expected.times[i], found.times[i]);
        compare((*name).to_owned(), a.micros.map(|m| m.to_string()), b.micros.map(|m| m.to_string()));
        compare(format!("{name}_text"), own(a.text), own(b.text));
    }
    for (i, name) in SCORE_FIELDS.iter().enumerate() {
        compare((*name).to_owned(), expected.scores[i].map(canonical_f64), found.scores[i].map(canonical_f64));
    }
    compare("version".to_owned(), expected.version.map(|v| v.to_string()), found.version.map(|v| v.to_string()));
    let tags = |r: &RecordRef<'_>| r.tags.as_ref().map(|tags| format!("{tags:?}"));
    compare("tags".to_owned(), tags(expected), tags(found));
    compare("extra".to_owned(), Some(expected.extra.to_owned()), Some(found.extra.to_owned()));
    diff_vectors(expected, found, &mut diffs);
    diffs
}

fn diff_vectors(expected: &RecordRef<'_>, found: &RecordRef<'_>, diffs: &mut Vec<FieldDiff>) {
    let names: std::collections::BTreeSet<String> =
        names(&expected.vectors).chain(names(&found.vectors)).map(str::to_owned).collect();
    for name in &names {
        let of = |r: &RecordRef<'_>| r.vectors.iter().filter(|v| v.name == *name).map(show).collect::<Vec<_>>();
        let (a, b) = (of(expected), of(found));
        if a == b {
            continue;
        }
        let pick = |r: &RecordRef<'_>| r.vectors.iter().find(|v| v.name == *name).map(|v| v.data.to_vec());
        let first = match (pick(expected), pick(found)) {
            (Some(x), Some(y)) if x.len() == y.len() => x.chunks(4).zip(y.chunks(4)).position(|(p, q)| p != q),
            _ => None,
        };
        let place = first.map_or_else(|| format!("vectors[{name:?}]"), |i| format!("vectors[{name:?}].data[{i}]"));
        let value = |r: &RecordRef<'_>, shown: &[String]| match first {
            Some(i) => pick(r).map(|d| {
                let bytes = &d[i * 4..i * 4 + 4];
                let number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                format!("{number} (0x{:08x})", number.to_bits())
            }),
            None => (!shown.is_empty()).then(|| shown.join("; ")),
        };
        diffs.push((place, value(expected, &a), value(found, &b)));
    }
}

fn names<'a>(vectors: &'a [VectorRef<'_>]) -> impl Iterator<Item = &'a str> {
    vectors.iter().map(|v| v.name)
}

fn show(v: &VectorRef<'_>) -> String {
    format!(
        "{:?} dim {} model {:?} normalized {:?} {} bytes xxh3 {:032x}",
        v.kind,
        v.dim,
        v.model,
        v.normalized,
        v.data.len(),
        xxh3_128(&[v.data, v.indices.unwrap_or_default()].concat()),
    )
}
