//! Faulty libraries: the caller gets an error, and others are not affected.

use std::os::fd::AsRawFd;

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
    assert_eq!(server.children().len(), 2);
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
    one.call("block", "");
    eventually("it blocks", || fs::read_to_string(&log).unwrap().contains("block"));
    let children = server.children();
    assert_eq!(children.len(), 2);
    for count in 2..20 {
        other.call("count", "");
        other.expect_result(&count.to_string());
    }
    assert!(!has_an_answer(&one), "the other one had to wait");
    one.expect_error(INTERNAL);
    server.process.err.wait_for(&["ended in \"block\"", "SIGKILL", "more than 10000 ms"]);
    one.call("count", "");
    one.expect_result("1");
    other.call("count", "");
    other.expect_result("20");
    // A client that leaves during a blocking call leaves nothing.
    one.call("block", "");
    eventually("it blocks again", || fs::read_to_string(&log).unwrap().matches("block").count() == 2);
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
    one.call("wait_for_another", "");
    let mut pid = String::new();
    eventually("it has started one", || {
        pid = fs::read_to_string(&log).unwrap_or_default().trim().to_owned();
        pid.parse::<i32>().is_ok()
    });
    one.expect_error(INTERNAL);
    eventually("it was killed too", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
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
    other.call("count", "");
    other.expect_result("1");
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
