//! A session under way: bytes pass until either side ends or the table wants the session gone.

use std::sync::Arc;

use model::time::Moment;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::pump::{Pump, Stop};
use super::route::{DatabaseRoute, Seat};
use super::stalled::{self, is_stalled};
use crate::core::database::answer::TERMINATE;
use crate::core::database::conversation::Conversation;
use crate::core::database::{Verdict, View};
use crate::{clock, farewell, socket};

/// A session that has begun: the member has answered.
pub(super) struct Session {
    pub(super) client: TcpStream,
    pub(super) member: TcpStream,
    pub(super) seat: Seat,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) route: Arc<DatabaseRoute>,
    pub(super) began: Moment,
}

/// How a session ended.
enum End {
    /// By itself.
    Stopped(Stop),
    /// The table forbids it.
    Forbidden,
    /// A draining found it idle.
    Idle,
    /// The draining's deadline came.
    Deadline,
    /// One of the peers has vanished.
    Vanished,
}

impl Session {
    /// Carries the session to its end and closes both connections.
    pub(super) async fn carry(mut self, talk: Conversation) {
        let mut pump = Pump::new(talk);
        let end = loop {
            let view = self.views.borrow_and_update().clone();
            let end = match view.verdict(self.seat.endpoint()) {
                Verdict::Close => Some(End::Forbidden),
                Verdict::Keep => self.keep(&mut pump).await,
                // Boxed: few sessions are ever drained, and all would pay for the room.
                Verdict::CloseWhenIdle { by } => Box::pin(self.drain(&mut pump, &view, by)).await,
            };
            if let Some(end) = end {
                break end;
            }
        };
        self.close(end, pump.at_boundary()).await;
    }

    /// Carries until the end, or until there is a reason to look again (`None`).
    async fn keep(&mut self, pump: &mut Pump) -> Option<End> {
        tokio::select! {
            biased;
            // The route outlives its sessions, so a change is the only way this ends.
            _ = self.views.changed() => None,
            stop = pump.run(&mut self.client, &mut self.member, None) => Some(End::Stopped(stop)),
            () = sleep(stalled::LOOK_EVERY) => {
                (is_stalled(&self.client) || is_stalled(&self.member)).then_some(End::Vanished)
            }
        }
    }

    /// Carries until the session has been idle for long enough, has answered a client that pauses anyhow, or the deadline
    /// comes.
    async fn drain(&mut self, pump: &mut Pump, view: &View, by: Moment) -> Option<End> {
        let was_idle = pump.is_idle();
        let asked = pump.asked();
        let quiet = view.must_be_quiet_for(self.began, pump.is_fresh(), pump.last_gap(), clock::now());
        // Of an idle session the next answer is waited for, of a busy one that which is under way.
        let until_asked = asked + u64::from(was_idle);
        tokio::select! {
            biased;
            _ = self.views.changed() => None,
            () = sleep_until(clock::instant(by)) => Some(End::Deadline),
            stop = pump.run(&mut self.client, &mut self.member, Some(until_asked)) => match stop {
                Stop::Idle => View::pauses(pump.last_gap()).then_some(End::Idle),
                Stop::Finished | Stop::Client(_) | Stop::Member(_) => Some(End::Stopped(stop)),
            },
            () = sleep(quiet), if was_idle => (pump.is_idle() && pump.asked() == asked).then_some(End::Idle),
        }
    }

    /// Closes both connections as the end demands. The seat is given back as soon as the member's side is closed.
    async fn close(self, end: End, at_boundary: bool) {
        // Dropped from last to first: the seat only when both connections are closed.
        let Self { seat, route, views, began: _, client, mut member } = self;
        let farewell = || views.borrow().farewell().encode();
        let words = match end {
            End::Forbidden => {
                farewell::reset([client]);
                // All clients learn it before the first of the member's backends wakes up and takes the processor.
                tokio::task::yield_now().await;
                return farewell::reset([member]);
            }
            End::Vanished => return farewell::reset([client, member]),
            End::Stopped(Stop::Client(error)) => {
                tracing::debug!(%error, "the client's connection broke");
                return farewell::reset([client, member]);
            }
            End::Stopped(Stop::Member(error)) => {
                tracing::debug!(%error, member = %seat.endpoint().node, "the member's connection broke");
                return farewell::reset([client, member]);
            }
            End::Stopped(Stop::Finished | Stop::Idle) => Vec::new(),
            End::Idle => {
                route.count_drained(true);
                // Best effort: the member's backend also ends when it sees the connection closed.
                drop(member.write_all(TERMINATE).await);
                farewell()
            }
            End::Deadline => {
                route.count_drained(false);
                socket::reset_on_close(&member);
                if !at_boundary {
                    return farewell::reset([client, member]);
                }
                farewell()
            }
        };
        drop((member, seat));
        farewell::say(client, words).await;
    }
}
