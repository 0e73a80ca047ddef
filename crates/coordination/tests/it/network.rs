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

use crate::medium::Dice;
use crate::referee::{self, Referee};

/// All links of a group of nodes.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    referee: Arc<Referee>,
    dice: Option<Dice>,
    /// How often each node was stopped: whoever still speaks for an earlier life is dead.
    deaths: HashMap<NodeName, u64>,
    addresses: HashMap<NodeName, SocketAddr>,
    links: HashMap<(NodeName, NodeName), Link>,
    idle: HashMap<(NodeName, NodeName), Vec<TcpStream>>,
}

/// What one direction between two nodes is like. Silent when cut: no closing packet gives it away.
#[derive(Clone, Copy, Default)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    pub(crate) delay: Duration,
    /// Up to this much more, differently for each message, so that they overtake each other.
    pub(crate) jitter: Duration,
    /// Of a thousand messages, how many are lost.
    pub(crate) lost: usize,
    /// Of a thousand of Raft's requests, how many arrive a second time, later. (A client's operation never does: see
    /// `RaftTransport::call`.)
    pub(crate) doubled: usize,
}

/// What happens to one message.
struct Fate {
    delay: Duration,
    again: Option<Duration>,
}

/// One node's end.
pub(crate) struct TcpTransport {
    me: NodeName,
    network: Network,
    /// The deaths before this life.
    life: u64,
}

impl Network {
    pub(crate) fn transport(&self, me: &NodeName) -> TcpTransport {
        TcpTransport { me: me.clone(), network: self.clone(), life: self.deaths(me) }
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

    /// Changes all directions between these nodes.
    pub(crate) fn set_all(&self, nodes: &[NodeName], link: Link) {
        for from in nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                self.set(from, to, link);
            }
        }
    }

    fn deaths(&self, node: &NodeName) -> u64 {
        self.0.lock().unwrap().deaths.get(node).copied().unwrap_or_default()
    }

    /// Who watches what the nodes tell each other.
    pub(crate) fn referee(&self) -> Arc<Referee> {
        self.0.lock().unwrap().referee.clone()
    }

    fn fate(&self, link: Link) -> Option<Fate> {
        let mut inner = self.0.lock().unwrap();
        let dice = inner.dice.get_or_insert_with(|| Dice::new(7));
        if link.cut || dice.below(1000) < link.lost {
            return None;
        }
        let mut jitter = || {
            let most = usize::try_from(link.jitter.as_micros()).unwrap();
            Duration::from_micros(if most == 0 { 0 } else { dice.below(most) as u64 })
        };
        let (delay, later) = (link.delay + jitter(), jitter() + link.jitter);
        let again = (dice.below(1000) < link.doubled).then_some(later);
        Some(Fate { delay, again })
    }

    fn link(&self, from: &NodeName, to: &NodeName) -> Link {
        self.0.lock().unwrap().links.get(&(from.clone(), to.clone())).copied().unwrap_or_default()
    }

    /// Lets a message pass, late, or never; when it shall arrive once more.
    async fn pass(&self, from: &NodeName, to: &NodeName) -> Option<Duration> {
        let link = self.link(from, to);
        let Some(Fate { delay, again }) = self.fate(link) else { return std::future::pending().await };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        again
    }

    /// Starts answering for a node, on Raft's own thread.
    pub(crate) async fn serve(&self, name: &NodeName, node: &Arc<Embedded>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The runtime that drives a socket is the one that it was made in.
        let listener = listener.into_std().unwrap();
        let (network, me, weak) = (self.clone(), name.clone(), Arc::downgrade(node));
        let life = self.deaths(name);
        node.runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(answer(stream, network.clone(), me.clone(), weak.clone(), life));
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

    async fn exchange(&self, from: &NodeName, to: &NodeName, request: &Bytes) -> io::Result<Bytes> {
        let mut stream = self.connect(from, to).await?;
        write_frame(&mut stream, from.as_str().as_bytes()).await?;
        write_frame(&mut stream, request).await?;
        let answer = read_frame(&mut stream).await?;
        self.keep(from, to, stream);
        Ok(answer)
    }

    fn keep(&self, from: &NodeName, to: &NodeName, stream: TcpStream) {
        self.0.lock().unwrap().idle.entry((from.clone(), to.clone())).or_default().push(stream);
    }

    /// Forgets the connections of a node that was stopped.
    pub(crate) fn forget(&self, node: &NodeName) {
        let mut inner = self.0.lock().unwrap();
        inner.addresses.remove(node);
        *inner.deaths.entry(node.clone()).or_default() += 1;
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
        let (me, target, network, life) = (self.me.clone(), target.clone(), self.network.clone(), self.life);
        Box::pin(async move {
            let exchange = async {
                if network.deaths(&me) > life {
                    return std::future::pending().await;
                }
                let again = network.pass(&me, &target).await.filter(|_| !is_operation(&request));
                if let Some(later) = again {
                    let (network, me, target, request) =
                        (network.clone(), me.clone(), target.clone(), request.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(later).await;
                        let again = network.exchange(&me, &target, &request);
                        drop(tokio::time::timeout(Duration::from_secs(5), again).await);
                    });
                }
                network.exchange(&me, &target, &request).await
            };
            tokio::time::timeout(deadline, exchange)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

/// Whether a message carries a client's operation.
fn is_operation(request: &Bytes) -> bool {
    referee::header(request).is_some_and(|header| header["body"].get("Operate").is_some())
}

async fn answer(
    mut stream: TcpStream,
    network: Network,
    me: NodeName,
    node: Weak<Embedded>,
    life: u64,
) -> io::Result<()> {
    loop {
        let from = read_frame(&mut stream).await?;
        let from = NodeName::new(std::str::from_utf8(&from).unwrap());
        let request = read_frame(&mut stream).await?;
        let Some(node) = node.upgrade().filter(|_| network.deaths(&me) == life) else { return Ok(()) };
        let referee = network.referee();
        referee.sent(&request);
        let answer = node.handle(&from, request.clone()).await;
        drop(node);
        referee.answered(&request, &answer);
        let _ = network.pass(&me, &from).await;
        if network.deaths(&me) > life {
            return Ok(());
        }
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
