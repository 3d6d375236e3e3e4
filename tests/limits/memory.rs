//! The memory that all of it takes, beside the bound that the log names.
