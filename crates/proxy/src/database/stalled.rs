//! Peers that vanished while bytes for them were under way.
//!
//! Keepalives are not sent while sent data is unacknowledged; the kernel then repeats it for some 15 minutes
//! (`tcp_retries2`). A peer that acknowledges nothing for half a minute is gone; one that acknowledges but does not
//! read is only slow, and must be left alone for as long as it likes.

use std::mem;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;

/// How often a connection is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Silence in spite of unacknowledged data after which a peer is gone.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// Whether the peer has left data unacknowledged for so long that it must be gone.
pub(super) fn is_stalled(stream: &TcpStream) -> bool {
    info(stream).is_some_and(|info| {
        info.tcpi_unacked > 0 && Duration::from_millis(info.tcpi_last_ack_recv.into()) > GONE_AFTER
    })
}

fn info(stream: &TcpStream) -> Option<libc::tcp_info> {
    // SAFETY: tcp_info is a plain record of integers, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&info)).ok()?;
    let place = (&raw mut info).cast();
    // SAFETY: `place` points to `length` writable bytes and the descriptor is open for as long as `stream` lives.
    let status = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length)
    };
    (status == 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_kernel_tells_what_is_unacknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let info = info(&stream).expect("TCP_INFO works on Linux");
        assert_eq!(info.tcpi_unacked, 0);
        assert!(info.tcpi_last_ack_recv < 10_000, "{}", info.tcpi_last_ack_recv);
        assert!(!is_stalled(&stream));
    }
}
