//! The background thread of a collection: it lets the engine optimize after changes, and flushes
//! on the collection's own interval. Without it no HNSW graph would ever be built, every search
//! would be exact, the status always green, and the log would grow for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::collection::Collection;
use crate::error::{Error, Result};

/// Pause between two looks of the optimizer, so that single upserts do not keep it busy.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a status request waits for the optimizer to have looked at the latest change.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The optimizer looked at the latest change and found nothing left to do.
    Green,
    /// There are changes that the optimizer has not finished with.
    Yellow,
    /// Maintenance failed; the reason.
    Red(String),
}

/// What the thread and the requests tell each other.
pub struct Pace {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    stop: bool,
    /// Changes so far, and how many of them the optimizer has seen.
    changes: u64,
    seen: u64,
    failure: Option<String>,
}

impl Default for Pace {
    fn default() -> Self {
        // Opening counts as a change: a killed server may have left work for the optimizer.
        let state = State { stop: false, changes: 1, seen: 0, failure: None };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }
}

impl Pace {
    pub fn changed(&self) {
        self.state.lock().changes += 1;
        self.news.notify_all();
    }

    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.news.notify_all();
    }

    /// Yellow only when there really is work: a small change is seen within the patience.
    pub fn health(&self) -> Health {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        let changes = state.changes;
        while state.seen < changes && state.failure.is_none() {
            if self.news.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        match &state.failure {
            Some(reason) => Health::Red(reason.clone()),
            None if state.seen < changes => Health::Yellow,
            None => Health::Green,
        }
    }

    /// Waits for something to do until `deadline`; returns the changes so far, or `None` to stop.
    fn wait(&self, deadline: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        while !state.stop && state.seen == state.changes {
            if self.news.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        (!state.stop).then_some(state.changes)
    }

    fn saw(&self, changes: u64) {
        self.state.lock().seen = changes;
        self.news.notify_all();
    }

    fn failed(&self, reason: String) {
        self.state.lock().failure = Some(reason);
        self.news.notify_all();
    }
}

pub fn spawn(collection: Arc<Collection>) -> Result<JoinHandle<()>> {
    Ok(thread::Builder::new().name("maintenance".to_owned()).spawn(move || run(&collection))?)
}

fn run(collection: &Collection) {
    let mut flushed = Instant::now();
    loop {
        let interval = Duration::from_secs(collection.flush_secs());
        let Some(changes) = collection.pace.wait(flushed + interval) else {
            return;
        };
        guarded(collection, "optimizer", || collection.optimize());
        collection.pace.saw(changes);
        if flushed.elapsed() >= interval {
            guarded(collection, "flush", || collection.flush());
            flushed = Instant::now();
        }
        thread::sleep(PAUSE);
    }
}

/// The engine reports some failures by panicking; a failure makes the collection red, it does not
/// end the thread, so that a later flush can still succeed.
fn guarded(collection: &Collection, what: &str, work: impl FnOnce() -> Result<()>) {
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Service(format!("the engine panicked in the {what}"))));
    if let Err(error) = result {
        eprintln!("collection `{}`: {what} failed: {error}", collection.name());
        collection.pace.failed(error.to_string());
    }
}
