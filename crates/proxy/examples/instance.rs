//! A small HTTP service that listens on the address given as its first argument: what a service route leads to in tests
//! and measurements. It answers every request with its own address and status 200, or 500 while the file given as its
//! second argument exists.

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: instance ADDRESS:PORT [FILE]")?;
    let listener = TcpListener::bind(&address).await?;
    let (name, broken) = (Bytes::from(address), std::env::args().nth(2));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (name, broken) = (name.clone(), broken.clone());
        let answer = service_fn(move |_| {
            let mut response = Response::new(Full::new(name.clone()));
            if broken.as_ref().is_some_and(|file| Path::new(file).exists()) {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
