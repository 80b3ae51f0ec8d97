//! Writing points. Everything waits until the server has applied it: without that it acknowledges points it then drops.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use prost::Message as _;
use qdrant_client::qdrant as pb;
use tokio::task::JoinHandle;

use super::key::{self, Key};
use super::points::PointWriter;
use super::{Background, Client, Link, MAX_ANSWER, rpc, wire};
use crate::error::{Code, Error, Result};
use crate::raw::RawView;
use crate::value::Value;

/// Bytes a request, about. Measured with points of 384 numbers: a quarter to two MiB are equal, with four the client's
/// and the server's time grow by a fifth.
const REQUEST_BYTES: usize = 1 << 20;
/// Requests on their way at once; more do not help one collection.
const IN_FLIGHT: usize = 2;
/// Bytes that a point takes beside its body and vectors.
const POINT_BYTES: usize = 64;
/// Ids a request at most.
const MAX_IDS: usize = 10_000;
/// Rows that the server may reject one by one before the error is taken to be about all of them.
const MAX_REJECTED: usize = 16;

/// Fields of `UpsertPoints`.
const COLLECTION: u32 = 1;
const WAIT: u32 = 2;
const POINTS: u32 = 3;

/// A row that was not written, and why.
pub type Rejected = (usize, String);

/// A batch on its way.
pub struct Ticket {
    runtime: Arc<Background>,
    task: JoinHandle<Result<Vec<Rejected>>>,
}

impl Ticket {
    /// Waits until the batch is applied; rows that were not, with the reason.
    ///
    /// After an error any part of the batch may have been applied; writing it again does no harm.
    pub fn ack(self) -> Result<Vec<Rejected>> {
        let Self { runtime, task } = self;
        runtime.block_on(async { task.await.map_err(|e| Error::new(Code::Io, format!("a write died: {e}")))? })
    }
}

/// Ranges of rows, each of about `max_bytes`.
fn split(raw: &RawView<'_>, max_bytes: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for row in 0..raw.len() {
        let size = POINT_BYTES + raw.body(row).len() + raw.vectors(row).iter().map(|v| v.data.len()).sum::<usize>();
        if row > start && bytes + size > max_bytes {
            ranges.push(start..row);
            (start, bytes) = (row, 0);
        }
        bytes += size;
    }
    if start < raw.len() {
        ranges.push(start..raw.len());
    }
    ranges
}

/// The beginning of an upsert that waits.
fn head(collection: &str) -> Vec<u8> {
    let mut request = Vec::new();
    wire::put_bytes(&mut request, COLLECTION, collection.as_bytes());
    wire::put_number(&mut request, WAIT, 1);
    request
}

/// The request that writes these rows, and those that it has no place for.
fn request(collection: &str, batch: &RecordBatch, rows: Range<usize>) -> Result<(Vec<u8>, Vec<Rejected>)> {
    let raw = RawView::new(batch)?;
    let mut request = head(collection);
    request.reserve(REQUEST_BYTES + REQUEST_BYTES / 8);
    let (mut writer, mut unsayable) = (PointWriter::default(), Vec::new());
    for row in rows {
        if let Err(why) = writer.write(&raw, row, POINTS, &mut request) {
            unsayable.push((row, why));
        }
    }
    Ok((request, unsayable))
}

impl Link {
    /// Writes `rows`; where the server rejects the request, finds the rows it means.
    async fn upsert(&self, collection: &str, batch: &RecordBatch, rows: Range<usize>) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        let mut by_server = 0;
        let mut work = vec![rows];
        while let Some(rows) = work.pop() {
            let (request, mut unsayable) = request(collection, batch, rows.clone())?;
            let points = rows.len() - unsayable.len();
            let sent = if points == 0 { Ok(()) } else { self.send(collection, request).await };
            match sent {
                Ok(()) => rejected.append(&mut unsayable),
                Err(e) if e.code == Code::Refused && points > 1 => {
                    let middle = rows.start + rows.len() / 2;
                    work.extend([middle..rows.end, rows.start..middle]);
                }
                Err(e) if e.code == Code::Refused => {
                    by_server += 1;
                    if by_server > MAX_REJECTED {
                        return Err(e);
                    }
                    let meant = rows.clone().find(|row| unsayable.iter().all(|(known, _)| known != row));
                    rejected.extend(meant.map(|row| (row, e.message)));
                    rejected.append(&mut unsayable);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(rejected)
    }

    async fn send(&self, collection: &str, request: Vec<u8>) -> Result<()> {
        let what = format!("upsert into collection {collection}");
        let answer = self.call(&what, self.bytes(rpc::UPSERT, request, MAX_ANSWER)).await?;
        let answer = pb::PointsOperationResponse::decode(answer)
            .map_err(|e| Error::new(Code::StoreFormat, format!("{} {what}: {e}", self.url)))?;
        self.applied(&what, &answer)
    }

    fn applied(&self, what: &str, answer: &pb::PointsOperationResponse) -> Result<()> {
        let status = answer.result.as_ref().map(pb::UpdateResult::status);
        match status {
            Some(pb::UpdateStatus::Completed) => Ok(()),
            other => {
                let message = format!("{} {what}: not applied in time, status {other:?}", self.url);
                Err(Error::new(Code::Unavailable, message))
            }
        }
    }

    async fn upsert_all(self: Arc<Self>, collection: String, batch: RecordBatch) -> Result<Vec<Rejected>> {
        let collection: Arc<str> = collection.into();
        let ranges = split(&RawView::new(&batch)?, REQUEST_BYTES);
        let mut rejected = Vec::new();
        let mut failed = None;
        let mut flying: VecDeque<JoinHandle<Result<Vec<Rejected>>>> = VecDeque::new();
        let mut ranges = ranges.into_iter();
        loop {
            while failed.is_none() && flying.len() < IN_FLIGHT {
                let Some(rows) = ranges.next() else { break };
                let (link, collection, batch) = (self.clone(), collection.clone(), batch.clone());
                flying.push_back(tokio::spawn(async move { link.upsert(&collection, &batch, rows).await }));
            }
            // After a failure what is still on its way is waited for, so that nothing arrives later.
            let Some(first) = flying.pop_front() else { break };
            match first.await.map_err(|e| Error::new(Code::Io, format!("a write died: {e}"))).flatten() {
                Ok(mut rows) => rejected.append(&mut rows),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(()), Err)?;
        rejected.sort_unstable_by_key(|(row, _)| *row);
        Ok(rejected)
    }
}

impl Client {
    /// Starts to write a raw batch. Ids must not repeat within it: its parts are written side by side.
    pub fn submit(&self, collection: &str, raw: &RecordBatch) -> Result<Ticket> {
        RawView::new(raw)?;
        let work = self.link.clone().upsert_all(collection.to_owned(), raw.clone());
        let task = self.runtime.runtime()?.spawn(work);
        Ok(Ticket { runtime: self.runtime.clone(), task })
    }

    /// Writes a raw batch; rows that the wire cannot carry or the server does not take, with the reason.
    pub fn upsert(&self, collection: &str, raw: &RecordBatch) -> Result<Vec<Rejected>> {
        self.submit(collection, raw)?.ack()
    }

    /// Deletes points; ids that are not there are no error.
    pub fn delete(&self, collection: &str, keys: &[&str]) -> Result<()> {
        use pb::points_selector::PointsSelectorOneOf;
        let what = format!("deleting points of collection {collection}");
        self.runtime.block_on(async {
            for part in keys.chunks(MAX_IDS) {
                let ids = pb::PointsIdsList { ids: key::to_wire(part)? };
                let selector = pb::PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(ids)) };
                let request = pb::DeletePoints {
                    collection_name: collection.to_owned(),
                    wait: Some(true),
                    points: Some(selector),
                    ..Default::default()
                };
                let answer = self.link.call(&what, self.link.points().delete(request)).await?;
                self.link.applied(&what, &answer)?;
            }
            Ok(())
        })
    }

    /// Writes small JSON objects as payloads of points without vectors, all or none of them.
    pub fn put_documents(&self, collection: &str, documents: &[(String, String)]) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let mut request = head(collection);
        let mut writer = PointWriter::default();
        for (id, json) in documents {
            let at = |e: Error| e.at(format!("document {id}"));
            let body = Value::from_json(json.as_bytes()).map_err(at)?.to_canonical();
            writer
                .write_document(Key::parse(id)?, body.as_bytes(), POINTS, &mut request)
                .map_err(|why| at(Error::invalid(why)))?;
        }
        self.runtime.block_on(self.link.send(collection, request))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::raw::RawBuilder;

    #[test]
    fn requests_are_bounded_and_cover_all_rows() {
        let mut builder = RawBuilder::default();
        for size in [10, 10, 900, 10, 2000, 10] {
            builder.push("1", &vec![b' '; size], &[]);
        }
        let batch = builder.finish().unwrap();
        let ranges = split(&RawView::new(&batch).unwrap(), 1000);
        assert_eq!(vec![0..2, 2..3, 3..4, 4..5, 5..6], ranges);
        let empty = RawBuilder::default().finish().unwrap();
        assert!(split(&RawView::new(&empty).unwrap(), 1000).is_empty());
    }
}
