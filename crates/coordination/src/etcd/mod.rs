//! The store kept by an etcd (3.4 or later) that the user runs.
//!
//! etcd's client does not repair what breaks, so this wrapper does: a watch is opened again from the revision after
//! the last one delivered, every renewal of a lease is a fresh exchange with its own deadline, and whatever certainly
//! did not happen is asked again until the caller's time is over. Agents elect their leader by a key on a lease.

mod convert;
mod election;
mod refusal;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use model::NodeName;
use tokio::sync::watch as value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::coordinator::{MAX_LISTING, validate_key};
use crate::{
    BoxFuture, Coordinator, Entry, Error, LeaderHint, LeaseId, Listing, Reason, Revision, Txn, TxnOutcome,
    Watch,
};
use refusal::{Outcome, judge};

/// What an agent needs to use an etcd.
#[derive(Clone)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, one for each etcd member.
    pub endpoints: Vec<String>,
    /// All keys of this system start with it, so that several systems share an etcd: `/mainstay/<system>`.
    pub prefix: String,
    /// This node's name: what it writes into the leader's key.
    pub node: NodeName,
    /// Whether this node stands for leader, or only follows who leads.
    pub candidate: bool,
    /// How long a dead leader stays leader (etcd allows no less than about 2 s; see [`Etcd::depose`]).
    pub leader_ttl: Duration,
    /// For `https`.
    pub tls: Option<EtcdTls>,
}

/// PEM texts for mutual TLS with etcd.
#[derive(Clone)]
pub struct EtcdTls {
    /// The authority that signed etcd's certificates.
    pub ca: Vec<u8>,
    /// Our certificate and its key, if etcd demands one (`--client-cert-auth`).
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// An endpoint, certificate or key makes no sense; etcd itself was not asked yet.
    #[error("cannot use etcd at {endpoints}: {problem}")]
    Config {
        /// The endpoints given.
        endpoints: String,
        /// What the client said.
        problem: String,
    },
}

/// The store in an etcd. Clones share it; the last one dropped ends this node's candidacy.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    prefix: Arc<str>,
    hint: Arc<value::Sender<LeaderHint>>,
    election: Option<Arc<Election>>,
}

/// The task that stands for leader, with the keys it does so by.
struct Election {
    store: Etcd,
    task: JoinHandle<()>,
}

/// How long connecting may take before another member is tried.
const CONNECT: Duration = Duration::from_secs(1);
/// A silent connection is asked for a sign of life this often, and given up when none comes for as long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Pauses before asking again.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Etcd {
    /// Prepares the connection and starts following (or standing for) the leader, on the current tokio runtime.
    /// Does not wait for etcd: whether it can be reached, the first operation shows.
    ///
    /// # Errors
    /// [`EtcdError::Config`] for endpoints, certificates or keys that cannot be used.
    pub async fn open(config: EtcdConfig) -> Result<Self, EtcdError> {
        let endpoints = config.endpoints.join(", ");
        let client = Client::connect(&config.endpoints, Some(options(config.tls)))
            .await
            .map_err(|error| EtcdError::Config { endpoints, problem: error.to_string() })?;
        let hint = Arc::new(value::Sender::new(LeaderHint::default()));
        let part = |name: &str| Self {
            client: client.clone(),
            prefix: format!("{}/{name}/", config.prefix.trim_end_matches('/')).into(),
            hint: hint.clone(),
            election: None,
        };
        let store = part("election");
        let task =
            tokio::spawn(election::run(store.clone(), config.node, config.candidate, config.leader_ttl));
        Ok(Self { election: Some(Arc::new(Election { store, task })), ..part("keys") })
    }

    /// Ends the leadership of a node that the caller knows to be gone, instead of waiting for its lease. Harmless if
    /// it is not gone: leadership is only a hint, and it may stand again.
    ///
    /// # Errors
    /// As [`Coordinator::revoke_lease`].
    pub async fn depose(&self, leader: &NodeName, within: Duration) -> Result<(), Error> {
        match &self.election {
            Some(election) => election::depose(&election.store, leader, within).await,
            None => Ok(()),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Asks etcd, again while the question certainly had no effect (or a repeated effect does not matter).
    async fn ask<T, F>(
        &self,
        repeatable: bool,
        within: Duration,
        question: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match timeout_at(deadline, question(self.client.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => judge(&error),
                Err(_) => Outcome::Unknown(Reason::Timeout),
            };
            let refusal = if repeatable { refusal.of_a_harmless_question() } else { refusal };
            let again = matches!(refusal, Outcome::NotDone(_)) && Instant::now() + pause < deadline;
            if !again {
                return Err(refusal.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options(tls: Option<EtcdTls>) -> ConnectOptions {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(SIGN_OF_LIFE, SIGN_OF_LIFE)
        .with_keep_alive_while_idle(true)
        // A member cut off from its quorum must say so instead of keeping watches open in silence.
        .with_require_leader(true);
    let Some(EtcdTls { ca, identity }) = tls else { return options };
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    options.with_tls(match identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    })
}

impl Coordinator for Etcd {
    fn get<'a>(&'a self, key: &'a str, within: Duration) -> BoxFuture<'a, Result<Option<Entry>, Error>> {
        Box::pin(async move {
            validate_key(key)?;
            let key = self.key(key);
            let ask = |client: Client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            };
            let response = self.ask(true, within, ask).await?;
            response.kvs().first().map(|found| convert::entry(&self.prefix, found)).transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, within: Duration) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async move {
            let key = self.key(prefix);
            let ask = |client: Client| {
                let key = key.clone();
                async move { client.kv_client().get(key, Some(GetOptions::new().with_prefix())).await }
            };
            let response = self.ask(true, within, ask).await?;
            let size = response.kvs().iter().map(|found| found.key().len() + found.value().len()).sum();
            if size > MAX_LISTING {
                return Err(Error::TooLarge { what: "answer", size, limit: MAX_LISTING });
            }
            let entries = response.kvs().iter().map(|found| convert::entry(&self.prefix, found));
            Ok(Listing {
                entries: entries.collect::<Result<_, _>>()?,
                revision: convert::revision(response.header()),
            })
        })
    }

    fn txn(&self, txn: Txn, within: Duration) -> BoxFuture<'_, Result<TxnOutcome, Error>> {
        Box::pin(async move {
            txn.validate()?;
            let leases: Vec<LeaseId> = txn.puts.iter().filter_map(|put| put.lease).collect();
            let request = convert::txn(&self.prefix, &txn);
            let ask = |client: Client| {
                let request = request.clone();
                async move { client.kv_client().txn(request).await }
            };
            let response =
                self.ask(false, within, ask).await.map_err(|error| refusal::name_lease(error, &leases))?;
            let revision = convert::revision(response.header());
            Ok(if response.succeeded() {
                TxnOutcome::Committed(revision)
            } else {
                TxnOutcome::Conflict { revision }
            })
        })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        let (sender, watch) = Watch::channel();
        tokio::spawn(watch::feed(self.client.clone(), self.prefix.clone(), prefix.to_owned(), from, sender));
        watch
    }

    fn grant_lease(&self, ttl: Duration, within: Duration) -> BoxFuture<'_, Result<LeaseId, Error>> {
        Box::pin(async move {
            let seconds = i64::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
            // A lease too many ends by itself.
            let ask = |client: Client| async move { client.lease_client().grant(seconds, None).await };
            let response = self.ask(true, within, ask).await?;
            Ok(convert::lease(response.id()))
        })
    }

    fn keep_alive(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<Duration, Error>> {
        Box::pin(async move {
            let id = convert::lease_to_etcd(lease);
            let ask = |client: Client| async move {
                // A fresh stream each time: nothing to repair. Its first answer, which the client swallows, is the
                // renewal; the second one tells the time to live.
                let (mut keeper, mut answers) = client.lease_client().keep_alive(id).await?;
                keeper.keep_alive().await?;
                Ok(answers.message().await?.map_or(0, |answer| answer.ttl()))
            };
            let seconds =
                self.ask(true, within, ask).await.map_err(|error| refusal::name_lease(error, &[lease]))?;
            let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            seconds.map(Duration::from_secs).ok_or(Error::LeaseEnded(lease))
        })
    }

    fn revoke_lease(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let id = convert::lease_to_etcd(lease);
            let ask = |client: Client| async move { client.lease_client().revoke(id).await };
            match self.ask(true, within, ask).await {
                Ok(_) | Err(Error::LeaseEnded(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn leader(&self) -> value::Receiver<LeaderHint> {
        self.hint.subscribe()
    }
}
