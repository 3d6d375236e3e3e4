//! Differential tests against an independent parser (the crate serde-libconfigasaurus).

use libconfig::{Config, Value};

use super::tests::{read, show};
use crate::driver::sim::Rng;

/// The tree of the other parser. It distinguishes integers of 32 and 64 bits; both are shown alike.
fn theirs(text: &str) -> Result<String, String> {
    let value = Config::from_str(text).map_err(|error| error.to_string())?.into_value();
    let Value::Group(map) = &value else { return Err(format!("{value:?}")) };
    Ok(show_map(map))
}

fn show_map(map: &libconfig::Map) -> String {
    map.iter().map(|(name, value)| format!("{name}={}", show_value(value))).collect::<Vec<_>>().join(" ")
}

fn show_value(value: &Value) -> String {
    let join = |values: &[Value]| values.iter().map(show_value).collect::<Vec<_>>().join(",");
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Integer64(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::String(text) => format!("{text:?}"),
        Value::Array(values) => format!("[{}]", join(values)),
        Value::List(values) => format!("({})", join(values)),
        Value::Group(map) => format!("{{{}}}", show_map(map)),
    }
}

fn ours(text: &str) -> Result<String, String> {
    let (settings, said) = read(&[("a", text.as_bytes())]);
    if said.is_empty() { Ok(show(&settings)) } else { Err(said.join("\n")) }
}

#[test]
fn known_differences() {
    // Text, our tree, their tree; None: refused.
    let cases: &[(&str, Option<&str>, Option<&str>, &str)] = &[
        ("a = 0xFFFFFFFF", Some("a=4294967295"), Some("a=-1"), "32 bits must not turn a limit negative"),
        ("a = 0x00000000000000001", Some("a=1"), None, "the value counts, not the number of digits"),
        (r#"a = "ws_\*""#, Some(r#"a="ws_\\*""#), None, "the C library keeps such a backslash, and patterns use it"),
        (r#"a = "\x4""#, Some(r#"a="\\x4""#), None, "the C library keeps such a backslash"),
        (r#"a = "\X41""#, Some(r#"a="A""#), None, "the C library takes a large X"),
        (
            r#"a = "\xc3\xa9""#,
            Some("a=\"\u{e9}\""),
            Some("a=\"\u{c3}\u{a9}\""),
            "an escape is a byte, as in the C library",
        ),
        (r#"a = "\xe9""#, None, Some("a=\"\u{e9}\""), "that byte alone is no UTF-8"),
        (r#"a = "\x00""#, None, Some(r#"a="\0""#), "no path or name has a NUL"),
        ("a=1b=2", None, Some("a=1 b=2"), "a unit behind a number is a mistake that is made"),
        ("a =", None, Some("a={}"), "a value is missing"),
        ("true = 1", None, Some("true=1"), "the C library takes it for a value"),
        ("a = 1e999", None, Some("a=inf"), "a number has a value"),
        ("\u{feff}a = 1", Some("a=1"), None, "editors write byte order marks"),
        ("a = \u{7}1", Some("a=1"), None, "the C library skips all of these characters"),
        ("\u{a0}a = 1", None, Some("a=1"), "the C library knows ASCII's white space only"),
        ("a = 1; b = { @include \"a\" }", None, None, "both refuse a file that includes itself"),
    ];
    for (text, our, their, why) in cases {
        assert_eq!(ours(text).ok().as_deref(), *our, "{text:?}: {why}");
        assert_eq!(theirs(text).ok().as_deref(), *their, "{text:?}: {why}");
    }
}

#[test]
fn equal_trees() {
    for text in [
        "",
        "# nothing",
        "a = 1; b : 2, c = 3 d = 4",
        "user = \"www\" \"-data\"; servers = ({ port = 80; websocket = { allow = \"^/ws_\"; }; }, { });",
        "a = -12; b = +3; c = 0x1f; d = 0b11; e = 0o17; f = 1L; g = 2LL; h = 0q7",
        "a = 1.5; b = .5; c = 1.; d = 1e3; e = -1.5E-3",
        "a = TRUE; b = False",
        "a = \"\\n\\r\\t\\f\\\\\\\"\\x41\"",
        "a = []; b = (); c = {}; d = [1, 2,]; e = ((), [], {},)",
        "a = { b = { c = ( { d = 1 } ) } } /* x */ // y\n z = 2 # end",
    ] {
        let our = ours(text);
        assert_eq!(our, theirs(text), "{text:?}");
        assert!(our.is_ok(), "{text:?}: {our:?}");
    }
    for text in ["a", "= 1", "a = (", "a = {", "a = [1, \"x\"]", "a = 1;;", "a = 1; a = 2", "a = (1 2)", "a = 08x"] {
        assert!(ours(text).is_err() && theirs(text).is_err(), "{text:?}");
    }
}

#[test]
fn generated_texts_have_equal_trees() {
    for seed in 0..2_000 {
        let mut rng = Rng(seed);
        let text = settings(&mut rng, 0);
        let our = ours(&text);
        assert!(our.is_ok(), "seed {seed}: {our:?}\n{text}");
        assert_eq!(our, theirs(&text), "seed {seed}\n{text}");
    }
}

/// One character is inserted, removed or replaced. If both parsers accept the text, the trees are equal.
#[test]
fn damaged_texts_have_equal_trees() {
    let (mut both, mut refused) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = Rng(seed);
        let mut text: Vec<char> = settings(&mut rng, 0).chars().collect();
        let at = rng.below(text.len());
        let other = "{}()[];,:=\"#/* \n1aL.x-".chars().nth(rng.below(22)).unwrap_or(' ');
        match rng.below(3) {
            0 => drop(text.remove(at)),
            1 => text.insert(at, other),
            _ => text[at] = other,
        }
        let text: String = text.into_iter().collect();
        match (ours(&text), theirs(&text)) {
            (Ok(our), Ok(their)) => {
                assert_eq!(our, their, "seed {seed}\n{text}");
                both += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            // `known_differences` lists the texts that only one of them refuses.
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => {}
        }
    }
    assert!(both > 500 && refused > 500, "{both} read by both, {refused} by none");
}

fn settings(rng: &mut Rng, depth: usize) -> String {
    let mut text = String::new();
    for number in 0..1 + rng.below(5) {
        let name = ["a", "B-b", "c_9", "*d", "trueish"][rng.below(5)];
        let (equals, end) = (["=", ":", " = "][rng.below(3)], [";", ",", " ", "\n"][rng.below(4)]);
        text += &format!("{}{name}{number}{equals}{}{end}", blank(rng), value(rng, depth));
    }
    text
}

fn value(rng: &mut Rng, depth: usize) -> String {
    let kinds = if depth < 5 { 8 } else { 5 };
    let kind = rng.below(kinds);
    let blank = blank(rng);
    match kind {
        0..5 => scalar(rng, kind),
        5 => format!("{{{}{blank}}}", settings(rng, depth + 1)),
        6 => {
            let kind = rng.below(5);
            let all: Vec<String> = (0..rng.below(4)).map(|_| scalar(rng, kind)).collect();
            format!("[{}{blank}]", all.join(","))
        }
        _ => {
            let all: Vec<String> = (0..rng.below(4)).map(|_| value(rng, depth + 1)).collect();
            format!("({blank}{})", all.join(", "))
        }
    }
}

fn scalar(rng: &mut Rng, kind: usize) -> String {
    match kind {
        0 => ["true", "FALSE", "False"][rng.below(3)].to_owned(),
        1 => format!("{}", rng.draw() as i32),
        2 => format!("{}{:x}", ["0x", "0X"][rng.below(2)], rng.below(0xff_ffff)),
        3 => format!("{}.{}e{}", rng.below(100), rng.below(100), rng.below(9)),
        _ => {
            let part = |rng: &mut Rng| ["x", "/srv/www", "\\n\\t", "\\\"", "# { (", "\\x41", "caf\u{e9}"][rng.below(7)];
            let join = [" ", "", "\n/* and */ "][rng.below(3)];
            format!("\"{}{}\"{join}\"{}\"", part(rng), part(rng), part(rng))
        }
    }
}

fn blank(rng: &mut Rng) -> &'static str {
    ["", " ", "\n", "\t# note\n", "// note\r\n", "/* * / */"][rng.below(6)]
}
