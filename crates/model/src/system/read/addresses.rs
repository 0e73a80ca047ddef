//! Lists of addresses with ports: one for all, or one for each site.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::problem::Code;
use super::{At, Read, Reader, Section};

/// Where something listens: `"10.0.5.1:8080"` or `"[fd00::1]:8080"`.
#[derive(Clone, Copy, Debug)]
struct Target(SocketAddr);

/// Addresses in the order of the file.
#[derive(Clone, Debug)]
pub(in super::super) struct Addresses(pub(in super::super) Vec<Listed>);

/// One of them.
#[derive(Clone, Debug)]
pub(in super::super) struct Listed {
    pub(in super::super) address: At<SocketAddr>,
    /// The site below which it stands, and where that is named.
    pub(in super::super) site: Option<(String, Range<usize>)>,
}

impl Read for Addresses {
    const EXPECTED: &'static str = "a list of addresses, or one for each site";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let listed = |list: Vec<At<Target>>, site: Option<(String, Range<usize>)>| {
            list.into_iter().map(move |At { value: Target(address), span }| Listed {
                address: At { value: address, span },
                site: site.clone(),
            })
        };
        match value.get_ref() {
            DeValue::Array(_) => Some(Self(listed(Vec::read(value, reader)?, None).collect())),
            DeValue::Table(_) => {
                let Section(sites) = Section::<Vec<At<Target>>>::read(value, reader)?;
                // One that could not be read was reported, and breaks the whole.
                let lists = sites.into_iter().map(|site| Some((site.name, site.span, site.body?)));
                let lists: Option<Vec<_>> = lists.collect();
                let all = lists?.into_iter().flat_map(|(name, span, list)| listed(list, Some((name, span))));
                Some(Self(all.collect()))
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                reader.wrong_type(Self::EXPECTED, value);
                None
            }
        }
    }
}

impl Read for Target {
    const EXPECTED: &'static str = "a text with an address and a port";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            reader.wrong_type(Self::EXPECTED, value);
            return None;
        };
        target(text)
            .map_err(|(why, better)| {
                reader.malformed(Code::InvalidAddress, value, "an address with a port", why, &better);
            })
            .ok()
            .map(Self)
    }
}

/// The address in `text`, or why it is none and what may have been meant.
fn target(text: &str) -> Result<SocketAddr, (&'static str, String)> {
    const EXAMPLE: &str = "10.0.5.1:8080";
    if let Ok(address) = text.parse::<SocketAddr>() {
        let ip = address.ip().to_canonical();
        let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
        return match address.port() {
            0 => Err(("ports are 1 to 65535", SocketAddr::new(address.ip(), 8080).to_string())),
            _ if ip.is_unspecified() || ip.is_multicast() || broadcast => {
                Err(("no single machine has this address", EXAMPLE.to_owned()))
            }
            _ => Ok(address),
        };
    }
    if let Ok(without_port) = text.trim_matches(['[', ']']).parse() {
        return Err(("the port is missing", SocketAddr::new(without_port, 8080).to_string()));
    }
    let why = "it must be `ADDRESS:PORT` with an IPv4 or IPv6 address: names are not resolved, so that no request waits for a name server";
    Err((why, EXAMPLE.to_owned()))
}

impl JsonSchema for Addresses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let list = json_schema!({ "type": "array", "items": { "type": "string" } });
        json_schema!({
            "format": "list of addresses, or section: site = list of addresses",
            "type": ["array", "object"],
            "items": { "type": "string" },
            "additionalProperties": list
        })
    }
}
