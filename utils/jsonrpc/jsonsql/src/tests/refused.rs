//! What a statement must not do.

use super::*;

#[test]
fn who_may_only_read_changes_nothing() {
    let world = World::new();
    let mut sql = world.reader();
    let before = std::fs::read(world.file()).unwrap();
    for query in [
        "insert into person values (3, 'x', 1)",
        "update person set name = 'x'",
        "delete from person",
        "drop table person",
        "create table t (a)",
        "create temp table t (a)",
        "create temp view t as select 1",
        "create index i on person (born)",
        "alter table person rename to p",
        "vacuum",
        "analyze",
        "reindex",
        "with t as (select 1) insert into counted select * from t",
        "replace into counted values (1)",
        "insert into counted values (1) returning at",
        "begin",
        "begin immediate",
        "savepoint s",
        "commit",
        "rollback",
        "create virtual table t using fts5(a)",
    ] {
        expect_refused(&mut sql, query, "clients only read here");
    }
    let insert = json!({ "table": "counted", "values": { "at": 1 } });
    assert!(call(&mut sql, "insert", insert).unwrap_err().message.contains("only read"));
    assert_eq!(std::fs::read(world.file()).unwrap(), before);
    assert_eq!(world.files(), ["db"]);
}

#[test]
fn nobody_leaves_the_database() {
    let world = World::new();
    let outside = world.folder.path().join("outside");
    let at = |text: &str| text.replace('@', outside.to_str().unwrap());
    for mut sql in [world.reader(), world.writer()] {
        for query in [
            "attach '@' as other",
            "attach ':memory:' as other",
            "attach database '' as other",
            "detach main",
            "select load_extension('@')",
            "select fts3_tokenizer('simple')",
            "pragma journal_mode = off",
            "pragma journal_mode",
            "pragma user_version = 7",
            "pragma writable_schema = on",
            "pragma temp_store_directory = '@'",
            "pragma data_store_directory = '@'",
            "pragma database_list",
            "pragma mmap_size = 1000000",
            "pragma query_only = 0",
            "pragma hard_heap_limit = 0",
            "pragma key = 'x'",
            "select * from pragma_database_list",
            "begin exclusive",
            "savepoint s",
            "create temp table t (a)",
            "create virtual table t using fts5(a)",
            "create virtual table t using dbstat",
        ] {
            expect_refused(&mut sql, &at(query), "not authorized");
        }
        // It would write another file, and is known neither to those who read nor within a transaction.
        for query in ["vacuum into '@'", "vacuum main into '@'"] {
            let failure = exec(&mut sql, &at(query)).expect_err(query);
            let parts = ["clients only read here", "cannot VACUUM"];
            assert!(parts.iter().any(|part| failure.message.contains(part)), "{query}: {failure:?}");
        }
        // What is there, but reaches nothing.
        for query in
            ["select readfile('/etc/passwd')", "select writefile('@', 'x')", "select edit('x')", "select eval('x')"]
        {
            expect_refused(&mut sql, &at(query), "no such function");
        }
    }
    let mut sql = world.writer();
    expect_refused(&mut sql, "update sqlite_schema set sql = 'x'", "may not be modified");
    expect_refused(&mut sql, "insert into sqlite_schema values ('table', 'x', 'x', 2, 'x')", "may not be modified");
    assert!(!outside.exists());
    assert!(world.files().iter().all(|name| name.starts_with("db")), "only a journal may be beside it");
}

#[test]
fn passwords_are_not_served() {
    let world = World::new();
    let other = Connection::open(world.file()).unwrap();
    for table in ["users (id, name, passwd TEXT)", "passwds (userid, PASSWD TEXT)"] {
        other.execute_batch(&format!("create table {table}")).unwrap();
        for more in ["", ",write=1"] {
            let config = format!("file={}{more}", world.file().display());
            let said = Sql::start(&config).unwrap_err();
            assert!(said.message.contains("holds passwords") && said.message.contains("passwords=1"), "{said:?}");
            assert_eq!(Sql::connect(&config).err().unwrap(), said);
            // Clients are not told where the database is.
            let told = Sql::open(&config, &Peer::default()).err().unwrap();
            assert!(told.message.starts_with("the database cannot be opened") && told.data.is_empty(), "{told:?}");
            assert!(!told.message.contains('/'), "{told:?}");
        }
        let mut sql = world.open(",passwords=1");
        assert_eq!(call(&mut sql, "list", json!({ "table": table.split(' ').next() })), Ok(json!([])));
        other.execute_batch("drop table if exists users; drop table if exists passwds").unwrap();
    }
    assert!(exec(&mut world.reader(), "select 1").is_ok());
}

/// Whoever may write may not make a database that is refused to everybody from then on.
#[test]
fn no_client_locks_the_others_out() {
    let world = World::new();
    let mut sql = world.writer();
    for (query, is_refused) in [
        ("create table x (passwd)", false),
        ("create table users (name, passwd)", true),
        ("create table Users (name, \"PASSWD\" text default 'x')", true),
        ("create table passwds as select 1 as passwd", true),
        ("create table users (name, passwd generated always as (name))", true),
        ("alter table x rename to passwds", true),
        ("create table users (name)", false),
        ("alter table users add column passwd", true),
        ("alter table users rename column name to passwd", true),
        ("insert into users values ('a')", false),
        ("drop table users", false),
        // authrpc keeps nothing in a view.
        ("create view users as select 1 as passwd", false),
        ("create view passwds as select * from nowhere", false),
    ] {
        let did = exec(&mut sql, query);
        assert_eq!(did.is_err(), is_refused, "{query}: {did:?}");
        assert!(did.is_ok() || did.unwrap_err().message.contains("for databases of users"), "{query}");
        for more in ["", ",write=1"] {
            let config = format!("file={}{more}", world.file().display());
            assert_eq!((Sql::start(&config), Sql::connect(&config).err()), (Ok(()), None), "{query}");
        }
    }
    // Where passwords may be seen there is nothing to keep.
    let mut sql = world.open(",write=1,passwords=1");
    assert!(exec(&mut sql, "create table \"passwds 2\" (passwd)").is_ok());
    assert!(exec(&mut sql, "drop view users").is_ok() && exec(&mut sql, "create table users (passwd)").is_ok());
}

#[test]
fn a_change_that_was_broken_off_is_named() {
    let (world, copy) = (World::new(), World::new());
    let other = Connection::open(world.file()).unwrap();
    // What does not fit into the cache is written before the end.
    let half = format!("pragma cache_size = 1; begin; insert into counted {COUNTER} limit 20000) select i from n");
    other.execute_batch(&half).unwrap();
    let journal = |world: &World| world.folder.path().join("db-journal");
    let mut sql = copy.reader();
    for (from, to) in [(world.file(), copy.file()), (journal(&world), journal(&copy))] {
        std::fs::copy(from, to).unwrap();
    }
    expect_refused(&mut sql, "select * from counted", "a change was broken off");
    assert!(exec(&mut copy.writer(), "select * from person").is_ok());
    assert_eq!(exec(&mut sql, "select * from counted"), Ok(json!({ "message": "Query OK" })), "it was undone");
}
