//! Requests and answers.

use super::*;

/// A short form of the requests in a text.
fn shown(text: &str) -> String {
    let id = |id: &Option<Box<RawValue>>| id.as_ref().map_or("-".to_owned(), |id| id.get().to_owned());
    let entry = |entry: &Entry| match entry {
        Entry::Call(call) => format!("{}({}) {}", call.method, id(&call.params), id(&call.id)),
        Entry::Invalid(given) => format!("invalid {}", id(given)),
    };
    match parse(text.as_bytes()) {
        Ok(Requests { entries, is_batch }) => {
            let all: Vec<String> = entries.iter().map(entry).collect();
            if is_batch { format!("[{}]", all.join("; ")) } else { all.join("; ") }
        }
        Err(error) => error,
    }
}

#[test]
fn requests_are_parsed() {
    for (text, expected) in [
        (r#"{"jsonrpc":"2.0","method":"a","id":1}"#, "a(-) 1"),
        (r#"{"jsonrpc":"2.0","method":"a"}"#, "a(-) -"),
        (r#" { "id" : null , "method" : "a" , "jsonrpc" : "2.0" } "#, "a(-) null"),
        (r#"{"jsonrpc":"2.0","method":"\u0061","params":[1, 2],"id":"x\u00fc"}"#, r#"a([1, 2]) "x\u00fc""#),
        (r#"{"\u006asonrpc":"\u0032.0","method":"a","params":{"b":{}},"id":-1.50e3}"#, r#"a({"b":{}}) -1.50e3"#),
        (
            r#"{"jsonrpc":"2.0","method":"a","id":123456789012345678901234567890}"#,
            "a(-) 123456789012345678901234567890",
        ),
        (r#"{"jsonrpc":"2.0","method":"a","more":{"id":2}}"#, "a(-) -"),
        (r#"{"jsonrpc":"2.0","method":"a","params":1,"id":7}"#, "invalid 7"),
        (r#"{"jsonrpc":"2.0","method":"a","params":null}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","method":"a","id":[1]}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","method":"a","id":true}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","method":1,"id":1}"#, "invalid -"),
        (r#"{"jsonrpc":"1.0","method":"a","id":1}"#, "invalid -"),
        (r#"{"method":"a","id":1}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","result":1,"id":1}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#, "invalid -"),
        (r#"{"jsonrpc":"2.0","method":"\ud800"}"#, "invalid -"),
        ("17", "invalid -"),
        ("\"text\"", "invalid -"),
        ("[]", r#"{"code":-32600,"message":"Invalid Request"}"#),
        (r#"[1,["2.0","a"],{"jsonrpc":"2.0","method":"a"}]"#, "[invalid -; invalid -; a(-) -]"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    let error = parse(b"[\"\xff\"]").unwrap_err();
    assert_eq!(error, r#"{"code":-32700,"message":"Parse Error"}"#);
}

#[test]
fn a_batch_is_limited() {
    let batch = |count: usize| format!("[1{}]", ",1".repeat(count - 1));
    assert_eq!(parse(batch(BATCH_MAX).as_bytes()).unwrap().entries.len(), BATCH_MAX);
    let error = parse(batch(BATCH_MAX + 1).as_bytes()).unwrap_err();
    assert!(error.contains("-32600") && error.contains("more than 4096"), "{error}");
}

#[test]
fn answers_are_built() {
    let id = RawValue::from_string("7".to_owned()).unwrap();
    let result = Outcome::Result("{\"b\":1,\"a\":2.50}".to_owned());
    let failure = Outcome::Error(error(INVALID_PARAMS, "no \"such\" thing", Some("[1]")));
    let said = |is_batch, pushed: &[(Option<&RawValue>, &Outcome)]| {
        let mut answer = Answer::new(is_batch, 200);
        pushed.iter().for_each(|(id, outcome)| answer.push(*id, outcome));
        answer.finish().map(|text| String::from_utf8(text).unwrap())
    };
    assert_eq!(said(false, &[]), None);
    assert_eq!(said(true, &[]), None);
    let one = r#"{"jsonrpc":"2.0","result":{"b":1,"a":2.50},"id":7}"#;
    assert_eq!(said(false, &[(Some(&id), &result)]).unwrap(), one);
    let other = r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"no \"such\" thing","data":[1]},"id":null}"#;
    assert_eq!(said(true, &[(Some(&id), &result), (None, &failure)]).unwrap(), format!("[{one},{other}]"));
    let long = Outcome::Result(format!("{:?}", "x".repeat(199)));
    assert!(said(false, &[(Some(&id), &long)]).unwrap().contains("the answer is too long"));
    assert!(error(-1, "", None).contains("Server error"));
}
