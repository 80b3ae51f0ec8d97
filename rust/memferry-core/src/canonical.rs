//! Tells whether a text is canonical, without building the value: what readers of our own stores ask of every row.

use crate::value::{Value, number, special};

/// Whether `text` is the canonical text of an object that nests no deeper than `depth`.
///
/// Says what `Value::from_document(text, true, depth)` and printing the object again would say, without allocating.
pub fn is_canonical_object(text: &str, depth: usize) -> bool {
    let mut scan = Scan { text, at: 0, depth };
    scan.peek() == Some(b'{') && scan.object(0) == Some(Found::Object) && scan.at == text.len()
}

/// What an object means.
#[derive(PartialEq)]
enum Found {
    Object,
    /// A scalar that JSON has no form for.
    Scalar,
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes over `byte` if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > self.depth {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.object(depth).map(|_| ()),
            b'[' => self.list(depth),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            if !self.eat(b',') {
                return self.eat(b']').then_some(());
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Found> {
        let start = self.at;
        self.at += 1;
        if self.eat(b'}') {
            return Some(Found::Object);
        }
        let mut before = None;
        loop {
            let key = self.string()?;
            if before.is_some_and(|before| !ascending(before, key)) || !self.eat(b':') {
                return None;
            }
            let text = self.peek() == Some(b'"');
            self.value(depth + 1)?;
            if self.eat(b',') {
                before = Some(key);
                continue;
            }
            if !self.eat(b'}') {
                return None;
            }
            if before.is_none() && text && matches!(key, "$f64" | "$number" | "$bytes") {
                // One reserved member: short but for bytes, and read as the scalar that it stands for.
                let whole = &self.text[start..self.at];
                return (Value::from_canonical(whole).ok()?.to_canonical() == whole).then_some(Found::Scalar);
            }
            return Some(Found::Object);
        }
    }

    /// A string with the fewest escapes; what stands between its quotes.
    fn string(&mut self) -> Option<&'a str> {
        if !self.eat(b'"') {
            return None;
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            self.at += special(&bytes[self.at..])?;
            match bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[start..self.at - 1]);
                }
                b'\\' => self.at += escape(&bytes[self.at + 1..])? + 1,
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let token = &rest[..end.unwrap_or(rest.len())];
        self.at += token.len();
        let digits = token.strip_prefix('-').unwrap_or(token);
        if digits.bytes().all(|b| b.is_ascii_digit()) {
            let plain = token == "0" || digits.bytes().next().is_some_and(|b| b != b'0');
            // Eighteen digits fit; longer ones may not, and are another thing then.
            let fits = digits.len() <= 18 || token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok();
            return (plain && fits).then_some(());
        }
        match number(token).ok()? {
            Value::Float(float) => (ryu::Buffer::new().format_finite(float) == token).then_some(()),
            _ => None,
        }
    }
}

/// Length of the one escape that canonical text has for a character, the backslash left out.
fn escape(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => Some(1),
        [b'u', b'0', b'0', high @ (b'0' | b'1'), low @ (b'0'..=b'9' | b'a'..=b'f'), ..] => {
            let short = *high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd');
            (!short).then_some(5)
        }
        _ => None,
    }
}

/// Whether the second key comes after the first, both as they stand between quotes.
fn ascending(first: &str, second: &str) -> bool {
    if !first.contains('\\') && !second.contains('\\') {
        return first < second;
    }
    let plain = |key: &str| match Value::from_canonical(&format!("\"{key}\"")) {
        Ok(Value::Text(text)) => Some(text),
        _ => None,
    };
    plain(first).zip(plain(second)).is_some_and(|(first, second)| first < second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Map;
    use proptest::prelude::*;

    fn slowly(text: &str, depth: usize) -> bool {
        matches!(Value::from_document(text.as_bytes(), true, depth), Ok(v @ Value::Map(_)) if v.to_canonical() == text)
    }

    fn same(text: &str, depth: usize) {
        assert_eq!(slowly(text, depth), is_canonical_object(text, depth), "depth {depth}: {text}");
    }

    #[test]
    fn says_what_reading_and_printing_says() {
        let members = [
            "0",
            "-0",
            "00",
            "01",
            "-1",
            "-01",
            "-",
            "+1",
            "1.0",
            "1.",
            ".5",
            "1.50",
            "1e5",
            "1e16",
            "1E16",
            "1e+16",
            "1e400",
            "-0.0",
            "0.1",
            "1e-7",
            "0.0000001",
            "5e-324",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "123456789012345678",
            "NaN",
            "Infinity",
            "-Infinity",
            "true",
            "tru",
            "null",
            "nul",
            "false",
            "[]",
            "[1,2]",
            "[1 ,2]",
            "[1,]",
            "[,1]",
            "[",
            "{}",
            "{",
            r#"{"a":1}"#,
            r#"{"a":1,}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"\n":1,"\"":2}"#,
            r#"{"\"":1,"!":2}"#,
            r#"{"\\":1,"a":2}"#,
            r#"{"a":1,"\\":2}"#,
            r#"{"é":1,"ü":2}"#,
            r#""a""#,
            r#""\u0041""#,
            r#""\u001f""#,
            r#""\u001F""#,
            r#""\u000a""#,
            r#""\n""#,
            r#""\/""#,
            r#""\ud83d\ude00""#,
            r#""\ud800""#,
            "\"\u{7f}\"",
            "\"\t\"",
            "\"",
            r#""\"#,
            r#""\u""#,
            r#""\u00"#,
            r#"{"$f64":"7ff8000000000001"}"#,
            r#"{"$f64":"3ff8000000000000"}"#,
            r#"{"$f64":"7FF8000000000001"}"#,
            r#"{"$f64":1}"#,
            r#"{"$number":"1e400"}"#,
            r#"{"$number":"1"}"#,
            r#"{"$number":"1e40\u0030"}"#,
            r#"{"$bytes":"AA=="}"#,
            r#"{"$bytes":"AB=="}"#,
            r#"{"$bytes":"A\/=="}"#,
            r#"{"$bytes":{"$f64":"x"}}"#,
            r#"{"$f64":"x","a":1}"#,
            r#"{"$x":"y"}"#,
            r#"{"$$f64":"x"}"#,
        ];
        for member in members {
            for text in [
                member.to_owned(),
                format!("{{\"k\":{member}}}"),
                format!("{{\"k\":[{member},1]}}"),
                format!("{{\"k\":{member}}} "),
                format!("{{\"k\":{member},\"l\":{member}}}"),
            ] {
                for depth in [0, 1, 2, 3, 200] {
                    same(&text, depth);
                }
            }
        }
    }

    #[test]
    fn nests_as_deep_as_it_may() {
        for nested in 0..12 {
            let lists = format!("{{\"a\":{}1{}}}", "[".repeat(nested), "]".repeat(nested));
            let objects = format!("{{\"a\":{}1{}}}", "{\"b\":".repeat(nested), "}".repeat(nested));
            let reserved = format!("{{\"a\":{}{{\"$bytes\":\"AA==\"}}{}}}", "[".repeat(nested), "]".repeat(nested));
            for depth in 0..14 {
                same(&lists, depth);
                same(&objects, depth);
                same(&reserved, depth);
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "[a$\\\\\"\n\u{1}é]{0,4}".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let keys = "[a-c$\\\\\"\n!é]{0,3}|\\$f64|\\$number|\\$bytes";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map(keys, inner, 0..4).prop_map(|m| Value::Map(m.into_iter().collect::<Map>())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_on_canonical_texts_and_on_damaged_ones(
            value in values(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3, any::<prop::sample::Index>()), 0..3),
            depth in 0_usize..8,
        ) {
            let mut text: Vec<char> = format!("{{\"k\":{}}}", value.to_canonical()).chars().collect();
            let alphabet: Vec<char> = "{}[]\",:\\$0123456789.eE+-ntfu ab/".chars().collect();
            for (place, what, with) in edits {
                let (at, with) = (place.index(text.len()), alphabet[with.index(alphabet.len())]);
                match what {
                    0 => text[at] = with,
                    1 => text.insert(at, with),
                    _ if text.len() > 1 => { text.remove(at); }
                    _ => {}
                }
            }
            let text: String = text.into_iter().collect();
            for depth in [depth, 200] {
                prop_assert_eq!(slowly(&text, depth), is_canonical_object(&text, depth), "{}", text);
            }
        }
    }
}
