//! The control port: one command a line, one answer a line (`ok ...` or `error ...`).
//!
//! ```text
//! refuse        [count=N] [skip=N] [collection=NAME] [on=write|read]
//! exhaust       [retry-after=SECS] and the same
//! delay         ms=N and the same
//! reset-before  and the same: the request is not applied
//! reset-after   and the same: the request is applied, its answer is lost
//! clear         disarms all faults
//! status        armed faults and counters as JSON
//! flush         flushes every collection now
//! ```
//!
//! `count` is 1 unless given, for `delay` without end; `skip` lets requests pass first.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::faults::{Effect, Fault, Faults, Kind};
use crate::storage::Storage;

/// Serves the control port for ever.
pub async fn serve(listener: TcpListener, faults: Arc<Faults>, storage: Arc<Storage>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (faults, storage) = (Arc::clone(&faults), Arc::clone(&storage));
        tokio::spawn(async move {
            // A client that goes away in the middle has only hurt itself.
            let _ = converse(stream, &faults, &storage).await;
        });
    }
}

async fn converse(mut stream: TcpStream, faults: &Faults, storage: &Arc<Storage>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match obey(&line, faults, storage).await {
            Ok(text) if text.is_empty() => "ok\n".to_owned(),
            Ok(text) => format!("ok {text}\n"),
            Err(text) => format!("error {text}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn obey(line: &str, faults: &Faults, storage: &Arc<Storage>) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default();
    let mut options = HashMap::new();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("not of the form key=value: {word}"))?;
        options.insert(key.to_owned(), value.to_owned());
    }
    match command {
        "clear" => faults.clear(),
        "status" => return Ok(faults.describe()),
        "flush" => {
            let storage = Arc::clone(storage);
            let flush = move || storage.all().iter().try_for_each(|one| one.flush());
            let result = tokio::task::spawn_blocking(flush).await;
            result.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        _ => faults.arm(fault(command, &mut options)?),
    }
    match options.keys().next() {
        Some(key) => Err(format!("unknown option: {key}")),
        None => Ok(String::new()),
    }
}

fn fault(command: &str, options: &mut HashMap<String, String>) -> Result<Fault, String> {
    let effect = match command {
        "refuse" => Effect::Refuse,
        "exhaust" => Effect::Exhaust { retry_after_secs: take(options, "retry-after")? },
        "delay" => Effect::Delay { millis: take(options, "ms")?.ok_or("delay needs ms=N")? },
        "reset-before" => Effect::ResetBefore,
        "reset-after" => Effect::ResetAfter,
        _ => return Err(format!("unknown command: {command}")),
    };
    let endless = matches!(effect, Effect::Delay { .. });
    let count = take(options, "count")?.or((!endless).then_some(1));
    if count == Some(0) {
        return Err("count must be at least 1".to_owned());
    }
    let fault = Fault {
        effect,
        on: take(options, "on")?.unwrap_or(Kind::Write),
        collection: take(options, "collection")?,
        skip: take(options, "skip")?.unwrap_or(0),
        count,
    };
    match options.keys().next() {
        Some(key) => Err(format!("unknown option: {key}")),
        None => Ok(fault),
    }
}

fn take<T>(options: &mut HashMap<String, String>, key: &str) -> Result<Option<T>, String>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    options.remove(key).map(|text| text.parse().map_err(|error| format!("{key}: {error}: {text}"))).transpose()
}
