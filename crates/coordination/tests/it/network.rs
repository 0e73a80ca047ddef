//! Real TCP between the nodes of one process, with links that can be cut or slowed in each direction.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use coordination::BoxFuture;
use coordination::embedded::{Embedded, MAX_MESSAGE, RaftTransport};
use model::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// All links of a group of nodes.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    addresses: HashMap<NodeName, SocketAddr>,
    links: HashMap<(NodeName, NodeName), Link>,
    idle: HashMap<(NodeName, NodeName), Vec<TcpStream>>,
}

/// What one direction between two nodes is like. Silent when cut: no closing packet gives it away.
#[derive(Clone, Copy, Default)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    pub(crate) delay: Duration,
}

/// One node's end.
pub(crate) struct TcpTransport {
    me: NodeName,
    network: Network,
}

impl Network {
    pub(crate) fn transport(&self, me: &NodeName) -> TcpTransport {
        TcpTransport { me: me.clone(), network: self.clone() }
    }

    /// Changes the direction from one node to another.
    pub(crate) fn set(&self, from: &NodeName, to: &NodeName, link: Link) {
        self.0.lock().unwrap().links.insert((from.clone(), to.clone()), link);
    }

    /// Cuts (or heals) a node from all others, both ways.
    pub(crate) fn isolate(&self, node: &NodeName, cut: bool) {
        let mut inner = self.0.lock().unwrap();
        let others: Vec<NodeName> = inner.addresses.keys().filter(|other| *other != node).cloned().collect();
        for other in others {
            let link = Link { cut, ..Link::default() };
            inner.links.insert((node.clone(), other.clone()), link);
            inner.links.insert((other, node.clone()), link);
        }
    }

    fn link(&self, from: &NodeName, to: &NodeName) -> Link {
        self.0.lock().unwrap().links.get(&(from.clone(), to.clone())).copied().unwrap_or_default()
    }

    /// Lets a message pass, late, or never.
    async fn pass(&self, from: &NodeName, to: &NodeName) {
        let link = self.link(from, to);
        if link.cut {
            std::future::pending::<()>().await;
        }
        if !link.delay.is_zero() {
            tokio::time::sleep(link.delay).await;
        }
    }

    /// Starts answering for a node, on Raft's own thread.
    pub(crate) async fn serve(&self, name: &NodeName, node: &Arc<Embedded>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The runtime that drives a socket is the one that it was made in.
        let listener = listener.into_std().unwrap();
        let (network, me, weak) = (self.clone(), name.clone(), Arc::downgrade(node));
        node.runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(answer(stream, network.clone(), me.clone(), weak.clone()));
            }
        });
        self.0.lock().unwrap().addresses.insert(name.clone(), address);
    }

    async fn connect(&self, from: &NodeName, to: &NodeName) -> io::Result<TcpStream> {
        let address = {
            let mut inner = self.0.lock().unwrap();
            if let Some(stream) = inner.idle.get_mut(&(from.clone(), to.clone())).and_then(Vec::pop) {
                return Ok(stream);
            }
            *inner.addresses.get(to).ok_or(io::ErrorKind::ConnectionRefused)?
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn keep(&self, from: &NodeName, to: &NodeName, stream: TcpStream) {
        self.0.lock().unwrap().idle.entry((from.clone(), to.clone())).or_default().push(stream);
    }

    /// Forgets the connections of a node that was stopped.
    pub(crate) fn forget(&self, node: &NodeName) {
        let mut inner = self.0.lock().unwrap();
        inner.addresses.remove(node);
        inner.idle.retain(|(from, to), _| from != node && to != node);
    }
}

impl RaftTransport for TcpTransport {
    fn call(
        &self,
        target: &NodeName,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, io::Result<Bytes>> {
        let (me, target, network) = (self.me.clone(), target.clone(), self.network.clone());
        Box::pin(async move {
            let exchange = async {
                network.pass(&me, &target).await;
                let mut stream = network.connect(&me, &target).await?;
                write_frame(&mut stream, me.as_str().as_bytes()).await?;
                write_frame(&mut stream, &request).await?;
                let answer = read_frame(&mut stream).await?;
                network.keep(&me, &target, stream);
                Ok(answer)
            };
            tokio::time::timeout(deadline, exchange)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

async fn answer(
    mut stream: TcpStream,
    network: Network,
    me: NodeName,
    node: Weak<Embedded>,
) -> io::Result<()> {
    loop {
        let from = read_frame(&mut stream).await?;
        let from = NodeName::new(std::str::from_utf8(&from).unwrap());
        let request = read_frame(&mut stream).await?;
        let Some(node) = node.upgrade() else { return Ok(()) };
        let answer = node.handle(&from, request).await;
        drop(node);
        network.pass(&me, &from).await;
        write_frame(&mut stream, &answer).await?;
    }
}

async fn write_frame(stream: &mut TcpStream, data: &[u8]) -> io::Result<()> {
    assert!(data.len() <= MAX_MESSAGE, "a message of {} bytes", data.len());
    let mut frame = Vec::with_capacity(4 + data.len());
    frame.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(data);
    stream.write_all(&frame).await
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = stream.read_u32().await? as usize;
    let mut data = vec![0; length];
    stream.read_exact(&mut data).await?;
    Ok(data.into())
}
