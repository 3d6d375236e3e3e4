//! Texts split everywhere, and compared with another parser.

use serde_json::value::RawValue;

use super::*;

/// The texts in these pieces; `;` stands for an invalid one.
fn split<'a>(separator: Separator, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut splitter, mut all) = (Splitter::new(separator), Vec::new());
    for piece in pieces {
        let mut at = 0;
        while let Some(found) = splitter.next(piece, &mut at) {
            all.push(found);
        }
        assert_eq!(at, piece.len());
    }
    all.extend(splitter.end());
    all.into_iter().map(shown).collect()
}

fn shown(found: Found) -> String {
    match found {
        Found::Text(text) => String::from_utf8_lossy(&text).into_owned(),
        Found::Invalid => ";".to_owned(),
        Found::TooLong => "too long".to_owned(),
    }
}

const LF: Separator = Separator::Byte(b'\n');

#[test]
fn texts_split_at_any_offset() {
    let deepest = "[".repeat(NESTING_MAX) + &"]".repeat(NESTING_MAX);
    let too_deep = format!("{{\"a\":[{deepest}]}} [1]");
    let cases: &[(Separator, &str, &[&str])] = &[
        (Separator::None, "", &[]),
        (Separator::None, " \t\r\n\0", &[]),
        (Separator::None, "{}", &["{}"]),
        (Separator::None, "{}\0[]\0", &["{}", "[]"]),
        (Separator::None, r#"{"a":1}{"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#]),
        (Separator::None, " [1 , -2.5e+7,0 ] \n {\"x\" : null }", &["[1 , -2.5e+7,0 ]", "{\"x\" : null }"]),
        (Separator::None, r#"["}]","\"]","\\",true,false,[{}]]"#, &[r#"["}]","\"]","\\",true,false,[{}]]"#]),
        (Separator::None, r#"{"\u00fc":"\n\ud83d\ude00"}"#, &[r#"{"\u00fc":"\n\ud83d\ude00"}"#]),
        (Separator::None, "\"one\"true 17 null[]", &["\"one\"", "true", "17", "null", "[]"]),
        (Separator::None, "{\"a\":\n1}", &["{\"a\":\n1}"]),
        (Separator::None, &deepest, &[&deepest]),
        (Separator::None, &too_deep, &[";", "[1]"]),
        (Separator::None, "[1", &[";"]),
        (Separator::None, "[1,]\n[2]", &[";", "[2]"]),
        (Separator::None, "{\"a\" \"b\"}\0[2]", &[";", "[2]"]),
        (Separator::None, "[\"a\nb\"] [1]\n[2]", &[";", ";", "[2]"]),
        (Separator::None, "{]\n[}\n{1}\n[01]\n[1.]\n[-]\n[+1]\n[1e]", &[";"; 8]),
        (Separator::None, "[tru]\n[nulL]\n[\"\\x\"]\n[\"\\u12g4\"]\n[1 2]\n{\"a\":}\n]\nhello", &[";"; 8]),
        (LF, "[1]\n[2]\r\n\n[3]", &["[1]", "[2]", "[3]"]),
        (LF, "[1\n[2]\n{\"a\":\n1}\nx y [7]\n[8]", &[";", "[2]", ";", "1", ";", ";", "[8]"]),
        (LF, "1\n-\n", &["1", ";"]),
        (LF, "[1][2]\n", &["[1]", "[2]"]),
        (Separator::Byte(0), "[1,\n2]\0[3\0[4]", &["[1,\n2]", ";", "[4]"]),
        (Separator::None, "[1,\n2][3] x [4]", &["[1,\n2]", "[3]", ";"]),
    ];
    for (separator, text, expected) in cases {
        let bytes = text.as_bytes();
        assert_eq!(split(*separator, [bytes]), *expected, "{text:?}");
        assert_eq!(split(*separator, bytes.chunks(1)), *expected, "{text:?}, byte by byte");
        for cut in 0..bytes.len() {
            assert_eq!(split(*separator, [&bytes[..cut], &bytes[cut..]]), *expected, "{text:?}, cut at {cut}");
        }
    }
}

#[test]
fn the_end_of_a_read_ends_invalid_texts_and_numbers() {
    let split_by_reads = |pieces: &[&str]| {
        let (mut splitter, mut all) = (Splitter::new(Separator::None), Vec::new());
        for piece in pieces {
            let mut at = 0;
            while let Some(found) = splitter.next(piece.as_bytes(), &mut at) {
                all.push(shown(found));
            }
            all.extend(splitter.end_of_read().map(shown));
        }
        all
    };
    assert_eq!(split_by_reads(&["[1} {\"a\":[2", "[3]"]), [";", "[3]"]);
    assert_eq!(split_by_reads(&["{\"a\" x", "y z\"", " z\"}", "  {\"b\"", ":1}"]), [";", "{\"b\":1}"]);
    assert_eq!(split_by_reads(&["17", "[1", "8", "]", "-"]), ["17", "[18]", ";"]);
}

#[test]
fn a_text_beyond_the_size_limit() {
    let mut splitter = Splitter::new(Separator::None);
    let (mut at, piece) = (0, vec![b' '; 1024 * 1024]);
    assert_eq!(splitter.next(b"[", &mut at), None);
    for _ in 0..MESSAGE_SIZE_MAX / piece.len() - 1 {
        let mut at = 0;
        assert_eq!(splitter.next(&piece, &mut at), None);
    }
    let mut at = 0;
    assert_eq!(splitter.next(&piece[..piece.len() - 2], &mut at), None);
    let mut last = Splitter { text: splitter.text.clone(), open: splitter.open.clone(), ..splitter };
    at = 0;
    assert!(matches!(splitter.next(b"]", &mut at), Some(Found::Text(text)) if text.len() == MESSAGE_SIZE_MAX));
    at = 0;
    assert_eq!(last.next(b"  ]", &mut at), Some(Found::TooLong));
    assert!(last.held_size() == 0, "{} bytes are kept", last.held_size());
}

/// serde_json finds the same first text in random sequences of tokens.
#[test]
fn another_parser_agrees() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound as u64) as usize
    };
    let tokens = [
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"a\"",
        "\"\\u12aF\\n\"",
        "1",
        "-0.5",
        "2e",
        "+",
        "10",
        ".",
        "true",
        "null",
        " ",
        "\"",
        "\\",
        "x",
        "[]",
        "{}",
        "\"k\":",
        "[1,",
        "fals",
        "\t",
    ];
    let mut whole = 0;
    for _ in 0..50_000 {
        // serde_json reports no end of numbers and words that touch, so that the text is an array or object.
        let more: String = (0..1 + random(12)).map(|_| tokens[random(tokens.len())]).collect();
        let text = format!("{}{more}", ["[", "{"][random(2)]);
        let found = split(Separator::None, text.as_bytes().chunks(1 + random(5)));
        let stream = serde_json::Deserializer::from_str(&text).into_iter::<Box<RawValue>>();
        let mut expected = stream.map(|value| value.map_or(";".to_owned(), |value| value.get().to_owned()));
        assert_eq!(found.first(), expected.next().as_ref(), "{text:?}");
        whole += usize::from(found.first().is_some_and(|first| first != ";"));
    }
    assert!(whole > 500, "only {whole} texts were whole");
}
