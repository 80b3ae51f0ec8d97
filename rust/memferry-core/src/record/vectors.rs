//! Vectors of records: what they are, and their column.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, StringBuilder, UInt8Builder, UInt32Builder};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, ListArray, StringArray, StructArray, UInt8Array, UInt32Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields};

use super::{Vectors, cast, option};
use crate::error::{Error, Result};

/// What a vector's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum VectorKind {
    /// `dim` numbers.
    Dense = 0,
    /// As many numbers as indices.
    Sparse = 1,
    /// Rows of `dim` numbers.
    Multi = 2,
}

impl VectorKind {
    /// From the number in the column.
    pub fn from_u8(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Dense),
            1 => Ok(Self::Sparse),
            2 => Ok(Self::Multi),
            n => Err(Error::invalid(format!("unknown vector kind {n}, allowed: 0 dense, 1 sparse, 2 multi"))),
        }
    }
}

/// One embedding of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VectorRef<'a> {
    /// Name within the record; empty for the only one.
    pub name: &'a str,
    /// Model that made it, if known.
    pub model: Option<&'a str>,
    /// Numbers a row; 0 for sparse vectors.
    pub dim: u32,
    /// Whether it has length one, if known.
    pub normalized: Option<bool>,
    /// Dense, sparse or multi.
    pub kind: VectorKind,
    /// `u32` little-endian indices of a sparse vector.
    pub indices: Option<&'a [u8]>,
    /// `f32` little-endian numbers.
    pub data: &'a [u8],
}

impl<'a> VectorRef<'a> {
    /// Name under which a store keeps it; not every store takes an empty one.
    pub const fn stored_name(&self) -> &'a str {
        if self.name.is_empty() { "default" } else { self.name }
    }

    /// Checks lengths against kind and dimension.
    pub fn check(&self) -> Result<()> {
        let numbers = self.data.len() / 4;
        let dim = self.dim as usize;
        let ok = self.data.len().is_multiple_of(4)
            && match self.kind {
                VectorKind::Dense => numbers == dim && self.indices.is_none(),
                VectorKind::Multi => dim > 0 && numbers.is_multiple_of(dim) && self.indices.is_none(),
                VectorKind::Sparse => dim == 0 && self.indices.is_some_and(|i| i.len() == self.data.len()),
            };
        if ok {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "vector {:?}: {} bytes of numbers and {} bytes of indices do not fit a {:?} vector of dimension {dim}",
            self.name,
            self.data.len(),
            self.indices.map_or(0, <[u8]>::len),
            self.kind,
        )))
    }
}

fn vector_fields() -> Fields {
    static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
        Fields::from(vec![
            Field::new("name", DataType::Utf8, false),
            Field::new("model", DataType::Utf8, true),
            Field::new("dim", DataType::UInt32, false),
            Field::new("normalized", DataType::Boolean, true),
            Field::new("kind", DataType::UInt8, false),
            Field::new("indices", DataType::Binary, true),
            Field::new("data", DataType::Binary, false),
        ])
    });
    FIELDS.clone()
}

/// The Arrow type of a `vectors` column.
pub fn vectors_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(vector_fields()), false)))
}

/// Builds a `vectors` column.
///
/// Where what is appended are the vectors of another column in their order, as they are on the way from raw to canonical
/// and back, their numbers are shared with it and not copied.
#[derive(Default)]
pub struct VectorsBuilder {
    offsets: Vec<i32>,
    names: StringBuilder,
    models: StringBuilder,
    normalized: BooleanBuilder,
    count: i32,
    shared: Option<Shared>,
    numbers: Numbers,
}

/// The columns of numbers of another column.
struct Shared {
    dims: UInt32Array,
    kinds: UInt8Array,
    indices: BinaryArray,
    data: BinaryArray,
    first: usize,
    /// Vector that is to be appended next, if all stay the same.
    next: usize,
}

/// Columns of numbers of their own.
#[derive(Default)]
struct Numbers {
    dims: UInt32Builder,
    kinds: UInt8Builder,
    indices: BinaryBuilder,
    data: BinaryBuilder,
}

impl Shared {
    fn indices(&self, i: usize) -> Option<&[u8]> {
        self.indices.is_valid(i).then(|| self.indices.value(i))
    }

    /// Whether these are the numbers of the vector that is next: the same ones, not equal ones.
    fn is_next(&self, v: &VectorRef<'_>) -> bool {
        let i = self.next;
        i < self.data.len()
            && std::ptr::eq(self.data.value(i), v.data)
            && self.indices(i).map(<[u8]>::as_ptr_range) == v.indices.map(<[u8]>::as_ptr_range)
            && (self.kinds.value(i), self.dims.value(i)) == (v.kind as u8, v.dim)
    }
}

impl VectorsBuilder {
    /// A builder that shares what it can with `column`.
    pub fn sharing(column: &ArrayRef) -> Result<Self> {
        let VectorsView { list, item } = VectorsView::new(column)?;
        let first = list.value_offsets().first().map_or(0, |first| *first as usize);
        let shared = Shared {
            dims: item.dims.clone(),
            kinds: item.kinds.clone(),
            indices: item.indices.clone(),
            data: item.data.clone(),
            first,
            next: first,
        };
        Ok(Self { shared: Some(shared), ..Self::default() })
    }

    /// Appends the vectors of one record.
    pub fn push(&mut self, vectors: &[VectorRef<'_>]) {
        for v in vectors {
            self.names.append_value(v.name);
            self.models.append_option(v.model);
            self.normalized.append_option(v.normalized);
            self.push_numbers(v);
        }
        self.count += vectors.len() as i32;
        self.offsets.push(self.count);
    }

    fn push_numbers(&mut self, v: &VectorRef<'_>) {
        if let Some(shared) = &mut self.shared {
            if shared.is_next(v) {
                shared.next += 1;
                return;
            }
            for i in shared.first..shared.next {
                self.numbers.dims.append_value(shared.dims.value(i));
                self.numbers.kinds.append_value(shared.kinds.value(i));
                self.numbers.indices.append_option(shared.indices(i));
                self.numbers.data.append_value(shared.data.value(i));
            }
            self.shared = None;
        }
        self.numbers.dims.append_value(v.dim);
        self.numbers.kinds.append_value(v.kind as u8);
        self.numbers.indices.append_option(v.indices);
        self.numbers.data.append_value(v.data);
    }

    /// The finished column.
    pub fn finish(mut self) -> Result<ArrayRef> {
        let numbers: [ArrayRef; 4] = match &self.shared {
            Some(shared) => {
                let (first, len) = (shared.first, shared.next - shared.first);
                [
                    Arc::new(shared.dims.slice(first, len)),
                    Arc::new(shared.kinds.slice(first, len)),
                    Arc::new(shared.indices.slice(first, len)),
                    Arc::new(shared.data.slice(first, len)),
                ]
            }
            None => [
                Arc::new(self.numbers.dims.finish()),
                Arc::new(self.numbers.kinds.finish()),
                Arc::new(self.numbers.indices.finish()),
                Arc::new(self.numbers.data.finish()),
            ],
        };
        let [dims, kinds, indices, data] = numbers;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.names.finish()),
            Arc::new(self.models.finish()),
            dims,
            Arc::new(self.normalized.finish()),
            kinds,
            indices,
            data,
        ];
        let values = StructArray::try_new(vector_fields(), columns, None::<NullBuffer>)?;
        let mut offsets = vec![0];
        offsets.append(&mut self.offsets);
        let item = Arc::new(Field::new("item", DataType::Struct(vector_fields()), false));
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), Arc::new(values), None)?))
    }
}

/// Reads a `vectors` column.
pub struct VectorsView<'a> {
    list: &'a ListArray,
    item: ItemView<'a>,
}

impl<'a> VectorsView<'a> {
    /// Checks the type of the column.
    pub fn new(column: &'a ArrayRef) -> Result<Self> {
        let list: &ListArray = cast(column, "vectors")?;
        Ok(Self { list, item: ItemView::new(cast(list.values(), "vectors.item")?)? })
    }

    /// The vectors of row `row`.
    pub fn get(&self, row: usize) -> Vectors<'a> {
        let offsets = self.list.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize).map(|i| self.item.get(i)).collect()
    }
}

/// All vectors of a column, one after another.
struct ItemView<'a> {
    names: &'a StringArray,
    models: &'a StringArray,
    dims: &'a UInt32Array,
    normalized: &'a BooleanArray,
    kinds: &'a UInt8Array,
    indices: &'a BinaryArray,
    data: &'a BinaryArray,
}

impl<'a> ItemView<'a> {
    fn new(item: &'a StructArray) -> Result<Self> {
        if item.num_columns() != vector_fields().len() {
            return Err(Error::invalid("column vectors: expected 7 fields"));
        }
        Ok(Self {
            names: cast(item.column(0), "vectors.name")?,
            models: cast(item.column(1), "vectors.model")?,
            dims: cast(item.column(2), "vectors.dim")?,
            normalized: cast(item.column(3), "vectors.normalized")?,
            kinds: cast(item.column(4), "vectors.kind")?,
            indices: cast(item.column(5), "vectors.indices")?,
            data: cast(item.column(6), "vectors.data")?,
        })
    }

    fn get(&self, i: usize) -> VectorRef<'a> {
        VectorRef {
            name: self.names.value(i),
            model: option(self.models, i),
            dim: self.dims.value(i),
            normalized: self.normalized.is_valid(i).then(|| self.normalized.value(i)),
            kind: VectorKind::from_u8(self.kinds.value(i)).unwrap_or(VectorKind::Dense),
            indices: self.indices.is_valid(i).then(|| self.indices.value(i)),
            data: self.data.value(i),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn vector<'a>(name: &'a str, data: &'a [u8]) -> VectorRef<'a> {
        VectorRef { name, model: None, dim: 2, normalized: None, kind: VectorKind::Dense, indices: None, data }
    }

    fn column(rows: &[Vec<VectorRef<'_>>]) -> ArrayRef {
        let mut builder = VectorsBuilder::default();
        for row in rows {
            builder.push(row);
        }
        builder.finish().unwrap()
    }

    fn shares(one: &ArrayRef, other: &ArrayRef) -> bool {
        let data = |column: &ArrayRef| {
            let list: &ListArray = cast(column, "").unwrap();
            let item: &StructArray = cast(list.values(), "").unwrap();
            cast::<BinaryArray>(item.column(6), "").unwrap().values().as_ptr()
        };
        data(one) == data(other)
    }

    #[test]
    fn numbers_are_shared_as_long_as_they_are_the_next_ones() {
        let indices = [9_u8; 8];
        let (a, b, c) = ([1_u8; 8], [2_u8; 8], [3_u8; 8]);
        let sparse = VectorRef { dim: 0, kind: VectorKind::Sparse, indices: Some(&indices), ..vector("s", &c) };
        let whole = column(&[vec![vector("a", &a)], vec![], vec![vector("", &b), sparse], vec![vector("a", &a)]]);
        for (offset, len) in [(0, 4), (1, 3), (2, 1), (1, 1), (0, 0)] {
            let source = whole.slice(offset, len);
            let view = VectorsView::new(&source).unwrap();
            for left_out in 0..=len {
                for odd in [false, true] {
                    let (mut sharing, mut plain) =
                        (VectorsBuilder::sharing(&source).unwrap(), VectorsBuilder::default());
                    for row in (0..len).filter(|row| *row != left_out) {
                        let mut vectors = view.get(row);
                        for v in &mut vectors {
                            (v.name, v.model, v.normalized) = ("renamed", Some("m"), Some(true));
                        }
                        if odd && row + 1 == len {
                            vectors.push(vector("more", &c));
                        }
                        sharing.push(&vectors);
                        plain.push(&vectors);
                    }
                    assert_eq!(&plain.finish().unwrap(), &sharing.finish().unwrap(), "{offset} {len} {left_out} {odd}");
                }
            }
        }
        let mut all = VectorsBuilder::sharing(&whole).unwrap();
        for row in 0..3 {
            all.push(&VectorsView::new(&whole).unwrap().get(row));
        }
        assert!(shares(&whole, &all.finish().unwrap()));
    }
}
