//! Record digests: xxh3-128 over the canonical encoding of a record. Specified in `docs/record.md`, with test vectors in
//! `tests/vectors/` and a second implementation in plain Python in the tests.

use std::sync::Arc;

use arrow_array::RecordBatch;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Result;
use crate::record::{RecordRef, RecordView, VectorRef};

/// First bytes of every encoding: the name and version of the format.
const MAGIC: &[u8] = b"memferry-record-1\n";

// Tags of the fields. Texts take 0x10 and up, times 0x30, scores 0x40, in the order of the schema.
const TAG_KIND: u8 = 0x01;
const TAG_ID: u8 = 0x02;
const TAG_TEXT: u8 = 0x10;
const TAG_TIME: u8 = 0x30;
const TAG_SCORE: u8 = 0x40;
const TAG_VERSION: u8 = 0x50;
const TAG_TAGS: u8 = 0x51;
const TAG_EXTRA: u8 = 0x52;
const TAG_VECTORS: u8 = 0x53;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn put_vector(out: &mut Vec<u8>, v: &VectorRef<'_>) {
    put_bytes(out, v.name.as_bytes());
    put_option(out, v.model.map(str::as_bytes));
    out.extend_from_slice(&v.dim.to_le_bytes());
    out.push(v.normalized.map_or(2, u8::from));
    out.push(v.kind as u8);
    if let Some(indices) = v.indices {
        put_pairs(out, indices, v.data);
    } else {
        put_option(out, None);
        put_bytes(out, v.data);
    }
}

/// Indices and numbers of a sparse vector, which is a set of pairs: stores give them back in an order of their own.
fn put_pairs(out: &mut Vec<u8>, indices: &[u8], data: &[u8]) {
    let index = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let mut pairs: Vec<_> = indices.chunks_exact(4).map(index).zip(data.chunks_exact(4)).collect();
    if pairs.len() * 4 != indices.len() || indices.len() != data.len() || pairs.is_sorted_by_key(|(i, _)| *i) {
        put_option(out, Some(indices));
        put_bytes(out, data);
        return;
    }
    pairs.sort_by_key(|(i, _)| *i);
    out.push(1);
    out.extend_from_slice(&(indices.len() as u64).to_le_bytes());
    out.extend(pairs.iter().flat_map(|(i, _)| i.to_le_bytes()));
    out.extend_from_slice(&(data.len() as u64).to_le_bytes());
    out.extend(pairs.iter().flat_map(|(_, number)| *number));
}

/// Appends the canonical encoding of `r`. Fields that are null are left out, so a field added later changes no digest.
pub fn encode(r: &RecordRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[TAG_KIND, r.kind as u8, TAG_ID]);
    put_bytes(out, r.id.as_bytes());
    for (i, text) in r.texts.iter().enumerate() {
        if let Some(text) = text {
            out.push(TAG_TEXT + i as u8);
            put_bytes(out, text.as_bytes());
        }
    }
    for (i, time) in r.times.iter().enumerate() {
        if time.micros.is_some() || time.text.is_some() {
            out.push(TAG_TIME + i as u8);
            out.push(u8::from(time.micros.is_some()));
            out.extend_from_slice(&time.micros.unwrap_or(0).to_le_bytes());
            put_option(out, time.text.map(str::as_bytes));
        }
    }
    for (i, score) in r.scores.iter().enumerate() {
        if let Some(score) = score {
            out.push(TAG_SCORE + i as u8);
            out.extend_from_slice(&score.to_bits().to_le_bytes());
        }
    }
    if let Some(version) = r.version {
        out.push(TAG_VERSION);
        out.extend_from_slice(&version.to_le_bytes());
    }
    if let Some(tags) = &r.tags {
        out.push(TAG_TAGS);
        out.extend_from_slice(&(tags.len() as u64).to_le_bytes());
        for tag in tags {
            put_bytes(out, tag.as_bytes());
        }
    }
    if r.extra != "{}" {
        out.push(TAG_EXTRA);
        put_bytes(out, r.extra.as_bytes());
    }
    if !r.vectors.is_empty() {
        out.push(TAG_VECTORS);
        out.extend_from_slice(&(r.vectors.len() as u64).to_le_bytes());
        if r.vectors.len() == 1 {
            put_vector(out, &r.vectors[0]);
        } else {
            // Stores that name their vectors give them back in no order, so names order them here.
            let mut sorted: Vec<_> = r.vectors.iter().collect();
            sorted.sort_by_key(|v| v.name);
            for v in sorted {
                put_vector(out, v);
            }
        }
    }
}

/// Digest of one record; `scratch` is reused between calls.
pub fn digest(r: &RecordRef<'_>, scratch: &mut Vec<u8>) -> u128 {
    scratch.clear();
    encode(r, scratch);
    xxh3_128(scratch)
}

/// Digests of all rows of a canonical batch.
pub fn digests(batch: &RecordBatch) -> Result<Vec<u128>> {
    let view = RecordView::new(batch)?;
    let mut scratch = Vec::new();
    Ok(view.iter().map(|r| digest(&r, &mut scratch)).collect())
}

/// Whether two batches are one: the same columns, not equal ones.
pub fn same(one: &RecordBatch, other: &RecordBatch) -> bool {
    let mut columns = one.columns().iter().zip(other.columns());
    one.num_columns() == other.num_columns() && columns.all(|(a, b)| std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)))
}

/// Rows of `before` whose record is another in `after`: how many, and the id of the first.
pub fn unlike(before: &RecordBatch, after: &RecordBatch) -> Result<Option<(u64, String)>> {
    if same(before, after) {
        return Ok(None);
    }
    let (before, after) = (RecordView::new(before)?, RecordView::new(after)?);
    let mut scratch = Vec::new();
    let mut rows = before.iter().zip(after.iter()).filter(|(a, b)| digest(a, &mut scratch) != digest(b, &mut scratch));
    let first = rows.next().map(|(a, _)| a.id.to_owned());
    Ok(first.map(|id| (rows.count() as u64 + 1, id)))
}

/// The 128-bit key under which a record is counted and looked up: kind and id.
pub fn identity(kind: crate::record::Kind, id: &str) -> u128 {
    let mut bytes = smallvec::SmallVec::<[u8; 128]>::new();
    bytes.push(kind as u8);
    bytes.extend_from_slice(id.as_bytes());
    xxh3_128(&bytes)
}
