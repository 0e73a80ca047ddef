//! The tokens a system has given out.

use std::time::{Duration, SystemTime};

use model::NodeName;
use serde::{Deserialize, Serialize};

use super::token::{JoinSecret, JoinToken};
use super::{JoinRequest, JoinToken as Token};
use crate::certificate::{self, Fingerprint};
use crate::hex;

/// An ended token is remembered this long, so that its holder is told that it ended.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The tokens given out, without their secrets: a plain value to be stored and agreed on as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBook {
    tokens: Vec<Entry>,
}

/// Why a request to join is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// No token with this secret was given out.
    #[error("the join token is not known to this system; make one on a running node")]
    Unknown,
    /// Too late.
    #[error("the join token has expired; make a new one on a running node")]
    Expired,
    /// A token counts once.
    #[error("the join token was already used by node `{0}`; make a new one on a running node")]
    Used(NodeName),
    /// The token was made for one node.
    #[error("the join token is for node `{0}`")]
    OtherNode(NodeName),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// SHA-256 of the secret.
    digest: String,
    /// Seconds since 1970.
    expires_at: u64,
    /// The only node it is good for, if it was made so.
    only_for: Option<NodeName>,
    used: Option<Use>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    node: NodeName,
    /// SHA-256 of the certificate request.
    request: String,
}

impl TokenBook {
    /// Gives out a token for the system of `authority` that counts for `lifetime`, for `only_for` or for any node.
    /// Nothing when the machine has no random numbers.
    pub fn issue(
        &mut self,
        authority: Fingerprint,
        only_for: Option<NodeName>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Option<Token> {
        let secret = JoinSecret::random()?;
        let expires_at = seconds(now + lifetime);
        self.tokens.retain(|entry| entry.expires_at + MEMORY.as_secs() > seconds(now));
        self.tokens.push(Entry { digest: secret.digest(), expires_at, only_for, used: None });
        Some(JoinToken {
            authority,
            secret,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(expires_at),
        })
    }

    /// Uses up the token of `request`. The same request may be repeated until the token ends: its answer may have been
    /// lost on the way.
    pub fn redeem(&mut self, request: &JoinRequest, now: SystemTime) -> Result<(), JoinRefusal> {
        let digest = request.secret.digest();
        let entry =
            self.tokens.iter_mut().find(|entry| entry.digest == digest).ok_or(JoinRefusal::Unknown)?;
        if entry.expires_at <= seconds(now) {
            return Err(JoinRefusal::Expired);
        }
        if let Some(only) = entry.only_for.as_ref().filter(|only| **only != request.node) {
            return Err(JoinRefusal::OtherNode(only.clone()));
        }
        let this = Use {
            node: request.node.clone(),
            request: hex::encode(&certificate::sha256(request.csr_pem.as_bytes())),
        };
        match &entry.used {
            Some(before) if *before != this => Err(JoinRefusal::Used(before.node.clone())),
            Some(_) | None => {
                entry.used = Some(this);
                Ok(())
            }
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn request(token: &JoinToken, node: &str, csr: &str) -> JoinRequest {
        let from = ([127, 0, 0, 1], 1).into();
        JoinRequest { secret: token.secret.clone(), node: node.into(), csr_pem: csr.into(), from }
    }

    #[test]
    fn a_token_counts_once_but_a_lost_answer_may_be_asked_for_again() {
        let now = SystemTime::now();
        let mut book = TokenBook::default();
        let token = book.issue(Fingerprint::of(b"ca"), None, HOUR, now).unwrap();
        assert_eq!(book.redeem(&request(&token, "e1", "a"), now), Ok(()));
        assert_eq!(book.redeem(&request(&token, "e1", "a"), now), Ok(()));
        assert_eq!(book.redeem(&request(&token, "e1", "b"), now), Err(JoinRefusal::Used("e1".into())));
        assert_eq!(book.redeem(&request(&token, "w1", "a"), now), Err(JoinRefusal::Used("e1".into())));
    }

    #[test]
    fn ended_foreign_and_unknown_tokens_are_refused() {
        let now = SystemTime::now();
        let mut book = TokenBook::default();
        let token = book.issue(Fingerprint::of(b"ca"), Some("e1".into()), HOUR, now).unwrap();
        assert_eq!(book.redeem(&request(&token, "w1", "a"), now), Err(JoinRefusal::OtherNode("e1".into())));
        assert_eq!(book.redeem(&request(&token, "e1", "a"), now + HOUR), Err(JoinRefusal::Expired));
        let stranger = TokenBook::default().issue(Fingerprint::of(b"ca"), None, HOUR, now).unwrap();
        assert_eq!(book.redeem(&request(&stranger, "e1", "a"), now), Err(JoinRefusal::Unknown));
    }

    #[test]
    fn a_stored_book_holds_no_secret_and_forgets_in_time() {
        let now = SystemTime::now();
        let mut book = TokenBook::default();
        let token = book.issue(Fingerprint::of(b"ca"), None, HOUR, now).unwrap();
        let json = serde_json::to_string(&book).unwrap();
        assert!(!json.contains(&token.secret.text()));
        let mut read: TokenBook = serde_json::from_str(&json).unwrap();
        assert_eq!(read.redeem(&request(&token, "e1", "a"), now), Ok(()));
        read.issue(Fingerprint::of(b"ca"), None, HOUR, now + MEMORY + 2 * HOUR).unwrap();
        assert_eq!(read.tokens.len(), 1);
    }
}
