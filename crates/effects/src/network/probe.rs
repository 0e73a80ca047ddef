//! One question to one target: does it take a TCP connection?

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

/// What a target did with a connection attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It was accepted by the target's kernel. The program behind it may still be hung.
    Connected {
        /// After this time.
        took: Duration,
    },
    /// The target's kernel said that nobody listens: the machine lives, the program does not.
    Refused {
        /// After this time.
        took: Duration,
    },
    /// No answer at all until the deadline: dead, frozen, cut off, or its gate is closed.
    Silent {
        /// The deadline.
        after: Duration,
    },
    /// Our own kernel, or a router, knows no way to it.
    NoWay {
        /// What it said.
        because: String,
    },
}

impl Reach {
    /// Whether the connection was accepted.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Connected { .. } => true,
            Self::Refused { .. } | Self::Silent { .. } | Self::NoWay { .. } => false,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { took } => write!(f, "took a connection after {took:.1?}"),
            Self::Refused { .. } => write!(f, "refused the connection (nobody listens)"),
            Self::Silent { after } => write!(f, "did not answer within {after:?}"),
            Self::NoWay { because } => write!(f, "cannot be reached ({because})"),
        }
    }
}

/// Opens a TCP connection to `target` and closes it at once, waiting at most `deadline`.
pub async fn tcp(target: SocketAddr, deadline: Duration) -> Reach {
    let begin = Instant::now();
    match tokio::time::timeout(deadline, TcpStream::connect(target)).await {
        Ok(Ok(_)) => Reach::Connected { took: begin.elapsed() },
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Reach::Refused { took: begin.elapsed() }
        }
        Ok(Err(error)) => Reach::NoWay { because: error.to_string() },
        Err(_) => Reach::Silent { after: deadline },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_a_closed_port_and_a_silent_listener_are_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        assert!(tcp(target, Duration::from_secs(5)).await.is_connected());
        drop(listener);
        assert!(matches!(tcp(target, Duration::from_secs(5)).await, Reach::Refused { .. }));
        // A listener whose queue is full answers nothing, as a dropped packet does: listen(2).
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let target = full.local_addr().unwrap();
        let patience = Duration::from_millis(50);
        let mut waiting = Vec::new();
        while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(target)).await {
            waiting.push(connected.unwrap());
        }
        let reach = tcp(target, patience).await;
        assert_eq!(reach, Reach::Silent { after: patience });
        assert_eq!(reach.to_string(), "did not answer within 50ms");
    }
}
