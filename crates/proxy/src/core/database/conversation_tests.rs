//! Conversations as PostgreSQL and its clients have them.

use proptest::prelude::*;

use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![kind];
    all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    all.extend(body);
    all
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn started() -> Conversation {
    let mut talk = Conversation::plain();
    talk.server_sent(&[message(b'R', &[0, 0, 0, 0]), message(b'S', b"a\0b\0"), ready(b'I')].concat());
    talk
}

#[test]
fn a_session_is_idle_between_transactions_only() {
    let mut talk = started();
    assert!(talk.is_idle());
    talk.client_sent(&message(b'Q', b"begin\0"));
    assert!(!talk.is_idle());
    talk.server_sent(&[message(b'C', b"BEGIN\0"), ready(b'T')].concat());
    assert!(!talk.is_idle(), "idle in a transaction");
    talk.client_sent(&message(b'Q', b"commit\0"));
    talk.server_sent(&[message(b'C', b"COMMIT\0"), ready(b'I')].concat());
    assert!(talk.is_idle());
}

#[test]
fn authentication_is_not_idle_and_its_answers_do_not_disturb() {
    let mut talk = Conversation::plain();
    assert!(!talk.is_idle());
    talk.server_sent(&message(b'R', &[0, 0, 0, 3]));
    talk.client_sent(&message(b'p', b"secret\0"));
    talk.server_sent(&[message(b'R', &[0, 0, 0, 0]), ready(b'I')].concat());
    assert!(talk.is_idle());
}

#[test]
fn the_gap_between_two_pipelined_queries_is_not_idle() {
    let mut talk = started();
    talk.client_sent(&[message(b'Q', b"select 1\0"), message(b'Q', b"select pg_sleep(9)\0")].concat());
    talk.server_sent(&[message(b'C', b"SELECT 1\0"), ready(b'I')].concat());
    assert!(!talk.is_idle());
    talk.server_sent(&[message(b'C', b"SELECT 1\0"), ready(b'I')].concat());
    assert!(talk.is_idle());
}

#[test]
fn work_without_a_sync_is_not_idle() {
    let mut talk = started();
    talk.client_sent(&[message(b'P', b"\0\0\0\0"), message(b'H', b"")].concat());
    talk.server_sent(&message(b'1', b""));
    assert!(!talk.is_idle());
    talk.client_sent(&message(b'S', b""));
    talk.server_sent(&ready(b'I'));
    assert!(talk.is_idle());
}

#[test]
fn a_row_that_looks_like_an_answer_is_not_one() {
    let mut talk = started();
    talk.client_sent(&message(b'Q', b"select\0"));
    talk.server_sent(&message(b'D', &[0, 1, 0, 0, 0, 6, b'Z', 0, 0, 0, 5, b'I']));
    assert!(!talk.is_idle());
}

#[test]
fn half_a_message_from_the_client_is_not_idle() {
    let mut talk = started();
    talk.client_sent(b"Q\0\0");
    assert!(!talk.is_idle());
}

#[test]
fn copy_by_the_simple_protocol_ends_idle() {
    let mut talk = started();
    talk.client_sent(&message(b'Q', b"copy t from stdin\0"));
    talk.server_sent(&message(b'G', &[0, 0, 0]));
    talk.client_sent(&[message(b'd', b"1\n"), message(b'c', b"")].concat());
    assert!(!talk.is_idle());
    talk.server_sent(&[message(b'C', b"COPY 1\0"), ready(b'I')].concat());
    assert!(talk.is_idle());
}

#[test]
fn copy_by_the_extended_protocol_ends_idle() {
    let mut talk = started();
    talk.client_sent(
        &[message(b'P', b"\0copy\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat(),
    );
    talk.server_sent(&message(b'G', &[0, 0, 0]));
    talk.client_sent(&[message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat());
    assert!(!talk.is_idle());
    talk.server_sent(&[message(b'C', b"COPY 1\0"), ready(b'I')].concat());
    assert!(talk.is_idle());
}

#[test]
fn encryption_ends_the_following_and_its_refusal_does_not() {
    let mut talk = Conversation::asked_for_encryption();
    talk.server_sent(b"N");
    talk.client_sent(&[0, 0, 0, 8, 4, 210, 22, 47]);
    talk.server_sent(b"N");
    talk.client_sent(&[0, 0, 0, 10, 0, 3, 0, 0, b'x', 0]);
    talk.server_sent(&ready(b'I'));
    assert!(talk.is_idle());

    let mut talk = Conversation::asked_for_encryption();
    talk.server_sent(b"S");
    talk.server_sent(&ready(b'I'));
    assert!(!talk.is_idle() && !talk.at_boundary());
}

#[test]
fn an_impossible_length_ends_the_following() {
    let mut talk = started();
    talk.server_sent(&[b'D', 0, 0, 0, 3]);
    talk.server_sent(&ready(b'I'));
    assert!(!talk.is_idle());
}

proptest! {
    /// However the network cuts the bytes, the judgement at the end is the same.
    #[test]
    fn cuts_do_not_matter(
        bodies in proptest::collection::vec((prop_oneof![Just(b'D'), Just(b'T'), Just(b'C'), Just(b'Z')],
            proptest::collection::vec(any::<u8>(), 1..40)), 1..20),
        cut in 1_usize..17,
    ) {
        let stream: Vec<u8> = bodies.iter()
            .flat_map(|(kind, body)| if *kind == b'Z' { ready(b"IT"[usize::from(body[0] & 1)]) } else { message(*kind, body) })
            .collect();
        let mut whole = started();
        whole.client_sent(&message(b'Q', b"\0"));
        let mut pieces = started();
        pieces.client_sent(&message(b'Q', b"\0"));
        whole.server_sent(&stream);
        stream.chunks(cut).for_each(|piece| pieces.server_sent(piece));
        prop_assert_eq!(whole.is_idle(), pieces.is_idle());
        prop_assert!(whole.at_boundary() && pieces.at_boundary());
    }

    /// Any bytes from anyone: no panic.
    #[test]
    fn strangers_do_no_harm(turns in proptest::collection::vec(
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..30)), 0..40), encrypted in any::<bool>(),
    ) {
        let mut talk = if encrypted { Conversation::asked_for_encryption() } else { Conversation::plain() };
        for (client, bytes) in turns {
            if client { talk.client_sent(&bytes) } else { talk.server_sent(&bytes) }
            let _ = talk.is_idle();
        }
    }
}
