//! Texts with their trees, and errors of invalid texts.

use std::collections::HashMap;

use super::*;
use crate::config::problem::Problems;
use crate::driver::sim::Rng;
use crate::limits::{CONFIG_DEPTH_MAX, CONFIG_NAME_SIZE_MAX, CONFIG_SIZE_MAX, INCLUDES_MAX, PROBLEMS_MAX};

/// The settings of the file `a`, and the reported problems.
pub(crate) fn read(files: &[(&str, &[u8])]) -> (Vec<Setting>, Vec<String>) {
    let files: HashMap<&str, &[u8]> = files.iter().copied().collect();
    let mut get = |name: &str| files.get(name).map(|text| text.to_vec()).ok_or("is not there".to_owned());
    let mut problems = Problems::default();
    let settings = parse("a", &mut get, &mut problems);
    assert!(problems.has_errors() || !problems.is_broken());
    (settings, problems.finish().iter().map(ToString::to_string).collect())
}

/// A tree on one line.
pub(crate) fn show(settings: &[Setting]) -> String {
    let all: Vec<String> =
        settings.iter().map(|setting| format!("{}={}", setting.name, show_data(&setting.data))).collect();
    all.join(" ")
}

fn show_data(data: &Data) -> String {
    let join = |elements: &[Element]| elements.iter().map(|one| show_data(&one.data)).collect::<Vec<_>>().join(",");
    match data {
        Data::Bool(value) => value.to_string(),
        Data::Integer(value) => value.to_string(),
        Data::Float(value) => format!("{value:?}"),
        Data::Text(text) => format!("{text:?}"),
        Data::Array(elements) => format!("[{}]", join(elements)),
        Data::List(elements) => format!("({})", join(elements)),
        Data::Group(settings) => format!("{{{}}}", show(settings)),
        Data::Bad => "BAD".to_owned(),
    }
}

#[test]
fn valid_texts() {
    let cases: &[(&str, &str)] = &[
        ("", ""),
        ("\u{feff}a = 1", "a=1"),
        (" \t\r\n\u{b}\u{c}\u{7}\u{8}", ""),
        ("a = 1; b : 2, c = 3 d = 4", "a=1 b=2 c=3 d=4"),
        ("a=1;\r\nb=2;\r\n", "a=1 b=2"),
        ("# x\n// y\n/* z\n a = 2; **/ a = 1 # end", "a=1"),
        ("a = 1; # café \\ \" {", "a=1"),
        ("a/**/=/**/1/**/;", "a=1"),
        ("a-b_9* = 1; *x = 2", "a-b_9*=1 *x=2"),
        ("a = true; b = FALSE; c = tRuE", "a=true b=false c=true"),
        ("a = 0; b = -7; c = +7; d = 007; e = 12L; f = 13LL", "a=0 b=-7 c=7 d=7 e=12 f=13"),
        ("a = 9223372036854775807; b = -9223372036854775808L", "a=9223372036854775807 b=-9223372036854775808"),
        ("a = 0x1F; b = 0Xffffffff; c = 0x7fffffffffffffffLL", "a=31 b=4294967295 c=9223372036854775807"),
        ("a = 0b101; b = 0B1L; c = 0o17; d = 0O17; e = 0q17; f = 0Q17", "a=5 b=1 c=15 d=15 e=15 f=15"),
        ("a = 1.5; b = .5; c = 1.; d = -1e3; e = 1E-2; f = +2.5e+1", "a=1.5 b=0.5 c=1.0 d=-1000.0 e=0.01 f=25.0"),
        (r#"a = "x" "y" /* and */ "z""#, r#"a="xyz""#),
        (r#"a = """#, r#"a="""#),
        (r#"a = "\n\r\t\f\v\a\b\\\"\x41\X42""#, r#"a="\n\r\t\u{c}\u{b}\u{7}\u{8}\\\"AB""#),
        (r#"a = "\xc3\xa9" "\xe2\x82" "\xac""#, "a=\"\u{e9}\u{20ac}\""),
        (r#"a = "ws_\*\q\x4""#, r#"a="ws_\\*\\q\\x4""#),
        ("a = \"one\ntwo\"", r#"a="one\ntwo""#),
        ("a = \"/* no comment */ # nor this\"", r##"a="/* no comment */ # nor this""##),
        ("a = []; b = (); c = {}", "a=[] b=() c={}"),
        ("a = [1, 2,]; b = [\"x\" \"y\", \"z\"]; c = [true]", "a=[1,2] b=[\"xy\",\"z\"] c=[true]"),
        ("a = (1, \"x\", [2.5], (), { b = 1 }, )", "a=(1,\"x\",[2.5],(),{b=1})"),
        ("a = { b = { c = 1; d = 2 }, e : (); } f = 1", "a={b={c=1 d=2} e=()} f=1"),
        ("a = { x = 1; }; b = { x = 2; }", "a={x=1} b={x=2}"),
    ];
    for (text, tree) in cases {
        let (settings, said) = read(&[("a", text.as_bytes())]);
        assert_eq!((show(&settings).as_str(), said), (*tree, vec![]), "{text:?}");
    }
}

#[test]
fn invalid_texts() {
    let cases: &[(&[u8], &[&str])] = &[
        (b"a", &["a:1: \"a\" is followed by the end of the file: write a = VALUE;"]),
        (
            b"a \"x\";\nb = ;",
            &["a:1: \"a\" is followed by a string: write a = VALUE;", "a:2: a value is missing before a semicolon"],
        ),
        (b"a = \nb = 1", &["a:2: a value is missing before \"b\""]),
        (b"a = 1;;", &["a:1: expected a name, found a semicolon"]),
        (b"= 1", &["a:1: expected a name, found ="]),
        (b"{ a = 1; }", &["a:1: expected a name, found {"]),
        (b"true = 1", &["a:1: expected a name, found true"]),
        (b"a = 1 2", &["a:1: expected a name, found a number"]),
        (b"a = /srv/my www;", &["a:1: a: \"/srv/my\" is not a value: write strings in double quotes"]),
        (b"a = 'x';", &["a:1: a: \"'x'\" is not a value: write strings in double quotes"]),
        (b"a = frames;", &["a:1: a: \"frames\" is not a value: write strings in double quotes"]),
        (b"a = 30s;", &["a:1: a: \"30s\" is not a value: write numbers without a unit, and strings in double quotes"]),
        (b"a = 127.0.0.1;", &["a:1: a: \"127.0.0.1\" is not a value: write strings in double quotes"]),
        (
            b"a = 9223372036854775808",
            &["a:1: a: \"9223372036854775808\" is not a value: an integer has 64 bits at most"],
        ),
        (b"a = 0xffffffffffffffff", &["a:1: a: \"0xffffffffffffffff\" is not a value: an integer has 64 bits at most"]),
        (
            b"a = 1e999; b = .; c = 0x; d = +inf; e = 1l; f = 0b2",
            &["\"1e999\"", "\".\"", "\"0x\"", "\"+inf\"", "\"1l\"", "\"0b2\""],
        ),
        (b"a = \xff\xfe;", &["is not a value"]),
        (
            b"a = \"\xe9\";\nb = \"\\xe9\"",
            &["a:1: a: the string is not UTF-8: save the file as UTF-8", "a:2: b: the string is not"],
        ),
        (b"a = \"x\\x00\"", &["a:1: a: the string contains a NUL: leave \\x00 out"]),
        (b"a = 1;\n\0", &["a has a NUL byte in line 2: save the file as UTF-8"]),
        (b"a = 1;\n/* x", &["a:2: the comment that begins here is not terminated: write */"]),
        (b"a = 1;\nb = \"x;\n", &["a:2: the string that begins here is not terminated: write \""]),
        (
            b"a = \"x;\nb = \"y\";",
            &["a:2: the string that begins", "does the string of line 1 lack its closing quote?"],
        ),
        (b"a = 1;\nb = 2;\na = 3;", &["a:3: a: is set twice: line 1 sets it too"]),
        (b"a = {\n b = 1;\n", &["a:1: { is not closed: } is missing"]),
        (
            b"a = (\n{ b = 1; ;\n)",
            &["a:2: expected a name", "a:2: { is not closed: } is missing before the ) of line 3"],
        ),
        (b"a = ( 1\nb = 2;", &["a:1: ( is not closed: ) is missing before \"b\" in line 2"]),
        (b"a = 1 }", &["a:1: } closes nothing"]),
        (b"a = (1; 2)", &["a:1: expected a comma between two elements, found a semicolon"]),
        (b"a = (1 2)", &["a:1: expected a comma between two elements, found a number"]),
        (b"a = (1,,2)", &["a:1: a value is missing before a comma"]),
        (b"a = (=)", &["a:1: a value is missing before ="]),
        (
            b"a = [1, 2.5]",
            &[
                "a:1: a: the elements of an array have one type, and these are an integer and a number with a fraction: write",
            ],
        ),
        (
            b"a = [{}]",
            &["a:1: a[0]: an array cannot contain groups, lists or arrays: write a list, ( ) in place of [ ]"],
        ),
        (b"@include\na = 1", &["a:1: @include names no file: write @include \"FILE\""]),
        (b"@include \"b\"", &["a:1: @include: b is not there"]),
    ];
    for (text, parts) in cases {
        let (_, said) = read(&[("a", text)]);
        let shown = String::from_utf8_lossy(text);
        assert_eq!(said.len(), parts.len(), "{shown:?}: {said:#?}");
        for (line, part) in said.iter().zip(*parts) {
            assert!(line.contains(part), "{shown:?}: {part:?} is not in {line:?}");
        }
    }
}

#[test]
fn locations() {
    let (settings, said) = read(&[("a", b"\n\na = 1; b = (\n\"x\",\n { c = 2; })\n /*\n*/ d = \"\n\"; e = 1")]);
    assert!(said.is_empty(), "{said:?}");
    let lines: Vec<u32> = settings.iter().map(|setting| setting.location.line).collect();
    assert_eq!(lines, [3, 3, 7, 8]);
    let Data::List(elements) = &settings[1].data else { panic!("{settings:?}") };
    assert_eq!(elements.iter().map(|one| one.location.line).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn includes() {
    // Relative to the including file, and anywhere between tokens.
    let (settings, said) = read(&[
        ("a", b"a = (\n @include \"sub/b\"\n, {@include \"/c\"})\nz = 1"),
        ("sub/b", b"@include \"d\"\n"),
        ("sub/d", b"{ x = 1; }"),
        ("/c", b"\xef\xbb\xbfy = 2;"),
    ]);
    assert_eq!((show(&settings).as_str(), said), ("a=({x=1},{y=2}) z=1", vec![]));

    let (_, said) = read(&[("a", b"a = 1;\n@include \"b\"\n"), ("b", b"\n\na = 2;\nb = }")]);
    assert_eq!(
        said,
        ["b:3: a: is set twice: line 1 of a sets it too", "b:4: a value is missing before }", "b:4: } closes nothing"]
    );

    let (_, said) = read(&[("a", b"@include \"a\"")]);
    assert_eq!(said, ["a:1: @include: files are nested more than 10 deep: does one include itself?"]);

    let many = "@include \"b\"\n".repeat(INCLUDES_MAX + 2);
    let (_, said) = read(&[("a", many.as_bytes()), ("b", b"")]);
    assert_eq!(
        said,
        ["a:257: @include: more than 256 files are included", "a:258: @include: more than 256 files are included"]
    );
}

#[test]
fn sizes() {
    let full = vec![b' '; CONFIG_SIZE_MAX];
    assert!(read(&[("a", &full)]).1.is_empty());
    let mut over = full.clone();
    over.push(b' ');
    assert_eq!(read(&[("a", &over)]).1, ["a is too large: a configuration has 1048576 bytes at most"]);
    // Lexing a long word takes linear time.
    for word in ["1e+", "+", "0x1e+", "x", "\u{e9}"] {
        let text = "a = ".to_owned() + &word.repeat((CONFIG_SIZE_MAX - 4) / word.len());
        assert!(!read(&[("a", text.as_bytes())]).1.is_empty(), "{word}");
    }
    let name = "a".repeat(CONFIG_NAME_SIZE_MAX);
    assert!(read(&[("a", format!("{name} = 1").as_bytes())]).1.is_empty());
    assert!(read(&[("a", format!("{name}a = 1").as_bytes())]).1[0].starts_with("a:1: expected a name, found \"aa"));
    let (_, said) = read(&[("a", b"@include \"b\""), ("b", &full)]);
    assert_eq!(said, ["a:1: @include: b is too large: a configuration has 1048576 bytes at most"]);
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize, open: &str, close: &str| format!("a = {}1{}", open.repeat(depth), close.repeat(depth));
    let fits = nested(CONFIG_DEPTH_MAX, "(", ")");
    assert!(read(&[("a", fits.as_bytes())]).1.is_empty());
    for depth in [CONFIG_DEPTH_MAX + 1, CONFIG_SIZE_MAX / 4] {
        let deep = nested(depth, "(", ")") + "\nb = ;";
        let (_, said) = read(&[("a", deep.as_bytes())]);
        assert_eq!(
            said,
            ["a:1: brackets are nested more than 32 deep", "a:2: a value is missing before a semicolon"],
            "{depth}"
        );
        for open in ["(", "a={", "[", "({a=", "{"] {
            let (_, said) = read(&[("a", format!("a = {}", open.repeat(depth / 2)).as_bytes())]);
            assert!(!said.is_empty() && said.len() <= PROBLEMS_MAX + 1, "{open}");
        }
    }
}

/// Random input: parsing terminates, and the number of problems is limited.
#[test]
fn noise() {
    const WORDS: [&[u8]; 24] = [
        b"a",
        b"b = ",
        b"= ",
        b"{",
        b"}",
        b"(",
        b")",
        b"[",
        b"]",
        b"; ",
        b", ",
        b"\"",
        b"\\",
        b"\n",
        b"1",
        b"0x",
        b"1.5e",
        b"/*",
        b"*/",
        b"//",
        b"@include",
        b"@include \"a\"\n",
        b"\xff",
        b"true",
    ];
    for seed in 0..4_000 {
        let mut rng = Rng(seed);
        let mut text = Vec::new();
        for _ in 0..rng.below(60) {
            match rng.one_in(10) {
                true => text.push(rng.draw() as u8),
                false => text.extend(WORDS[rng.below(WORDS.len())]),
            }
        }
        let (_, said) = read(&[("a", &text)]);
        assert!(said.len() <= PROBLEMS_MAX + 1, "seed {seed}");
    }
}
