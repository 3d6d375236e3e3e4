//! Faulty libraries: the caller gets an error, and others are not affected.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::*;

fn has_an_answer(client: &Client) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !client.1.buffer().is_empty() || recv(client.0.stream().as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
}

#[test]
#[ignore = "needs libjansson-dev"]
fn a_library_that_crashes() {
    let server = Server::start(&[]);
    let (mut one, mut other) = (server.client(), server.client());
    for client in [&mut one, &mut other] {
        client.call("count", "");
        client.expect_result("1");
    }
    for (round, method) in ["crash", "leave", "write_nowhere"].into_iter().enumerate() {
        one.call(method, "");
        other.call("count", "");
        one.expect_error(INTERNAL);
        other.expect_result(&(2 + round).to_string());
    }
    for method in ["crash", "write_nowhere"] {
        let ended = format!("a client ended in {method:?}");
        server.process.err.wait_for(&["-L", "ouistiti.so", &ended, "SIGSEGV"]);
    }
    server.process.err.wait_for(&["ended in \"leave\"", "exit status: 3"]);
    one.call("count", "");
    one.expect_result("1");
    one.send(
        r#"[{"jsonrpc":"2.0","method":"count","id":1},{"jsonrpc":"2.0","method":"crash","id":2},
            {"jsonrpc":"2.0","method":"crash"},{"jsonrpc":"2.0","method":"count","id":3}]"#,
    );
    one.expect(&format!(
        "[{},{},{}]",
        r#"{"jsonrpc":"2.0","result":2,"id":1}"#,
        format_args!(r#"{{"jsonrpc":"2.0","error":{INTERNAL},"id":2}}"#),
        r#"{"jsonrpc":"2.0","result":1,"id":3}"#,
    ));
    other.call("count", "");
    other.expect_result("5");
    eventually_eq(|| server.children().len(), &2, "a client has one process");
}

#[test]
#[ignore = "needs libjansson-dev"]
fn a_library_that_blocks() {
    let folder = Folder::new();
    let (library, log) = (ouistiti(&folder), folder.join("log"));
    let server = Server::start_in(folder, &library, &["-C", &log, "--call-ms", "10000"]);
    let (mut one, mut other) = (server.client(), server.client());
    other.call("count", "");
    other.expect_result("1");
    let mut count = 1;
    let blocks = |one: &mut Client| {
        let logged = || fs::read_to_string(&log).unwrap().matches("block").count();
        let before = logged();
        one.call("block", "");
        eventually("it blocks, or is over", || logged() > before || has_an_answer(one));
    };
    let is_served_meanwhile = |_| {
        let start = Instant::now();
        blocks(&mut one);
        for _ in 0..5 {
            count += 1;
            other.call("count", "");
            other.expect_result(&count.to_string());
        }
        let children = server.children().len();
        let is_served = !has_an_answer(&one);
        assert!(is_served || start.elapsed() >= Duration::from_secs(10), "the call was too short");
        one.expect_error(INTERNAL);
        if is_served {
            assert_eq!(children, 2);
        } else {
            eprintln!("the call was over before the other one was served: once more");
            eventually("its process has ended", || server.children().len() == 1);
        }
        is_served
    };
    assert!((0..5).any(is_served_meanwhile), "the other one had to wait");
    server.process.err.wait_for(&["ended in \"block\"", "SIGKILL", "more than 10000 ms"]);
    one.call("count", "");
    one.expect_result("1");
    other.call("count", "");
    other.expect_result(&(count + 1).to_string());
    // A client that leaves during a blocking call leaves nothing.
    blocks(&mut one);
    drop(one);
    eventually("its process has ended", || server.children().len() == 1);
}

#[test]
#[ignore = "needs libjansson-dev"]
fn a_library_that_waits_for_another_program() {
    let folder = Folder::new();
    let (library, log) = (ouistiti(&folder), folder.join("log"));
    let server = Server::start_in(folder, &library, &["-C", &log, "--call-ms", "5000"]);
    let mut one = server.client();
    let mut pid = String::new();
    // It may be suspended for as long as a call may take.
    eventually("it has started one", || {
        one.call("wait_for_another", "");
        eventually("it starts one, or is over", || {
            pid = fs::read_to_string(&log).unwrap_or_default().trim().to_owned();
            pid.parse::<i32>().is_ok() || has_an_answer(&one)
        });
        one.expect_error(INTERNAL);
        pid.parse::<i32>().is_ok()
    });
    expect_gone(&[pid.parse().unwrap()]);
}

#[test]
#[ignore = "needs libjansson-dev"]
fn a_client_that_disconnects_with_pending_requests_frees_its_slot() {
    let folder = Folder::new();
    let (library, log) = (ouistiti(&folder), folder.join("log"));
    let server = Server::start_in(folder, &library, &["-C", &log, "--call-ms", "1000", "-m", "1"]);
    let mut one = server.client();
    one.send(r#"{"jsonrpc":"2.0","method":"block"}"#.repeat(1_000));
    drop(one);
    // It fits once the other is gone.
    let mut other = server.client();
    // Its process may be suspended for as long as a call may take, and is replaced then.
    eventually("the other one is served", || {
        other.call("count", "");
        let answer = other.answer();
        let is_late = answer.contains(INTERNAL);
        assert!(is_late || answer == r#"{"jsonrpc":"2.0","result":1,"id":1}"#, "{answer}");
        !is_late
    });
}

#[test]
#[ignore = "needs libjansson-dev"]
fn a_library_that_leaks() {
    const PROCESS_KIB_MAX: u64 = 400 * 1024;
    let server = Server::start(&["--memory-mib", "400"]);
    let (mut one, mut other) = (server.client(), server.client());
    other.call("count", "");
    other.expect_result("1");
    let mut replaced = 0;
    for _ in 0..20 {
        one.call("leak", "");
        let answer = one.answer();
        assert!(answer.contains("\"result\":"), "{answer}");
        replaced += usize::from(answer.contains("\"result\":1,"));
        for child in server.children() {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap_or("0");
            let size_kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(size_kib <= PROCESS_KIB_MAX, "{size_kib} KiB");
        }
    }
    assert!(replaced > 2, "its process was replaced {replaced} times");
    other.call("count", "");
    other.expect_result("2");
}

#[test]
#[ignore = "needs libjansson-dev"]
fn an_answer_that_exceeds_the_memory_limit() {
    let server = Server::start(&[]);
    let (mut one, mut other) = (server.client(), server.client());
    other.call("count", "");
    other.expect_result("1");
    for size in ["[70000000]", "[600000000]"] {
        one.call("repeat", size);
        one.expect_error(INTERNAL);
    }
    one.expect_nothing_else();
    other.call("count", "");
    other.expect_result("2");
}
