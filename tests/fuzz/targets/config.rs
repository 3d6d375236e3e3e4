//! Configuration files: whatever is in them, what is wrong with them is said with its file and line, and what is right
//! means what it means however it is written.
#![no_main]

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use uakari::config::flags::{Flag, Value};
use uakari::config::keys::Scope;
use uakari::config::problem::{Location, Problem, Problems};
use uakari::config::syntax::{self, Data, Setting};
use uakari::config::{self, Config, Server};
use uakari::driver::device::Direction;
use uakari::limits::{
    self, Bounds, CONFIG_DEPTH_MAX, INCLUDE_DEPTH_MAX, LINKS_MAX, LISTEN_MAX, PROBLEM_SIZE_MAX, PROBLEMS_MAX,
};
use uakari::observe::log::Level;
use uakari::route::{Destination, Link, Protocol, Service};
use uakari::upstream::Upstream;
use uakari_fuzz::tree;

/// What parts one file from the next; no text has it.
const NEXT_FILE: u8 = 1;
/// The files' names; the first one is read, and may include the others.
const NAMES: [&str; 4] = ["a", "b", "sub/c", "sub/d"];

/// Files that are read, which keeps a run short: deeper than they may nest, but not as many as there may be.
const READS_MAX: usize = 2 * INCLUDE_DEPTH_MAX;

/// Flags, right by themselves, which a file may not go with.
static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| {
    let flag = |label, scope, key, value: &str| Flag { label, scope, key, value: Value::One(value.to_owned()) };
    let addresses = ["127.0.0.1:0", "unix:/run/u"].map(str::to_owned).into();
    vec![
        Flag { label: "--listen:", scope: Scope::Server, key: "listen", value: Value::Several(addresses) },
        Flag { label: "--hello", scope: Scope::WebSocket, key: "hello", value: Value::On },
        flag("--www", Scope::Document, "docroot", "/w"),
        flag("--type", Scope::WebSocket, "type", "text"),
        flag("--protocol", Scope::WebSocket, "protocol", "frames"),
        flag("-u", Scope::Top, "user", "nobody"),
        flag("--log-level", Scope::Top, "log-level", "info"),
    ]
});

fuzz_target!(|data: &[u8]| {
    let files: Vec<&[u8]> = data.splitn(NAMES.len(), |byte| *byte == NEXT_FILE).collect();
    let lines: Vec<usize> = files.iter().map(|file| 1 + file.iter().filter(|byte| **byte == b'\n').count()).collect();
    let (settings, problems) = parse(&files);
    let has_errors = problems.iter().any(|problem| problem.level == Level::Error);
    check_problems(&problems, |name| {
        let at = NAMES.iter().position(|other| *other == name)?;
        lines.get(at).copied()
    });
    check_tree(&settings, &lines, has_errors);
    if !has_errors {
        check_printed(&settings);
    }
    // A file that is really read may include what the fuzzer has not written.
    if let ([text], [lines], Ok(plain)) = (&files[..], &lines[..], str::from_utf8(data))
        && !plain.contains("@include")
    {
        check_loaded(text, *lines, has_errors);
    }
});

fn parse(files: &[&[u8]]) -> (Vec<Setting>, Vec<Problem>) {
    let mut reads = 0;
    let mut read = |name: &str| {
        reads += 1;
        if reads > READS_MAX {
            return Err("is one too many".to_owned());
        }
        let at = NAMES.iter().position(|other| *other == name).ok_or("is not there")?;
        files.get(at).map(|file| file.to_vec()).ok_or("is not there".to_owned())
    };
    let mut problems = Problems::default();
    let settings = syntax::parse(NAMES[0], &mut read, &mut problems);
    (settings, problems.finish())
}

/// Each has a file, a line that the file has, and something to say. Their lines; 0 is a file or a flag as a whole.
fn check_problems(problems: &[Problem], lines_of: impl Fn(&str) -> Option<usize>) -> Vec<usize> {
    assert!(problems.len() <= PROBLEMS_MAX + 1);
    let mut all = Vec::new();
    for problem in &problems[..problems.len().min(PROBLEMS_MAX)] {
        let text = problem.to_string();
        assert!(!text.is_empty() && text.len() <= PROBLEM_SIZE_MAX, "{text}");
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        all.push(match parts[..] {
            [name, line, sentence] if line.starts_with(|first: char| first.is_ascii_digit()) => {
                assert!(sentence.starts_with(' ') && sentence.len() > 1, "{text}");
                let (line, lines) = (line.parse().expect("a line"), lines_of(name).expect("a file"));
                assert!((1..=lines).contains(&line), "{lines} lines: {text}");
                line
            }
            _ => {
                let name = text.split([' ', ':']).next().unwrap_or_default();
                assert!(lines_of(name).is_some() || FLAGS.iter().any(|flag| flag.label.trim_end_matches(':') == name));
                0
            }
        });
    }
    all
}

/// Every value has a place in a file; without errors every value is one.
fn check_tree(settings: &[Setting], lines: &[usize], has_errors: bool) {
    let lines_max = lines.iter().copied().max().unwrap_or_default();
    let mut check = |Location { line, .. }, data: &Data, depth| {
        assert!((1..=lines_max).contains(&(line as usize)), "line {line} of {lines_max}");
        assert!(depth <= CONFIG_DEPTH_MAX);
        match data {
            Data::Bad => assert!(has_errors, "a bad value and no error"),
            Data::Float(value) => assert!(value.is_finite()),
            Data::Text(text) => assert!(!text.contains('\0')),
            Data::Array(elements) if !has_errors => {
                assert!(elements.iter().all(|one| one.data.kind() == elements[0].data.kind()));
                let is_scalar = |data: &Data| !matches!(data, Data::Array(_) | Data::List(_) | Data::Group(_));
                assert!(elements.iter().all(|one| is_scalar(&one.data)));
            }
            Data::Group(settings) => check_names(settings),
            _ => {}
        }
    };
    tree::walk(settings, 0, &mut check);
    check_names(settings);
}

fn check_names(settings: &[Setting]) {
    let mut names: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, other| one < other), "a name stands twice");
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte);
    assert!(names.iter().all(|name| !name.is_empty() && name.bytes().all(is_in_name)));
}

/// What is written down from a tree means that tree.
fn check_printed(settings: &[Setting]) {
    let printed = tree::print(settings);
    let (again, problems) = parse(&[printed.as_bytes()]);
    assert!(problems.is_empty(), "{problems:?}\n{printed}");
    assert_eq!(tree::print(&again), printed);
}

/// The whole way from a file to a configuration.
fn check_loaded(text: &[u8], lines: usize, has_errors: bool) {
    static FILE: LazyLock<(File, String)> = LazyLock::new(|| {
        let path = std::env::temp_dir().join(format!("uakari-fuzz-{}.conf", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a temporary file");
        // Nothing is left behind; the name that the file descriptor has does it too.
        std::fs::remove_file(path).expect("the temporary file");
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        (file, name)
    });
    let (file, name) = &*FILE;
    file.set_len(0).expect("an empty file");
    file.write_all_at(text, 0).expect("a written file");
    // Some of the files have flags laid over them.
    let flags = if text.len().is_multiple_of(4) { &FLAGS[..] } else { &[] };
    let problems = match config::load(Some(name), flags) {
        Ok(loaded) => {
            assert!(!has_errors, "what the parser refuses is taken");
            assert!(loaded.warnings.iter().all(|warning| warning.level == Level::Warn));
            check_config(&loaded.config);
            loaded.warnings
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.level == Level::Error));
            problems
        }
    };
    let mut in_order = check_problems(&problems, |other| (other == name).then_some(lines));
    in_order.retain(|line| *line > 0);
    assert!(in_order.is_sorted(), "{in_order:?}");
}

/// What the daemon relies on.
fn check_config(config: &Config) {
    assert!(!config.servers.is_empty() && config.limits.pool_buffers.is_power_of_two());
    within(config.limits.queued_size_max, limits::QUEUED_SIZE_MAX);
    within(config.limits.pool_buffers, limits::POOL_BUFFERS);
    within(config.limits.clients_max, limits::CLIENTS_MAX);
    for Server { listen, www, docroot, site, .. } in &config.servers {
        assert!((1..=LISTEN_MAX).contains(&listen.len()) && site.links.len() <= LINKS_MAX);
        assert_eq!((site.has_www, site.has_docroot), (www.is_some(), docroot.is_some()));
        assert!(site.has_www || site.has_docroot || !site.links.is_empty());
        for text in site.hostname.iter().chain([&site.cache_control]) {
            assert!(!text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
        }
        within(site.limits.head_size_max, limits::HEAD_SIZE_MAX);
        within(site.limits.keepalive_ms, limits::KEEPALIVE_MS);
        check_service(&site.service);
        for Link { destination, .. } in &site.page_links {
            match destination {
                Destination::Upstream(upstream) => check_upstream(upstream),
                other => panic!("pages of {other:?}"),
            }
        }
        for Link { destination, service, .. } in &site.links {
            check_service(service);
            let (path, clients_max) = match destination {
                Destination::Tcp(addresses) => {
                    assert!(addresses.iter().all(|address| address.port() != 0));
                    ("/", u64::MAX)
                }
                Destination::Unix(path) => (&**path, u64::MAX),
                Destination::Tty { path, .. } | Destination::Fifo { path, .. } => {
                    (&**path, limits::DEVICE_CLIENTS_MAX.max)
                }
                Destination::Upstream(upstream) => {
                    check_upstream(upstream);
                    ("/", u64::MAX)
                }
            };
            assert!(path.starts_with('/') && service.limits.clients_max <= clients_max, "{destination:?}");
            assert!(service.protocol != Protocol::Packet || matches!(destination, Destination::Unix(_)));
            let is_only_read = matches!(destination, Destination::Fifo { direction: Direction::Read, .. });
            assert!(!service.hello || !is_only_read, "a pipe that is only read would be written");
        }
    }
}

fn check_upstream(upstream: &Upstream) {
    let (own, nodes) = (&upstream.limits, &upstream.cluster.nodes);
    within(own.requests_max, limits::REQUESTS_MAX);
    within(own.connect_ms, limits::CONNECT_MS);
    within(own.answer_ms, limits::ANSWER_MS);
    within(own.body_ms, limits::BODY_MS);
    within(own.body_size_max, limits::BODY_SIZE_MAX);
    within(upstream.cluster.keepalive_max, limits::UPSTREAM_KEEPALIVE_MAX);
    assert!((1..=limits::NODES_MAX).contains(&nodes.len()), "{} nodes", nodes.len());
    assert!(upstream.node.is_none_or(|node| node < nodes.len()), "{:?} of {} nodes", upstream.node, nodes.len());
    for node in nodes {
        within(node.weight.into(), limits::NODE_WEIGHT_MAX);
        within(node.fail_ms, limits::NODE_FAIL_MS);
    }
    let is_path = |path: &str| path.starts_with('/') && !path.contains("//");
    assert!(upstream.path.as_deref().is_none_or(is_path), "{:?}", upstream.path);
}

fn check_service(service: &Service) {
    let own = &service.limits;
    within(own.clients_max, limits::CLIENTS_MAX);
    within(own.connect_ms, limits::CONNECT_MS);
    within(own.idle_ms, limits::IDLE_MS);
    within(own.ping_ms, limits::PING_MS);
    within(own.pong_ms, limits::PONG_MS);
    within(own.close_ms, limits::CLOSE_MS);
    within(own.stall_ms, limits::STALL_MS);
    within(own.frame_size_max, limits::FRAME_SIZE_MAX);
    within(own.message_size_max, limits::MESSAGE_SIZE_MAX);
    within(own.queue_size_max, limits::QUEUE_SIZE_MAX);
}

fn within(value: u64, bounds: Bounds) {
    assert!((bounds.min..=bounds.max).contains(&value), "{value} is not within {bounds:?}");
}

/// Takes the place of the C library's: a fuzzer asks nobody on the network. No name is known.
#[allow(unsafe_code, reason = "a symbol of this name is what the standard library calls")]
#[unsafe(no_mangle)]
extern "C" fn getaddrinfo(_: *const c_char, _: *const c_char, _: *const c_void, _: *mut *mut c_void) -> c_int {
    // EAI_NONAME, getaddrinfo(3)
    -2
}
