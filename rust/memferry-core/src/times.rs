//! How systems write times, and the one way memferry holds them: microseconds, and the original text where it says more.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::value::{Map, Value, get};

/// Instants that have a canonical text: the years 0 to 9999 as far as a [`Timestamp`] goes.
const CANONICAL: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_207_200_000_000;
/// Instants that a text can name.
const READABLE: std::ops::RangeInclusive<i64> = -377_705_023_201_000_000..=253_402_207_200_999_999;
/// Length of every canonical text.
const CANONICAL_LEN: usize = "2024-06-15T10:30:00.000000Z".len();

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

/// Microseconds of an ISO 8601 text; a time without an offset counts as UTC. Rounds down.
///
/// The grammar is that of `docs/record.md` and stands here: what a library reads may change, and digests with it. The
/// library only counts days.
pub fn parse_iso(text: &str) -> Option<i64> {
    let mut scan = Scan { rest: text };
    let day = scan.date()?;
    let (mut clock, mut offset) = (Clock::default(), 0);
    if scan.one_of("Tt ").is_some() {
        clock = scan.clock()?;
        offset = scan.offset()?;
    }
    if !scan.notes() {
        return None;
    }
    let local = day.at(clock.hour, clock.minute, clock.second, 0);
    let seconds = Offset::from_seconds(offset).ok()?.to_timestamp(local).ok()?.as_second();
    Some(seconds * 1_000_000 + clock.micros).filter(|micros| READABLE.contains(micros))
}

#[derive(Default)]
struct Clock {
    hour: i8,
    minute: i8,
    second: i8,
    micros: i64,
}

/// What is left of a time text. A method that finds something else than it looks for says `None`: no time.
struct Scan<'a> {
    rest: &'a str,
}

impl Scan<'_> {
    /// Takes one of these characters, all of them ASCII.
    fn one_of(&mut self, allowed: &str) -> Option<char> {
        let found = self.rest.chars().next().filter(|c| allowed.contains(*c))?;
        self.rest = &self.rest[1..];
        Some(found)
    }

    fn digits(&mut self, n: usize) -> Option<i16> {
        let (digits, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    }

    /// Two digits up to `most`.
    fn pair(&mut self, most: i8) -> Option<i8> {
        self.digits(2).and_then(|n| i8::try_from(n).ok()).filter(|n| *n <= most)
    }

    /// Up to `N` further pairs, all with colons in front or none, and how many there are; the others are 0.
    fn row<const N: usize>(&mut self, most: [i8; N]) -> Option<([i8; N], usize)> {
        let colons = self.rest.starts_with(':');
        let mut pairs = [0; N];
        for i in 0..N {
            let goes_on =
                if colons { self.one_of(":").is_some() } else { self.rest.starts_with(|c: char| c.is_ascii_digit()) };
            if !goes_on {
                return Some((pairs, i));
            }
            pairs[i] = self.pair(most[i])?;
        }
        Some((pairs, N))
    }

    fn date(&mut self) -> Option<Date> {
        let sign = self.one_of("+-");
        // Years beyond 9999 do not fit, or are refused below.
        let year = self.digits(if sign.is_some() { 6 } else { 4 })?;
        let year = match sign {
            Some('-') if year == 0 => return None,
            Some('-') => -year,
            _ => year,
        };
        let dashes = self.one_of("-").is_some();
        let month = self.pair(12)?;
        if dashes {
            self.one_of("-")?;
        }
        Date::new(year, month, self.pair(31)?).ok()
    }

    fn clock(&mut self) -> Option<Clock> {
        let hour = self.pair(23)?;
        let ([minute, second], pairs) = self.row([59, 60])?;
        let micros = if pairs == 2 && self.one_of(".,").is_some() { self.fraction()? } else { 0 };
        Some(Clock { hour, minute, second: second.min(59), micros })
    }

    /// One to nine digits behind the point, of which six count.
    fn fraction(&mut self) -> Option<i64> {
        let n = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(n);
        self.rest = rest;
        let kept = &digits[..n.min(6)];
        let micros = kept.parse::<i64>().ok()? * 10_i64.pow(6 - kept.len() as u32);
        (n <= 9).then_some(micros)
    }

    /// Seconds east of UTC; 0 where there is no offset.
    fn offset(&mut self) -> Option<i32> {
        let sign = match self.one_of("Zz+-") {
            Some('+') => 1,
            Some('-') => -1,
            _ => return Some(0),
        };
        let hours = self.pair(25)?;
        let ([minutes, seconds], _) = self.row([59, 59])?;
        Some(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60 + i32::from(seconds)))
    }

    /// Whether the rest is a zone and tags, or nothing. They mean nothing.
    fn notes(&mut self) -> bool {
        let mut first = true;
        while let Some((note, rest)) = self.rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            if !(is_tag(note) || first && is_zone(note)) {
                return false;
            }
            first = false;
            self.rest = rest;
        }
        self.rest.is_empty()
    }
}

fn is_zone(note: &str) -> bool {
    let zone = note.strip_prefix('!').unwrap_or(note);
    if let Some(offset) = zone.strip_prefix(['+', '-']) {
        let mut scan = Scan { rest: offset };
        return scan.pair(25).is_some() && scan.row([59]).is_some() && scan.rest.is_empty();
    }
    let first = |b: u8| b.is_ascii_alphabetic() || b"_.".contains(&b);
    zone.split('/').all(|name| is_word(name, first, |b| first(b) || b.is_ascii_digit() || b"+-".contains(&b)))
}

fn is_tag(note: &str) -> bool {
    let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
    note.split_once('=').is_some_and(|(key, value)| {
        is_word(key, first, |b| first(b) || b.is_ascii_digit() || b == b'-')
            && value.split('-').all(|part| is_word(part, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric()))
    })
}

fn is_word(text: &str, first: impl Fn(u8) -> bool, others: impl Fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(first) && text.bytes().skip(1).all(others)
}

/// Canonical text of microseconds, `2024-06-15T10:30:00.000000Z`; `None` before the year 0 and after 9999-12-30 22:00.
pub fn format_iso(micros: i64) -> Option<String> {
    let timestamp = CANONICAL.contains(&micros).then(|| Timestamp::from_microsecond(micros).ok())??;
    let at = Offset::UTC.to_datetime(timestamp);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |places: std::ops::Range<usize>, mut number: i32| {
        for place in text[places].iter_mut().rev() {
            *place += (number % 10) as u8;
            number /= 10;
        }
    };
    put(0..4, at.year().into());
    put(5..7, at.month().into());
    put(8..10, at.day().into());
    put(11..13, at.hour().into());
    put(14..16, at.minute().into());
    put(17..19, at.second().into());
    put(20..26, at.subsec_nanosecond() / 1000);
    std::str::from_utf8(&text).ok().map(str::to_owned)
}

/// Whether `text` is the canonical one of `micros`.
fn is_canonical(text: &str, micros: Option<i64>) -> bool {
    text.len() == CANONICAL_LEN && micros.and_then(format_iso).as_deref() == Some(text)
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
            (Self::Native, Value::Text(text)) => Some(with_text(parse_iso(text), text)),
            (Self::Native, Value::Int(micros)) if !CANONICAL.contains(micros) => {
                Some(Time { micros: Some(*micros), text: None })
            }
            (Self::Native, Value::Map(map)) => decode_pair(map),
            (Self::Iso, Value::Text(text)) => Some(with_text(Some(parse_iso(text)?), text)),
            (Self::EpochSeconds, Value::Int(i)) => {
                Some(Time { micros: i.checked_mul(1_000_000), text: Some(i.to_string()) })
                    .filter(|t| t.micros.is_some())
            }
            (Self::EpochSeconds, Value::Float(f)) => {
                let micros = to_i64(f * 1e6)?;
                let exact = (micros as f64 / 1e6).to_bits() == f.to_bits();
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

    /// As [`Self::decode`] of a text: microseconds, and whether their canonical text is this one.
    pub fn read_text(self, text: &str) -> Option<(Option<i64>, bool)> {
        let micros = parse_iso(text);
        match self {
            Self::Native => Some((micros, is_canonical(text, micros))),
            Self::Iso => micros.map(|_| (micros, is_canonical(text, micros))),
            Self::EpochSeconds | Self::EpochMillis => None,
        }
    }

    /// Writes a time; `None` when this codec cannot say it.
    pub fn encode(self, micros: Option<i64>, text: Option<&str>) -> Option<Value> {
        match self {
            Self::Native => Some(encode_native(micros, text)),
            Self::Iso => {
                let micros = micros?;
                match text {
                    Some(text) if parse_iso(text) == Some(micros) => Some(Value::Text(text.to_owned())),
                    _ => format_iso(micros).map(Value::Text),
                }
            }
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

fn with_text(micros: Option<i64>, text: &str) -> Time {
    Time { micros, text: (!is_canonical(text, micros)).then(|| text.to_owned()) }
}

fn to_i64(f: f64) -> Option<i64> {
    let rounded = f.round();
    // The bounds are the doubles just inside i64.
    (-9.2e18..=9.2e18).contains(&rounded).then_some(rounded as i64)
}

fn encode_native(micros: Option<i64>, text: Option<&str>) -> Value {
    match (micros, text) {
        (Some(m), None) => format_iso(m).map_or(Value::Int(m), Value::Text),
        (_, Some(t)) if parse_iso(t) == micros && !is_canonical(t, micros) => Value::Text(t.to_owned()),
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
    let Value::Text(text) = get(map, "text")? else { return None };
    // Only what `encode_native` writes this way: anything else would come back in another form.
    let pair = matches!(encode_native(micros, Some(text)), Value::Map(_));
    pair.then(|| Time { micros, text: Some(text.clone()) })
}

#[cfg(test)]
mod tests;
