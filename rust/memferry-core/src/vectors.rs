//! Bringing vectors to length one before a store does it in its own way.
//!
//! Qdrant normalises vectors of Cosine collections in `f32`, by sums whose order depends on the processor, and leaves
//! alone those whose squared length it finds to be one or nothing. Here the same question is asked for every processor
//! it runs on; what one of them would change is normalised in `f64`, and asked again. So what is written comes back.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, ListArray, RecordBatch, StringArray, StructArray, UInt8Array, UInt32Array,
};
use arrow_buffer::Buffer;
use arrow_schema::DataType;

use crate::error::{Error, Result};
use crate::record::{RecordBuilder, RecordView, VectorKind, cast};

/// Qdrant leaves a squared length alone within 1e-6 of one; the margin is for sums that are one rounding off.
const TOLERANCE: f32 = 8.0e-7;
/// Below this squared length it leaves a vector alone as if it were zero; with the same margin.
const ZERO: f32 = f32::EPSILON * 0.999;
/// Tries to meet all processors at once; one is enough but for very long vectors.
const TRIES: usize = 8;

/// The batch with every dense or multi vector of these names at length one, as far as Qdrant would change it.
///
/// Vectors with NaN or infinities stay as they are, see [`not_finite`]. Other columns are shared with `records`; the
/// bytes of the vectors are copied if one of them changes.
pub fn normalize(records: &RecordBatch, names: &[String]) -> Result<RecordBatch> {
    let column = Column::of(records)?;
    let old = column.data.value_data();
    let mut new: Option<Vec<u8>> = None;
    let mut vector = Vec::new();
    for row in 0..records.num_rows() {
        for (range, dim) in column.wanted(row, names) {
            for start in range.step_by(dim * 4) {
                let span = start..start + dim * 4;
                vector.clear();
                vector.extend(floats(&old[span.clone()]));
                if let Some(unit) = unit(&vector) {
                    let bytes = &mut new.get_or_insert_with(|| old.to_vec())[span];
                    for (bytes, number) in bytes.chunks_exact_mut(4).zip(unit) {
                        bytes.copy_from_slice(&number.to_le_bytes());
                    }
                }
            }
        }
    }
    let Some(bytes) = new else { return Ok(records.clone()) };
    let mut columns = records.columns().to_vec();
    columns[column.index] = column.with(bytes)?;
    Ok(RecordBatch::try_new(records.schema(), columns)?)
}

/// Rows with a NaN or an infinity in a dense or multi vector of these names: a store that normalises cannot keep them.
pub fn not_finite(records: &RecordBatch, names: &[String]) -> Result<Vec<usize>> {
    let column = Column::of(records)?;
    let data = column.data.value_data();
    let bad = |row: &usize| {
        column.wanted(*row, names).any(|(range, _)| floats(&data[range]).any(|number| !number.is_finite()))
    };
    Ok((0..records.num_rows()).filter(bad).collect())
}

/// The batch without the vectors that a store cannot keep: of those of the names in `finite` each dense or multi one
/// with a NaN or an infinity, and each whose name one before it has, if `unnamed` says how it calls one without a name.
pub fn give_up(records: &RecordBatch, finite: &[String], unnamed: Option<&str>) -> Result<RecordBatch> {
    let view = RecordView::new(records)?;
    let mut out = RecordBuilder::sharing(RecordView::vectors_of(records)?)?;
    for row in 0..view.len() {
        let mut r = view.get(row);
        let mut names = Vec::new();
        r.vectors.retain(|v| {
            let odd = v.kind != VectorKind::Sparse
                && finite.iter().any(|name| name == v.name)
                && floats(v.data).any(|number| !number.is_finite());
            let name = unnamed.map(|word| if v.name.is_empty() { word } else { v.name });
            let kept = !odd && name.is_none_or(|name| !names.contains(&name));
            names.extend(name.filter(|_| kept));
            kept
        });
        out.push(&r)?;
    }
    out.finish()
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// A `vectors` column, canonical or raw.
struct Column<'a> {
    index: usize,
    list: &'a ListArray,
    item: &'a StructArray,
    names: &'a StringArray,
    dims: &'a UInt32Array,
    kinds: &'a UInt8Array,
    data: &'a BinaryArray,
    data_index: usize,
}

impl<'a> Column<'a> {
    fn of(records: &'a RecordBatch) -> Result<Self> {
        let index = records.schema_ref().index_of("vectors")?;
        let list: &ListArray = cast(records.column(index), "vectors")?;
        let item: &StructArray = cast(list.values(), "vectors.item")?;
        let DataType::Struct(fields) = item.data_type() else {
            return Err(Error::invalid("column vectors: not a list of structs"));
        };
        let find = |name: &str| {
            let found = fields.iter().position(|field| field.name() == name);
            found.ok_or_else(|| Error::invalid(format!("column vectors: no field {name}")))
        };
        let data_index = find("data")?;
        Ok(Self {
            index,
            list,
            item,
            names: cast(item.column(find("name")?), "vectors.name")?,
            dims: cast(item.column(find("dim")?), "vectors.dim")?,
            kinds: cast(item.column(find("kind")?), "vectors.kind")?,
            data: cast(item.column(data_index), "vectors.data")?,
            data_index,
        })
    }

    /// Where the bytes of a row's dense and multi vectors of these names lie, and numbers a row of each.
    fn wanted<'n>(&'n self, row: usize, names: &'n [String]) -> impl Iterator<Item = (Range<usize>, usize)> + 'n {
        let offsets = self.list.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize).filter_map(move |i| {
            let ends = &self.data.value_offsets()[i..=i + 1];
            let (range, dim) = (ends[0] as usize..ends[1] as usize, self.dims.value(i) as usize);
            let wanted = self.kinds.value(i) != VectorKind::Sparse as u8
                && dim > 0
                && range.len().is_multiple_of(dim * 4)
                && names.iter().any(|name| name == self.names.value(i));
            wanted.then_some((range, dim))
        })
    }

    /// The column with other bytes of the same lengths.
    fn with(&self, bytes: Vec<u8>) -> Result<ArrayRef> {
        let data =
            BinaryArray::try_new(self.data.offsets().clone(), Buffer::from_vec(bytes), self.data.nulls().cloned())?;
        let mut columns = self.item.columns().to_vec();
        columns[self.data_index] = Arc::new(data);
        let item = StructArray::try_new(self.item.fields().clone(), columns, self.item.nulls().cloned())?;
        let DataType::List(field) = self.list.data_type() else {
            return Err(Error::invalid("column vectors: not a list"));
        };
        let list =
            ListArray::try_new(field.clone(), self.list.offsets().clone(), Arc::new(item), self.list.nulls().cloned())?;
        Ok(Arc::new(list))
    }
}

/// The vector at length one; `None` where Qdrant leaves it alone, or nobody can help it.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    if kept(vector) {
        return None;
    }
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return None;
    }
    let mut scale = 1.0 / length;
    let mut unit: Vec<f32> = Vec::new();
    for _ in 0..TRIES {
        unit.clear();
        unit.extend(vector.iter().map(|x| (f64::from(*x) * scale) as f32));
        if kept(&unit) {
            break;
        }
        // Thousands of roundings can add up to more than the tolerance; the middle of the sums comes nearest to one.
        let sums = squared_lengths(&unit).map(f64::from);
        let middle =
            f64::midpoint(sums.iter().copied().fold(f64::MAX, f64::min), sums.iter().copied().fold(0.0, f64::max));
        scale /= middle.sqrt();
    }
    Some(unit)
}

/// Whether Qdrant leaves the vector alone, on whatever processor it runs.
fn kept(vector: &[f32]) -> bool {
    squared_lengths(vector).iter().all(|sum| (sum - 1.0).abs() <= TOLERANCE)
        || squared_lengths(vector).iter().all(|sum| *sum < ZERO)
}

/// The squared length as Qdrant adds it up with AVX, NEON and SSE; short vectors take the plainer ways there too.
fn squared_lengths(vector: &[f32]) -> [f32; 3] {
    let plain = || vector.iter().fold(0.0, |sum, x| sum + x * x);
    if vector.len() < 16 {
        return [plain(); 3];
    }
    let sse = sse(vector);
    let avx = if vector.len() < 32 { sse } else { avx(vector) };
    [avx, neon(vector), sse]
}

/// A fused multiply-add: the product of two `f32` is exact in `f64`.
fn fused(x: f32, sum: f32) -> f32 {
    (f64::from(x) * f64::from(x) + f64::from(sum)) as f32
}

/// Sums in `N` lanes, and what is left over.
fn lanes<const N: usize>(vector: &[f32], add: impl Fn(f32, f32) -> f32) -> ([f32; N], &[f32]) {
    let mut sums = [0.0_f32; N];
    let (chunks, rest) = vector.as_chunks::<N>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = add(*x, *sum);
        }
    }
    (sums, rest)
}

fn finish(sum: f32, rest: &[f32]) -> f32 {
    rest.iter().fold(sum, |sum, x| sum + x * x)
}

fn avx(vector: &[f32]) -> f32 {
    let (s, rest) = lanes::<32>(vector, fused);
    let total: [f32; 8] = std::array::from_fn(|i| (s[i] + s[i + 8]) + (s[i + 16] + s[i + 24]));
    let half: [f32; 4] = std::array::from_fn(|i| total[i + 4] + total[i]);
    finish((half[0] + half[1]) + (half[2] + half[3]), rest)
}

fn neon(vector: &[f32]) -> f32 {
    let (s, rest) = lanes::<16>(vector, fused);
    let total: [f32; 4] = std::array::from_fn(|i| (s[i] + s[i + 4]) + (s[i + 8] + s[i + 12]));
    finish((total[0] + total[1]) + (total[2] + total[3]), rest)
}

fn sse(vector: &[f32]) -> f32 {
    let (s, rest) = lanes::<16>(vector, |x, sum| x * x + sum);
    let across = |i: usize| (s[i] + s[i + 2]) + (s[i + 1] + s[i + 3]);
    finish(across(0) + across(4) + across(8) + across(12), rest)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::raw::{RawBuilder, RawView};
    use crate::record::{Kind, RecordRef, VectorRef};
    use proptest::prelude::*;

    fn le(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|f| f.to_le_bytes()).collect()
    }

    fn vector<'a>(name: &'a str, kind: VectorKind, dim: u32, data: &'a [u8]) -> VectorRef<'a> {
        VectorRef { name, model: None, dim, normalized: None, kind, indices: None, data }
    }

    /// Numbers without a pattern, from a seed.
    fn numbers(mut seed: u64, count: usize) -> Vec<f32> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) as f32 / 1_073_741_824.0) - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn long_vectors_satisfy_every_processor() {
        for dim in [1, 15, 16, 17, 31, 32, 33, 384, 768, 1536, 3072, 4096, 8192, 16_384, 65_536] {
            for seed in 0..20 {
                let unit = unit(&numbers(seed, dim)).unwrap_or_else(|| numbers(seed, dim));
                assert!(kept(&unit), "{dim} {seed} {:?}", squared_lengths(&unit));
            }
        }
    }

    #[test]
    fn one_sided_vectors_satisfy_every_processor() {
        for dim in [32, 100, 384, 1536, 4096, 65_536] {
            for vector in [vec![1.0_f32; dim], vec![1.0e-3; dim], vec![0.1; dim]] {
                assert!(kept(&unit(&vector).unwrap_or(vector)), "{dim}");
            }
        }
    }

    #[test]
    fn what_the_server_leaves_alone_is_left_alone() {
        assert_eq!(None, unit(&[0.0; 40]));
        assert_eq!(None, unit(&[1.0e-5; 40]));
        assert_eq!(None, unit(&[0.6, 0.8]));
        assert_eq!(None, unit(&[f32::NAN, 1.0]));
        assert_eq!(None, unit(&[f32::INFINITY, 1.0]));
        assert_eq!(Some(vec![1.0, 0.0]), unit(&[1.0e30, 0.0]));
    }

    #[test]
    fn only_the_named_dense_and_multi_vectors_change() {
        let (a, unit_a) = (le(&[3.0, 4.0]), le(&[0.6, 0.8]));
        let (many, unit_many) = (le(&[3.0, 4.0, 0.0, -2.0]), le(&[0.6, 0.8, 0.0, -1.0]));
        let indices = [0_u8; 8];
        let sparse = VectorRef { indices: Some(&indices), ..vector("a", VectorKind::Sparse, 0, &a) };
        let build = |first: &[u8], second: &[u8]| {
            let mut builder = RawBuilder::default();
            builder.push("1", b"{}", &[]);
            builder.push(
                "2",
                b"{}",
                &[vector("a", VectorKind::Dense, 2, first), vector("b", VectorKind::Dense, 2, &a)],
            );
            builder.push("3", b"{}", &[vector("a", VectorKind::Multi, 2, second)]);
            builder.push("4", b"{}", &[sparse]);
            builder.finish().unwrap()
        };
        let batch = build(&a, &many);
        let expected = build(&unit_a, &unit_many);
        assert_eq!(expected, normalize(&batch, &["a".to_owned()]).unwrap());
        assert_eq!(batch, normalize(&batch, &["c".to_owned()]).unwrap());
        let slice = normalize(&batch.slice(1, 1), &["a".to_owned()]).unwrap();
        assert_eq!(&unit_a, RawView::new(&slice).unwrap().vectors(0)[0].data);
    }

    #[test]
    fn rows_that_cannot_be_normalised_are_named() {
        let (good, bad) = (le(&[1.0, 2.0]), le(&[1.0, f32::NAN]));
        let mut builder = RawBuilder::default();
        builder.push("1", b"{}", &[vector("a", VectorKind::Dense, 2, &good)]);
        builder.push("2", b"{}", &[vector("a", VectorKind::Dense, 2, &bad)]);
        builder.push("3", b"{}", &[vector("b", VectorKind::Dense, 2, &bad)]);
        assert_eq!(vec![1], not_finite(&builder.finish().unwrap(), &["a".to_owned()]).unwrap());
    }

    #[test]
    fn what_a_store_cannot_keep_is_given_up() {
        let (good, odd) = (le(&[1.0, 2.0]), le(&[1.0, f32::INFINITY]));
        let mut r = RecordRef::new(Kind::Memory, "1");
        r.extra = r#"{"a":1}"#;
        for (name, data) in [("", &odd), ("a", &odd), ("default", &good), ("default", &odd)] {
            r.vectors.push(vector(name, VectorKind::Dense, 2, data));
        }
        let mut builder = RecordBuilder::default();
        builder.push(&r).unwrap();
        let records = builder.finish().unwrap();
        let left = |finite: &[&str], unnamed| {
            let finite: Vec<String> = finite.iter().map(|name| (*name).to_owned()).collect();
            let batch = give_up(&records, &finite, unnamed).unwrap();
            let view = RecordView::new(&batch).unwrap();
            assert_eq!(r.extra, view.get(0).extra);
            view.get(0).vectors.iter().map(|v| (v.name.to_owned(), v.data == odd)).collect::<Vec<_>>()
        };
        let said =
            |names: &[(&str, bool)]| names.iter().map(|(name, odd)| ((*name).to_owned(), *odd)).collect::<Vec<_>>();
        assert_eq!(said(&[("", true), ("a", true), ("default", false), ("default", true)]), left(&[], None));
        assert_eq!(said(&[("", true), ("default", false)]), left(&["a", "default"], None));
        assert_eq!(said(&[("", true), ("a", true), ("default", false)]), left(&[], Some("")));
        assert_eq!(said(&[("", true), ("a", true)]), left(&[], Some("default")));
        assert_eq!(said(&[("a", true), ("default", false)]), left(&[""], Some("default")));
    }

    proptest! {
        #[test]
        fn twice_is_once(vector in prop::collection::vec(-1.0e6_f32..1.0e6, 1..400)) {
            if let Some(once) = unit(&vector) {
                prop_assert!(kept(&once));
                prop_assert_eq!(None, unit(&once));
            }
        }
    }
}
