//! How a route to a service speaks with its clients.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// How a route to a service speaks with its clients. The default is plain HTTP for every host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carriage {
    /// Host names, in lower case, that the route serves; `*.` stands for one or more labels. Empty: all.
    #[serde(skip_serializing_if = "is_default", rename = "host")]
    pub hosts: Vec<String>,
    /// What a request's path begins with, in whole segments: `/` or `/api`, never with a slash at its end.
    #[serde(skip_serializing_if = "is_default")]
    pub path: PathPrefix,
    /// HTTPS instead of HTTP.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Option<TlsFiles>,
    /// Every request is answered with the same address on this port of HTTPS.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect_https: Option<u16>,
    /// What a client may ask of the proxy.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// The file with the page that is shown when no instance can answer.
    #[serde(skip_serializing_if = "is_default")]
    pub maintenance: Option<PathBuf>,
    /// Proxies whose word on the client before them is believed.
    #[serde(skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<SourceRange>,
    /// Balancers that begin each connection with a PROXY header.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_protocol: Vec<SourceRange>,
    /// One of so many requests is written to the access log, and every one that failed; `None`: nothing is.
    #[serde(skip_serializing_if = "is_default")]
    pub access_log: Option<u32>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsFiles {
    /// PEM file with the certificate and those that vouch for it, in this order.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// How instances that speak TLS are recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTls {
    /// PEM file with the authorities that sign the certificates of instances.
    pub ca: PathBuf,
    /// The name that these certificates are for; `None`: the address of each instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The beginning of a path, in whole segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathPrefix(String);

/// What a client may ask of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most headers of a request.
    pub headers: u32,
    /// The most bytes of a request's head.
    pub header_bytes: u32,
    /// How long a head may take from its first byte to its last.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a connection may stay unused, or take nothing of what it is sent.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long a request's body may pause before the answer begins.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
}

/// What the instances of a service speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 without being asked (prior knowledge).
    H2,
    /// Anything over TCP.
    Tcp,
}

/// Addresses that begin with the same bits: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceRange {
    address: IpAddr,
    length: u8,
}

/// Whether it says nothing.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PathPrefix {
    /// The prefix in `text`, which begins with `/`; a slash at the end means nothing.
    pub fn new(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        Self(if text.is_empty() { "/" } else { text }.to_owned())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` begins with it: `/api` covers `/api` and `/api/x`, but not `/apix`.
    pub fn covers(&self, path: &str) -> bool {
        self.0 == "/"
            || path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: 128,
            header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(10),
            // Longer than the usual 60 s of balancers and browsers, which should be the ones to close.
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
        }
    }
}

impl Protocol {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2 => "h2",
            Self::Tcp => "tcp",
        }
    }
}

impl SourceRange {
    /// Whether `address` is one of them. An IPv4 address that came through an IPv6 socket is an IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let apart = u32::from(own) ^ u32::from(other);
                apart.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let apart = u128::from(own) ^ u128::from(other);
                apart.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Why a text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be an address, or one with the number of its leading bits, such as `10.0.0.0/8`")]
pub struct NoRange;

impl FromStr for SourceRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoRange)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|length| *length <= longest).ok_or(NoRange)?,
            None => longest,
        };
        Ok(Self { address, length })
    }
}

impl TryFrom<String> for SourceRange {
    type Error = NoRange;

    fn try_from(text: String) -> Result<Self, NoRange> {
        text.parse()
    }
}

impl From<SourceRange> for String {
    fn from(range: SourceRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_covered_in_whole_segments() {
        let api = PathPrefix::new("/api/");
        assert_eq!(api.as_str(), "/api");
        for (path, covered) in
            [("/api", true), ("/api/", true), ("/api/x", true), ("/apix", false), ("/", false)]
        {
            assert_eq!(api.covers(path), covered, "{path}");
        }
        assert!(PathPrefix::new("/").covers("/x") && PathPrefix::default().covers("*"));
    }

    #[test]
    fn a_range_holds_what_begins_with_its_bits() {
        let range: SourceRange = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains("10.1.255.255".parse().unwrap()));
        assert!(range.contains("::ffff:10.1.0.1".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<SourceRange>().unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<SourceRange>().unwrap().contains("::1".parse().unwrap()));
        assert!("::/0".parse::<SourceRange>().unwrap().contains("::1".parse().unwrap()));
        let one: SourceRange = "::1".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "10.0.0.0/-1", "host/8"] {
            assert_eq!(text.parse::<SourceRange>(), Err(NoRange), "{text}");
        }
    }
}
