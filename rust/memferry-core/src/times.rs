//! How systems write times, and the one way memferry holds them: microseconds, and the original text where it says more.

use jiff::{Timestamp, civil, tz::TimeZone};

use crate::value::{Map, Value, get};

/// A decoded time that owns its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Time {
    /// See [`crate::record::TimeRef::micros`].
    pub micros: Option<i64>,
    /// See [`crate::record::TimeRef::text`].
    pub text: Option<String>,
}

/// How a field writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeCodec {
    /// Our own documents: RFC 3339 text where that is exact, and anything else without loss.
    Native,
    /// ISO 8601 text.
    Iso,
    /// Seconds since 1970 as a double.
    EpochSeconds,
    /// Milliseconds since 1970 as an integer.
    EpochMillis,
}

/// Microseconds of an ISO 8601 text; a time without an offset counts as UTC. Rounds nanoseconds down.
pub fn parse_iso(text: &str) -> Option<i64> {
    let timestamp = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<civil::DateTime>().ok().and_then(naive))
        .or_else(|| text.parse::<civil::Date>().ok().and_then(|d| naive(d.at(0, 0, 0, 0))))?;
    i64::try_from(timestamp.as_nanosecond().div_euclid(1000)).ok()
}

fn naive(time: civil::DateTime) -> Option<Timestamp> {
    time.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp())
}

/// Canonical text of microseconds: `2024-06-15T10:30:00.000000Z`; `None` outside the years 0 to 9999.
pub fn format_iso(micros: i64) -> Option<String> {
    let timestamp = Timestamp::from_microsecond(micros).ok()?;
    if timestamp.to_zoned(TimeZone::UTC).year() < 0 {
        return None;
    }
    Some(format!("{timestamp:.6}"))
}

impl TimeCodec {
    /// The codec of a profile table's word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "time" => Self::Native,
            "iso-time" => Self::Iso,
            "epoch-seconds" => Self::EpochSeconds,
            "epoch-millis" => Self::EpochMillis,
            _ => return None,
        })
    }

    /// Reads a raw value; `None` when it is not a time of this codec, so that it stays with the unmapped fields.
    pub fn decode(self, value: &Value) -> Option<Time> {
        match (self, value) {
            (Self::Native, Value::Text(text)) => {
                let micros = parse_iso(text);
                Some(with_text(micros, text, micros.and_then(format_iso)))
            }
            (Self::Native, Value::Int(micros)) if format_iso(*micros).is_none() => {
                Some(Time { micros: Some(*micros), text: None })
            }
            (Self::Native, Value::Map(map)) => decode_pair(map),
            (Self::Iso, Value::Text(text)) => {
                let micros = parse_iso(text)?;
                Some(with_text(Some(micros), text, format_iso(micros)))
            }
            (Self::EpochSeconds, Value::Int(i)) => {
                Some(Time { micros: i.checked_mul(1_000_000), text: Some(i.to_string()) })
                    .filter(|t| t.micros.is_some())
            }
            (Self::EpochSeconds, Value::Float(f)) => {
                let micros = to_i64(f * 1e6)?;
                let exact = Value::Float(micros as f64 / 1e6) == *value;
                Some(Time { micros: Some(micros), text: (!exact).then(|| value.to_canonical()) })
            }
            (Self::EpochMillis, Value::Int(i)) => {
                i.checked_mul(1000).map(|micros| Time { micros: Some(micros), text: None })
            }
            (Self::EpochMillis, Value::Float(f)) => {
                Some(Time { micros: Some(to_i64(f * 1e3)?), text: Some(value.to_canonical()) })
            }
            _ => None,
        }
    }

    /// Writes a time; `None` when this codec cannot say it.
    pub fn encode(self, micros: Option<i64>, text: Option<&str>) -> Option<Value> {
        match self {
            Self::Native => Some(encode_native(micros, text)),
            Self::Iso => match (micros, text) {
                (_, Some(text)) if parse_iso(text).is_some() && parse_iso(text) == micros => {
                    Some(Value::Text(text.to_owned()))
                }
                (Some(micros), _) => format_iso(micros).map(Value::Text),
                _ => None,
            },
            Self::EpochSeconds | Self::EpochMillis => {
                let original = text
                    .and_then(|t| Value::from_canonical(t).ok())
                    .filter(|v| self.decode(v).is_some_and(|t| t.micros == micros));
                original.or_else(|| {
                    let micros = micros?;
                    Some(match self {
                        Self::EpochSeconds => Value::Float(micros as f64 / 1e6),
                        _ if micros % 1000 == 0 => Value::Int(micros / 1000),
                        _ => Value::Float(micros as f64 / 1e3),
                    })
                })
            }
        }
    }
}

fn with_text(micros: Option<i64>, text: &str, canonical: Option<String>) -> Time {
    let same = canonical.as_deref() == Some(text);
    Time { micros, text: (!same).then(|| text.to_owned()) }
}

fn to_i64(f: f64) -> Option<i64> {
    let rounded = f.round();
    // The bounds are the doubles just inside i64.
    (-9.2e18..=9.2e18).contains(&rounded).then_some(rounded as i64)
}

fn encode_native(micros: Option<i64>, text: Option<&str>) -> Value {
    match (micros, text) {
        (Some(m), None) => format_iso(m).map_or(Value::Int(m), Value::Text),
        (_, Some(t)) if parse_iso(t) == micros && micros.and_then(format_iso).as_deref() != Some(t) => {
            Value::Text(t.to_owned())
        }
        _ => Value::Map(vec![
            ("micros".to_owned(), micros.map_or(Value::Null, Value::Int)),
            ("text".to_owned(), text.map_or(Value::Null, |t| Value::Text(t.to_owned()))),
        ]),
    }
}

fn decode_pair(map: &Map) -> Option<Time> {
    if map.len() != 2 {
        return None;
    }
    let micros = match get(map, "micros")? {
        Value::Int(m) => Some(*m),
        Value::Null => None,
        _ => return None,
    };
    let text = match get(map, "text")? {
        Value::Text(t) => Some(t.clone()),
        Value::Null => None,
        _ => return None,
    };
    // Only what `encode_native` writes this way: anything else would come back in another form.
    (encode_native(micros, text.as_deref()) == Value::Map(map.clone())).then_some(Time { micros, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_is_left_out_and_anything_else_kept() {
        let plain = Value::Text("2024-06-15T10:30:00.123456Z".to_owned());
        assert_eq!(Some(Time { micros: Some(1_718_447_400_123_456), text: None }), TimeCodec::Iso.decode(&plain));
        for text in ["2024-06-15T10:30:00", "2024-06-15T10:30:00.123456789+02:00", "1969-12-31", "9999-12-31T23:59:59Z"]
        {
            let value = Value::Text(text.to_owned());
            for codec in [TimeCodec::Iso, TimeCodec::Native] {
                let time = codec.decode(&value).unwrap_or_default();
                assert_eq!(Some(text), time.text.as_deref(), "{text}");
                assert_eq!(Some(value.clone()), codec.encode(time.micros, time.text.as_deref()), "{text}");
            }
        }
    }

    #[test]
    fn native_round_trips_every_pair() {
        let texts = [None, Some("yesterday"), Some("2024-06-15T10:30:00Z"), Some("1970-01-01T00:00:00.000000Z")];
        for micros in [None, Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN), Some(1_718_447_400_000_000)] {
            for text in texts {
                if micros.is_none() && text.is_none() {
                    continue;
                }
                let value = TimeCodec::Native.encode(micros, text).unwrap_or(Value::Null);
                let expected = Time { micros, text: text.map(str::to_owned) };
                assert_eq!(Some(expected), TimeCodec::Native.decode(&value), "{micros:?} {text:?} {value:?}");
            }
        }
    }

    #[test]
    fn epochs_keep_integers_and_odd_doubles_apart() {
        for value in [Value::Int(1_718_447_402), Value::Float(1_718_447_402.0), Value::Float(1_718_447_402.123_456_7)] {
            let time = TimeCodec::EpochSeconds.decode(&value).unwrap_or_default();
            assert_eq!(Some(value), TimeCodec::EpochSeconds.encode(time.micros, time.text.as_deref()));
        }
    }
}
