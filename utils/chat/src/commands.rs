//! What a message asks for, and what the server says by itself. Words of `-w` begin a message, and a blank or any
//! control character ends a name, so that a newline behind it does no harm.

/// What a message asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum Command<'m> {
    /// To be called so from now on.
    Hello(&'m str),
    /// To tell this to the member of that name.
    Private(&'m str, &'m [u8]),
    /// To be told where the member of that name is.
    Whois(&'m str),
    /// To be told to the others.
    Say,
    /// Nothing that can be done: a command without a name, or a word that is the server's own.
    Nothing,
}

/// Reads a message as `-w` has it.
pub fn parse(message: &[u8]) -> Command<'_> {
    if let Some(rest) = message.strip_prefix(b"WSHello ") {
        name(rest).map_or(Command::Nothing, |(name, _)| Command::Hello(name))
    } else if let Some(rest) = message.strip_prefix(b"WSWhois ") {
        name(rest).map_or(Command::Nothing, |(name, _)| Command::Whois(name))
    } else if let Some(rest) = message.strip_prefix(b"WSPrivate ") {
        match name(rest) {
            Some((name, [_, text @ ..])) if !text.is_empty() && !is_ours(text) => Command::Private(name, text),
            _ => Command::Nothing,
        }
    } else if is_ours(message) {
        Command::Nothing
    } else {
        Command::Say
    }
}

/// What only the server says: a member who says it would speak for the server. In any line of it, since pages take
/// several lines in one message for several messages.
fn is_ours(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"WSWelcome ") || line.starts_with(b"WSIs "))
}

/// The name at the beginning, and what is behind it from the byte on that ends it.
fn name(rest: &[u8]) -> Option<(&str, &[u8])> {
    let size = rest.iter().position(|byte| *byte <= b' ' || *byte == 0x7f).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(size);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((name, rest))
}

/// Tells a member its name.
pub fn welcome(name: &str) -> String {
    format!("WSWelcome {name}")
}

/// Answers WSWhois: an address, or why there is none.
pub fn is(name: &str, what: &str) -> String {
    format!("WSIs {name} {what}")
}

/// Tells the others that a name is free again. It is what a page says that leaves, so that pages need nothing new.
pub fn goodbye(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for character in name.chars() {
        // All that JSON asks for, since names have no control characters (RFC 8259 section 7).
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
    fn what_messages_ask_for() {
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
    fn words_of_the_server() {
        assert_eq!(welcome("alice001"), "WSWelcome alice001");
        assert_eq!(is("bob", "192.0.2.1"), "WSIs bob 192.0.2.1");
        assert_eq!(goodbye("bob"), r#"{"type":"goodbye","id":"bob","data":"goodbye"}"#);
        assert_eq!(goodbye(r#"a"\b"#), r#"{"type":"goodbye","id":"a\"\\b","data":"goodbye"}"#);
    }
}
