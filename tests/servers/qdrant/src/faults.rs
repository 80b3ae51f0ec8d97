//! Faults on demand. There is deliberately none that acknowledges a write without applying it:
//! a server that lies would prove nothing.

use std::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::connection::Cutter;

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Point operations that change data, payload index operations included.
    Write,
    /// Point operations that only read.
    Read,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "write" => Ok(Self::Write),
            "read" => Ok(Self::Read),
            _ => Err(format!("unknown kind, expected write or read: {text}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Not applied; answered with `UNAVAILABLE`.
    Refuse,
    /// Not applied; answered with `RESOURCE_EXHAUSTED` and, unless absent, `retry-after`.
    Exhaust { retry_after_secs: Option<u64> },
    /// Applied after a pause.
    Delay { millis: u64 },
    /// Not applied; the connection is reset instead of an answer.
    ResetBefore,
    /// Applied; the connection is reset instead of an answer.
    ResetAfter,
}

/// A fault that waits for its requests.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    pub effect: Effect,
    pub on: Kind,
    /// Only requests that name this collection (or alias), when set.
    pub collection: Option<String>,
    /// How many matching requests pass before the fault strikes.
    pub skip: u64,
    /// How many requests it strikes; without a count until `clear`.
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Counters {
    pub writes: u64,
    pub reads: u64,
    pub struck: u64,
}

#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Default, Serialize)]
struct State {
    faults: Vec<Fault>,
    counters: Counters,
}

/// What is left to do once a request was applied.
#[must_use]
pub struct Pass(Option<Cutter>);

impl Pass {
    /// Ends the request: normally at once; never, when its connection was to be reset.
    pub async fn finish(self) -> Result<(), Status> {
        match self.0 {
            None => Ok(()),
            Some(cutter) => Err(reset(cutter).await),
        }
    }
}

impl Faults {
    pub fn arm(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    pub fn clear(&self) {
        self.state.lock().faults.clear();
    }

    /// The armed faults and the counters, as one line of JSON.
    pub fn describe(&self) -> String {
        serde_json::to_string(&*self.state.lock()).unwrap_or_default()
    }

    /// Called by every point operation before it touches the engine.
    pub async fn meet<T>(&self, request: &tonic::Request<T>, kind: Kind, collection: &str) -> Result<Pass, Status> {
        let mut pass = Pass(None);
        for effect in self.strike(kind, collection) {
            match effect {
                Effect::Refuse => {
                    return Err(Status::unavailable("Shard temporarily unavailable: refused on demand"));
                }
                Effect::Exhaust { retry_after_secs } => return Err(exhausted(retry_after_secs)),
                Effect::Delay { millis } => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                Effect::ResetBefore => match Cutter::of(request) {
                    Some(cutter) => return Err(reset(cutter).await),
                    None => return Err(Status::internal("the connection cannot be reset")),
                },
                Effect::ResetAfter => pass = Pass(Cutter::of(request)),
            }
        }
        Ok(pass)
    }

    /// The effects for this request; each fault counts the requests that match it.
    fn strike(&self, kind: Kind, collection: &str) -> Vec<Effect> {
        let mut state = self.state.lock();
        match kind {
            Kind::Write => state.counters.writes += 1,
            Kind::Read => state.counters.reads += 1,
        }
        let mut effects = Vec::new();
        for fault in &mut state.faults {
            let other = fault.collection.as_deref().is_some_and(|name| name != collection);
            if fault.on != kind || other {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Some(count) = &mut fault.count {
                *count -= 1;
            }
            effects.push(fault.effect.clone());
        }
        state.faults.retain(|fault| fault.count != Some(0));
        state.counters.struck += effects.len() as u64;
        effects
    }
}

/// Cuts the connection and waits to be dropped with it.
async fn reset(cutter: Cutter) -> Status {
    cutter.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    Status::unavailable("the connection was to be reset")
}

/// As the real server's rate limiter answers.
fn exhausted(retry_after_secs: Option<u64>) -> Status {
    let mut status =
        Status::new(Code::ResourceExhausted, "Rate limiting exceeded: Write rate limit exceeded, retry later");
    if let Some(secs) = retry_after_secs {
        status.metadata_mut().insert("retry-after", MetadataValue::from(secs));
    }
    status
}
