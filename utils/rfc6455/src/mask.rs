//! Masking (RFC 6455 section 5.3): payload byte i of a client's frame XOR key byte i mod 4.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The masking keys of a client's frames: no key can be predicted from earlier ones (RFC 6455 section 10.3). Each is the
/// hash of a counter (SipHash) under a random secret, so that a frame costs no system call.
#[derive(Default, Debug)]
pub struct MaskKeys {
    secret: RandomState,
    count: AtomicU64,
}

impl MaskKeys {
    /// A new key, for one frame.
    pub fn next(&self) -> [u8; 4] {
        let hash = self.secret.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        ((hash >> 32) as u32).to_ne_bytes()
    }
}

/// Bytes handled at once, so that the compiler uses vector registers.
const LANE: usize = 32;

/// Masks or unmasks a part of a payload in place. `offset` is its position in the frame's payload: byte `i` is combined
/// with key byte `(offset + i) mod 4`.
pub fn apply(payload: &mut [u8], key: [u8; 4], offset: u64) {
    let key = [0, 1, 2, 3].map(|i| key[(offset.wrapping_add(i) % 4) as usize]);
    let lane: [u8; LANE] = std::array::from_fn(|i| key[i % 4]);
    let mut lanes = payload.chunks_exact_mut(LANE);
    for chunk in &mut lanes {
        for (byte, key) in chunk.iter_mut().zip(lane) {
            *byte ^= key;
        }
    }
    // The remainder byte by byte would cost as much as many lanes, so words come first.
    let word = u64::from_ne_bytes(std::array::from_fn(|i| key[i % 4]));
    let mut words = lanes.into_remainder().chunks_exact_mut(8);
    for chunk in &mut words {
        if let Some(bytes) = chunk.first_chunk_mut::<8>() {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(lane) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::{MaskKeys, apply};

    /// The keys of two sources, and of one source, differ. Of 64 keys, a pair is equal once in two million runs.
    #[test]
    fn keys_differ() {
        let sources = [MaskKeys::default(), MaskKeys::default()];
        let mut keys: Vec<_> = sources.iter().flat_map(|keys| (0..32).map(|_| keys.next())).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() > 60, "{keys:?}");
    }

    #[test]
    fn equals_the_naive_way_at_every_alignment_length_and_offset() {
        let key = [0x12, 0xa4, 0x5f, 0x00];
        let source: Vec<u8> = (0..200u32).map(|i| (i * 7 + 3) as u8).collect();
        for start in 0..40 {
            for length in 0..=(source.len() - start).min(130) {
                for offset in 0..5u64 {
                    let mut fast = source.clone();
                    apply(&mut fast[start..start + length], key, offset);
                    let mut naive = source.clone();
                    for i in 0..length {
                        naive[start + i] ^= key[(offset as usize + i) % 4];
                    }
                    assert_eq!(fast, naive, "start {start} length {length} offset {offset}");
                }
            }
        }
    }
}
