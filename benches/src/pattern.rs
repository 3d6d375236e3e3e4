//! Message contents that the receiver can check from two numbers, without storing sent messages.
//!
//! A message is a window into one table of random bytes. Client and sequence number determine
//! its offset. Its first eight bytes are a unique tag. This detects bytes that are lost, doubled,
//! swapped or taken from another client or message, at the cost of a memory comparison.

const SHIFTS: usize = 4096;
const TAG_SIZE: usize = 8;

/// A small, fast random generator (xorshift64*); good enough for masks, not for secrets.
pub struct Random(u64);

impl Random {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(mix(seed) | 1)
    }

    /// The next pseudo-random number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Contents of messages of one size.
pub struct Pattern {
    table: Vec<u8>,
    size: usize,
}

impl Pattern {
    /// Prepares messages of `size` bytes.
    pub fn new(size: usize) -> Pattern {
        let mut random = Random::new(size as u64);
        let table = (0..size + SHIFTS).map(|_| (random.next_u64() >> 56) as u8).collect();
        Pattern { table, size }
    }

    /// Appends the message of this client with this sequence number.
    pub fn append(&self, client: u32, sequence: u64, out: &mut Vec<u8>) {
        let (tag, window) = self.message(client, sequence);
        let tagged = self.size.min(TAG_SIZE);
        out.extend_from_slice(&tag[..tagged]);
        out.extend_from_slice(&window[tagged..]);
    }

    /// True if `got` equals the message's bytes from `offset` on.
    pub fn matches(&self, client: u32, sequence: u64, offset: usize, got: &[u8]) -> bool {
        if got.len() > self.size - offset {
            return false;
        }
        let (tag, window) = self.message(client, sequence);
        let in_tag = TAG_SIZE.saturating_sub(offset).min(got.len());
        got[in_tag..] == window[offset + in_tag..offset + got.len()]
            && (in_tag == 0 || got[..in_tag] == tag[offset..offset + in_tag])
    }

    fn message(&self, client: u32, sequence: u64) -> ([u8; TAG_SIZE], &[u8]) {
        let tag = mix(u64::from(client) << 40 ^ sequence);
        let shift = tag as usize % SHIFTS;
        (tag.to_le_bytes(), &self.table[shift..shift + self.size])
    }
}

/// SplitMix64's finalizer: a bijection, so different inputs have different results.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_matches_and_any_change_does_not() {
        for size in [1, 3, 8, 9, 64] {
            let pattern = Pattern::new(size);
            let mut message = Vec::new();
            pattern.append(7, 42, &mut message);
            assert_eq!(message.len(), size);
            for at in 0..=size {
                assert!(pattern.matches(7, 42, 0, &message[..at]));
                assert!(pattern.matches(7, 42, at, &message[at..]));
            }
            for at in 0..size {
                let mut wrong = message.clone();
                wrong[at] ^= 1;
                assert!(!pattern.matches(7, 42, 0, &wrong));
            }
            message.push(0);
            assert!(!pattern.matches(7, 42, 0, &message));
        }
    }

    #[test]
    fn messages_differ() {
        let pattern = Pattern::new(8);
        let mut message = Vec::new();
        pattern.append(1, 1, &mut message);
        assert!(!pattern.matches(1, 2, 0, &message));
        assert!(!pattern.matches(2, 1, 0, &message));
    }
}
