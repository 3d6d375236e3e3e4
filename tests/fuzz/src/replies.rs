//! Replies of HTTP as a client sees them: where one ends and the next begins must never be in doubt.

/// The replies to one client, the last one maybe not whole.
#[derive(Default, Debug)]
pub struct Replies {
    /// How long the last one said that its body is, and how much of it came.
    promised: u64,
    came: u64,
    /// It said that it is the last one.
    is_last: bool,
}

impl Replies {
    /// Takes a reply's head, with its whole body or without any.
    pub fn add_head(&mut self, bytes: &[u8]) {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("an empty line");
        let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok());
        let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("a name and a value")).collect();
        assert!(head.bytes().all(|byte| (b' '..=b'~').contains(&byte) || b"\r\n".contains(&byte)), "{head}");
        // A body that has begun comes whole; one that has not is that of a HEAD.
        assert!(!self.is_last && (self.came == 0 || self.came == self.promised), "{self:?} before {head}");
        let values = |name| fields.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value);
        let lengths: Vec<&str> = values("Content-Length").collect();
        let has_length = !matches!(status, Some(101 | 304));
        assert_eq!(lengths.len(), usize::from(has_length), "{head}");
        self.promised = lengths.first().map_or(0, |length| length.parse().expect("a number"));
        self.came = 0;
        self.is_last = values("Connection").any(|value| value.split(", ").any(|option| option == "close"));
        let body = bytes.len() - end - 4;
        assert!(body == 0 || body as u64 == self.promised, "{body} bytes behind {head}");
        self.add_body(body);
    }

    /// Takes bytes of a body.
    pub fn add_body(&mut self, size: usize) {
        self.came += size as u64;
        assert!(self.came <= self.promised, "a body that is too long: {self:?}");
    }
}
