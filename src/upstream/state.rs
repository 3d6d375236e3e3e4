//! How a node does: failures of requests, results of health checks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::NodeOutcome;
use crate::limits;

/// How a node does. Written by one thread, the loop's.
///
/// A node that has failed too often is left. When that time is over, one request is let through as a trial, and the time
/// begins anew for others; an answer to the trial ends it.
#[derive(Default, Debug)]
pub struct NodeState {
    /// Failures since `first_ms`.
    fails: AtomicU32,
    /// When the first one of `fails` was.
    first_ms: AtomicU64,
    /// Until when it is left. 0: it is not.
    until_ms: AtomicU64,
    /// Whether a request has been let through since it is left.
    is_tried: AtomicBool,
    /// Whether health checks have found it down.
    is_down: AtomicBool,
    /// Checks in a row that contradict `is_down`.
    checks: AtomicU32,
    /// When it was last left, found down, or tried in that state.
    since_ms: AtomicU64,
}

impl NodeState {
    /// Whether a request may be sent to it; to one that has been left, as a trial.
    pub(super) fn is_usable(&self, now_ms: u64) -> bool {
        !self.is_down.load(Relaxed) && now_ms >= self.until_ms.load(Relaxed)
    }

    /// Since when it has had no request.
    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms.load(Relaxed)
    }

    /// Takes note that a request is sent to it.
    pub(super) fn choose(&self, now_ms: u64, fail_ms: u64) {
        let is_left = self.until_ms.load(Relaxed) != 0;
        if is_left {
            self.until_ms.store(now_ms.saturating_add(fail_ms), Relaxed);
            self.is_tried.store(true, Relaxed);
        }
        if is_left || self.is_down.load(Relaxed) {
            self.since_ms.store(now_ms, Relaxed);
        }
    }

    /// Takes note of what a request tells. An answer to a request that was sent before the node was left changes nothing.
    pub(super) fn note(&self, outcome: NodeOutcome, now_ms: u64, max_fails: u32, fail_ms: u64) -> Change {
        let until_ms = self.until_ms.load(Relaxed);
        match outcome {
            NodeOutcome::Answered if until_ms != 0 && (self.is_tried.load(Relaxed) || now_ms >= until_ms) => {
                self.forget();
                Change::Used
            }
            NodeOutcome::Answered => Change::None,
            NodeOutcome::Failed if max_fails == 0 => Change::None,
            NodeOutcome::Failed if until_ms != 0 => {
                self.leave(now_ms, fail_ms);
                Change::None
            }
            NodeOutcome::Failed => {
                if self.fails.load(Relaxed) == 0 || now_ms.saturating_sub(self.first_ms.load(Relaxed)) > fail_ms {
                    self.fails.store(0, Relaxed);
                    self.first_ms.store(now_ms, Relaxed);
                }
                let fails = self.fails.fetch_add(1, Relaxed) + 1;
                if fails < max_fails {
                    return Change::None;
                }
                self.leave(now_ms, fail_ms);
                Change::Left(fails)
            }
        }
    }

    /// Takes note of a health check.
    pub(super) fn note_health(&self, is_good: bool, now_ms: u64) -> Change {
        let is_down = self.is_down.load(Relaxed);
        if is_good != is_down {
            self.checks.store(0, Relaxed);
            return Change::None;
        }
        let checks = self.checks.fetch_add(1, Relaxed) + 1;
        if checks < if is_down { limits::HEALTH_RISES_MAX } else { limits::HEALTH_FALLS_MAX } {
            return Change::None;
        }
        self.checks.store(0, Relaxed);
        self.is_down.store(!is_down, Relaxed);
        if is_down {
            self.forget();
            return Change::Up(checks);
        }
        self.since_ms.store(now_ms, Relaxed);
        Change::Down(checks)
    }

    fn leave(&self, now_ms: u64, fail_ms: u64) {
        self.until_ms.store(now_ms.saturating_add(fail_ms).max(1), Relaxed);
        self.since_ms.store(now_ms, Relaxed);
        self.is_tried.store(false, Relaxed);
    }

    /// Forgets the failures of requests.
    fn forget(&self) {
        self.until_ms.store(0, Relaxed);
        self.fails.store(0, Relaxed);
        self.is_tried.store(false, Relaxed);
    }
}

/// What has changed for a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It is left after this many failures.
    Left(u32),
    /// It is no longer left.
    Used,
    /// It is down after this many failed checks in a row.
    Down(u32),
    /// It is up after this many good checks in a row.
    Up(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeOutcome::{Answered, Failed};

    #[test]
    fn failures() {
        /// What is done at a time, and what it changes.
        enum Step {
            Note(NodeOutcome, Change),
            Choose,
            Usable(bool),
        }
        use Step::{Choose, Note, Usable};
        let left = Change::Left;
        type Case<'a> = (&'a str, u32, &'a [(u64, Step)]);
        let cases: &[Case<'_>] = &[
            (
                "a trial that is answered",
                1,
                &[
                    (5, Usable(true)),
                    (5, Note(Failed, left(1))),
                    (5, Usable(false)),
                    // The answer to a request that was sent before.
                    (6, Note(Answered, Change::None)),
                    (104, Usable(false)),
                    (105, Usable(true)),
                    (105, Choose),
                    (106, Usable(false)),
                    (110, Note(Answered, Change::Used)),
                    (110, Usable(true)),
                    (111, Note(Failed, left(1))),
                ],
            ),
            (
                "a trial that fails, and one without an outcome",
                1,
                &[
                    (0, Note(Failed, left(1))),
                    (100, Choose),
                    (150, Note(Failed, Change::None)),
                    (249, Usable(false)),
                    (250, Choose),
                    (349, Usable(false)),
                    (350, Usable(true)),
                ],
            ),
            (
                "three failures within the time",
                3,
                &[
                    (0, Note(Failed, Change::None)),
                    (50, Note(Failed, Change::None)),
                    (60, Note(Answered, Change::None)),
                    (100, Usable(true)),
                    (100, Note(Failed, left(3))),
                    (199, Usable(false)),
                    (200, Usable(true)),
                    // An answer that no trial has brought.
                    (200, Note(Answered, Change::Used)),
                ],
            ),
            (
                "three failures, too slowly",
                3,
                &[
                    (0, Note(Failed, Change::None)),
                    (50, Note(Failed, Change::None)),
                    (101, Note(Failed, Change::None)),
                    (102, Note(Failed, Change::None)),
                    (103, Note(Failed, left(3))),
                ],
            ),
            ("failures that do not count", 0, &[(0, Note(Failed, Change::None)), (0, Usable(true))]),
        ];
        for (case, max_fails, steps) in cases {
            let state = NodeState::default();
            for (index, (now_ms, step)) in steps.iter().enumerate() {
                match step {
                    Note(outcome, change) => {
                        assert_eq!(state.note(*outcome, *now_ms, *max_fails, 100), *change, "{case}, step {index}");
                    }
                    Choose => state.choose(*now_ms, 100),
                    Usable(is_usable) => assert_eq!(state.is_usable(*now_ms), *is_usable, "{case}, step {index}"),
                }
            }
        }
    }

    #[test]
    fn health_checks() {
        let state = NodeState::default();
        let (falls, rises) = (limits::HEALTH_FALLS_MAX, limits::HEALTH_RISES_MAX);
        assert_eq!((falls, rises), (3, 2));
        for (index, (is_good, change)) in [
            (true, Change::None),
            (false, Change::None),
            (false, Change::None),
            (true, Change::None),
            (false, Change::None),
            (false, Change::None),
            (false, Change::Down(3)),
            (false, Change::None),
            (true, Change::None),
            (false, Change::None),
            (true, Change::None),
            (true, Change::Up(2)),
            (true, Change::None),
        ]
        .into_iter()
        .enumerate()
        {
            let is_usable = !(6..11).contains(&index);
            assert_eq!(state.note_health(is_good, index as u64), change, "check {index}");
            assert_eq!(state.is_usable(0), is_usable, "check {index}");
        }
        // Good checks after a failure of health end what failures of requests have begun.
        assert_eq!(state.note(Failed, 1_000, 1, 100), Change::Left(1));
        (0..3).for_each(|_| assert_ne!(state.note_health(false, 1_000), Change::Up(2)));
        (0..2).for_each(|_| assert_ne!(state.note_health(true, 1_001), Change::Down(3)));
        assert!(state.is_usable(1_001));
    }
}
