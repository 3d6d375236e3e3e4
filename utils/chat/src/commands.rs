//! Commands of `-w` and the server's own messages. A command is at the start of a message; a space or any control
//! character ends a name, so that a trailing newline does no harm.

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Command<'m> {
    /// WSHello: take this name.
    Hello(&'m str),
    /// WSPrivate: send this to the member of that name.
    Private(&'m str, &'m [u8]),
    /// WSWhois: reply with the address of the member of that name.
    Whois(&'m str),
    /// Not a command: send the message to the others.
    Say,
    /// Invalid: a command without a name, or a message that only the server may send.
    Nothing,
}

pub(crate) fn parse(message: &[u8]) -> Command<'_> {
    if let Some(rest) = message.strip_prefix(b"WSHello ") {
        name(rest).map_or(Command::Nothing, |(name, _)| Command::Hello(name))
    } else if let Some(rest) = message.strip_prefix(b"WSWhois ") {
        name(rest).map_or(Command::Nothing, |(name, _)| Command::Whois(name))
    } else if let Some(rest) = message.strip_prefix(b"WSPrivate ") {
        match name(rest) {
            Some((name, [_, text @ ..])) if !text.is_empty() && !is_reserved(text) => Command::Private(name, text),
            _ => Command::Nothing,
        }
    } else if is_reserved(message) {
        Command::Nothing
    } else {
        Command::Say
    }
}

/// Whether a line of the text is one of the server's own messages, which a member could forge. Every line is checked,
/// since pages treat each line of a message as a message.
fn is_reserved(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"WSWelcome ") || line.starts_with(b"WSIs "))
}

/// The name at the start, and the rest from the byte that ends it.
fn name(rest: &[u8]) -> Option<(&str, &[u8])> {
    let size = rest.iter().position(|byte| *byte <= b' ' || *byte == 0x7f).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(size);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((name, rest))
}

/// Reply to WSHello.
pub(crate) fn welcome(name: &str) -> String {
    format!("WSWelcome {name}")
}

/// Reply to WSWhois: an address, or why there is none.
pub(crate) fn is(name: &str, what: &str) -> String {
    format!("WSIs {name} {what}")
}

/// Announces that a name is free again, with the message that a leaving page sends.
pub(crate) fn goodbye(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for character in name.chars() {
        // Names have no control characters, so that these two are all to escape (RFC 8259 section 7).
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    format!("{{\"type\":\"goodbye\",\"id\":\"{quoted}\",\"data\":\"goodbye\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed() {
        for (message, wanted) in [
            ("WSHello alice", Command::Hello("alice")),
            ("WSHello alice\r\n", Command::Hello("alice")),
            ("WSHello alice the great", Command::Hello("alice")),
            ("WSHello Zo\u{eb}\0", Command::Hello("Zo\u{eb}")),
            ("WSHello ", Command::Nothing),
            ("WSHello  alice", Command::Nothing),
            ("WSHello", Command::Say),
            ("wshello alice", Command::Say),
            (" WSHello alice", Command::Say),
            ("WSPrivate bob a word, or two", Command::Private("bob", b"a word, or two")),
            ("WSPrivate bob  blank", Command::Private("bob", b" blank")),
            ("WSPrivate bob\nline", Command::Private("bob", b"line")),
            ("WSPrivate bob WSWelcome eve", Command::Nothing),
            ("WSPrivate bob ", Command::Nothing),
            ("WSPrivate bob", Command::Nothing),
            ("WSPrivate  bob", Command::Nothing),
            ("WSWhois bob", Command::Whois("bob")),
            ("WSWhois bob\n", Command::Whois("bob")),
            ("WSWhois ", Command::Nothing),
            ("WSWelcome eve", Command::Nothing),
            ("WSIs bob 192.0.2.1", Command::Nothing),
            ("hello\nWSWelcome eve", Command::Nothing),
            ("\n\nWSIs bob 192.0.2.1\n", Command::Nothing),
            ("WSPrivate bob hello\nWSIs bob 192.0.2.1", Command::Nothing),
            ("hello\n WSWelcome eve", Command::Say),
            ("WSIsland", Command::Say),
            ("", Command::Say),
            ("hello", Command::Say),
        ] {
            assert_eq!(parse(message.as_bytes()), wanted, "{message:?}");
        }
        assert_eq!(parse(b"WSHello al\xffice"), Command::Nothing);
        assert_eq!(parse(b"WSPrivate bob \xff"), Command::Private("bob", b"\xff"));
    }

    #[test]
    fn messages_of_the_server() {
        assert_eq!(welcome("alice001"), "WSWelcome alice001");
        assert_eq!(is("bob", "192.0.2.1"), "WSIs bob 192.0.2.1");
        assert_eq!(goodbye("bob"), r#"{"type":"goodbye","id":"bob","data":"goodbye"}"#);
        assert_eq!(goodbye(r#"a"\b"#), r#"{"type":"goodbye","id":"a\"\\b","data":"goodbye"}"#);
    }
}
