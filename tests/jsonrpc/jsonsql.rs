//! Queries of a database, end to end. Each method is tested beside its code.

use super::*;

/// A server with a writable database in its folder.
pub fn start(folder: &Folder, name: &str) -> Process {
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-R", &folder.join("run"), "-n", name, "-L"]).arg(program("libjsonsql.so"));
    command.args(["-C", &format!("file={},write=1", folder.join("sql.db"))]).args(PATIENT);
    let process = Process::start(&mut command);
    let path = folder.path().join("run").join(name);
    eventually("the server listens", || connect(&path, Kind::Stream).is_ok());
    let mut client = Client::new(&path);
    for query in [
        "create table person (id INTEGER PRIMARY KEY, name TEXT)",
        "insert into person values (1, 'Ada'), (2, 'Grace')",
    ] {
        ask(&mut client, query);
        assert!(client.answer().contains("Query OK"), "{query}");
    }
    process
}

fn ask(client: &mut Client, query: &str) {
    client.call("exec", &format!("{{\"query\":{query:?}}}"));
}

const COUNTER: &str = "with recursive n(i) as (select 1 union all select i + 1 from n";

#[test]
fn queries() {
    let folder = Folder::new();
    let _server = start(&folder, "rpc");
    let mut client = Client::new(&folder.path().join("run/rpc"));
    ask(&mut client, "select name, 9007199254740993 as big, x'00' as bytes from person where id = 1");
    client.expect_result(r#"[{"name":"Ada","big":9007199254740993,"bytes":"AA=="}]"#);
    client.call("list", "");
    client.expect_result(r#"[{"name":"person","type":"table"}]"#);
    client.call("get", r#"{"table":"person","id":2}"#);
    client.expect_result(r#"{"id":2,"name":"Grace"}"#);
    client.call("insert", r#"{"table":"person","values":{"name":"Alan"}}"#);
    client.expect_result(r#"{"id":3,"message":"Query OK"}"#);
    ask(&mut client, "selec");
    client.expect_error(r#"{"code":1,"message":"near \"selec\": syntax error","data":"near \"selec\": syntax error"}"#);
    ask(&mut client, "attach '/etc/passwd' as p");
    assert!(client.answer().contains("not authorized"));
    client.call("exec", r#"{"query":"select 1","db":"/etc/passwd"}"#);
    assert!(client.answer().contains("-32602"));
}

#[test]
fn large_results_are_truncated() {
    let folder = Folder::new();
    let server = start(&folder, "rpc");
    let path = folder.path().join("run/rpc");
    let (mut client, mut other) = (Client::new(&path), Client::new(&path));
    ask(&mut client, &format!("{COUNTER}) select i, hex(zeroblob(1000)) as z from n"));
    let answer = client.answer();
    assert!(answer.contains("\"truncated\":true") && answer.len() < 1_100_000, "{} bytes", answer.len());
    // A statement may take two seconds, for which its process may be suspended.
    let is_complete = |_| {
        ask(&mut client, &format!("{COUNTER} limit 100) select i, hex(zeroblob(5000)) as z from n"));
        let answer = client.answer();
        let is_late = answer.contains("took longer than");
        let is_whole = answer.contains("\"result\":[{\"i\":1,") && answer.len() > 1_000_000;
        assert!(is_whole || is_late, "{} bytes", answer.len());
        is_whole
    };
    assert!((0..5).any(is_complete), "no statement is quick enough");
    for (query, parts) in [
        (format!("{COUNTER}) select count(*) as n from n"), ["took longer than", "took longer than"]),
        // Which of them it meets depends on the machine.
        (
            format!("{COUNTER}) select i, randomblob(100000) as z from n order by z"),
            ["out of memory", "took longer than"],
        ),
    ] {
        ask(&mut client, &query);
        ask(&mut other, "select 1 as one");
        other.expect_result(r#"[{"one":1}]"#);
        let answer = client.answer();
        assert!(parts.iter().any(|part| answer.contains(part)), "{query}: {answer}");
        ask(&mut client, "select 2 as two");
        client.expect_result(r#"[{"two":2}]"#);
    }
    assert_eq!(server.err.text(), "", "no process had to be killed");
}

#[test]
fn a_plain_path_is_opened_read_only() {
    let folder = Folder::new();
    drop(start(&folder, "first"));
    let library = program("libjsonsql.so");
    let database = folder.join("sql.db");
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-R", &folder.join("run"), "-n", "rpc", "-C", &database, "-L"]);
    let _server = Process::start(command.arg(&library).args(PATIENT));
    let path = folder.path().join("run/rpc");
    eventually("the server listens", || connect(&path, Kind::Stream).is_ok());
    let before = fs::read(&database).unwrap();
    let mut client = Client::new(&path);
    for query in ["delete from person", "drop table person", "vacuum", "pragma user_version = 3"] {
        ask(&mut client, query);
        assert!(client.answer().contains("not authorized: clients may only read"), "{query}");
    }
    ask(&mut client, "select count(*) as n from person");
    client.expect_result(r#"[{"n":2}]"#);
    assert_eq!(fs::read(&database).unwrap(), before);
    let finished = jsonrpc(&["-R", &folder.join("run"), "-L", library.to_str().unwrap(), "-C", &folder.join("none")]);
    assert!(!finished.status.success() && finished.err.contains("unable to open"), "{}", finished.err);
}
