//! The files of `tls`: what a start and `--check` say about them, changes without a reload, and the deploy hook.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Gid, Group, Uid, User};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

use crate::daemon::{Daemon, project, uakari, uakari_without};
use crate::process::{DEADLINE, Finished, Folder, eventually, run, skipped};
use crate::reload::{TAKEN, reload};

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// A pair for localhost that is valid until the first day of this year.
fn pair(year: i32) -> Pair {
    pair_with(|params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
}

fn pair_with(change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2090, 1, 1));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    Pair { certificate, key: key.serialize_pem() }
}

impl Pair {
    /// Writes `cert.pem` and `key.pem` into a folder, which may be missing.
    fn write(&self, folder: impl AsRef<Path>) {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).unwrap();
        write_private(&folder.join("key.pem"), &self.key);
        fs::write(folder.join("cert.pem"), &self.certificate).unwrap();
    }
}

/// Writes a file that its owner alone may read.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// A configuration of one server with the files of this folder.
fn configuration(folder: &str, more: &str) -> String {
    format!(
        "servers = ({{
             listen = \"127.0.0.1:0\";  hostname = \"localhost\";  document = {{ docroot = \"@/www\"; }};
             tls = {{ crtfile = \"{folder}/cert.pem\"; keyfile = \"{folder}/key.pem\"; {more} }};
         }});"
    )
}

/// Runs the daemon with a configuration, in which `@` stands for the folder, and a flag.
fn run_with(folder: &Folder, text: &str, flag: &[&str]) -> Finished {
    fs::create_dir_all(folder.join("www")).unwrap();
    let path = folder.join("uakari.conf");
    fs::write(&path, text.replace('@', folder.path().to_str().unwrap())).unwrap();
    run(uakari().args(["-f", &path]).args(flag), DEADLINE)
}

/// A start fails with these sentences, and `--check` prints them too.
#[test]
fn files_that_cannot_be_used() {
    let (good, other) = (pair(2090), pair(2090));
    let text = configuration("@", "");
    let with_clients = configuration("@", "clientca = \"@/ca.pem\"; crlfile = \"@/list.pem\";");
    let large = "x".repeat(1024 * 1024 + 1);
    for (certificate, key, text, sentences) in [
        (&*good.certificate, &*other.key, &text, &["keyfile @/key.pem: the private key does not belong"][..]),
        ("hello", "hello", &text, &["crtfile @/cert.pem: has no certificate", "keyfile @/key.pem: has no private key"]),
        (&large, &good.key, &text, &["crtfile @/cert.pem: is larger than 1048576 bytes"]),
        (
            &good.certificate,
            &good.key,
            &with_clients,
            &["clientca @/ca.pem: does not exist: create it", "crlfile @/list.pem: does not exist"],
        ),
    ] {
        let folder = Folder::new();
        fs::write(folder.join("cert.pem"), certificate).unwrap();
        write_private(&folder.path().join("key.pem"), key);
        let (start, check) = (run_with(&folder, text, &[]), run_with(&folder, text, &["--check"]));
        assert_eq!((start.status.code(), check.status.code()), (Some(1), Some(1)), "{start:?} {check:?}");
        for sentence in sentences {
            let sentence = sentence.replace('@', folder.path().to_str().unwrap());
            let sentence = format!("uakari.conf:3: servers[0].tls.{sentence}");
            assert!(start.err.contains(&sentence) && check.out.contains(&sentence), "{sentence}: {start:?} {check:?}");
        }
    }
    // Neither a folder nor a named pipe without a writer.
    let folder = Folder::new();
    good.write(folder.path());
    fs::remove_file(folder.join("key.pem")).unwrap();
    nix::unistd::mkfifo(Path::new(&folder.join("key.pem")), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let start = run_with(&folder, &text, &[]);
    assert!(start.err.contains("key.pem: is not a regular file"), "{start:?}");
}

/// A start warns, and `--check` too.
#[test]
fn files_that_are_warned_about() {
    type Change = fn(&mut CertificateParams);
    let none: Change = |_| ();
    // Ten days and a half.
    let soon: Change = |params| params.not_after = (SystemTime::now() + Duration::from_secs(907_200)).into();
    let other: Change = |params| params.subject_alt_names = vec![SanType::DnsName("example.org".try_into().unwrap())];
    for (change, mode, sentence) in [
        ((|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1)) as Change, 0o600, "1 expired on 2021-01-01"),
        (soon, 0o600, ", in 10 days: renew it"),
        (other, 0o600, "cert.pem: the certificate is not for the hostname localhost, but for example.org"),
        (none, 0o604, "key.pem: every user of this machine may read the private key"),
    ] {
        let folder = Folder::new();
        pair_with(change).write(folder.path());
        fs::set_permissions(folder.join("key.pem"), PermissionsExt::from_mode(mode)).unwrap();
        let check = run_with(&folder, &configuration("@", ""), &["--check"]);
        assert!(check.status.success() && check.out.contains(sentence), "{sentence}: {check:?}");
        let daemon = Daemon::start_configured_by(folder, &configuration("@", ""), uakari());
        daemon.log().wait_for(&[" warn ", sentence]);
        daemon.announced().wait_for(&["listening on https://127.0.0.1:"]);
    }
}

/// A daemon whose files are in its folder `live`, after `lay` has made it of the folders `first` and `second`, which
/// have a pair each.
fn served(lay: fn(&Path)) -> Daemon {
    let folder = Folder::new();
    pair(2091).write(folder.join("first"));
    pair(2092).write(folder.join("second"));
    lay(folder.path());
    Daemon::start_configured_by(folder, &configuration("@/live", ""), uakari())
}

/// Waits until new handshakes use the certificate that expires in this year.
fn expect_taken(daemon: &Daemon, year: i32) {
    daemon.log().wait_for(&["servers[0].tls.crtfile", "new handshakes use", &format!("expires on {year}-01-01")]);
}

/// Changes files that are taken up at last: those that do not match meanwhile are no error, unless they stay so for 10 s.
fn expect_no_error(daemon: &Daemon, what: &str, change: impl FnOnce()) {
    let start = Instant::now();
    change();
    let time = start.elapsed();
    if time < Duration::from_secs(10) {
        assert!(!daemon.log().text().contains(" error "), "{what}: {}", daemon.log().text());
    } else {
        eprintln!("{what}: the change took {time:?}, in which an error is right");
    }
}

const NAMES: [&str; 2] = ["cert.pem", "key.pem"];

/// Replaces a link as certbot does.
fn turn(target: impl AsRef<Path>, link: impl AsRef<Path>) {
    let _ = fs::remove_file(&link);
    symlink(target, link).unwrap();
}

/// As `turn`, at once.
fn swap(target: impl AsRef<Path>, link: impl AsRef<Path>) {
    let beside = link.as_ref().with_file_name("beside");
    symlink(target, &beside).unwrap();
    fs::rename(beside, link).unwrap();
}

#[test]
fn changes_are_taken_up() {
    let copy = |root: &Path| {
        fs::create_dir(root.join("live")).unwrap();
        NAMES.iter().for_each(|name| drop(fs::copy(root.join("first").join(name), root.join("live").join(name))));
    };
    let link_each = |root: &Path| {
        fs::create_dir(root.join("live")).unwrap();
        NAMES.iter().for_each(|name| turn(Path::new("../first").join(name), root.join("live").join(name)));
    };
    type Step = fn(&Path);
    let ways: [(&str, Step, Step); 7] = [
        ("in place", copy, |root| {
            NAMES.iter().for_each(|name| drop(fs::copy(root.join("second").join(name), root.join("live").join(name))));
        }),
        ("renamed", copy, |root| {
            NAMES
                .iter()
                .for_each(|name| fs::rename(root.join("second").join(name), root.join("live").join(name)).unwrap());
        }),
        ("removed and renamed", copy, |root| {
            NAMES.iter().for_each(|name| fs::remove_file(root.join("live").join(name)).unwrap());
            NAMES
                .iter()
                .for_each(|name| fs::rename(root.join("second").join(name), root.join("live").join(name)).unwrap());
        }),
        ("certbot's links", link_each, |root| {
            NAMES.iter().for_each(|name| turn(Path::new("../second").join(name), root.join("live").join(name)));
        }),
        ("another folder", copy, |root| {
            fs::rename(root.join("live"), root.join("old")).unwrap();
            fs::rename(root.join("second"), root.join("live")).unwrap();
        }),
        (
            "a linked folder",
            |root| symlink("first", root.join("live")).unwrap(),
            |root| swap("second", root.join("live")),
        ),
        (
            "kubernetes' ..data",
            |root| {
                fs::create_dir(root.join("live")).unwrap();
                symlink("../first", root.join("live/..data")).unwrap();
                NAMES.iter().for_each(|name| turn(Path::new("..data").join(name), root.join("live").join(name)));
            },
            |root| swap("../second", root.join("live/..data")),
        ),
    ];
    for (way, lay, change) in ways {
        let daemon = served(lay);
        println!("{way}");
        expect_no_error(&daemon, way, || {
            change(daemon.folder().path());
            expect_taken(&daemon, 2092);
            // What the links lead to now is watched.
            let files = NAMES.map(|name| daemon.folder().join(&format!("live/{name}")));
            pair(2093).write(daemon.folder().join("third"));
            files
                .iter()
                .zip(NAMES)
                .for_each(|(file, name)| drop(fs::copy(daemon.folder().path().join("third").join(name), file)));
            expect_taken(&daemon, 2093);
        });
    }
}

/// A new revocation list is used; a broken one is not.
#[test]
fn revocation_lists_are_taken_up() {
    let folder = Folder::new();
    pair(2091).write(folder.join("live"));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    fs::write(folder.join("live/ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    let list = |year: i32| {
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&authority).unwrap().pem().unwrap()
    };
    fs::write(folder.join("live/list.pem"), list(2021)).unwrap();
    let clients = "verify = \"optional\"; clientca = \"@/live/ca.pem\"; crlfile = \"@/live/list.pem\";";
    let daemon = Daemon::start_configured_by(folder, &configuration("@/live", clients), uakari());
    daemon.log().wait_for(&[" warn ", "list.pem: revocation list 1 expired on 2021-01-01, and is still enforced"]);
    let path = daemon.folder().join("live/list.pem");
    fs::write(&path, "hello").unwrap();
    daemon.log().wait_for(&[" error ", "list.pem: has no revocation list", "stays in use"]);
    fs::write(&path, list(2090)).unwrap();
    daemon.log().wait_for(&["tls.crlfile", "list.pem: new handshakes use what has changed"]);
}

/// A pair that does not match is reported after a while, and once; the next good one is used.
#[test]
fn a_pair_that_does_not_match() {
    let daemon = served(|root| fs::rename(root.join("first"), root.join("live")).unwrap());
    let root = daemon.folder().path();
    fs::rename(root.join("second/cert.pem"), root.join("live/cert.pem")).unwrap();
    let sentence = "key.pem: the private key does not belong to the certificate of crtfile";
    daemon.log().wait_for(&[" error ", sentence, "the old certificate stays in use"]);
    fs::rename(root.join("second/key.pem"), root.join("live/key.pem")).unwrap();
    expect_taken(&daemon, 2092);
    assert_eq!(daemon.log().text().matches(sentence).count(), 1);
}

/// Without inotify the files are read again from time to time.
#[test]
#[ignore = "needs python3"]
fn files_that_cannot_be_watched() {
    let folder = Folder::new();
    pair(2091).write(folder.join("live"));
    let daemon =
        Daemon::start_configured_by(folder, &configuration("@/live", ""), uakari_without(&["inotify_init1=EMFILE"]));
    daemon.log().wait_for(&[" warn ", "cannot be watched", "fs.inotify.max_user_instances"]);
    pair(2092).write(daemon.folder().join("live"));
    expect_taken(&daemon, 2092);
}

/// Without TLS there is no watch, and no thread.
#[test]
fn nothing_is_watched_without_tls() {
    let is_watching = |daemon: &Daemon| daemon.process.has_open("anon_inode:inotify");
    let daemon = Daemon::start_configured(&crate::daemon::configuration("", ""));
    reload(&daemon, &crate::daemon::configuration("", ""), TAKEN);
    assert!(!is_watching(&daemon));
    pair(2091).write(daemon.folder().join("live"));
    reload(&daemon, &configuration("@/live", ""), TAKEN);
    eventually("the files are watched", || is_watching(&daemon));
    pair(2092).write(daemon.folder().join("live"));
    expect_taken(&daemon, 2092);
    reload(&daemon, &crate::daemon::configuration("", ""), TAKEN);
    eventually("the files are not watched any more", || !is_watching(&daemon));
}

/// Runs the hook with this lineage, for this group.
fn run_hook(root: &Path, group: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(project().join("utils/install/certbot-deploy-hook"));
    command.args(arguments).env("UAKARI_TLS", root.join("tls")).env("UAKARI_GROUP", group);
    command.envs(variables.iter().copied());
    run(&mut command, DEADLINE)
}

/// The user of the daemon, and the name of its group; without root the user of the tests.
fn account() -> (Option<&'static str>, String) {
    let user = if Uid::effective().is_root() { User::from_name("nobody").unwrap() } else { None };
    let group = user.as_ref().map_or(Gid::effective(), |user| user.gid);
    (user.map(|_| "nobody"), Group::from_gid(group).unwrap().expect("the group has a name").name)
}

/// A key that only root may read: the start warns, and the hook makes a copy that is renewed.
#[test]
fn the_deploy_hook() {
    let (user, group) = account();
    let folder = Folder::new();
    let lineage = folder.join("letsencrypt/live/example.org");
    let renew = |year: i32| {
        let pair = pair(year);
        fs::create_dir_all(&lineage).unwrap();
        fs::write(format!("{lineage}/fullchain.pem"), pair.certificate).unwrap();
        write_private(Path::new(&format!("{lineage}/privkey.pem")), &pair.key);
        let hook = run_hook(folder.path(), &group, &[], &[("RENEWED_LINEAGE", &lineage)]);
        assert!(hook.status.success(), "{hook:?}");
    };
    renew(2091);
    fs::set_permissions(folder.join("letsencrypt/live"), PermissionsExt::from_mode(0o700)).unwrap();
    let text = |place: &str| {
        let names = [("cert.pem", "fullchain.pem"), ("key.pem", "privkey.pem")];
        let text = names.iter().fold(configuration(place, ""), |text, (from, to)| text.replace(from, to));
        user.map_or(String::new(), |user| format!("user = \"{user}\"; ")) + &text
    };
    let direct = text("@/letsencrypt/live/example.org");
    let warning = "privkey.pem: the daemon's user may not read it: let a deploy hook make a copy";
    if user.is_some() {
        let check = run_with(&folder, &direct, &["--check"]);
        assert!(check.status.success() && check.out.contains(warning), "{check:?}");
        let mut stopped =
            Daemon::start_configured_by(Folder::new(), &direct.replace('@', folder.path().to_str().unwrap()), uakari());
        stopped.log().wait_for(&[" warn ", warning, "needs a restart"]);
        stopped.stop();
    } else {
        skipped("only root can become another user");
    }
    for (name, mode) in
        [("", 0o750), ("example.org", 0o750), ("example.org/privkey.pem", 0o640), ("example.org/fullchain.pem", 0o640)]
    {
        let status = fs::metadata(folder.join("tls").clone() + "/" + name).unwrap();
        assert_eq!(status.permissions().mode() & 0o777, mode, "{name}");
    }
    let copied = text(&folder.join("tls/example.org"));
    let daemon = Daemon::start_configured(&copied);
    expect_no_error(&daemon, "the hook", || {
        renew(2092);
        expect_taken(&daemon, 2092);
        renew(2093);
        expect_taken(&daemon, 2093);
    });
    let text = daemon.log().text();
    assert!(!text.contains("may not read"), "{text}");
}

/// The hook of other clients, and what it refuses.
#[test]
fn the_deploy_hook_of_other_clients() {
    let (_, group) = account();
    let folder = Folder::new();
    pair(2091).write(folder.path());
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::copy(&certificate, folder.join("_.example.org.crt")).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let lego = [("LEGO_CERT_PATH", folder.join("_.example.org.crt")), ("LEGO_CERT_KEY_PATH", key.clone())];
    let lego: Vec<(&str, &str)> = lego.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (arguments, variables, name) in
        [(&["example.net", &certificate, &key][..], &[][..], "example.net"), (&[], &lego, "_.example.org")]
    {
        let hook = run_hook(folder.path(), &group, arguments, variables);
        assert!(hook.status.success(), "{hook:?}");
        for (copy, original) in [("fullchain.pem", &certificate), ("privkey.pem", &key)] {
            let copy = fs::read(folder.path().join("tls").join(name).join(copy)).unwrap();
            assert!(copy == fs::read(original).unwrap(), "{name}");
        }
        let files = fs::read_dir(folder.path().join("tls").join(name)).unwrap().count();
        assert_eq!(files, 2, "no other files are left");
    }
    for (group, arguments, sentence) in [
        (&*group, &[][..], "write NAME CERTIFICATE KEY"),
        (&group, &["a/b", &certificate, &key], "'a/b' cannot be the name of a folder"),
        (&group, &["..", &certificate, &key], "'..' cannot be the name of a folder"),
        (&group, &["name", &folder.join("empty"), &key], "empty is missing or empty"),
        (&group, &["name", &certificate, "/missing"], "/missing is missing or empty"),
        ("no-such-group", &["new", &certificate, &key], "cannot be given to the group no-such-group"),
    ] {
        let hook = run_hook(folder.path(), group, arguments, &[]);
        assert!(!hook.status.success() && hook.err.contains(sentence), "{sentence}: {hook:?}");
    }
    assert!(!folder.path().join("tls/new").exists(), "a folder that it could not give away is removed");
}
