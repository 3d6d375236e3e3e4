//! Writes events as lines to a sink: buffered, rate-limited, without blocking.

use std::time::SystemTime;

use nix::errno::Errno;

use super::format::{Format, Style, write_line};
use super::lines::Lines;
use super::record::{Level, Record};
use super::sink::{LogError, Sink};
use crate::limits::LOG_TELL_MS;

/// Settings of the log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Settings {
    /// The least severe level that is logged.
    pub(crate) level: Level,
    /// The format of a line.
    pub(crate) format: Format,
    /// The file to append to. None: standard error.
    pub(crate) file: Option<String>,
}

/// The time on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic, in milliseconds: for rate limits.
    pub(crate) ms: u64,
    /// Wall clock: for timestamps.
    pub(crate) wall: SystemTime,
}

/// Formats events and writes them to a sink. Time is an argument.
pub(crate) struct Writer {
    format: Format,
    file: Option<String>,
    sink: Sink,
    lines: Lines,
    /// The line being formatted; reused to keep its memory.
    line: String,
    /// Lines are buffered until `flush`.
    is_gathering: bool,
}

impl Writer {
    /// Until `start`, each line is written at once, as text.
    pub(crate) fn new(sink: Sink) -> Writer {
        Writer {
            format: Format::default(),
            file: None,
            sink,
            lines: Lines::default(),
            line: String::new(),
            is_gathering: false,
        }
    }

    /// See `log::start`. The caller filters by level.
    pub(crate) fn start(&mut self, settings: &Settings, now: Now) -> Result<(), LogError> {
        let sink = settings.file.as_deref().map_or_else(|| Ok(Sink::standard_error()), Sink::open)?;
        self.change_sink(sink, now);
        self.format = settings.format;
        self.file.clone_from(&settings.file);
        self.is_gathering = true;
        Ok(())
    }

    /// See `log::reopen`.
    pub(crate) fn reopen(&mut self, now: Now) -> Result<(), LogError> {
        if let Some(path) = &self.file {
            let sink = Sink::open(path)?;
            self.change_sink(sink, now);
        }
        Ok(())
    }

    /// Adds a record, unless the rate limit is exceeded.
    pub(crate) fn add(&mut self, record: &Record<'_>, now: Now) {
        let level = record.level();
        if !self.lines.admit(level, now.ms) {
            return;
        }
        let style = self.style();
        write_line(&mut self.line, style, now.wall, record);
        if !self.lines.has_room(level, self.line.len()) {
            self.flush(now);
        }
        self.lines.push(level, &self.line);
        if level == Level::Error || !self.is_gathering {
            self.flush(now);
        }
    }

    /// Whether `flush` has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.lines.is_idle()
    }

    /// Writes buffered lines, as many as the sink takes without blocking.
    pub(crate) fn flush(&mut self, now: Now) {
        self.report_dropped(now);
        while let Some(chunk) = self.lines.chunk() {
            let result = self.sink.write(chunk, self.lines.begins_inside_line());
            if !self.lines.on_written(result) {
                return;
            }
        }
    }

    /// See `log::finish`.
    pub(crate) fn finish(&mut self, now: Now) {
        // At a time when the reports are due: one for each of the two reasons.
        (1..=2).for_each(|turn| self.flush(Now { ms: now.ms + turn * LOG_TELL_MS, ..now }));
    }

    /// Lines that the old sink does not accept now are dropped: they may be partial, or in another format.
    fn change_sink(&mut self, mut sink: Sink, now: Now) {
        self.flush(now);
        self.lines.drop_all(Errno::EAGAIN);
        sink.follow(&self.sink);
        self.sink = sink;
    }

    /// Writes the report past the buffer, so that lines stay counted until it is written.
    fn report_dropped(&mut self, now: Now) {
        if self.lines.begins_inside_line() {
            return;
        }
        let Some(report) = self.lines.due_report(now.ms) else { return };
        let mut line = String::new();
        let what = format_args!("{report}");
        let record = Record::Event { level: Level::Warn, connection: None, what };
        write_line(&mut line, self.style(), now.wall, &record);
        let is_reported = self.sink.write(line.as_bytes(), false) == Ok(line.len());
        self.lines.on_reported(now.ms, is_reported);
    }

    fn style(&self) -> Style {
        Style { format: self.format, is_journal: self.sink.is_journal() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{ErrorKind, PipeReader, Read as _};
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use crate::limits::{LOG_BUFFER_SIZE, LOG_LINES_BURST_MAX};

    /// A temporary folder, removed when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("uakari-log-{}-{test}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn settings(&self, name: &str) -> Settings {
            Settings { file: Some(self.0.join(name).to_str().unwrap().to_owned()), ..Settings::default() }
        }

        /// The text of a log file, without timestamps.
        fn text(&self, name: &str) -> String {
            let text = fs::read_to_string(self.0.join(name)).unwrap();
            text.replace("1970-01-01T00:00:00.000Z ", "")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(ms: u64) -> Now {
        Now { ms, wall: UNIX_EPOCH }
    }

    fn say(log: &mut Writer, level: Level, what: &str, ms: u64) {
        log.add(&Record::Event { level, connection: None, what: format_args!("{what}") }, at(ms));
    }

    #[test]
    fn lines_are_written_by_flush_and_errors_at_once() {
        let folder = Folder::new("turn");
        let mut log = Writer::new(Sink::open(&folder.settings("early").file.unwrap()).unwrap());
        say(&mut log, Level::Info, "before the start", 0);
        assert_eq!(folder.text("early"), "info  before the start\n");
        log.start(&folder.settings("log"), at(0)).unwrap();
        say(&mut log, Level::Info, "one", 0);
        assert_eq!(folder.text("log"), "");
        log.flush(at(0));
        assert_eq!(folder.text("log"), "info  one\n");
        say(&mut log, Level::Warn, "two", 0);
        say(&mut log, Level::Error, "three", 0);
        assert_eq!(folder.text("log"), "info  one\nwarn  two\nerror three\n");
        // More lines than the buffer holds are not lost.
        let long = "x".repeat(1000);
        (0..100).for_each(|_| say(&mut log, Level::Info, &long, 0));
        assert!(folder.text("log").len() > 100_000 - LOG_BUFFER_SIZE);
        log.flush(at(0));
        assert_eq!(folder.text("log").matches(&long).count(), 100);
        assert_eq!(folder.text("early"), "info  before the start\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(folder.0.join("log")).unwrap());
        assert_eq!(mode & 0o137, 0, "{mode:o}: nothing for others");
    }

    #[test]
    fn a_renamed_file_is_reopened() {
        let folder = Folder::new("reopen");
        let mut log = Writer::new(Sink::standard_error());
        log.start(&folder.settings("log"), at(0)).unwrap();
        say(&mut log, Level::Info, "one", 0);
        fs::rename(folder.0.join("log"), folder.0.join("log.1")).unwrap();
        log.reopen(at(0)).unwrap();
        say(&mut log, Level::Error, "two", 0);
        assert_eq!((folder.text("log.1"), folder.text("log")), ("info  one\n".into(), "error two\n".into()));
        // If that fails, the old file stays in use.
        fs::rename(folder.0.join("log"), folder.0.join("log.2")).unwrap();
        fs::create_dir(folder.0.join("log")).unwrap();
        assert!(log.reopen(at(0)).unwrap_err().to_string().contains("Is a directory"));
        say(&mut log, Level::Error, "three", 0);
        let bad = Settings { format: Format::Json, ..folder.settings("no/such/folder") };
        assert!(log.start(&bad, at(0)).unwrap_err().to_string().contains("create its folder"));
        say(&mut log, Level::Error, "four", 0);
        assert_eq!(folder.text("log.2"), "error two\nerror three\nerror four\n");
        // The path to open again is still the old one.
        fs::remove_dir(folder.0.join("log")).unwrap();
        log.reopen(at(0)).unwrap();
        log.start(&Settings { format: Format::Json, ..folder.settings("log") }, at(0)).unwrap();
        say(&mut log, Level::Error, "five", 0);
        let json = r#"{"time":"1970-01-01T00:00:00.000Z","level":"error","event":"log","message":"five"}"#;
        assert_eq!(folder.text("log"), format!("{json}\n"));
    }

    #[test]
    fn a_flood_is_limited_and_reported() {
        let folder = Folder::new("flood");
        let mut log = Writer::new(Sink::standard_error());
        log.start(&folder.settings("log"), at(0)).unwrap();
        (0..LOG_LINES_BURST_MAX + 7).for_each(|_| say(&mut log, Level::Info, "flood", 0));
        say(&mut log, Level::Error, "an error", 0);
        let text = folder.text("log");
        assert_eq!(text.matches("flood").count() as u64, LOG_LINES_BURST_MAX);
        assert!(text.ends_with("info  flood\nerror an error\n") && text.contains("left out 7 lines (too many in"));
        for (ms, added) in [
            (0, ""),
            (1, "info  again\n"),
            (1_001, "warn  left out 1 line (too many in a second)\ninfo  again\n"),
            (9_000, "info  again\n"),
        ] {
            let before = folder.text("log");
            say(&mut log, Level::Info, "again", ms);
            log.flush(at(ms));
            assert_eq!(folder.text("log").strip_prefix(&before), Some(added), "at {ms}");
        }
    }

    /// Reports of dropped lines are written at the end, even if they are not due.
    #[test]
    fn dropped_lines_are_reported_at_the_end() {
        let folder = Folder::new("end");
        let mut log = Writer::new(Sink::standard_error());
        log.start(&folder.settings("log"), at(0)).unwrap();
        (0..LOG_LINES_BURST_MAX + 1).for_each(|_| say(&mut log, Level::Info, "flood", 0));
        log.flush(at(0));
        (0..7).for_each(|_| say(&mut log, Level::Info, "flood", 0));
        log.lines.push(Level::Error, "lost\n");
        log.lines.drop_all(Errno::ENOSPC);
        say(&mut log, Level::Error, "an error", 0);
        let before = folder.text("log");
        log.finish(at(0));
        let told = "warn  left out 1 line (the log could not be written: No space left on device)\n\
                    warn  left out 7 lines (too many in a second)\n";
        assert_eq!(folder.text("log").strip_prefix(&before), Some(told));
        log.finish(at(0));
        assert!(folder.text("log").ends_with(told));
    }

    #[test]
    fn a_failing_sink_is_reported() {
        let folder = Folder::new("fails");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for (name, sink, cause) in [
            ("full", Sink::open("/dev/full").unwrap(), "No space left on device"),
            ("closed", Sink::from(OwnedFd::from(writer)), "Broken pipe"),
        ] {
            let mut log = Writer::new(sink);
            (0..3).for_each(|_| say(&mut log, Level::Info, "lost", 0));
            log.start(&folder.settings(name), at(1)).unwrap();
            say(&mut log, Level::Info, "kept", 1_000);
            log.flush(at(1_000));
            let told = format!("warn  left out 3 lines (the log could not be written: {cause})\n");
            assert_eq!(folder.text(name), format!("{told}info  kept\n"));
        }
    }

    fn drain(reader: &mut PipeReader, text: &mut String) {
        let mut bytes = [0; 4096];
        loop {
            match reader.read(&mut bytes) {
                Ok(size) => text.push_str(std::str::from_utf8(&bytes[..size]).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_full_pipe_does_not_block() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        // The writer keeps its inherited flags: a write to it blocks.
        let mut log = Writer::new(Sink::from(OwnedFd::from(writer)));
        log.is_gathering = true;
        let come = 5_000;
        (0..come).for_each(|number| say(&mut log, Level::Info, &format!("line {number:060}"), 0));
        log.flush(at(0));
        let mut text = String::new();
        for ms in [1, 2, 3, 4, 1_000] {
            drain(&mut reader, &mut text);
            log.flush(at(ms));
        }
        drain(&mut reader, &mut text);
        let (told, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("left out"));
        for (number, line) in lines.iter().enumerate() {
            assert!(line.ends_with(&format!(" info  line {number:060}")), "{line}");
        }
        let left_out = come - lines.len();
        assert!(left_out > 0 && lines.len() * 100 > LOG_BUFFER_SIZE, "{left_out}");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].ends_with(&format!(
                "left out {left_out} lines (the log could not be written: its reader is too slow)"
            ))
        );
    }
}
