//! Lines that wait to be written, how many may come in a second, and the count of those that are left out.

use std::fmt;

use nix::errno::Errno;

use super::record::Level;
use crate::limits::{
    LOG_BUFFER_RESERVED, LOG_BUFFER_SIZE, LOG_LINES_BURST_MAX, LOG_LINES_PER_SECOND_MAX, LOG_TELL_MS,
    LOG_WRITE_SIZE_MAX,
};

/// Lines on their way to a sink. Times are milliseconds of a clock that never jumps.
#[derive(Default)]
pub struct Lines {
    /// One for each level, so that a flood of one never silences another.
    buckets: [Bucket; 4],
    /// Whole lines, but for the first: see `begins_inside_line`.
    waiting: Vec<u8>,
    begins_inside_line: bool,
    /// Left out since it was last told, because too many came.
    too_many: u64,
    /// Left out since it was last told, because they could not be written; and why not.
    unwritten: u64,
    cause: Option<Errno>,
    /// Not before this is it told.
    tell_ms: u64,
}

/// How many lines were left out, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftOut {
    /// More came than a second may have.
    TooMany(u64),
    /// They could not be written; EAGAIN: nobody took them.
    Unwritten(u64, Errno),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (LeftOut::TooMany(count) | LeftOut::Unwritten(count, _)) = *self;
        write!(f, "left out {count} line{} ", if count == 1 { "" } else { "s" })?;
        match self {
            LeftOut::TooMany(_) => f.write_str("(too many in a second)"),
            LeftOut::Unwritten(_, Errno::EAGAIN) => f.write_str("(the log could not be written: nobody reads it)"),
            LeftOut::Unwritten(_, errno) => write!(f, "(the log could not be written: {})", errno.desc()),
        }
    }
}

impl Lines {
    /// Whether one more line of this level may come now; else it is counted.
    pub fn admit(&mut self, level: Level, now_ms: u64) -> bool {
        let is_admitted = self.buckets[level as usize].take(now_ms);
        self.too_many += u64::from(!is_admitted);
        is_admitted
    }

    /// Whether a line of this size fits. Errors have some room of their own.
    pub fn has_room(&self, level: Level, size: usize) -> bool {
        let reserved = if level == Level::Error { 0 } else { LOG_BUFFER_RESERVED };
        self.waiting.len() + size <= LOG_BUFFER_SIZE - reserved
    }

    /// Adds a line, its newline included; where it does not fit it is counted.
    pub fn push(&mut self, level: Level, line: &str) {
        if self.has_room(level, line.len()) {
            self.waiting.extend_from_slice(line.as_bytes());
        } else {
            self.unwritten += 1;
            self.cause = Some(Errno::EAGAIN);
        }
    }

    /// What is to be written next: lines up to `LOG_WRITE_SIZE_MAX` bytes, a newline before them included.
    pub fn chunk(&self) -> Option<&[u8]> {
        let most = &self.waiting[..self.waiting.len().min(LOG_WRITE_SIZE_MAX - 1)];
        let end = most.iter().rposition(|byte| *byte == b'\n')?;
        Some(&most[..=end])
    }

    /// The sink has the beginning of the first line already.
    pub fn begins_inside_line(&self) -> bool {
        self.begins_inside_line
    }

    /// So many bytes of the chunk were written, or none. True: go on with the next chunk. What cannot be written
    /// now (EAGAIN, EINTR) waits; after any other error all that waits is left out.
    pub fn on_written(&mut self, result: Result<usize, Errno>) -> bool {
        match result {
            Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => false,
            Ok(size) => {
                let last = self.waiting.drain(..size.min(self.waiting.len())).next_back();
                self.begins_inside_line = last != Some(b'\n');
                true
            }
            Err(errno) => {
                self.leave_out(errno);
                false
            }
        }
    }

    /// Gives up all that waits.
    pub fn leave_out(&mut self, cause: Errno) {
        let count = self.waiting.iter().filter(|byte| **byte == b'\n').count();
        if count > 0 {
            self.unwritten += count as u64;
            self.cause = Some(cause);
        }
        self.waiting.clear();
        self.begins_inside_line = false;
    }

    /// Whether nothing waits and nothing is to be told.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unwritten == 0 && self.too_many == 0
    }

    /// What is to be told now of what was left out.
    pub fn left_out(&self, now_ms: u64) -> Option<LeftOut> {
        match (self.unwritten, self.too_many) {
            _ if now_ms < self.tell_ms => None,
            (0, 0) => None,
            (0, too_many) => Some(LeftOut::TooMany(too_many)),
            (unwritten, _) => Some(LeftOut::Unwritten(unwritten, self.cause.unwrap_or(Errno::EAGAIN))),
        }
    }

    /// What `left_out` gave was written, or it was tried in vain.
    pub fn on_told(&mut self, now_ms: u64, is_told: bool) {
        self.tell_ms = now_ms + LOG_TELL_MS;
        if is_told && self.unwritten > 0 {
            self.unwritten = 0;
        } else if is_told {
            self.too_many = 0;
        }
    }
}

/// A token bucket, counted in thousandths of a line.
struct Bucket {
    level: u64,
    filled_ms: u64,
}

const LINE: u64 = 1000;

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket { level: LOG_LINES_BURST_MAX * LINE, filled_ms: 0 }
    }
}

impl Bucket {
    /// Takes a line's worth, if it is there.
    fn take(&mut self, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        // A line a second is a thousandth of a line a millisecond.
        let more = since_ms.saturating_mul(LOG_LINES_PER_SECOND_MAX);
        self.level = self.level.saturating_add(more).min(LOG_LINES_BURST_MAX * LINE);
        let has_line = self.level >= LINE;
        if has_line {
            self.level -= LINE;
        }
        has_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: bool = true;

    fn admitted(lines: &mut Lines, level: Level, now_ms: u64, count: u64) -> u64 {
        (0..count).map(|_| u64::from(lines.admit(level, now_ms))).sum()
    }

    #[test]
    fn floods() {
        let mut lines = Lines::default();
        let (burst, rate) = (LOG_LINES_BURST_MAX, LOG_LINES_PER_SECOND_MAX);
        let mut left_out = 0;
        for (now_ms, level, come, go) in [
            (0, Level::Info, burst + 5, burst),
            (0, Level::Info, 1, 0),
            // Others are not silenced by it.
            (0, Level::Error, 3, 3),
            (0, Level::Warn, burst, burst),
            (500, Level::Info, 2 * rate, rate / 2),
            (1_500, Level::Info, 2 * rate, rate),
            (1_500, Level::Info, 1, 0),
            // A clock that stands still or goes back neither silences nor floods.
            (1_400, Level::Info, 1, 0),
            (1_000_000_000, Level::Info, 2 * burst, burst),
            (u64::MAX, Level::Info, burst, burst),
        ] {
            assert_eq!(admitted(&mut lines, level, now_ms, come), go, "{level:?} at {now_ms}");
            left_out += come - go;
        }
        assert_eq!(lines.left_out(u64::MAX), Some(LeftOut::TooMany(left_out)));
    }

    #[test]
    fn writes() {
        for (results, waiting, is_inside, left_out) in [
            (&[Ok(4)][..], "two\nthree\n", false, None),
            (&[Ok(4), Ok(10)], "", false, None),
            // Interrupted in mid-line: the rest follows.
            (&[Ok(6)], "o\nthree\n", true, None),
            (&[Ok(6), Err(Errno::EAGAIN)], "o\nthree\n", true, None),
            (&[Err(Errno::EINTR)], "one\ntwo\nthree\n", false, None),
            (&[Ok(0)], "one\ntwo\nthree\n", false, None),
            (&[Ok(6), Err(Errno::ENOSPC)], "", false, Some(LeftOut::Unwritten(2, Errno::ENOSPC))),
            (&[Err(Errno::EPIPE)], "", false, Some(LeftOut::Unwritten(3, Errno::EPIPE))),
        ] {
            let mut lines = Lines::default();
            ["one\n", "two\n", "three\n"].iter().for_each(|line| lines.push(Level::Info, line));
            for result in results {
                assert_eq!(lines.on_written(*result), result.is_ok_and(|size| size > 0), "{results:?}");
            }
            assert_eq!(lines.chunk().unwrap_or_default(), waiting.as_bytes(), "{results:?}");
            assert_eq!((lines.begins_inside_line(), lines.left_out(0)), (is_inside, left_out), "{results:?}");
        }
    }

    #[test]
    fn chunks_are_whole_lines() {
        let mut lines = Lines::default();
        let line = format!("{}\n", "x".repeat(999));
        (0..10).for_each(|_| lines.push(Level::Info, &line));
        let mut sizes = Vec::new();
        while let Some(chunk) = lines.chunk() {
            sizes.push(chunk.len());
            lines.on_written(Ok(chunk.len()));
        }
        assert_eq!(sizes, [4000, 4000, 2000]);
    }

    #[test]
    fn a_full_buffer_has_room_for_errors() {
        let mut lines = Lines::default();
        let line = format!("{}\n", "x".repeat(1023));
        let most = LOG_BUFFER_SIZE / 1024;
        (0..most).for_each(|_| lines.push(Level::Warn, &line));
        let reserved = LOG_BUFFER_RESERVED / 1024;
        assert_eq!(lines.left_out(0), Some(LeftOut::Unwritten(reserved as u64, Errno::EAGAIN)));
        (0..reserved + 1).for_each(|_| lines.push(Level::Error, &line));
        assert_eq!(lines.left_out(0), Some(LeftOut::Unwritten(reserved as u64 + 1, Errno::EAGAIN)));
        assert_eq!(lines.waiting.len(), LOG_BUFFER_SIZE);
    }

    #[test]
    fn what_was_left_out_is_told_once_a_second() {
        let mut lines = Lines::default();
        assert_eq!(lines.left_out(0), None);
        admitted(&mut lines, Level::Info, 0, LOG_LINES_BURST_MAX + 2);
        lines.push(Level::Error, "one\n");
        lines.on_written(Err(Errno::ENOSPC));
        let (too_many, unwritten) = (LeftOut::TooMany(2), LeftOut::Unwritten(1, Errno::ENOSPC));
        for (now_ms, told, result) in [
            (0, Some(unwritten), !TAKEN),
            (999, None, TAKEN),
            (1_000, Some(unwritten), TAKEN),
            (1_999, None, TAKEN),
            (2_000, Some(too_many), !TAKEN),
            (3_000, Some(too_many), TAKEN),
            (4_000, None, TAKEN),
        ] {
            assert_eq!(lines.left_out(now_ms), told, "at {now_ms}");
            if told.is_some() {
                lines.on_told(now_ms, result);
            }
        }
        for (left_out, sentence) in [
            (LeftOut::TooMany(1234), "left out 1234 lines (too many in a second)"),
            (unwritten, "left out 1 line (the log could not be written: No space left on device)"),
            (
                LeftOut::Unwritten(12, Errno::EAGAIN),
                "left out 12 lines (the log could not be written: nobody reads it)",
            ),
        ] {
            assert_eq!(left_out.to_string(), sentence);
        }
    }
}
