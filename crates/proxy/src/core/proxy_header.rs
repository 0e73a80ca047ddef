//! The PROXY header (versions 1 and 2) with which a balancer begins a connection to name the client behind it.
//!
//! Source: "The PROXY protocol", HAProxy Technologies, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its line end included (section 2.1).
const LINE_MOST: usize = 107;
/// The most bytes that may follow the first 16 of version 2; addresses need 36, the rest is what nobody here reads.
const EXTENSION_MOST: usize = 2048;
/// The most bytes that a header may have.
pub const MOST: usize = FIXED + EXTENSION_MOST;
/// No header is shorter (`PROXY UNKNOWN` and its line end).
pub const FEWEST: usize = 15;
/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const FIXED: usize = 16;

/// What a complete header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address; `None` when the balancer speaks for itself (a health check) or of no TCP connection.
    pub client: Option<SocketAddr>,
    /// How many bytes the header has.
    pub length: usize,
}

/// The bytes are no PROXY header and cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header that `input` begins with; `None`: more bytes are needed.
pub fn read(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let same = |pattern: &[u8]| input.iter().zip(pattern).all(|(a, b)| a == b);
    if same(&SIGNATURE) {
        return if input.len() < FIXED { Ok(None) } else { read_binary(input) };
    }
    if same(b"PROXY ") { read_line(input) } else { Err(NoHeader) }
}

/// How many more bytes may be read at least without reading past the end of the header of which `input` is the beginning.
pub fn wanted(input: &[u8]) -> usize {
    let least = match input.get(..FIXED) {
        None if input.starts_with(&SIGNATURE) => FIXED,
        None => FEWEST,
        Some(fixed) if fixed.starts_with(&SIGNATURE) => {
            FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]])).min(EXTENSION_MOST)
        }
        Some(_) => 0,
    };
    least.saturating_sub(input.len()).max(1)
}

fn read_line(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let within = &input[..input.len().min(LINE_MOST)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() < LINE_MOST { Ok(None) } else { Err(NoHeader) };
    };
    let line =
        within[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).ok_or(NoHeader)?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => Some(addresses(family, words).ok_or(NoHeader)?),
        Some(_) | None => return Err(NoHeader),
    };
    Ok(Some(Header { client, length: end + 1 }))
}

/// The source among source, destination and their ports, all of which must be right.
fn addresses<'a>(family: &str, mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: IpAddr = words.next()?.parse().ok()?;
    let destination: IpAddr = words.next()?.parse().ok()?;
    let port =
        |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten();
    let from: u16 = port(words.next()?)?;
    let _to: u16 = port(words.next()?)?;
    let fits = words.next().is_none()
        && source.is_ipv4() == (family == "TCP4")
        && destination.is_ipv4() == (family == "TCP4");
    fits.then_some(SocketAddr::new(source, from))
}

fn read_binary(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let (command, family) = (input[12], input[13]);
    let following = usize::from(u16::from_be_bytes([input[14], input[15]]));
    if command >> 4 != 2 || command & 0xf > 1 || following > EXTENSION_MOST {
        return Err(NoHeader);
    }
    let length = FIXED + following;
    let Some(block) = input.get(FIXED..length) else { return Ok(None) };
    let client = match (command & 0xf, family) {
        (1, 0x11) => Some(source_v4(block).ok_or(NoHeader)?),
        (1, 0x21) => Some(source_v6(block).ok_or(NoHeader)?),
        // LOCAL, or a family that names no TCP client.
        (_, _) => None,
    };
    Ok(Some(Header { client, length }))
}

fn source_v4(block: &[u8]) -> Option<SocketAddr> {
    let block: &[u8; 12] = block.first_chunk()?;
    let address = Ipv4Addr::new(block[0], block[1], block[2], block[3]);
    Some(SocketAddr::new(address.into(), u16::from_be_bytes([block[8], block[9]])))
}

fn source_v6(block: &[u8]) -> Option<SocketAddr> {
    let block: &[u8; 36] = block.first_chunk()?;
    let address = Ipv6Addr::from(*block.first_chunk::<16>()?);
    Some(SocketAddr::new(address.into(), u16::from_be_bytes([block[32], block[33]])))
}

/// A version 2 header that names `client`, who connected to `server`.
pub fn write(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (source, destination) = (client.ip().to_canonical(), server.ip().to_canonical());
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    let ports = [client.port().to_be_bytes(), server.port().to_be_bytes()].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([0x11, 0, 12]);
            header.extend(source.octets().iter().chain(&destination.octets()).chain(&ports));
        }
        (source, destination) => {
            header.extend([0x21, 0, 36]);
            header.extend(as_v6(source).octets().iter().chain(&as_v6(destination).octets()).chain(&ports));
        }
    }
    header
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(input: &[u8]) -> Option<String> {
        let header = read(input).unwrap().unwrap();
        assert_eq!(header.length, input.len());
        header.client.map(|client| client.to_string())
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(says(b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n").unwrap(), "192.0.2.1:56324");
        assert_eq!(says(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n").unwrap(), "[2001:db8::1]:1");
        assert_eq!(says(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(says(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n"), None);
    }

    #[test]
    fn a_line_is_never_read_past_its_end() {
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2\r\n"] {
            for cut in 0..line.len() {
                assert!(cut + wanted(&line[..cut]) <= line.len());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for input in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443 x\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP5 ::1 ::1 1 2\r\n",
            b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c............",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c............",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b...........",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(read(input), Err(NoHeader), "{}", input.escape_ascii());
        }
        assert_eq!(read(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat()), Err(NoHeader));
    }

    #[test]
    fn a_balancers_own_connection_names_nobody() {
        assert_eq!(says(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), None);
        assert_eq!(says(b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x03abc"), None);
    }

    proptest! {
        /// What is written is read, however it is cut, and what follows is left alone.
        #[test]
        fn what_is_written_is_read(client: SocketAddr, server: SocketAddr, behind in proptest::collection::vec(any::<u8>(), 0..9)) {
            let header = write(client, server);
            for cut in 0..header.len() {
                prop_assert_eq!(read(&header[..cut]), Ok(None));
                prop_assert!(cut + wanted(&header[..cut]) <= header.len());
            }
            let found = read(&[&header[..], &behind].concat()).unwrap().unwrap();
            prop_assert_eq!(found.length, header.len());
            let named = found.client.unwrap();
            prop_assert_eq!((named.ip().to_canonical(), named.port()), (client.ip().to_canonical(), client.port()));
        }

        /// Any bytes: an answer, never more wanted than the most, and none that reaches past the input.
        #[test]
        fn strangers_do_no_harm(
            start in proptest::sample::select(vec![
                &b""[..], b"PROXY ", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..2200),
        ) {
            let input = [start, &rest].concat();
            match read(&input) {
                Ok(Some(header)) => prop_assert!(header.length <= input.len() && header.length <= MOST),
                Ok(None) => prop_assert!(input.len() < MOST),
                Err(NoHeader) => {}
            }
        }
    }
}
