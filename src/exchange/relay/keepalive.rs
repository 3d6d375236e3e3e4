//! Timers of a relay: pings, the timeouts of a silent or idle client, and the pause of a client that exceeds its rate
//! limit.

use crate::limits::{RATE_BURST_MS, WebSocket, WhenOver};
use crate::types::Moment;

/// The timer that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Stop waiting for the rest of a truncated character.
    Cut,
    /// Resume reading from a client that exceeded its rate limit.
    Resume,
    /// No message was received within `idle_ms`.
    Idle,
    /// The client did not answer a ping within `pong_ms`.
    Silent,
    /// Send a ping.
    Ping,
}

/// When the client was heard and when a message was relayed. Recording activity costs one store; the deadline compares
/// the times only when it is reached.
#[derive(Debug)]
pub(crate) struct Keepalive {
    heard: Moment,
    message: Moment,
}

/// The timers that are usually not set.
#[derive(Default, Debug)]
pub(crate) struct Alarms {
    pinged: Option<Moment>,
    /// When the next ping is due if the current one is answered at once; None: no check is scheduled for that time.
    look: Option<Moment>,
    cut: Option<Moment>,
    resume: Option<Moment>,
    /// None: no rate limit.
    rate: Option<Rate>,
}

impl Alarms {
    /// The timers at the beginning of a relay.
    pub(crate) fn new(limits: &WebSocket) -> Alarms {
        let is_limited = limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0;
        Alarms { rate: is_limited.then(Rate::default), ..Alarms::default() }
    }

    /// Whether no timer is set.
    pub(crate) fn is_nothing(&self) -> bool {
        self.rate.is_none() && [self.pinged, self.look, self.cut, self.resume].iter().all(Option::is_none)
    }

    /// Waits until this time for the rest of a truncated character; None: stops waiting.
    pub(crate) fn set_cut(&mut self, until_ms: Option<u64>) {
        self.cut = until_ms.map(Moment::at);
    }

    /// Whether the client exceeded its rate limit. If it is to be slowed down, `Keepalive::next_ms` includes the time
    /// at which reading resumes. The bytes may have arrived at any time from `since_ms` to `now_ms`.
    pub(crate) fn is_over(
        &mut self,
        messages: u64,
        bytes: u64,
        limits: &WebSocket,
        (since_ms, now_ms): (u64, u64),
    ) -> bool {
        let Some(rate) = &mut self.rate else { return false };
        let over_ms = rate.take(messages, bytes, limits, (since_ms, now_ms));
        if over_ms > 0 && limits.when_over == WhenOver::Slow {
            self.resume = Some(Moment::at(now_ms + over_ms));
        }
        over_ms > 0
    }
}

impl Keepalive {
    /// Starts the timers at the beginning of the relay.
    pub(crate) fn new(now_ms: u64) -> Keepalive {
        Keepalive { heard: Moment::at(now_ms), message: Moment::at(now_ms) }
    }

    /// Bytes of the client were received.
    pub(crate) fn on_client(&mut self, alarms: Option<&mut Alarms>, now_ms: u64) {
        self.heard = Moment::at(now_ms);
        if let Some(alarms) = alarms {
            alarms.pinged = None;
        }
    }

    /// The client is not being read, so a missing pong proves nothing; the next ping is due as usual.
    pub(crate) fn on_unread(&mut self, alarms: &mut Alarms) {
        if let Some(pinged) = alarms.pinged.take() {
            self.heard = pinged;
        }
    }

    /// A message was received from either end.
    pub(crate) fn on_message(&mut self, now_ms: u64) {
        self.message = Moment::at(now_ms);
    }

    /// The earliest time at which a timer is due; None: no timer is set.
    pub(crate) fn next_ms(&self, alarms: Option<&Alarms>, limits: &WebSocket) -> Option<u64> {
        let none = Alarms::default();
        let alarms = alarms.unwrap_or(&none);
        let due = [Due::Cut, Due::Resume, Due::Idle, Due::Silent, Due::Ping];
        due.into_iter().filter_map(|what| self.at_ms(what, alarms, limits)).chain(alarms.look.map(Moment::ms)).min()
    }

    /// Removes and returns the next timer that is due now.
    pub(crate) fn take_due(&mut self, alarms: &mut Alarms, limits: &WebSocket, now_ms: u64) -> Option<Due> {
        if alarms.look.is_some_and(|at| at.ms() <= now_ms) {
            alarms.look = alarms.pinged.map(|_| Moment::at(now_ms + limits.ping_ms));
        }
        let due = [Due::Cut, Due::Resume, Due::Idle, Due::Silent, Due::Ping];
        let what =
            due.into_iter().find(|what| self.at_ms(*what, alarms, limits).is_some_and(|at_ms| at_ms <= now_ms))?;
        match what {
            Due::Cut => alarms.cut = None,
            Due::Resume => {
                alarms.resume = None;
                self.on_client(Some(alarms), now_ms);
            }
            Due::Ping => {
                alarms.pinged = Some(Moment::at(now_ms));
                alarms.look = (limits.ping_ms < limits.pong_ms).then(|| Moment::at(now_ms + limits.ping_ms));
            }
            Due::Idle | Due::Silent => {}
        }
        Some(what)
    }

    fn at_ms(&self, what: Due, alarms: &Alarms, limits: &WebSocket) -> Option<u64> {
        match what {
            Due::Cut => alarms.cut.map(Moment::ms),
            Due::Resume => alarms.resume.map(Moment::ms),
            Due::Idle => (limits.idle_ms > 0).then_some(self.message.ms() + limits.idle_ms),
            Due::Silent | Due::Ping if limits.ping_ms == 0 => None,
            Due::Silent => alarms.pinged.map(|at| at.ms() + limits.pong_ms),
            Due::Ping if alarms.pinged.is_some() => None,
            Due::Ping => Some(self.heard.ms() + limits.ping_ms),
        }
    }
}

/// Two token buckets, each stored as the time at which the received amount would have been allowed: it may be ahead of
/// the clock by `RATE_BURST_MS`.
#[derive(Default, Debug)]
struct Rate {
    messages_until_us: u64,
    bytes_until_us: u64,
}

impl Rate {
    /// Counts received messages and bytes. Returns the time in milliseconds for which reading must pause; 0: within the
    /// limits.
    fn take(&mut self, messages: u64, bytes: u64, limits: &WebSocket, (since_ms, now_ms): (u64, u64)) -> u64 {
        let (since_us, now_us) = (since_ms * 1000, now_ms * 1000);
        let over = |until_us: &mut u64, count: u64, a_second: u64| {
            if a_second == 0 {
                return 0;
            }
            *until_us = (*until_us).max(since_us) + count.saturating_mul(1_000_000) / a_second;
            until_us.saturating_sub(now_us + RATE_BURST_MS * 1000).div_ceil(1000)
        };
        let by_messages = over(&mut self.messages_until_us, messages, limits.messages_per_second_max);
        by_messages.max(over(&mut self.bytes_until_us, bytes, limits.bytes_per_second_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All timers of a relay.
    struct Clock {
        keepalive: Keepalive,
        alarms: Alarms,
    }

    impl Clock {
        fn new(limits: &WebSocket, now_ms: u64) -> Clock {
            Clock { keepalive: Keepalive::new(now_ms), alarms: Alarms::new(limits) }
        }

        fn next_ms(&self, limits: &WebSocket) -> Option<u64> {
            self.keepalive.next_ms(Some(&self.alarms), limits)
        }

        fn take_due(&mut self, limits: &WebSocket, now_ms: u64) -> Option<Due> {
            self.keepalive.take_due(&mut self.alarms, limits, now_ms)
        }

        fn on_client(&mut self, now_ms: u64) {
            self.keepalive.on_client(Some(&mut self.alarms), now_ms);
        }
    }

    fn limits() -> WebSocket {
        WebSocket { ping_ms: 100, pong_ms: 30, idle_ms: 1_000, ..WebSocket::default() }
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_lost() {
        let limits = limits();
        let mut clock = Clock::new(&limits, 1_000);
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, 1_099)), (Some(1_100), None));
        clock.on_client(1_050);
        assert_eq!((clock.take_due(&limits, 1_100), clock.next_ms(&limits)), (None, Some(1_150)));
        assert_eq!(clock.take_due(&limits, 1_150), Some(Due::Ping));
        assert_eq!((clock.take_due(&limits, 1_150), clock.next_ms(&limits)), (None, Some(1_180)));
        clock.on_client(1_170);
        assert_eq!((clock.take_due(&limits, 1_180), clock.next_ms(&limits)), (None, Some(1_270)));
        assert_eq!(clock.take_due(&limits, 1_270), Some(Due::Ping));
        assert_eq!(clock.take_due(&limits, 1_300), Some(Due::Silent));
    }

    #[test]
    fn pings_come_in_their_time_however_long_an_answer_may_take() {
        let limits = WebSocket { ping_ms: 100, pong_ms: 1_000, ..WebSocket::default() };
        let mut clock = Clock::new(&limits, 0);
        assert_eq!(clock.take_due(&limits, 100), Some(Due::Ping));
        clock.on_client(110);
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, 200)), (Some(200), None));
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, 210)), (Some(210), Some(Due::Ping)));
        for at_ms in (310..1_210).step_by(100) {
            assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, at_ms)), (Some(at_ms), None));
        }
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, 1_210)), (Some(1_210), Some(Due::Silent)));
    }

    #[test]
    fn one_that_is_not_read_is_asked_in_the_usual_time() {
        for pong_ms in [30, 1_000] {
            let limits = WebSocket { ping_ms: 100, pong_ms, ..WebSocket::default() };
            let mut clock = Clock::new(&limits, 0);
            let mut pings = Vec::new();
            while let Some(at_ms) = clock.next_ms(&limits).filter(|at_ms| *at_ms <= 500) {
                clock.keepalive.on_unread(&mut clock.alarms);
                while let Some(due) = clock.take_due(&limits, at_ms) {
                    assert_eq!(due, Due::Ping);
                    pings.push(at_ms);
                }
            }
            assert_eq!(pings, [100, 200, 300, 400, 500], "{pong_ms}");
        }
    }

    #[test]
    fn pongs_are_no_messages() {
        let limits = limits();
        let mut clock = Clock::new(&limits, 0);
        clock.on_client(950);
        assert_eq!(clock.take_due(&limits, 1_000), Some(Due::Idle));
        clock.keepalive.on_message(1_000);
        clock.on_client(1_900);
        assert_eq!(clock.take_due(&limits, 1_990), None);
    }

    #[test]
    fn zeros_switch_off() {
        let limits = WebSocket { ping_ms: 0, idle_ms: 0, ..WebSocket::default() };
        let mut clock = Clock::new(&limits, 0);
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, u64::MAX)), (None, None));
        clock.alarms.set_cut(Some(7));
        assert_eq!((clock.next_ms(&limits), clock.take_due(&limits, 7)), (Some(7), Some(Due::Cut)));
        assert!(!clock.alarms.is_over(1_000_000, 1 << 40, &limits, (8, 8)));
    }

    #[test]
    fn rates_allow_a_burst_and_then_the_rate() {
        let limits = WebSocket { messages_per_second_max: 10, ping_ms: 100, ..WebSocket::default() };
        let mut clock = Clock::new(&limits, 0);
        assert!(!clock.alarms.is_over(10, 0, &limits, (0, 0)), "a second's worth at once");
        assert!(clock.alarms.is_over(1, 0, &limits, (0, 0)), "one more");
        assert_eq!(clock.next_ms(&limits), Some(100), "which is made good after a tenth of a second");
        assert_eq!(clock.take_due(&limits, 100), Some(Due::Resume));
        assert_eq!(clock.next_ms(&limits), Some(200), "one that was not read has the whole time again");
        let by_bytes = WebSocket { bytes_per_second_max: 1_000, ..WebSocket::default() };
        let mut clock = Clock::new(&by_bytes, 5_000);
        assert!(!clock.alarms.is_over(1, 1_000, &by_bytes, (5_000, 5_000)));
        assert!(clock.alarms.is_over(1, 500, &by_bytes, (5_000, 5_000)));
        assert!(!clock.alarms.is_over(1, 400, &by_bytes, (6_000, 6_000)), "a second later there is room for 500 more");
        let mut clock = Clock::new(&by_bytes, 0);
        assert!(!clock.alarms.is_over(1, 60_000, &by_bytes, (1_000, 60_000)), "what waited for a minute to be read");
        assert!(clock.alarms.is_over(1, 1_000, &by_bytes, (1_000, 60_000)), "and no more than that");
    }
}
