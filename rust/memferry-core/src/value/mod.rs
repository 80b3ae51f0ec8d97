//! JSON-like values that keep what JSON printers lose, and their canonical text.
//!
//! Numbers are `i64`, `u64` or `f64`; any other number keeps its text. The canonical text is JSON with keys sorted by
//! their bytes and no white space; what JSON cannot say is an object with one reserved key (`$f64`, `$number`,
//! `$bytes`), and a key of the data that starts with `$` has one more `$` in front. Keys are held in that escaped form
//! in memory too, so that reserved keys never meet keys of the data. The specification is `docs/record.md`.

mod read;

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::error::{Error, Result};

pub(crate) use read::number;
use read::{Rules, parse};

/// Deepest nesting of canonical text within a record. Documents are read to less, so that what was read can be wrapped.
pub const MAX_DEPTH: usize = 200;
/// Deepest nesting of a native document.
pub const NATIVE_DEPTH: usize = 190;
/// Deepest nesting of a document of someone else, which a native document can hold in any of its members.
pub const FOREIGN_DEPTH: usize = 180;

/// Members of an object, sorted by the bytes of their keys.
pub type Map = Vec<(String, Value)>;

/// A value of a payload, a property or a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// JSON null, which is not the same as a missing key.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer within `i64`.
    Int(i64),
    /// An integer above `i64::MAX` within `u64`.
    UInt(u64),
    /// A double; not equal to the integer that looks like it.
    Float(f64),
    /// A number that neither integer nor double holds exactly, as its text.
    Number(String),
    /// A text.
    Text(String),
    /// Bytes, which JSON does not have.
    Bytes(Vec<u8>),
    /// An ordered list.
    List(Vec<Value>),
    /// An object; keys escaped, sorted, unique.
    Map(Map),
}

/// Escapes a key of the data, see the module.
pub fn escape_key(key: &str) -> String {
    if key.starts_with('$') { format!("${key}") } else { key.to_owned() }
}

/// The key of the data behind an escaped key; `None` for a reserved one.
pub fn unescape_key(key: &str) -> Option<&str> {
    match key.strip_prefix('$') {
        None => Some(key),
        Some(rest) if rest.starts_with('$') => Some(rest),
        Some(_) => None,
    }
}

/// Puts `value` at `key`, keeping the order; the old value, if there was one.
pub fn insert(map: &mut Map, key: &str, value: Value) -> Option<Value> {
    match map.binary_search_by(|(k, _)| k.as_str().cmp(key)) {
        Ok(i) => Some(std::mem::replace(&mut map[i].1, value)),
        Err(i) => {
            map.insert(i, (key.to_owned(), value));
            None
        }
    }
}

/// Looks `key` up.
pub fn get<'a>(map: &'a Map, key: &str) -> Option<&'a Value> {
    map.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok().map(|i| &map[i].1)
}

/// Takes `key` out.
pub fn remove(map: &mut Map, key: &str) -> Option<Value> {
    map.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok().map(|i| map.remove(i).1)
}

impl Value {
    /// Reads one document: canonical text where `escaped`, else JSON in which every key is one of the data.
    ///
    /// Duplicate keys, lone surrogates, nesting below `depth` and trailing text are errors.
    pub fn from_document(text: &[u8], escaped: bool, depth: usize) -> Result<Self> {
        parse(text, Rules { escaped, depth })
    }

    /// Reads one JSON document of someone else.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        Self::from_document(text, false, FOREIGN_DEPTH)
    }

    /// Reads canonical text.
    pub fn from_canonical(text: &str) -> Result<Self> {
        parse(text.as_bytes(), Rules { escaped: true, depth: MAX_DEPTH })
    }

    /// How deep the text nests that this value becomes; `escaped`: canonical text, in which some scalars are objects.
    pub fn depth(&self, escaped: bool) -> usize {
        match self {
            Self::List(items) => items.iter().map(|v| v.depth(escaped) + 1).max().unwrap_or(0),
            Self::Map(map) => map.iter().map(|(_, v)| v.depth(escaped) + 1).max().unwrap_or(0),
            Self::Number(_) | Self::Bytes(_) => usize::from(escaped),
            Self::Float(f) if !f.is_finite() => usize::from(escaped),
            _ => 0,
        }
    }

    /// The canonical text.
    pub fn to_canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    /// Appends the canonical text.
    pub fn write_canonical(&self, out: &mut String) {
        match self {
            Self::Float(f) if !f.is_finite() => {
                let _ = write!(out, "{{\"$f64\":\"{:016x}\"}}", f.to_bits());
            }
            Self::Number(text) => out.extend(["{\"$number\":\"", text, "\"}"]),
            Self::Bytes(bytes) => {
                out.push_str("{\"$bytes\":\"");
                STANDARD.encode_string(bytes, out);
                out.push_str("\"}");
            }
            Self::List(items) => write_list(items, out, |v, out| {
                v.write_canonical(out);
                Ok(())
            })
            .unwrap_or_default(),
            Self::Map(map) => {
                out.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write_canonical(out);
                }
                out.push('}');
            }
            _ => self.write_scalar(out),
        }
    }

    /// Appends plain JSON as other programs read it.
    ///
    /// NaN, infinities, bytes and reserved keys have no JSON: an error, for the caller to quarantine the record.
    pub fn write_json(&self, out: &mut String) -> Result<()> {
        match self {
            Self::Float(f) if !f.is_finite() => Err(Error::invalid(format!("JSON has no number for {f}"))),
            Self::Number(text) => {
                out.push_str(text);
                Ok(())
            }
            Self::Bytes(_) => Err(Error::invalid("JSON has no bytes")),
            Self::List(items) => write_list(items, out, Self::write_json),
            Self::Map(map) => {
                out.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    let plain = unescape_key(key)
                        .ok_or_else(|| Error::invalid(format!("reserved key in plain JSON: {key}")))?;
                    write_text(plain, out);
                    out.push(':');
                    value.write_json(out)?;
                }
                out.push('}');
                Ok(())
            }
            _ => {
                self.write_scalar(out);
                Ok(())
            }
        }
    }

    fn write_scalar(&self, out: &mut String) {
        match self {
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Int(i) => {
                let _ = write!(out, "{i}");
            }
            Self::UInt(u) => {
                let _ = write!(out, "{u}");
            }
            Self::Float(f) => out.push_str(ryu::Buffer::new().format_finite(*f)),
            Self::Text(text) => write_text(text, out),
            _ => out.push_str("null"),
        }
    }

    /// The word for the type in messages.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::UInt(_) => "integer",
            Self::Float(_) => "double",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "object",
        }
    }
}

/// Canonical text of a double: the shortest digits, or the bits in hex where JSON has no number.
pub fn canonical_f64(f: f64) -> String {
    Value::Float(f).to_canonical()
}

/// Reads what [`canonical_f64`] wrote.
pub fn parse_canonical_f64(text: &str) -> Option<f64> {
    match Value::from_canonical(text).ok()? {
        Value::Float(f) => Some(f),
        _ => None,
    }
}

fn write_list(
    items: &[Value],
    out: &mut String,
    mut write: impl FnMut(&Value, &mut String) -> Result<()>,
) -> Result<()> {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(item, out)?;
    }
    out.push(']');
    Ok(())
}

/// Place of the first byte that stands escaped in canonical text, or ends a text there.
pub(crate) fn special(bytes: &[u8]) -> Option<usize> {
    let is_special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    // Whole chunks are looked at without a branch a byte, which the compiler does for many bytes at once.
    let (chunks, _) = bytes.as_chunks::<32>();
    let plain = chunks.iter().take_while(|chunk| !chunk.iter().fold(false, |any, b| any | is_special(b))).count() * 32;
    bytes[plain..].iter().position(is_special).map(|i| plain + i)
}

/// Appends a JSON string with the fewest escapes: `"`, `\` and what is below U+0020.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(i) = special(rest.as_bytes()) {
        out.push_str(&rest[..i]);
        match rest.as_bytes()[i] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0a => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            0x0d => out.push_str("\\r"),
            b => {
                let _ = write!(out, "\\u{b:04x}");
            }
        }
        rest = &rest[i + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn canonical(json: &str) -> String {
        Value::from_json(json.as_bytes()).unwrap().to_canonical()
    }

    #[test]
    fn numbers_keep_what_was_written() {
        assert_eq!("[1,1.0,-0.0,-0.0]", canonical("[1, 1.0, -0.0, -0]"));
        assert_eq!("9223372036854775808", canonical("9223372036854775808"));
        assert_eq!(r#"{"$number":"18446744073709551616"}"#, canonical("18446744073709551616"));
        assert_eq!(r#"{"$number":"1e400"}"#, canonical("1e400"));
        assert_eq!("0.1", canonical("1.0e-1"));
        assert_eq!(
            r#"{"$number":"0.1000000000000000055511151231257827"}"#,
            canonical("0.1000000000000000055511151231257827")
        );
    }

    #[test]
    fn reserved_keys_of_the_data_are_escaped() {
        let text = canonical(r#"{"$f64":"x","$$":1}"#);
        assert_eq!(r#"{"$$$":1,"$$f64":"x"}"#, text);
        let mut json = String::new();
        Value::from_canonical(&text).unwrap().write_json(&mut json).unwrap();
        assert_eq!(r#"{"$$":1,"$f64":"x"}"#, json);
    }

    #[test]
    fn what_arrow_or_json_cannot_say_is_refused() {
        for bad in [r#""\ud800""#, r#"{"a":1,"a":2}"#, "[1", "1 2", "NaN", &"[".repeat(1000)] {
            assert!(Value::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_objects_have_one_spelling() {
        for bad in [
            r#"{"$f64":"3ff8000000000000"}"#,
            r#"{"$f64":"7FF8000000000001"}"#,
            r#"{"$f64":"+7ff800000000001"}"#,
            r#"{"$f64":"1"}"#,
            r#"{"$number":"5"}"#,
            r#"{"$number":"1.5"}"#,
            r#"{"$number":" 1e400"}"#,
            r#"{"$number":"1e400 "}"#,
            r#"{"$number":"01e400"}"#,
            r#"{"$number":"1e400,\"x\":2"}"#,
            r#"{"$number":"Infinity"}"#,
            r#"{"$bytes":"AB=="}"#,
        ] {
            assert!(Value::from_canonical(bad).is_err(), "{bad}");
        }
        for good in [r#"{"$f64":"7ff8000000000001"}"#, r#"{"$number":"1e400"}"#, r#"{"$bytes":"AA=="}"#] {
            assert_eq!(good, Value::from_canonical(good).unwrap().to_canonical());
        }
    }

    #[test]
    fn the_depth_of_a_value_is_that_of_its_text() {
        for text in ["1", "[]", "[[]]", r#"{"a":[1]}"#, r#"[{"$number":"1e400"}]"#, r#"{"$f64":"7ff8000000000001"}"#] {
            let depth = Value::from_canonical(text).unwrap().depth(true);
            assert!(Value::from_document(text.as_bytes(), true, depth).is_ok(), "{text}");
            assert!(depth == 0 || Value::from_document(text.as_bytes(), true, depth - 1).is_err(), "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (i64::MAX as u64 + 1..).prop_map(Value::UInt),
            any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
            ".*".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map(".*", inner, 0..4).prop_map(|m| {
                    let mut map: Map = m.into_iter().map(|(k, v)| (escape_key(&k), v)).collect();
                    map.sort_by(|a, b| a.0.cmp(&b.0));
                    Value::Map(map)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back(value in values()) {
            let text = value.to_canonical();
            prop_assert_eq!(&text, &Value::from_canonical(&text).unwrap().to_canonical());
        }
    }
}
