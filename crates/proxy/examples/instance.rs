//! A small HTTP service that listens on the address given as its argument: what a service route leads to in tests
//! and measurements. It answers every request with 200 and its own address.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: instance ADDRESS:PORT")?;
    let listener = TcpListener::bind(&address).await?;
    let name = Bytes::from(address);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let name = name.clone();
        let answer = service_fn(move |_| {
            let name = name.clone();
            async move { Ok::<_, Infallible>(Response::new(Full::new(name))) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
