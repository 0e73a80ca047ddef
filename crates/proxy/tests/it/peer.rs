//! Both ends of a route for tests of HTTP: instances that say what reached them, and clients of either version.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A body whose pieces a test sends when it wants to.
pub(crate) struct Pieces(mpsc::Receiver<Frame<Bytes>>);

impl Pieces {
    pub(crate) fn new() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Self(receiver))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

pub(crate) type Asking = Either<Full<Bytes>, Pieces>;
type Telling = Either<Full<Bytes>, Incoming>;

/// An instance. `/echo` sends the request's body back as it comes, trailers too; anything else tells the head it got.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Instance {
    pub(crate) async fn http1() -> Self {
        Self::start(false).await
    }

    pub(crate) async fn http2() -> Self {
        Self::start(true).await
    }

    /// One that speaks TLS, with HTTP/2 or HTTP/1.1, and shows the pair's certificate.
    pub(crate) async fn secure(pair: &Pair, is_http2: bool) -> Self {
        Self::begin(is_http2, Some(acceptor(pair, is_http2))).await
    }

    async fn start(is_http2: bool) -> Self {
        Self::begin(is_http2, None).await
    }

    async fn begin(is_http2: bool, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, is_http2).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, is_http2).await,
                            Err(error) => println!("an instance's handshake: {error}"),
                        },
                    }
                });
            }
        });
        Self { address, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool) {
    let io = TokioIo::new(stream);
    let service = service_fn(async |request| Ok::<_, Infallible>(tell(request)));
    if is_http2 {
        drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await,
        );
    } else {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
    }
}

fn tell(request: Request<Incoming>) -> Response<Telling> {
    let (head, body) = request.into_parts();
    let mut response = if head.uri.path() == "/echo" {
        Response::new(Either::Right(body))
    } else {
        let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        Response::new(Either::Left(Full::from(text)))
    };
    if let Some(kind) = head.headers.get("content-type") {
        response.headers_mut().insert("content-type", kind.clone());
    }
    if let Some(names) = head.headers.get("trailer") {
        response.headers_mut().insert("trailer", names.clone());
    }
    response
}

/// A client's connection.
pub(crate) enum Client {
    Http1(http1::SendRequest<Asking>),
    Http2(http2::SendRequest<Asking>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), false).await
    }

    pub(crate) async fn http2(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), true).await
    }

    /// By HTTPS, with what both sides agree on of `protocols`.
    pub(crate) async fn secure(address: SocketAddr, name: &str, pair: &Pair, protocols: &[&str]) -> Self {
        let stream = shake_hands(address, name, pair, protocols).await.unwrap();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Self::over(stream, is_http2).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool) -> Self {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Asking>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Sends a request to `host` with these headers and reads the answer.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Asking,
    ) -> Answer {
        let request = self.request(method, target, headers, body);
        read(self.send(request).await.unwrap()).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], empty()).await
    }

    /// A request for `path` of the host `shop.example`, or for an absolute target.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Asking,
    ) -> Request<Asking> {
        let is_http2 = matches!(self, Self::Http2(_));
        let target = if is_http2 && path.starts_with('/') {
            format!("http://shop.example{path}")
        } else {
            path.to_owned()
        };
        let mut builder = Request::builder().method(method).uri(target);
        if !is_http2 && !headers.iter().any(|(name, _)| *name == "host") {
            builder = builder.header("host", "shop.example");
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(body).unwrap()
    }
}

pub(crate) fn empty() -> Asking {
    Either::Left(Full::default())
}

pub(crate) fn whole(text: &'static str) -> Asking {
    Either::Left(Full::from(text))
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
    Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body, trailers }
}

impl Answer {
    /// The headers that reached the instance, by its own word.
    pub(crate) fn told(&self) -> BTreeMap<&str, &str> {
        self.body.lines().skip(1).filter_map(|line| line.split_once(": ")).collect()
    }
}

pub(crate) fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    map.insert(name, HeaderValue::from_static(value));
    Frame::trailers(map)
}

pub(crate) async fn shake_hands(
    address: SocketAddr,
    name: &str,
    pair: &Pair,
    protocols: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(pair.certificate()).unwrap();
    roots.add(certificate).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder =
        ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// What an instance shakes hands with.
pub(crate) fn acceptor(pair: &Pair, is_http2: bool) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(pair.certificate()).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pair.key()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = ServerConfig::builder_with_provider(provider.into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsAcceptor::from(Arc::new(config))
}

/// A certificate and its key, in files.
pub(crate) struct Pair {
    directory: TempDir,
}

impl Pair {
    pub(crate) fn new(names: &[&str]) -> Self {
        let pair = Self { directory: tempfile::tempdir().unwrap() };
        pair.renew(names);
        pair
    }

    /// Writes another certificate with another key into the same files.
    pub(crate) fn renew(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(self.certificate(), made.cert.pem()).unwrap();
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("tls.crt")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("tls.key")
    }
}
