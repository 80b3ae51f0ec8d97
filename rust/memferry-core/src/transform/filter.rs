//! `--where`: a CEL expression over one record, compiled once. The variables are documented in `docs/mapping.md`.
//!
//! What an expression can cost is bounded by its length times the size of the record: it has no macro within a macro,
//! no `map()`, and nothing grows inside a macro. So nothing is repeated more than once for each item of a list.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp};
use cel::common::types::{CelBytes, CelUInt};
use cel::common::value::Val;
use cel::{Context, Env, ExecutionError, Program};

use crate::error::{Code, Error, Result};
use crate::record::{RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorKind};
use crate::value::Value;

mod check;

/// Longest expression.
const MAX_BYTES: usize = 4096;

/// A variable of the expression: a column of the record.
#[derive(Debug, Clone, Copy)]
enum Variable {
    Kind,
    Id,
    Text(usize),
    Provenance,
    Time(usize),
    Score(usize),
    Version,
    Tags,
    Extra,
    Vectors,
}

impl Variable {
    fn parse(name: &str) -> Option<Self> {
        let at = |names: &[&str]| names.iter().position(|n| *n == name);
        Some(match name {
            "kind" => Self::Kind,
            "id" => Self::Id,
            "provenance" => Self::Provenance,
            "version" => Self::Version,
            "tags" => Self::Tags,
            "extra" => Self::Extra,
            "vectors" => Self::Vectors,
            _ => {
                let text = at(&TEXT_FIELDS).map(Self::Text);
                text.or_else(|| at(&TIME_FIELDS).map(Self::Time)).or_else(|| at(&SCORE_FIELDS).map(Self::Score))?
            }
        })
    }

    fn value<'a>(self, r: &RecordRef<'a>) -> std::result::Result<Box<dyn Val + 'a>, String> {
        Ok(match self {
            Self::Kind => text(r.kind.as_str()),
            Self::Id => text(r.id),
            Self::Text(i) => r.texts[i].map_or_else(null, text),
            Self::Provenance => match r.texts[TEXT_FIELDS.len() - 1] {
                Some(json) => owned(read(json)?),
                None => null(),
            },
            Self::Time(i) => match r.times[i].micros.and_then(chrono::DateTime::from_timestamp_micros) {
                Some(time) => Box::new(CelTimestamp::from(time.fixed_offset())),
                None => null(),
            },
            Self::Score(i) => r.scores[i].map_or_else(null, |f| Box::new(CelDouble::from(f))),
            Self::Version => r.version.map_or_else(null, |i| Box::new(CelInt::from(i))),
            Self::Tags => {
                let tags = r.tags.iter().flatten().map(|tag| text(tag)).collect::<Vec<_>>();
                Box::new(CelList::from(tags))
            }
            Self::Extra => owned(read(r.extra)?),
            Self::Vectors => Box::new(CelList::from(r.vectors.iter().map(vector).collect::<Vec<_>>())),
        })
    }
}

fn read(canonical: &str) -> std::result::Result<Value, String> {
    Value::from_canonical(canonical).map_err(|_| "a field is no canonical text".to_owned())
}

fn text<'a>(text: &'a str) -> Box<dyn Val + 'a> {
    Box::new(CelString::from(text))
}

fn null<'a>() -> Box<dyn Val + 'a> {
    Box::new(CelNull)
}

fn vector<'a>(v: &crate::record::VectorRef<'a>) -> Box<dyn Val + 'a> {
    let kind = match v.kind {
        VectorKind::Dense => "dense",
        VectorKind::Sparse => "sparse",
        VectorKind::Multi => "multi",
    };
    let members: [(&str, Box<dyn Val + 'a>); 4] = [
        ("name", text(v.name)),
        ("model", v.model.map_or_else(null, text)),
        ("dim", Box::new(CelInt::from(i64::from(v.dim)))),
        ("kind", text(kind)),
    ];
    let members: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> =
        members.into_iter().map(|(key, value)| (CelMapKey::from(key.to_owned()), value)).collect();
    Box::new(CelMap::from(members))
}

fn owned<'a>(value: Value) -> Box<dyn Val + 'a> {
    match value {
        Value::Null => null(),
        Value::Bool(b) => Box::new(CelBool::from(b)),
        Value::Int(i) => Box::new(CelInt::from(i)),
        Value::UInt(u) => Box::new(CelUInt::from(u)),
        Value::Float(f) => Box::new(CelDouble::from(f)),
        // CEL has no wider number; the nearest double is what another reader would see.
        Value::Number(digits) => Box::new(CelDouble::from(digits.parse::<f64>().unwrap_or(f64::NAN))),
        Value::Text(t) => Box::new(CelString::from(t)),
        Value::Bytes(b) => Box::new(CelBytes::from(b)),
        Value::List(items) => Box::new(CelList::from(items.into_iter().map(owned).collect::<Vec<_>>())),
        Value::Map(map) => {
            let members: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> =
                map.into_iter().map(|(key, value)| (CelMapKey::from(key), owned(value))).collect();
            Box::new(CelMap::from(members))
        }
    }
}

/// A compiled filter.
pub struct Where {
    program: Program,
    env: Arc<Env>,
    variables: Vec<(String, Variable)>,
}

impl Where {
    /// Compiles `source`; an error says line and column.
    pub fn compile(source: &str) -> Result<Self> {
        if source.len() > MAX_BYTES {
            return Err(Error::new(Code::Where, format!("--where: longer than {MAX_BYTES} bytes")));
        }
        let env = Arc::new(Env::stdlib().with_optional_support(false));
        let compiled = catch_unwind(|| Env::stdlib().with_optional_support(false).compile(source));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => {
                let (line, column, what) = errors
                    .errors
                    .first()
                    .map_or((1, 1, "does not compile"), |e| (e.pos.0.max(1), e.pos.1.max(1), e.msg.as_str()));
                let what = if what.contains("Recursion limit") { "nested too deep" } else { what };
                return Err(Error::new(Code::Where, format!("--where, line {line}, column {column}: {what}")));
            }
            Err(_) => return Err(Error::new(Code::Where, "--where, line 1, column 1: does not compile")),
        };
        let used = check::variables(&program, source)?;
        let variables = used.into_iter().filter_map(|name| Variable::parse(&name).map(|it| (name, it))).collect();
        Ok(Self { program, env, variables })
    }

    /// Whether the record is to be kept; the error says why the expression has no answer for it, without its content.
    pub fn test(&self, r: &RecordRef<'_>) -> std::result::Result<bool, String> {
        let mut context = Context::with_env(self.env.clone());
        for (name, variable) in &self.variables {
            context.add_variable_as_val(name.as_str(), variable.value(r)?);
        }
        let run = || match cel::Value::resolve_val(self.program.expression(), &context) {
            Ok(value) => {
                let answer = value.downcast_ref::<CelBool>().map(|b| *b.inner());
                answer.ok_or_else(|| format!("gives {}, not yes or no", value.get_type().name()))
            }
            Err(error) => Err(explain(&error)),
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the evaluation broke off".to_owned()))
    }
}

/// What went wrong, without values of the record.
fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("got {got}, expected {want}"),
        ExecutionError::FunctionError { function, .. } => format!("{function}() has no result for it"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "values of these types cannot be compared".to_owned(),
        _ => "values of these types do not go together".to_owned(),
    }
}
