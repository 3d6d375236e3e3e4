//! Checks a tree of settings and builds a `Config`. Reports all problems, each with its location and remedy.
#![forbid(unsafe_code)]

mod access;

mod auth;

mod group;

mod guards;

mod link;

mod redirect;

mod server;

mod tls;

mod trust;

mod upstream;

use super::keys::{Limits, Scope};
use super::problem::{Location, Problems};
use super::syntax::Setting;
use super::{Config, TextSetting, values};
use crate::limits::{AUTH_RULES_MAX, SERVERS_MAX};
use crate::observe::log;
use group::Group;
use upstream::Upstreams;

/// `whole` is the location of the file. The result must not be used if `problems` has errors.
pub(crate) fn check(settings: &[Setting], whole: Location, problems: &mut Problems) -> Config {
    let top = Group::read(Scope::Top, String::new(), whole, settings, problems);
    let mut limits = Limits::default();
    if let Some(own) = top.limits(&mut limits, problems) {
        let buffers = limits.process.pool_buffers;
        if !buffers.is_power_of_two() {
            own.error(
                problems,
                "pool-buffers",
                format_args!("{buffers} is not a power of two: write one such as 64 or 128"),
            );
        }
    }
    let groups = top.groups("servers", SERVERS_MAX, problems);
    if groups.is_empty() && !(top.means("servers") && problems.has_errors()) {
        problems.error(whole, "", "has no server: write servers = ( { ... } );");
    }
    let mut upstreams = Upstreams::read(&top, problems);
    let mut servers = server::Servers::default();
    for group in &groups {
        servers.add(group, &limits, &mut upstreams, problems);
    }
    servers.finish(problems);
    let rules = servers.auth_rules.all.len();
    if rules > AUTH_RULES_MAX {
        let sentence = format_args!("has {rules} different elements of auth: write at most {AUTH_RULES_MAX}");
        problems.error(whole, "", sentence);
    }
    limits.process.has_tls = servers.all.iter().any(|server| server.tls.is_some());
    let (upstreams, upstream_tls) = upstreams.finish(&mut servers.all, &mut limits.process, problems);
    let log = log::Settings::default();
    Config {
        auth_rules: servers.auth_rules.all,
        auth_places: servers.auth_rules.places,
        auth_generation: 0,
        user: text_setting(&top, "user", problems),
        pid_file: text_setting(&top, "pid-file", problems),
        log: log::Settings {
            level: top.word("log-level", &values::LEVELS).unwrap_or(log.level),
            format: top.word("log-format", &values::FORMATS).unwrap_or(log.format),
            file: top.text("log-file").map(str::to_owned),
        },
        log_place: top.describe(problems, &["log-file"]),
        driver: top.word("driver", &values::DRIVERS).unwrap_or_default(),
        driver_place: top.describe(problems, &["driver"]),
        limits: limits.process,
        is_unprotected: servers.is_unprotected,
        upstreams,
        upstream_tls,
        servers: servers.all,
    }
}

fn text_setting(group: &Group<'_>, name: &str, problems: &Problems) -> Option<TextSetting> {
    Some(TextSetting { value: group.text(name)?.to_owned(), place: group.describe(problems, &[name]) })
}
