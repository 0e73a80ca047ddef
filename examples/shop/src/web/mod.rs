//! The HTTP side.

mod answer;
mod handlers;
mod router;
mod snapshot;

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Serve;
use crate::database::{Pool, Schema};
use answer::Body;
use snapshot::Snapshots;

/// A request's head must arrive within this time.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Requests under way at SIGTERM may take so long.
const LAST_REQUESTS: Duration = Duration::from_secs(8);

/// Everything that requests need.
pub(crate) struct Shop {
    instance: String,
    node: String,
    primary: Arc<Pool>,
    replica: Option<Pool>,
    schema: Arc<Schema>,
    snapshots: Snapshots,
}

/// Serves until SIGTERM or SIGINT, then finishes the requests under way.
pub(crate) async fn run(options: Serve) -> Result<(), String> {
    if options.database_url.is_empty() {
        return Err("no database: set DATABASE_URL, for example postgres://shop@127.0.0.1:5432/shop".into());
    }
    let application = format!("shop {}", options.instance);
    let primary = Arc::new(Pool::new(&options.database_url, &application)?);
    let replica = options.replica_url.as_deref().filter(|url| !url.is_empty());
    let shop = Arc::new(Shop {
        replica: replica.map(|url| Pool::new(url, &application)).transpose()?,
        schema: Schema::make(primary.clone()),
        primary,
        instance: options.instance,
        node: options.node,
        snapshots: Snapshots::default(),
    });
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    say(&format!("{} listens on http://{address}", shop.instance));
    serve(listener, shop).await
}

async fn serve(listener: TcpListener, shop: Arc<Shop>) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => spawn(stream, &connections, shop.clone()),
                // Out of file descriptors, mostly: connections that end free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    say("finishing the last requests");
    match tokio::time::timeout(LAST_REQUESTS, connections.shutdown()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(format!("some requests were still running after {} s", LAST_REQUESTS.as_secs())),
    }
}

/// Tells the log. `println!` would end the program when nobody reads the log any more.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "shop: {text}");
}

fn spawn(stream: TcpStream, connections: &GracefulShutdown, shop: Arc<Shop>) {
    // Answers are written whole, so waiting for more to send only costs time; if it fails they are just slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let shop = shop.clone();
        async move { Ok::<Response<Body>, Infallible>(router::route(&shop, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A client that goes away in the middle is its own affair.
        let _ = connection.await;
    });
}
