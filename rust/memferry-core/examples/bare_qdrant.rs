//! The anchors of the Qdrant benchmarks: a bare scroll, and a raw sender of requests that were encoded before.
//!
//! `cargo run --release --example bare_qdrant http://HOST:PORT FROM [TO] STREAMS` scrolls through the collection FROM
//! and, with TO, writes what it read there. Prints lines of `name points_per_sec cpu_secs_per_100k`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memferry_core::error::{Code, Error, Result};
use prost::Message as _;
use prost::bytes::BufMut as _;
use qdrant_client::qdrant as pb;
use qdrant_client::qdrant::points_client::PointsClient;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Points an answer and bytes a request, as memferry has them.
const PAGE: u32 = 2048;
const REQUEST_BYTES: usize = 1 << 20;
const WINDOW: u32 = 4 << 20;

/// Sends bytes as they are, reads the answer of an upsert.
struct Encoded;

impl Codec for Encoded {
    type Encode = Vec<u8>;
    type Decode = pb::PointsOperationResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = pb::PointsOperationResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> std::result::Result<Option<Self::Item>, Status> {
        pb::PointsOperationResponse::decode(from).map(Some).map_err(|e| Status::internal(e.to_string()))
    }
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Code::Io, e.to_string())
}

/// Reads one of `of` equal slices of the UUIDs and gives each page to `keep`.
async fn scroll(
    channel: Channel,
    collection: &str,
    slice: u128,
    of: u128,
    mut keep: impl FnMut(Vec<pb::RetrievedPoint>),
) -> Result<u64> {
    let bound = |n: u128| uuid::Uuid::from_u128(u128::MAX / of * n).hyphenated().to_string();
    let end = (slice + 1 < of).then(|| bound(slice + 1));
    let mut client = PointsClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut offset = (slice > 0).then(|| pb::PointId::from(bound(slice)));
    let mut count = 0;
    loop {
        let request = pb::ScrollPoints {
            collection_name: collection.to_owned(),
            offset,
            limit: Some(PAGE),
            with_payload: Some(true.into()),
            with_vectors: Some(true.into()),
            ..Default::default()
        };
        let mut answer = client.scroll(request).await.map_err(failed)?.into_inner();
        let beyond = |point: &pb::RetrievedPoint| end.as_deref().is_some_and(|end| key(point) >= end);
        let over = answer.result.last().is_some_and(beyond);
        answer.result.retain(|point| !beyond(point));
        count += answer.result.len() as u64;
        keep(answer.result);
        offset = answer.next_page_offset.filter(|_| !over);
        if offset.is_none() {
            return Ok(count);
        }
    }
}

fn key(point: &pb::RetrievedPoint) -> &str {
    match point.id.as_ref().and_then(|id| id.point_id_options.as_ref()) {
        Some(pb::point_id::PointIdOptions::Uuid(uuid)) => uuid,
        _ => "",
    }
}

/// A point as it is written, out of one that was read.
fn written(point: pb::RetrievedPoint) -> pb::PointStruct {
    let dense = |output: pb::VectorOutput| match output.vector {
        Some(pb::vector_output::Vector::Dense(dense)) => pb::Vector::from(dense.data),
        _ => pb::Vector::from(Vec::<f32>::new()),
    };
    let vectors = match point.vectors.and_then(|vectors| vectors.vectors_options) {
        Some(pb::vectors_output::VectorsOptions::Vectors(named)) => {
            let vectors = named.vectors.into_iter().map(|(name, vector)| (name, dense(vector))).collect();
            pb::vectors::VectorsOptions::Vectors(pb::NamedVectors { vectors })
        }
        Some(pb::vectors_output::VectorsOptions::Vector(one)) => pb::vectors::VectorsOptions::Vector(dense(one)),
        None => pb::vectors::VectorsOptions::Vectors(pb::NamedVectors::default()),
    };
    let vectors = Some(pb::Vectors { vectors_options: Some(vectors) });
    pb::PointStruct { id: point.id, payload: point.payload, vectors }
}

/// Requests of about `REQUEST_BYTES`, encoded.
fn encoded(points: Vec<pb::RetrievedPoint>, collection: &str) -> VecDeque<Vec<u8>> {
    let mut requests = VecDeque::new();
    let mut request =
        pb::UpsertPoints { collection_name: collection.to_owned(), wait: Some(true), ..Default::default() };
    let mut bytes = 0;
    for point in points.into_iter().map(written) {
        bytes += point.encoded_len();
        request.points.push(point);
        if bytes > REQUEST_BYTES {
            requests.push_back(request.encode_to_vec());
            request.points.clear();
            bytes = 0;
        }
    }
    requests.push_back(request.encode_to_vec());
    requests
}

type Queue = Arc<Mutex<VecDeque<Vec<u8>>>>;

async fn send(channel: Channel, requests: Queue) -> Result<()> {
    let mut grpc = tonic::client::Grpc::new(channel);
    loop {
        let next = requests.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(request) = next else { return Ok(()) };
        grpc.ready().await.map_err(failed)?;
        let path = PathAndQuery::from_static("/qdrant.Points/Upsert");
        let answer = grpc.unary(Request::new(request), path, Encoded).await.map_err(failed)?.into_inner();
        if answer.result.as_ref().map(pb::UpdateResult::status) != Some(pb::UpdateStatus::Completed) {
            return Err(failed("an upsert was not applied"));
        }
    }
}

/// Seconds that the threads of this process were on a processor.
fn cpu_secs() -> Result<f64> {
    let mut nanos = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanos / 1e9)
}

fn tell(name: &str, points: u64, began: Instant, cpu: f64) -> Result<()> {
    let (secs, cpu) = (began.elapsed().as_secs_f64(), cpu_secs()? - cpu);
    #[expect(clippy::print_stdout, reason = "the answer of a benchmark")]
    {
        println!("{name} {:.0} {:.3}", points as f64 / secs, cpu / points as f64 * 1e5);
    }
    Ok(())
}

async fn run(url: String, from: String, to: Option<String>, streams: u128) -> Result<()> {
    let endpoint = Endpoint::from_shared(url).map_err(failed)?.tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(2 * WINDOW);
    let channel = endpoint.timeout(Duration::from_mins(1)).connect().await.map_err(failed)?;
    let (began, cpu) = (Instant::now(), cpu_secs()?);
    let mut tasks = Vec::new();
    for slice in 0..streams {
        let (channel, from, keep) = (channel.clone(), from.clone(), to.is_some());
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            let read = scroll(channel, &from, slice, streams, |page| {
                if keep {
                    kept.extend(page);
                }
            });
            read.await.map(|count| (count, kept))
        }));
    }
    let (mut count, mut points) = (0, Vec::new());
    for task in tasks {
        let (read, kept) = task.await.map_err(failed)??;
        count += read;
        points.extend(kept);
    }
    let Some(to) = to else { return tell("scroll", count, began, cpu) };
    let requests: Queue = Arc::new(Mutex::new(encoded(points, &to)));
    let (began, cpu) = (Instant::now(), cpu_secs()?);
    let tasks: Vec<_> = (0..streams).map(|_| tokio::spawn(send(channel.clone(), requests.clone()))).collect();
    for task in tasks {
        task.await.map_err(failed)??;
    }
    tell("send", count, began, cpu)
}

fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let streams = words.pop().and_then(|word| word.parse().ok()).filter(|streams| *streams > 0);
    let (Some(streams), 2..=3) = (streams, words.len()) else {
        return Err(Error::invalid("usage: bare_qdrant URL FROM [TO] STREAMS"));
    };
    let to = words.get(2).cloned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(words[0].clone(), words[1].clone(), to, streams))
}
