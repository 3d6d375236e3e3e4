//! The log buffer, its rate limits, and the count of dropped lines.

use std::fmt;

use nix::errno::Errno;

use super::record::Level;
use crate::limits::{
    LOG_BUFFER_RESERVED, LOG_BUFFER_SIZE, LOG_LINES_BURST_MAX, LOG_LINES_PER_SECOND_MAX, LOG_TELL_MS,
    LOG_WRITE_SIZE_MAX,
};

/// Buffered lines. Times are milliseconds of a monotonic clock.
#[derive(Default)]
pub(crate) struct Lines {
    /// The rate limit of each level, so that a flood at one level does not suppress another.
    buckets: [Bucket; 4],
    /// Whole lines with their newlines, except that the first may be the rest of a line: see `begins_inside_line`.
    waiting: Vec<u8>,
    begins_inside_line: bool,
    /// Lines dropped by the rate limit since the last report.
    too_many: u64,
    /// Lines dropped since the last report because they could not be written, and the last cause.
    unwritten: u64,
    cause: Option<Errno>,
    /// The earliest time of the next report.
    report_ms: u64,
}

/// A number of dropped lines and the reason. Display is the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DropReport {
    /// Over the rate limit.
    TooMany(u64),
    /// Not written; EAGAIN: the reader was too slow.
    Unwritten(u64, Errno),
}

impl fmt::Display for DropReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (DropReport::TooMany(count) | DropReport::Unwritten(count, _)) = *self;
        write!(f, "left out {count} line{} ", if count == 1 { "" } else { "s" })?;
        match self {
            DropReport::TooMany(_) => f.write_str("(too many in a second)"),
            DropReport::Unwritten(_, Errno::EAGAIN) => {
                f.write_str("(the log could not be written: its reader is too slow)")
            }
            DropReport::Unwritten(_, errno) => write!(f, "(the log could not be written: {})", errno.desc()),
        }
    }
}

impl Lines {
    /// Whether the rate limit admits a line of this level; if not, it is counted as dropped.
    pub(crate) fn admit(&mut self, level: Level, now_ms: u64) -> bool {
        let is_admitted = self.buckets[level as usize].take(now_ms);
        self.too_many += u64::from(!is_admitted);
        is_admitted
    }

    /// Whether a line of this size fits. LOG_BUFFER_RESERVED is for errors only.
    pub(crate) fn has_room(&self, level: Level, size: usize) -> bool {
        let reserved = if level == Level::Error { 0 } else { LOG_BUFFER_RESERVED };
        self.waiting.len() + size <= LOG_BUFFER_SIZE - reserved
    }

    /// Adds a line with its newline, or counts it as dropped where it does not fit.
    pub(crate) fn push(&mut self, level: Level, line: &str) {
        if self.has_room(level, line.len()) {
            self.waiting.extend_from_slice(line.as_bytes());
        } else {
            self.unwritten += 1;
            self.cause = Some(Errno::EAGAIN);
        }
    }

    /// The lines to write next: at most `LOG_WRITE_SIZE_MAX` bytes, including a newline before them.
    pub(crate) fn chunk(&self) -> Option<&[u8]> {
        let most = &self.waiting[..self.waiting.len().min(LOG_WRITE_SIZE_MAX - 1)];
        let end = most.iter().rposition(|byte| *byte == b'\n')?;
        Some(&most[..=end])
    }

    /// Whether the beginning of the first line was written already.
    pub(crate) fn begins_inside_line(&self) -> bool {
        self.begins_inside_line
    }

    /// Takes the result of writing the chunk. True: write the next chunk. After EAGAIN and EINTR the lines remain; after
    /// any other error all are dropped.
    pub(crate) fn on_written(&mut self, result: Result<usize, Errno>) -> bool {
        match result {
            Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => false,
            Ok(size) => {
                let last = self.waiting.drain(..size.min(self.waiting.len())).next_back();
                self.begins_inside_line = last != Some(b'\n');
                true
            }
            Err(errno) => {
                self.drop_all(errno);
                false
            }
        }
    }

    /// Drops all buffered lines.
    pub(crate) fn drop_all(&mut self, cause: Errno) {
        let count = self.waiting.iter().filter(|byte| **byte == b'\n').count();
        if count > 0 {
            self.unwritten += count as u64;
            self.cause = Some(cause);
        }
        self.waiting.clear();
        self.begins_inside_line = false;
    }

    /// Whether there is nothing to write and nothing to report.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unwritten == 0 && self.too_many == 0
    }

    /// The report of dropped lines that is due. None: nothing to report, or not yet.
    pub(crate) fn due_report(&self, now_ms: u64) -> Option<DropReport> {
        match (self.unwritten, self.too_many) {
            _ if now_ms < self.report_ms => None,
            (0, 0) => None,
            (0, too_many) => Some(DropReport::TooMany(too_many)),
            (unwritten, _) => Some(DropReport::Unwritten(unwritten, self.cause.unwrap_or(Errno::EAGAIN))),
        }
    }

    /// The report from `due_report` was written, or could not be.
    pub(crate) fn on_reported(&mut self, now_ms: u64, is_reported: bool) {
        self.report_ms = now_ms + LOG_TELL_MS;
        if is_reported && self.unwritten > 0 {
            self.unwritten = 0;
        } else if is_reported {
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
    /// Takes one line from the bucket. False: less than a line is left.
    fn take(&mut self, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        // One line per second is a thousandth of a line per millisecond.
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

    const WRITTEN: bool = true;

    fn admitted(lines: &mut Lines, level: Level, now_ms: u64, count: u64) -> u64 {
        (0..count).map(|_| u64::from(lines.admit(level, now_ms))).sum()
    }

    #[test]
    fn rate_limits() {
        let mut lines = Lines::default();
        let (burst, rate) = (LOG_LINES_BURST_MAX, LOG_LINES_PER_SECOND_MAX);
        let mut left_out = 0;
        for (now_ms, level, come, go) in [
            (0, Level::Info, burst + 5, burst),
            (0, Level::Info, 1, 0),
            // Other levels have their own limits.
            (0, Level::Error, 3, 3),
            (0, Level::Warn, burst, burst),
            (500, Level::Info, 2 * rate, rate / 2),
            (1_500, Level::Info, 2 * rate, rate),
            (1_500, Level::Info, 1, 0),
            // A clock that stands still or goes back changes nothing.
            (1_400, Level::Info, 1, 0),
            (1_000_000_000, Level::Info, 2 * burst, burst),
            (u64::MAX, Level::Info, burst, burst),
        ] {
            assert_eq!(admitted(&mut lines, level, now_ms, come), go, "{level:?} at {now_ms}");
            left_out += come - go;
        }
        assert_eq!(lines.due_report(u64::MAX), Some(DropReport::TooMany(left_out)));
    }

    #[test]
    fn writes() {
        for (results, waiting, is_inside, left_out) in [
            (&[Ok(4)][..], "two\nthree\n", false, None),
            (&[Ok(4), Ok(10)], "", false, None),
            // A partial write: the rest of the line follows.
            (&[Ok(6)], "o\nthree\n", true, None),
            (&[Ok(6), Err(Errno::EAGAIN)], "o\nthree\n", true, None),
            (&[Err(Errno::EINTR)], "one\ntwo\nthree\n", false, None),
            (&[Ok(0)], "one\ntwo\nthree\n", false, None),
            (&[Ok(6), Err(Errno::ENOSPC)], "", false, Some(DropReport::Unwritten(2, Errno::ENOSPC))),
            (&[Err(Errno::EPIPE)], "", false, Some(DropReport::Unwritten(3, Errno::EPIPE))),
        ] {
            let mut lines = Lines::default();
            ["one\n", "two\n", "three\n"].iter().for_each(|line| lines.push(Level::Info, line));
            for result in results {
                assert_eq!(lines.on_written(*result), result.is_ok_and(|size| size > 0), "{results:?}");
            }
            assert_eq!(lines.chunk().unwrap_or_default(), waiting.as_bytes(), "{results:?}");
            assert_eq!((lines.begins_inside_line(), lines.due_report(0)), (is_inside, left_out), "{results:?}");
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
        assert_eq!(lines.due_report(0), Some(DropReport::Unwritten(reserved as u64, Errno::EAGAIN)));
        (0..reserved + 1).for_each(|_| lines.push(Level::Error, &line));
        assert_eq!(lines.due_report(0), Some(DropReport::Unwritten(reserved as u64 + 1, Errno::EAGAIN)));
        assert_eq!(lines.waiting.len(), LOG_BUFFER_SIZE);
    }

    #[test]
    fn dropped_lines_are_reported_once_a_second() {
        let mut lines = Lines::default();
        assert_eq!(lines.due_report(0), None);
        admitted(&mut lines, Level::Info, 0, LOG_LINES_BURST_MAX + 2);
        lines.push(Level::Error, "one\n");
        lines.on_written(Err(Errno::ENOSPC));
        let (too_many, unwritten) = (DropReport::TooMany(2), DropReport::Unwritten(1, Errno::ENOSPC));
        for (now_ms, told, result) in [
            (0, Some(unwritten), !WRITTEN),
            (999, None, WRITTEN),
            (1_000, Some(unwritten), WRITTEN),
            (1_999, None, WRITTEN),
            (2_000, Some(too_many), !WRITTEN),
            (3_000, Some(too_many), WRITTEN),
            (4_000, None, WRITTEN),
        ] {
            assert_eq!(lines.due_report(now_ms), told, "at {now_ms}");
            if told.is_some() {
                lines.on_reported(now_ms, result);
            }
        }
        for (left_out, sentence) in [
            (DropReport::TooMany(1234), "left out 1234 lines (too many in a second)"),
            (unwritten, "left out 1 line (the log could not be written: No space left on device)"),
            (
                DropReport::Unwritten(12, Errno::EAGAIN),
                "left out 12 lines (the log could not be written: its reader is too slow)",
            ),
        ] {
            assert_eq!(left_out.to_string(), sentence);
        }
    }
}
