//! Profile documents: read, and refused where they contradict themselves.

use serde::Deserialize;

use super::{Explode, ExtraPlace, FieldMap, Fill, IdRule, KindMap, Path, Profile, Select, Target, VectorsPlace};
use crate::error::{Code, Error, Result};
use crate::record::{Kind, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS};
use crate::times::TimeCodec;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    #[serde(default)]
    native: bool,
    #[serde(default)]
    escaped: bool,
    kinds: Vec<KindFile>,
    #[serde(default, rename = "description")]
    _description: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindFile {
    kind: String,
    #[serde(default)]
    select: Vec<Select>,
    id: IdRule,
    #[serde(default)]
    fields: Vec<FieldFile>,
    #[serde(default)]
    extra: ExtraPlace,
    #[serde(default)]
    vectors: VectorsPlace,
    #[serde(default)]
    explode: Option<Explode>,
    #[serde(default)]
    marker: Option<Path>,
    #[serde(default)]
    fill: Vec<Fill>,
    #[serde(default)]
    fixed: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldFile {
    field: String,
    path: Path,
    #[serde(default)]
    codec: Option<String>,
}

impl Profile {
    /// Reads and checks a profile document.
    pub fn from_json(text: &str) -> Result<Self> {
        let file: ProfileFile =
            serde_json::from_str(text).map_err(|e| Error::new(Code::Profile, format!("profile table: {e}")))?;
        let kinds = file
            .kinds
            .into_iter()
            .map(|kind| KindMap::check(kind).map_err(|e| e.at(format!("profile {}", file.name))))
            .collect::<Result<Vec<_>>>()?;
        let profile = Self { name: file.name, native: file.native, escaped: file.escaped, kinds };
        profile.check().map_err(|e| e.at(format!("profile {}", profile.name)))?;
        Ok(profile)
    }

    /// One table a kind, and no table behind one that takes every row of it.
    fn check(&self) -> Result<()> {
        if self.kinds.is_empty() {
            return Err(Error::new(Code::Profile, "no kinds"));
        }
        for (i, later) in self.kinds.iter().enumerate() {
            let word = later.kind.as_str();
            for earlier in &self.kinds[..i] {
                if earlier.kind == later.kind {
                    return Err(Error::new(Code::Profile, format!("{word}: two tables of one kind")));
                }
                if earlier.select.iter().all(|s| later.select.contains(s)) {
                    let taken = earlier.kind.as_str();
                    return Err(Error::new(Code::Profile, format!("{word}: never chosen, {taken} takes its rows")));
                }
            }
        }
        Ok(())
    }
}

impl KindMap {
    fn check(file: KindFile) -> Result<Self> {
        let kind = Kind::parse(&file.kind).map_err(|e| Error::new(Code::Profile, e.message))?;
        let fields = file
            .fields
            .into_iter()
            .map(|f| {
                let target = target(&f.field, f.codec.as_deref())?;
                Ok(FieldMap { name: f.field, path: f.path, target })
            })
            .collect::<Result<Vec<_>>>()?;
        let map = Self {
            kind,
            select: file.select,
            id: file.id,
            fields,
            extra: file.extra,
            vectors: file.vectors,
            explode: file.explode,
            marker: file.marker,
            fill: file.fill,
            fixed: file.fixed,
        };
        let contradiction = map.shared_place().or_else(|| map.repeated_field()).or_else(|| map.bad_join());
        match contradiction {
            Some(what) => Err(Error::new(Code::Profile, format!("{}: {what}", kind.as_str()))),
            None => Ok(map),
        }
    }

    /// Every path that is written, with what it is for. The parts of a joined id are fields already.
    fn places(&self) -> Vec<(&[String], &str)> {
        let mut places: Vec<_> = self.fields.iter().map(|f| (f.path.keys(), f.name.as_str())).collect();
        places.extend(self.select.iter().map(|s| (s.path.keys(), "select")));
        if let IdRule::Path(path) | IdRule::PathOrKey(path) = &self.id {
            places.push((path.keys(), "id"));
        }
        if let ExtraPlace::Object(path) | ExtraPlace::Text(path) = &self.extra {
            places.push((path.keys(), "extra"));
        }
        if let VectorsPlace::StoreWithMeta(path) | VectorsPlace::Objects(path) | VectorsPlace::Floats(path) =
            &self.vectors
        {
            places.push((path.keys(), "vectors"));
        }
        places.extend(self.explode.iter().map(|e| (e.path.keys(), "explode")));
        places.extend(self.marker.iter().map(|path| (path.keys(), "marker")));
        places.extend(self.fill.iter().map(|f| (f.path.keys(), "fill")));
        places
    }

    fn shared_place(&self) -> Option<String> {
        let mut places = self.places();
        places.sort();
        if let Some((_, what)) = places.iter().find(|(keys, _)| keys.is_empty()) {
            return Some(format!("the path of {what} has no key"));
        }
        let pair = places.windows(2).find(|pair| pair[1].0.starts_with(pair[0].0))?;
        Some(format!("{:?} is mapped twice: {} and {}", pair[1].0, pair[0].1, pair[1].1))
    }

    fn repeated_field(&self) -> Option<String> {
        let mut names: Vec<&str> = self.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        let pair = names.windows(2).find(|pair| pair[0] == pair[1])?;
        Some(format!("field {} is read from two places", pair[0]))
    }

    fn bad_join(&self) -> Option<String> {
        let IdRule::Join(paths) = &self.id else { return None };
        if paths.is_empty() {
            return Some("the id is joined from nothing".to_owned());
        }
        let unmapped = paths.iter().find(|path| self.text_at(path).is_none())?;
        Some(format!("the id is joined from {:?}, which is no text field", unmapped.keys()))
    }
}

fn target(field: &str, codec: Option<&str>) -> Result<Target> {
    let bad = |allowed: &str| {
        Error::new(Code::Profile, format!("field {field}: codec {:?}, allowed: {allowed}", codec.unwrap_or_default()))
    };
    if let Some(i) = TEXT_FIELDS.iter().position(|name| *name == field) {
        return match codec {
            None if field == "provenance" => Err(bad("json")),
            None => Ok(Target::Text(i)),
            Some("json") => Ok(Target::Json(i)),
            _ => Err(bad("json, or none for text")),
        };
    }
    if let Some(i) = TIME_FIELDS.iter().position(|name| *name == field) {
        let codec = TimeCodec::parse(codec.unwrap_or("iso-time"));
        return codec.map(|c| Target::Time(i, c)).ok_or_else(|| bad("time, iso-time, epoch-seconds, epoch-millis"));
    }
    if let Some(i) = SCORE_FIELDS.iter().position(|name| *name == field) {
        return match codec {
            None => Ok(Target::Score(i, false)),
            Some("text") => Ok(Target::Score(i, true)),
            _ => Err(bad("text, or none for a number")),
        };
    }
    match (field, codec) {
        ("version", None) => Ok(Target::Version),
        ("tags", None) => Ok(Target::Tags(false)),
        ("tags", Some("comma")) => Ok(Target::Tags(true)),
        ("tags", _) => Err(bad("comma, or none for a list")),
        _ => Err(Error::new(Code::Profile, format!("unknown field {field:?}"))),
    }
}
