//! Frames (RFC 6455 section 5.2), and a client that sends any frame, valid or not.

use crate::wire::Wire;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame, its payload without mask.
#[derive(PartialEq, Eq, Debug, Clone)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub is_masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole message, or a control frame.
    pub fn new(opcode: u8, payload: &[u8]) -> Frame {
        Frame { fin: true, rsv: 0, opcode, is_masked: false, payload: payload.to_vec() }
    }

    /// The first or a middle part of a message.
    pub fn part(opcode: u8, payload: &[u8]) -> Frame {
        Frame { fin: false, ..Frame::new(opcode, payload) }
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Frame {
        Frame::new(CLOSE, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// The frame with a mask, as clients send it.
    pub fn masked(self) -> Frame {
        Frame { is_masked: true, ..self }
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let size = self.payload.len();
        let mask_bit = u8::from(self.is_masked) << 7;
        let mut bytes = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match size {
            0..126 => bytes.push(mask_bit | size as u8),
            126..65_536 => {
                bytes.push(mask_bit | 126);
                bytes.extend((size as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend((size as u64).to_be_bytes());
            }
        }
        let start = bytes.len() + if self.is_masked { 4 } else { 0 };
        if self.is_masked {
            bytes.extend(MASK);
        }
        bytes.extend_from_slice(&self.payload);
        if self.is_masked {
            bytes[start..].iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        bytes
    }

    /// Reads a frame; `take` returns the next bytes. Asserts that the length has its shortest form.
    pub fn read(mut take: impl FnMut(usize) -> Vec<u8>) -> Frame {
        let head = take(2);
        let is_masked = head[1] & 0x80 != 0;
        let size = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(take(2).try_into().unwrap())),
            127 => u64::from_be_bytes(take(8).try_into().unwrap()),
            size => u64::from(size),
        };
        let least = match head[1] & 0x7f {
            126 => 126,
            127 => 65_536,
            _ => 0,
        };
        assert!(size >= least, "a length of {size} is written too long");
        assert!(!is_masked, "a frame with a mask: {head:x?}");
        let payload = take(size as usize);
        Frame { fin: head[0] & 0x80 != 0, rsv: head[0] >> 4 & 7, opcode: head[0] & 0xf, is_masked, payload }
    }

    /// All frames of these bytes.
    pub fn all(bytes: &[u8]) -> Vec<Frame> {
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            frames.push(Frame::read(|size| {
                at += size;
                bytes[at - size..at].to_vec()
            }));
        }
        frames
    }

    /// Reads the frames of one message.
    pub fn read_message(mut next: impl FnMut() -> Frame) -> (u8, Vec<u8>) {
        let mut message: Option<(u8, Vec<u8>)> = None;
        loop {
            let frame = next();
            assert_eq!(frame.rsv, 0, "{frame:?}");
            match (&mut message, frame.opcode) {
                (None, TEXT | BINARY) => message = Some((frame.opcode, frame.payload)),
                (Some((_, bytes)), CONTINUATION) => bytes.extend(frame.payload),
                _ => panic!("this frame has no place here: {frame:?}"),
            }
            if frame.fin {
                return message.unwrap_or_default();
            }
        }
    }

    /// The code and reason of a close frame.
    pub fn close_code(&self) -> (u16, String) {
        assert!(self.opcode == CLOSE && self.fin, "a close frame was due: {self:?}");
        match &self.payload[..] {
            [high, low, reason @ ..] => {
                (u16::from_be_bytes([*high, *low]), String::from_utf8(reason.to_vec()).unwrap())
            }
            _ => (1005, String::new()),
        }
    }
}

/// A client after its handshake.
pub struct Client {
    pub wire: Wire,
}

impl Client {
    /// Takes over a connection.
    pub fn new(wire: Wire) -> Client {
        Client { wire }
    }

    /// Sends the frames masked, in one write.
    pub fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.clone().masked().bytes()).collect();
        self.wire.send(bytes);
    }

    /// Sends a text message.
    pub fn text(&mut self, text: &str) {
        self.send(&[Frame::new(TEXT, text.as_bytes())]);
    }

    /// Sends a binary message.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.send(&[Frame::new(BINARY, bytes)]);
    }

    /// Sends a close frame.
    pub fn close(&mut self, code: u16) {
        self.send(&[Frame::close(code, "")]);
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        Frame::read(|size| self.wire.take(size))
    }

    /// The next frame but keepalive pings, for which a busy machine takes long enough. They are answered.
    fn frame_but_pings(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame != Frame::new(PING, b"") {
                return frame;
            }
            self.send(&[Frame::new(PONG, b"")]);
        }
    }

    /// The next message, joined from its frames.
    pub fn message(&mut self) -> (u8, Vec<u8>) {
        Frame::read_message(|| self.frame_but_pings())
    }

    /// The size of all messages up to the end of the stream. A close frame may precede it.
    pub fn rest_size(&mut self) -> usize {
        let frames = Frame::all(&self.wire.take_rest());
        frames.iter().filter(|frame| frame.opcode != CLOSE).map(|frame| frame.payload.len()).sum()
    }

    /// The next message must be this text.
    pub fn expect_text(&mut self, text: &str) {
        let (opcode, payload) = self.message();
        assert_eq!((opcode, String::from_utf8_lossy(&payload).as_ref()), (TEXT, text));
    }

    /// The next message must be binary and these bytes.
    pub fn expect_binary(&mut self, bytes: &[u8]) {
        let (opcode, payload) = self.message();
        assert_eq!(opcode, BINARY);
        assert!(payload == bytes, "{} other bytes than the {} that were due", payload.len(), bytes.len());
    }

    /// The next frame must be this pong.
    pub fn expect_pong(&mut self, payload: &[u8]) {
        assert_eq!(self.frame_but_pings(), Frame::new(PONG, payload));
    }

    /// The next frame must close with this code. Returns the reason.
    pub fn expect_close(&mut self, code: u16) -> String {
        // A ping that came before it has no answer any more.
        let frame = std::iter::repeat_with(|| self.frame()).find(|frame| *frame != Frame::new(PING, b"")).unwrap();
        let (got, reason) = frame.close_code();
        assert_eq!(got, code, "closed with {got} {reason:?}");
        reason
    }

    /// The gateway closes with this code, gets the answer, and ends the connection. Returns the reason.
    pub fn expect_close_handshake(&mut self, code: u16) -> String {
        let reason = self.expect_close(code);
        self.close(code);
        self.wire.expect_end();
        reason
    }

    /// Closes with this code, which the gateway must answer with the same code and the end.
    pub fn finish(&mut self, code: u16) {
        self.close(code);
        self.expect_close(code);
        self.wire.expect_end();
    }
}
