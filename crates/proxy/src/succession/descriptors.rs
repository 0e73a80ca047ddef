//! Passing open sockets to another process.
//!
//! Source: unix(7), `SCM_RIGHTS`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The most that travel with one byte; the kernel takes 253.
const BATCH: usize = 100;

/// Passes all of them.
pub(super) fn send(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&batch)) {
            return Err(io::Error::other("there is no room for the descriptors"));
        }
        sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Takes so many over.
pub(super) fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut all = Vec::new();
    while all.len() < count {
        let before = all.len();
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                all.extend(passed);
            }
        }
        if all.len() == before {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a listener was not passed over"));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn any_number_of_listeners_is_passed_and_goes_on_listening() {
        let (one, other) = UnixStream::pair().unwrap();
        let listeners: Vec<_> = (0..BATCH + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let last = TcpStream::connect(addresses[BATCH + 2]).unwrap();
        let descriptors: Vec<OwnedFd> = listeners.into_iter().map(OwnedFd::from).collect();
        send(&one, &descriptors).unwrap();
        let passed = receive(&other, descriptors.len()).unwrap();
        drop(descriptors);
        let passed: Vec<_> = passed.into_iter().map(TcpListener::from).collect();
        let same: Vec<_> = passed.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_eq!(same, addresses);
        let (_, peer) = passed[BATCH + 2].accept().expect("who came before is still there");
        assert_eq!(peer, last.local_addr().unwrap());
        drop(one);
        assert_eq!(receive(&other, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
