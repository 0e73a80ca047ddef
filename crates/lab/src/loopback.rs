//! Loopback addresses for nodes where network namespaces are not to be had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use model::SystemName;
use model::system::System;

/// The loopback address that stands for each address of the file. It follows from the file alone, so that it is the same
/// whenever it is asked for; the last two numbers are kept where possible, so that a person recognises a node.
/// Loopback addresses stay what they are.
pub(crate) fn addresses(system: &System) -> BTreeMap<IpAddr, IpAddr> {
    let wanted: BTreeSet<IpAddr> = system.nodes.values().flat_map(|n| n.lines.values().copied()).collect();
    let (keep, map): (Vec<_>, Vec<_>) = wanted.into_iter().partition(IpAddr::is_loopback);
    let mut taken: BTreeSet<IpAddr> = keep.iter().copied().collect();
    let mut mapped: BTreeMap<IpAddr, IpAddr> = keep.into_iter().map(|address| (address, address)).collect();
    for address in map {
        let free = candidates(&system.name, address).find(|candidate| !taken.contains(candidate));
        // All 254 are taken only in a file with as many addresses that end alike.
        let loopback = free.unwrap_or(address);
        taken.insert(loopback);
        mapped.insert(address, loopback);
    }
    mapped
}

/// Replaces addresses in a text wherever they stand alone: not as part of a longer number or address.
pub(crate) fn rewrite(text: &str, addresses: &BTreeMap<IpAddr, IpAddr>) -> String {
    let part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(part) {
        result.push_str(&rest[..begin]);
        let token = &rest[begin..];
        let length = token.find(|c: char| !part(c)).unwrap_or(token.len());
        let word_before = result.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (word, tail) = token.split_at(length);
        let replaced = if word_before { None } else { replace(word, addresses) };
        result.push_str(replaced.as_deref().unwrap_or(word));
        rest = tail;
    }
    result.push_str(rest);
    result
}

/// `10.0.1.11`, `10.0.1.11:5432` or an IPv6 address, as one word.
fn replace(word: &str, addresses: &BTreeMap<IpAddr, IpAddr>) -> Option<String> {
    let mapped = |text: &str| addresses.get(&text.parse::<IpAddr>().ok()?).map(IpAddr::to_string);
    mapped(word).or_else(|| {
        let (address, port) = word.rsplit_once(':')?;
        Some(format!("{}:{port}", mapped(address)?))
    })
}

/// 127.x.c.d for an address that ends in c.d, with x from the system and the address; 127.0.x.x stays free for others.
fn candidates(system: &SystemName, address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let (head, [c, d]) = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            (vec![a, b], [c, d])
        }
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            (octets[..14].to_vec(), [octets[14], octets[15]])
        }
    };
    let seed = hash(system.as_str().bytes().chain([0]).chain(head));
    (0..254u64).map(move |step| {
        let x = u8::try_from((seed.wrapping_add(step)) % 254 + 1).unwrap_or(1);
        IpAddr::V4(Ipv4Addr::new(127, x, c, d))
    })
}

/// FNV-1a (Fowler, Noll, Vo): the same in every version of the product, unlike the standard library's.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping() -> BTreeMap<IpAddr, IpAddr> {
        let pair = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
        BTreeMap::from([pair("10.0.1.1", "127.9.1.1"), pair("fd00::5", "127.8.0.5")])
    }

    #[test]
    fn only_whole_addresses_are_replaced() {
        let text = "a = \"10.0.1.1\" b = \"10.0.1.11\" c = '110.0.1.1' d = \"http://10.0.1.1:80/\" e = [\"fd00::5\"] v10.0.1.1";
        let expected = "a = \"127.9.1.1\" b = \"10.0.1.11\" c = '110.0.1.1' d = \"http://127.9.1.1:80/\" e = [\"127.8.0.5\"] v10.0.1.1";
        assert_eq!(rewrite(text, &mapping()), expected);
        assert_eq!(
            rewrite("address = \"10.0.1.1\" # décor, café", &mapping()),
            "address = \"127.9.1.1\" # décor, café"
        );
    }

    #[test]
    fn addresses_that_end_alike_differ() {
        let system = SystemName::new("shop");
        let first: Vec<_> = candidates(&system, "10.0.1.11".parse().unwrap()).take(2).collect();
        let again: Vec<_> = candidates(&system, "10.0.1.11".parse().unwrap()).take(2).collect();
        assert_eq!(first, again);
        assert_ne!(first[0], first[1]);
        assert!(first[0].to_string().ends_with(".1.11"), "{}", first[0]);
    }
}
