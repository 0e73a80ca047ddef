//! The two ends of a relay: a packet socket on a port's own link, and a TAP device that stands in the port's place.
//!
//! Both carry a virtio header before each frame (packet(7) `PACKET_VNET_HDR`, tuntap's `IFF_VNET_HDR`), in the same layout:
//! checksums that a card would still compute and segments that a card would still cut go through as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A frame of the greatest length that segments are put together to, with its headers.
pub(super) const FRAME: usize = 65_536 + 256;

/// `linux/if_packet.h`
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// `linux/if_tun.h`: the card takes unfinished checksums and long segments of TCP in IPv4 and IPv6.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;

/// One end.
#[derive(Debug)]
pub(super) struct End(File);

impl End {
    /// A new TAP device, which is there as long as this is.
    pub(super) fn tap(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: all zeroes are a valid value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: the request lives through the call, which reads and writes within it.
        done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        let offload = libc::c_ulong::from(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
        // SAFETY: a number only.
        done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offload) })?;
        rustix::io::ioctl_fionbio(&file, true)?;
        Ok(Self(file))
    }

    /// All frames that arrive at a link, and a way to send some; it follows the link when that gets another name.
    pub(super) fn wire(name: &str) -> io::Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Nothing arrives before it is bound: protocol 0.
        // SAFETY: numbers only; the descriptor is new and nobody else's.
        let socket = unsafe {
            let descriptor = libc::socket(libc::AF_PACKET, kind, 0);
            done(descriptor)?;
            OwnedFd::from_raw_fd(descriptor)
        };
        for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
            set(&socket, libc::SOL_PACKET, option, 1)?;
        }
        // A burst must find room until it is read.
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        let index = rustix::net::netdevice::name_to_index(&socket, name)?;
        // SAFETY: all zeroes are a valid value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_protocol = all;
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: the address lives through the call and has the given length.
        done(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self(File::from(socket)))
    }

    /// The next frame with its header, if there is one now.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // What a socket says once when its link went down is over.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame; one that finds no room is lost, as on any link.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let _ = self.0.write(frame);
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call and has the given length.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
