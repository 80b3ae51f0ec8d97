//! Payloads: canonical text to the bytes of the wire and back, in one pass each.

use std::fmt::Write as _;
use std::ops::{ControlFlow, Range};

use jiter::{Jiter, Peek};
use smallvec::SmallVec;

use super::wire::{self, Field};
use crate::error::{Code, Error, Result};
use crate::value::{MAX_DEPTH, Map, Value, canonical_f64, number, unescape_key, write_text};

/// Messages that may lie within each other below a payload, so that a point stays readable: Protocol Buffers readers
/// refuse a hundred, and a point in its request or answer takes some of them.
const MAX_MESSAGES: usize = 96;

/// Fields of `Value`, one of which it has.
mod kind {
    pub const NULL: u32 = 1;
    pub const DOUBLE: u32 = 2;
    pub const INTEGER: u32 = 3;
    pub const TEXT: u32 = 4;
    pub const BOOLEAN: u32 = 5;
    pub const OBJECT: u32 = 6;
    pub const LIST: u32 = 7;
}
/// Fields of an entry of a map.
mod entry {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
}
/// Fields of `Struct` and `ListValue`.
const MEMBERS: u32 = 1;
const ITEMS: u32 = 1;

/// Appends the entries of a payload to a message that has them as `field`; why not, if the wire cannot say them.
///
/// After a refusal there may be anything behind what stood in `out`.
pub fn write(body: &[u8], field: u32, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    let start = out.len();
    if entries(body, field, out).is_some() {
        return Ok(());
    }
    // Not as memferry prints it, or not to be said: the slow way knows which.
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    let value = match Value::from_canonical(text).map_err(|e| e.message)? {
        Value::Map(map) => {
            sayable(&map, 0)?;
            Value::Map(map)
        }
        other => return Err(format!("a payload is an object, got: {}", other.type_name())),
    };
    out.truncate(start);
    entries(value.to_canonical().as_bytes(), field, out).ok_or_else(|| "a payload that cannot be said".to_owned())
}

fn entries(body: &[u8], field: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut json = Jiter::new(body);
    if json.peek().ok()? != Peek::Object {
        return None;
    }
    members(&mut json, field, 0, out)?;
    json.finish().ok()
}

/// The members of the object that is next, as entries of a map; only as canonical text has them, each key once.
fn members(json: &mut Jiter<'_>, field: u32, messages: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut key = json.known_object().ok()?;
    let mut before: Option<Range<usize>> = None;
    while let Some(escaped) = key {
        let plain = unescape_key(escaped)?.as_bytes();
        if before.is_some_and(|before| out[before] >= *plain) {
            return None;
        }
        let open = wire::begin_message(out, field, 0);
        wire::put_bytes(out, entry::KEY, plain);
        let (key_len, head_len) = (plain.len(), wire::field_len(entry::KEY, plain.len()) - plain.len());
        let peek = json.peek().ok()?;
        // The entry of the map and the value in it.
        value(json, peek, entry::VALUE, messages + 2, out)?;
        let key_at = wire::end_message(out, &open) + head_len;
        before = Some(key_at..key_at + key_len);
        key = json.next_key().ok()?;
    }
    Some(())
}

/// The value that is next.
fn value(json: &mut Jiter<'_>, peek: Peek, field: u32, messages: usize, out: &mut Vec<u8>) -> Option<()> {
    if messages > MAX_MESSAGES {
        return None;
    }
    let open = wire::begin_message(out, field, 0);
    match peek {
        Peek::Null => {
            json.known_null().ok()?;
            wire::put_number(out, kind::NULL, 0);
        }
        Peek::True | Peek::False => wire::put_number(out, kind::BOOLEAN, json.known_bool(peek).ok()?.into()),
        Peek::String => wire::put_bytes(out, kind::TEXT, json.known_str().ok()?.as_bytes()),
        Peek::Array => {
            let list = wire::begin_message(out, kind::LIST, 0);
            let mut next = json.known_array().ok()?;
            while let Some(peek) = next {
                value(json, peek, ITEMS, messages + 2, out)?;
                next = json.array_step().ok()?;
            }
            wire::end_message(out, &list);
        }
        Peek::Object => {
            let object = wire::begin_message(out, kind::OBJECT, 0);
            members(json, MEMBERS, messages + 1, out)?;
            wire::end_message(out, &object);
        }
        peek if peek.is_num() => match number(std::str::from_utf8(json.known_number_bytes(peek).ok()?).ok()?).ok()? {
            Value::Int(int) => wire::put_number(out, kind::INTEGER, int as u64),
            Value::Float(float) => wire::put_double(out, kind::DOUBLE, float),
            _ => return None,
        },
        _ => return None,
    }
    wire::end_message(out, &open);
    Some(())
}

/// Why the wire cannot say these members, if it cannot.
fn sayable(map: &Map, messages: usize) -> std::result::Result<(), String> {
    map.iter().try_for_each(|(key, value)| {
        unescape_key(key).ok_or_else(|| format!("a payload has no place for the key {key:?}"))?;
        value_sayable(value, messages + 2)
    })
}

fn value_sayable(value: &Value, messages: usize) -> std::result::Result<(), String> {
    if messages > MAX_MESSAGES {
        return Err("nested deeper than the wire can carry".to_owned());
    }
    match value {
        Value::List(items) => items.iter().try_for_each(|item| value_sayable(item, messages + 2)),
        Value::Map(map) => sayable(map, messages + 1),
        Value::UInt(uint) => Err(format!("a payload has no integer above 9223372036854775807, got: {uint}")),
        Value::Float(float) if !float.is_finite() => Err(format!("a payload has no number for {float}")),
        Value::Number(text) => Err(format!("a payload has no exact number for {text}")),
        Value::Bytes(_) => Err("a payload has no bytes".to_owned()),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => Ok(()),
    }
}

/// Entries of a map as they came, keys and encoded values.
#[derive(Default)]
pub struct Entries<'a>(SmallVec<[(&'a str, &'a [u8]); 24]>);

impl<'a> Entries<'a> {
    /// Adds an entry.
    pub fn push(&mut self, message: &'a [u8]) -> Result<()> {
        let (mut key, mut value) = ("", &[][..]);
        wire::fields(message, |number, field| {
            match number {
                entry::KEY => key = field.text()?,
                entry::VALUE => value = field.bytes()?,
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.0.push((key, value));
        Ok(())
    }

    /// Appends the canonical text of the object that has these members.
    pub fn write(self, out: &mut String) -> Result<()> {
        self.write_at(0, out)
    }

    fn write_at(mut self, depth: usize, out: &mut String) -> Result<()> {
        // Escaping puts one more `$` before each key that has one, so it does not change the order.
        self.0.sort_by_key(|(key, _)| *key);
        out.push('{');
        let mut first = true;
        for (i, (key, value)) in self.0.iter().enumerate() {
            // Of a key that stands twice the last one counts, as in any map on the wire.
            if self.0.get(i + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            if key.starts_with('$') {
                out.push_str("\"$");
                let quote = out.len();
                write_text(key, out);
                out.remove(quote);
            } else {
                write_text(key, out);
            }
            out.push(':');
            write_value(value, depth + 1, out)?;
        }
        out.push('}');
        Ok(())
    }
}

fn write_value(message: &[u8], depth: usize, out: &mut String) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(Code::StoreFormat, format!("a payload that nests deeper than {MAX_DEPTH}")));
    }
    let mut last = None;
    wire::fields(message, |number, field| {
        if (kind::NULL..=kind::LIST).contains(&number) {
            last = Some((number, field));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match last {
        Some((kind::DOUBLE, field)) => match field.double()? {
            float if float.is_finite() => out.push_str(ryu::Buffer::new().format_finite(float)),
            float => out.push_str(&canonical_f64(float)),
        },
        Some((kind::INTEGER, field)) => write!(out, "{}", field.number()? as i64).unwrap_or_default(),
        Some((kind::TEXT, field)) => write_text(field.text()?, out),
        Some((kind::BOOLEAN, field)) => out.push_str(if field.number()? == 0 { "false" } else { "true" }),
        Some((kind::OBJECT, field)) => {
            let mut entries = Entries::default();
            within(field, MEMBERS, |entry| entries.push(entry))?;
            entries.write_at(depth, out)?;
        }
        Some((kind::LIST, field)) => {
            out.push('[');
            let mut first = true;
            within(field, ITEMS, |item| {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                write_value(item, depth + 1, out)
            })?;
            out.push(']');
        }
        _ => out.push_str("null"),
    }
    Ok(())
}

/// Calls `each` with the messages that a message has as its field `wanted`.
fn within<'a>(message: Field<'a>, wanted: u32, mut each: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    wire::fields(message.bytes()?, |number, field| {
        if number == wanted {
            each(field.bytes()?)?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

#[cfg(test)]
mod tests;
