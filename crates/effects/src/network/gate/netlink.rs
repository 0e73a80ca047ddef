//! As much of nfnetlink as the gate needs (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`):
//! transactions on set elements, and reading back table, rules and elements. No process is started.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

use super::attributes::{attributes, nest, put};

/// Netlink's own message types and flags (`linux/netlink.h`).
mod nl {
    pub(super) const ERROR: u16 = 2;
    pub(super) const DONE: u16 = 3;
    pub(super) const REQUEST: u16 = 0x1;
    pub(super) const ACK: u16 = 0x4;
    pub(super) const DUMP: u16 = 0x300;
    pub(super) const CREATE: u16 = 0x400;
    pub(super) const MULTI: u16 = 0x2;
    pub(super) const DUMP_INTERRUPTED: u16 = 0x10;
    pub(super) const HEADER: usize = 16;
}

/// nf_tables message types with their subsystem (10) in the upper byte, and the two that frame a transaction.
mod nft {
    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    pub(super) const SUBSYSTEM: u16 = 10;
    pub(super) const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
    pub(super) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
    pub(super) const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
    pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
    pub(super) const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
    pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
    pub(super) const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;

    /// NFNL_BATCH_GENID
    pub(super) const BATCH_GENERATION: u16 = 1;
    /// NFTA_GEN_ID
    pub(super) const GENERATION: u16 = 1;
    /// NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFT_TABLE_F_DORMANT
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const TABLE_DORMANT: u32 = 1;
    /// NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_USERDATA
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_USERDATA: u16 = 7;
    /// NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM
    pub(super) const LIST_TABLE: u16 = 1;
    pub(super) const LIST_SET: u16 = 2;
    pub(super) const LIST_ELEMENTS: u16 = 3;
    pub(super) const LIST_ELEMENT: u16 = 1;
    /// NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_EXPIRATION, NFTA_DATA_VALUE
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_TIMEOUT: u16 = 4;
    pub(super) const ELEMENT_EXPIRATION: u16 = 5;
    pub(super) const DATA_VALUE: u16 = 1;

    /// NFPROTO_INET, and none for messages about no table.
    pub(super) const INET: u8 = 1;
    pub(super) const UNSPECIFIED: u8 = 0;
    /// struct nfgenmsg
    pub(super) const HEADER: usize = 4;
}

/// The kernel's answer to a transaction that was made for another generation of the ruleset: ERESTART, which user space
/// never sees otherwise.
pub(super) const OTHER_GENERATION: Errno = Errno::RESTART;

/// How long an answer may take. Transactions are answered before the send returns; this only bounds a kernel defect.
const PATIENCE: Duration = Duration::from_secs(1);

/// One change in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Add a port to a set; fine when it is there already (and then nothing changes).
    Add {
        /// The set's name.
        set: &'static str,
        /// The element.
        port: u16,
        /// When the kernel removes it; `None` for never.
        timeout: Option<Duration>,
    },
    /// Remove a port from a set; fails when it is not there.
    Delete {
        /// The set's name.
        set: &'static str,
        /// The element.
        port: u16,
    },
    /// Remove the table with all it holds.
    DeleteTable,
}

/// A rule as far as the gate recognises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The chain it is in.
    pub(super) chain: String,
    /// Its user data as nft stores it (type, length, text, zero byte).
    pub(super) comment: Vec<u8>,
}

/// A netlink socket to the packet filter of the network namespace it was opened in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message from the kernel.
struct Answer {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

/// The generation that follows `generation`; zero is left out, it means "any".
pub(super) fn after(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

impl Netlink {
    pub(super) fn open() -> Result<Self, Errno> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// The ruleset's generation: counts the transactions of everybody in this namespace.
    pub(super) fn generation(&mut self) -> Result<u32, Errno> {
        let answers = self.ask(nft::GET_GENERATION, nl::ACK, nft::UNSPECIFIED, |_| {})?;
        let value = answers.first().and_then(|answer| attributes(&answer.body).get(nft::GENERATION));
        be32(value).ok_or(Errno::PROTO)
    }

    /// Whether the table is switched off; NOENT when there is none.
    pub(super) fn is_dormant(&mut self, table: &str) -> Result<bool, Errno> {
        let name = text(table);
        let answers =
            self.ask(nft::GET_TABLE, nl::ACK, nft::INET, |message| put(message, nft::TABLE_NAME, &name))?;
        let answer = answers.first().ok_or(Errno::PROTO)?;
        let flags = be32(attributes(&answer.body).get(nft::TABLE_FLAGS)).unwrap_or(0);
        Ok(flags & nft::TABLE_DORMANT != 0)
    }

    /// The rules of a table in order.
    pub(super) fn rules(&mut self, table: &str) -> Result<Vec<Rule>, Errno> {
        let name = text(table);
        let fill = |message: &mut Vec<u8>| put(message, nft::RULE_TABLE, &name);
        let answers = self.ask(nft::GET_RULE, nl::DUMP, nft::INET, fill)?;
        let of_table =
            |answer: &&Answer| attributes(&answer.body).get(nft::RULE_TABLE) == Some(name.as_slice());
        let rule = |answer: &Answer| Rule {
            chain: string(attributes(&answer.body).get(nft::RULE_CHAIN)),
            comment: attributes(&answer.body).get(nft::RULE_USERDATA).unwrap_or_default().to_vec(),
        };
        Ok(answers.iter().filter(of_table).map(rule).collect())
    }

    /// The ports in a set.
    pub(super) fn elements(&mut self, table: &str, set: &str) -> Result<Vec<u16>, Errno> {
        let (table, set) = (text(table), text(set));
        let answers = self.ask(nft::GET_ELEMENT, nl::DUMP, nft::INET, |message| {
            put(message, nft::LIST_TABLE, &table);
            put(message, nft::LIST_SET, &set);
        })?;
        Ok(answers.iter().flat_map(|answer| elements_of(&answer.body)).filter_map(port_of).collect())
    }

    /// Time left of a set's element; `None` when it is not there, or has no time-out.
    pub(super) fn expiration(
        &mut self,
        table: &str,
        set: &str,
        port: u16,
    ) -> Result<Option<Duration>, Errno> {
        let (table, set) = (text(table), text(set));
        let fill = |message: &mut Vec<u8>| element(message, &table, &set, port, None);
        let answers = match self.ask(nft::GET_ELEMENT, nl::ACK, nft::INET, fill) {
            Ok(answers) => answers,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = answers.iter().flat_map(|answer| elements_of(&answer.body)).next();
        let millis = found.and_then(|element| attributes(element).get(nft::ELEMENT_EXPIRATION));
        Ok(millis
            .and_then(|value| value.try_into().ok())
            .map(|bytes| Duration::from_millis(u64::from_be_bytes(bytes))))
    }

    /// Makes all `changes` or none. `generation` is what the ruleset must be at (zero for any).
    ///
    /// # Errors
    /// [`OTHER_GENERATION`], or the first change's error.
    pub(super) fn transact(&mut self, generation: u32, table: &str, changes: &[Change]) -> Result<(), Errno> {
        let mut batch = Vec::with_capacity(512);
        let begin = self.first_sequence();
        message(
            &mut batch,
            nft::BATCH_BEGIN,
            nl::REQUEST,
            begin,
            nft::UNSPECIFIED,
            nft::SUBSYSTEM,
            |message| {
                if generation != 0 {
                    put(message, nft::BATCH_GENERATION, &generation.to_be_bytes());
                }
            },
        );
        for change in changes {
            let sequence = self.next_sequence();
            change.write(&mut batch, table, sequence);
        }
        let end = self.next_sequence();
        message(&mut batch, nft::BATCH_END, nl::REQUEST, end, nft::UNSPECIFIED, nft::SUBSYSTEM, |_| {});
        self.send(&batch)?;
        self.acknowledged(begin, end)
    }

    /// Reads acknowledgements until the one of the last change (before `end`), or the first error.
    fn acknowledged(&mut self, begin: u32, end: u32) -> Result<(), Errno> {
        let mut first_error = None;
        loop {
            for answer in self.receive()? {
                if answer.kind != nl::ERROR || !(begin..end).contains(&answer.sequence) {
                    continue;
                }
                match error_of(&answer) {
                    // An error of the whole batch comes under the number of its beginning, and nothing follows.
                    Some(error) if answer.sequence == begin => return Err(error),
                    error => first_error = first_error.or(error),
                }
                if answer.sequence + 1 == end {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks for something and collects the answers.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<Answer>, Errno> {
        let sequence = self.first_sequence();
        let mut request = Vec::with_capacity(128);
        message(&mut request, kind, nl::REQUEST | flags, sequence, family, 0, fill);
        self.send(&request)?;
        let mut answers = Vec::new();
        loop {
            for answer in self.receive()?.into_iter().filter(|answer| answer.sequence == sequence) {
                if answer.flags & (nl::MULTI | nl::DUMP_INTERRUPTED) == nl::MULTI | nl::DUMP_INTERRUPTED {
                    return Err(Errno::INTR);
                }
                match answer.kind {
                    nl::DONE => return Ok(answers),
                    nl::ERROR => return error_of(&answer).map_or(Ok(answers), Err),
                    _ => answers.push(answer),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map(|_| ())
    }

    fn receive(&mut self) -> Result<Vec<Answer>, Errno> {
        let (count, _) = recv(&self.socket, &mut *self.buffer, RecvFlags::empty())?;
        Ok(split(&self.buffer[..count]))
    }

    fn first_sequence(&mut self) -> u32 {
        const LAST: u32 = u32::MAX / 2;
        if self.sequence > LAST {
            self.sequence = 0;
        }
        self.next_sequence()
    }

    /// Numbers within one exchange are consecutive: they start again long before the type ends.
    fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }
}

impl Change {
    fn write(&self, batch: &mut Vec<u8>, table: &str, sequence: u32) {
        let table = text(table);
        match self {
            Self::Add { set, port, timeout } => {
                let flags = nl::REQUEST | nl::CREATE | nl::ACK;
                message(batch, nft::NEW_ELEMENT, flags, sequence, nft::INET, 0, |message| {
                    element(message, &table, &text(set), *port, *timeout);
                });
            }
            Self::Delete { set, port } => {
                message(
                    batch,
                    nft::DELETE_ELEMENT,
                    nl::REQUEST | nl::ACK,
                    sequence,
                    nft::INET,
                    0,
                    |message| {
                        element(message, &table, &text(set), *port, None);
                    },
                );
            }
            Self::DeleteTable => {
                message(batch, nft::DELETE_TABLE, nl::REQUEST | nl::ACK, sequence, nft::INET, 0, |message| {
                    put(message, nft::TABLE_NAME, &table);
                });
            }
        }
    }
}

/// Appends a message: struct nlmsghdr, struct nfgenmsg, attributes.
fn message(
    batch: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let mut body = Vec::new();
    fill(&mut body);
    let length = u32::try_from(nl::HEADER + nft::HEADER + body.len()).unwrap_or(u32::MAX);
    batch.extend(length.to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(flags.to_ne_bytes());
    batch.extend(sequence.to_ne_bytes());
    // Our port number; the kernel fills it in.
    batch.extend([0; 4]);
    // Family, version 0, resource id in network order.
    batch.extend([family, 0]);
    batch.extend(resource.to_be_bytes());
    batch.extend(body);
}

/// The attributes that name one element of a set.
fn element(message: &mut Vec<u8>, table: &[u8], set: &[u8], port: u16, timeout: Option<Duration>) {
    put(message, nft::LIST_TABLE, table);
    put(message, nft::LIST_SET, set);
    nest(message, nft::LIST_ELEMENTS, |list| {
        nest(list, nft::LIST_ELEMENT, |element| {
            nest(element, nft::ELEMENT_KEY, |key| put(key, nft::DATA_VALUE, &port.to_be_bytes()));
            if let Some(timeout) = timeout {
                let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                put(element, nft::ELEMENT_TIMEOUT, &millis.to_be_bytes());
            }
        });
    });
}

/// Each element's attributes in an answer about a set.
fn elements_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = attributes(body).get(nft::LIST_ELEMENTS).unwrap_or_default();
    attributes(list).filter(|(kind, _)| *kind == nft::LIST_ELEMENT).map(|(_, value)| value)
}

fn port_of(element: &[u8]) -> Option<u16> {
    let key = attributes(element).get(nft::ELEMENT_KEY)?;
    let value = attributes(key).get(nft::DATA_VALUE)?;
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

/// Splits what was received into messages; stops at the first malformed one.
fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((answer, length)) = first_message(bytes) {
        answers.push(answer);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

fn first_message(bytes: &[u8]) -> Option<(Answer, usize)> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let payload = bytes.get(nl::HEADER..length)?;
    // Netlink's own messages have no nfgenmsg before their content.
    let skip = if matches!(kind, nl::ERROR | nl::DONE) { 0 } else { nft::HEADER };
    let body = payload.get(skip..)?.to_vec();
    Some((Answer { kind, flags, sequence, body }, length))
}

/// The error in an acknowledgement (struct nlmsgerr); `None` for success.
fn error_of(answer: &Answer) -> Option<Errno> {
    let code = i32::from_ne_bytes(answer.body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| Errno::from_raw_os_error(-code))
}

fn be32(value: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(value?.get(..4)?.try_into().ok()?))
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn string(value: Option<&[u8]>) -> String {
    let value = value.unwrap_or_default();
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_with_a_time_out_is_laid_out_as_the_kernel_reads_it() {
        let mut batch = Vec::new();
        let change = Change::Add { set: "open", port: 5432, timeout: Some(Duration::from_millis(2000)) };
        change.write(&mut batch, "gate", 7);
        let (parsed, length) = first_message(&batch).unwrap();
        assert_eq!(length, batch.len());
        assert_eq!((parsed.kind, parsed.sequence), (0x0a0c, 7));
        let element = elements_of(&parsed.body).next().unwrap();
        assert_eq!(port_of(element), Some(5432));
        assert_eq!(attributes(element).get(nft::ELEMENT_TIMEOUT), Some(&2000_u64.to_be_bytes()[..]));
        assert_eq!(attributes(&parsed.body).get(nft::LIST_TABLE), Some(&b"gate\0"[..]));
    }

    #[test]
    fn malformed_answers_end_the_reading() {
        assert!(split(&[1, 2, 3]).is_empty());
        assert!(split(&200_u32.to_ne_bytes()).is_empty());
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[255, 255, 1, 0]).count(), 0);
    }

    #[test]
    fn generations_skip_zero() {
        assert_eq!((after(1), after(u32::MAX)), (2, 1));
    }
}
