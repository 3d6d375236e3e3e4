//! The command line. Flags set the same keys as a configuration file, and override it.

use argh::FromArgs;

use crate::config::flags::{Flag, Value};
use crate::config::keys::Scope;
use crate::config::problem::Problem;
use crate::config::{self, Config, Loaded};
use crate::daemon::{Examined, default_tls_dir};
use crate::observe::log::Level;

/// A WebSocket gateway: HTTP clients in front, ordinary UNIX socket servers behind.
/// ws://host/NAME is served by the UNIX server whose socket is DOCROOT/NAME.
#[derive(FromArgs, Clone, Debug, PartialEq, Eq)]
#[argh(
    example = "Pages and servers on port 8080:\n  {command_name} --listen 0.0.0.0:8080 --www /srv/www --docroot /run/websocket",
    example = "Only names that begin with ws_, from the pages of one site, as user nobody:\n  {command_name} --listen 0.0.0.0:80 --docroot /run/websocket --allow '^/ws_' --origins https://app.example -u nobody",
    example = "https and wss:\n  {command_name} --listen 0.0.0.0:443 --tls-certificate server.crt --tls-key server.key --docroot /run/websocket -u nobody",
    example = "Run or check a configuration file:\n  {command_name} -f /etc/uakari.conf\n  {command_name} -f /etc/uakari.conf --check",
    note = "Patterns of --allow and --deny are searched for in \"/NAME\": ^ anchors the start, $ the end, * is any run\nof characters; a comma separates them. A name is refused if --deny matches, else served if --allow does.\nFlags override the file. Flags of a server need a file with one server.",
    error_code(1, "It could not start or had to stop; the line on standard error says why.")
)]
pub struct Arguments {
    /// configuration file (default none)
    #[argh(option, short = 'f', long = "config", arg_name = "file")]
    pub config: Option<String>,
    /// check the file and the flags, print all problems, and exit
    #[argh(switch)]
    pub check: bool,
    /// where to listen: ADDR:PORT, [ADDR6]:PORT or unix:PATH; may be given several times; port 0 takes a free
    /// one, and the line "listening on ..." tells which (default 127.0.0.1:8080)
    #[argh(option, arg_name = "addr")]
    pub listen: Vec<String>,
    /// folder of the UNIX servers' sockets
    #[argh(option, arg_name = "dir")]
    pub docroot: Option<String>,
    /// folder of static files; without it none are served
    #[argh(option, arg_name = "dir")]
    pub www: Option<String>,
    /// PEM file of a certificate: https and wss are served instead of http and ws
    #[argh(option, arg_name = "file")]
    pub tls_certificate: Option<String>,
    /// PEM file of the certificate's private key (default that of --tls-certificate)
    #[argh(option, arg_name = "file")]
    pub tls_key: Option<String>,
    /// serve https and wss with a certificate for this host's names and addresses, which uakari-ca, the program
    /// beside this one, makes and renews with an authority of its own
    #[argh(switch)]
    pub tls_self_signed: bool,
    /// folder of that authority (default /var/lib/uakari/tls for root, else uakari/tls in $XDG_STATE_HOME or
    /// ~/.local/state)
    #[argh(option, arg_name = "dir")]
    pub tls_dir: Option<String>,
    /// names to serve (default "*")
    #[argh(option, arg_name = "patterns")]
    pub allow: Option<String>,
    /// names to refuse, matched before --allow (default "")
    #[argh(option, arg_name = "patterns")]
    pub deny: Option<String>,
    /// match --allow before --deny
    #[argh(switch)]
    pub denylast: bool,
    /// options of the docroot, as in ouistiti's configuration: "direct" hands the clients' sockets to the UNIX
    /// servers; "follow" lets symbolic links lead out of it (default "")
    #[argh(option, arg_name = "list")]
    pub options: Option<String>,
    /// framing of messages on the UNIX servers' sockets: stream, packet, lines, nul or frames (default stream;
    /// SOCK_SEQPACKET is detected)
    #[argh(option, arg_name = "name")]
    pub protocol: Option<String>,
    /// type of the messages to clients: auto, text or binary (default auto: text where they are UTF-8); protocol
    /// frames has its own types
    #[argh(option, long = "type", arg_name = "name")]
    pub message_type: Option<String>,
    /// send the UNIX servers a hello record with the client's address first
    #[argh(switch)]
    pub hello: bool,
    /// origins that may connect: same, *, or a comma-separated list (default same)
    #[argh(option, arg_name = "list")]
    pub origins: Option<String>,
    /// user to switch to after binding the addresses
    #[argh(option, short = 'u', arg_name = "name")]
    pub user: Option<String>,
    /// file to write the process ID to
    #[argh(option, arg_name = "file")]
    pub pid_file: Option<String>,
    /// file to write the log to (default standard error)
    #[argh(option, arg_name = "file")]
    pub log_file: Option<String>,
    /// log level: error, warn, info or debug (default info)
    #[argh(option, arg_name = "level")]
    pub log_level: Option<String>,
    /// log format: text or json (default text)
    #[argh(option, arg_name = "name")]
    pub log_format: Option<String>,
    /// kernel interface for I/O: auto, uring or epoll (default auto: io_uring where it can be set up, else epoll)
    #[argh(option, arg_name = "name")]
    pub driver: Option<String>,
    /// print the version
    #[argh(switch)]
    pub version: bool,
}

/// The result of `--check`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The lines to print.
    pub lines: Vec<String>,
    /// Whether the daemon would start with it.
    pub is_good: bool,
}

impl Arguments {
    /// Loads the file, if any, and applies the flags. Called at start and at each reload. The error has all errors and
    /// warnings.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        if self.config.is_none() && self.docroot.is_none() && self.www.is_none() {
            let sentence = "nothing to serve: give --docroot DIR, --www DIR, both, or --config FILE (see --help)";
            return Err(vec![Problem::new(Level::Error, sentence)]);
        }
        config::load(self.config.as_deref(), &self.flags())
    }

    /// Runs `--check`. `examine` checks the resources of a configuration without errors.
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

    /// The given flags as settings.
    fn flags(&self) -> Vec<Flag> {
        use Scope::{Document, Server, Tls, Top, WebSocket};
        let text = |label, scope, key, value: &Option<String>| {
            value.as_ref().map(|value| Flag { label, scope, key, value: Value::One(value.clone()) })
        };
        let switch = |label, scope, key, is_on: bool| is_on.then_some(Flag { label, scope, key, value: Value::On });
        let several = || Value::Several(self.listen.clone());
        let listen = (!self.listen.is_empty()).then(|| Flag {
            label: "--listen:",
            scope: Server,
            key: "listen",
            value: several(),
        });
        let default_dir = default_tls_dir().filter(|_| self.tls_self_signed && self.tls_dir.is_none());
        let default_dir = default_dir.map(|dir| Flag {
            label: "--tls-self-signed",
            scope: Tls,
            key: "dir",
            value: Value::Default(dir.to_owned()),
        });
        [
            listen,
            text("--docroot", WebSocket, "docroot", &self.docroot),
            text("--www", Document, "docroot", &self.www),
            text("--tls-certificate", Tls, "crtfile", &self.tls_certificate),
            text("--tls-key", Tls, "keyfile", &self.tls_key),
            switch("--tls-self-signed", Tls, "self-signed", self.tls_self_signed),
            text("--tls-dir", Tls, "dir", &self.tls_dir),
            default_dir,
            text("--allow", WebSocket, "allow", &self.allow),
            text("--deny", WebSocket, "deny", &self.deny),
            switch("--denylast", WebSocket, "denylast", self.denylast),
            text("--options", WebSocket, "options", &self.options),
            text("--protocol", WebSocket, "protocol", &self.protocol),
            text("--type", WebSocket, "type", &self.message_type),
            switch("--hello", WebSocket, "hello", self.hello),
            text("--origins", WebSocket, "origins", &self.origins),
            text("-u", Top, "user", &self.user),
            text("--pid-file", Top, "pid-file", &self.pid_file),
            text("--log-file", Top, "log-file", &self.log_file),
            text("--log-level", Top, "log-level", &self.log_level),
            text("--log-format", Top, "log-format", &self.log_format),
            text("--driver", Top, "driver", &self.driver),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TextSetting};
    use crate::driver::Choice;
    use crate::http::upgrade::Origins;
    use crate::route::{MessageType, Protocol};
    use crate::types::ListenAddress;

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
            "--tls-certificate=/c",
            "--tls-key=/k",
            "--hello",
            "--pid-file=/p",
            "--log-file=/l",
            "--log-format=json",
            "-u=nobody",
            "--log-level=debug",
            "--driver=epoll",
        ]);
        let server = &config.servers[0];
        assert_eq!(server.listen.len(), 2);
        assert_eq!((&server.places.listen[..], &server.places.docroot[..]), ("--listen", "--docroot"));
        assert_eq!(server.places.www, "--www");
        let said = |value: &str, place: &str| TextSetting { value: value.into(), place: place.into() };
        let files = server.tls.as_ref().unwrap();
        assert_eq!(files.certificate, said("/c", "--tls-certificate"));
        assert_eq!(files.key, said("/k", "--tls-key"));
        assert_eq!(files.authority, None);
        let site = &server.site;
        assert_eq!(site.service.protocol, Protocol::Frames);
        assert_eq!(site.service.message_type, MessageType::Binary);
        assert!(site.service.hello && site.follows_symlinks && site.has_www);
        assert!(site.rules.permit("a") && site.rules.permit("ab") && !site.rules.permit("b"));
        assert_eq!(site.origins, Origins::List(vec!["https://a.example".into(), "http://b:1".into()]));
        assert_eq!((config.user, config.pid_file), (Some(said("nobody", "-u")), Some(said("/p", "--pid-file"))));
        assert_eq!((config.log.level, config.log.file.as_deref()), (Level::Debug, Some("/l")));
        assert_eq!((config.driver, &*config.driver_place), (Choice::Epoll, "--driver"));
    }

    #[test]
    fn certificates_that_uakari_ca_makes() {
        let said = |value: &str, place: &str| TextSetting { value: value.into(), place: place.into() };
        let config = load(&["--www=/w", "--tls-self-signed", "--tls-dir=/d/"]);
        let files = config.servers[0].tls.as_ref().unwrap();
        assert_eq!(files.authority, Some(said("/d/", "--tls-dir")));
        assert_eq!(files.certificate, said("/d/issued/server.pem", "--tls-dir"));
        assert_eq!(files.key, said("/d/issued/server.key", "--tls-dir"));
        let config = load(&["--www=/w", "--tls-self-signed"]);
        let dir = &config.servers[0].tls.as_ref().unwrap().authority.as_ref().unwrap();
        assert!(dir.value.ends_with("/uakari/tls") && dir.place == "--tls-self-signed", "{dir:?}");
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
                    "--listen: \"80\" is not an address: write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80 or unix:/run/uakari.sock",
                ],
            ),
            (
                &["--docroot=/d", "--protocol=udp", "--type=json", "--log-level=loud", "--driver=poll"],
                &[
                    "--protocol \"udp\" is not known: write one of stream, packet, lines, nul, frames",
                    "--type \"json\" is not known: write one of auto, text, binary",
                    "--log-level \"loud\" is not known: write one of error, warn, info, debug",
                    "--driver \"poll\" is not known: write one of auto, uring, epoll",
                ],
            ),
            (
                &["--docroot=/d", "--origins=a.example"],
                &[
                    "--origins \"a.example\" is not an origin: write same, *, or origins such as https://app.example:8443 without a path",
                ],
            ),
            (&["--docroot=/d", "--origins="], &["--origins is empty: write same, * or a list of origins"]),
            (
                &["--docroot=/d", "--options=direct", "--protocol=lines"],
                &[
                    "--protocol options has \"direct\", which needs protocol = \"stream\": write that, or leave \"direct\" out",
                ],
            ),
            (
                &["--docroot=/d", "--options=fast"],
                &["--options \"fast\" is not known: write \"direct\", \"follow\" or nothing"],
            ),
            (
                &["--www=/w", "--tls-self-signed", "--tls-certificate=c"],
                &["--tls-certificate --tls-self-signed is set too: keep one of them"],
            ),
            (
                &["--www=/w", "--tls-self-signed", "--tls-key=k"],
                &["--tls-key --tls-self-signed is set too: keep one of them"],
            ),
            (&["--www=/w", "--tls-dir=d"], &["--tls-dir needs self-signed = true, or --tls-self-signed"]),
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
