//! Doubles in payloads, as Qdrant gives them back.
//!
//! It keeps a payload as JSON and reads that with serde_json's fast parser, which ends one rounding away for about one
//! double in nine. The same parser stands here, so what comes back is known before it is written. Our own layouts keep
//! doubles as text and are not touched by it.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, RecordBatch};

use crate::error::{Error, Result};
use crate::raw::RawView;
use crate::value::Value;

/// The bodies of a raw batch as they come back, and the rows that are not as they were written.
pub fn given_back(raw: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
    let view = RawView::new(raw)?;
    let mut bodies = BinaryBuilder::new();
    let mut changed = Vec::new();
    for row in 0..view.len() {
        let body = view.body(row);
        let text = std::str::from_utf8(body).map_err(|_| Error::invalid("a body that is not UTF-8"))?;
        let mut value = Value::from_canonical(text)?;
        if round(&mut value) {
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

/// Replaces every double by what the server reads; whether one differs.
fn round(value: &mut Value) -> bool {
    match value {
        Value::Float(number) if number.is_finite() => {
            let read = serde_json::to_string(number).ok().and_then(|text| serde_json::from_str::<f64>(&text).ok());
            let changed = read.is_some_and(|read| read.to_bits() != number.to_bits());
            *number = read.unwrap_or(*number);
            changed
        }
        // Every item, not only up to the first that differs.
        Value::List(items) => items.iter_mut().fold(false, |changed, item| round(item) | changed),
        Value::Map(map) => map.iter_mut().fold(false, |changed, (_, item)| round(item) | changed),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::raw::RawBuilder;

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
}
