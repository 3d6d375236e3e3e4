//! The library's limits, each with its unit in its name.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A statement. Less than `websocket_jsonrpc` lets a call take, so that its caller learns why it ended.
pub const STATEMENT_MS: u64 = 2_000;
/// Rows of an answer.
pub const ROWS_MAX: usize = 1_000;
/// Bytes of an answer's rows as JSON.
pub const ROWS_SIZE_MAX: usize = MIB;
/// Bytes of a statement.
pub const QUERY_SIZE_MAX: usize = 64 * KIB;
/// Bytes of a value, and of a row of a table.
pub const VALUE_SIZE_MAX: usize = MIB;
/// Bytes of what LIKE and GLOB look for: long patterns are slow.
pub const PATTERN_SIZE_MAX: usize = KIB;
/// Expressions within each other.
pub const EXPRESSION_DEPTH_MAX: usize = 100;
/// SELECTs joined by UNION and its kind.
pub const COMPOUND_MAX: usize = 50;
/// Instructions of a compiled statement.
pub const INSTRUCTIONS_MAX: usize = 100_000;
/// Triggers that set off each other.
pub const TRIGGER_DEPTH_MAX: usize = 10;
/// Bytes that a database may grow to by what clients write.
pub const DATABASE_SIZE_MAX: usize = 256 * MIB;
/// Instructions between two looks at the clock.
pub const LOOK_MAX: i32 = 1_000;
