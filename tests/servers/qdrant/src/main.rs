//! `qdrant-testserver`: Qdrant's own storage engine behind Qdrant's own gRPC wire, for tests.
//!
//! It is not a Qdrant server; `README.md` says what it serves and what differs.

mod auth;
mod connection;
mod control;
mod convert;
mod error;
mod faults;
mod service;
mod storage;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::QdrantServer;
use qdrant_client::qdrant::snapshots_server::SnapshotsServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::connection::Connection;
use crate::service::Shared;

/// How long running maintenance may keep a stop waiting. What is not flushed by then is in the
/// log, and the next start replays it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(version, about = "Qdrant's storage engine behind its gRPC wire, for tests")]
struct Arguments {
    /// Loopback address to serve on; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Directory of the data, created if it does not exist
    #[arg(long, value_name = "DIR")]
    storage: PathBuf,
    /// File with the API key that clients must send
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Certificate chain for TLS
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Loopback address of the control port, for faults on demand
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// Refuse larger request messages; without it there is no limit, as on the real server
    #[arg(long, value_name = "MIB")]
    max_message_mib: Option<usize>,
}

fn main() {
    let arguments = Arguments::parse();
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            let result = runtime.block_on(serve(arguments));
            // Requests that a fault left hanging must not keep the process.
            runtime.shutdown_background();
            result
        });
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("qdrant-testserver: {error}");
            1
        }
    };
    // Without unwinding through shards that maintenance may still be using.
    std::process::exit(code)
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error + Send + Sync>> {
    for address in [Some(arguments.listen), arguments.control].into_iter().flatten() {
        if !address.ip().is_loopback() {
            return Err(format!("not a loopback address: {address}").into());
        }
    }
    // Before anything is announced, so that whoever starts the server can rely on its stop.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut server = Server::builder();
    if let (Some(cert), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        let identity = Identity::from_pem(std::fs::read(cert)?, std::fs::read(key)?);
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    let key = match &arguments.api_key_file {
        Some(path) => Some(std::fs::read_to_string(path)?.trim().to_owned()),
        None => None,
    };
    let shared = Shared { storage: Arc::new(storage::Storage::open(&arguments.storage)?), faults: Arc::default() };

    let control = match arguments.control {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    };
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening {}", listener.local_addr()?);
    if let Some(control) = control {
        println!("control {}", control.local_addr()?);
        let (faults, storage) = (shared.faults.clone(), shared.storage.clone());
        tokio::spawn(control::serve(control, faults, storage));
    }

    let limit = arguments.max_message_mib.map_or(usize::MAX, |mib| mib << 20);
    let api_key = auth::ApiKey::new(key);
    let collections = CollectionsServer::new(service::CollectionsService(shared.clone()))
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(limit);
    let points = PointsServer::new(service::PointsService(shared.clone()))
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(limit);
    let snapshots = SnapshotsServer::new(service::SnapshotsService);
    let router = server
        .add_service(QdrantServer::new(service::HealthService))
        .add_service(InterceptedService::new(collections, api_key.clone()))
        .add_service(InterceptedService::new(points, api_key.clone()))
        .add_service(InterceptedService::new(snapshots, api_key));

    let incoming = TcpListenerStream::new(listener).map(|stream| stream.map(Connection::new));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, async {
        let _ = stopped.await;
    }));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut serving => return Ok(result??),
    }
    let _ = stop.send(());
    // Clients keep idle connections open, so an orderly end has a limit.
    let _ = tokio::time::timeout(Duration::from_secs(2), &mut serving).await;
    serving.abort();
    let closing = tokio::task::spawn_blocking(move || shared.storage.close());
    if let Ok(closed) = tokio::time::timeout(STOP_PATIENCE, closing).await {
        return Ok(closed??);
    }
    eprintln!("maintenance is still running, the next start replays the log");
    Ok(())
}
