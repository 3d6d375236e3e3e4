//! Replies of HTTP as a client sees them: where one ends and the next begins must never be in doubt.

use crate::gateway::Peer;

const VERSION: &[u8] = b"HTTP/1.1 ";

/// The replies to one client, the last one maybe not whole.
#[derive(Default, Debug)]
pub struct Replies {
    /// Their statuses.
    pub statuses: Vec<u16>,
    /// Where the frames after a 101 begin.
    pub frames_at: Option<usize>,
    /// The last reply is not whole.
    pub is_cut: bool,
}

impl Replies {
    /// Reads all that a client has heard, and asserts that the replies are well-formed.
    pub fn of(client: &Peer) -> Replies {
        let heard = &client.heard[..];
        // Only the reply to HEAD has a length and no body.
        let may_lack_body = client.said.windows(4).any(|part| part == b"HEAD");
        let mut replies = Replies::default();
        let (mut at, mut is_last) = (0, false);
        while let Some(size) = heard[at..].windows(4).position(|part| part == b"\r\n\r\n") {
            assert!(!is_last, "more after the last reply: {}", heard[at..].escape_ascii());
            let head = std::str::from_utf8(&heard[at..at + size]).expect("an ASCII head");
            let (status, body_size, closes) = parse(head);
            replies.statuses.push(status);
            (at, is_last) = (at + size + 4, closes);
            if status == 101 {
                replies.frames_at = Some(at);
                return replies;
            }
            let rest = &heard[at..];
            // No body here begins as a reply does.
            let is_next = rest.starts_with(VERSION) || rest.len() < VERSION.len() && VERSION.starts_with(rest);
            // These statuses answer a request that was understood.
            if replies.statuses.len() == 1 && matches!(status, 200 | 404) && client.said.starts_with(b"HEAD ") {
                assert!(is_next, "a body after the reply to HEAD: {}", rest.escape_ascii());
            }
            if may_lack_body && is_next {
                continue;
            }
            if rest.len() < body_size {
                replies.is_cut = true;
                return replies;
            }
            at += body_size;
        }
        assert!(!is_last || at == heard.len(), "more after the last reply: {}", heard[at..].escape_ascii());
        let rest = &heard[at..heard.len().min(at + VERSION.len())];
        assert!(VERSION.starts_with(rest), "no reply: {}", rest.escape_ascii());
        replies.is_cut = !rest.is_empty();
        replies
    }
}

/// The status, the size of the body, and whether the connection closes after it.
fn parse(head: &str) -> (u16, usize, bool) {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("a name and a value")).collect();
    assert!(head.bytes().all(|byte| (b' '..=b'~').contains(&byte) || b"\r\n".contains(&byte)), "{head}");
    let values = |name| fields.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value);
    let lengths: Vec<&str> = values("Content-Length").collect();
    assert_eq!(lengths.len(), usize::from(!matches!(status, 101 | 204 | 304)), "{head}");
    let size = lengths.first().map_or(0, |length| length.parse().expect("a number"));
    (status, size, values("Connection").any(|value| value.split(", ").any(|option| option == "close")))
}
