//! What an expression may be made of.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::common::types::CelString;
use cel::{Context, Program};

use super::Variable;
use crate::error::{Code, Error, Result};

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

/// Names that an expression uses; refused where it is made of something else, or gives no yes or no.
pub(super) fn variables(program: &Program, source: &str) -> Result<BTreeSet<String>> {
    let mut check = Check { program, source, used: BTreeSet::new() };
    check.expr(program.expression(), &mut Vec::new(), false)?;
    if let Answer::Other(what) = answer(program.expression()) {
        return Err(check.refuse(program.expression(), &format!("gives {what}, not yes or no")));
    }
    Ok(check.used)
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
