//! Which driver a daemon uses, and system calls that containers and old kernels refuse.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, UAKARI_PATH, configuration, uakari_without, without_calls};
use crate::privileges::{as_lone_user, expect_service};
use crate::process::{DEADLINE, Finished, Folder, can_unshare, run, skipped};
use crate::{faults, files, http, links, names, releases};

/// Why a test of io_uring is left out.
pub const NO_RING: &str = "io_uring cannot be used here";

/// Whether a daemon can set a ring up.
pub fn has_io_uring() -> bool {
    Daemon::start(&["--driver", "auto"]).driver() == "io_uring"
}

/// Otherwise the variable might be without effect.
#[test]
fn the_variable_chooses_the_driver() {
    let driver = Daemon::start(&[]).driver();
    match std::env::var("UAKARI_DRIVER").as_deref() {
        Ok("uring") => assert_eq!(driver, "io_uring"),
        Ok("epoll") => assert_eq!(driver, "epoll"),
        _ => assert!(["io_uring", "epoll"].contains(&&*driver), "{driver}"),
    }
}

#[test]
fn the_flag_and_the_key_choose_the_driver() {
    let daemon = Daemon::start(&["--driver", "epoll"]);
    assert_eq!(daemon.driver(), "epoll");
    expect_service(&daemon);
    let start = |text: &str| Daemon::start_configured_by(Folder::new(), text, Command::new(UAKARI_PATH));
    let daemon = start(&format!("driver = \"epoll\"; {}", configuration("", "")));
    assert_eq!(daemon.driver(), "epoll");
    expect_service(&daemon);
    assert!(!daemon.log().text().contains("io_uring"), "{}", daemon.log().text());
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    assert_eq!(start(&configuration("", "")).driver(), "io_uring");
    assert_eq!(start(&format!("driver = \"uring\"; {}", configuration("", ""))).driver(), "io_uring");
}

/// A daemon that cannot use io_uring serves on epoll, and one line of its log names the cause and what is lost. With
/// `--driver uring` it ends with the cause.
fn expect_fallback(folder: Folder, command: impl Fn() -> Command, parts: &[&str]) {
    let docroot = folder.join("");
    let flags = ["--driver", "uring", "--listen", "127.0.0.1:0", "--docroot", &docroot];
    let Finished { status, out, err } = run(command().args(flags), DEADLINE);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    let errors: Vec<&str> = err.lines().filter(|line| line.contains(" error ")).collect();
    let [error] = errors[..] else { panic!("{} errors: {err}", errors.len()) };
    for part in [parts, &["--driver uring: ", "write auto or epoll"]].concat() {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }

    let mut daemon = Daemon::start_configured_by(folder, &configuration("", ""), command());
    assert_eq!(daemon.driver(), "epoll");
    expect_service(&daemon);
    let err = daemon.stop().err;
    let lines: Vec<&str> = err.lines().filter(|line| parts.iter().any(|part| line.contains(part))).collect();
    let [line] = lines[..] else { panic!("{} lines: {err}", lines.len()) };
    for part in [parts, &[" warn ", "serving with epoll, which takes more CPU per message"]].concat() {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

/// As container profiles refuse them: all calls of io_uring, or some.
#[test]
#[ignore = "needs python3"]
fn refused_calls_of_io_uring() {
    for (refused, parts) in [
        ("io_uring_setup=EPERM", ["seccomp profile", "io_uring_setup"]),
        ("io_uring_setup=ENOSYS", ["no io_uring", "Linux 6.1"]),
        ("io_uring_register=EPERM", ["seccomp profile", "io_uring_register"]),
        ("io_uring_register=ENOSYS", ["no io_uring", "Linux 6.1"]),
        ("io_uring_enter=EPERM", ["seccomp profile", "io_uring_enter"]),
        ("io_uring_enter=ENOSYS", ["no io_uring", "Linux 6.1"]),
    ] {
        println!("{refused}");
        expect_fallback(Folder::new(), || uakari_without(&[refused]), &parts);
    }
}

/// The sysctl holds for the whole machine, so the daemon sees another value in a mount namespace of its own, and a filter
/// refuses the call as the kernel would.
#[test]
#[ignore = "needs python3"]
fn io_uring_switched_off_by_sysctl() {
    const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
    if !Path::new(SYSCTL).exists() || !can_unshare(&["--mount"]) {
        return skipped("only root can mount, and kernel.io_uring_disabled came with Linux 6.6");
    }
    let folder = Folder::new();
    let value = folder.join("value");
    fs::write(&value, "2\n").unwrap();
    let refused = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"]);
        let refuser = uakari_without(&["io_uring_setup=EPERM"]);
        command.args([&value, SYSCTL]).arg(refuser.get_program()).args(refuser.get_args());
        command
    };
    expect_fallback(folder, refused, &["kernel.io_uring_disabled = 2", "sysctl -w kernel.io_uring_disabled=0"]);
}

/// A ring needs locked memory, which epoll does not. Whether a limit of 0 refuses a ring depends on the kernel.
#[test]
fn no_locked_memory() {
    let folder = Folder::new();
    let Some(daemon) = as_lone_user(&folder) else {
        return skipped("only root can start a daemon as a user without CAP_IPC_LOCK");
    };
    let limited = || {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l 0 && exec \"$@\"", "sh"]).arg(daemon.get_program()).args(daemon.get_args());
        command
    };
    let daemon = Daemon::start_configured_by(Folder::new(), &configuration("", ""), limited());
    assert_eq!(daemon.get("/nosuch").status, 404);
    if daemon.driver() == "epoll" {
        expect_fallback(Folder::new(), limited, &["RLIMIT_MEMLOCK", "LimitMEMLOCK"]);
    }
}

/// As on kernels before 5.6.
const NO_OPENAT2: &[&str] = &["openat2=ENOSYS"];

#[test]
#[ignore = "needs python3"]
fn names_without_openat2() {
    without_calls(
        NO_OPENAT2,
        &[
            names::every_spelling_of_a_name,
            names::allow_and_deny,
            names::symbolic_links_out_of_docroot_are_refused,
            names::circular_symbolic_links_are_refused,
            names::a_long_docroot_path_is_supported,
            names::a_socket_created_later_is_found,
            links::a_socket_outside_docroot,
            links::a_link_to_a_missing_socket,
            links::symbolic_links_out_of_docroot_where_they_are_followed,
        ],
    );
}

#[test]
#[ignore = "needs python3"]
fn pages_without_openat2() {
    without_calls(
        NO_OPENAT2,
        &[
            http::files_and_their_media_types,
            http::a_folder_without_slash_is_redirected,
            http::hidden_names_are_not_served,
            http::a_symbolic_link_out_of_the_folder_is_refused,
            http::only_regular_files_are_served,
            files::precompressed_variants,
            files::byte_ranges,
        ],
    );
}

#[test]
#[ignore = "needs python3"]
fn changing_folders_without_openat2() {
    without_calls(
        NO_OPENAT2,
        &[
            releases::renames_elsewhere_have_no_effect,
            releases::a_new_release_is_served_without_a_signal,
            faults::a_folder_that_is_created_again_is_found,
            faults::a_replaced_backend_receives_new_clients,
            faults::swapping_the_socket_file_never_escapes_docroot,
            faults::swapping_a_folder_never_escapes_docroot,
        ],
    );
}

/// A profile that permits only what it knows forbids the call.
#[test]
#[ignore = "needs python3"]
fn names_with_openat2_forbidden() {
    without_calls(&["openat2=EPERM"], &[names::symbolic_links_out_of_docroot_are_refused]);
}
