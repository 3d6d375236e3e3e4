//! However few bytes each send accepts: frames arrive whole and in order, control frames only between them.

use rfc6455::decoder::{Decoder, Piece, Rules};
use rfc6455::header::Masking;

use super::*;

/// A socket that accepts these numbers of bytes in turn; 0: EAGAIN.
struct Kernel<'a> {
    takes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    taken: Vec<u8>,
    calls: usize,
}

impl<'a> Kernel<'a> {
    fn new(takes: &'a [usize]) -> Kernel<'a> {
        Kernel { takes: takes.iter().cycle(), taken: Vec::new(), calls: 0 }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        assert!(parts.iter().any(|part| !part.is_empty()), "nothing is sent");
        self.calls += 1;
        match *self.takes.next().unwrap() {
            0 => Err(Errno::EAGAIN),
            size => {
                let before = self.taken.len();
                self.taken.extend(parts.iter().flat_map(|part| part.iter()).take(size));
                Ok(self.taken.len() - before)
            }
        }
    }

    /// The frames as a client decodes them.
    fn heard(&self) -> Vec<String> {
        let (rules, mut decoder) = (Rules::unlimited(Masking::Forbidden), Decoder::default());
        let (mut bytes, mut at, mut heard) = (self.taken.clone(), 0, Vec::new());
        let end = bytes.len();
        while let Some(piece) = decoder.next(&rules, &mut bytes, &mut at, end).unwrap() {
            heard.push(match piece {
                Piece::Data(data) => match (data.opcode, std::str::from_utf8(&bytes[data.range.clone()])) {
                    (Opcode::Text, Ok(text)) => format!("Text {text}"),
                    (opcode, _) => format!("{opcode:?} {}", bytes[data.range].escape_ascii()),
                },
                control => format!("{control:?}"),
            });
        }
        assert!(decoder.is_between_messages(), "a frame is not whole after {heard:?}");
        heard
    }
}

const TAKES: [&[usize]; 12] = [
    &[usize::MAX],
    &[1],
    &[2],
    &[3],
    &[1, 0],
    &[0, 1],
    &[0, 2, 7],
    &[3, 0, 0, 1],
    &[5, 1],
    &[4, 0],
    &[200, 0, 1, 0],
    &[0, 130, 3],
];

fn wait(result: Result<(), Errno>) -> bool {
    match result {
        Ok(()) => false,
        Err(Errno::EAGAIN) => true,
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn a_stream_that_repeats_the_unsent_bytes() {
    let texts = ["a".to_owned(), "hello".repeat(30), "".to_owned(), "b".repeat(70_000), "c".to_owned()];
    for takes in TAKES {
        let (mut kernel, mut outgoing) = (Kernel::new(takes), Outgoing::new());
        let mut answered = 0;
        for text in &texts {
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let (one, two) = rest.split_at(rest.len() / 3);
                let parts = [IoSlice::new(one), IoSlice::new(two)];
                match outgoing.write(WriteType::Text, &parts, |parts| kernel.send(parts)) {
                    Ok(0) => panic!("nothing was taken"),
                    Ok(taken) => rest = &rest[taken..],
                    Err(errno) => assert_eq!(errno, Errno::EAGAIN),
                }
                assert!(outgoing.kept_size() < 300, "{takes:?}");
                if answered < 4 && outgoing.owed_size() > 0 {
                    outgoing.pong(b"one");
                    outgoing.pong(b"two");
                    answered += 2;
                }
            }
        }
        outgoing.close(Some(CloseCode::NORMAL), "");
        while wait(outgoing.flush(|parts| kernel.send(parts))) {}
        assert!(!outgoing.wants_to_write());
        let mut heard = kernel.heard();
        let pongs = heard.iter().filter(|one| *one == "Pong").count();
        assert_eq!(pongs, answered, "{takes:?}");
        heard.retain(|one| one != "Pong");
        let mut expected: Vec<String> =
            texts.iter().filter(|text| !text.is_empty()).map(|text| format!("Text {text}")).collect();
        expected.push("Close(Some(CloseCode(1000)), \"\")".to_owned());
        assert_eq!(heard, expected, "{takes:?}");
    }
}

#[test]
fn a_stream_completes_an_announced_message() {
    let mut outgoing = Outgoing::new();
    let mut kernel = Kernel::new(&[4, 0, usize::MAX]);
    let mut write =
        |bytes: &[u8]| outgoing.write(WriteType::Binary, &[IoSlice::new(bytes)], |parts| kernel.send(parts));
    assert_eq!(write(b"12345"), Ok(2));
    assert_eq!(write(b"345"), Err(Errno::EAGAIN));
    assert_eq!(write(b"345678"), Ok(6), "the end of one and another, in one call");
    assert_eq!(kernel.calls, 3);
    assert_eq!(kernel.heard(), ["Binary 12345", "Binary 678"]);
}

#[test]
fn a_stream_whose_header_alone_was_taken() {
    for (takes, expected) in [(&[1, 0, 1, 1, 99][..], "Text ab"), (&[2, 0, 1, 99], "Text ab")] {
        let (mut kernel, mut outgoing) = (Kernel::new(takes), Outgoing::new());
        let mut write =
            |bytes: &[u8]| outgoing.write(WriteType::Text, &[IoSlice::new(bytes)], |parts| kernel.send(parts));
        assert_eq!(write(b"ab"), Err(Errno::EAGAIN));
        assert_eq!(write(b"ab"), Ok(1));
        assert_eq!(write(b"b"), Ok(1));
        assert_eq!(kernel.heard(), [expected]);
    }
}

/// A server's writes, and the messages its client receives, however few bytes each send accepts.
#[test]
fn each_write_has_an_opcode_and_a_split_character_waits() {
    use WriteType::{Auto, Binary, Text, UncheckedText};
    type Row = (WriteType, &'static [&'static [u8]], &'static [&'static str]);
    let table: &[Row] = &[
        (Auto, &[b"text", b"\xff", b"gr\xc3\xbcn"], &["Text text", r"Binary \xff", "Text gr\u{fc}n"]),
        (Auto, &[b"gr\xc3", b"\xbcn"], &["Text gr", "Text \u{fc}n"]),
        (Auto, &[b"\xe2", b"\x82", b"\xac"], &["Text \u{20ac}"]),
        (Auto, &[b"a\xe2\x82", b"\xac\xe2", b"\x82\xac"], &["Text a", "Text \u{20ac}", "Text \u{20ac}"]),
        (Auto, &[b"gr\xc3", b"n"], &["Text gr", r"Binary \xc3n"]),
        (Auto, &[b"gr\xc3"], &["Text gr", r"Binary \xc3"]),
        (Auto, &[b"\xf0\x9f\x98"], &[r"Binary \xf0\x9f\x98"]),
        (Text, &[b"gr\xc3", b"\xbcn"], &["Text gr", "Text \u{fc}n"]),
        (Text, &[b"gr\xc3"], &["Text gr", r"Binary \xc3"]),
        (Text, &[b"good", b"ba\xffd", b"good"], &["Text good", "EILSEQ", "Text good"]),
        (Binary, &[b"text", b"gr\xc3"], &["Binary text", r"Binary gr\xc3"]),
        (UncheckedText, &[b"a", b"b"], &["Text a", "Text b"]),
    ];
    for takes in TAKES {
        for (kind, writes, expected) in table {
            let (mut kernel, mut outgoing) = (Kernel::new(takes), Outgoing::new());
            let mut was_refused = false;
            for bytes in *writes {
                let mut rest = *bytes;
                while !rest.is_empty() {
                    let (one, two) = rest.split_at(rest.len() / 2);
                    match outgoing.write(*kind, &[IoSlice::new(one), IoSlice::new(two)], |parts| kernel.send(parts)) {
                        Ok(0) => panic!("nothing was taken"),
                        Ok(taken) => rest = &rest[taken..],
                        Err(Errno::EILSEQ) => {
                            was_refused = true;
                            break;
                        }
                        Err(errno) => assert_eq!(errno, Errno::EAGAIN),
                    }
                }
                outgoing.pong(b"");
            }
            outgoing.close(None, "");
            while wait(outgoing.flush(|parts| kernel.send(parts))) {}
            let mut messages = kernel.heard();
            messages.retain(|one| one != "Pong");
            assert_eq!(messages.pop().as_deref(), Some("Close(None, \"\")"));
            if was_refused {
                messages.insert(1, "EILSEQ".to_owned());
            }
            assert_eq!(messages, *expected, "{kind:?} {writes:?} {takes:?}");
        }
    }
}

#[test]
fn coalesced_writes_have_the_same_opcode_rules() {
    let (mut kernel, mut outgoing) = (Kernel::new(&[usize::MAX]), Outgoing::new());
    for bytes in [&b"gr\xc3"[..], b"\xbcn", b"\xff", b"\xc3"] {
        outgoing.gather_write(WriteType::Auto, bytes).unwrap();
    }
    assert_eq!(outgoing.gather_write(WriteType::Text, b"\xff"), Err(Errno::EILSEQ));
    outgoing.flush(|parts| kernel.send(parts)).unwrap();
    assert_eq!((kernel.heard().len(), outgoing.cut_size()), (3, 1));
    outgoing.give_up_cut();
    outgoing.flush(|parts| kernel.send(parts)).unwrap();
    assert_eq!(kernel.heard(), ["Text gr", "Text \u{fc}n", r"Binary \xff", r"Binary \xc3"]);
}

#[test]
fn the_newest_pongs_are_kept() {
    let (mut kernel, mut outgoing) = (Kernel::new(&[usize::MAX]), Outgoing::new());
    for number in 0..1_000_000u32 {
        outgoing.pong(&number.to_be_bytes());
    }
    outgoing.flush(|parts| kernel.send(parts)).unwrap();
    let size = kernel.taken.len();
    assert!(size <= PONGS_SIZE_MAX && kernel.taken.ends_with(&999_999u32.to_be_bytes()), "{size} bytes");
}

#[test]
fn a_close_waits_for_the_announced_bytes_and_nothing_follows_it() {
    let (mut kernel, mut outgoing) = (Kernel::new(&[3, usize::MAX]), Outgoing::new());
    let parts = [IoSlice::new(b"ab")];
    assert_eq!(outgoing.write(WriteType::Text, &parts, |parts| kernel.send(parts)), Ok(1));
    outgoing.pong(b"");
    outgoing.close(None, "");
    outgoing.close(Some(CloseCode::NORMAL), "never");
    outgoing.pong(b"never");
    assert!(!outgoing.wants_to_write(), "the server's byte goes first");
    let parts = [IoSlice::new(b"bcd")];
    assert_eq!(outgoing.write(WriteType::Text, &parts, |parts| kernel.send(parts)), Ok(1));
    assert_eq!(outgoing.write(WriteType::Text, &parts, |parts| kernel.send(parts)), Err(Errno::EPIPE));
    assert_eq!(outgoing.send(Opcode::Text, b"x", 9, |parts| kernel.send(parts)), Err(Errno::EPIPE));
    assert_eq!(outgoing.gather(Opcode::Text, b"x", 0), Err(Errno::EPIPE));
    assert_eq!(kernel.heard(), ["Text ab", "Pong", "Close(None, \"\")"]);
}

#[test]
fn messages_are_sent_whole_or_not_at_all() {
    const KEPT_SIZE_MAX: usize = 400;
    for takes in TAKES {
        let (mut kernel, mut outgoing) = (Kernel::new(takes), Outgoing::new());
        let mut expected = Vec::new();
        for number in 0..300 {
            let text = format!("{number}").repeat(number % 100);
            outgoing.pong(b"");
            match outgoing.send(Opcode::Text, text.as_bytes(), KEPT_SIZE_MAX, |parts| kernel.send(parts)) {
                Ok(()) => expected.push(format!("Text {text}")),
                Err(errno) => assert_eq!(errno, Errno::EAGAIN),
            }
            assert!(outgoing.kept_size() <= KEPT_SIZE_MAX, "{takes:?}");
        }
        assert!(takes != [usize::MAX] || expected.len() == 300, "{} messages", expected.len());
        while wait(outgoing.flush(|parts| kernel.send(parts))) {}
        let mut heard = kernel.heard();
        assert!(heard.iter().any(|one| one == "Pong"));
        heard.retain(|one| one != "Pong");
        assert_eq!(heard, expected, "{takes:?}");
    }
}

#[test]
fn a_begun_message_waits_whatever_its_size_and_another_does_not() {
    let (mut kernel, mut outgoing) = (Kernel::new(&[10, 0, 0, usize::MAX]), Outgoing::new());
    let text = "x".repeat(1000);
    assert_eq!(outgoing.send(Opcode::Text, text.as_bytes(), 50, |parts| kernel.send(parts)), Ok(()));
    assert_eq!(outgoing.kept_size(), 4 + 1000 - 10);
    assert_eq!(outgoing.send(Opcode::Text, b"", 50, |parts| kernel.send(parts)), Err(Errno::EAGAIN));
    assert_eq!(outgoing.flush(|parts| kernel.send(parts)), Err(Errno::EAGAIN));
    assert_eq!(outgoing.flush(|parts| kernel.send(parts)), Ok(()));
    assert_eq!(kernel.heard(), [format!("Text {text}")]);
}

#[test]
fn coalesced_messages_are_sent_in_one_write() {
    let (mut kernel, mut outgoing) = (Kernel::new(&[usize::MAX]), Outgoing::new());
    for text in ["one", "", "three"] {
        outgoing.gather(Opcode::Text, text.as_bytes(), 0).unwrap();
    }
    assert_eq!(kernel.calls, 0);
    outgoing.send(Opcode::Binary, b"four", 0, |parts| kernel.send(parts)).unwrap();
    assert_eq!(kernel.calls, 1);
    assert_eq!(kernel.heard(), ["Text one", "Text ", "Text three", "Binary four"]);
}

#[test]
fn other_errors_are_returned_to_the_server() {
    let broken = |_: &[IoSlice<'_>]| Err(Errno::ECONNRESET);
    let mut outgoing = Outgoing::new();
    assert_eq!(outgoing.write(WriteType::Text, &[IoSlice::new(b"a")], broken), Err(Errno::ECONNRESET));
    assert_eq!(outgoing.write(WriteType::Text, &[], broken), Ok(0));
    assert_eq!(outgoing.send(Opcode::Text, b"a", 10, broken), Err(Errno::ECONNRESET));
    assert_eq!(outgoing.flush(broken), Ok(()));
    outgoing.pong(b"");
    assert_eq!(outgoing.flush(broken), Err(Errno::ECONNRESET));
}
