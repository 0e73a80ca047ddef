//! The text that a person carries to a new node.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;

use crate::certificate::{self, Fingerprint};
use crate::hex;

const PREFIX: &str = "mainstay-join-1";

/// Lets one node into one system, once, until it ends. As text:
/// `mainstay-join-1.FINGERPRINT.SECRET.END` (hexadecimal; the end in seconds since 1970).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The authority of the system to join.
    pub authority: Fingerprint,
    /// What proves the right to join.
    pub secret: JoinSecret,
    /// When it stops counting (whole seconds).
    pub expires_at: SystemTime,
}

/// A random secret of 256 bits. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret([u8; 32]);

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a join token; it looks like {PREFIX}.<64 hex digits>.<64 hex digits>.<digits>, copy it whole"
)]
pub struct TokenError;

impl JoinSecret {
    /// A new secret; nothing when the machine has no random numbers.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).ok().map(|()| Self(bytes))
    }

    /// SHA-256 of the secret, to be stored instead of it.
    pub fn digest(&self) -> String {
        hex::encode(&certificate::sha256(&self.0))
    }

    pub(super) fn text(&self) -> String {
        hex::encode(&self.0)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        write!(f, "{PREFIX}.{}.{}.{end}", self.authority, self.secret.text())
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, authority, secret, end] = parts[..] else {
            return Err(TokenError);
        };
        let seconds: u32 = end.parse().map_err(|_| TokenError)?;
        Ok(Self {
            authority: authority.parse().map_err(|()| TokenError)?,
            secret: JoinSecret::parse(secret).ok_or(TokenError)?,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(seed: [u8; 32], seconds: u32) -> JoinToken {
        JoinToken {
            authority: Fingerprint::of(&seed),
            secret: JoinSecret(seed),
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()),
        }
    }

    proptest! {
        #[test]
        fn a_token_survives_being_copied(seed: [u8; 32], seconds: u32) {
            let token = token(seed, seconds);
            prop_assert_eq!(format!(" {token}\n").parse(), Ok(token));
        }

        #[test]
        fn a_damaged_token_is_refused_or_another_one(seed: [u8; 32], at in 0_usize..150, byte in b' '..=b'~') {
            let whole = token(seed, 1_800_000_000);
            let mut text = whole.to_string().into_bytes();
            let at = at % text.len();
            let same = text[at].eq_ignore_ascii_case(&byte);
            text[at] = byte;
            let read = String::from_utf8(text).unwrap().parse::<JoinToken>();
            let untouched = same || (at == 0 && byte == b' ') || byte == b'+';
            prop_assert!(untouched || read != Ok(whole));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            prop_assert_eq!(text.parse::<JoinToken>(), Err(TokenError));
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        let token = token([7; 32], 1);
        assert!(!format!("{token:?}").contains("0707"));
    }
}
