//! Qdrant over gRPC: the messages and stubs of the official crate on a channel of our own. Only points, which are many,
//! are written and read as bytes (`wire`), without its messages in between.
//!
//! The channel is ours because the official client's has no certificate authority of the user's choice, repeats every
//! call once by itself and copies each request for that. Retrying is the caller's: errors say whether it can help.

mod collections;
mod doubles;
mod key;
mod payload;
mod points;
mod read;
mod rpc;
mod status;
mod wire;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use tokio::runtime::{Builder, Runtime};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::{Code, Error, Result};

pub use collections::{CollectionInfo, Hnsw, VectorSpec};
pub use doubles::{given_back, to_come_back};
pub use key::Key;
pub use read::{Page, Span};
pub use write::{Rejected, Ticket};

/// Largest answer that is taken at once; a page that exceeds it is asked for again in smaller pieces.
const MAX_ANSWER: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection whose peer is gone without a word ends after the two of them, while a call waits for it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What the server may send before we have read it.
const WINDOW: u32 = 4 << 20;

/// How to reach a server.
#[derive(Clone)]
pub struct Options {
    /// `http://host:6334` or `https://host:6334`, the gRPC port.
    pub url: String,
    /// Sent with every call.
    pub api_key: Option<String>,
    /// Certificates that may sign the server's; the system's without it.
    pub ca_pem: Option<String>,
    /// How long one call may take.
    pub timeout: Duration,
}

/// A client of one server. Methods block; several threads may use it at once.
pub struct Client {
    runtime: Arc<Background>,
    link: Arc<Link>,
}

/// What calls need; shared with the tasks that write.
struct Link {
    channel: Channel,
    auth: Auth,
    secret: Option<String>,
    url: String,
    timeout: Duration,
    guesses: read::Guesses,
}

/// A runtime that ends without waiting, wherever it is dropped.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Background {
    fn runtime(&self) -> Result<&Runtime> {
        self.0.as_ref().ok_or_else(|| Error::new(Code::Io, "the client is closed"))
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime()?.block_on(work)
    }
}

#[derive(Clone)]
struct Auth(Option<MetadataValue<Ascii>>);

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("api-key", key.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Auth>;

impl Link {
    fn points(&self) -> PointsClient<Service> {
        PointsClient::with_interceptor(self.channel.clone(), self.auth.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn collections(&self) -> CollectionsClient<Service> {
        CollectionsClient::with_interceptor(self.channel.clone(), self.auth.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }

    /// Waits for a call, body included, and names place and call in its error.
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.raw(what, call).await?.map_err(|status| self.error(what, &status))
    }

    /// As [`Self::call`], with the server's own word for the caller to look at.
    async fn raw<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<std::result::Result<T, Status>> {
        let Ok(answer) = tokio::time::timeout(self.timeout, call).await else {
            let message = format!("{} {what}: no answer within {} s", self.url, self.timeout.as_secs_f64());
            return Err(Error::new(Code::Unavailable, message));
        };
        Ok(answer.map(Response::into_inner))
    }

    fn error(&self, what: &str, status: &Status) -> Error {
        status::error(status, self.secret.as_deref()).at(format!("{} {what}", self.url))
    }
}

impl Client {
    /// A client; the connection is made by the first call and made again after it was lost.
    pub fn new(options: Options) -> Result<Self> {
        let Options { url, api_key, ca_pem, timeout } = options;
        let auth = api_key
            .as_deref()
            .map(|key| {
                let mut value: MetadataValue<Ascii> =
                    key.parse().map_err(|_| Error::invalid("the API key has characters that no header can carry"))?;
                value.set_sensitive(true);
                Ok::<_, Error>(value)
            })
            .transpose()?;
        let endpoint = endpoint(&url, ca_pem.as_deref())?;
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("memferry-qdrant").enable_all().build()?;
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        let link = Link { channel, auth: Auth(auth), secret: api_key, url, timeout, guesses: read::Guesses::default() };
        Ok(Self { runtime: Arc::new(Background(Some(runtime))), link: Arc::new(link) })
    }
}

fn endpoint(url: &str, ca_pem: Option<&str>) -> Result<Endpoint> {
    let bad = || Error::invalid(format!("server URL {url:?}, allowed: http://HOST:PORT, https://HOST:PORT"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad())?;
    let uri = endpoint.uri();
    if uri.host().is_none_or(str::is_empty) || uri.authority().is_none_or(|a| a.as_str().contains('@')) {
        return Err(bad());
    }
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad()),
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW);
    if !tls {
        return Ok(endpoint);
    }
    let config = ClientTlsConfig::new();
    let config = match ca_pem {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.with_native_roots(),
    };
    endpoint.tls_config(config).map_err(|e| Error::invalid(format!("TLS for {url}: {e}")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn options(url: &str, api_key: Option<&str>) -> Options {
        let timeout = Duration::from_secs(2);
        Options { url: url.to_owned(), api_key: api_key.map(str::to_owned), ca_pem: None, timeout }
    }

    #[test]
    fn urls_without_scheme_or_with_a_password_are_refused() {
        for url in ["", "localhost:6334", "qdrant://localhost", "http://", "http://me:secret@localhost:6334"] {
            let error = Client::new(options(url, None)).err().unwrap();
            assert_eq!(Code::Invalid, error.code, "{url}");
        }
    }

    #[test]
    fn a_bad_key_is_refused_and_not_shown() {
        let error = Client::new(options("http://localhost:1", Some("hunter2\n"))).err().unwrap();
        assert_eq!(Code::Invalid, error.code);
        assert!(!error.message.contains("hunter2"));
    }

    #[test]
    fn nobody_there_is_transient() {
        let client = Client::new(options("http://127.0.0.1:1", Some("hunter2"))).unwrap();
        let error = client.exists("any").unwrap_err();
        assert_eq!(Code::Unavailable, error.code, "{error}");
        assert!(error.message.contains("127.0.0.1:1"), "{error}");
        assert!(!error.message.contains("hunter2"));
    }
}
