//! Every limit of jsonsql, with its unit in its name.

/// Duration of a statement. Less than `websocket_jsonrpc` allows for a call, so that the caller gets the reason.
pub(crate) const STATEMENT_MS: u64 = 2_000;
/// Instructions between two checks of the clock.
pub(crate) const CLOCK_INSTRUCTIONS: i32 = 1_000;

/// Rows of an answer.
pub(crate) const ROWS_MAX: usize = 1_000;
/// Bytes of an answer's rows as JSON.
pub(crate) const ROWS_SIZE_MAX: usize = 1024 * 1024;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Bytes of a statement.
pub(crate) const QUERY_SIZE_MAX: usize = 64 * KIB;
/// Bytes of a value, and of a row of a table.
pub(crate) const VALUE_SIZE_MAX: usize = MIB;
/// Bytes of a pattern of LIKE and GLOB: long patterns are slow.
pub(crate) const PATTERN_SIZE_MAX: usize = KIB;
/// Nesting depth of expressions.
pub(crate) const EXPRESSION_DEPTH_MAX: usize = 100;
/// SELECTs joined by UNION, INTERSECT or EXCEPT.
pub(crate) const COMPOUND_MAX: usize = 50;
/// Instructions of a compiled statement.
pub(crate) const INSTRUCTIONS_MAX: usize = 100_000;
/// Nesting depth of triggers.
pub(crate) const TRIGGER_DEPTH_MAX: usize = 10;
/// Bytes of the database after a change.
pub(crate) const DATABASE_SIZE_MAX: usize = 256 * MIB;
