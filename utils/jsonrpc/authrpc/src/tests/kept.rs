//! What must not be lost: the secrecy of the database, one that is put in its place or is something else, and somebody
//! who can add users.

use super::*;

#[test]
fn an_empty_file_is_kept_from_others() {
    for (before, after) in [(0o644, 0o600), (0o666, 0o600), (0o660, 0o660), (0o600, 0o600)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(before)).unwrap();
        create::ensure(&file, &mut Vec::new()).unwrap();
        for name in ["db", "db-journal"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, after, "{name}, which was {before:o}");
        }
    }
}

/// As a backup from before is put back while the server runs.
#[test]
fn a_database_in_the_place_of_the_one_before_is_taken() {
    let world = World::new();
    std::fs::remove_file(world.file()).unwrap();
    Connection::open(world.file()).unwrap().execute_batch(OLD).unwrap();
    assert!(call(&mut world.open(None), "auth", json!({ "user": "root", "passwd": "root" })).is_ok());
}

#[test]
fn a_database_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let db = Connection::open(&file).unwrap();
    db.execute_batch("create table measurements (at, value)").unwrap();
    Auth::start(file.to_str().unwrap()).unwrap_err();
    let tables: u32 = db.query_row("select count(*) from sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn somebody_stays_who_can_add_users() {
    let last = || Err((CONFLICT, "the last of the root group stays".to_owned()));
    for (layout, sql, column) in [("apart", APART, "userid"), ("within", WITHIN, "id"), ("old", OLD, "id")] {
        let world = World::of_ouistiti(sql);
        let mut root = world.as_root();
        call(&mut root, "adduser", json!({ "user": "second", "passwd": "pw", "group": "root" })).unwrap();
        let set = |what: &str| {
            let (table, _) = root.store.place();
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
