//! Members who go without a word: the others are told at once, however the chat has found it out.

use super::*;

/// Who has said all that its pace allows is not listened to for a moment. That it has gone is then found out by sending
/// to it, at the end of a turn.
#[test]
fn one_who_is_found_gone_while_nobody_listens_to_it() {
    const SAID: usize = 1_100;
    for way in [Way::Proxied("packet"), Way::Direct] {
        let room = Room::open(way, &["-w"]);
        let (mut eve, mut alice, mut bob) = (room.member("eve"), room.member("alice"), room.member("bob"));
        // She does not read it, so that her connection is broken off and not ended.
        alice.text("hello, all");
        hear(&mut bob, "hello, all");
        let frames: Vec<Frame> = (0..SAID).map(|n| Frame::new(TEXT, format!("{n}").as_bytes())).collect();
        eve.send(&frames);
        while heard(&mut bob) != "990" {}
        drop(eve);
        alice.text("is she still there?");
        // Nobody says anything more, and still both are told.
        for member in [&mut alice, &mut bob] {
            while heard(member) != goodbye("eve") {}
        }
    }
}

/// A name may have what commands a terminal, or turns the direction of writing.
#[test]
fn the_operator_is_told_in_plain_characters() {
    const LINE_SIZE_MAX: usize = 64 * 1024;
    let room = Room::open(Way::Proxied("lines"), &["-w"]);
    let mut eve = room.member("\u{9b}2J\u{202e}eve");
    eve.text(&"x".repeat(LINE_SIZE_MAX + 1));
    room.chat.err.wait_for(&["\\u{9b}2J\\u{202e}eve is dropped"]);
}
