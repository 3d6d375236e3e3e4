//! The methods, on databases of every layout.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// A database, and a connection to it.
struct World {
    folder: TempDir,
    root: String,
}

impl World {
    /// A database created by the library.
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Vec::new();
        store::create(&folder.path().join("db"), &mut output).unwrap();
        let output = String::from_utf8(output).unwrap();
        let root = output.split(' ').skip_while(|word| *word != "password").nth(1).unwrap().to_owned();
        World { folder, root }
    }

    /// A database of ouistiti, with the password `root` for root.
    fn of_ouistiti(sql: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let world = World { folder, root: "root".to_owned() };
        Connection::open(world.file()).unwrap().execute_batch(sql).unwrap();
        store::create(world.file().as_ref(), &mut Vec::new()).unwrap();
        world
    }

    fn file(&self) -> String {
        self.folder.path().join("db").to_str().unwrap().to_owned()
    }

    fn open(&self, address: Option<&str>) -> Auth {
        Auth::open(&self.file(), &Peer { address: address.map(str::to_owned), id: None }).unwrap()
    }

    /// A connection with root logged in.
    fn as_root(&self) -> Auth {
        let mut auth = self.open(None);
        call(&mut auth, "auth", json!({ "user": "root", "passwd": self.root })).unwrap();
        auth
    }

    fn stored(&self, user: &str) -> String {
        self.as_root().store.user(user).unwrap().unwrap().stored.unwrap_or_default()
    }
}

fn call(auth: &mut Auth, method: &str, params: Value) -> Result<Value, (i32, String)> {
    match auth.call(method, Some(&params.to_string())) {
        Ok(text) => Ok(serde_json::from_str(&text).unwrap()),
        Err(failure) => Err((failure.code, failure.message)),
    }
}

fn said(text: &str) -> Result<Value, (i32, String)> {
    Ok(json!({ "message": text }))
}

fn refused(failure: Failure) -> Result<Value, (i32, String)> {
    Err((failure.code, failure.message))
}

/// ouistiti's current layout, with root's initial password.
const APART: &str = "
    create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    insert into groups values (0, 'root'), (1, 'anonymous'), (2, 'users');
    create table status (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    insert into status values (1, 'approving'), (2, 'activated'), (3, 'repudiated'), (4, 'reapproving');
    create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 1, home TEXT,
        FOREIGN KEY (groupid) REFERENCES groups(id) ON UPDATE SET NULL);
    create table passwds (userid INTEGER NOT NULL, passwd TEXT, issuer TEXT, statusid INTEGER DEFAULT 1,
        FOREIGN KEY (userid) REFERENCES users(id) ON DELETE CASCADE,
        FOREIGN KEY (statusid) REFERENCES status(id) ON UPDATE SET NULL);
    create table session (token TEXT PRIMARY KEY, userid INTEGER NOT NULL, expire INTEGER,
        FOREIGN KEY (userid) REFERENCES users(id) ON DELETE CASCADE);
    insert into users (id, name, groupid, home) values (1, 'root', 0, '/home/root'), (2, 'new', 2, null),
        (3, 'gone', 2, null), (4, 'nobody', 1, null);
    insert into passwds values (1, 'for another place', 'elsewhere', 2), (1, 'root', null, 4), (2, 'pw', null, 1),
        (3, 'pw', null, 3), (4, '', null, 2);
    insert into session values ('t', 1, null);";

/// The layout of its releases: passwords and states in `users`.
const WITHIN: &str = "
    create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    insert into groups values (0, 'root'), (1, 'anonymous'), (2, 'users');
    create table status (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    insert into status values (1, 'approving'), (2, 'activated'), (3, 'repudiated'), (4, 'reapproving');
    create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 2 NOT NULL,
        statusid INTEGER DEFAULT 1 NOT NULL, passwd TEXT, home TEXT);
    insert into users values (1, 'root', 0, 4, 'root', '/home/root'), (2, 'new', 2, 1, 'pw', null),
        (3, 'gone', 2, 3, 'pw', null), (4, 'nobody', 1, 2, '', 'null');";

/// The layout that the documentation of its authrpc describes.
const OLD: &str = "
    create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    insert into groups values (0, 'root'), (2, 'users');
    create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER, passwd TEXT, home TEXT);
    insert into users values (1, 'root', 0, '$a5$SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=', '/home/root'),
        (5, 'five', 2, '$a5$MMlS+rEiw/l1nwKm2Vw3WLJGtP7iOZV7LU/uRuJhcMQ=', null),
        (6, 'six', 2, '$a6$nothing', null);";

#[test]
fn a_new_database() {
    let world = World::new();
    let mode = std::fs::metadata(world.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut auth = world.open(None);
    assert_eq!(
        call(&mut auth, "auth", json!({ "user": "root", "passwd": world.root })),
        Ok(json!({ "algorithm": "argon2id", "group": "root", "home": "/home/root", "user": "root" }))
    );
    let mut output = Vec::new();
    store::create(world.file().as_ref(), &mut output).unwrap();
    assert!(output.is_empty(), "the password is printed once");
}

#[test]
fn a_password_that_cannot_be_printed_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let failure = store::create(&file, &mut [].as_mut_slice()).unwrap_err();
    assert!(failure.message.contains("cannot be printed"), "{failure:?}");
    let mut output = Vec::new();
    store::create(&file, &mut output).unwrap();
    assert!(!output.is_empty(), "it is printed at the next start");
}

#[test]
fn a_user_is_added_changed_and_removed() {
    let world = World::new();
    let (mut root, mut own) = (world.as_root(), world.open(None));
    let add = json!({ "user": "alice", "passwd": "first", "home": "/home/alice" });
    assert_eq!(call(&mut root, "adduser", add.clone()), said("user added"));
    assert_eq!(call(&mut root, "adduser", add), Err((CONFLICT, "user exists".to_owned())));
    assert_eq!(
        call(&mut own, "auth", json!({ "user": "alice", "passwd": "first" })),
        Ok(json!({ "algorithm": "argon2id", "group": "users", "home": "/home/alice", "user": "alice" }))
    );
    let change =
        |old: &str, new: &str, confirm: &str| json!({ "user": "alice", "old": old, "new": new, "confirm": confirm });
    for (params, expected) in [
        (change("wrong", "second", "second"), refused(not_found())),
        (change("first", "second", "third"), Err((abi::INVALID_PARAMS, "confirm new password".to_owned()))),
        (change("first", "second", "second"), said("password changed")),
        (change("first", "second", "second"), refused(not_found())),
        // Without the old one, as only root may.
        (change("", "third", "third"), refused(not_allowed())),
    ] {
        assert_eq!(call(&mut own, "passwd", params.clone()), expected, "{params}");
    }
    assert_eq!(call(&mut root, "passwd", change("", "third", "third")), said("password changed"));
    assert_eq!(call(&mut own, "rmuser", json!({ "user": "alice", "passwd": "second" })), refused(not_found()));
    assert_eq!(call(&mut own, "rmuser", json!({ "user": "alice", "passwd": "third" })), said("user removed"));
    assert_eq!(call(&mut own, "auth", json!({ "user": "alice", "passwd": "third" })), refused(not_found()));
    assert_eq!(call(&mut root, "rmuser", json!({ "user": "alice" })), refused(not_found()));
}

#[test]
fn invalid_calls() {
    let world = World::new();
    let mut root = world.as_root();
    let incomplete = || Err((abi::INVALID_PARAMS, "incomplete command".to_owned()));
    let long = "x".repeat(PASSWORD_SIZE_MAX + 1);
    for (method, params, expected) in [
        ("auth", json!({}), incomplete()),
        ("auth", json!({ "user": "root" }), incomplete()),
        ("auth", json!({ "user": "", "passwd": "x" }), incomplete()),
        (
            "auth",
            json!({ "user": "root", "passwd": 7 }),
            Err((abi::INVALID_PARAMS, "passwd is not a string".to_owned())),
        ),
        (
            "auth",
            json!({ "user": "root", "passwd": long }),
            Err((abi::INVALID_PARAMS, "passwd has more than 256 bytes".to_owned())),
        ),
        ("passwd", json!({ "user": "root", "new": "x" }), incomplete()),
        ("passwd", json!({ "user": "nobody", "new": "x", "confirm": "x" }), refused(not_found())),
        ("adduser", json!({ "user": "x" }), incomplete()),
        (
            "adduser",
            json!({ "user": " x", "passwd": "x" }),
            Err((abi::INVALID_PARAMS, "invalid name: spaces around it, or control characters".to_owned())),
        ),
        (
            "adduser",
            json!({ "user": "x\n", "passwd": "x" }),
            Err((abi::INVALID_PARAMS, "invalid name: spaces around it, or control characters".to_owned())),
        ),
        (
            "adduser",
            json!({ "user": "x", "passwd": "x", "group": "none" }),
            Err((CONFLICT, "group not found".to_owned())),
        ),
        ("rmuser", json!({}), incomplete()),
        ("rmuser", json!({ "user": "root" }), Err((CONFLICT, "the last of the root group stays".to_owned()))),
        ("drop", json!({}), refused(Failure::method_not_found())),
    ] {
        assert_eq!(call(&mut root, method, params.clone()), expected, "{method} {params}");
    }
    assert_eq!(root.call("auth", None).unwrap_err().code, abi::INVALID_PARAMS);
    assert_eq!(root.call("auth", Some("[\"root\",\"x\"]")).unwrap_err().code, abi::INVALID_PARAMS);
    // ouistiti's page reads the data.
    assert_eq!(root.call("rmuser", Some("{}")).unwrap_err().data, "\"incomplete command\"");
}

#[test]
fn only_the_root_group_changes_others() {
    let world = World::new();
    let (mut root, mut own, mut stranger) = (world.as_root(), world.open(None), world.open(None));
    for (user, group) in [("alice", "users"), ("bob", "users"), ("second", "root")] {
        call(&mut root, "adduser", json!({ "user": user, "passwd": "pw", "group": group })).unwrap();
    }
    call(&mut own, "auth", json!({ "user": "alice", "passwd": "pw" })).unwrap();
    for (method, params) in [
        ("adduser", json!({ "user": "eve", "passwd": "pw" })),
        ("adduser", json!({ "user": "eve", "passwd": "pw", "group": "root" })),
        ("adduser", json!({ "user": "alice", "passwd": "pw" })),
        ("rmuser", json!({ "user": "bob" })),
        ("rmuser", json!({ "user": "alice", "passwd": "" })),
        ("passwd", json!({ "user": "root", "new": "x", "confirm": "x" })),
        ("passwd", json!({ "user": "nobody", "new": "x", "confirm": "x" })),
    ] {
        assert_eq!(call(&mut stranger, method, params.clone()), refused(not_allowed()), "{method} {params}");
        assert_eq!(call(&mut own, method, params.clone()), refused(not_allowed()), "{method} {params}");
    }
    // Another of the root group may replace the first.
    let mut second = world.open(None);
    call(&mut second, "auth", json!({ "user": "second", "passwd": "pw" })).unwrap();
    assert_eq!(call(&mut second, "rmuser", json!({ "user": "root" })), said("user removed"));
    assert_eq!(call(&mut root, "rmuser", json!({ "user": "bob" })), refused(not_allowed()), "root is gone");
    assert!(root.session.is_none());
}

#[test]
fn a_session_ends_with_its_password() {
    let world = World::new();
    let (mut one, mut other) = (world.as_root(), world.as_root());
    let change = json!({ "user": "root", "old": world.root, "new": "changed", "confirm": "changed" });
    assert_eq!(call(&mut one, "passwd", change), said("password changed"));
    let add = json!({ "user": "alice", "passwd": "pw" });
    assert_eq!(call(&mut other, "adduser", add.clone()), refused(not_allowed()));
    assert_eq!(call(&mut one, "adduser", add), said("user added"), "the connection that changed it stays logged in");
    other.store.db.execute("update users set groupid = 2 where name = 'root'", []).unwrap();
    assert_eq!(call(&mut one, "rmuser", json!({ "user": "alice" })), refused(not_allowed()), "groups change too");
}

#[test]
fn sql_in_every_parameter() {
    let world = World::new();
    let mut root = world.as_root();
    for evil in ["x' or '1'='1", "x'; drop table users; --", "x\" or 1=1 --", "root'--", "%", "x\0y", "${jndi}", "😀"]
    {
        assert_eq!(call(&mut world.open(None), "auth", json!({ "user": evil, "passwd": evil })), refused(not_found()));
        assert_eq!(
            call(&mut world.open(None), "rmuser", json!({ "user": evil, "passwd": evil })),
            refused(not_found()),
            "{evil}"
        );
        let group = json!({ "user": "x", "passwd": "x", "group": evil });
        assert_eq!(call(&mut root, "adduser", group), Err((CONFLICT, "group not found".to_owned())));
        if !evil.contains('\0') {
            let add = json!({ "user": evil, "passwd": evil, "home": evil });
            assert_eq!(call(&mut root, "adduser", add), said("user added"), "{evil}");
            let user = call(&mut world.open(None), "auth", json!({ "user": evil, "passwd": evil })).unwrap();
            assert_eq!((&user["user"], &user["home"]), (&json!(evil), &json!(evil)), "it is an ordinary name");
            let change = json!({ "user": evil, "old": evil, "new": "n", "confirm": "n" });
            assert_eq!(call(&mut world.open(None), "passwd", change), said("password changed"));
            assert_eq!(call(&mut root, "rmuser", json!({ "user": evil })), said("user removed"), "{evil}");
        }
    }
    let users: i64 = root.store.db.query_row("select count(*) from users", [], |row| row.get(0)).unwrap();
    assert_eq!(users, 1);
}

#[test]
fn databases_of_ouistiti() {
    for (layout, sql) in [("apart", APART), ("within", WITHIN), ("old", OLD)] {
        let world = World::of_ouistiti(sql);
        let mut root = world.as_root();
        assert!(world.stored("root").starts_with("$argon2id$"), "{layout}: it was upgraded");
        assert_eq!(
            call(&mut root, "adduser", json!({ "user": "alice", "passwd": "pw" })),
            said("user added"),
            "{layout}"
        );
        let mut alice = world.open(None);
        assert_eq!(
            call(&mut alice, "auth", json!({ "user": "alice", "passwd": "pw" })),
            Ok(json!({ "algorithm": "argon2id", "group": "users", "user": "alice" })),
            "{layout}"
        );
        let change = json!({ "user": "root", "old": "root", "new": "better", "confirm": "better" });
        assert_eq!(call(&mut alice, "passwd", change), said("password changed"), "{layout}");
        if layout != "old" {
            let (table, id) = root.store.password_table();
            let sql =
                format!("select count(*) from {table} where {id} = 1 and statusid = 2 and passwd like '$argon2id$%'");
            let count: i64 = root.store.db.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(count, 1, "{layout}: it had to be changed, and was");
            for (user, password) in [("new", "pw"), ("gone", "pw"), ("nobody", "x")] {
                let params = json!({ "user": user, "passwd": password });
                assert_eq!(call(&mut world.open(None), "auth", params), refused(not_found()), "{layout} {user}");
            }
        }
        assert_eq!(
            call(&mut alice, "rmuser", json!({ "user": "alice", "passwd": "pw" })),
            said("user removed"),
            "{layout}"
        );
    }
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    std::fs::write(&file, "no database at all, but long enough to be looked at").unwrap();
    let said = Auth::start(file.to_str().unwrap()).unwrap_err();
    assert!(said.message.contains("not a database") && said.message.contains("/db"), "{said:?}");
    std::fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("create table users (id, name)").unwrap();
    let said = Auth::start(file.to_str().unwrap()).unwrap_err();
    assert!(said.message.contains("no database of users") && said.message.contains("passwds"), "{said:?}");
    for (config, part) in
        [("", "names no database"), ("/no/such/folder/db", "/no/such/folder/db"), ("file=/x,write=1", "write")]
    {
        let said = Auth::start(config).unwrap_err();
        assert!(said.message.contains(part), "{config}: {said:?}");
    }
}

#[test]
fn ten_thousand_wrong_passwords() {
    let world = World::new();
    let address = Some("192.0.2.7");
    let (mut checked, mut waited) = (0, 0);
    let mut auth = world.open(address);
    for number in 0..10_000 {
        // A new connection does not help, nor does another process.
        if number % 1_000 == 0 {
            auth = world.open(address);
        }
        let (code, message) =
            call(&mut auth, "auth", json!({ "user": "root", "passwd": format!("pw{number}") })).unwrap_err();
        match code {
            NOT_FOUND => checked += 1,
            WAIT => waited += 1,
            _ => panic!("{code} {message}"),
        }
    }
    // Every second that passes allows another attempt.
    assert!((5..15).contains(&checked) && waited == 10_000 - checked, "{checked} and {waited}");
    let right = json!({ "user": "root", "passwd": world.root });
    assert_eq!(call(&mut auth, "auth", right.clone()).unwrap_err().0, WAIT, "the right password has to wait too");
    let failure = auth.call("auth", Some(&right.to_string())).unwrap_err();
    assert!(
        failure.message.starts_with("too many attempts: wait ") && failure.data.starts_with("{\"wait\":"),
        "{failure:?}"
    );
    let other = call(&mut world.open(Some("192.0.2.8")), "auth", right);
    assert!(other.is_ok(), "root from another address: {other:?}");
}

#[test]
fn an_empty_file_becomes_private() {
    for (before, after) in [(0o644, 0o600), (0o666, 0o600), (0o660, 0o660), (0o600, 0o600)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(before)).unwrap();
        store::create(&file, &mut Vec::new()).unwrap();
        for name in ["db", "db-journal"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, after, "{name}, which was {before:o}");
        }
    }
}

/// For example a restored backup.
#[test]
fn a_database_may_be_replaced_while_the_server_runs() {
    let world = World::new();
    std::fs::remove_file(world.file()).unwrap();
    Connection::open(world.file()).unwrap().execute_batch(OLD).unwrap();
    assert!(call(&mut world.open(None), "auth", json!({ "user": "root", "passwd": "root" })).is_ok());
}

#[test]
fn another_database_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let db = Connection::open(&file).unwrap();
    db.execute_batch("create table measurements (at, value)").unwrap();
    Auth::start(file.to_str().unwrap()).unwrap_err();
    let tables: u32 = db.query_row("select count(*) from sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn the_last_administrator_cannot_be_removed() {
    let last = || Err((CONFLICT, "the last of the root group stays".to_owned()));
    for (layout, sql, column) in [("apart", APART, "userid"), ("within", WITHIN, "id"), ("old", OLD, "id")] {
        let world = World::of_ouistiti(sql);
        let mut root = world.as_root();
        call(&mut root, "adduser", json!({ "user": "second", "passwd": "pw", "group": "root" })).unwrap();
        let set = |what: &str| {
            let (table, _) = root.store.password_table();
            let of = format!("where {column} = (select id from users where name = 'second')");
            root.store.db.execute(&format!("update {table} set {what} {of}"), []).unwrap();
        };
        let mut whats = vec!["passwd = '*'", "passwd = ''", "passwd = null"];
        if layout != "old" {
            whats.extend(["passwd = 'pw', statusid = 1", "statusid = 3"]);
        }
        for what in whats {
            set(what);
            let params = json!({ "user": "root", "passwd": "root" });
            assert_eq!(call(&mut world.open(None), "rmuser", params), last(), "{layout}, {what}");
        }
        set(if layout == "old" { "passwd = 'pw'" } else { "passwd = 'pw', statusid = 4" });
        assert_eq!(call(&mut root, "rmuser", json!({ "user": "root" })), said("user removed"), "{layout}");
    }
}

#[test]
fn another_program_checks_logins() {
    let world = World::new();
    let file = world.folder.path().join("db");
    call(&mut world.as_root(), "adduser", json!({ "user": "alice", "passwd": "first" })).unwrap();
    assert_eq!(check_users(&file), Ok(()));
    let log_in = |name: &str, password: &str, address| login::log_in(&file, address, name, password);
    for (name, password, is_root) in [("root", world.root.as_str(), true), ("alice", "first", false)] {
        assert_eq!(log_in(name, password, None).unwrap(), Login { name: name.to_owned(), is_root });
    }
    for (name, password) in [("alice", "second"), ("nobody", "first"), ("alice", &"x".repeat(257)), ("", "")] {
        assert!(matches!(log_in(name, password, None), Err(LoginError::Wrong)), "{name}");
    }
    let address = Some("192.0.2.7");
    let mut results = (0..20).map(|_| log_in("bob", "guess", address));
    assert!(results.any(|result| matches!(result, Err(LoginError::Wait { wait_ms: 1.. }))), "attempts are limited");
    assert!(matches!(log_in("root", &world.root, address), Err(LoginError::Wait { .. })), "whatever the user");
    assert!(log_in("root", &world.root, Some("192.0.2.8")).is_ok());
    let error = check_users(&world.folder.path().join("none")).unwrap_err();
    assert!(error.contains("none"), "{error}");
}
