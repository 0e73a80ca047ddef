//! What travels when a node joins: one JSON frame each way.

use std::net::SocketAddr;

use model::NodeName;
use serde::{Deserialize, Serialize};

use super::{JoinRequest, JoinSecret};

/// The longest request that is read from a stranger, in bytes.
pub const MAX_JOIN_FRAME: usize = 16 * 1024;

/// The longest answer, in bytes: it carries the system file, and comes from a server that has proved itself.
pub const MAX_JOIN_ANSWER: usize = 8 << 20;

/// The request of the new node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Application {
    pub(super) secret: String,
    pub(super) node: String,
    pub(super) csr_pem: String,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Admitted { certificate_pem: String, authority_pem: String, system: String },
    Refused { reason: String },
}

impl Application {
    /// The request that `frame` holds, or why it holds none.
    pub(super) fn parse(frame: &[u8], from: SocketAddr) -> Result<JoinRequest, String> {
        let application: Self =
            serde_json::from_slice(frame).map_err(|error| format!("the request is malformed: {error}"))?;
        if !model::name::is_valid(&application.node) {
            return Err(
                "the node name is not valid: lower-case letters, digits and `-`, starting with a letter"
                    .into(),
            );
        }
        let secret = JoinSecret::parse(&application.secret).ok_or("the secret is malformed")?;
        Ok(JoinRequest { secret, node: NodeName::new(application.node), csr_pem: application.csr_pem, from })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good() -> Vec<u8> {
        let application = Application { secret: "0a".repeat(32), node: "e1".into(), csr_pem: "PEM".into() };
        serde_json::to_vec(&application).unwrap()
    }

    fn parse(frame: &[u8]) -> Result<JoinRequest, String> {
        Application::parse(frame, ([10, 0, 0, 1], 1).into())
    }

    #[test]
    fn a_good_application_is_read() {
        assert_eq!(parse(&good()).unwrap().node, NodeName::from("e1"));
    }

    proptest! {
        #[test]
        fn mutated_applications_never_panic_and_never_smuggle_a_name(
            at in 0_usize..200,
            bytes in prop::collection::vec(any::<u8>(), 0..4),
            cut in 0_usize..4,
        ) {
            let mut frame = good();
            let at = at % frame.len();
            let end = (at + cut).min(frame.len());
            frame.splice(at..end, bytes);
            if let Ok(request) = parse(&frame) {
                prop_assert!(model::name::is_valid(request.node.as_str()));
            }
        }

        #[test]
        fn garbage_is_refused(garbage: Vec<u8>) {
            prop_assert!(parse(&garbage).is_err());
        }
    }
}
