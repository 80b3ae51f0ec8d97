//! The table as it is written: read, and refused with the path of what is wrong.

use std::collections::BTreeMap;

use serde_json::{Map as Json, Value as JsonValue};

use super::{Changed, Kinds, Mapping, Move, Place, Removal, SCOPES, Set, refuse};
use crate::error::Result;
use crate::record::{Kind, RecordRef, TEXT_FIELDS};
use crate::times::TimeCodec;
use crate::value::Value;

impl Mapping {
    /// Reads the JSON form of a mapping file. Errors begin with the path of what is wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        let json: JsonValue = serde_json::from_str(text).map_err(|e| refuse("mapping", &e.to_string()))?;
        let Some(file) = json.as_object() else { return Err(refuse("mapping", "a table is needed")) };
        only(file, "mapping", &["move", "drop", "set", "scope"])?;
        let mut mapping = Self { moves: Vec::new(), drops: Vec::new(), sets: Vec::new(), scopes: Default::default() };
        for (line, at) in lines(file, "move")? {
            only(line, &at, &["from", "to", "format", "kinds"])?;
            mapping.moves.push(Move {
                from: field(line, &at, "from")?,
                to: field(line, &at, "to")?,
                codec: codec(line, &at)?,
                kinds: Kinds::parse(line.get("kinds"), &at)?,
            });
        }
        for (line, at) in lines(file, "drop")? {
            only(line, &at, &["field", "kinds"])?;
            let kinds = Kinds::parse(line.get("kinds"), &at)?;
            mapping.drops.push(Removal { field: field(line, &at, "field")?, kinds });
        }
        for (line, at) in lines(file, "set")? {
            mapping.sets.push(set(line, &at)?);
        }
        if let Some(scopes) = file.get("scope") {
            mapping.scopes = renames(scopes)?;
        }
        mapping.check()?;
        Ok(mapping)
    }

    fn check(&self) -> Result<()> {
        for (i, line) in self.moves.iter().enumerate() {
            for place in [&line.from, &line.to] {
                if *place == Place::Vectors {
                    return Err(refuse(&format!("move[{i}]"), "`vectors` can only be dropped"));
                }
            }
            if line.from == line.to {
                return Err(refuse(&format!("move[{i}]"), "from and to are one field"));
            }
            for (j, other) in self.moves[..i].iter().enumerate().filter(|(_, other)| other.kinds.meets(line.kinds)) {
                for (name, mine, others) in [("from", &line.from, &other.from), ("to", &line.to, &other.to)] {
                    if mine == others {
                        return Err(refuse(&format!("move[{i}].{name}"), &format!("the same field as in move[{j}]")));
                    }
                }
            }
        }
        Ok(())
    }
}

fn only(table: &Json<String, JsonValue>, at: &str, allowed: &[&str]) -> Result<()> {
    match table.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(refuse(at, &format!("unknown key `{key}`, allowed: {}", allowed.join(", ")))),
        None => Ok(()),
    }
}

fn lines<'a>(file: &'a Json<String, JsonValue>, name: &str) -> Result<Vec<(&'a Json<String, JsonValue>, String)>> {
    let Some(list) = file.get(name) else { return Ok(Vec::new()) };
    let list = list.as_array().ok_or_else(|| refuse(name, &format!("tables headed [[{name}]] are needed")))?;
    let line = |(i, line): (usize, &'a JsonValue)| {
        let at = format!("{name}[{i}]");
        line.as_object().map(|line| (line, at.clone())).ok_or_else(|| refuse(&at, "a table is needed"))
    };
    list.iter().enumerate().map(line).collect()
}

fn field(line: &Json<String, JsonValue>, at: &str, name: &str) -> Result<Place> {
    let at = format!("{at}.{name}");
    Place::parse(line.get(name).ok_or_else(|| refuse(&at, "is missing"))?, &at)
}

fn codec(line: &Json<String, JsonValue>, at: &str) -> Result<TimeCodec> {
    let Some(word) = line.get("format") else { return Ok(TimeCodec::Native) };
    let codec = word.as_str().and_then(TimeCodec::parse);
    codec
        .ok_or_else(|| refuse(&format!("{at}.format"), "unknown, allowed: time, iso-time, epoch-seconds, epoch-millis"))
}

fn set(line: &Json<String, JsonValue>, at: &str) -> Result<Set> {
    only(line, at, &["field", "value", "replace", "format", "kinds"])?;
    let place = field(line, at, "field")?;
    let value_at = format!("{at}.value");
    let value = line.get("value").ok_or_else(|| refuse(&value_at, "is missing"))?;
    let value = Value::from_json(value.to_string().as_bytes()).map_err(|e| refuse(&value_at, &e.message))?;
    let codec = codec(line, at)?;
    let mut trial = Changed::new(&RecordRef::new(Kind::Memory, ""));
    if !matches!(trial.put(&place, value.clone(), codec), Ok(Ok(()))) {
        return Err(refuse(&value_at, &format!("the field does not take a {}", value.type_name())));
    }
    let replace = match line.get("replace") {
        None => false,
        Some(JsonValue::Bool(replace)) => *replace,
        Some(_) => return Err(refuse(&format!("{at}.replace"), "true or false is needed")),
    };
    Ok(Set { field: place, value, replace, codec, kinds: Kinds::parse(line.get("kinds"), at)? })
}

fn renames(json: &JsonValue) -> Result<[BTreeMap<String, String>; SCOPES]> {
    let tables = json.as_object().ok_or_else(|| refuse("scope", "tables headed [scope.user] are needed"))?;
    let names: Vec<&str> = TEXT_FIELDS[..SCOPES].iter().map(|name| name.trim_start_matches("scope_")).collect();
    only(tables, "scope", &names)?;
    let mut scopes: [BTreeMap<String, String>; SCOPES] = Default::default();
    for (i, name) in names.iter().enumerate() {
        let Some(table) = tables.get(*name) else { continue };
        let at = format!("scope.{name}");
        let table = table.as_object().ok_or_else(|| refuse(&at, "a table is needed"))?;
        for (old, new) in table {
            let new = new.as_str().ok_or_else(|| refuse(&format!("{at}.{old}"), "a text is needed"))?;
            scopes[i].insert(old.clone(), new.to_owned());
        }
    }
    Ok(scopes)
}
