//! Many members: nothing is lost, and the order of each sender's messages is kept.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Room, Way};
use crate::client::{Client, Frame, PONG};
use crate::process::DEADLINE;

const SENDERS: usize = 50;

/// A crowd and its number of messages.
struct Crowd {
    way: Way,
    members: usize,
    messages: usize,
    messages_per_second: u32,
}

/// What one member has received: a partial frame, a count, and the last number of each sender.
#[derive(Default)]
struct Heard {
    rest: Vec<u8>,
    count: usize,
    last: HashMap<usize, usize>,
}

impl Heard {
    /// Parses complete frames: short texts, unmasked. Pushes the age of each. Returns the number of keepalive pings.
    fn take(&mut self, bytes: &[u8], now_us: u64, delays_us: &mut Vec<u64>) -> usize {
        self.rest.extend_from_slice(bytes);
        let (mut at, mut pings) = (0, 0);
        while let Some([first, second]) = self.rest.get(at..at + 2) {
            let (first, size) = (*first, *second as usize);
            if (first, size) == (0x89, 0) {
                at += 2;
                pings += 1;
                continue;
            }
            assert!(matches!(first, 0x81 | 0x82) && size < 126, "no short message: {first:#x} {size}");
            let Some(text) = self.rest.get(at + 2..at + 2 + size) else { break };
            at += 2 + size;
            let text = std::str::from_utf8(text).unwrap();
            let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
            let [sender, number, sent_us] = numbers[..] else { panic!("{text:?}") };
            let last = self.last.insert(sender as usize, number as usize);
            assert_eq!(last.map_or(0, |last| last + 1), number as usize, "of sender {sender}");
            delays_us.push(now_us.saturating_sub(sent_us));
            self.count += 1;
        }
        self.rest.drain(..at);
        pings
    }
}

impl Crowd {
    /// All members send, and every message arrives.
    fn meets(&self) {
        let most = (self.members + 10).to_string();
        let room = Room::open(self.way, &["-w", "-m", &most]);
        let mut members: Vec<Client> = (0..self.members).map(|_| room.enter()).collect();
        // Each name is confirmed: all are members.
        for member in &mut members {
            member.text("WSHello member");
        }
        // The chat may hear them in another order.
        let names: HashSet<String> = members.iter_mut().map(super::heard).collect();
        assert!(names.len() == members.len() && names.contains("WSWelcome member"), "{names:?}");
        let listeners: Vec<_> = members.iter().map(|member| member.wire.stream().try_clone().unwrap()).collect();
        let begin = Instant::now();
        let messages = self.messages;
        let listening = thread::spawn(move || listen(listeners, messages, begin));
        let pause = Duration::from_secs(1) / self.messages_per_second;
        let step = self.members / SENDERS;
        for number in 0..messages {
            // Paced by the clock: pauses alone would add up.
            thread::sleep((begin + pause * number as u32).saturating_duration_since(Instant::now()));
            let (sender, turn) = (number % SENDERS, number / SENDERS);
            let text = format!("{sender} {turn} {}", begin.elapsed().as_micros());
            members[sender * step].text(&text);
        }
        let said = begin.elapsed();
        let mut delays_us = listening.join().unwrap();
        let heard = begin.elapsed();
        delays_us.sort_unstable();
        let at = |part: f64| delays_us[((delays_us.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
        println!(
            "{:?}: {} members, {messages} messages said in {:.1} s, {} heard in {:.1} s; \
             from sender to listener median {:.1} ms, 99 % {:.1} ms, most {:.1} ms; chat {} KiB, gateway {} KiB at most",
            self.way,
            self.members,
            said.as_secs_f64(),
            delays_us.len(),
            heard.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0),
            room.chat.peak_kib(),
            room.daemon.peak_kib(),
        );
        assert_eq!(delays_us.len(), messages * (self.members - 1));
        room.expect_none_dropped();
        assert!(room.chat.peak_kib() < 64 * 1024);
    }
}

/// Reads until each member has heard all but its own messages.
fn listen(mut streams: Vec<std::net::TcpStream>, messages: usize, begin: Instant) -> Vec<u64> {
    let step = streams.len() / SENDERS;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let mut members: Vec<Heard> = streams.iter().map(|_| Heard::default()).collect();
    for (number, stream) in streams.iter().enumerate() {
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
    }
    let wanted = |number: usize| {
        let is_sender = number.is_multiple_of(step) && number / step < SENDERS;
        let own = |sender: usize| messages / SENDERS + usize::from(sender < messages % SENDERS);
        messages - if is_sender { own(number / step) } else { 0 }
    };
    let (mut delays_us, mut buffer, mut finished) = (Vec::new(), vec![0; 64 * 1024], 0);
    let wait = EpollTimeout::try_from(DEADLINE).unwrap();
    while finished < members.len() {
        let mut events = [EpollEvent::empty(); 256];
        let count = epoll.wait(&mut events, wait).unwrap();
        assert!(count > 0, "nothing came for {DEADLINE:?}; {finished} of {} have heard all", members.len());
        for event in &events[..count] {
            let number = event.data() as usize;
            let size = match streams[number].read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            };
            assert!(size > 0, "member {number} was dropped after {} messages", members[number].count);
            let member = &mut members[number];
            let pings = member.take(&buffer[..size], begin.elapsed().as_micros() as u64, &mut delays_us);
            streams[number].write_all(&Frame::new(PONG, b"").masked().bytes().repeat(pings)).unwrap();
            finished += usize::from(member.count == wanted(number));
        }
    }
    delays_us
}

#[test]
fn a_hundred_members() {
    for way in [Way::Proxied("packet"), Way::Direct] {
        Crowd { way, members: 100, messages: 200, messages_per_second: 100 }.meets();
    }
}

#[test]
#[ignore = "takes both cores for 40 s, and a release build: make crowd"]
fn a_thousand_members() {
    for way in [Way::Proxied("packet"), Way::Proxied("frames"), Way::Direct] {
        Crowd { way, members: 1_000, messages: 1_000, messages_per_second: 100 }.meets();
    }
}
