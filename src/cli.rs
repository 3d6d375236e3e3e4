//! What was typed: flags, which say the same as the keys of a configuration file and override it.

use argh::FromArgs;

use crate::config::flags::{Flag, Value};
use crate::config::keys::Scope;
use crate::config::problem::Problem;
use crate::config::{self, Config, Loaded};
use crate::daemon::Examined;
use crate::observe::log::Level;

/// A WebSocket gateway: HTTP clients in front, ordinary UNIX socket servers behind.
/// ws://host/NAME is served by the UNIX server whose socket is DOCROOT/NAME.
#[derive(FromArgs, Clone, Debug, PartialEq, Eq)]
#[argh(
    example = "Pages and servers on port 8080:\n  {command_name} --listen 0.0.0.0:8080 --www /srv/www --docroot /run/websocket",
    example = "Only names that begin with ws_, from the pages of one site, as user nobody:\n  {command_name} --listen 0.0.0.0:80 --docroot /run/websocket --allow '^/ws_' --origins https://app.example -u nobody",
    example = "What a file says, or whether it is good:\n  {command_name} -f /etc/uakari.conf\n  {command_name} -f /etc/uakari.conf --check",
    note = "Patterns of --allow and --deny are searched for in \"/NAME\": ^ anchors the start, $ the end, * is any run\nof characters; a comma separates them. A name is refused if --deny matches, else served if --allow does.\nFlags override the file. Those of a server are for the only server of the file.",
    error_code(1, "It could not start or had to stop; the line on standard error says why.")
)]
pub struct Arguments {
    /// configuration file (default none: the flags say all)
    #[argh(option, short = 'f', long = "config", arg_name = "file")]
    pub config: Option<String>,
    /// check the file and the flags, say what is wrong with them, and exit
    #[argh(switch)]
    pub check: bool,
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
    #[argh(option, arg_name = "patterns")]
    pub allow: Option<String>,
    /// names that are refused, asked before --allow (default "")
    #[argh(option, arg_name = "patterns")]
    pub deny: Option<String>,
    /// ask --allow before --deny
    #[argh(switch)]
    pub denylast: bool,
    /// options of the docroot, as in ouistiti's configuration: "direct" hands the clients' own sockets to the
    /// servers; "follow" lets symbolic links lead out of it (default "")
    #[argh(option, arg_name = "list")]
    pub options: Option<String>,
    /// how messages travel to the servers: stream, packet, lines, nul or frames (default stream; a SOCK_SEQPACKET
    /// socket is found by itself)
    #[argh(option, arg_name = "name")]
    pub protocol: Option<String>,
    /// what the messages of a server without message types are sent as: auto, text or binary (default auto: text
    /// where they are UTF-8)
    #[argh(option, long = "type", arg_name = "name")]
    pub message_type: Option<String>,
    /// tell the servers in a first record who the client is
    #[argh(switch)]
    pub hello: bool,
    /// pages that may connect: same, *, or a list of origins separated by commas (default same)
    #[argh(option, arg_name = "list")]
    pub origins: Option<String>,
    /// user to become once the addresses are taken
    #[argh(option, short = 'u', arg_name = "name")]
    pub user: Option<String>,
    /// file that the number of the process is written to
    #[argh(option, arg_name = "file")]
    pub pid_file: Option<String>,
    /// file that the log is written to (default standard error)
    #[argh(option, arg_name = "file")]
    pub log_file: Option<String>,
    /// what is logged: error, warn, info or debug (default info)
    #[argh(option, arg_name = "level")]
    pub log_level: Option<String>,
    /// how a line of the log is written: text or json (default text)
    #[argh(option, arg_name = "name")]
    pub log_format: Option<String>,
    /// print the version
    #[argh(switch)]
    pub version: bool,
}

/// What `--check` found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// What to print.
    pub lines: Vec<String>,
    /// Whether the daemon would take it.
    pub is_good: bool,
}

impl Arguments {
    /// Reads the file, if there is one, and lays the flags over it. At a reload it is called again. The error is all
    /// that is wrong, and all that is worth a warning.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        if self.config.is_none() && self.docroot.is_none() && self.www.is_none() {
            let sentence = "nothing to serve: give --docroot DIR, --www DIR, both, or --config FILE (see --help)";
            return Err(vec![Problem::new(Level::Error, sentence)]);
        }
        config::load(self.config.as_deref(), &self.flags())
    }

    /// What `--check` prints. `examine` looks at the system that a configuration without mistakes names.
    pub fn check(&self, examine: impl FnOnce(&Config) -> Examined) -> Checked {
        let (problems, verdict) = match self.load() {
            Ok(Loaded { config, mut warnings }) => {
                let examined = examine(&config);
                warnings.extend(examined.problems);
                let verdict = match () {
                    _ if warnings.iter().any(|problem| problem.level == Level::Error) => None,
                    _ if config.is_unprotected => Some("would start, but unprotected"),
                    _ if examined.needs_root => Some("would start, but not by this user"),
                    _ => Some("is good"),
                };
                (warnings, verdict)
            }
            Err(problems) => (problems, None),
        };
        let show = |problem: &Problem| match problem.level {
            Level::Warn => format!("warning: {problem}"),
            _ => problem.to_string(),
        };
        let mut lines: Vec<String> = problems.iter().map(show).collect();
        if let Some(verdict) = verdict {
            let what = self.config.as_deref().map_or("what the flags say".to_owned(), str::to_owned);
            lines.push(format!("{what} {verdict}"));
        }
        Checked { lines, is_good: verdict.is_some() }
    }

    /// The flags that were given, as settings.
    fn flags(&self) -> Vec<Flag> {
        use Scope::{Document, Server, Top, WebSocket};
        let text = |label, scope, key, value: &Option<String>| {
            value.as_ref().map(|value| Flag { label, scope, key, value: Value::One(value.clone()) })
        };
        let switch = |label, key, is_on: bool| is_on.then_some(Flag { label, scope: WebSocket, key, value: Value::On });
        let several = || Value::Several(self.listen.clone());
        let listen = (!self.listen.is_empty()).then(|| Flag {
            label: "--listen:",
            scope: Server,
            key: "listen",
            value: several(),
        });
        [
            listen,
            text("--docroot", WebSocket, "docroot", &self.docroot),
            text("--www", Document, "docroot", &self.www),
            text("--allow", WebSocket, "allow", &self.allow),
            text("--deny", WebSocket, "deny", &self.deny),
            switch("--denylast", "denylast", self.denylast),
            text("--options", WebSocket, "options", &self.options),
            text("--protocol", WebSocket, "protocol", &self.protocol),
            text("--type", WebSocket, "type", &self.message_type),
            switch("--hello", "hello", self.hello),
            text("--origins", WebSocket, "origins", &self.origins),
            text("-u", Top, "user", &self.user),
            text("--pid-file", Top, "pid-file", &self.pid_file),
            text("--log-file", Top, "log-file", &self.log_file),
            text("--log-level", Top, "log-level", &self.log_level),
            text("--log-format", Top, "log-format", &self.log_format),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Said};
    use crate::gateway::listener::ListenAddress;
    use crate::http::upgrade::Origins;
    use crate::route::{MessageType, Protocol};

    /// A flag and its value are written as one here.
    fn parse(arguments: &[&str]) -> Arguments {
        let words: Vec<&str> = arguments.iter().flat_map(|argument| argument.splitn(2, '=')).collect();
        Arguments::from_args(&["uakari"], &words).unwrap()
    }

    fn load(arguments: &[&str]) -> Config {
        parse(arguments).load().unwrap().config
    }

    #[test]
    fn good_flags() {
        let config = load(&["--docroot=/d"]);
        let server = &config.servers[0];
        assert_eq!(server.listen, [ListenAddress::Tcp(([127, 0, 0, 1], 8080).into())]);
        assert_eq!((server.docroot.as_deref(), server.www.as_deref()), (Some("/d"), None));
        assert!(server.site.has_docroot && !server.site.has_www && !server.site.service.hello);
        assert_eq!(server.site.origins, Origins::Same);
        let config = load(&[
            "--docroot=/d",
            "--www=/w",
            "--listen=[::]:0",
            "--listen=unix:/s",
            "--protocol=frames",
            "--type=binary",
            "--origins=https://a.example, http://b:1",
            "--allow=^/a",
            "--deny=b",
            "--denylast",
            "--options=follow",
            "--hello",
            "--pid-file=/p",
            "--log-file=/l",
            "--log-format=json",
            "-u=nobody",
            "--log-level=debug",
        ]);
        let server = &config.servers[0];
        assert_eq!(server.listen.len(), 2);
        assert_eq!((&server.places.listen[..], &server.places.docroot[..]), ("--listen", "--docroot"));
        assert_eq!(server.places.www, "--www");
        let site = &server.site;
        assert_eq!(site.service.protocol, Protocol::Frames);
        assert_eq!(site.service.message_type, MessageType::Binary);
        assert!(site.service.hello && site.follows_symlinks && site.has_www);
        assert!(site.rules.permit("a") && site.rules.permit("ab") && !site.rules.permit("b"));
        assert_eq!(site.origins, Origins::List(vec!["https://a.example".into(), "http://b:1".into()]));
        let said = |value: &str, place: &str| Some(Said { value: value.into(), place: place.into() });
        assert_eq!((config.user, config.pid_file), (said("nobody", "-u"), said("/p", "--pid-file")));
        assert_eq!((config.log.level, config.log.file.as_deref()), (Level::Debug, Some("/l")));
    }

    #[test]
    fn flags_for_pages_alone() {
        let config = load(&["--www=/w", "--protocol=lines"]);
        assert!(!config.servers[0].site.has_docroot);
        assert!(parse(&["--www=/w", "--protocol=udp"]).load().is_err());
    }

    #[test]
    fn wrong_flags_name_flag_value_and_remedy() {
        for (arguments, expected) in [
            (&[][..], &["nothing to serve: give --docroot DIR, --www DIR, both, or --config FILE (see --help)"][..]),
            (&["--docroot="], &["--docroot is empty: write a value, or leave it out"]),
            (
                &["--docroot=/d", "--listen=80"],
                &[
                    "--listen: \"80\" is no address: write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80 or unix:/run/uakari.sock",
                ],
            ),
            (
                &["--docroot=/d", "--protocol=udp", "--type=json", "--log-level=loud"],
                &[
                    "--protocol \"udp\" is not known: write one of stream, packet, lines, nul, frames",
                    "--type \"json\" is not known: write one of auto, text, binary",
                    "--log-level \"loud\" is not known: write one of error, warn, info, debug",
                ],
            ),
            (
                &["--docroot=/d", "--origins=a.example"],
                &[
                    "--origins \"a.example\" is no origin: write same, *, or origins such as https://app.example:8443 without a path",
                ],
            ),
            (&["--docroot=/d", "--origins="], &["--origins is empty: write same, * or a list of origins"]),
            (
                &["--docroot=/d", "--options=direct", "--protocol=lines"],
                &[
                    "--protocol is for servers that are proxied, and options has \"direct\": leave one of them out, or write \"stream\"",
                ],
            ),
            (
                &["--docroot=/d", "--options=fast"],
                &["--options \"fast\" is not known: write \"direct\", \"follow\" or nothing"],
            ),
            (
                &["--docroot=/d", "--listen=[::]:1", "--listen=[::]:1"],
                &["--listen: http://[::]:1 is listed twice: keep one of them"],
            ),
        ] {
            let checked = parse(arguments).check(|_| Examined::default());
            assert_eq!(
                (checked.lines, checked.is_good),
                (expected.iter().map(|line| line.to_string()).collect(), false)
            );
        }
        let checked = parse(&["--docroot=/d"]).check(|_| Examined::default());
        assert_eq!((checked.lines, checked.is_good), (vec!["what the flags say is good".to_owned()], true));
    }
}
