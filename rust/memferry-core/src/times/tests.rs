use super::*;

#[test]
fn canonical_texts_are_those_of_the_library() {
    let ends = [*CANONICAL.start(), *CANONICAL.end(), -1, 0, 1, 951_782_400_000_000, 1_718_447_400_123_456];
    let spread = (0..20_000).map(|i| CANONICAL.start() + i * 15_778_981_234_567);
    for micros in ends.into_iter().chain(spread).filter(|micros| CANONICAL.contains(micros)) {
        let expected = format!("{:.6}", Timestamp::from_microsecond(micros).ok().unwrap_or_default());
        assert_eq!(Some(&expected), format_iso(micros).as_ref());
        assert_eq!(Some(micros), parse_iso(&expected));
    }
    assert_eq!((None, None), (format_iso(CANONICAL.start() - 1), format_iso(CANONICAL.end() + 1)));
}

#[test]
fn texts_are_read_as_values_are() {
    for text in ["2024-06-15T10:30:00.123456Z", "2024-06-15", "yesterday", "", "2024-06-15T10:30:00.1234567+02:00"] {
        for codec in [TimeCodec::Native, TimeCodec::Iso, TimeCodec::EpochSeconds, TimeCodec::EpochMillis] {
            let read = codec
                .read_text(text)
                .map(|(micros, canonical)| Time { micros, text: (!canonical).then(|| text.to_owned()) });
            assert_eq!(codec.decode(&Value::Text(text.to_owned())), read, "{codec:?} {text}");
        }
    }
}

#[test]
fn canonical_text_is_left_out_and_anything_else_kept() {
    let plain = Value::Text("2024-06-15T10:30:00.123456Z".to_owned());
    assert_eq!(Some(Time { micros: Some(1_718_447_400_123_456), text: None }), TimeCodec::Iso.decode(&plain));
    let late = Value::Text("9999-12-31T23:59:59Z".to_owned());
    assert_eq!(None, TimeCodec::Iso.decode(&late));
    assert_eq!(
        Some(Time { micros: None, text: Some("9999-12-31T23:59:59Z".to_owned()) }),
        TimeCodec::Native.decode(&late)
    );
    for text in ["2024-06-15T10:30:00", "2024-06-15T10:30:00.123456789+02:00", "1969-12-31"] {
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
    let doubles = [1_718_447_402.0, 1_718_447_402.123_456_7, 0.0, -0.0].map(Value::Float);
    for value in doubles.into_iter().chain([Value::Int(1_718_447_402)]) {
        let time = TimeCodec::EpochSeconds.decode(&value).unwrap_or_default();
        let written = TimeCodec::EpochSeconds.encode(time.micros, time.text.as_deref()).unwrap_or(Value::Null);
        assert_eq!(value.to_canonical(), written.to_canonical());
    }
}

#[test]
fn only_the_grammar_of_the_specification_is_read() {
    for (text, seconds) in [
        ("2024-06-15", 1_718_409_600),
        ("20240615T103000", 1_718_447_400),
        ("2024-06-15 10", 1_718_445_600),
        ("2024-06-15t10:30+02", 1_718_440_200),
        ("2024-06-15T10:30:00-00:00:01", 1_718_447_401),
        ("2016-12-31T23:59:60Z", 1_483_228_799),
        ("+002024-06-15[!Europe/Paris][u-ca=iso]", 1_718_409_600),
        ("2024-06-15T10:30Z[+02:00]", 1_718_447_400),
        ("-000001-01-01", -62_198_755_200),
    ] {
        assert_eq!(Some(seconds * 1_000_000), parse_iso(text), "{text}");
    }
    for text in [
        "",
        "2024-6-15",
        "2024-0615",
        "2024-02-30",
        "-000000-01-01",
        "+010000-01-01",
        "+099999-01-01",
        "2024-06-15T",
        "2024-06-15T24",
        "2024-06-15T10:3000",
        "2024-06-15T1030:00",
        "2024-06-15T10:30:00.",
        "2024-06-15T10:30:00.1234567890",
        "2024-06-15T10.5",
        "2024-06-15T10:30:00+02:00:30.5",
        "2024-06-15T10:30:00+26",
        "2024-06-15T10:30:00 Z",
        "2024-06-15Z",
        "9999-12-30T23:00:00",
        "9999-12-30T20:00:00-05:00",
        "2024-06-15[u-ca=iso][Europe/Paris]",
        "2024-06-15[]",
        "2024-06-15[+26]",
        "2024-06-15[!u-ca=iso]",
        "2024-06-15[\u{e9}]",
        "2024-06-1\u{e9}",
        "\u{e9}",
    ] {
        assert_eq!(None, parse_iso(text), "{text}");
    }
}
