//! `--check`: problems and weak hashes of password files.

use std::path::Path;

use crate::rules::load_file;
use crate::users::Users;

/// The result of `--check`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The lines to print.
    pub lines: Vec<String>,
    /// Whether all files can be used.
    pub is_good: bool,
}

/// Reads these files as the helper does.
pub fn check(paths: &[String]) -> Checked {
    let mut checked = Checked { lines: Vec::new(), is_good: true };
    for path in paths {
        let mut warnings = Vec::new();
        match load_file(Path::new(path), Users::parse, &mut warnings) {
            Ok(users) => {
                let summary = format!("{path}: {} users, {} warnings", users.count(), warnings.len());
                checked.lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
                checked.lines.push(summary);
            }
            Err(problems) => {
                checked.lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
                checked.lines.extend(problems.into_iter().map(|problem| format!("error: {problem}")));
                checked.is_good = false;
            }
        }
    }
    checked
}
