//! The fields of each message.

use crate::codec::{Message, WireError, nest};
use crate::fields::{Fields, path_bytes, put, put_optional, put_pairs, put_texts};
use crate::{
    Answer, Credential, Digest, DigestAlgorithm, Jwt, JwtAlgorithm, JwtKey, Layout, Problem, Question, Rule, Source,
    ToDaemon, ToHelper, Verdict,
};

// Kinds of frames. Bit 7: to the daemon.
const RULES: u8 = 0x01;
const ASK: u8 = 0x02;
const CANCEL: u8 = 0x03;
const READY: u8 = 0x81;
const PROBLEMS: u8 = 0x82;
const ANSWER: u8 = 0x83;
const REVOKED: u8 = 0x84;

// Types of fields. A type has one meaning in all messages.
const ID: u8 = 1;
const GENERATION: u8 = 2;
const RULE: u8 = 3;
/// A variant, as a byte.
const VARIANT: u8 = 4;
const USER: u8 = 5;
const GROUP: u8 = 6;
const HEADER: u8 = 7;
const SECRET: u8 = 8;
const PATH: u8 = 9;
const SENTENCE: u8 = 10;
const UNTIL: u8 = 11;
const WAIT: u8 = 12;
const CREDENTIAL: u8 = 13;
const ADDRESS: u8 = 14;
const METHOD: u8 = 15;
const HOST: u8 = 16;
const QUERY: u8 = 17;
const REALM: u8 = 18;
const NONCE: u8 = 19;
const URI: u8 = 20;
const COUNT: u8 = 21;
const CNONCE: u8 = 22;
const ALGORITHM: u8 = 23;
const SOURCE: u8 = 24;
const LAYOUT: u8 = 25;
const KEY: u8 = 26;
const NAME: u8 = 27;
const ISSUER: u8 = 28;
const AUDIENCE: u8 = 29;
const CLAIM: u8 = 30;
const FILTER: u8 = 31;
const PROBLEM: u8 = 32;
const TRIAL: u8 = 33;

/// The variants of an enum without values, in the order of their bytes.
fn byte_of<T: PartialEq>(variants: &[T], variant: &T) -> u8 {
    variants.iter().position(|other| other == variant).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn of_byte<T: Copy>(variants: &[T], field: u8, byte: u8) -> Result<T, WireError> {
    variants.get(usize::from(byte)).copied().ok_or(WireError::Value(field))
}

const BOOLEANS: [bool; 2] = [false, true];
const LAYOUTS: [Layout; 3] = [Layout::Passwds, Layout::Status, Layout::Authrpc];
const JWT_ALGORITHMS: [JwtAlgorithm; 4] =
    [JwtAlgorithm::Hs256, JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa];
const DIGEST_ALGORITHMS: [DigestAlgorithm; 2] = [DigestAlgorithm::Md5, DigestAlgorithm::Sha256];

impl Message for ToHelper {
    const LONG_KIND: Option<u8> = Some(RULES);

    fn write(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            ToHelper::Rules { generation, rules, is_trial } => {
                put(out, GENERATION, &generation.to_be_bytes());
                put(out, TRIAL, &[byte_of(&BOOLEANS, is_trial)]);
                for rule in rules {
                    nest(out, RULE, |out| write_rule(rule, out));
                }
                RULES
            }
            ToHelper::Ask(question) => {
                write_question(question, out);
                ASK
            }
            ToHelper::Cancel { id } => {
                put(out, ID, &id.to_be_bytes());
                CANCEL
            }
        }
    }

    fn read(kind: u8, mut fields: Fields<'_>) -> Result<ToHelper, WireError> {
        let message = match kind {
            RULES => ToHelper::Rules {
                generation: fields.u32(GENERATION)?,
                rules: fields.all(RULE).into_iter().map(read_rule).collect::<Result<_, _>>()?,
                is_trial: of_byte(&BOOLEANS, TRIAL, fields.byte(TRIAL)?)?,
            },
            ASK => ToHelper::Ask(Box::new(read_question(&mut fields)?)),
            CANCEL => ToHelper::Cancel { id: fields.u64(ID)? },
            _ => return Err(WireError::Kind),
        };
        fields.end()?;
        Ok(message)
    }
}

impl Message for ToDaemon {
    const LONG_KIND: Option<u8> = None;

    fn write(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            ToDaemon::Ready { generation, warnings } => {
                put(out, GENERATION, &generation.to_be_bytes());
                put_texts(out, SENTENCE, warnings);
                READY
            }
            ToDaemon::Problems { generation, problems } => {
                put(out, GENERATION, &generation.to_be_bytes());
                for problem in problems {
                    nest(out, PROBLEM, |out| {
                        put(out, RULE, &problem.rule.to_be_bytes());
                        put(out, SENTENCE, problem.sentence.as_bytes());
                    });
                }
                PROBLEMS
            }
            ToDaemon::Answer(answer) => {
                put(out, ID, &answer.id.to_be_bytes());
                write_verdict(&answer.verdict, out);
                ANSWER
            }
            ToDaemon::Revoked { server, user } => {
                put(out, PATH, path_bytes(server));
                put(out, USER, user.as_bytes());
                REVOKED
            }
        }
    }

    fn read(kind: u8, mut fields: Fields<'_>) -> Result<ToDaemon, WireError> {
        let message = match kind {
            READY => ToDaemon::Ready { generation: fields.u32(GENERATION)?, warnings: fields.texts(SENTENCE)? },
            PROBLEMS => {
                let problems: Vec<&[u8]> = fields.all(PROBLEM);
                if problems.is_empty() {
                    return Err(WireError::Missing(PROBLEM));
                }
                ToDaemon::Problems {
                    generation: fields.u32(GENERATION)?,
                    problems: problems.into_iter().map(read_problem).collect::<Result<_, _>>()?,
                }
            }
            ANSWER => ToDaemon::Answer(Answer { id: fields.u64(ID)?, verdict: read_verdict(&mut fields)? }),
            REVOKED => ToDaemon::Revoked { server: fields.path(PATH)?, user: fields.text(USER)? },
            _ => return Err(WireError::Kind),
        };
        fields.end()?;
        Ok(message)
    }
}

fn read_problem(bytes: &[u8]) -> Result<Problem, WireError> {
    let mut fields = Fields::parse(bytes)?;
    let problem = Problem { rule: fields.u32(RULE)?, sentence: fields.text(SENTENCE)? };
    fields.end()?;
    Ok(problem)
}

fn write_verdict(verdict: &Verdict, out: &mut Vec<u8>) {
    match verdict {
        Verdict::Allow { user, groups, until_ms, headers } => {
            put(out, VARIANT, &[0]);
            put(out, USER, user.as_bytes());
            put_texts(out, GROUP, groups);
            put_optional(out, UNTIL, until_ms.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
            put_pairs(out, HEADER, headers);
        }
        Verdict::Deny => put(out, VARIANT, &[1]),
        Verdict::Forbidden => put(out, VARIANT, &[2]),
        Verdict::Limited { wait_ms } => {
            put(out, VARIANT, &[3]);
            put(out, WAIT, &wait_ms.to_be_bytes());
        }
        Verdict::Unavailable { sentence } => {
            put(out, VARIANT, &[4]);
            put(out, SENTENCE, sentence.as_bytes());
        }
        Verdict::Refused { reason } => {
            put(out, VARIANT, &[5]);
            put(out, SENTENCE, reason.as_bytes());
        }
    }
}

fn read_verdict(fields: &mut Fields<'_>) -> Result<Verdict, WireError> {
    Ok(match fields.byte(VARIANT)? {
        0 => Verdict::Allow {
            user: fields.text(USER)?,
            groups: fields.texts(GROUP)?,
            until_ms: fields.optional_u64(UNTIL)?,
            headers: fields.pairs(HEADER)?,
        },
        1 => Verdict::Deny,
        2 => Verdict::Forbidden,
        3 => Verdict::Limited { wait_ms: fields.u64(WAIT)? },
        4 => Verdict::Unavailable { sentence: fields.text(SENTENCE)? },
        5 => Verdict::Refused { reason: fields.text(SENTENCE)? },
        _ => return Err(WireError::Value(VARIANT)),
    })
}

fn write_question(question: &Question, out: &mut Vec<u8>) {
    put(out, ID, &question.id.to_be_bytes());
    put(out, GENERATION, &question.generation.to_be_bytes());
    put(out, RULE, &question.rule.to_be_bytes());
    nest(out, CREDENTIAL, |out| write_credential(&question.credential, out));
    for (field, text) in [
        (ADDRESS, &question.address),
        (METHOD, &question.method),
        (HOST, &question.host),
        (PATH, &question.path),
        (QUERY, &question.query),
    ] {
        put(out, field, text.as_bytes());
    }
    put_pairs(out, HEADER, &question.headers);
}

fn read_question(fields: &mut Fields<'_>) -> Result<Question, WireError> {
    Ok(Question {
        id: fields.u64(ID)?,
        generation: fields.u32(GENERATION)?,
        rule: fields.u32(RULE)?,
        credential: read_credential(fields.one(CREDENTIAL)?)?,
        address: fields.text(ADDRESS)?,
        method: fields.text(METHOD)?,
        host: fields.text(HOST)?,
        path: fields.text(PATH)?,
        query: fields.text(QUERY)?,
        headers: fields.pairs(HEADER)?,
    })
}

fn write_credential(credential: &Credential, out: &mut Vec<u8>) {
    match credential {
        Credential::None => put(out, VARIANT, &[0]),
        Credential::Password { user, password } => {
            put(out, VARIANT, &[1]);
            put(out, USER, user.as_bytes());
            put(out, SECRET, password.reveal().as_bytes());
        }
        Credential::Token(token) => {
            put(out, VARIANT, &[2]);
            put(out, SECRET, token.reveal().as_bytes());
        }
        Credential::Digest(digest) => {
            put(out, VARIANT, &[3]);
            for (field, text) in [
                (USER, digest.user.as_str()),
                (REALM, &digest.realm),
                (NONCE, &digest.nonce),
                (URI, &digest.uri),
                (COUNT, &digest.nc),
                (CNONCE, &digest.cnonce),
                (SECRET, digest.response.reveal()),
            ] {
                put(out, field, text.as_bytes());
            }
            put(out, ALGORITHM, &[byte_of(&DIGEST_ALGORITHMS, &digest.algorithm)]);
        }
    }
}

fn read_credential(bytes: &[u8]) -> Result<Credential, WireError> {
    let mut fields = Fields::parse(bytes)?;
    let credential = match fields.byte(VARIANT)? {
        0 => Credential::None,
        1 => Credential::Password { user: fields.text(USER)?, password: fields.secret(SECRET)? },
        2 => Credential::Token(fields.secret(SECRET)?),
        3 => Credential::Digest(Digest {
            user: fields.text(USER)?,
            realm: fields.text(REALM)?,
            nonce: fields.text(NONCE)?,
            uri: fields.text(URI)?,
            nc: fields.text(COUNT)?,
            cnonce: fields.text(CNONCE)?,
            algorithm: of_byte(&DIGEST_ALGORITHMS, ALGORITHM, fields.byte(ALGORITHM)?)?,
            response: fields.secret(SECRET)?,
        }),
        _ => return Err(WireError::Value(VARIANT)),
    };
    fields.end()?;
    Ok(credential)
}

fn write_rule(rule: &Rule, out: &mut Vec<u8>) {
    for source in &rule.sources {
        nest(out, SOURCE, |out| write_source(source, out));
    }
    put_texts(out, USER, &rule.users);
    put_texts(out, GROUP, &rule.groups);
    put_optional(out, FILTER, rule.filter.as_deref().map(path_bytes));
    put(out, REALM, rule.realm.as_bytes());
}

fn read_rule(bytes: &[u8]) -> Result<Rule, WireError> {
    let mut fields = Fields::parse(bytes)?;
    let rule = Rule {
        sources: fields.all(SOURCE).into_iter().map(read_source).collect::<Result<_, _>>()?,
        users: fields.texts(USER)?,
        groups: fields.texts(GROUP)?,
        filter: fields.optional_path(FILTER)?,
        realm: fields.text(REALM)?,
    };
    fields.end()?;
    Ok(rule)
}

fn write_source(source: &Source, out: &mut Vec<u8>) {
    match source {
        Source::User { user, passwd, groups } => {
            put(out, VARIANT, &[0]);
            write_entry(user, passwd.reveal(), groups, out);
        }
        Source::PasswordFile(path) => {
            put(out, VARIANT, &[1]);
            put(out, PATH, path_bytes(path));
        }
        Source::Database { path, layout } => {
            put(out, VARIANT, &[2]);
            put(out, PATH, path_bytes(path));
            if let Some(layout) = layout {
                put(out, LAYOUT, &[byte_of(&LAYOUTS, layout)]);
            }
        }
        Source::Token { token, user, groups } => {
            put(out, VARIANT, &[3]);
            write_entry(user, token.reveal(), groups, out);
        }
        Source::TokenFile(path) => {
            put(out, VARIANT, &[4]);
            put(out, PATH, path_bytes(path));
        }
        Source::Jwt(jwt) => {
            put(out, VARIANT, &[5]);
            for key in &jwt.keys {
                nest(out, KEY, |out| write_key(key, out));
            }
            put_optional(out, ISSUER, jwt.issuer.as_deref().map(str::as_bytes));
            put_optional(out, AUDIENCE, jwt.audience.as_deref().map(str::as_bytes));
            put_optional(out, CLAIM, jwt.user_claim.as_deref().map(str::as_bytes));
        }
        Source::Server(path) => {
            put(out, VARIANT, &[6]);
            put(out, PATH, path_bytes(path));
        }
    }
}

fn read_source(bytes: &[u8]) -> Result<Source, WireError> {
    let mut fields = Fields::parse(bytes)?;
    let source = match fields.byte(VARIANT)? {
        0 => Source::User { user: fields.text(USER)?, passwd: fields.secret(SECRET)?, groups: fields.texts(GROUP)? },
        1 => Source::PasswordFile(fields.path(PATH)?),
        2 => {
            let layout = fields.optional_byte(LAYOUT)?;
            let layout = layout.map(|byte| of_byte(&LAYOUTS, LAYOUT, byte)).transpose()?;
            Source::Database { path: fields.path(PATH)?, layout }
        }
        3 => Source::Token { token: fields.secret(SECRET)?, user: fields.text(USER)?, groups: fields.texts(GROUP)? },
        4 => Source::TokenFile(fields.path(PATH)?),
        5 => Source::Jwt(Jwt {
            keys: fields.all(KEY).into_iter().map(read_key).collect::<Result<_, _>>()?,
            issuer: fields.optional_text(ISSUER)?,
            audience: fields.optional_text(AUDIENCE)?,
            user_claim: fields.optional_text(CLAIM)?,
        }),
        6 => Source::Server(fields.path(PATH)?),
        _ => return Err(WireError::Value(VARIANT)),
    };
    fields.end()?;
    Ok(source)
}

/// A user or a token of the configuration.
fn write_entry(user: &str, secret: &str, groups: &[String], out: &mut Vec<u8>) {
    put(out, USER, user.as_bytes());
    put(out, SECRET, secret.as_bytes());
    put_texts(out, GROUP, groups);
}

fn write_key(key: &JwtKey, out: &mut Vec<u8>) {
    put(out, PATH, path_bytes(&key.path));
    put_optional(out, NAME, key.id.as_deref().map(str::as_bytes));
    if let Some(algorithm) = &key.algorithm {
        put(out, ALGORITHM, &[byte_of(&JWT_ALGORITHMS, algorithm)]);
    }
}

fn read_key(bytes: &[u8]) -> Result<JwtKey, WireError> {
    let mut fields = Fields::parse(bytes)?;
    let algorithm = fields.optional_byte(ALGORITHM)?;
    let key = JwtKey {
        path: fields.path(PATH)?,
        id: fields.optional_text(NAME)?,
        algorithm: algorithm.map(|byte| of_byte(&JWT_ALGORITHMS, ALGORITHM, byte)).transpose()?,
    };
    fields.end()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::path::PathBuf;

    use super::*;
    use crate::Secret;
    use crate::codec::{Decoder, encode};
    use crate::limits::{FRAME_SIZE_MAX, RULES_SIZE_MAX};

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn pairs() -> Vec<(String, String)> {
        vec![("cookie".to_owned(), "a=b; c".to_owned()), ("cookie".to_owned(), String::new())]
    }

    fn to_helper() -> Vec<ToHelper> {
        let sources = vec![
            Source::User { user: "ann".to_owned(), passwd: "$6$x$y".into(), groups: texts(&["a", "b"]) },
            Source::PasswordFile(PathBuf::from("/etc/uakari/users")),
            Source::Database { path: PathBuf::from("/a.db"), layout: None },
            Source::Database { path: PathBuf::from("/b.db"), layout: Some(Layout::Authrpc) },
            Source::Token { token: "0123456789abcdef".into(), user: "bot".to_owned(), groups: Vec::new() },
            Source::TokenFile(PathBuf::from("/etc/uakari/tokens")),
            Source::Jwt(Jwt {
                keys: vec![
                    JwtKey { path: PathBuf::from("/k.pem"), id: Some("1".to_owned()), algorithm: None },
                    JwtKey { path: PathBuf::from("/s"), id: None, algorithm: Some(JwtAlgorithm::Hs256) },
                ],
                issuer: Some("https://id.example".to_owned()),
                audience: None,
                user_claim: Some("email".to_owned()),
            }),
            Source::Server(PathBuf::from("/run/authorize")),
        ];
        let rule = Rule {
            sources,
            users: texts(&["ann"]),
            groups: texts(&["admin", "ops"]),
            filter: Some(PathBuf::from("/filter.db")),
            realm: "here".to_owned(),
        };
        let question = |credential| {
            ToHelper::Ask(Box::new(Question {
                id: u64::MAX,
                generation: 7,
                rule: 2,
                credential,
                address: "2001:db8::1".to_owned(),
                method: "GET".to_owned(),
                host: "example.com".to_owned(),
                path: "/gps".to_owned(),
                query: "x=\u{e4}".to_owned(),
                headers: pairs(),
            }))
        };
        let digest = Digest {
            user: "Mufasa".to_owned(),
            realm: "r".to_owned(),
            nonce: "n".to_owned(),
            uri: "/dir".to_owned(),
            nc: "00000001".to_owned(),
            cnonce: "c".to_owned(),
            algorithm: DigestAlgorithm::Sha256,
            response: "753927fa".into(),
        };
        vec![
            ToHelper::Rules { generation: 1, rules: vec![rule, Rule::default()], is_trial: false },
            ToHelper::Rules { generation: 2, rules: Vec::new(), is_trial: true },
            question(Credential::None),
            question(Credential::Password { user: "ann".to_owned(), password: "geheim".into() }),
            question(Credential::Token("token".into())),
            question(Credential::Digest(digest)),
            ToHelper::Cancel { id: 3 },
        ]
    }

    fn to_daemon() -> Vec<ToDaemon> {
        let answer = |verdict| ToDaemon::Answer(Answer { id: 9, verdict });
        vec![
            ToDaemon::Ready { generation: 1, warnings: texts(&["a", "b"]) },
            ToDaemon::Problems { generation: 1, problems: vec![Problem { rule: 3, sentence: "no".to_owned() }] },
            answer(Verdict::Allow {
                user: "ann".to_owned(),
                groups: texts(&["a"]),
                until_ms: Some(1_700_000_000_000),
                headers: pairs(),
            }),
            answer(Verdict::Allow { user: String::new(), groups: Vec::new(), until_ms: None, headers: Vec::new() }),
            answer(Verdict::Deny),
            answer(Verdict::Refused { reason: "the token is for another audience".to_owned() }),
            answer(Verdict::Forbidden),
            answer(Verdict::Limited { wait_ms: 1_000 }),
            answer(Verdict::Unavailable { sentence: "the disk is full".to_owned() }),
            ToDaemon::Revoked { server: PathBuf::from("/run/authorize"), user: "ann".to_owned() },
        ]
    }

    fn encoded<M: Message>(messages: &[M]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            encode(message, &mut bytes).unwrap();
        }
        bytes
    }

    /// What a decoder makes of pieces.
    fn decoded<'a, M: Message>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<M>, WireError> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(message) = decoder.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn split_everywhere<M: Message + PartialEq + Debug>(messages: &[M]) {
        let bytes = encoded(messages);
        assert_eq!(decoded::<M>([&bytes[..]].into_iter()).unwrap(), messages);
        assert_eq!(decoded::<M>(bytes.chunks(1)).unwrap(), messages);
        for at in 1..bytes.len() {
            assert_eq!(decoded::<M>([&bytes[..at], &bytes[at..]].into_iter()).unwrap(), messages, "cut at {at}");
        }
    }

    #[test]
    fn messages_survive_any_split() {
        split_everywhere(&to_helper());
        split_everywhere(&to_daemon());
    }

    /// Each byte of each frame replaced: an error, more bytes wanted, or a message; never a panic. Each frame that is cut
    /// short and has its length corrected is an error.
    fn damage<M: Message + Debug + PartialEq>(messages: &[M]) {
        for message in messages {
            let good = encoded(std::slice::from_ref(message));
            for at in 0..good.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1, good[at].wrapping_add(1)] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    let mut decoder = Decoder::default();
                    decoder.push(&bad);
                    let _ = decoder.next::<M>();
                }
            }
            for size in 4..good.len() {
                let mut bad = good[..size].to_vec();
                bad[..4].copy_from_slice(&u32::try_from(size - 4).unwrap().to_be_bytes());
                let mut decoder = Decoder::default();
                decoder.push(&bad);
                // A list that is shorter is a list; all other fields are needed or end within a frame.
                if let Ok(shorter) = decoder.next::<M>() {
                    assert_ne!(shorter.as_ref(), Some(message), "{size} of {} bytes", good.len());
                }
            }
        }
    }

    #[test]
    fn damaged_frames_are_no_panics() {
        damage(&to_helper());
        damage(&to_daemon());
    }

    #[test]
    fn strictness() {
        let field = |kind: u8, value: &[u8]| {
            let mut out = Vec::new();
            put(&mut out, kind, value);
            out
        };
        let id = field(ID, &[0; 8]);
        for (name, body, expected) in [
            ("no kind", Vec::new(), WireError::Kind),
            ("an unknown kind", vec![0x7f], WireError::Kind),
            ("a kind of the other direction", [&[ANSWER][..], &id, &field(VARIANT, &[1])].concat(), WireError::Kind),
            ("no id", vec![CANCEL], WireError::Missing(ID)),
            ("an id twice", [&[CANCEL][..], &id, &id].concat(), WireError::Surplus(ID)),
            ("a short id", [&[CANCEL][..], &field(ID, &[0; 7])].concat(), WireError::Value(ID)),
            ("a long id", [&[CANCEL][..], &field(ID, &[0; 9])].concat(), WireError::Value(ID)),
            ("an unknown field", [&[CANCEL][..], &id, &field(99, &[])].concat(), WireError::Surplus(99)),
            ("a field of another kind", [&[CANCEL][..], &id, &field(USER, b"a")].concat(), WireError::Surplus(USER)),
            ("a cut field", [&[CANCEL][..], &id, &[USER, 0, 0, 0]].concat(), WireError::Short),
            ("a value beyond the frame", [&[CANCEL][..], &[ID, 0, 0, 0, 9], &[0; 8]].concat(), WireError::Short),
            ("the longest value", [&[CANCEL][..], &[ID, 255, 255, 255, 255]].concat(), WireError::Short),
        ] {
            let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(body);
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.next::<ToHelper>(), Err(expected), "{name}");
        }
        let rule = |rule: &[u8]| [&field(GENERATION, &[0; 4])[..], &field(RULE, rule)].concat();
        let source = |variant: u8, rest: &[u8]| {
            let source = [&field(VARIANT, &[variant])[..], rest].concat();
            rule(&[field(SOURCE, &source), field(REALM, b"")].concat())
        };
        for (name, fields, expected) in [
            ("a relative path", source(1, &field(PATH, b"etc/users")), WireError::Value(PATH)),
            ("an empty path", source(1, &field(PATH, b"")), WireError::Value(PATH)),
            ("a NUL in a path", source(1, &field(PATH, b"/a\0b")), WireError::Value(PATH)),
            ("an unknown source", source(7, &field(PATH, b"/a")), WireError::Value(VARIANT)),
            ("a surplus field of a source", source(1, &rule(b"")), WireError::Missing(PATH)),
            (
                "an unknown layout",
                source(2, &[field(PATH, b"/a"), field(LAYOUT, &[3])].concat()),
                WireError::Value(LAYOUT),
            ),
            ("a user that is no UTF-8", source(0, &field(USER, &[0xff])), WireError::Value(USER)),
            ("a rule without a realm", rule(&[]), WireError::Missing(REALM)),
        ] {
            assert_eq!(ToHelper::read(RULES, Fields::parse(&fields).unwrap()), Err(expected), "{name}");
        }
        assert_eq!(
            ToDaemon::read(PROBLEMS, Fields::parse(&field(GENERATION, &[0; 4])).unwrap()),
            Err(WireError::Missing(PROBLEM))
        );
    }

    #[test]
    fn limits_of_frames() {
        // Only frames with rules may be long, and the length is judged before the rest has come.
        for (bytes, expected) in [
            ([&u32::try_from(RULES_SIZE_MAX + 1).unwrap().to_be_bytes()[..], &[]].concat(), Err(WireError::TooLong)),
            ([&u32::try_from(RULES_SIZE_MAX).unwrap().to_be_bytes()[..], &[RULES]].concat(), Ok(None)),
            ([&u32::try_from(FRAME_SIZE_MAX + 1).unwrap().to_be_bytes()[..], &[]].concat(), Ok(None)),
            ([&u32::try_from(FRAME_SIZE_MAX + 1).unwrap().to_be_bytes()[..], &[ASK]].concat(), Err(WireError::TooLong)),
            ([&u32::try_from(FRAME_SIZE_MAX).unwrap().to_be_bytes()[..], &[ASK]].concat(), Ok(None)),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.next::<ToHelper>(), expected, "{bytes:?}");
        }
        let question = |size| ToHelper::Ask(Box::new(Question { path: "a".repeat(size), ..Question::default() }));
        let overhead = encoded(&[question(0)]).len() - 4;
        let mut out = b"before".to_vec();
        encode(&question(FRAME_SIZE_MAX - overhead), &mut out).unwrap();
        assert_eq!(out.len(), 6 + 4 + FRAME_SIZE_MAX);
        let before = out.clone();
        assert_eq!(encode(&question(FRAME_SIZE_MAX - overhead + 1), &mut out), Err(WireError::TooLong));
        assert!(out == before, "a frame that is too long leaves nothing");
    }

    #[test]
    fn secrets_are_not_shown() {
        for message in to_helper() {
            let shown = format!("{message:?}");
            for secret in ["geheim", "a=b", "x=\u{e4}", "$6$x$y", "0123456789abcdef", "753927fa", "\"token\""] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        let mut decoder = Decoder::default();
        decoder.push(b"geheim");
        assert_eq!(format!("{decoder:?} {:?}", Secret::from("geheim")), "Decoder(6 bytes) Secret(..)");
    }
}
