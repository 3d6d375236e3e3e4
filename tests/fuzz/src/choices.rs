//! A fuzzer's bytes as a row of choices. Where they end, the least choice is made.

/// Bytes of which each choice takes some off.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All choices that these bytes are.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// The next `count` bytes, or the rest.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their number before them.
    pub fn counted(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.bytes(count.into())
    }

    /// The first byte of a frame, most often a usual one.
    pub fn first_byte(&mut self) -> u8 {
        let usual = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a];
        usual.get(usize::from(self.byte())).copied().unwrap_or_else(|| self.byte())
    }

    /// Some bytes, or seldom very many, which take long.
    pub fn payload(&mut self) -> Vec<u8> {
        match self.byte() {
            size @ 0..=254 => self.bytes(size.into()).to_vec(),
            _ => vec![b'x'; [300, 65_535, 65_536, 66_000][usize::from(self.byte().saturating_sub(252))]],
        }
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Pieces at most, which keeps a run short.
const PIECES_MAX: usize = 500;

/// Cuts bytes into pieces of these sizes, which begin anew behind the last one. The last piece is all that is left.
pub fn cut<'a>(mut bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle().take(PIECES_MAX) {
        let (piece, rest) = bytes.split_at(bytes.len().min((*size).into()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
