//! The cookie that keeps a client at its instance.
//!
//! Its value is the digest of the instance's id, encrypted and authenticated with a key that all proxies of the system
//! share (AES-256-GCM-SIV, RFC 8452): nobody outside can tell which instance, how many there are, or whether two clients
//! are at the same one, and nobody can choose an instance. The service's name is authenticated with it, so that a cookie
//! says nothing to another service.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use hyper::header::{self, HeaderMap};

/// Bytes of a key, in hexadecimal digits twice as many.
const KEY: usize = 32;
/// Bytes of an instance's digest that are kept.
const DIGEST: usize = 16;
/// Bytes that the encryption adds to prove itself.
const TAG: usize = 16;
/// Bytes of a value: a nonce, and the encrypted digest with its tag.
const VALUE: usize = NONCE_LEN + DIGEST + TAG;

/// What makes and reads the cookies of all services.
pub struct Cookies {
    key: LessSafeKey,
}

impl Cookies {
    /// With the system's key in hexadecimal digits; `None` if it is none.
    pub fn new(key: &str) -> Option<Self> {
        let bytes: [u8; KEY] = from_hex(key)?;
        let key = UnboundKey::new(&AES_256_GCM_SIV, &bytes).ok()?;
        Some(Self { key: LessSafeKey::new(key) })
    }

    /// The value for a client at `instance`. `nonce` is a random number that is used once.
    pub fn seal(&self, service: &str, instance: &str, nonce: [u8; NONCE_LEN]) -> Option<String> {
        let mut value = digest_of(instance).to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(sealing, Aad::from(service.as_bytes()), &mut value).ok()?;
        Some(to_hex(&[&nonce[..], &value].concat()))
    }

    /// Which of `instances` a value that came with a request means; `None` also for what no proxy of the system made.
    pub fn open<'a, T>(
        &self,
        service: &str,
        value: &str,
        mut instances: impl Iterator<Item = (T, &'a str)>,
    ) -> Option<T> {
        let bytes: [u8; VALUE] = from_hex(value)?;
        let (nonce, sealed) = bytes.split_at(NONCE_LEN);
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let digest = self.key.open_in_place(nonce, Aad::from(service.as_bytes()), &mut sealed).ok()?;
        instances.find(|(_, id)| digest_of(id) == *digest).map(|(instance, _)| instance)
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies")
    }
}

/// The values of all cookies of this name that a request carries (RFC 6265 section 4.2.1).
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn digest_of(instance: &str) -> [u8; DIGEST] {
    let whole = digest::digest(&digest::SHA256, instance.as_bytes());
    let mut part = [0; DIGEST];
    part.copy_from_slice(&whole.as_ref()[..DIGEST]);
    part
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (value(pair[0])? << 4) | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDS: [&str; 3] = ["web-1@e1", "web-2@e2", "web-3@w1"];

    fn cookies(first: char) -> Cookies {
        Cookies::new(&format!("{first}{}", "7".repeat(63))).unwrap()
    }

    fn open(cookies: &Cookies, service: &str, value: &str) -> Option<usize> {
        cookies.open(service, value, (0..).zip(IDS))
    }

    #[test]
    fn every_proxy_with_the_key_understands_it_and_nobody_else() {
        let value = cookies('a').seal("web", IDS[1], [3; NONCE_LEN]).unwrap();
        assert_eq!(open(&cookies('a'), "web", &value), Some(1));
        assert_eq!(open(&cookies('b'), "web", &value), None, "another system");
        assert_eq!(open(&cookies('a'), "api", &value), None, "another service");
        let gone = cookies('a').seal("web", "web-9@e1", [3; NONCE_LEN]).unwrap();
        assert_eq!(open(&cookies('a'), "web", &gone), None, "an instance that is gone");
    }

    #[test]
    fn it_reveals_nothing() {
        let values: Vec<String> = (0..4)
            .map(|number| {
                cookies('a').seal("web", IDS[usize::from(number) % 2], [number; NONCE_LEN]).unwrap()
            })
            .collect();
        for (place, value) in values.iter().enumerate() {
            assert_eq!(value.len(), 2 * VALUE, "as long for every instance");
            let mut others = values.iter().skip(place + 1).map(|other| &other[2 * NONCE_LEN..]);
            assert!(others.all(|other| *other != value[2 * NONCE_LEN..]), "even for one instance");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for key in ["", "77", &"g".repeat(64), &"7".repeat(63), &"7".repeat(66)] {
            assert!(Cookies::new(key).is_none(), "{key}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; shop=x=y;b=2".parse().unwrap());
        headers.append(header::COOKIE, "shops=3; shop=z".parse().unwrap());
        assert_eq!(values(&headers, "shop").collect::<Vec<_>>(), ["x=y", "z"]);
    }

    proptest! {
        /// Whatever a stranger sends: no panic, and nothing that was not sealed with the key is ever taken.
        #[test]
        fn forgeries_are_not_taken(text in "\\PC{0,120}", place in 0..2 * VALUE, digit in "[0-9a-f]") {
            let cookies = cookies('a');
            prop_assert_eq!(open(&cookies, "web", &text), None);
            let value = cookies.seal("web", IDS[0], [9; NONCE_LEN]).unwrap();
            let mut forged = value.clone();
            forged.replace_range(place..=place, &digit);
            prop_assert_eq!(open(&cookies, "web", &forged), (forged == value).then_some(0));
        }
    }
}
