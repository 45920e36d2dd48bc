//! Takes connections in, serves them and closes them: what `axum::serve` does, with caps and time-outs, which it has not,
//! so that a few hundred half-sent requests blocked every route. Absent: which connection is closed (see `connections`),
//! routes, and the time-outs of handlers.
//!
//! hyper's own header timer starts when a connection begins to wait for a request, not with its first byte, so it cannot
//! tell an idle kept-alive connection from a half-sent head. It stays off; `sweep` checks all connections instead.

use super::connections::{Admission, Caps, Connection, Connections, Open, Watch, counted};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{Request, Response},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

/// How often connections are checked.
const TICK: Duration = Duration::from_millis(500);
/// Space for a request head, and for what is read of a body at a time; a longer head is answered 431.
const MAX_BUFFER: usize = 16 * 1024;
/// A problem that lasts is logged so often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Serves `router` until `stop` turns true, and then answers the requests that are under way. Connections from a trusted
/// proxy carry many clients and are capped only in all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    caps: Caps,
    is_proxy: impl Fn(IpAddr) -> bool + Send,
    stop: watch::Receiver<bool>,
) {
    let connections = Arc::new(Connections::new(caps));
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    let serving = async {
        accept(listener, router, &connections, is_proxy, alive, stop.clone()).await;
        // Every connection holds a sender, so this ends with the last of them.
        let _ = ended.recv().await;
    };
    tokio::select! {
        () = serving => {}
        never = sweep(&connections, &stop) => match never {},
    }
}

/// Takes connections in until `stop` turns true. No error ends it: all of them pass.
async fn accept(
    listener: TcpListener,
    router: Router,
    connections: &Arc<Connections>,
    is_proxy: impl Fn(IpAddr) -> bool + Send,
    alive: mpsc::Sender<Infallible>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut errors, mut evictions, mut refusals) = (Recurring::default(), Recurring::default(), Recurring::default());
    let stopping = stop.clone();
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_client(&error) => continue,
            Err(error) => {
                if let Some(count) = errors.add() {
                    tracing::warn!(%error, count, "cannot take connections; if too many files are open, raise `LimitNOFILE` or `ulimit -n`");
                }
                connections.evict_one();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let address = (!is_proxy(peer.ip())).then(|| counted(peer.ip()));
        match connections.admit(address) {
            Admission::Free(open) => spawn(stream, peer, open, &router, &alive, &stopping),
            Admission::InPlaceOfAnother(open) => {
                spawn(stream, peer, open, &router, &alive, &stopping);
                if let Some(count) = evictions.add() {
                    tracing::warn!(count, caps = ?connections.caps, "closed connections that only waited, to take new ones");
                }
                // Lets the other one close its socket, and new ones read what has come.
                tokio::task::yield_now().await;
            }
            Admission::Refused => {
                if let Some(count) = refusals.add() {
                    tracing::warn!(count, caps = ?connections.caps, "refused connections: all that are open are in the middle of a request");
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Whether it is about the one connection that was to be taken in, not about us.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// A problem that is logged once in a while.
#[derive(Default)]
struct Recurring {
    unlogged: u64,
    logged_at: Option<Instant>,
}

impl Recurring {
    /// How often it has happened since it was last logged, if it is to be logged now.
    fn add(&mut self) -> Option<u64> {
        self.unlogged += 1;
        if self.logged_at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return None;
        }
        self.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut self.unlogged))
    }
}

fn spawn(
    stream: TcpStream,
    peer: SocketAddr,
    open: Open,
    router: &Router,
    alive: &mpsc::Sender<Infallible>,
    stop: &watch::Receiver<bool>,
) {
    let (router, alive, stop) = (router.clone(), alive.clone(), stop.clone());
    tokio::spawn(async move {
        hold(stream, peer, open, router, stop).await;
        drop(alive);
    });
}

/// Serves one connection to its end.
async fn hold(stream: TcpStream, peer: SocketAddr, open: Open, router: Router, mut stop: watch::Receiver<bool>) {
    // An answer is written at once; nothing is gained by waiting for more of it.
    let _ = stream.set_nodelay(true);
    let connection = &open.0;
    let socket = Socket {
        stream,
        connection: connection.clone(),
    };
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| answer(&router, connection, peer, request));
    let mut serving = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(socket), service)
    );
    let mut is_stopping = false;
    loop {
        tokio::select! {
            biased;
            () = connection.watch.close.notified() => return,
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Answers one request, which from here to the end of its answer is under way.
async fn answer(
    router: &TowerToHyperService<Router>,
    connection: &Connection,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    connection.begin().await;
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(connection.clone());
    let response = router.call(request).await?;
    Ok(response.map(|body| AnswerBody {
        body,
        watch: Arc::clone(&connection.watch),
    }))
}

/// Closes what is overdue, for ever.
async fn sweep(connections: &Connections, stop: &watch::Receiver<bool>) -> Infallible {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last, mut is_patient) = (Instant::now(), false);
    loop {
        ticks.tick().await;
        // After a freeze of this process, what came meanwhile is not read yet: the clients are not to blame. Once, though.
        is_patient = !is_patient && last.elapsed() > 4 * TICK;
        last = Instant::now();
        if is_patient {
            continue;
        }
        let is_stopping = *stop.borrow();
        let cut_off = connections.close_overdue(connections.now_ms(), is_stopping);
        if cut_off > 0 {
            tracing::warn!(
                requests = cut_off,
                "cut off requests that took too long, or whose client does not read its answer"
            );
        }
    }
}

/// A socket that notes when bytes come, and when none go.
struct Socket {
    stream: TcpStream,
    connection: Connection,
}

impl Socket {
    /// Notes whether the client takes what is written.
    fn noted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stalled_ms = &self.connection.watch.stalled_ms;
        if written.is_ready() {
            stalled_ms.store(0, Relaxed);
        } else if stalled_ms.load(Relaxed) == 0 {
            stalled_ms.store(self.connection.now_ms(), Relaxed);
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let first_byte_ms = &self.connection.watch.first_byte_ms;
        if buffer.filled().len() > before && first_byte_ms.load(Relaxed) == 0 {
            first_byte_ms.store(self.connection.now_ms(), Relaxed);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.watch.is_answered.swap(false, Relaxed) {
            self.connection.become_idle();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of an answer. hyper drops it when it has taken the last of it.
struct AnswerBody {
    body: Body,
    watch: Arc<Watch>,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.is_answered.store(true, Relaxed);
    }
}
