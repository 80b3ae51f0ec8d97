//! The encoding of Protocol Buffers, as far as points need it: their bytes are written from a batch and read into one
//! without a message in between. The numbers of the fields are those of the official crate's messages; the tests read
//! with its types what is written here, and the other way round.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::error::{Code, Error, Result};

const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const BYTES: u8 = 2;
const FOUR_BYTES: u8 = 5;

/// Appends a number in groups of seven bits, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that [`put_varint`] appends.
pub const fn varint_len(number: u64) -> usize {
    (70 - (number | 1).leading_zeros() as usize) / 7
}

fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u8) {
    put_varint(out, u64::from(field << 3 | u32::from(wire_type)));
}

/// Appends a field that is a number, a boolean or a word of an enumeration.
pub fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_key(out, field, VARINT);
    put_varint(out, number);
}

/// Appends a field that is a double.
pub fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_key(out, field, EIGHT_BYTES);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends the head of a field of `len` bytes, which are to follow.
pub fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    put_key(out, field, BYTES);
    put_varint(out, len as u64);
}

/// Appends a field that is text, bytes, a packed list or a message that is encoded already.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_len(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Bytes that a field of `len` bytes takes, head included.
pub const fn field_len(field: u32, len: usize) -> usize {
    varint_len((field << 3) as u64) + varint_len(len as u64) + len
}

/// A message that is being written, whose length comes in front of it when it is known.
#[must_use]
pub struct Open {
    head: usize,
    start: usize,
}

/// Begins a message of about `guess` bytes; a guess in the right power of 128 saves moving them.
pub fn begin_message(out: &mut Vec<u8>, field: u32, guess: usize) -> Open {
    put_key(out, field, BYTES);
    let head = out.len();
    out.resize(head + varint_len(guess as u64), 0);
    Open { head, start: out.len() }
}

/// Ends a message; where its content begins.
pub fn end_message(out: &mut Vec<u8>, open: &Open) -> usize {
    let mut len = out.len() - open.start;
    let mut head = SmallVec::<[u8; 10]>::new();
    while len >= 0x80 {
        head.push(len as u8 | 0x80);
        len >>= 7;
    }
    head.push(len as u8);
    if head.len() == open.start - open.head {
        out[open.head..open.start].copy_from_slice(&head);
    } else {
        out.splice(open.head..open.start, head.iter().copied());
    }
    open.head + head.len()
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// A number, a boolean or a word of an enumeration.
    Number(u64),
    /// Eight bytes, little-endian.
    Eight(u64),
    /// Text, bytes, a packed list or a message.
    Bytes(&'a [u8]),
    /// Four bytes as they are.
    Four(&'a [u8; 4]),
}

fn broken(what: &str) -> Error {
    Error::new(Code::StoreFormat, format!("an answer that is no message: {what}"))
}

impl<'a> Field<'a> {
    /// The number of a field that has to be one.
    pub fn number(self) -> Result<u64> {
        if let Self::Number(number) = self { Ok(number) } else { Err(broken("a number was expected")) }
    }

    /// The double of a field that has to be one.
    pub fn double(self) -> Result<f64> {
        if let Self::Eight(bits) = self { Ok(f64::from_bits(bits)) } else { Err(broken("a double was expected")) }
    }

    /// The bytes of a field that has to be of some length.
    pub fn bytes(self) -> Result<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(broken("bytes were expected")) }
    }

    /// The text of a field that has to be one.
    pub fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| broken("a text that is not UTF-8"))
    }
}

/// Calls `each` with the number and the value of each field of a message, until it says to stop.
pub fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u32, Field<'a>) -> Result<ControlFlow<()>>) -> Result<()> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0).ok_or_else(|| broken("a bad field"))?;
        let value = match key as u8 & 7 {
            VARINT => Field::Number(varint(&mut rest)?),
            EIGHT_BYTES => Field::Eight(u64::from_le_bytes(*chunk(&mut rest)?)),
            BYTES => {
                let len = usize::try_from(varint(&mut rest)?).map_err(|_| broken("a bad length"))?;
                let (bytes, behind) = rest.split_at_checked(len).ok_or_else(cut)?;
                rest = behind;
                Field::Bytes(bytes)
            }
            FOUR_BYTES => Field::Four(chunk(&mut rest)?),
            _ => return Err(broken("a field of no known type")),
        };
        if each(field, value)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Calls `each` with the numbers of a packed list.
pub fn numbers(mut packed: &[u8], mut each: impl FnMut(u64)) -> Result<()> {
    while !packed.is_empty() {
        each(varint(&mut packed)?);
    }
    Ok(())
}

fn cut() -> Error {
    broken("it ends too early")
}

fn chunk<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (chunk, behind) = rest.split_first_chunk().ok_or_else(cut)?;
    *rest = behind;
    Ok(chunk)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for (i, byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(number);
        }
    }
    Err(if rest.len() < 10 { cut() } else { broken("a number of more than ten bytes") })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Field<'_>)>> {
        let mut found = Vec::new();
        fields(message, |number, field| {
            found.push((number, field));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    #[test]
    fn lengths_of_numbers_are_known() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number), "{number}");
        }
    }

    #[test]
    fn a_message_has_its_length_in_front() {
        for len in [0, 1, 127, 128, 129, 20_000, 3_000_000] {
            for guess in [0, 127, 128, 3_000_000] {
                let content = vec![7_u8; len];
                let mut out = b"before".to_vec();
                let open = begin_message(&mut out, 5, guess);
                out.extend_from_slice(&content);
                let start = end_message(&mut out, &open);
                assert_eq!(content, out[start..]);
                assert_eq!(vec![(5, Field::Bytes(&content))], all(&out[6..]).unwrap());
                assert_eq!(field_len(5, len), out.len() - 6);
            }
        }
    }

    proptest! {
        #[test]
        fn fields_are_read_as_they_were_written(
            numbers in prop::collection::vec((1_u32..1 << 20, any::<u64>()), 0..4),
            texts in prop::collection::vec((1_u32..200, ".*"), 0..4),
            doubles in prop::collection::vec((1_u32..200, any::<u64>()), 0..4),
        ) {
            let mut out = Vec::new();
            let mut expected = Vec::new();
            for (field, number) in &numbers {
                put_number(&mut out, *field, *number);
                expected.push((*field, Field::Number(*number)));
            }
            for (field, text) in &texts {
                put_bytes(&mut out, *field, text.as_bytes());
                expected.push((*field, Field::Bytes(text.as_bytes())));
            }
            for (field, bits) in &doubles {
                put_double(&mut out, *field, f64::from_bits(*bits));
                expected.push((*field, Field::Eight(*bits)));
            }
            prop_assert_eq!(expected, all(&out).unwrap());
        }

        #[test]
        fn damage_is_an_error_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = all(&bytes);
        }
    }

    #[test]
    fn what_is_cut_or_of_no_type_is_refused() {
        for bad in [&[0x0a, 2, 0][..], &[0x08], &[0x09, 1, 2], &[0x0d, 1], &[0x0b], &[0x00, 1], &[0x80; 11]] {
            assert_eq!(Code::StoreFormat, all(bad).unwrap_err().code, "{bad:?}");
        }
    }
}
