//! Reads the raw bytes of a client's connection only for what an HTTP parser silently puts right and what would let two
//! readers disagree about where a request ends.
//!
//! hyper follows RFC 9112 section 6.3 and drops the `Content-Length` beside a `Transfer-Encoding`, or a second equal one,
//! before anyone can see it. The RFC advises to treat such a request as an attack; so they are found here.

/// The most bytes a head may have.
const HEAD_MOST: u32 = 64 << 10;
/// Long enough for the names and values that matter.
const WORD_MOST: usize = 24;
const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
const UPGRADE: &[u8] = b"upgrade";

/// Where a client's byte stream stands.
#[derive(Debug, Default)]
pub struct Scan {
    place: Place,
    head: Head,
}

/// A byte at this place of the input makes the request unacceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacceptable {
    /// The place.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing of the next request has come.
    #[default]
    Between,
    /// In the first line.
    RequestLine,
    /// In a header's name, or at the empty line.
    Name,
    /// In a header's value.
    Value,
    /// In a body with this many bytes to come.
    Body(u64),
    /// In the size of a chunk.
    ChunkSize(u64),
    /// In what follows a chunk's size, up to the end of the line.
    ChunkExtension(u64),
    /// In a chunk with this many bytes to come, its line end included.
    Chunk(u64),
    /// At the begin of a line after the last chunk.
    TrailerStart,
    /// In such a line.
    Trailer,
    /// After an upgrade or something not understood: another protocol, or the parser's own business.
    Blind,
}

/// What is known of the head being read.
#[derive(Debug, Default)]
struct Head {
    bytes: u32,
    word: Word,
    field: Field,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Which header's value is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    Length,
    Encoding,
    #[default]
    Other,
}

/// The first bytes of a name or value, in lower case.
#[derive(Debug, Default)]
struct Word {
    bytes: [u8; WORD_MOST],
    length: usize,
}

impl Scan {
    /// Reads on. After an error the connection is to be given up.
    pub fn read(&mut self, input: &[u8]) -> Result<(), Unacceptable> {
        let mut at = 0;
        while at < input.len() {
            at += match self.place {
                Place::Blind => return Ok(()),
                Place::Body(left) => self.skip(left, input.len() - at, Place::Body, Place::Between),
                Place::Chunk(left) => self.skip(left, input.len() - at, Place::Chunk, Place::ChunkSize(0)),
                Place::Between | Place::RequestLine | Place::Name | Place::Value => {
                    self.read_head(input[at]).map_err(|()| Unacceptable { at })?;
                    1
                }
                Place::ChunkSize(_) | Place::ChunkExtension(_) | Place::TrailerStart | Place::Trailer => {
                    self.read_chunk_line(input[at]);
                    1
                }
            };
        }
        Ok(())
    }

    /// Whether a head has begun and not ended.
    pub fn is_in_head(&self) -> bool {
        matches!(self.place, Place::RequestLine | Place::Name | Place::Value)
    }

    /// Whether all requests that have begun have been read to their ends.
    pub fn is_between(&self) -> bool {
        self.place == Place::Between && self.head.bytes == 0
    }

    /// Passes over bytes of a body, of which `left` are to come and `here` have; returns how many.
    fn skip(&mut self, left: u64, here: usize, within: fn(u64) -> Place, after: Place) -> usize {
        let step = left.min(here as u64);
        let rest = left - step;
        self.place = if rest == 0 { after } else { within(rest) };
        usize::try_from(step).unwrap_or(here)
    }

    fn read_head(&mut self, byte: u8) -> Result<(), ()> {
        self.head.bytes += 1;
        if self.head.bytes > HEAD_MOST {
            return Err(());
        }
        match (self.place, byte) {
            // Empty lines before a request are allowed (RFC 9112 section 2.2).
            (Place::Between, b'\r' | b'\n') => {}
            (Place::Between, _) => self.place = Place::RequestLine,
            (Place::RequestLine, b'\n') => self.begin_line(),
            (Place::Name, b'\n') => return self.end_head(),
            (Place::Name, b':') => self.begin_value(),
            (Place::Value, b'\n') => self.end_value()?,
            (Place::Name | Place::Value, _) => self.head.word.push(byte),
            (Place::RequestLine | Place::Body(_) | Place::ChunkSize(_) | Place::ChunkExtension(_), _)
            | (Place::Chunk(_) | Place::TrailerStart | Place::Trailer | Place::Blind, _) => {}
        }
        Ok(())
    }

    fn begin_line(&mut self) {
        self.head.word.clear();
        self.place = Place::Name;
    }

    fn begin_value(&mut self) {
        let name = self.head.word.as_bytes();
        self.head.field = match name {
            LENGTH => Field::Length,
            ENCODING => Field::Encoding,
            _ => Field::Other,
        };
        self.head.upgrade |= name == UPGRADE;
        self.head.word.clear();
        self.place = Place::Value;
    }

    fn end_value(&mut self) -> Result<(), ()> {
        let value = self.head.word.as_bytes().trim_ascii();
        match self.head.field {
            Field::Other => {}
            Field::Length if self.head.length.is_some() || self.head.chunked => return Err(()),
            Field::Length => self.head.length = Some(number(value)?),
            Field::Encoding if self.head.length.is_some() || self.head.chunked => return Err(()),
            Field::Encoding if value == b"chunked" => self.head.chunked = true,
            Field::Encoding => return Err(()),
        }
        self.begin_line();
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), ()> {
        let Head { length, chunked, upgrade, word, .. } = std::mem::take(&mut self.head);
        if !matches!(word.as_bytes(), b"" | b"\r") {
            return Err(()); // A line without a colon.
        }
        self.place = match (upgrade, chunked, length) {
            (true, ..) => Place::Blind,
            (false, true, _) => Place::ChunkSize(0),
            (false, false, Some(length)) if length > 0 => Place::Body(length),
            (false, false, _) => Place::Between,
        };
        Ok(())
    }

    fn read_chunk_line(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::ChunkSize(size) | Place::ChunkExtension(size), b'\n') if size > 0 => {
                Place::Chunk(size.saturating_add(2))
            }
            (Place::ChunkSize(_) | Place::ChunkExtension(_), b'\n') => Place::TrailerStart,
            (Place::ChunkSize(size), digit) => match char::from(digit).to_digit(16) {
                Some(digit) if size < 1 << 58 => Place::ChunkSize(size * 16 + u64::from(digit)),
                Some(_) => Place::Blind,
                None => Place::ChunkExtension(size),
            },
            (Place::TrailerStart, b'\n') => Place::Between,
            (Place::TrailerStart, b'\r') => Place::TrailerStart,
            (Place::TrailerStart, _) => Place::Trailer,
            (Place::Trailer, b'\n') => Place::TrailerStart,
            (Place::Trailer, _) => Place::Trailer,
            (Place::ChunkExtension(size), _) => Place::ChunkExtension(size),
            (Place::Between | Place::RequestLine | Place::Name | Place::Value, _)
            | (Place::Body(_) | Place::Chunk(_) | Place::Blind, _) => self.place,
        };
    }
}

impl Word {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        // One too long is no word that matters; it must not look like one by being cut.
        self.length = (self.length + 1).min(WORD_MOST + 1);
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(b"?")
    }

    fn clear(&mut self) {
        self.length = 0;
    }
}

fn number(value: &[u8]) -> Result<u64, ()> {
    let text = std::str::from_utf8(value).map_err(drop)?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().map_err(drop) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(input: &str) -> Result<Scan, Unacceptable> {
        let mut scan = Scan::default();
        scan.read(input.as_bytes()).map(|()| scan)
    }

    const GOOD: [&str; 6] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 11 \r\nHost: a\r\n\r\nhello\r\n\r\n: ",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:Chunked\r\n\r\n5;x=y\r\nab\r\nc\r\n0\r\nA: b\r\n\r\n",
        "\r\n\nGET / HTTP/1.0\nHost: a\n\n",
        "DELETE / HTTP/1.1\r\nContent-Length: 0\r\nX-Content-Length-And-More-Than-24: x\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n00\r\n\r\n",
    ];

    #[test]
    fn requests_end_where_they_end() {
        for request in GOOD {
            let scan = scan(request).unwrap();
            assert_eq!(scan.place, Place::Between, "{request:?}");
            assert!(!scan.is_in_head());
        }
        assert_eq!(scan(&GOOD.concat()).unwrap().place, Place::Between);
        assert!(scan("GET / HT").unwrap().is_in_head());
        assert_eq!(scan("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\0\0").unwrap().place, Place::Blind);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_unacceptable() {
        for lines in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "content-length: 4\r\nCONTENT-LENGTH: 4\r\n",
            "Content-Length: 4, 4\r\n",
            "Content-Length: 0x4\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, and then something long\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(scan(&format!("POST / HTTP/1.1\r\n{lines}")).is_err(), "{lines:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(70_000));
        assert_eq!(scan(&long).unwrap_err(), Unacceptable { at: HEAD_MOST as usize });
    }

    proptest! {
        /// However the network cuts requests, the judgement is the same.
        #[test]
        fn cuts_do_not_matter(order in proptest::collection::vec(0_usize..6, 1..10), cut in 1_usize..30) {
            let stream: String = order.into_iter().map(|place| GOOD[place]).collect();
            let mut scan = Scan::default();
            for piece in stream.as_bytes().chunks(cut) {
                prop_assert!(scan.read(piece).is_ok());
            }
            prop_assert_eq!(scan.place, Place::Between);
        }

        /// Any bytes: no panic, and an error lies within the input.
        #[test]
        fn strangers_do_no_harm(pieces in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..40),
            "(POST / HTTP/1.1|Content-Length: [0-9]{1,22}|Transfer-Encoding: chunked|[0-9a-f]{1,18})?\r?\n".prop_map(String::into_bytes),
        ], 0..30)) {
            let mut scan = Scan::default();
            for piece in pieces {
                if let Err(Unacceptable { at }) = scan.read(&piece) {
                    prop_assert!(at < piece.len());
                    break;
                }
            }
        }
    }
}
