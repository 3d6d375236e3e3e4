//! Messages in both directions, without a server.

use super::*;
use crate::limits::{SERVER_ANSWER_MS, SERVER_CACHE_MAX};

const UNIX_MS: u64 = 1_800_000_000_000;

fn question(id: u64) -> Question {
    Question {
        id,
        address: "192.0.2.7".to_owned(),
        method: "GET".to_owned(),
        host: "app.example".to_owned(),
        path: "/a \u{e9}".to_owned(),
        query: "x=1&y=\"".to_owned(),
        headers: [("Cookie", "a=1"), ("X-Id", "7"), ("cookie", "b=2"), ("x-id", "8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Question::default()
    }
}

/// A dialogue with the questions 10, 20 and 30, which have the ids 1, 2 and 3.
fn dialogue() -> Dialogue {
    let mut dialogue = Dialogue::new(SERVER_ANSWER_MS);
    for (id, now_ms) in [(10, 0), (20, 1), (30, 2)] {
        assert!(matches!(dialogue.ask(&question(id), now_ms), Asked::Send(_)));
    }
    dialogue
}

fn result(id: u64, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{members}}}}}"#)
}

fn allow(user: &str, groups: &[&str], until_ms: Option<u64>) -> Verdict {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Verdict::Allow { user: user.to_owned(), groups, until_ms, headers: Vec::new() }
}

#[test]
fn questions_are_written() {
    let mut dialogue = Dialogue::new(SERVER_ANSWER_MS);
    let common = r#""host":"app.example","method":"GET","path":"/a é","query":"x=1&y=\""}"#;
    let headers = r#""headers":{"cookie":"a=1; b=2","x-id":"7, 8"}"#;
    for (number, credential, text) in [
        (1, Credential::None, ""),
        (2, Credential::Token("secret".into()), r#""credential":{"token":"secret"},"#),
        (
            3,
            Credential::Password { user: "al".to_owned(), password: "pw\n".into() },
            r#""credential":{"password":"pw\n","user":"al"},"#,
        ),
    ] {
        let asked = dialogue.ask(&Question { credential, ..question(9) }, 0);
        let params = format!(r#"{{"address":"192.0.2.7",{text}{headers},{common}"#);
        let text = format!(r#"{{"id":{number},"jsonrpc":"2.0","method":"authorize","params":{params}}}"#);
        assert!(!text.contains('\n'), "a line");
        assert_eq!(asked, Asked::Send(text.into()));
    }
    let path = "x".repeat(SERVER_QUESTION_SIZE_MAX);
    assert_eq!(dialogue.ask(&Question { path, ..question(9) }, 0), Asked::Failed(ServerError::QuestionTooLong));
    for _ in 3..SERVER_QUESTIONS_MAX {
        assert!(matches!(dialogue.ask(&question(9), 0), Asked::Send(_)));
    }
    assert_eq!(dialogue.ask(&question(9), 0), Asked::Failed(ServerError::Full));
}

/// A question waits for seconds, and its answer may be kept for minutes.
#[test]
fn secrets_are_not_kept() {
    let mut dialogue = Dialogue::new(SERVER_ANSWER_MS);
    let credential = Credential::Password { user: "al".to_owned(), password: "s3cr3t".into() };
    let headers = vec![("Cookie".to_owned(), "session=s3cr3t".to_owned())];
    let asked = dialogue.ask(&Question { credential, headers, query: "token=s3cr3t".to_owned(), ..question(9) }, 0);
    assert!(matches!(asked, Asked::Send(text) if text.reveal().matches("s3cr3t").count() == 3));
    let kept = serde_json::to_string(&dialogue.pending[&1].traits).unwrap();
    assert!(kept.contains("cookie") && kept.contains("password") && !kept.contains("s3cr3t"), "{kept}");
}

#[test]
fn decisions() {
    use ServerError::Invalid;
    let until = |seconds: u64| Some((UNIX_MS / 1_000 + seconds) * 1_000);
    for (members, outcome) in [
        (r#""allow":true"#, Ok(allow("", &[], None))),
        (r#""allow":true,"user":"al","groups":["a","b"],"other":1"#, Ok(allow("al", &["a", "b"], None))),
        (r#""allow":true,"user":null,"groups":null,"until":null,"wait":null"#, Ok(allow("", &[], None))),
        (r#""allow":true,"until":1800000060"#, Ok(allow("", &[], until(60)))),
        (r#""allow":true,"until":1800000000"#, Ok(Verdict::Deny)),
        (r#""allow":true,"until":0"#, Ok(Verdict::Deny)),
        (r#""allow":false"#, Ok(Verdict::Forbidden)),
        (r#""allow":false,"deny":401"#, Ok(Verdict::Deny)),
        (r#""allow":false,"deny":403"#, Ok(Verdict::Forbidden)),
        (r#""allow":false,"wait":60"#, Ok(Verdict::Limited { wait_ms: 60_000 })),
        (r#""allow":false,"user":"al","until":1800000060"#, Ok(Verdict::Forbidden)),
        ("", Err(Invalid("allow is not true or false"))),
        (r#""allow":null"#, Err(Invalid("allow is not true or false"))),
        (r#""allow":1"#, Err(Invalid("allow is not true or false"))),
        (r#""allow":"true""#, Err(Invalid("allow is not true or false"))),
        (r#""allow":false,"allow":true"#, Err(INVALID_JSON)),
        (r#""allow":true,"deny":401"#, Err(Invalid("it allows, but has wait or deny"))),
        (r#""allow":true,"wait":0"#, Err(Invalid("it allows, but has wait or deny"))),
        (r#""allow":false,"deny":200"#, Err(Invalid("deny is not 401 or 403"))),
        (r#""allow":false,"deny":true"#, Err(Invalid("deny is not 401 or 403"))),
        (r#""allow":true,"user":"""#, Err(Invalid("user is no valid name"))),
        (r#""allow":true,"user":"a\r\nb""#, Err(Invalid("user is no valid name"))),
        (r#""allow":true,"user":["al"]"#, Err(Invalid("user is no valid name"))),
        (r#""allow":true,"groups":"root""#, Err(Invalid("groups is no array of valid names"))),
        (r#""allow":true,"groups":["a,b"]"#, Err(Invalid("groups is no array of valid names"))),
        (r#""allow":true,"groups":[1]"#, Err(Invalid("groups is no array of valid names"))),
        (r#""allow":true,"until":1800000060000"#, Err(Invalid("until is no Unix time in seconds"))),
        (r#""allow":true,"until":-1"#, Err(Invalid("until is no Unix time in seconds"))),
        (r#""allow":true,"until":1e300"#, Err(Invalid("until is no Unix time in seconds"))),
        (r#""allow":false,"wait":3601"#, Err(Invalid("wait is no number of seconds up to 3600"))),
        (r#""allow":true,"cache":-1"#, Err(Invalid("cache is no number of seconds"))),
        (r#""allow":true,"vary":"cookie""#, Err(Invalid("vary is no array of names"))),
    ] {
        let mut dialogue = dialogue();
        let said = dialogue.message(result(2, members).as_bytes(), 5, UNIX_MS);
        assert_eq!(said, outcome.map(|verdict| Outcome::Decided(20, verdict)), "{members}");
    }
    let many: Vec<String> = (0..=GROUPS_MAX).map(|number| format!("\"g{number}\"")).collect();
    for member in ["groups", "vary"] {
        let text = result(1, &format!(r#""allow":true,"{member}":[{}]"#, many.join(",")));
        assert!(dialogue().message(text.as_bytes(), 5, UNIX_MS).is_err(), "{member}");
    }
}

#[test]
fn messages() {
    use ServerError::{Invalid, Refused};
    let no_question = Err(Invalid("its id is that of no question"));
    for (text, outcome) in [
        (
            r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"secret"}}"#,
            Ok(Outcome::Failed(30, Refused(-32601))),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"allow\":false}}\r\n",
            Ok(Outcome::Decided(10, Verdict::Forbidden)),
        ),
        (r#"{"jsonrpc":"2.0","method":"revoked","params":{"user":"al"}}"#, Ok(Outcome::Revoked("al".to_owned()))),
        (r#"{"jsonrpc":"2.0","method":"revoked","params":{"user":""}}"#, Err(Invalid("revoked needs a user"))),
        (r#"{"jsonrpc":"2.0","method":"revoked","params":["al"]}"#, Err(Invalid("revoked needs a user"))),
        (r#"{"jsonrpc":"2.0","method":"revoked"}"#, Err(Invalid("revoked needs a user"))),
        (r#"{"jsonrpc":"2.0","method":"news","params":{}}"#, Ok(Outcome::Nothing)),
        (r#"{"jsonrpc":"2.0","method":"ask","id":1}"#, Err(Invalid("it has a method and an id, result or error"))),
        (
            r#"{"jsonrpc":"2.0","method":"ask","result":{"allow":true}}"#,
            Err(Invalid("it has a method and an id, result or error")),
        ),
        (r#"{"jsonrpc":"2.0","id":0,"result":{"allow":true}}"#, no_question.clone()),
        (r#"{"jsonrpc":"2.0","id":4,"result":{"allow":true}}"#, no_question.clone()),
        (r#"{"jsonrpc":"2.0","id":"1","result":{"allow":true}}"#, no_question.clone()),
        (r#"{"jsonrpc":"2.0","id":1.5,"result":{"allow":true}}"#, no_question.clone()),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}"#, no_question.clone()),
        (r#"{"jsonrpc":"2.0","result":{"allow":true}}"#, no_question),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"allow":true},"error":{"code":1}}"#,
            Err(Invalid("it needs either a result or an error")),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"allow":true},"error":null}"#,
            Err(Invalid("it needs either a result or an error")),
        ),
        (r#"{"jsonrpc":"2.0","id":1}"#, Err(Invalid("it needs either a result or an error"))),
        (r#"{"jsonrpc":"2.0","id":1,"result":true}"#, Err(Invalid("its result is no object"))),
        (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, Err(Invalid("its error has no code"))),
        (r#"{"jsonrpc":2.0,"id":1,"result":{"allow":true}}"#, Err(Invalid("jsonrpc is not \"2.0\""))),
        (r#"{"id":1,"result":{"allow":true}}"#, Err(Invalid("jsonrpc is not \"2.0\""))),
        (r#"{"jsonrpc":"2.0","id":2,"id":1,"result":{"allow":true}}"#, Err(INVALID_JSON)),
        (r#"[{"jsonrpc":"2.0","id":1,"result":{"allow":true}}]"#, Err(INVALID_JSON)),
        ("allow", Err(INVALID_JSON)),
        ("", Err(INVALID_JSON)),
        ("\n", Err(INVALID_JSON)),
    ] {
        assert_eq!(dialogue().message(text.as_bytes(), 5, UNIX_MS), outcome, "{text}");
    }
}

#[test]
fn damaged_messages_allow_nothing() {
    let good = result(2, r#""allow":true,"user":"al","groups":["a"]"#);
    let mut others = 0;
    for at in 0..good.len() {
        assert!(dialogue().message(&good.as_bytes()[..at], 5, UNIX_MS).is_err(), "cut at {at}");
        for new in 0..=255 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = new;
            match dialogue().message(&bytes, 5, UNIX_MS) {
                // A byte of a name, of the id, or of a member that need not be there.
                Ok(Outcome::Decided(10 | 20 | 30, Verdict::Allow { .. })) => others += 1,
                Ok(other) => panic!("{other:?}: {new} at {at}"),
                Err(_) => {}
            }
        }
    }
    assert!(others > good.len(), "the message itself is among them");
}

#[test]
fn answers_in_any_order_and_late_ones() {
    let mut dialogue = dialogue();
    let allowed = r#""allow":true"#;
    let said = |dialogue: &mut Dialogue, id| dialogue.message(result(id, allowed).as_bytes(), 5, UNIX_MS).unwrap();
    assert_eq!(said(&mut dialogue, 3), Outcome::Decided(30, allow("", &[], None)));
    assert_eq!(said(&mut dialogue, 3), Outcome::Nothing, "a second time");
    assert_eq!(dialogue.next_due_ms(), Some(SERVER_ANSWER_MS));
    assert_eq!(dialogue.expire(SERVER_ANSWER_MS - 1), [0; 0]);
    assert_eq!(dialogue.expire(SERVER_ANSWER_MS), [10]);
    assert_eq!(said(&mut dialogue, 1), Outcome::Nothing, "late");
    assert_eq!(dialogue.next_due_ms(), Some(SERVER_ANSWER_MS + 1));
    dialogue.cancel(20);
    assert_eq!(said(&mut dialogue, 2), Outcome::Nothing, "cancelled");
    assert_eq!((dialogue.next_due_ms(), dialogue.clear()), (None, Vec::new()));
    assert!(matches!(dialogue.ask(&question(40), 9), Asked::Send(text) if text.reveal().contains("\"id\":4,")));
    assert_eq!(dialogue.clear(), [40]);
    assert_eq!(said(&mut dialogue, 4), Outcome::Nothing, "of an earlier connection");
}

#[test]
fn refusals_without_a_status() {
    for (credential, members, verdict) in [
        (Credential::None, "", Verdict::Forbidden),
        (Credential::Token("t".into()), "", Verdict::Deny),
        (Credential::Token("t".into()), r#","deny":403"#, Verdict::Forbidden),
        (Credential::None, r#","deny":401"#, Verdict::Deny),
    ] {
        let mut dialogue = Dialogue::new(SERVER_ANSWER_MS);
        dialogue.ask(&Question { credential, ..question(10) }, 0);
        let said = dialogue.message(result(1, &format!(r#""allow":false{members}"#)).as_bytes(), 5, UNIX_MS);
        assert_eq!(said, Ok(Outcome::Decided(10, verdict)), "{members}");
    }
}

#[test]
fn answers_are_kept() {
    let other = |name: &str| {
        let mut question = question(50);
        match name {
            "path" => question.path.push('x'),
            "method" => question.method = "HEAD".to_owned(),
            "address" => question.address.clear(),
            "query" => question.query.clear(),
            "host" => question.host.clear(),
            "x-id" => question.headers.push(("X-Id".to_owned(), "9".to_owned())),
            "cookie" => question.headers.retain(|(name, _)| name != "cookie"),
            "credential" => question.credential = Credential::Token("t".into()),
            _ => {}
        }
        question
    };
    let all = ["path", "method", "address", "query", "host", "x-id", "cookie", "credential"];
    let vary: Vec<String> = all.iter().map(|name| format!("\"{name}\"")).collect();
    let everything = format!(r#""vary":[{}],"cache":60"#, vary.join(","));
    // Whether the answer is used for a question that differs in one thing, at a time.
    for (members, name, now_ms, is_known) in [
        (r#""allow":true"#, "", 5, false),
        (r#""allow":true,"cache":0"#, "", 5, false),
        (r#""allow":true,"cache":60"#, "", 60_004, true),
        (r#""allow":true,"cache":60"#, "", 60_005, false),
        (r#""allow":true,"cache":999999999"#, "", 5 + SERVER_CACHE_S_MAX * 1_000 - 1, true),
        (r#""allow":true,"cache":999999999"#, "", 5 + SERVER_CACHE_S_MAX * 1_000, false),
        (r#""allow":true,"cache":60,"until":1800000010"#, "", 10_004, true),
        (r#""allow":true,"cache":60,"until":1800000010"#, "", 10_005, false),
        (r#""allow":false,"cache":60"#, "", 5, true),
        (r#""allow":false,"deny":401,"cache":60"#, "", 5, true),
        (r#""allow":false,"wait":1,"cache":60"#, "", 5, false),
        (r#""allow":true,"cache":60,"vary":[]"#, "cookie", 5, true),
        (r#""allow":true,"cache":60,"vary":["cookie"]"#, "path", 5, true),
        (r#""allow":true,"cache":60,"vary":["Cookie"]"#, "cookie", 5, false),
        (r#""allow":true,"cache":60,"vary":["cookie"]"#, "cookie", 5, false),
        (r#""allow":true,"cache":60,"vary":["authorization"]"#, "", 5, false),
    ] {
        let mut dialogue = dialogue();
        dialogue.message(result(1, members).as_bytes(), 5, UNIX_MS).unwrap();
        let asked = dialogue.ask(&other(name), now_ms);
        assert_eq!(matches!(asked, Asked::Known(_)), is_known, "{members}, other {name:?}, {now_ms}: {asked:?}");
    }
    for name in all {
        for members in [r#""cache":60"#, &everything] {
            let mut dialogue = dialogue();
            dialogue.message(result(1, &format!(r#""allow":true,{members}"#)).as_bytes(), 5, UNIX_MS).unwrap();
            assert!(matches!(dialogue.ask(&other(name), 6), Asked::Send(_)), "another {name}: {members}");
            assert!(matches!(dialogue.ask(&other(""), 6), Asked::Known(_)), "{members}");
        }
    }
}

#[test]
fn kept_answers_are_removed() {
    let kept = || {
        let mut dialogue = dialogue();
        let members = r#""allow":true,"user":"al","cache":60"#;
        dialogue.message(result(1, members).as_bytes(), 5, UNIX_MS).unwrap();
        assert_eq!(dialogue.ask(&question(40), 6), Asked::Known(allow("al", &[], None)));
        dialogue
    };
    for (user, is_known) in [("al", false), ("bob", true)] {
        let mut dialogue = kept();
        let text = format!(r#"{{"jsonrpc":"2.0","method":"revoked","params":{{"user":"{user}"}}}}"#);
        dialogue.message(text.as_bytes(), 6, UNIX_MS).unwrap();
        assert_eq!(matches!(dialogue.ask(&question(40), 6), Asked::Known(_)), is_known, "{user}");
    }
    let mut dialogue = kept();
    dialogue.clear();
    assert!(matches!(dialogue.ask(&question(40), 6), Asked::Send(_)), "a revocation may be missed");
    // The one that expires first makes room.
    let mut cache = Cache::default();
    let traits = |number: usize| traits_of(&params(&Question { query: number.to_string(), ..Question::default() }).0);
    for number in 0..=SERVER_CACHE_MAX {
        let until_ms = 1_000_000 - number as u64;
        cache.keep(&traits(number), None, Kept { verdict: Verdict::Deny, until_ms });
    }
    let known = (0..=SERVER_CACHE_MAX).filter(|number| cache.find(&traits(*number), 0).is_some()).count();
    assert_eq!(known, SERVER_CACHE_MAX);
    assert!(
        cache.find(&traits(SERVER_CACHE_MAX - 1), 0).is_none() && cache.find(&traits(SERVER_CACHE_MAX), 0).is_some()
    );
}
