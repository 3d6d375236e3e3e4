//! What was typed, and what is wrong with it: flag, value, remedy.

use argh::FromArgs;

use crate::gateway::listener::ListenAddress;
use crate::observe::log::Level;
use crate::route::names::{Patterns, Rules};
use crate::route::{MessageType, Protocol, Site};
use crate::websocket::upgrade::Origins;

/// A WebSocket gateway: HTTP clients in front, ordinary UNIX socket servers behind.
/// ws://host/NAME is served by the UNIX server whose socket is DOCROOT/NAME.
#[derive(FromArgs, Debug, PartialEq, Eq)]
#[argh(
    example = "Pages and servers on port 8080:\n  {command_name} --listen 0.0.0.0:8080 --www /srv/www --docroot /run/websocket",
    example = "Only names that begin with ws_, from the pages of one site, as user nobody:\n  {command_name} --listen 0.0.0.0:80 --docroot /run/websocket --allow '^/ws_' --origins https://app.example -u nobody",
    note = "Patterns of --allow and --deny are searched for in \"/NAME\": ^ anchors the start, $ the end, * is any run\nof characters; a comma separates them. A name is refused if --deny matches, else served if --allow does.",
    error_code(1, "It could not start or had to stop; the line on standard error says why.")
)]
pub struct Arguments {
    /// where to listen: ADDR:PORT, [ADDR6]:PORT or unix:PATH; may be given several times; port 0 takes a free
    /// one, and the line "listening on ..." tells which (default 127.0.0.1:8080)
    #[argh(option, arg_name = "addr")]
    pub listen: Vec<String>,
    /// folder of the UNIX servers' sockets
    #[argh(option, arg_name = "dir")]
    pub docroot: Option<String>,
    /// folder of the pages; without it no files are served
    #[argh(option, arg_name = "dir")]
    pub www: Option<String>,
    /// names that are served (default "*")
    #[argh(option, default = "String::from(\"*\")", arg_name = "patterns")]
    pub allow: String,
    /// names that are refused, asked before --allow (default "")
    #[argh(option, default = "String::new()", arg_name = "patterns")]
    pub deny: String,
    /// options of the docroot, as in ouistiti's configuration; "direct" is not there yet (default "")
    #[argh(option, default = "String::new()", arg_name = "list")]
    pub options: String,
    /// how messages travel to the servers: stream, packet or frames (default stream; a SOCK_SEQPACKET socket
    /// is found by itself)
    #[argh(option, default = "String::from(\"stream\")", arg_name = "name")]
    pub protocol: String,
    /// what the messages of a stream or packet server are sent as: auto, text or binary (default auto: text
    /// where they are UTF-8)
    #[argh(option, long = "type", default = "String::from(\"auto\")", arg_name = "name")]
    pub message_type: String,
    /// pages that may connect: same, *, or a list of origins separated by commas (default same)
    #[argh(option, default = "String::from(\"same\")", arg_name = "list")]
    pub origins: String,
    /// user to become once the addresses are taken
    #[argh(option, short = 'u', arg_name = "name")]
    pub user: Option<String>,
    /// what is logged to standard error: error, warn, info or debug (default info)
    #[argh(option, default = "String::from(\"info\")", arg_name = "level")]
    pub log_level: String,
    /// print the version
    #[argh(switch)]
    pub version: bool,
}

/// What the flags mean.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// The servers' folder.
    pub docroot: Option<String>,
    /// The pages' folder.
    pub www: Option<String>,
    /// What is served.
    pub site: Site,
    /// The user to become.
    pub user: Option<String>,
    /// What is logged.
    pub log_level: Level,
}

impl Arguments {
    /// Checks every flag. The error names flag, value and remedy.
    pub fn check(self) -> Result<Settings, String> {
        let mut listen = Vec::new();
        for text in &self.listen {
            listen.push(text.parse().map_err(|error| format!("--listen: {error}"))?);
        }
        if listen.is_empty() {
            listen.push(ListenAddress::Tcp(([127, 0, 0, 1], 8080).into()));
        }
        if self.docroot.is_none() && self.www.is_none() {
            return Err("nothing to serve: give --docroot DIR, --www DIR or both (see --help)".to_owned());
        }
        match self.options.trim() {
            "" => {}
            "direct" => {
                return Err("--options direct is not there yet: leave it out, and the servers are proxied".to_owned());
            }
            other => return Err(format!("--options {other:?} is not known: leave it out")),
        }
        let protocols = [("stream", Protocol::Stream), ("packet", Protocol::Packet), ("frames", Protocol::Frames)];
        let types = [("auto", MessageType::Auto), ("text", MessageType::Text), ("binary", MessageType::Binary)];
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug].map(|level| (level.name(), level));
        let site = Site {
            has_www: self.www.is_some(),
            has_docroot: self.docroot.is_some(),
            rules: Rules { allow: Patterns::parse(&self.allow), deny: Patterns::parse(&self.deny) },
            protocol: one_of("--protocol", &self.protocol, &protocols)?,
            message_type: one_of("--type", &self.message_type, &types)?,
            origins: origins(&self.origins)?,
            ..Site::default()
        };
        let log_level = one_of("--log-level", &self.log_level, &levels)?;
        Ok(Settings { listen, docroot: self.docroot, www: self.www, site, user: self.user, log_level })
    }
}

fn one_of<T: Copy>(flag: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("{flag} {value:?} is not known: write one of {}", names.join(", "))
    })
}

fn origins(list: &str) -> Result<Origins, String> {
    match list.trim() {
        "same" => return Ok(Origins::Same),
        "*" => return Ok(Origins::Any),
        _ => {}
    }
    let mut origins = Vec::new();
    for one in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let is_origin = one.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && !rest.is_empty() && !rest.contains(['/', '?', '#', '*', ' '])
        });
        if !is_origin {
            return Err(format!(
                "--origins {one:?} is no origin: write same, *, or origins such as https://app.example:8443 without a path"
            ));
        }
        origins.push(one.to_owned());
    }
    if origins.is_empty() {
        return Err("--origins is empty: write same, * or a list of origins".to_owned());
    }
    Ok(Origins::List(origins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        Arguments::from_args(&["uakari"], arguments).map_err(|exit| exit.output)?.check()
    }

    #[test]
    fn good_flags() {
        let settings = parse(&["--docroot", "/d"]).unwrap();
        assert_eq!(settings.listen, [ListenAddress::Tcp(([127, 0, 0, 1], 8080).into())]);
        assert_eq!(settings.site.origins, Origins::Same);
        let settings = parse(&[
            "--docroot",
            "/d",
            "--www",
            "/w",
            "--listen",
            "[::]:0",
            "--listen",
            "unix:/s",
            "--protocol",
            "frames",
            "--type",
            "binary",
            "--origins",
            "https://a.example, http://b:1",
            "-u",
            "nobody",
            "--log-level",
            "debug",
        ])
        .unwrap();
        assert_eq!(settings.listen.len(), 2);
        assert_eq!(settings.site.protocol, Protocol::Frames);
        assert_eq!(settings.site.origins, Origins::List(vec!["https://a.example".into(), "http://b:1".into()]));
        assert_eq!(settings.user.as_deref(), Some("nobody"));
    }

    #[test]
    fn wrong_flags_name_flag_value_and_remedy() {
        for (arguments, expected) in [
            (&[][..], &["--docroot"][..]),
            (&["--docroot", "/d", "--listen", "80"], &["--listen", "\"80\"", "127.0.0.1:8080"]),
            (&["--docroot", "/d", "--protocol", "udp"], &["--protocol", "\"udp\"", "stream, packet, frames"]),
            (&["--docroot", "/d", "--type", "json"], &["--type", "\"json\"", "auto, text, binary"]),
            (&["--docroot", "/d", "--log-level", "loud"], &["--log-level", "\"loud\"", "info"]),
            (&["--docroot", "/d", "--origins", "app.example"], &["--origins", "\"app.example\"", "https://"]),
            (&["--docroot", "/d", "--origins", "https://a/path"], &["--origins", "without a path"]),
            (&["--docroot", "/d", "--options", "direct"], &["--options direct", "not there yet"]),
            (&["--docroot", "/d", "--options", "fast"], &["--options", "\"fast\""]),
            (&["--nonsense"], &["--nonsense"]),
        ] {
            let error = parse(arguments).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{arguments:?}: {error:?} lacks {part:?}");
            }
        }
    }
}
