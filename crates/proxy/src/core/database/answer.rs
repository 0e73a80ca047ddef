//! Messages that the proxy itself says to PostgreSQL clients and servers.
//!
//! Source: PostgreSQL documentation, "Message Formats", "Error and Notice Message Fields" and "Error Codes".

use model::routes::DatabaseEndpoint;

/// The answer to a request for encryption that declines it: the client goes on in plain text or leaves.
pub const NO_ENCRYPTION: &[u8] = b"N";
/// The orderly end of a session, as a client says it (`Terminate`).
pub const TERMINATE: &[u8] = &[b'X', 0, 0, 0, 4];
/// A fatal TLS alert (`internal_error`) for a client that began with TLS at once: the only word it understands.
pub const TLS_ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 80];

/// A fatal error for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// What happened, one sentence.
    pub message: String,
    /// What the reader can do.
    pub hint: String,
}

impl Fatal {
    /// 57P03 `cannot_connect_now`: nobody took the connection in time.
    pub fn cannot_connect_now(database: &str, because: &str, waited_ms: u64) -> Self {
        Self {
            code: "57P03",
            message: format!("database \"{database}\" takes no connections on this route: {because}"),
            hint: format!(
                "The connection waited {waited_ms} ms. Try again; `mainstay status` says what is being done."
            ),
        }
    }

    /// 57P03: the members that take connections do not answer this node. A client that knows several addresses turns to
    /// the next one (libpq since 14).
    pub fn out_of_reach(database: &str, members: &[DatabaseEndpoint], waited_ms: u64) -> Self {
        let names: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
        let verb = if names.len() == 1 { "does" } else { "do" };
        Self {
            code: "57P03",
            message: format!(
                "{} of database \"{database}\" {verb} not answer this node",
                names.join(" and ")
            ),
            hint: format!(
                "The connection waited {waited_ms} ms. Connect to another node: its lines may still lead there."
            ),
        }
    }

    /// 57P03: too many clients wait already.
    pub fn too_many_waiting(database: &str, because: &str, limit: u32) -> Self {
        Self {
            code: "57P03",
            message: format!("database \"{database}\" takes no connections on this route: {because}"),
            hint: format!("{limit} connections wait already, which is the limit. Try again later."),
        }
    }

    /// 57P01 `admin_shutdown`: a switchover ends the session.
    pub fn switchover() -> Self {
        Self {
            code: "57P01",
            message: "terminating connection due to switchover".to_owned(),
            hint: "Connect again; the new primary takes over within moments.".to_owned(),
        }
    }

    /// 57P01 `admin_shutdown`: the proxy that carries the session ends, because another one has taken its place.
    pub fn replaced() -> Self {
        Self {
            code: "57P01",
            message: "terminating connection due to the replacement of this node's proxy".to_owned(),
            hint: "Connect again; the proxy that has taken its place serves already.".to_owned(),
        }
    }

    /// 53300 `too_many_connections`: the proxy has no room.
    pub fn too_many_connections(limit: usize) -> Self {
        Self {
            code: "53300",
            message: format!("this node's proxy already carries {limit} connections, which is its limit"),
            hint: "Use fewer connections, or raise the limit of open files for mainstay proxy.".to_owned(),
        }
    }

    /// 08P01 `protocol_violation`: this is no PostgreSQL client.
    pub fn protocol_violation(reason: String) -> Self {
        Self {
            code: "08P01",
            message: reason,
            hint: "This port is a route to a PostgreSQL database.".to_owned(),
        }
    }

    /// The `ErrorResponse` message.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.message.len() + self.hint.len());
        let fields =
            [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.code), (b'M', &self.message), (b'H', &self.hint)];
        for (kind, text) in fields {
            body.push(kind);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        let mut message = vec![b'E'];
        message.extend(length.to_be_bytes());
        message.extend(body);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_counts_itself_and_texts_cannot_break_out() {
        let error = Fatal::cannot_connect_now("orders", "no primary\0Cxxxxx", 5);
        let bytes = error.encode();
        assert_eq!(bytes[0], b'E');
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), length + 1);
        assert!(bytes.ends_with(b"\0\0"));
        let fields: Vec<&[u8]> = bytes[5..].split(|byte| *byte == 0).collect();
        assert_eq!(fields[2], b"C57P03");
        assert!(fields[3].ends_with(b"no primaryCxxxxx"), "{:?}", String::from_utf8_lossy(fields[3]));
        assert_eq!(fields.len(), 7, "five fields, the terminator and nothing after it");
    }
}
