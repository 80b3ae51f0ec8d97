//! Doubles in payloads, as Qdrant gives them back.
//!
//! It keeps a payload as JSON and reads that with serde_json's fast parser, which ends one rounding away for about one
//! double in nine. The same parser stands here, so what comes back is known before it is written. Our own layouts keep
//! doubles as text and are not touched by it.

use std::iter::successors;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, RecordBatch};

use crate::error::{Error, Result};
use crate::raw::RawView;
use crate::value::Value;

/// How many doubles away from one that was read the one is looked for that was written; two are enough.
const NEAR: usize = 8;

/// The bodies of a raw batch as they come back, and the rows that are not as they were written.
pub fn given_back(raw: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
    with_doubles(raw, &read)
}

/// The bodies of a raw batch, which were read from Qdrant, with the doubles that have to be written so that they come
/// back as they are.
pub fn to_come_back(raw: &RecordBatch) -> Result<RecordBatch> {
    Ok(with_doubles(raw, &written)?.0)
}

fn with_doubles(raw: &RecordBatch, change: &impl Fn(f64) -> f64) -> Result<(RecordBatch, Vec<usize>)> {
    let view = RawView::new(raw)?;
    let mut bodies = BinaryBuilder::new();
    let mut changed = Vec::new();
    for row in 0..view.len() {
        let body = view.body(row);
        let text = std::str::from_utf8(body).map_err(|_| Error::invalid("a body that is not UTF-8"))?;
        let mut value = Value::from_canonical(text)?;
        if replace(&mut value, change) {
            bodies.append_value(value.to_canonical());
            changed.push(row);
        } else {
            bodies.append_value(body);
        }
    }
    if changed.is_empty() {
        return Ok((raw.clone(), changed));
    }
    let mut columns = raw.columns().to_vec();
    columns[raw.schema().index_of("body")?] = Arc::new(bodies.finish()) as ArrayRef;
    Ok((RecordBatch::try_new(raw.schema(), columns)?, changed))
}

/// What the server reads where this double was written.
fn read(number: f64) -> f64 {
    let text = serde_json::to_string(&number);
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(number)
}

/// What was written where the server reads this double, or something that is read like it.
///
/// The double itself where there is none, which then was not read from the server.
fn written(number: f64) -> f64 {
    let above = successors(Some(number), |x| Some(x.next_up()));
    let below = successors(Some(number), |x| Some(x.next_down()));
    let mut near = above.zip(below).take(NEAR + 1).flat_map(|(above, below)| [above, below]);
    near.find(|x| x.is_finite() && read(*x).to_bits() == number.to_bits()).unwrap_or(number)
}

/// Replaces every double; whether one differs.
fn replace(value: &mut Value, change: &impl Fn(f64) -> f64) -> bool {
    match value {
        Value::Float(number) if number.is_finite() => {
            let before = number.to_bits();
            *number = change(*number);
            number.to_bits() != before
        }
        // Every item, not only up to the first that differs.
        Value::List(items) => items.iter_mut().fold(false, |changed, item| replace(item, change) | changed),
        Value::Map(map) => map.iter_mut().fold(false, |changed, (_, item)| replace(item, change) | changed),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::raw::RawBuilder;
    use proptest::prelude::*;

    #[test]
    fn one_double_in_nine_is_off_by_one() {
        let mut raw = RawBuilder::default();
        let body = r#"{"a":[12.100000000000001,{"b":13.200000000000001}],"c":0.5,"n":12}"#;
        raw.push("1", body.as_bytes(), &[]);
        raw.push("2", br#"{"c":-0.0,"d":1e300}"#, &[]);
        let raw = raw.finish().unwrap();
        let (kept, changed) = given_back(&raw).unwrap();
        assert_eq!(vec![0], changed);
        let view = RawView::new(&kept).unwrap();
        assert_eq!(r#"{"a":[12.1,{"b":13.2}],"c":0.5,"n":12}"#, std::str::from_utf8(view.body(0)).unwrap());
        assert_eq!(RawView::new(&raw).unwrap().body(1), view.body(1));
    }

    #[test]
    fn what_was_read_is_written_so_that_it_comes_back() {
        let mut raw = RawBuilder::default();
        raw.push("1", br#"{"a":[-0.0,0.5,{"b":1e300}]}"#, &[]);
        let raw = raw.finish().unwrap();
        assert_eq!(raw, to_come_back(&raw).unwrap());
        for number in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -0.0] {
            assert_eq!(read(number).to_bits(), read(written(read(number))).to_bits(), "{number:e}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn every_double_that_was_read_can_be_read_again(bits: u64, plain in -1.0e6_f64..1.0e6) {
            for number in [f64::from_bits(bits), plain].into_iter().filter(|number| number.is_finite()) {
                let there = read(number);
                prop_assert_eq!(there.to_bits(), read(written(there)).to_bits(), "{:e}", number);
            }
        }
    }
}
