//! The two interfaces to libraries, and unusable libraries.

use super::*;

#[test]
#[ignore = "needs libjansson-dev"]
fn parameters_are_checked_against_the_specification_of_the_method() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (method, good, bad) in [
        ("echo", &["{}", "{\"a\": [1.5e3, null]}"][..], &["", "[1]"][..]),
        ("get_data", &["", "[]", "{ }"], &["[1]", "[[]]", "{\"a\":1}"]),
        ("two", &["[\"a\",1]"], &["", "[]", "[\"a\"]", "[1,\"a\"]", "[\"a\",1,2]", "{}"]),
        ("first", &["[true]", "[false,1,2]"], &["[1]", "[]"]),
        ("inner", &["[{},[1.5]]", "[{\"a\":1},[2.5,3]]"], &["[[],[1.5]]", "[{},[\"a\"]]", "[{}]"]),
        // Its argument is never passed.
        ("keyed", &[], &["{}", "{\"a\":\"b\"}"]),
        ("update", &["", "[]", "[1]", "{}"], &[]),
    ] {
        // "o" is any value; the others say what they take.
        let bad = if method == "echo" { &bad[..1] } else { bad };
        for params in good {
            client.call(method, params);
            let answer = client.answer();
            assert!(answer.contains("\"result\":"), "{method} {params}: {answer}");
        }
        for params in bad {
            client.call(method, params);
            let answer = client.answer();
            let begin = r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params","data":""#;
            assert!(answer.starts_with(begin), "{method} {params}: {answer}");
        }
    }
    client.expect_nothing_else();
}

#[test]
#[ignore = "needs libjansson-dev"]
fn errors_of_methods_of_ouistitis_interface() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (method, error) in [
        ("refuse", r#"{"code":-32001,"message":"I will not","data":{"because":"\"so\""}}"#),
        ("refuse_predefined", r#"{"code":-32602,"message":"Invalid params"}"#),
        ("fail", INTERNAL),
    ] {
        client.call(method, "");
        client.expect_error(error);
    }
    // What jansson rejects is an error of its methods alone.
    for params in ["[123456789012345678901234567890]", "[\"\\ud800\"]", "[\"\\u0000\"]"] {
        client.call("echo", params);
        assert!(client.answer().contains("-32602"), "{params}");
    }
    client.call("update", "");
    client.expect_result("null");
}

#[test]
#[ignore = "needs libjansson-dev"]
fn jansson_is_linked_by_the_library_or_loaded_for_it() {
    let needed = |path: &str| {
        let finished = run(Command::new("ldd").arg(path), DEADLINE);
        finished.out.contains("libjansson")
    };
    assert!(!needed(program("websocket_jsonrpc").to_str().unwrap()));
    let folder = Folder::new();
    foreign::need("libjansson-dev");
    let library = compile(&folder, "tests/jsonrpc/ouistiti.c", &[]);
    assert!(!needed(&library));
    let server = Server::start_in(folder, &library, &[]);
    let mut client = server.client();
    client.call("subtract", "[7,5]");
    client.expect_result("2");
    client.call("refuse_predefined", "");
    assert!(client.answer().contains("-32602"));
}

#[test]
fn answers_of_the_native_interface() {
    let folder = Folder::new();
    let library = compile(&folder, "tests/jsonrpc/native.c", &[]);
    let server = Server::start_in(folder, &library, &["-C", "this"]);
    server.process.out.wait_for(&["started with this"]);
    let mut client = server.client();
    for (method, params, result) in [
        ("echo", "{\"b\":1, \"a\":[1.50, 123456789012345678901234567890]}", None),
        ("echo", "[\"\\ud800\\u0000\"]", None),
        ("echo", "", Some("null")),
        ("parts", "", Some("[ \"\\\"\u{fffd}\\n\" ]")),
        ("return 0", "[]", Some("null")),
    ] {
        client.call(method, params);
        client.expect_result(result.unwrap_or(params));
    }
    for (method, error) in [
        ("no json", INTERNAL),
        ("fail", r#"{"code":-5,"message":"no","data":"no json either"}"#),
        ("fail all the same", r#"{"code":5,"message":"Server error","data":[1]}"#),
        ("return -32601", r#"{"code":-32601,"message":"Method not found"}"#),
        ("return -32602", r#"{"code":-32602,"message":"Invalid params"}"#),
        ("return -32603", INTERNAL),
        ("return 12", r#"{"code":12,"message":"Server error"}"#),
        ("anything else", r#"{"code":-32601,"message":"Method not found"}"#),
    ] {
        client.call(method, "");
        client.expect_error(error);
    }
    server.process.err.wait_for(&["the result of \"no json\" is not JSON"]);
    client.call(&"no json, ".repeat(10_000), "");
    client.expect_error(INTERNAL);
    let line = server.process.err.wait_for(&["the result of \"no json, no json, "]);
    assert!(line.len() < 500, "clients fill the log: {} bytes", line.len());
    let out = server.process.out.text();
    assert_eq!(out.matches("started with this").count(), 1, "once, and not for each connection: {out}");
}

#[test]
fn a_connection_that_the_library_refuses() {
    let folder = Folder::new();
    let library = compile(&folder, "tests/jsonrpc/native.c", &[]);
    let server = Server::start_in(folder, &library, &["-C", "closed"]);
    let mut client = server.client();
    for _ in 0..2 {
        client.call("echo", "[1]");
        client.expect_error(r#"{"code":-32050,"message":"closed today"}"#);
    }
}

#[test]
fn the_example() {
    let folder = Folder::new();
    let library = compile(&folder, "utils/jsonrpc/examples/visits.c", &[]);
    let server = Server::start_in(folder, &library, &["-C", "7"]);
    let mut client = server.client();
    for (method, params, result) in
        [("count", "", "7"), ("count", "", "8"), ("add", "[1, 2.5]", "3.5"), ("whoami", "", "\"unknown\"")]
    {
        client.call(method, params);
        client.expect_result(result);
    }
    client.call("add", "{}");
    client.expect_error(r#"{"code":-32602,"message":"Invalid params","data":"give two numbers"}"#);
    let source = fs::read_to_string(project().join("utils/jsonrpc/examples/visits.c")).unwrap();
    let code = source.lines().filter(|line| line.chars().any(char::is_alphanumeric)).count();
    assert!(code <= 36, "an example of {code} lines");
}

#[test]
fn the_documented_library_in_rust() {
    let page = fs::read_to_string(project().join("docs/jsonrpc.md")).unwrap();
    let shown = page.split("\n```rust\n").nth(1).and_then(|rest| rest.split("\n```\n").next()).unwrap();
    let crate_page = fs::read_to_string(project().join("utils/jsonrpc/native/src/lib.rs")).unwrap();
    let lines = crate_page.lines().skip_while(|line| *line != "//! ```").skip(1).take_while(|line| *line != "//! ```");
    let tested: Vec<&str> = lines.map(|line| line.trim_start_matches("//!").trim_start_matches(' ')).collect();
    let unindented: Vec<&str> = shown.lines().map(str::trim_start).collect();
    assert_eq!(unindented, tested, "both pages show the same library");
    let folder = Folder::new();
    let (source, library) = (folder.join("counter.rs"), folder.join("counter.so"));
    fs::write(&source, shown).unwrap();
    let package = program("libjsonrpc_library.rlib");
    // The package is linked with its own strategy of panics, which is that of its profile.
    let compile = |panic: &str| {
        let mut command = Command::new("rustc");
        command.args(["--edition", "2024", "--crate-type", "cdylib", "-D", "unsafe_op_in_unsafe_fn", "-D", "warnings"]);
        command.arg(format!("-Cpanic={panic}"));
        command.arg("--extern").arg(format!("jsonrpc_library={}", package.display())).args(["-o", &library, &source]);
        run(&mut command, SCRIPT_TIME)
    };
    let finished = compile("unwind");
    let finished = if finished.err.contains("panic strategy") { compile("abort") } else { finished };
    assert!(finished.status.success(), "{}", finished.err);
    let server = Server::start_in(folder, &library, &["-C", "41"]);
    let mut client = server.client();
    client.call("next", "");
    client.expect_result("42");
    client.call("previous", "");
    client.expect_error(r#"{"code":-32601,"message":"Method not found"}"#);
}

#[test]
fn libraries_that_cannot_be_used() {
    let folder = Folder::new();
    let native = compile(&folder, "tests/jsonrpc/native.c", &[]);
    let file = folder.join("text.so");
    fs::write(&file, "hello").unwrap();
    let empty = folder.join("empty.c");
    fs::write(&empty, "int nothing;\n").unwrap();
    let empty = compile(&folder, &empty, &[]);
    let newer_folder = Folder::new();
    let newer = compile(&newer_folder, "tests/jsonrpc/native.c", &["-DVERSION=2"]);
    let root = folder.join("run");
    for (library, config, parts) in [
        ("/nowhere/at-all.so", "", &["-L /nowhere/at-all.so", "No such file", "give the path of a library"][..]),
        ("nowhere-at-all.so", "", &["-L nowhere-at-all.so", "cannot open", "with a slash in it"]),
        (&file, "", &["-L ", "text.so", "give a library that this machine can load"]),
        (&empty, "", &["-L ", "empty.so", "neither uakari_rpc nor jsonrpc_init", "give a library of methods"]),
        (&newer, "", &["-L ", "native.so", "version 2 of uakari_rpc.h", "has 1", "install a newer"]),
        (&native, "wrong", &["-L ", "native.so", "-C \"wrong\"", "will not do: give another"]),
        (&native, "code", &["-L ", "-C \"code\"", "returns 7", "give another -C"]),
        (&native, "crash", &["-L ", "native.so", "SIGABRT", "see what it says"]),
    ] {
        let Finished { status, out, err } = jsonrpc(&["-R", &root, "-n", "rpc", "-L", library, "-C", config]);
        assert_eq!(status.code(), Some(1), "{library}: {out}{err}");
        assert_eq!(err.lines().count(), 1, "{library}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{library}: {err}");
    }
    assert!(!Path::new(&root).exists(), "a server that cannot serve has no socket");
}

#[test]
fn help_and_usage_errors() {
    for option in ["-h", "--help"] {
        let Finished { status, out, err } = jsonrpc(&[option]);
        assert!(status.success() && err.is_empty(), "{option}: {err}");
        for part in [
            "-L,",
            "-C,",
            "-R,",
            "-n,",
            "-u,",
            "-m,",
            "-D,",
            "--mode",
            "--protocol",
            "--hello",
            "--call-ms",
            "--memory-mib",
        ] {
            assert!(out.contains(part), "{option}: {part} is not in\n{out}");
        }
    }
    for (options, parts) in [
        (&[][..], &["--library"][..]),
        (&["-L", "x", "-n", "a/b"], &["-n", "a/b", "without a slash"]),
        (&["-L", "x", "-m", "0"], &["-m 0", "1 or more"]),
        (&["-L", "x", "--protocol", "packet"], &["--protocol", "packet", "stream, lines or nul"]),
        (&["-L", "x", "--call-ms", "0"], &["--call-ms", "from 1 to 3600000"]),
        (&["-L", "x", "--memory-mib", "8"], &["--memory-mib", "from 16 to 65536"]),
        (&["--worker", "x", "64"], &["--worker", "leave it out"]),
    ] {
        let Finished { status, out, err } = jsonrpc(options);
        assert_eq!(status.code(), Some(1), "{options:?}: {out}{err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{options:?}: {err}");
    }
}
