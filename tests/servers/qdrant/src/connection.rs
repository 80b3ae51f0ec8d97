//! Connections that a fault can cut off in the middle of a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::{Connected, TlsConnectInfo};

/// Cuts one connection; given to every request on it.
#[derive(Clone, Default)]
pub struct Cutter(Arc<Cut>);

#[derive(Default)]
struct Cut {
    done: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Cutter {
    /// The cutter of the connection that a request came by.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        let extensions = request.extensions();
        extensions
            .get::<Self>()
            .cloned()
            .or_else(|| extensions.get::<TlsConnectInfo<Self>>().map(|info| info.get_ref().clone()))
    }

    /// Ends the connection with a TCP reset. The other requests on it die with it, as they would
    /// when a server is killed.
    pub fn cut(&self) {
        self.0.done.store(true, Ordering::SeqCst);
        if let Some(waker) = self.0.reader.lock().take() {
            waker.wake();
        }
    }

    fn is_cut(&self) -> bool {
        self.0.done.load(Ordering::SeqCst)
    }
}

/// A TCP stream that fails once its cutter was used.
pub struct Connection {
    stream: TcpStream,
    cutter: Cutter,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        // As every gRPC server does; without it small answers wait for the client's ack.
        let _ = stream.set_nodelay(true);
        Self { stream, cutter: Cutter::default() }
    }

    fn check(&self) -> io::Result<()> {
        if !self.cutter.is_cut() {
            return Ok(());
        }
        // A linger of zero makes the close that follows a reset instead of an orderly end.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Connected for Connection {
    type ConnectInfo = Cutter;

    fn connect_info(&self) -> Cutter {
        self.cutter.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // An idle connection waits here, so this is where the cut has to wake it.
        *self.cutter.0.reader.lock() = Some(context.waker().clone());
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
