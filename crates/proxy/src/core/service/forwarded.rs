//! What an instance is told of the client before this proxy: `X-Forwarded-*`, `Forwarded` (RFC 7239) and the request's id.
//!
//! What a stranger says of himself is thrown away. Only what a trusted proxy said is continued.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Headers of other proxies that instances tend to believe; nobody here writes them.
const NEVER_BELIEVED: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];
/// The header with the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id taken from a client.
const ID_MOST: usize = 128;

/// Whom a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address of the connection's other end, or what a balancer's PROXY header says.
    pub address: IpAddr,
    /// Whether it came by HTTPS.
    pub secure: bool,
    /// Whether its word on the client before it counts.
    pub trusted: bool,
}

/// Writes who the client is; `host` is what it asked for.
pub fn write(headers: &mut HeaderMap, client: &Client, host: Option<&HeaderValue>) {
    let former = |name: &HeaderName| {
        let values = headers.get_all(name).iter().filter(|_| client.trusted);
        values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
    };
    let address = client.address.to_canonical();
    let proto = if client.secure { "https" } else { "http" };
    let chain = former(&FORWARDED_FOR).into_iter().chain([address.to_string()]);
    let chain = chain.collect::<Vec<_>>().join(", ");
    let elements = former(&FORWARDED).into_iter().chain([element(address, proto, host)]);
    let elements = elements.collect::<Vec<_>>().join(", ");
    let first_proto =
        former(&FORWARDED_PROTO).into_iter().next().filter(|word| word == "http" || word == "https");
    let first_host = headers.get(&FORWARDED_HOST).filter(|_| client.trusted).or(host).cloned();
    if !client.trusted {
        NEVER_BELIEVED.iter().for_each(|name| drop(headers.remove(name)));
    }
    set(headers, FORWARDED_FOR, HeaderValue::try_from(chain).ok());
    set(headers, FORWARDED, HeaderValue::try_from(elements).ok());
    set(headers, FORWARDED_PROTO, HeaderValue::try_from(first_proto.as_deref().unwrap_or(proto)).ok());
    set(headers, FORWARDED_HOST, first_host);
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// One hop as RFC 7239 section 4 writes it. A host is quoted, because it may have a port.
fn element(address: IpAddr, proto: &str, host: Option<&HeaderValue>) -> String {
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    match host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        Some(host) => format!("for={node};host=\"{host}\";proto={proto}"),
        None => format!("for={node};proto={proto}"),
    }
}

/// Keeps a client's id of the request if it is one, else makes one of `draws`. Returns it.
pub fn identify(headers: &mut HeaderMap, draws: [u64; 2]) -> HeaderValue {
    let mut given = headers.get_all(&REQUEST_ID).iter();
    if let (Some(id), None) = (given.next(), given.next())
        && is_id(id)
    {
        return id.clone();
    }
    let text = format!("{:016x}{:016x}", draws[0], draws[1]);
    let id = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("none"));
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Letters, digits and a few marks: nothing that could end a line, a field or a quotation in anybody's log.
fn is_id(id: &HeaderValue) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@~".contains(byte);
    !id.is_empty() && id.len() <= ID_MOST && id.as_bytes().iter().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRANGER: Client =
        Client { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)), secure: false, trusted: false };

    fn claims() -> HeaderMap {
        let claims = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.example"),
            ("forwarded", "for=192.0.2.1;proto=https"),
            ("x-real-ip", "192.0.2.1"),
        ];
        claims
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into_iter()
            .collect()
    }

    fn shown(client: Client) -> Vec<String> {
        let mut headers = claims();
        write(&mut headers, &client, Some(&HeaderValue::from_static("shop:80")));
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_strangers_word_is_thrown_away() {
        assert_eq!(
            shown(STRANGER),
            [
                "forwarded: for=10.0.0.7;host=\"shop:80\";proto=http",
                "x-forwarded-for: 10.0.0.7",
                "x-forwarded-host: shop:80",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn a_trusted_proxys_word_is_continued() {
        let address = "::ffff:10.0.0.8".parse().unwrap();
        assert_eq!(
            shown(Client { address, trusted: true, ..STRANGER }),
            [
                "forwarded: for=192.0.2.1;proto=https, for=10.0.0.8;host=\"shop:80\";proto=http",
                "x-forwarded-for: 192.0.2.1, 10.0.0.8",
                "x-forwarded-host: bank.example",
                "x-forwarded-proto: https",
                "x-real-ip: 192.0.2.1",
            ]
        );
    }

    #[test]
    fn an_id_is_kept_if_it_is_one() {
        let id = |given: &[&str]| {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            }
            let id = identify(&mut headers, [1, 0xf]);
            assert_eq!(headers.get_all(REQUEST_ID).iter().collect::<Vec<_>>(), [&id]);
            id.to_str().unwrap().to_owned()
        };
        let made = "0000000000000001000000000000000f";
        assert_eq!(id(&["trace-7/a=b"]), "trace-7/a=b");
        for bad in [&[][..], &["a", "b"], &["a b"], &["\"}"], &[""], &["ä"], &[&*"x".repeat(129)]] {
            assert_eq!(id(bad), made, "{bad:?}");
        }
    }

    proptest! {
        /// Whatever a stranger sends, what is passed on does not depend on it.
        #[test]
        fn a_stranger_changes_nothing(values in proptest::collection::vec("[ -~]{0,30}", 5)) {
            let mut headers = claims();
            for ((_, value), new) in headers.iter_mut().zip(&values) {
                *value = HeaderValue::from_str(new).unwrap();
            }
            write(&mut headers, &STRANGER, None);
            prop_assert_eq!(headers.len(), 3);
            prop_assert_eq!(headers.get("forwarded").unwrap(), "for=10.0.0.7;proto=http");
        }
    }
}
