//! Reading points: pages in the order of ids, single points, counts, nearest neighbours.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use arrow_array::RecordBatch;
use prost::Message as _;
use prost::bytes::Bytes;
use qdrant_client::qdrant as pb;

use super::key::{self, Key};
use super::points::{PointReader, PointRef};
use super::{Client, Link, MAX_ANSWER, rpc, status, wire};
use crate::error::{Error, Result};

/// Bytes of a point before any was read.
const FIRST_GUESS: usize = 8 << 10;
/// Points a request at most; more do not make it faster.
const MAX_REQUEST: usize = 10_000;
/// Ids a request at most.
const MAX_IDS: usize = 2_000;

/// Fields of `ScrollResponse`.
const NEXT_OFFSET: u32 = 1;
const POINTS: u32 = 2;
/// Field of `GetResponse`.
const FOUND: u32 = 1;

/// Which points a page is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// First id.
    pub start: Option<&'a str>,
    /// Id before which the page ends.
    pub until: Option<&'a str>,
    /// Points at most.
    pub max_records: usize,
    /// Bytes at most, but always one point.
    pub max_bytes: usize,
    /// Payload fields and the keyword each must have.
    pub filter: &'a [(String, String)],
    /// Whether vectors are read too.
    pub with_vectors: bool,
}

/// A page of points.
#[derive(Debug)]
pub struct Page {
    /// The points as a raw batch.
    pub raw: RecordBatch,
    /// How many they are.
    pub read: u64,
    /// Id to go on at, if there is more.
    pub next: Option<String>,
}

/// Mean size of the points read last, by collection and whether vectors were read: it sizes the next request.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<(String, bool), usize>>);

impl Guesses {
    fn mean(&self, collection: &str, with_vectors: bool) -> usize {
        let guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.get(&(collection.to_owned(), with_vectors)).copied().unwrap_or(FIRST_GUESS)
    }

    fn learn(&self, collection: &str, with_vectors: bool, mean: usize) {
        let mut guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.insert((collection.to_owned(), with_vectors), mean);
    }
}

/// Points to ask for, so that they come to about `bytes`.
fn points_in(bytes: usize, mean: usize) -> usize {
    (bytes / mean.max(1)).clamp(1, MAX_REQUEST)
}

pub(super) fn filter_to_wire(filter: &[(String, String)]) -> Option<pb::Filter> {
    use pb::condition::ConditionOneOf;
    let must = |(field, word): &(String, String)| {
        let matched = pb::r#match::MatchValue::Keyword(word.clone());
        let condition = pb::FieldCondition {
            key: field.clone(),
            r#match: Some(pb::Match { match_value: Some(matched) }),
            ..Default::default()
        };
        pb::Condition { condition_one_of: Some(ConditionOneOf::Field(condition)) }
    };
    (!filter.is_empty()).then(|| pb::Filter { must: filter.iter().map(must).collect(), ..Default::default() })
}

fn all_payload() -> pb::WithPayloadSelector {
    use pb::with_payload_selector::SelectorOptions;
    pb::WithPayloadSelector { selector_options: Some(SelectorOptions::Enable(true)) }
}

fn vectors_if(wanted: bool) -> pb::WithVectorsSelector {
    use pb::with_vectors_selector::SelectorOptions;
    pb::WithVectorsSelector { selector_options: Some(SelectorOptions::Enable(wanted)) }
}

impl Link {
    /// Points from `request.offset` on, fewer than asked for where they would be too many bytes at once.
    async fn scroll(&self, what: &str, mut request: pb::ScrollPoints) -> Result<Bytes> {
        loop {
            let limit = request.limit.unwrap_or(1).max(1);
            let most = if limit == 1 { usize::MAX } else { MAX_ANSWER };
            match self.raw(what, self.bytes(rpc::SCROLL, request.encode_to_vec(), most)).await? {
                Ok(answer) => return Ok(answer),
                Err(status) if status::too_large(&status) && limit > 1 => request.limit = Some(limit / 4),
                Err(status) => return Err(self.error(what, &status)),
            }
        }
    }

    async fn page(&self, collection: &str, span: Span<'_>) -> Result<Page> {
        let until = span.until.map(Key::parse).transpose()?;
        let mut next = span.start.map(Key::parse).transpose()?;
        let what = format!("scroll of collection {collection}");
        let mut page = PointReader::default();
        let mut mean = self.guesses.mean(collection, span.with_vectors);
        loop {
            let records = span.max_records.saturating_sub(page.rows.len());
            let bytes = span.max_bytes.saturating_sub(page.rows.bytes());
            let request = pb::ScrollPoints {
                collection_name: collection.to_owned(),
                filter: filter_to_wire(span.filter),
                offset: next.map(Key::to_wire),
                limit: Some(points_in(bytes, mean).min(records.max(1)) as u32),
                with_payload: Some(all_payload()),
                with_vectors: Some(vectors_if(span.with_vectors)),
                ..Default::default()
            };
            let answer = self.scroll(&what, request).await?;
            let (had, had_bytes) = (page.rows.len(), page.rows.bytes());
            let (mut following, mut full, mut over) = (None, None, false);
            wire::fields(&answer, |number, field| {
                match number {
                    NEXT_OFFSET => following = Some(Key::read(field.bytes()?)?),
                    POINTS if full.is_none() && !over => {
                        let point = PointRef::read(field.bytes()?)?;
                        let id = point.id()?;
                        over = until.is_some_and(|until| id >= until);
                        if !page.rows.is_empty() && page.rows.bytes() >= span.max_bytes {
                            full = Some(id);
                        } else if !over {
                            page.push(id, point)?;
                        }
                    }
                    _ => {}
                }
                Ok(ControlFlow::Continue(()))
            })
            .map_err(|e| e.at(&what))?;
            if over {
                return page.finish(None);
            }
            if let Some(seen) = (page.rows.bytes() - had_bytes).checked_div(page.rows.len() - had) {
                mean = seen;
                self.guesses.learn(collection, span.with_vectors, mean);
            }
            if full.is_some() {
                return page.finish(full);
            }
            if following.is_none() {
                return page.finish(None);
            }
            next = following;
            if until.is_some_and(|until| next >= Some(until)) {
                return page.finish(None);
            }
            // Another round trip for less than a quarter of a page costs more than a smaller page.
            let filled = page.rows.bytes() >= span.max_bytes / 4 * 3;
            if page.rows.len() >= span.max_records || filled {
                return page.finish(next);
            }
        }
    }
}

impl PointReader {
    fn finish(self, next: Option<Key>) -> Result<Page> {
        let read = self.rows.len() as u64;
        Ok(Page { raw: self.rows.finish()?, read, next: next.map(|key| key.to_string()) })
    }
}

impl Client {
    /// One page of points in the order of their ids.
    pub fn scroll(&self, collection: &str, span: Span<'_>) -> Result<Page> {
        if span.max_records == 0 || span.max_bytes == 0 {
            return Err(Error::invalid("a page needs room for one record"));
        }
        self.runtime.block_on(self.link.page(collection, span))
    }

    /// The points with these ids, in the order of the ids, those that there are.
    pub fn get(&self, collection: &str, keys: &[&str], with_vectors: bool) -> Result<RecordBatch> {
        let what = format!("points of collection {collection}");
        let answers = self.runtime.block_on(async {
            let mut answers = Vec::new();
            for part in keys.chunks(MAX_IDS) {
                let request = pb::GetPoints {
                    collection_name: collection.to_owned(),
                    ids: key::to_wire(part)?,
                    with_payload: Some(all_payload()),
                    with_vectors: Some(vectors_if(with_vectors)),
                    ..Default::default()
                };
                // As many as the caller has asked for, so as large as it may be.
                let call = self.link.bytes(rpc::GET, request.encode_to_vec(), usize::MAX);
                answers.push(self.link.call(&what, call).await?);
            }
            Ok(answers)
        })?;
        let mut found: Vec<(Key, PointRef<'_>)> = Vec::new();
        for answer in &answers {
            wire::fields(answer, |number, field| {
                if number == FOUND {
                    let point = PointRef::read(field.bytes()?)?;
                    found.push((point.id()?, point));
                }
                Ok(ControlFlow::Continue(()))
            })
            .map_err(|e| e.at(&what))?;
        }
        found.sort_by_key(|(key, _)| *key);
        found.dedup_by_key(|(key, _)| *key);
        let mut reader = PointReader::default();
        for (key, point) in found {
            reader.push(key, point).map_err(|e| e.at(&what))?;
        }
        reader.rows.finish()
    }

    /// How many points there are; an estimate unless `exact`.
    pub fn count(&self, collection: &str, filter: &[(String, String)], exact: bool) -> Result<u64> {
        self.runtime.block_on(async {
            let request = pb::CountPoints {
                collection_name: collection.to_owned(),
                filter: filter_to_wire(filter),
                exact: Some(exact),
                ..Default::default()
            };
            let what = format!("count of collection {collection}");
            let answer = self.link.call(&what, self.link.points().count(request)).await?;
            Ok(answer.result.map_or(0, |result| result.count))
        })
    }

    /// Ids and scores of the nearest points, best first; without the index if `exact`.
    pub fn query(
        &self,
        collection: &str,
        vector_name: &str,
        vector: &[f32],
        limit: usize,
        filter: &[(String, String)],
        exact: bool,
    ) -> Result<Vec<(String, f32)>> {
        use pb::{query::Variant, vector_input};
        let dense = vector_input::Variant::Dense(pb::DenseVector { data: vector.to_vec() });
        let nearest = Variant::Nearest(pb::VectorInput { variant: Some(dense) });
        let request = pb::QueryPoints {
            collection_name: collection.to_owned(),
            query: Some(pb::Query { variant: Some(nearest) }),
            using: (!vector_name.is_empty()).then(|| vector_name.to_owned()),
            filter: filter_to_wire(filter),
            params: Some(pb::SearchParams { exact: Some(exact), ..Default::default() }),
            limit: Some(limit as u64),
            ..Default::default()
        };
        let what = format!("query of collection {collection}");
        self.runtime.block_on(async {
            let answer = self.link.call(&what, Box::pin(self.link.points().query(request))).await?;
            let hit = |point: pb::ScoredPoint| Ok((Key::from_wire(point.id.as_ref())?.to_string(), point.score));
            answer.result.into_iter().map(hit).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_follow_the_size_of_points() {
        assert_eq!(512, points_in(4 << 20, FIRST_GUESS));
        assert_eq!(4, points_in(4 << 20, 1 << 20));
        assert_eq!(1, points_in(0, 100));
        assert_eq!(MAX_REQUEST, points_in(4 << 20, 0));
    }
}
