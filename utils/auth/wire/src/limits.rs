//! Limits of the frames.

/// Bytes of a frame after its length.
pub const FRAME_SIZE_MAX: usize = 64 * 1024;
/// Bytes of a frame with rules after its length.
pub const RULES_SIZE_MAX: usize = 4 * 1024 * 1024;
