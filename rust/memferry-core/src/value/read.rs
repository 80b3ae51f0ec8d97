//! Reading values: JSON and canonical text.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiter::{Jiter, Peek};

use super::{Map, Value, escape_key};
use crate::error::{Error, Result};

/// How a document is read.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Our canonical text, where reserved objects mean what the specification says; else every key is one of the data.
    pub(super) escaped: bool,
    /// Deepest nesting.
    pub(super) depth: usize,
}

/// Reads one document.
pub(super) fn parse(text: &[u8], rules: Rules) -> Result<Value> {
    let mut jiter = Jiter::new(text);
    let result = jiter
        .peek()
        .map_err(|e| e.to_string())
        .and_then(|peek| parse_value(&mut jiter, peek, rules, 0))
        .and_then(|value| jiter.finish().map(|()| value).map_err(|e| e.to_string()));
    result.map_err(|e| Error::invalid(format!("JSON at byte {}: {e}", jiter.current_index())))
}

fn parse_value(j: &mut Jiter<'_>, peek: Peek, rules: Rules, depth: usize) -> std::result::Result<Value, String> {
    if depth > rules.depth {
        return Err(format!("nested deeper than {}", rules.depth));
    }
    let text = |e: jiter::JiterError| e.to_string();
    match peek {
        Peek::Null => j.known_null().map(|()| Value::Null).map_err(text),
        Peek::True | Peek::False => j.known_bool(peek).map(Value::Bool).map_err(text),
        Peek::String => j.known_str().map(|s| Value::Text(s.to_owned())).map_err(text),
        Peek::Array => {
            let mut items = Vec::new();
            let mut next = j.known_array().map_err(text)?;
            while let Some(peek) = next {
                items.push(parse_value(j, peek, rules, depth + 1)?);
                next = j.array_step().map_err(text)?;
            }
            Ok(Value::List(items))
        }
        Peek::Object => {
            let mut map: Map = Vec::new();
            let escape = |k: &str| if rules.escaped { k.to_owned() } else { escape_key(k) };
            let mut key = j.known_object().map_err(text)?.map(escape);
            while let Some(k) = key {
                let peek = j.peek().map_err(text)?;
                let value = parse_value(j, peek, rules, depth + 1)?;
                map.push((k, value));
                key = j.next_key().map_err(text)?.map(escape);
            }
            map.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some(pair) = map.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(format!("key given twice: {:?}", pair[0].0));
            }
            if rules.escaped && map.len() == 1 && map[0].0.starts_with('$') {
                return reserved(map);
            }
            Ok(Value::Map(map))
        }
        peek if peek.is_num() => {
            let bytes = j.known_number_bytes(peek).map_err(text)?;
            number(std::str::from_utf8(bytes).map_err(|e| e.to_string())?)
        }
        _ => Err("expected a JSON value".to_owned()),
    }
}

fn reserved(mut map: Map) -> std::result::Result<Value, String> {
    let [(key, value)] = map.as_mut_slice() else { return Ok(Value::Map(map)) };
    let taken = match (key.as_str(), value) {
        ("$f64", Value::Text(hex)) => float_of_bits(hex),
        ("$number", Value::Text(text)) => number_of_text(std::mem::take(text)),
        ("$bytes", Value::Text(text)) => STANDARD.decode(text).ok().map(Value::Bytes),
        _ => return Ok(Value::Map(map)),
    };
    taken.ok_or_else(|| format!("bad reserved value of {}", map.remove(0).0))
}

/// A double that JSON has no number for; the others have their digits, and one spelling is enough.
fn float_of_bits(hex: &str) -> Option<Value> {
    let digits = hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let float = f64::from_bits(u64::from_str_radix(hex, 16).ok().filter(|_| digits)?);
    (!float.is_finite()).then_some(Value::Float(float))
}

/// A JSON number that only its text holds exactly.
fn number_of_text(text: String) -> Option<Value> {
    let mut j = Jiter::new(text.as_bytes());
    let peek = j.peek().ok().filter(|peek| peek.is_num())?;
    let whole = j.known_number_bytes(peek).ok()?.len() == text.len();
    let kept = whole && matches!(number(&text), Ok(Value::Number(_)));
    kept.then_some(Value::Number(text))
}

/// Sorts a JSON number into integer, double or text: the first that holds exactly the decimal that was written.
pub(crate) fn number(text: &str) -> std::result::Result<Value, String> {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return Ok(if text == "-0" {
            Value::Float(-0.0)
        } else if let Ok(i) = text.parse::<i64>() {
            Value::Int(i)
        } else if let Ok(u) = text.parse::<u64>() {
            Value::UInt(u)
        } else {
            Value::Number(text.to_owned())
        });
    }
    let float: f64 = text.parse().map_err(|_| format!("not a number: {text}"))?;
    if !float.is_finite() {
        return Ok(Value::Number(text.to_owned()));
    }
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(float);
    let exact = shortest == text || decimal(text) == decimal(shortest);
    Ok(if exact { Value::Float(float) } else { Value::Number(text.to_owned()) })
}

/// A decimal as (significant digits, exponent of the last digit), so that `1.50` equals `15e-1`.
fn decimal(text: &str) -> (String, i64) {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(i) => (&text[..i], text[i + 1..].parse::<i64>().unwrap_or(i64::MIN)),
        None => (text, 0),
    };
    let mantissa = mantissa.trim_start_matches('-');
    let fraction = mantissa.find('.').map_or(0, |i| mantissa.len() - i - 1);
    let digits: String = mantissa.chars().filter(|&c| c != '.').collect();
    let trimmed = digits.trim_start_matches('0').trim_end_matches('0');
    if trimmed.is_empty() {
        return (String::new(), 0);
    }
    let dropped = digits.len() - digits.trim_end_matches('0').len();
    (trimmed.to_owned(), exponent.saturating_sub(fraction as i64).saturating_add(dropped as i64))
}
