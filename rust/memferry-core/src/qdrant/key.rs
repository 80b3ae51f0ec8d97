//! Point ids: a number or a UUID, numbers first, as the server orders them.

use std::fmt;
use std::ops::ControlFlow;

use qdrant_client::qdrant::{PointId, point_id::PointIdOptions};
use uuid::Uuid;

use super::wire;
use crate::error::{Error, Result};

/// Fields of `PointId`.
const NUMBER: u32 = 1;
const UUID: u32 = 2;

/// A point id. The derived order is the order in which the server scrolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A 64-bit number.
    Number(u64),
    /// A UUID, ordered by its bytes.
    Uuid(Uuid),
}

impl Key {
    /// Reads the text of an id. Only the text that the server gives back is taken, so that no id changes on its way.
    pub fn parse(text: &str) -> Result<Self> {
        let key = text.parse().map(Self::Number).ok().or_else(|| Uuid::try_parse(text).ok().map(Self::Uuid));
        key.filter(|key| key.to_string() == text).ok_or_else(|| {
            Error::invalid(format!(
                "point id {text:?}, allowed: a number without sign or leading zeros, or a hyphenated lower-case UUID"
            ))
        })
    }

    /// From the wire.
    pub fn from_wire(id: Option<&PointId>) -> Result<Self> {
        let options = id.and_then(|id| id.point_id_options.as_ref());
        match options {
            Some(PointIdOptions::Num(number)) => Some(Self::Number(*number)),
            Some(PointIdOptions::Uuid(text)) => Uuid::try_parse(text).ok().map(Self::Uuid),
            None => None,
        }
        .ok_or_else(|| Error::new(crate::error::Code::StoreFormat, format!("not a point id: {options:?}")))
    }

    /// From the bytes of the wire.
    pub fn read(message: &[u8]) -> Result<Self> {
        let bad = || Error::new(crate::error::Code::StoreFormat, "not a point id");
        let mut found = None;
        wire::fields(message, |number, field| {
            match number {
                NUMBER => found = Some(Self::Number(field.number()?)),
                UUID => found = Some(Self::Uuid(Uuid::try_parse(field.text()?).map_err(|_| bad())?)),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        found.ok_or_else(bad)
    }

    /// Appends it as `field` of a message.
    pub fn write(self, field: u32, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                wire::put_len(out, field, 1 + wire::varint_len(number));
                wire::put_number(out, NUMBER, number);
            }
            Self::Uuid(uuid) => {
                let mut text = Uuid::encode_buffer();
                let text = uuid.as_hyphenated().encode_lower(&mut text).as_bytes();
                wire::put_len(out, field, wire::field_len(UUID, text.len()));
                wire::put_bytes(out, UUID, text);
            }
        }
    }

    /// To the wire.
    pub fn to_wire(self) -> PointId {
        let options = match self {
            Self::Number(number) => PointIdOptions::Num(number),
            Self::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
        };
        PointId { point_id_options: Some(options) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Uuid(uuid) => uuid.as_hyphenated().fmt(f),
        }
    }
}

/// Reads many ids for the wire.
pub fn to_wire(keys: &[&str]) -> Result<Vec<PointId>> {
    keys.iter().map(|key| Ok(Key::parse(key)?.to_wire())).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use qdrant_client::qdrant::PointStruct;

    #[test]
    fn numbers_come_before_uuids() {
        let texts = [
            "0",
            "9",
            "10",
            "18446744073709551615",
            "00000000-0000-0000-0000-000000000000",
            "0fffffff-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ];
        let keys: Vec<Key> = texts.iter().map(|text| Key::parse(text).unwrap()).collect();
        assert!(keys.is_sorted());
        assert_eq!(texts.to_vec(), keys.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn what_would_come_back_otherwise_is_not_an_id() {
        for text in [
            "",
            "-1",
            "+1",
            "01",
            "1.0",
            "18446744073709551616",
            "A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        ] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ids_travel_unchanged(number: u64, bits: u128) {
            for key in [Key::Number(number), Key::Uuid(Uuid::from_u128(bits))] {
                prop_assert_eq!(key, Key::from_wire(Some(&key.to_wire())).unwrap());
                prop_assert_eq!(key, Key::parse(&key.to_string()).unwrap());
                prop_assert_eq!(key, Key::read(&key.to_wire().encode_to_vec()).unwrap());
                let mut point = Vec::new();
                key.write(1, &mut point);
                prop_assert_eq!(Some(key.to_wire()), PointStruct::decode(&*point).unwrap().id);
            }
        }
    }
}
