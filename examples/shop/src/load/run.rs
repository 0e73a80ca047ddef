//! Placing orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::Client;
use crate::cli::Load;

/// Pause before an order is sent again; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const PRODUCTS: u32 = 6;

/// What happened to all orders.
pub(super) struct Placed {
    /// The beginning of all keys.
    pub(super) prefix: String,
    /// Keys that were acknowledged.
    pub(super) acknowledged: Vec<String>,
    /// Keys that were never acknowledged; they may be booked or not.
    pub(super) unanswered: Vec<String>,
    /// Requests sent.
    pub(super) attempts: u64,
    /// Failed requests by reason.
    pub(super) errors: BTreeMap<String, u64>,
    /// From an order's turn to its acknowledgement, ascending.
    pub(super) latencies: Vec<Duration>,
    /// The longest time without an acknowledgement between the first order and the last acknowledgement.
    pub(super) longest_gap: Duration,
    /// From the first order to the last acknowledgement.
    pub(super) took: Duration,
}

/// What happened to one request or order.
enum News {
    Attempt,
    Failure(String),
    Acknowledged { key: String, after: Duration, at: Instant },
    GivenUp { key: String },
}

/// Collects the news.
struct Book {
    placed: Placed,
    begin: Instant,
    last: Instant,
    printed: usize,
}

/// Places orders at the rate asked for, whether or not earlier ones are answered, until the time is over or the person
/// presses Ctrl-C, and waits for the last answers.
pub(super) async fn place_orders(client: &Arc<Client>, options: &Load) -> Result<Placed, String> {
    let prefix = format!("load-{:x}-", unique()?);
    let (news, reports) = mpsc::unbounded_channel();
    let collecting = tokio::spawn(collect(reports, prefix.clone(), !options.json));
    let mut turns = interval(Duration::from_secs(1) / options.rate);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let number = u64::from(options.rate) * options.seconds;
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    for turn in 0..number {
        tokio::select! {
            _ = turns.tick() => {}
            _ = &mut stop => break,
        }
        let (client, news, key) = (client.clone(), news.clone(), format!("{prefix}{turn}"));
        let product = u32::try_from(turn % u64::from(PRODUCTS)).unwrap_or(0) + 1;
        let patience = Duration::from_secs(options.patience);
        tokio::spawn(async move { place(&client, key, product, patience, &news).await });
    }
    drop(news);
    collecting.await.map_err(|error| error.to_string())
}

/// Sends one order with the same key until it is acknowledged.
async fn place(
    client: &Client,
    key: String,
    product: u32,
    patience: Duration,
    news: &mpsc::UnboundedSender<News>,
) {
    let begin = Instant::now();
    let body = Bytes::from(json!({ "product": product, "quantity": 1 }).to_string());
    let mut pause = SHORTEST_PAUSE;
    // The receiver outlives all senders, so sending cannot fail.
    let tell = |what: News| drop(news.send(what));
    while begin.elapsed() < patience {
        tell(News::Attempt);
        match client.send(Method::POST, "/api/orders", &key, body.clone()).await {
            Ok((StatusCode::CREATED | StatusCode::OK, _)) => {
                return tell(News::Acknowledged { key, after: begin.elapsed(), at: Instant::now() });
            }
            Ok((status, body)) => {
                tell(News::Failure(format!("{status}: {}", String::from_utf8_lossy(&body))))
            }
            Err(reason) => tell(News::Failure(reason)),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tell(News::GivenUp { key });
}

async fn collect(mut reports: mpsc::UnboundedReceiver<News>, prefix: String, talk: bool) -> Placed {
    let mut book = Book::new(prefix);
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        tokio::select! {
            news = reports.recv() => match news {
                Some(news) => book.note(news),
                None => return book.close(),
            },
            _ = seconds.tick(), if talk => book.print(),
        }
    }
}

impl Book {
    fn new(prefix: String) -> Self {
        let placed = Placed {
            prefix,
            acknowledged: Vec::new(),
            unanswered: Vec::new(),
            attempts: 0,
            errors: BTreeMap::new(),
            latencies: Vec::new(),
            longest_gap: Duration::ZERO,
            took: Duration::ZERO,
        };
        Self { placed, begin: Instant::now(), last: Instant::now(), printed: 0 }
    }

    fn note(&mut self, news: News) {
        match news {
            News::Attempt => self.placed.attempts += 1,
            News::Failure(reason) => *self.placed.errors.entry(reason).or_default() += 1,
            News::GivenUp { key } => self.placed.unanswered.push(key),
            News::Acknowledged { key, after, at } => {
                self.placed.acknowledged.push(key);
                self.placed.latencies.push(after);
                // Two tasks may report in another order than they were answered: the gap is then zero.
                self.placed.longest_gap =
                    self.placed.longest_gap.max(at.saturating_duration_since(self.last));
                self.last = self.last.max(at);
            }
        }
    }

    fn print(&mut self) {
        let total = self.placed.acknowledged.len();
        eprintln!(
            "{:4} s  {:5} orders/s  {:7} booked  {:5} errors  longest gap {:6.0} ms",
            self.begin.elapsed().as_secs(),
            total - self.printed,
            total,
            self.placed.errors.values().sum::<u64>(),
            self.placed.longest_gap.max(self.last.elapsed()).as_secs_f64() * 1000.0,
        );
        self.printed = total;
    }

    fn close(mut self) -> Placed {
        self.placed.latencies.sort_unstable();
        self.placed.took = self.last - self.begin;
        if !self.placed.unanswered.is_empty() {
            self.placed.longest_gap = self.placed.longest_gap.max(self.last.elapsed());
        }
        self.placed
    }
}

/// A number that no other run has: keys of two runs must not meet.
fn unique() -> Result<u128, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_err(|_| "the clock is before 1970".to_owned())?;
    Ok((now.as_nanos() << 22) | u128::from(std::process::id()))
}
