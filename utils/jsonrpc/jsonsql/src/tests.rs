//! The methods, their limits, and what they refuse.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct World {
    folder: TempDir,
}

const TABLES: &str = "
    create table person (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, born REAL);
    insert into person values (1, 'Ada', 1815.94), (2, 'Grace', null);
    create table \"odd \"\"name\"\"; drop table person\" (\"a b\" , \"c\"\"d\");
    insert into \"odd \"\"name\"\"; drop table person\" values (1, 2);
    create view named as select name from person;
    create table counted (at INTEGER);
    create trigger noted after insert on person begin insert into counted values (new.id); end;";

impl World {
    fn new() -> World {
        let world = World { folder: tempfile::tempdir().unwrap() };
        Connection::open(world.file()).unwrap().execute_batch(TABLES).unwrap();
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn open(&self, more: &str) -> Sql {
        let config = format!("file={}{more}", self.file().display());
        Sql::start(&config).unwrap();
        Sql::open(&config, &Peer::default()).unwrap()
    }

    fn reader(&self) -> Sql {
        self.open("")
    }

    fn writer(&self) -> Sql {
        self.open(",write=1")
    }

    /// The files in the folder of the database.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn call(sql: &mut Sql, method: &str, params: Value) -> Result<Value, Failure> {
    sql.call(method, Some(&params.to_string()))
        .map(|text| serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

fn exec(sql: &mut Sql, query: &str) -> Result<Value, Failure> {
    call(sql, "exec", json!({ "query": query }))
}

fn expect_refused(sql: &mut Sql, query: &str, part: &str) {
    let failure = exec(sql, query).expect_err(query);
    assert!(failure.message.contains(part), "{query}: {failure:?}");
}

#[test]
fn each_method_reads() {
    let world = World::new();
    let mut sql = world.reader();
    let odd = "odd \"name\"; drop table person";
    let (ada, grace) =
        (json!({ "id": 1, "name": "Ada", "born": 1815.94 }), json!({ "id": 2, "name": "Grace", "born": null }));
    for (method, params, result) in [
        ("exec", json!({ "query": "select * from person; -- all of them" }), json!([ada, grace])),
        ("exec", json!({ "query": "select 1 where 0" }), json!({ "message": "Query OK" })),
        ("exec", json!({ "query": "select name from person where name like 'G%'" }), json!([{ "name": "Grace" }])),
        (
            "exec",
            json!({ "query": "pragma table_info('counted')" }),
            json!([{ "cid": 0, "name": "at", "type": "INTEGER", "notnull": 0, "dflt_value": null, "pk": 0 }]),
        ),
        ("list", json!({ "table": "person" }), json!([ada, grace])),
        ("list", json!({ "table": "person", "limit": 1, "offset": 1 }), json!([grace])),
        ("list", json!({ "table": "counted" }), json!([])),
        ("list", json!({ "table": odd }), json!([{ "a b": 1, "c\"d": 2 }])),
        ("get", json!({ "table": "person", "id": 2 }), grace),
        ("get", json!({ "table": odd, "id": 1 }), json!({ "a b": 1, "c\"d": 2 })),
        (
            "view",
            json!({ "table": "counted" }),
            json!([{ "cid": 0, "name": "at", "type": "INTEGER", "notnull": 0, "dflt_value": null, "pk": 0 }]),
        ),
    ] {
        assert_eq!(call(&mut sql, method, params.clone()), Ok(result), "{method} {params}");
    }
    let tables = sql.call("list", None).unwrap();
    assert!(tables.contains("{\"name\":\"named\",\"type\":\"view\"}") && tables.contains("\"person\""), "{tables}");
    assert_eq!(call(&mut sql, "view", json!({ "table": odd })).unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn invalid_calls() {
    let world = World::new();
    let mut sql = world.writer();
    for (method, params, part) in [
        ("exec", json!({}), "query has to be a string"),
        ("exec", json!({ "query": 1 }), "query has to be a string"),
        ("exec", json!({ "query": "select 1", "db": "/etc/passwd" }), "db is not known; there are: query"),
        ("exec", json!({ "query": "selec 1" }), "syntax error"),
        ("exec", json!({ "query": "select * from nobody" }), "no such table: nobody"),
        ("exec", json!({ "query": "select 1; select 2" }), "one statement in a query"),
        ("exec", json!({ "query": "select 1; drop table person" }), "one statement in a query"),
        ("exec", json!({ "query": "select 1\0" }), "a NUL in it"),
        ("exec", json!({ "query": "" }), "query has no statement in it"),
        ("exec", json!({ "query": " ; -- nothing\n" }), "query has no statement in it"),
        ("list", json!({ "table": 1 }), "table has to be a name"),
        ("list", json!({ "table": "person", "limit": -1 }), "limit and offset have to be integers"),
        ("list", json!({ "table": "person", "limit": "1; drop table person" }), "limit and offset have to be integers"),
        ("list", json!({ "table": "person union select 1,2,3" }), "no such table: person union"),
        ("list", json!({ "table": "x\" union select 1 --" }), "no such table: x\" union"),
        ("list", json!({ "table": "sqlite_schema\"; --" }), "no such table"),
        ("get", json!({ "table": "person" }), "id has to be an integer"),
        ("get", json!({ "table": "person", "id": "1 or 1=1" }), "id has to be an integer"),
        ("get", json!({ "table": "person", "id": 3 }), "no such row"),
        ("view", json!({ "table": "person') --" }), "no such table: person')"),
        ("view", json!({}), "table has to be a name"),
        ("insert", json!({ "table": "person" }), "values has to be an object"),
        ("insert", json!({ "table": "person", "values": { "name\") values (1); --": 1 } }), "no column named name\")"),
        ("insert", json!({ "table": "person", "values": { "name": "Ada" } }), "UNIQUE constraint failed"),
        ("insert", json!({ "table": "person", "values": { "born": 1 } }), "NOT NULL constraint failed"),
        ("insert", json!({ "table": "person", "values": { "name": [1] } }), "an array is not a value"),
        ("insert", json!({ "table": "person", "values": { "name": {} } }), "a blob is written"),
        ("insert", json!({ "table": "person", "values": { "name": { "base64": "%" } } }), "not base64"),
        ("insert", json!({ "table": "person", "values": { "name": 9_223_372_036_854_775_808_u64 } }), "64 bits"),
    ] {
        let failure = call(&mut sql, method, params.clone()).expect_err(method);
        assert!(failure.message.contains(part), "{method} {params}: {failure:?}");
        assert_eq!(
            serde_json::from_str::<Value>(&failure.data).unwrap(),
            json!(failure.message),
            "as ouistiti's has it"
        );
    }
    assert_eq!(call(&mut sql, "auth", json!({})), Err(Failure::method_not_found()));
    for text in [None, Some("[\"select 1\"]")] {
        assert_eq!(sql.call("exec", text).unwrap_err().code, abi::INVALID_PARAMS);
    }
    assert_eq!(exec(&mut sql, "select count(*) as n from person"), Ok(json!([{ "n": 2 }])));
}

#[test]
fn values_keep_their_types() {
    let world = World::new();
    let mut sql = world.writer();
    for (query, text) in [
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775807 - 1", "-9223372036854775808"),
        ("9007199254740993", "9007199254740993"),
        ("1.0", "1.0"),
        ("0.1", "0.1"),
        ("1e300", "1e300"),
        ("9e999", "null"),
        ("-9e999", "null"),
        ("null", "null"),
        ("x'00ff10'", "\"AP8Q\""),
        ("x''", "\"\""),
        ("'a\"\\é' || char(10) || char(0)", "\"a\\\"\\\\é\\n\\u0000\""),
        ("cast(x'ff41' as text)", "\"\u{fffd}A\""),
    ] {
        let text = format!("[{{\"v\":{text}}}]");
        let said = sql.call("exec", Some(&json!({ "query": format!("select {query} as v") }).to_string())).unwrap();
        assert_eq!(said.replace("1e+300", "1e300"), text, "{query}");
    }
    for (value, kind, back) in [
        (json!(i64::MIN), "integer", json!(i64::MIN)),
        (json!(0.5), "real", json!(0.5)),
        (json!(true), "integer", json!(1)),
        (json!("'; drop table person; --"), "text", json!("'; drop table person; --")),
        (json!({ "base64": "AP8Q" }), "blob", json!("AP8Q")),
        (json!(null), "null", json!(null)),
    ] {
        exec(&mut sql, "create table t (v)").unwrap();
        let result = call(&mut sql, "insert", json!({ "table": "t", "values": { "v": value } }));
        assert_eq!(result, Ok(json!({ "message": "Query OK", "id": 1 })));
        assert_eq!(exec(&mut sql, "select v, typeof(v) as k from t"), Ok(json!([{ "v": back, "k": kind }])));
        exec(&mut sql, "drop table t").unwrap();
    }
}

#[test]
fn columns_of_the_same_name() {
    let world = World::new();
    let mut sql = world.reader();
    assert_eq!(
        exec(&mut sql, "select 1 as a, 2 as a, 3 as \"a:1\", 4 as a, 5"),
        Ok(json!([{ "a": 1, "a:1": 2, "a:1:1": 3, "a:2": 4, "5": 5 }]))
    );
    // The maximum of SQLite. Naming them takes linear time, since no clock interrupts it.
    let rows = exec(&mut sql, &format!("select 0 as a{}", ", 1 as a".repeat(1_999))).unwrap();
    assert_eq!((rows[0].as_object().unwrap().len(), &rows[0]["a:1999"]), (2_000, &json!(1)));
}

#[test]
fn writing() {
    let world = World::new();
    let mut sql = world.writer();
    for (query, changes) in [
        ("create table t (a)", 0),
        ("insert into t values (1), (2), (3)", 3),
        ("update t set a = a + 1 where a > 1", 2),
        ("delete from t where a = 1", 1),
        ("insert into person (name) values ('Alan')", 2),
    ] {
        assert_eq!(exec(&mut sql, query), Ok(json!({ "message": "Query OK", "changes": changes })), "{query}");
    }
    assert_eq!(exec(&mut sql, "insert into t values (9) returning a"), Ok(json!([{ "a": 9 }])));
    assert_eq!(exec(&mut world.reader(), "select sum(a) as s from t"), Ok(json!([{ "s": 16 }])));
    assert_eq!(exec(&mut sql, "drop table t").unwrap()["message"], "Query OK");
}

#[test]
fn a_missing_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").to_str().unwrap().to_owned();
    for (config, part) in
        [(path.clone(), path.as_str()), (String::new(), "names no database"), ("file=/x,wrote=1".into(), "write")]
    {
        let said = Sql::start(&config).unwrap_err();
        assert!(said.message.contains(part), "{config}: {said:?}");
    }
    std::fs::write(&path, "this is text, and no database at all").unwrap();
    assert!(Sql::start(&path).unwrap_err().message.contains("not a database"));
    std::fs::remove_file(&path).unwrap();
    Sql::start(&format!("file={path},write=1")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
}

const COUNTER: &str = "with recursive n(i) as (select 1 union all select i + 1 from n";

#[test]
fn a_huge_result_is_truncated() {
    let world = World::new();
    let mut sql = world.reader();
    let many = exec(&mut sql, &format!("{COUNTER} limit {ROWS_MAX}) select i from n")).unwrap();
    assert_eq!(many.as_array().unwrap().len(), ROWS_MAX);
    let failure = exec(&mut sql, &format!("{COUNTER}) select i from n")).unwrap_err();
    let data: Value = serde_json::from_str(&failure.data).unwrap();
    assert_eq!((failure.code, failure.message.as_str()), (TRUNCATED, "more than 1000 rows: ask for fewer, with LIMIT"));
    assert_eq!((&data["truncated"], data["rows"].as_array().unwrap().len()), (&json!(true), ROWS_MAX));

    let failure =
        exec(&mut sql, &format!("{COUNTER} limit 90) select i, hex(zeroblob(10000)) as z from n")).unwrap_err();
    let data: Value = serde_json::from_str(&failure.data).unwrap();
    assert!(failure.message.contains("more than 1048576 bytes"), "{failure:?}");
    assert_eq!(data["rows"].as_array().unwrap().len(), 52);
    let failure = exec(&mut sql, "select hex(zeroblob(520000)) as a, hex(zeroblob(520000)) as b").unwrap_err();
    assert_eq!(serde_json::from_str::<Value>(&failure.data).unwrap(), json!({ "truncated": true, "rows": [] }));
}

#[test]
fn an_endless_statement_is_interrupted() {
    let world = World::new();
    let mut sql = world.writer();
    let failure = exec(&mut sql, &format!("{COUNTER}) select count(*) from n")).unwrap_err();
    let data: Value = serde_json::from_str(&failure.data).unwrap();
    assert_eq!((failure.code, data), (TRUNCATED, json!({ "truncated": true, "rows": [] })));
    assert_eq!(failure.message, "it took longer than 2000 ms");
    let failure = exec(&mut sql, &format!("insert into counted {COUNTER}) select i from n")).unwrap_err();
    assert_eq!(failure.code, TRUNCATED);
    let failure =
        exec(&mut sql, &format!("insert into counted {COUNTER} limit 2000) select i from n returning at")).unwrap_err();
    assert_eq!(failure.code, TRUNCATED);
    assert_eq!(
        exec(&mut sql, "select * from counted"),
        Ok(json!({ "message": "Query OK" })),
        "interrupted statements changed nothing"
    );
}

#[test]
fn a_statement_that_needs_too_much_fails() {
    let world = World::new();
    let mut sql = world.writer();
    for (query, parts) in [
        ("select length(zeroblob(100000000))".to_owned(), ["too big", ""]),
        ("select length(printf('%100000000d', 1))".to_owned(), ["too big", "null"]),
        (format!("select 1{}{}", "+(1".repeat(200), ")".repeat(200)), ["maximum depth", "overflow"]),
        (format!("select 'x' like '{}'", "%a".repeat(1000)), ["pattern too complex", ""]),
        (format!("select '{}'", "x".repeat(70_000)), ["statement too long", ""]),
    ] {
        let shown: String = query.chars().take(60).collect();
        match exec(&mut sql, &query) {
            Err(failure) => assert!(parts.iter().any(|part| failure.message.contains(part)), "{shown}: {failure:?}"),
            Ok(rows) => assert!(rows.to_string().len() < 100, "{shown}: {rows}"),
        }
    }
    assert_eq!(exec(&mut sql, "select 1 as one"), Ok(json!([{ "one": 1 }])), "the next one is served");
}

#[test]
fn a_write_waits_for_another_writer() {
    let world = World::new();
    let mut sql = world.writer();
    let other = Connection::open(world.file()).unwrap();
    other.execute_batch("begin exclusive").unwrap();
    expect_refused(&mut sql, "insert into counted values (1)", "locked");
    other.execute_batch("commit").unwrap();
    assert!(exec(&mut sql, "insert into counted values (1)").is_ok());
}

#[test]
fn readers_change_nothing() {
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
        expect_refused(&mut sql, query, "clients may only read");
    }
    let insert = json!({ "table": "counted", "values": { "at": 1 } });
    assert!(call(&mut sql, "insert", insert).unwrap_err().message.contains("only read"));
    assert_eq!(std::fs::read(world.file()).unwrap(), before);
    assert_eq!(world.files(), ["db"]);
}

#[test]
fn other_files_are_inaccessible() {
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
        // It would write another file, but is refused to readers and within a transaction.
        for query in ["vacuum into '@'", "vacuum main into '@'"] {
            let failure = exec(&mut sql, &at(query)).expect_err(query);
            let parts = ["clients may only read", "cannot VACUUM"];
            assert!(parts.iter().any(|part| failure.message.contains(part)), "{query}: {failure:?}");
        }
        // Functions of the sqlite3 shell.
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
    assert!(world.files().iter().all(|name| name.starts_with("db")), "only a journal may be there too");
}

#[test]
fn passwords_are_not_readable() {
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

/// Clients that write cannot create a table with passwords, with which the database would be refused.
#[test]
fn clients_cannot_make_the_database_unusable() {
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
        // authrpc does not store passwords in a view.
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
    // With passwords=1 it is allowed.
    let mut sql = world.open(",write=1,passwords=1");
    assert!(exec(&mut sql, "create table \"passwds 2\" (passwd)").is_ok());
    assert!(exec(&mut sql, "drop view users").is_ok() && exec(&mut sql, "create table users (passwd)").is_ok());
}

#[test]
fn an_interrupted_change_is_reported() {
    let (world, copy) = (World::new(), World::new());
    let other = Connection::open(world.file()).unwrap();
    // What exceeds the cache is written before the commit.
    let half = format!("pragma cache_size = 1; begin; insert into counted {COUNTER} limit 20000) select i from n");
    other.execute_batch(&half).unwrap();
    let journal = |world: &World| world.folder.path().join("db-journal");
    let mut sql = copy.reader();
    for (from, to) in [(world.file(), copy.file()), (journal(&world), journal(&copy))] {
        std::fs::copy(from, to).unwrap();
    }
    expect_refused(&mut sql, "select * from counted", "an interrupted change");
    assert!(exec(&mut copy.writer(), "select * from person").is_ok());
    assert_eq!(exec(&mut sql, "select * from counted"), Ok(json!({ "message": "Query OK" })), "it was rolled back");
}
