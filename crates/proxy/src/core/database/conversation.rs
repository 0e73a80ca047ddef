//! Follows the messages of a session just far enough to know whether it is idle outside a transaction.
//!
//! Every `Query`, `Sync` and `FunctionCall` of a client is answered by exactly one `ReadyForQuery`, and so is its
//! startup. A session is idle when all of them are answered, the last answer said "not in a transaction", and the
//! client has sent nothing since. Looking at the last six bytes from the server alone would take the gap between two
//! pipelined queries for idleness. Where following fails, the session counts as busy: it is then cut at the deadline
//! of a draining instead of being told to leave, which is never worse than not following at all.
//!
//! Source: PostgreSQL documentation, "Message Flow" and "Message Formats".

/// The longest header looked at: type, length and, for `ReadyForQuery`, the transaction status.
const TYPED_HEAD: usize = 5;
const STARTUP_HEAD: usize = 8;
const ENCRYPTION_CODES: [u32; 2] = [80_877_103, 80_877_104];

/// What has been said on one connection.
#[derive(Debug)]
pub struct Conversation {
    mode: Mode,
    client: Frames,
    server: Frames,
    /// Answers owed by the server.
    owed: u32,
    /// The client began something that no `Sync` has ended.
    unsynced: bool,
    /// The last message that asked for a `ReadyForQuery` was a `Sync`.
    by_sync: bool,
    /// The last `ReadyForQuery` said that no transaction is open.
    at_rest: bool,
    /// How many times the client has asked for a `ReadyForQuery` since its startup.
    asked: u64,
}

/// How the bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The client asked for encryption; the server answers with one byte.
    Asked,
    /// The server declined; the client's next message has no type byte.
    Declined,
    /// Plain text with typed messages.
    Plain,
    /// Encrypted, or not understood.
    Opaque,
}

/// Cuts a byte stream into messages without keeping them.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; STARTUP_HEAD],
    filled: u8,
    skip: u32,
}

impl Conversation {
    /// A session whose first message was a `StartupMessage`, complete.
    pub fn plain() -> Self {
        Self::new(Mode::Plain, 1)
    }

    /// A session whose first message asked for encryption.
    pub fn asked_for_encryption() -> Self {
        Self::new(Mode::Asked, 0)
    }

    /// A session that cannot be read.
    pub fn opaque() -> Self {
        Self::new(Mode::Opaque, 0)
    }

    fn new(mode: Mode, owed: u32) -> Self {
        Self {
            mode,
            client: Frames::default(),
            server: Frames::default(),
            owed,
            unsynced: false,
            by_sync: false,
            at_rest: false,
            asked: 0,
        }
    }

    /// The client sent `bytes`.
    pub fn client_sent(&mut self, bytes: &[u8]) {
        match self.mode {
            Mode::Opaque => {}
            // Bytes before the server's answer can only be a TLS handshake begun too early.
            Mode::Asked => self.mode = Mode::Opaque,
            Mode::Declined => self.untyped(bytes),
            Mode::Plain => self.typed_from_client(bytes),
        }
    }

    /// The server sent `bytes`.
    pub fn server_sent(&mut self, bytes: &[u8]) {
        match self.mode {
            Mode::Opaque => {}
            Mode::Asked if bytes == b"N" => self.mode = Mode::Declined,
            Mode::Asked | Mode::Declined => self.mode = Mode::Opaque,
            Mode::Plain => self.typed_from_server(bytes),
        }
    }

    /// Whether the session is idle outside a transaction, as far as the bytes seen so far tell.
    pub fn is_idle(&self) -> bool {
        self.mode == Mode::Plain
            && self.owed == 0
            && !self.unsynced
            && self.at_rest
            && self.client.at_boundary()
    }

    /// How many times the client has asked something since its startup.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether the server's last message is complete, so that a message of ours can follow it.
    pub fn at_boundary(&self) -> bool {
        self.mode == Mode::Plain && self.server.at_boundary()
    }

    fn untyped(&mut self, bytes: &[u8]) {
        let Some((head, rest)) = self.client.fill(bytes, STARTUP_HEAD) else { return };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if ENCRYPTION_CODES.contains(&code) && rest.is_empty() {
            self.mode = Mode::Asked;
        } else if code >> 16 == 3 && length >= 8 {
            self.mode = Mode::Plain;
            self.owed = 1;
            self.client.skip = length - 8;
            self.typed_from_client(rest);
        } else {
            self.mode = Mode::Opaque;
        }
    }

    fn typed_from_client(&mut self, mut bytes: &[u8]) {
        while let Some((head, rest)) = self.client.next_typed(bytes) {
            bytes = rest;
            if !self.client.skip_body(head) {
                self.mode = Mode::Opaque;
                return;
            }
            match head[0] {
                b'Q' | b'F' => self.owe(false),
                b'S' => self.owe(true),
                // Answers during authentication, COPY data, and the farewell neither ask for nor delay an answer.
                b'p' | b'd' | b'c' | b'f' | b'X' => {}
                _ => self.unsynced = true,
            }
        }
    }

    fn owe(&mut self, by_sync: bool) {
        self.owed = self.owed.saturating_add(1);
        self.asked += 1;
        self.by_sync = by_sync;
        self.unsynced = false;
    }

    fn typed_from_server(&mut self, mut bytes: &[u8]) {
        while let Some((head, rest)) = self.server.next_typed(bytes) {
            bytes = rest;
            if !self.server.skip_body(head) {
                self.mode = Mode::Opaque;
                return;
            }
            match head[0] {
                b'Z' => {
                    self.owed = self.owed.saturating_sub(1);
                    self.at_rest = head[5] == b'I';
                }
                // COPY FROM STDIN by the extended protocol: the server ignores the Sync that followed the Execute
                // and waits for the one after the data.
                b'G' if self.by_sync => {
                    self.owed = self.owed.saturating_sub(1);
                    self.unsynced = true;
                }
                _ => {}
            }
        }
    }
}

impl Frames {
    /// Nothing of a message is outstanding.
    fn at_boundary(&self) -> bool {
        self.filled == 0 && self.skip == 0
    }

    /// Skips what is left of the message before and returns the next head (type, length, and for `ReadyForQuery` its
    /// status) with the bytes after it.
    fn next_typed<'a>(&mut self, bytes: &'a [u8]) -> Option<([u8; STARTUP_HEAD], &'a [u8])> {
        let skip = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= u32::try_from(skip).unwrap_or(0);
        let bytes = &bytes[skip..];
        let kind = if self.filled > 0 { self.head[0] } else { *bytes.first()? };
        self.fill(bytes, TYPED_HEAD + usize::from(kind == b'Z'))
    }

    /// Collects `wanted` bytes; returns them and the rest when complete.
    fn fill<'a>(&mut self, bytes: &'a [u8], wanted: usize) -> Option<([u8; STARTUP_HEAD], &'a [u8])> {
        let filled = usize::from(self.filled);
        let take = bytes.len().min(wanted - filled);
        self.head[filled..filled + take].copy_from_slice(&bytes[..take]);
        if filled + take < wanted {
            self.filled = u8::try_from(filled + take).unwrap_or(0);
            return None;
        }
        self.filled = 0;
        Some((self.head, &bytes[take..]))
    }

    /// Marks the rest of the message with this head to be skipped. False: the length is impossible.
    fn skip_body(&mut self, head: [u8; STARTUP_HEAD]) -> bool {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let seen = if head[0] == b'Z' { 5 } else { 4 };
        let possible = length >= seen && length <= i32::MAX.unsigned_abs();
        self.skip = length.saturating_sub(seen);
        possible
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
