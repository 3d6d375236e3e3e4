//! `uakari-auth`, the helper that verifies passwords and tokens: the test plays the daemon at the other end of its socket.

mod tokens;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use auth_wire::{Credential, Decoder, Question, Rule, Source, ToDaemon, ToHelper, Verdict, encode};
use nix::sys::signal::Signal;

use crate::daemon::{program, project};
use crate::foreign::command;
use crate::process::{DEADLINE, Finished, Folder, Process, eventually, run};

/// What a failure waits for at least.
const FAILURE_TIME: Duration = Duration::from_millis(250);

/// The helper, and the daemon's end of the socket.
struct Helper {
    process: Process,
    socket: UnixStream,
    decoder: Decoder,
    asked: u64,
}

impl Helper {
    fn start() -> Helper {
        let (socket, other) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let input = Stdio::from(OwnedFd::from(other));
        let process = Process::start_reading(input, &mut Command::new(program("uakari-auth")));
        Helper { process, socket, decoder: Decoder::default(), asked: 0 }
    }

    /// With a rule for each of these files.
    fn with_files(files: &[PathBuf]) -> Helper {
        let mut helper = Helper::start();
        let rules =
            files.iter().map(|file| Rule { sources: vec![Source::PasswordFile(file.clone())], ..Rule::default() });
        helper.tell(&ToHelper::Rules { generation: 1, rules: rules.collect(), is_trial: false });
        let message = helper.hear();
        assert!(matches!(message, ToDaemon::Ready { generation: 1, .. }), "{message:?}");
        helper
    }

    fn tell(&mut self, message: &ToHelper) {
        self.socket.write_all(&frame(message)).unwrap();
    }

    fn hear(&mut self) -> ToDaemon {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return message;
            }
            let mut buffer = [0; 65_536];
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("the helper has closed its socket"),
                Ok(size) => self.decoder.push(&buffer[..size]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next answer. Warnings before it are passed over.
    fn answer(&mut self) -> (u64, Verdict) {
        loop {
            match self.hear() {
                ToDaemon::Answer(answer) => return (answer.id, answer.verdict),
                ToDaemon::Ready { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks and waits for the answer, which must be the next one.
    fn verdict(&mut self, rule: u32, user: &str, password: &str, address: &str) -> Verdict {
        self.asked += 1;
        let id = 1_000_000 + self.asked;
        self.tell(&question(id, rule, user, password, address));
        let (answered, verdict) = self.answer();
        assert_eq!(answered, id, "{verdict:?}");
        verdict
    }

    /// Ends it by the end of the stream.
    fn end(mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
        let Finished { status, out, err } = self.process.wait(DEADLINE);
        assert_eq!((status.code(), out.as_str(), err.as_str()), (Some(0), "", ""));
    }
}

fn frame(message: &ToHelper) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    frame
}

fn question(id: u64, rule: u32, user: &str, password: &str, address: &str) -> ToHelper {
    let credential = Credential::Password { user: user.to_owned(), password: password.into() };
    let address = address.to_owned();
    ToHelper::Ask(Box::new(Question { id, generation: 1, rule, credential, address, ..Question::default() }))
}

fn is_allowed(verdict: &Verdict, name: &str) -> bool {
    matches!(verdict, Verdict::Allow { user, until_ms: None, .. } if user == name)
}

/// A file that other users cannot read.
fn write(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    let new = folder.path().join(format!("{name}.new"));
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

/// bcrypt with the cost 4: a millisecond for each attempt. The password is the text before it.
const GOOD: (&str, &str) = ("pa55w\u{f6}rd x", "$2b$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy");

/// The output of a program without the last newline.
fn output(command: &mut Command) -> String {
    let Finished { status, out, err } = run(command, DEADLINE);
    assert!(status.success(), "{command:?}: {out}{err}");
    out.trim_end().to_owned()
}

#[test]
#[ignore = "needs htpasswd and openssl"]
fn files_of_htpasswd_and_openssl() {
    let folder = Folder::new();
    let path = folder.path().join("users");
    for (user, flags) in [("bcrypt", "-cbB"), ("md5", "-bm"), ("sha", "-bs"), ("sha256", "-b2"), ("sha512", "-b5")] {
        output(command("htpasswd").arg(flags).arg(&path).args([user, GOOD.0]));
    }
    let mut text = fs::read_to_string(&path).unwrap();
    for (user, kind) in [("apr1", "-apr1"), ("crypt5", "-5"), ("crypt6", "-6")] {
        let hash = output(command("openssl").args(["passwd", kind, GOOD.0]));
        text += &format!("{user}:{hash}\n");
    }
    let path = write(&folder, "users", &text);
    let checked = run(Command::new(program("uakari-auth")).arg("--check").arg(&path), DEADLINE);
    assert!(checked.status.success(), "{checked:?}");
    let file = path.display();
    assert_eq!(
        checked.out.lines().collect::<Vec<_>>(),
        [
            format!(
                "warning: {file}: line 1: the password of bcrypt has a weak hash: bcrypt with the cost 5; htpasswd -B -C 12 \
                 makes a better one"
            ),
            format!("warning: {file}: line 2: the password of md5 has a weak hash: $apr1$"),
            format!("warning: {file}: line 3: the password of sha has a weak hash: one round of SHA-1"),
            format!("warning: {file}: line 6: the password of apr1 has a weak hash: $apr1$"),
            format!("{file}: 8 users, 4 warnings"),
        ]
    );
    let mut helper = Helper::with_files(&[path]);
    for user in ["bcrypt", "md5", "sha", "sha256", "sha512", "apr1", "crypt5", "crypt6"] {
        assert!(is_allowed(&helper.verdict(0, user, GOOD.0, "192.0.2.1"), user), "{user}");
        assert_eq!(helper.verdict(0, user, "wrong", "192.0.2.1"), Verdict::Deny, "{user}");
    }
    helper.end();
}

#[test]
fn failures_are_not_answered_early() {
    let folder = Folder::new();
    let file = write(&folder, "users", &format!("ann:{}\n", GOOD.1));
    let mut helper = Helper::with_files(&[file]);
    for (user, password) in [("ann", "wrong"), ("eve", "wrong"), ("ann", "a\0b"), ("ann", &"x".repeat(300))] {
        let start = Instant::now();
        assert_eq!(helper.verdict(0, user, password, ""), Verdict::Deny);
        // The helper's clock counts milliseconds.
        assert!(start.elapsed() >= FAILURE_TIME - Duration::from_millis(1), "{user}: {:?}", start.elapsed());
    }
    assert!(is_allowed(&helper.verdict(0, "ann", GOOD.0, ""), "ann"));
    helper.end();
}

/// One address tries 10,000 passwords for 1,000 users while others log in.
#[test]
fn an_attacker_does_not_stop_others() {
    const ATTEMPTS: u64 = 10_000;
    const LOGINS: u64 = 200;
    let folder = Folder::new();
    let lines: String = (0..1_000).map(|number| format!("user{number}:{}\n", GOOD.1)).collect();
    let file = write(&folder, "users", &lines);
    let mut helper = Helper::with_files(&[file]);
    let mut socket = helper.socket.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for id in 0..ATTEMPTS {
            let attack = question(id, 0, &format!("user{}", id % 1_000), &format!("guess{id}"), "203.0.113.66");
            socket.write_all(&frame(&attack)).unwrap();
            if id % (ATTEMPTS / LOGINS) == 0 {
                let number = id / (ATTEMPTS / LOGINS);
                let login = question(
                    ATTEMPTS + number,
                    0,
                    &format!("user{number}"),
                    GOOD.0,
                    &format!("2001:db8:0:{number:x}::1"),
                );
                socket.write_all(&frame(&login)).unwrap();
            }
        }
    });
    let (mut denied, mut logins, mut busy) = (0, 0, Vec::new());
    let mut is_answered = vec![false; (ATTEMPTS + LOGINS) as usize];
    for _ in 0..ATTEMPTS + LOGINS {
        let (id, verdict) = helper.answer();
        assert!(!std::mem::replace(&mut is_answered[id as usize], true), "{id} is answered twice");
        match verdict {
            Verdict::Deny if id < ATTEMPTS => denied += 1,
            Verdict::Limited { wait_ms } if id < ATTEMPTS => assert!(wait_ms > 0),
            // The logins come faster than they are verified.
            Verdict::Unavailable { .. } => busy.push(id),
            verdict => {
                let number = id.checked_sub(ATTEMPTS).unwrap_or_else(|| panic!("{id}: {verdict:?}"));
                assert!(is_allowed(&verdict, &format!("user{number}")), "{number}: {verdict:?}");
                logins += 1;
            }
        }
    }
    writer.join().unwrap();
    // 20 that count, and those that were being judged when the twentieth failed.
    assert!((20..=20 + 32).contains(&denied), "{denied} attempts were judged");
    for number in busy.iter().filter_map(|id| id.checked_sub(ATTEMPTS)) {
        let (user, address) = (format!("user{number}"), format!("2001:db8:0:{number:x}::1"));
        assert!(is_allowed(&helper.verdict(0, &user, GOOD.0, &address), &user));
        logins += 1;
    }
    assert_eq!(logins, LOGINS);
    assert!(matches!(helper.verdict(0, "user1", GOOD.0, "203.0.113.66"), Verdict::Limited { .. }));
    assert!(helper.process.peak_kib() < 32 * 1024, "{} KiB", helper.process.peak_kib());
    helper.end();
}

/// The daemon sends 3,000 questions at once, from as many addresses: some wait, the others are told.
#[test]
fn the_queue_is_bounded() {
    const QUESTIONS: u64 = 3_000;
    let folder = Folder::new();
    // bcrypt with the cost 10.
    let file = write(&folder, "users", &format!("ann:{}\n", GOOD.1.replacen("$04$", "$10$", 1)));
    let mut helper = Helper::with_files(&[file]);
    let mut socket = helper.socket.try_clone().unwrap();
    let frames: Vec<u8> = (0..QUESTIONS)
        .flat_map(|id| frame(&question(id, 0, "ann", "wrong", &format!("2001:db8:1:{id:x}::1"))))
        .collect();
    let writer = thread::spawn(move || socket.write_all(&frames).unwrap());
    let mut is_answered = vec![false; QUESTIONS as usize];
    let (mut judged, mut refused) = (0, 0);
    for _ in 0..QUESTIONS {
        let (id, verdict) = helper.answer();
        assert!(!std::mem::replace(&mut is_answered[id as usize], true), "{id} is answered twice");
        match verdict {
            Verdict::Deny => judged += 1,
            // All of them are for one user.
            Verdict::Limited { .. } => {}
            Verdict::Unavailable { sentence } => {
                assert_eq!(sentence, "too many passwords wait to be verified");
                refused += 1;
            }
            verdict => panic!("{verdict:?}"),
        }
    }
    writer.join().unwrap();
    assert!((64..=100).contains(&judged) && refused > 0, "{judged} were judged, {refused} refused");
    helper.end();
}

/// A daemon that reads nothing for a while.
#[test]
fn answers_wait_for_a_slow_reader() {
    const QUESTIONS: u64 = 100_000;
    let mut helper = Helper::start();
    let mut socket = helper.socket.try_clone().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let writer = thread::spawn(move || {
        for id in 0..QUESTIONS {
            socket.write_all(&frame(&question(id, 0, "ann", "x", ""))).unwrap();
            counter.store(id + 1, Ordering::Relaxed);
        }
    });
    // The writer stops when all buffers are full, the helper's too.
    let mut before = 0;
    eventually("the helper reads no more questions", || {
        thread::sleep(Duration::from_millis(200));
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(before < QUESTIONS, "the helper reads whatever waits for the daemon");
    for id in 0..QUESTIONS {
        let (answered, verdict) = helper.answer();
        assert!(answered == id && matches!(verdict, Verdict::Unavailable { .. }), "{answered} {verdict:?}");
    }
    writer.join().unwrap();
    assert!(helper.process.peak_kib() < 32 * 1024, "{} KiB", helper.process.peak_kib());
    helper.end();
}

#[test]
fn broken_frames_end_it() {
    let long = (64_u32 * 1024 + 1).to_be_bytes();
    let good = frame(&ToHelper::Cancel { id: 1 });
    for (bytes, part) in [
        (vec![0; 4], "a frame's kind is not known"),
        (vec![255; 4], "a frame is too long"),
        ([&long[..], &[2]].concat(), "a frame is too long"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "a frame is too long"),
        (vec![0, 0, 0, 1, 3], "a frame lacks the field 1"),
        ([&good[..], &[0, 0, 0, 1, 0x83]].concat(), "a frame's kind is not known"),
    ] {
        let mut helper = Helper::start();
        helper.socket.write_all(&bytes).unwrap();
        let Finished { status, out, err } = helper.process.wait(DEADLINE);
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{bytes:?}: {err}");
        assert_eq!(err, format!("uakari-auth: the gateway sent what is no message: {part}"), "{bytes:?}");
    }
}

#[test]
fn the_end_of_the_stream_ends_it() {
    let folder = Folder::new();
    // bcrypt with the cost 14: seconds.
    let file = write(&folder, "users", &format!("ann:{}\n", GOOD.1.replacen("$04$", "$14$", 1)));
    Helper::with_files(&[]).end();
    // Within a frame.
    let mut helper = Helper::with_files(&[]);
    helper.socket.write_all(&[0, 0, 1]).unwrap();
    helper.end();
    // While passwords are verified and others wait.
    let mut helper = Helper::with_files(&[file]);
    for id in 0..20 {
        helper.tell(&question(id, 0, "ann", GOOD.0, &format!("192.0.2.{id}")));
    }
    helper.end();
    // The daemon is gone, and reads no answers.
    let mut helper = Helper::with_files(&[]);
    for id in 0..100 {
        helper.tell(&question(id, 0, "ann", "x", ""));
    }
    let Helper { mut process, socket, .. } = helper;
    drop(socket);
    let Finished { status, err, .. } = process.wait(DEADLINE);
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

#[test]
fn signals_are_left_to_the_daemon() {
    let folder = Folder::new();
    let file = write(&folder, "users", &format!("ann:{}\n", GOOD.1));
    let mut helper = Helper::with_files(&[file]);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        helper.process.signal(signal);
        assert!(is_allowed(&helper.verdict(0, "ann", GOOD.0, ""), "ann"), "{signal}");
    }
    helper.end();
}

#[test]
fn rules_and_their_problems() {
    let folder = Folder::new();
    let good = write(&folder, "good", &format!("ann:{}\n", GOOD.1));
    let bad = write(&folder, "bad", "ann:geheim\n");
    let mut helper = Helper::with_files(std::slice::from_ref(&good));
    let rule = |path: &PathBuf| Rule { sources: vec![Source::PasswordFile(path.clone())], ..Rule::default() };
    helper.tell(&ToHelper::Rules { generation: 2, rules: vec![rule(&good), rule(&bad)], is_trial: false });
    let ToDaemon::Problems { generation: 2, problems } = helper.hear() else { panic!("no problems") };
    let sentence = "line 1: the password of ann is neither a hash of a known kind nor in a row with a group";
    assert_eq!((problems.len(), problems[0].rule), (1, 1));
    assert_eq!(problems[0].sentence, format!("{}: {sentence}", bad.display()));
    assert!(is_allowed(&helper.verdict(0, "ann", GOOD.0, ""), "ann"), "the rules before stay");
    let unknown = helper.verdict(1, "ann", GOOD.0, "");
    assert!(matches!(unknown, Verdict::Unavailable { .. }), "{unknown:?}");
    // The largest set of rules.
    let rules = vec![rule(&good); 20_000];
    let size = frame(&ToHelper::Rules { generation: 3, rules: rules.clone(), is_trial: false }).len();
    assert!(size > 64 * 1024, "{size}");
    helper.tell(&ToHelper::Rules { generation: 3, rules, is_trial: false });
    assert!(matches!(helper.hear(), ToDaemon::Ready { generation: 3, .. }));
    helper.end();
}

#[test]
fn files_are_read_again() {
    let folder = Folder::new();
    let file = write(&folder, "users", &format!("ann:{}\n", GOOD.1));
    let mut helper = Helper::with_files(std::slice::from_ref(&file));
    assert!(is_allowed(&helper.verdict(0, "ann", GOOD.0, ""), "ann"));
    // A broken one is told, and the old one is used. It is looked at once a second, at a question.
    write(&folder, "users", "broken\n");
    let warning = loop {
        helper.tell(&question(1, 0, "ann", GOOD.0, ""));
        match helper.hear() {
            ToDaemon::Ready { generation: 1, warnings } => break warnings,
            ToDaemon::Answer(answer) => assert!(is_allowed(&answer.verdict, "ann"), "{answer:?}"),
            other => panic!("{other:?}"),
        }
    };
    let file = file.display();
    let sentence = "line 1: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]; what was read before stays in use";
    assert_eq!(warning, [format!("{file}: {sentence}")]);
    assert!(is_allowed(&helper.answer().1, "ann"));
    write(&folder, "users", &format!("bob:{}\n", GOOD.1));
    let give_up = Instant::now() + DEADLINE;
    while is_allowed(&helper.verdict(0, "ann", GOOD.0, ""), "ann") {
        assert!(Instant::now() < give_up, "the new file is not used");
    }
    assert!(is_allowed(&helper.verdict(0, "bob", GOOD.0, ""), "bob"));
    helper.end();
}

#[test]
fn command_lines() {
    let folder = Folder::new();
    let good = write(&folder, "good", &format!("ann:{}\nbob:geheim:users\n", GOOD.1));
    let bad = write(&folder, "bad", "ann:geheim\n\nbob\n");
    let [good, bad] = [good, bad].map(|path| path.to_str().unwrap().to_owned());
    let none = folder.join("none");
    let neither = "is neither a hash of a known kind nor in a row with a group";
    let weak = "has a weak hash: bcrypt with the cost 4; htpasswd -B -C 12 makes a better one";
    for (words, code, out, err) in [
        (vec!["--version"], 0, concat!("uakari-auth ", env!("CARGO_PKG_VERSION")).to_owned(), ""),
        (
            vec![],
            64,
            String::new(),
            "standard input is no stream socket: the gateway starts this program; see uakari-auth --help",
        ),
        (vec!["--check"], 64, String::new(), "--check needs a file: see uakari-auth --help"),
        (vec!["file"], 64, String::new(), "file is given without --check: see uakari-auth --help"),
        (vec!["--x"], 64, String::new(), "Unrecognized argument: --x: see uakari-auth --help"),
        (
            vec!["--check", &good],
            0,
            format!(
                "warning: {good}: line 1: the password of ann {weak}\n\
                 warning: {good}: line 2: the password of bob is in clear text\n\
                 {good}: 2 users, 2 warnings"
            ),
            "",
        ),
        (
            vec!["--check", &bad, &none],
            1,
            format!(
                "error: {bad}: line 1: the password of ann {neither}\n\
                 error: {bad}: line 3: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]\n\
                 error: {none}: No such file or directory (os error 2)"
            ),
            "",
        ),
    ] {
        let finished = run(Command::new(program("uakari-auth")).args(&words), DEADLINE);
        let err = if err.is_empty() { String::new() } else { format!("uakari-auth: {err}") };
        assert_eq!((finished.status.code(), finished.out, finished.err), (Some(code), out, err), "{words:?}");
    }
    let help = output(Command::new(program("uakari-auth")).arg("--help"));
    assert!(help.starts_with("Usage: uakari-auth ") && help.contains("--check"), "{help}");
    let [documented, page] =
        ["docs/auth.md", "docs/man/uakari-auth.8"].map(|path| fs::read_to_string(project().join(path)).unwrap());
    let (options, statuses) = help.split_once("Options:\n").unwrap().1.split_once("Error codes:\n").unwrap();
    let flags: Vec<&str> = options.split([' ', ',', '\n']).filter(|word| word.starts_with("--")).collect();
    // The last one is that of the example.
    assert_eq!(flags, ["--check", "--version", "--help", "--check"]);
    for flag in flags {
        assert!(documented.contains(flag) && page.contains(&format!("\n.It Fl {}", &flag[1..])), "{flag}");
    }
    for status in statuses.lines().map(|line| line.split_whitespace().next().unwrap()) {
        assert!(page.contains(&format!("\n.It {status}\n")), "{status}");
    }
}
