//! Who listens where on this machine, to say who stands in the way.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use effects::process::{ProcessFacts, processes_of};

use crate::process;

/// State `LISTEN` in `/proc/net/tcp` (proc(5)).
const LISTEN: &str = "0A";

/// Why nobody can listen at `address`, in words; `None` when one can.
pub(crate) fn obstacle(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Some(format!("{address} cannot be used: {error}"));
    }
    let owner = owner(address);
    // Whoever was just ending is in nobody's way.
    TcpListener::bind(address).err().map(|_| format!("{address} is taken by {owner}"))
}

/// The process that listens at the address or at all addresses with its port.
fn owner(address: SocketAddr) -> String {
    let Some(inode) = listening(address) else { return "a process that cannot be seen from here".to_owned() };
    let link = format!("socket:[{inode}]");
    let holds = |facts: &ProcessFacts| {
        let entries = fs::read_dir(format!("/proc/{}/fd", facts.id.pid)).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target.as_os_str() == &*link)
    };
    match processes_of(holds).first() {
        Some(owner) => process::describe(owner.id.pid),
        None => "a process of another user".to_owned(),
    }
}

/// The inode of the socket that listens there.
fn listening(address: SocketAddr) -> Option<u64> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let lines: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let conflicts = |local: SocketAddr| {
        let meets =
            local.ip() == address.ip() || local.ip().is_unspecified() || address.ip().is_unspecified();
        local.port() == address.port() && meets
    };
    lines.iter().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = socket_address(fields.get(1)?)?;
        (*fields.get(3)? == LISTEN && conflicts(local)).then(|| fields.get(9)?.parse().ok())?
    })
}

/// `0100007F:1F90`: 32-bit words in the machine's byte order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = (0..address.len() / 8)
        .map(|i| u32::from_str_radix(&address[i * 8..i * 8 + 8], 16).map(u32::to_ne_bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    let ip = match words.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [a, b, c, d] => {
            let mut octets = [0; 16];
            for (place, word) in octets.chunks_exact_mut(4).zip([a, b, c, d]) {
                place.copy_from_slice(word);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let words = obstacle(address).unwrap();
        assert!(words.contains(&format!("process {}", std::process::id())), "{words}");
        drop(listener);
        assert_eq!(obstacle(address), None);
    }

    #[test]
    fn addresses_of_the_kernel_are_read() {
        assert_eq!(socket_address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        let v6 = "00000000000000000000000001000000:0016";
        assert_eq!(socket_address(v6), Some("[::1]:22".parse().unwrap()));
    }
}
