//! A small HTTP service that listens on the address given as its first argument: what a service route leads to in tests
//! and measurements. It answers every request with its own address and status 200. While the file given as its second
//! argument exists, it behaves as that says: `500` answers so, `slow MILLISECONDS` answers late. `/served` tells how many
//! requests it has had, itself not counted.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What all connections share.
struct Service {
    name: Bytes,
    manner: Option<String>,
    served: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: instance ADDRESS:PORT [FILE]")?;
    let listener = TcpListener::bind(&address).await?;
    let manner = std::env::args().nth(2);
    let service = Arc::new(Service { name: Bytes::from(address), manner, served: AtomicU64::new(0) });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.answer(&request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

impl Service {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/served" {
            return Response::new(Full::from(self.served.load(Ordering::Relaxed).to_string()));
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::new(self.name.clone()));
        let manner = self.manner.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        match manner.as_deref().map(str::trim) {
            None => {}
            Some(slow) if slow.starts_with("slow ") => {
                tokio::time::sleep(Duration::from_millis(slow[5..].parse().unwrap_or(0))).await;
            }
            Some(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        }
        response
    }
}
