//! Calls whose messages are written and read here: tonic carries their bytes as they are.

use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::Link;

/// Paths of the calls.
pub const UPSERT: &str = "/qdrant.Points/Upsert";
/// See [`UPSERT`].
pub const SCROLL: &str = "/qdrant.Points/Scroll";
/// See [`UPSERT`].
pub const GET: &str = "/qdrant.Points/Get";

/// Bytes that the frame of a message takes.
const FRAME: usize = 5;

/// Sends and receives bytes; room for a request of this size is made at once.
struct Raw(usize);

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0)
    }

    fn decoder(&mut self) -> Self {
        Self(0)
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.0 + FRAME, self.0)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

impl Link {
    /// Sends an encoded message and gives the answer as it came, if it is no larger than `max_answer`.
    pub(super) async fn bytes(
        &self,
        path: &'static str,
        request: Vec<u8>,
        max_answer: usize,
    ) -> Result<Response<Bytes>, Status> {
        let service = InterceptedService::new(self.channel.clone(), self.auth.clone());
        let mut grpc = Grpc::new(service).max_decoding_message_size(max_answer);
        grpc.ready().await.map_err(|e| Status::unknown(format!("Service was not ready: {e}")))?;
        let codec = Raw(request.len());
        grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
    }
}
