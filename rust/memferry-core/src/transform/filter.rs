//! `--where`: a CEL expression over one record, compiled once. The variables are documented in `docs/mapping.md`.
//!
//! What an expression can cost is bounded by its length times the size of the record: it has no macro within a macro,
//! no `map()`, and nothing grows inside a macro. So nothing is repeated more than once for each item of a list.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp};
use cel::common::types::{CelBytes, CelUInt};
use cel::common::value::Val;
use cel::{Context, Env, ExecutionError, Program};

use crate::error::{Code, Error, Result};
use crate::record::{RecordRef, SCORE_FIELDS, TEXT_FIELDS, TIME_FIELDS, VectorKind};
use crate::value::Value;

/// Longest expression.
const MAX_BYTES: usize = 4096;
/// Functions that there are beside the operators.
const FUNCTIONS: [&str; 26] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    op::NOT_STRICTLY_FALSE,
];
const OPERATORS: [&str; 18] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::INDEX,
    op::IN,
];
/// Those of both that answer yes or no.
const BOOLEAN: [&str; 15] = [
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::IN,
    "bool",
    "contains",
    "endsWith",
    "matches",
    "startsWith",
];
/// Names of types, as in `type(extra.n) == int`.
const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

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
        let mut check = Check { program: &program, source, used: BTreeSet::new() };
        check.expr(program.expression(), &mut Vec::new(), false)?;
        if let Answer::Other(what) = answer(program.expression()) {
            return Err(check.refuse(program.expression(), &format!("gives {what}, not yes or no")));
        }
        let variables = check.used.iter().filter_map(|name| Some((name.clone(), Variable::parse(name)?))).collect();
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

/// What kind of answer an expression gives, as far as its form says.
enum Answer {
    YesOrNo,
    Other(&'static str),
    Unknown,
}

fn answer(e: &IdedExpr) -> Answer {
    match &e.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => Answer::YesOrNo,
        Expr::Literal(_) => Answer::Other("a constant"),
        Expr::List(_) => Answer::Other("a list"),
        Expr::Map(_) | Expr::Struct(_) => Answer::Other("a map"),
        Expr::Select(select) if select.test => Answer::YesOrNo,
        Expr::Ident(name) if Variable::parse(name).is_some() => Answer::Other("a field"),
        Expr::Ident(_) | Expr::Select(_) | Expr::Unspecified => Answer::Unknown,
        Expr::Comprehension(loops) => match &loops.result.expr {
            Expr::Ident(name) if *name == loops.accu_var => answer(&loops.accu_init),
            _ => answer(&loops.result),
        },
        Expr::Call(call) if call.func_name == op::CONDITIONAL && call.args.len() == 3 => {
            match (answer(&call.args[1]), answer(&call.args[2])) {
                (Answer::Other(what), _) | (_, Answer::Other(what)) => Answer::Other(what),
                (Answer::YesOrNo, Answer::YesOrNo) => Answer::YesOrNo,
                _ => Answer::Unknown,
            }
        }
        Expr::Call(call) if BOOLEAN.contains(&call.func_name.as_str()) => Answer::YesOrNo,
        Expr::Call(call) if [op::INDEX, "dyn"].contains(&call.func_name.as_str()) => Answer::Unknown,
        Expr::Call(_) => Answer::Other("a value"),
    }
}

/// The walk that finds unknown names and what would cost too much.
struct Check<'a> {
    program: &'a Program,
    source: &'a str,
    used: BTreeSet<String>,
}

impl<'a> Check<'a> {
    fn refuse(&self, e: &IdedExpr, what: &str) -> Error {
        let start = self.program.source_info().offset_for(e.id).map_or(0, |(start, _)| start as usize);
        let before: Vec<char> = self.source.chars().take(start).collect();
        let line = before.iter().filter(|c| **c == '\n').count() + 1;
        let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
        Error::new(Code::Where, format!("--where, line {line}, column {column}: {what}"))
    }

    fn expr(&mut self, e: &'a IdedExpr, bound: &mut Vec<&'a str>, looped: bool) -> Result<()> {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Struct(_) => Err(self.refuse(e, "no messages are known")),
            Expr::Ident(name) => self.name(e, name, bound),
            Expr::Select(select) => self.expr(&select.operand, bound, looped),
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.expr(item, bound, looped)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                cel::common::ast::EntryExpr::MapEntry(member) => {
                    self.expr(&member.key, bound, looped)?;
                    self.expr(&member.value, bound, looped)
                }
                cel::common::ast::EntryExpr::StructField(_) => Err(self.refuse(e, "no messages are known")),
            }),
            Expr::Call(call) => self.call(e, call, bound, looped),
            Expr::Comprehension(_) if looped => Err(self.refuse(e, "a macro within a macro costs too much")),
            Expr::Comprehension(loops) => self.comprehension(e, loops, bound),
        }
    }

    fn name(&mut self, e: &IdedExpr, name: &str, bound: &[&str]) -> Result<()> {
        if bound.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        if Variable::parse(name).is_some() {
            self.used.insert(name.to_owned());
        } else if !TYPES.contains(&name) {
            return Err(self.refuse(e, &format!("unknown name {name:?}, see docs/mapping.md for those there are")));
        }
        Ok(())
    }

    fn call(&mut self, e: &IdedExpr, call: &'a CallExpr, bound: &mut Vec<&'a str>, looped: bool) -> Result<()> {
        let name = call.func_name.as_str();
        if !FUNCTIONS.contains(&name) && !OPERATORS.contains(&name) {
            let what = if name == "map" { "map() costs too much" } else { "unknown function" };
            return Err(self.refuse(e, &format!("{what}: {name}")));
        }
        if looped && name == op::ADD {
            return Err(self.refuse(e, "`+` within a macro costs too much"));
        }
        if name == "matches" {
            self.pattern(e, call, looped)?;
        }
        if let Some(target) = &call.target {
            self.expr(target, bound, looped)?;
        }
        call.args.iter().try_for_each(|arg| self.expr(arg, bound, looped))
    }

    /// A pattern is a constant, so that a wrong one is found here and not in every record.
    fn pattern(&self, e: &IdedExpr, call: &CallExpr, looped: bool) -> Result<()> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.last().map(|arg| &arg.expr) else {
            return Err(self.refuse(e, "the pattern of matches() must be a constant"));
        };
        if looped {
            return Err(self.refuse(e, "matches() within a macro costs too much"));
        }
        let trial = IdedExpr {
            id: 0,
            expr: Expr::Call(CallExpr {
                func_name: "matches".to_owned(),
                target: None,
                args: vec![
                    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(CelString::from(String::new()))) },
                    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(pattern.clone())) },
                ],
            }),
        };
        match cel::Value::resolve(&trial, &Context::default()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.refuse(e, "the pattern of matches() does not compile")),
        }
    }

    fn comprehension(&mut self, e: &'a IdedExpr, loops: &'a ComprehensionExpr, bound: &mut Vec<&'a str>) -> Result<()> {
        self.expr(&loops.iter_range, bound, false)?;
        let Some(predicate) = predicate(loops) else {
            return Err(self.refuse(e, "map() costs too much; there are all, exists, exists_one and filter"));
        };
        let before = bound.len();
        bound.push(&loops.iter_var);
        bound.extend(loops.iter_var2.as_deref());
        let checked = self.expr(predicate, bound, true);
        bound.truncate(before);
        checked
    }
}

/// What a macro asks of each item; `None` for one that makes new items.
fn predicate(loops: &ComprehensionExpr) -> Option<&IdedExpr> {
    let Expr::Call(step) = &loops.loop_step.expr else { return None };
    match (step.func_name.as_str(), step.args.as_slice()) {
        (op::LOGICAL_AND | op::LOGICAL_OR, [_, asked]) => Some(asked),
        (op::CONDITIONAL, [asked, then, _]) => {
            let Expr::Call(adding) = &then.expr else { return None };
            let added = match &adding.args.last()?.expr {
                Expr::Literal(_) => true,
                Expr::List(list) => match list.elements.as_slice() {
                    [one] => matches!(&one.expr, Expr::Ident(name) if *name == loops.iter_var),
                    _ => false,
                },
                _ => false,
            };
            added.then_some(asked)
        }
        _ => None,
    }
}
