//! The pages for users and for databases, in a browser.

use std::time::Duration;

use super::*;
use crate::daemon::Daemon;
use crate::foreign::{tool, tools};

#[test]
#[ignore = "needs chromium"]
fn users_and_their_database() {
    tool("node_modules/playwright-core");
    let www = project().join("www");
    let daemon = Daemon::start(&["--www", www.to_str().unwrap()]);
    let (_users, password) = authrpc::start(daemon.folder(), "auth", &[]);
    let _sql = jsonsql::start(daemon.folder(), "sql");
    let mut command = foreign::command("node");
    command.arg(project().join("tests/clients/rpc_pages.mjs")).arg(format!("http://127.0.0.1:{}", daemon.port));
    command.args([&daemon.folder().join("screenshots"), &password]).env("UAKARI_TOOLS", tools());
    let finished = run(&mut command, Duration::from_secs(150));
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success() && out.contains("ok - ") && !out.contains("not ok"), "{out}\n{err}");
}
