//! Folders that change while they are served: renames, and releases that replace each other.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::unistd::Uid;

use crate::daemon::{Daemon, configuration, uakari};
use crate::http::put;
use crate::process::{DEADLINE, Folder, IsOver, eventually, exchange_files, expect_eq, skipped};
use crate::server::{Kind, Listener};

/// openat2(2): with RESOLVE_BENEATH a walk across `..` fails with EAGAIN while anything is renamed anywhere.
#[test]
pub fn renames_elsewhere_have_no_effect() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let _server = daemon.echo("server", &[]);
    for name in ["run/sub", "www/sub"] {
        fs::create_dir(daemon.folder().join(name)).unwrap();
    }
    put(&daemon, "page", "the page");
    symlink("sub/../page", daemon.folder().join("www/link")).unwrap();
    symlink("sub/../server", daemon.folder().join("run/link")).unwrap();
    let (one, other) = (daemon.folder().join("one"), daemon.folder().join("other"));
    fs::write(&one, "").unwrap();
    let flag = AtomicBool::new(false);
    let (pages, sockets) = thread::scope(|scope| {
        let is_over = IsOver(&flag);
        scope.spawn(|| {
            while !flag.load(Ordering::Relaxed) {
                fs::rename(&one, &other).unwrap();
                fs::rename(&other, &one).unwrap();
            }
        });
        let mut wire = daemon.wire();
        let mut pages: Vec<u16> = (0..4_000).map(|_| wire.get("/link").status).collect();
        let mut sockets: Vec<u16> = (0..500).map(|_| daemon.upgrade("/link", &[]).status).collect();
        drop(is_over);
        pages.retain(|status| *status != 200);
        sockets.retain(|status| *status != 101);
        (pages, sockets)
    });
    assert!(pages.is_empty() && sockets.is_empty(), "pages {pages:?}, sockets {sockets:?}");
}

/// A release: its pages, and the folder of its servers.
fn release(folder: &Folder, name: &str) {
    for part in ["www", "run"] {
        fs::create_dir_all(folder.path().join(name).join(part)).unwrap();
    }
    fs::write(folder.path().join(name).join("www/page"), name).unwrap();
}

fn server(folder: &Folder, name: &str) -> Listener {
    Listener::bind(&folder.path().join(name).join("run/server"), Kind::Stream)
}

/// As `ln -sfn`, or an atomic rename.
fn switch(link: &Path, to: &str) {
    let new = link.with_extension("new");
    symlink(to, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[test]
pub fn a_new_release_is_served_without_a_signal() {
    let folder = Folder::new();
    let current = folder.path().join("current");
    for name in ["one", "two", "three"] {
        release(&folder, name);
    }
    symlink("one", &current).unwrap();
    let (first, second) = (server(&folder, "one"), server(&folder, "two"));
    let text = configuration("", "").replace("@/www", "@/current/www").replace("@/run", "@/current/run");
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let mut kept_alive = daemon.wire();
    let page = |wire: &mut crate::wire::Wire| {
        let response = wire.get("/page");
        (response.text(), response.field("ETag").to_owned())
    };
    let (text, tag) = page(&mut kept_alive);
    expect_eq(text, "one".to_owned(), "the page");
    let mut old = daemon.connect("/server");
    let mut old_backend = first.accept();

    let start = Instant::now();
    switch(&current, "two");
    // For proxies that keep their connections, too.
    eventually("the new page", || page(&mut kept_alive).0 == "two");
    eventually("the new server", || {
        let connected = daemon.upgrade("/server", &[]).status == 101;
        connected && !second.is_idle()
    });
    // The promise is a second.
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    drop(second.accept());
    assert_ne!(page(&mut kept_alive).1, tag);
    expect_eq(daemon.get("/page").text(), "two".to_owned(), "the page of a new connection");
    // Existing connections continue.
    old.text("question");
    old_backend.expect("question");

    // Folders that change their names.
    // Neither is missing for a while, which would be logged.
    exchange_files(&current, &daemon.folder().path().join("three"));
    fs::remove_file(daemon.folder().join("three")).unwrap();
    eventually("the third page", || page(&mut kept_alive).0 == "three");

    // Missing for a while: the old one stays, and one line is logged.
    fs::rename(&current, daemon.folder().join("three")).unwrap();
    // Folders are checked while clients are connected.
    let mut wait_for_line = |parts: &[&str]| {
        eventually(&format!("a line with {parts:?}"), || {
            expect_eq(page(&mut kept_alive).0, "three".to_owned(), "the page");
            daemon.log().text().lines().any(|line| parts.iter().all(|part| line.contains(part)))
        });
    };
    wait_for_line(&["warn", "current/www cannot be opened again: No such file", "create it again"]);
    fs::rename(daemon.folder().join("three"), &current).unwrap();
    wait_for_line(&["info", "current/www is there again"]);
    let file = daemon.folder().path().join("file");
    fs::write(&file, "").unwrap();
    exchange_files(&current, &file);
    wait_for_line(&["warn", "current/www cannot be opened again: Not a directory", "put a folder in its place"]);
    let warnings = daemon.log().text().matches("current/www cannot be opened again").count();
    expect_eq(warnings, 2, "warnings");
}

/// root may open what the daemon's user may not: such a release is not taken.
#[test]
fn a_release_without_search_permission() {
    if !Uid::effective().is_root() {
        return skipped("only root can become another user");
    }
    let folder = Folder::new();
    let current = folder.path().join("current");
    ["one", "two"].iter().for_each(|name| release(&folder, name));
    symlink("one", &current).unwrap();
    let secret = folder.path().join("two/www");
    fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
    let text = "user = \"nobody\"; ".to_owned() + &configuration("", "").replace("@/www", "@/current/www");
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    switch(&current, "two");
    let remedy = "current/www cannot be opened again: Permission denied: the old one stays: give the daemon's user search permission";
    // Folders are checked while clients are connected.
    eventually("the warning", || {
        expect_eq(daemon.get("/page").text(), "one".to_owned(), "the page");
        daemon.log().text().contains(remedy)
    });
    fs::set_permissions(&secret, Permissions::from_mode(0o755)).unwrap();
    eventually("the new page", || daemon.get("/page").text() == "two");
}
