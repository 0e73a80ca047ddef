//! The kinds of values a key can take.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::duration::{self, DurationError};
use super::super::nearest::nearest;
use super::super::problem::Code;
use super::super::{Availability, JobSchedule, Listen, PortRange, Protocol, Role, Schedule, size};
use super::{At, Read, Reader, quoted};

/// A whole number; each key checks its own range.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Number(pub(in super::super) i64);

/// A length of time, such as `"5s"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct HumanDuration(pub(in super::super) Duration);

/// A part of time, such as `"99.99%"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Percent(pub(in super::super) Availability);

/// The IPv4 or IPv6 address of one machine.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Address(pub(in super::super) IpAddr);

/// The value of a PostgreSQL setting: a text, a number, or true or false.
#[derive(Clone, Debug)]
pub(in super::super) struct Setting(pub(in super::super) String);

/// One text or a list of texts.
#[derive(Clone, Debug)]
pub(in super::super) struct Texts(pub(in super::super) Vec<At<String>>);

/// Where a route listens: `":8080"`, `"10.0.1.11:8080"` or `"[fd00::1]:8080"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Endpoint(pub(in super::super) Listen);

/// Ports from the first to the last: `"20000-20099"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Ports(pub(in super::super) PortRange);

/// When a backup is taken: `"hourly"`, `"daily 03:00"`, `"weekly sunday 03:00"`; in UTC.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Times(pub(in super::super) Schedule);

/// When a job is due: as [`Times`], or `"every 5m"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct DueTimes(pub(in super::super) JobSchedule);

/// An amount of memory in bytes: `"512MiB"`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Memory(pub(in super::super) u64);

/// A database engine.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum EngineWord {
    Postgres,
}

/// What an acknowledged write is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum DurabilityWord {
    ZeroLoss,
    Async,
}

/// What instances speak.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct ProtocolWord(pub(in super::super) Protocol);

/// Which members a route leads to.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RoleWord(pub(in super::super) Role);

const ENGINES: [(&str, EngineWord); 1] = [("postgres", EngineWord::Postgres)];
const DURABILITIES: [(&str, DurabilityWord); 2] =
    [("zero-loss", DurabilityWord::ZeroLoss), ("async", DurabilityWord::Async)];
const PROTOCOLS: [(&str, ProtocolWord); 3] = [
    ("http", ProtocolWord(Protocol::Http)),
    ("h2", ProtocolWord(Protocol::H2)),
    ("tcp", ProtocolWord(Protocol::Tcp)),
];
const ROLES: [(&str, RoleWord); 3] = [
    ("primary", RoleWord(Role::Primary)),
    ("standby", RoleWord(Role::Standby)),
    ("any", RoleWord(Role::Any)),
];

impl Reader<'_, '_> {
    /// `value` as a text.
    fn text<'v>(&mut self, expected: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(expected, value);
            return None;
        };
        Some(text)
    }

    /// `value` as one of `words`.
    fn word<T: Copy>(
        &mut self,
        expected: &str,
        code: Code,
        words: &[(&str, T)],
        value: &Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let text = self.text(expected, value)?;
        if let Some((_, word)) = words.iter().find(|(name, _)| *name == text) {
            return Some(*word);
        }
        let path = self.path_to("");
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let meant = quoted(nearest(text, names.iter().copied()).unwrap_or(names[0]));
        let paste = self.findings.line_with(&value.span(), &meant);
        self.findings
            .error(code, &value.span(), format!("`{path}` is {}, which does not exist", quoted(text)))
            .why(format!("it takes {}", names.join(", ")))
            .paste("write", paste);
        None
    }

    /// Reports a text of the wrong form.
    pub(super) fn malformed(
        &mut self,
        code: Code,
        value: &Spanned<DeValue<'_>>,
        noun: &str,
        why: &str,
        better: &str,
    ) {
        let path = self.path_to("");
        let source = self.source(&value.span());
        let paste = self.findings.line_with(&value.span(), &quoted(better));
        self.findings
            .error(code, &value.span(), format!("`{path}` = {source} is not {noun}"))
            .why(why)
            .paste("write for example", paste);
    }
}

impl Read for String {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        reader.text(Self::EXPECTED, value).map(str::to_owned)
    }
}

impl Read for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::Boolean(boolean) = value.get_ref() else {
            reader.wrong_type(Self::EXPECTED, value);
            return None;
        };
        Some(*boolean)
    }
}

impl Read for Number {
    const EXPECTED: &'static str = "a whole number";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            reader.wrong_type(Self::EXPECTED, value);
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Some(Self(number)),
            Err(_) => {
                let path = reader.path_to("");
                reader
                    .findings
                    .error(Code::InvalidNumber, &value.span(), format!("`{path}` is too large a number"))
                    .why("TOML numbers have 64 bits");
                None
            }
        }
    }
}

impl Read for HumanDuration {
    const EXPECTED: &'static str = "a duration";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        match duration::parse(text) {
            Ok(duration) => Some(Self(duration)),
            Err(error) => {
                let better = match &error {
                    DurationError::NoUnit(number) => format!("{number}s"),
                    DurationError::Negative => text.trim_start_matches('-').to_owned(),
                    DurationError::Empty
                    | DurationError::UnknownUnit(_)
                    | DurationError::NoNumber(_)
                    | DurationError::TooLong => "5s".to_owned(),
                };
                let better = if duration::parse(&better).is_ok() { better } else { "5s".to_owned() };
                let why = format!("{error}; a duration is whole numbers with the units ms, s, m, h, d, w");
                reader.malformed(Code::InvalidDuration, value, Self::EXPECTED, &why, &better);
                None
            }
        }
    }
}

impl Read for Percent {
    const EXPECTED: &'static str = "an availability";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        match text.parse() {
            Ok(availability) => Some(Self(availability)),
            Err(error) => {
                let with_sign = format!("{}%", text.trim());
                let better =
                    if with_sign.parse::<Availability>().is_ok() { with_sign } else { "99.99%".to_owned() };
                reader.malformed(
                    Code::InvalidAvailability,
                    value,
                    Self::EXPECTED,
                    &error.to_string(),
                    &better,
                );
                None
            }
        }
    }
}

impl Read for Address {
    const EXPECTED: &'static str = "a text with an IP address";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        match address(text) {
            Ok(address) => Some(Self(address)),
            Err((why, better)) => {
                let better = better.unwrap_or("10.0.1.11".to_owned());
                reader.malformed(Code::InvalidAddress, value, "the address of a machine", why, &better);
                None
            }
        }
    }
}

/// The address in `text`, or why there is none and what may have been meant.
fn address(text: &str) -> Result<IpAddr, (&'static str, Option<String>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        return if address.is_unspecified() || address.is_multicast() || broadcast {
            Err(("no single machine has this address", None))
        } else {
            Ok(address)
        };
    }
    if let Ok(with_port) = text.parse::<std::net::SocketAddr>() {
        return Err(("the port does not belong here", Some(with_port.ip().to_string())));
    }
    match text.split_once('/').map(|(before, _)| before) {
        Some(before) if before.parse::<IpAddr>().is_ok() => {
            Err(("the length of the network does not belong here", Some(before.to_owned())))
        }
        Some(_) | None => Err((
            "it must be an IPv4 or IPv6 address: names are not resolved, so that no repair waits for a name server",
            None,
        )),
    }
}

impl Read for Setting {
    const EXPECTED: &'static str = "a text, a number, or true or false";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self(text.to_string())),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(Self(integer.as_str().to_owned())),
            DeValue::Float(float) => Some(Self(float.as_str().to_owned())),
            DeValue::Boolean(true) => Some(Self("on".to_owned())),
            DeValue::Boolean(false) => Some(Self("off".to_owned())),
            DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                reader.wrong_type(Self::EXPECTED, value);
                None
            }
        }
    }
}

impl Read for Texts {
    const EXPECTED: &'static str = "a text or a list of texts";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self(vec![At { value: text.to_string(), span: value.span() }])),
            DeValue::Array(_) => Vec::read(value, reader).map(Self),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                reader.wrong_type(Self::EXPECTED, value);
                None
            }
        }
    }
}

impl Read for Endpoint {
    const EXPECTED: &'static str = "a text with a port";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = match value.get_ref() {
            // A bare number can only mean the port.
            DeValue::Integer(port) => format!(":{}", port.as_str()),
            DeValue::String(text) => text.to_string(),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => String::new(),
        };
        let listen = listen(&text);
        if let (DeValue::String(_), Some(listen)) = (value.get_ref(), listen) {
            return Some(Self(listen));
        }
        let better = listen.map_or(":8080".to_owned(), |l| l.to_string());
        let why = "it must be `:PORT` for every address of a node, or `ADDRESS:PORT`; ports are 1 to 65535";
        reader.malformed(Code::InvalidListen, value, "a place to listen", why, &better);
        None
    }
}

fn listen(text: &str) -> Option<Listen> {
    let (address, port) = match text.strip_prefix(':') {
        Some(port) => (None, port.parse().ok()?),
        None => {
            let socket: std::net::SocketAddr = text.parse().ok()?;
            let address = (!socket.ip().is_unspecified()).then_some(socket.ip());
            (address, socket.port())
        }
    };
    (port != 0).then_some(Listen { address, port })
}

impl Read for Ports {
    const EXPECTED: &'static str = "a text with a range of ports";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        let range = text.split_once('-').and_then(|(first, last)| {
            let range = PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
            (range.first != 0 && range.first <= range.last).then_some(range)
        });
        if range.is_none() {
            let why = "it must be `FIRST-LAST` with ports from 1 to 65535, the lower one first";
            reader.malformed(Code::InvalidPorts, value, "a range of ports", why, "20000-20099");
        }
        range.map(Self)
    }
}

impl Read for Times {
    const EXPECTED: &'static str = "a text with a schedule";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        match text.parse() {
            Ok(schedule) => Some(Self(schedule)),
            Err(error) => {
                let error: super::super::operations::ScheduleError = error;
                reader.malformed(
                    Code::InvalidSchedule,
                    value,
                    "a schedule",
                    &error.to_string(),
                    "daily 03:00",
                );
                None
            }
        }
    }
}

impl Read for DueTimes {
    const EXPECTED: &'static str = "a text with a schedule";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        let read: Result<JobSchedule, _> = text.parse();
        read.map_err(|error| {
            let (code, why) = (Code::InvalidSchedule, error.to_string());
            reader.malformed(code, value, "a schedule of a job", &why, "every 5m");
        })
        .ok()
        .map(Self)
    }
}

impl Read for Memory {
    const EXPECTED: &'static str = "a text with an amount of memory";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let text = reader.text(Self::EXPECTED, value)?;
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        size::parse(text)
            .map_err(|error| {
                let better = format!("{digits}MiB");
                let better = if size::parse(&better).is_ok() { &better } else { "512MiB" };
                reader.malformed(Code::InvalidSize, value, "an amount of memory", &error.to_string(), better);
            })
            .ok()
            .map(Self)
    }
}

impl Read for EngineWord {
    const EXPECTED: &'static str = "a text with the name of an engine";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        reader.word(Self::EXPECTED, Code::UnknownEngine, &ENGINES, value)
    }
}

impl Read for DurabilityWord {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        reader.word(Self::EXPECTED, Code::UnknownWord, &DURABILITIES, value)
    }
}

impl Read for ProtocolWord {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        reader.word(Self::EXPECTED, Code::UnknownWord, &PROTOCOLS, value)
    }
}

impl Read for RoleWord {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        reader.word(Self::EXPECTED, Code::UnknownWord, &ROLES, value)
    }
}

/// Gives a kind of value its JSON schema; all are short enough to stand where they are used.
macro_rules! schemas {
    ($($name:ident $schema:tt,)*) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schemas! {
    Number { "type": "integer" },
    HumanDuration { "type": "string", "format": "duration in words", "pattern": "^( *[0-9]+ *(ms|s|m|h|d|w))+ *$" },
    Percent { "type": "string", "format": "percentage", "pattern": "^[0-9]+(\\.[0-9]{1,7})? *%$" },
    Address { "type": "string", "format": "IP address", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] },
    Setting { "type": ["string", "number", "boolean"] },
    Texts { "type": ["string", "array"], "items": { "type": "string" } },
    Endpoint { "type": "string", "format": "address and port", "pattern": "^.*:[0-9]{1,5}$" },
    Ports { "type": "string", "format": "range of ports", "pattern": "^ *[0-9]{1,5} *- *[0-9]{1,5} *$" },
    DueTimes { "type": "string", "format": "schedule", "pattern": "^(every .+|hourly|daily [0-9]{2}:[0-9]{2}|weekly [a-z]+ [0-9]{2}:[0-9]{2})$" },
    Memory { "type": "string", "format": "amount of memory", "pattern": "^ *[0-9]+ *[KMGT]iB *$" },
    Times { "type": "string", "format": "schedule", "pattern": "^(hourly|daily [0-9]{2}:[0-9]{2}|weekly [a-z]+ [0-9]{2}:[0-9]{2})$" },
    EngineWord { "enum": ["postgres"] },
    DurabilityWord { "enum": ["zero-loss", "async"] },
    ProtocolWord { "enum": ["http", "h2", "tcp"] },
    RoleWord { "enum": ["primary", "standby", "any"] },
}
