//! The three parsers accept the same records, and no malformed record crashes one.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use uakari::route::hello;
use uakari::types::Address;

use super::parser::parse_hello;
use super::{certificate, compile, line, protected};
use crate::daemon::project;
use crate::foreign::{self, SCRIPT_TIME};
use crate::process::{Folder, run};

/// What a parser prints about a record that it refuses.
const REFUSED: &str = "refused\n";

/// Records of haproxy 2.6 with send-proxy-v2-ssl-cn: a client without a certificate, whose `verify` is 0 nevertheless, and
/// one with a certificate.
const BY_HAPROXY: [&[u8]; 2] = [
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x70\x7f\0\0\x01\x7f\0\0\x01\xb1\x54\x48\x0b\x01\0\x08http/1.1\x02\0\x0cgate.example\
      \x05\0\0\x20\0\x44\x01\0\0\0\0\x21\0\x07TLSv1.3\x25\0\x05EC256\x24\0\x11ecdsa-with-SHA256\
      \x23\0\x16TLS_AES_256_GCM_SHA384",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x76\x7f\0\0\x01\x7f\0\0\x01\xb1\x5e\x48\x0b\x01\0\x08http/1.1\x02\0\x0cgate.example\
      \x05\0\0\x20\0\x4a\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03ann\x25\0\x05EC256\x24\0\x11ecdsa-with-SHA256\
      \x23\0\x16TLS_AES_256_GCM_SHA384",
];

/// Pseudorandom numbers, equal in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Good records of each kind.
fn records() -> Vec<Vec<u8>> {
    let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
    let full = hello::Hello {
        path: "/Gr\u{fc}\u{df}e\n \u{1f412}".into(),
        query: "x=1&y=%20".into(),
        host: "gate.example:8080".into(),
        origin: "https://page.example".into(),
        subprotocol: "chat".into(),
        user: "ann \u{1f412}".into(),
        groups: "staff,caf\u{e9}".into(),
        tls: None,
    };
    let mut records: Vec<Vec<u8>> = [
        (full.clone(), tcp("192.0.2.7:65535"), tcp("192.0.2.8:80")),
        (full.clone(), tcp("[2001:db8::1:0:0:7]:1"), tcp("[::1]:443")),
        (full.clone(), tcp("[::ffff:192.0.2.7]:1"), tcp("[::]:443")),
        (protected(None), tcp("192.0.2.7:1"), tcp("192.0.2.8:443")),
        (protected(Some(certificate())), tcp("192.0.2.7:1"), tcp("192.0.2.8:443")),
        (full, Address::Unix, Address::Unix),
        (hello::Hello::default(), Address::Unix, Address::Unknown),
    ]
    .into_iter()
    .map(|(hello, client, local)| hello.encode(client, local, 12).into())
    .collect();
    records.extend(BY_HAPROXY.map(<[u8]>::to_vec));
    // Records that only others send: a family with other addresses, and LOCAL.
    let unix = [&[0x21, 0x31, 0, 220][..], &[b'/'; 216], b"\xee\0\x01\0"].concat();
    let datagrams = b"\x21\x12\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a\xff\0\x01%".to_vec();
    for rest in [unix, datagrams, b"\x20\0\0\x03\xff\xff\xff".to_vec(), b"\x20\xff\0\0".to_vec()] {
        records.push([&b"\r\n\r\n\0\r\nQUIT\n"[..], &rest].concat());
    }
    records
}

/// Records with this field of TLS and the path "/who", or whatever follows it.
fn with_field_of_tls(value: &[u8], rest: &[u8]) -> Vec<u8> {
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0\x01\x02\x03\x04\x7f\0\0\x01\x30\x39\x01\xbb\x20";
    with_size([&head[..], &(value.len() as u16).to_be_bytes(), value, rest].concat())
}

/// Fields of TLS that are cut at each byte, unknown, there twice, at the wrong level or with a text that is none; each
/// with whether a parser takes it.
fn fields_of_tls() -> Vec<(Vec<u8>, bool)> {
    const PATH: &[u8] = b"\xe0\0\x04/who";
    let good = b"\x07\0\0\0\0\x21\0\x03TLS\x22\0\x03ann\x23\0\x03AES";
    let cuts = (0..=good.len()).map(|size| (with_field_of_tls(&good[..size], PATH), [5, 11, 17, 23].contains(&size)));
    let more = |value: &[u8]| with_field_of_tls(&[&good[..], value].concat(), PATH);
    let mut all: Vec<(Vec<u8>, bool)> = cuts.collect();
    all.extend([
        (more(b"\x24\0\x01\0\x24\0\0\x20\0\x02\x21\0\xe0\0\x01\xff"), true),
        (more(b"\x22\0\x03ann"), false),
        (more(b"\x24\xff\xff"), false),
        (with_field_of_tls(b"\x07\0\0\0\0\x22\0\x0badmin\0.test", PATH), false),
        (with_field_of_tls(b"\x07\0\0\0\0\x22\0\x01\xff", PATH), false),
        (with_field_of_tls(good, b"\x20\0\x05\x07\0\0\0\0"), false),
        (with_field_of_tls(good, b"\x21\0\x03TLS\x22\0\x01\xff"), true),
        (with_field_of_tls(b"\x07\0\0\0\0", &b"\xe6\0\0".repeat(2)), false),
        // No flag of a certificate, one of the two, or a certificate that is not verified.
        (with_field_of_tls(b"\x01\0\0\0\0", b""), true),
        (with_field_of_tls(b"\x05\0\0\0\0", b""), true),
        (with_field_of_tls(b"\xfb\0\0\0\0", b""), true),
        (with_field_of_tls(b"\x07\0\0\0\x0a", b""), true),
        (with_field_of_tls(b"\x07\x80\0\0\0", b""), true),
    ]);
    all
}

/// The good records, each truncation, each flipped bit, and several random changes.
fn variations() -> Vec<Vec<u8>> {
    let (good, mut numbers) = (records(), Numbers(0x9e37_79b9_7f4a_7c15));
    let mut all = good.clone();
    all.extend(fields_of_tls().into_iter().map(|(record, _)| record));
    for record in &good {
        all.extend((0..record.len()).map(|size| record[..size].to_vec()));
        // With a matching length, so that the cut is within the fields.
        all.extend((16..record.len()).map(|size| with_size(record[..size].to_vec())));
        all.extend((0..8 * record.len()).map(|bit| {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        }));
        for _ in 0..400 {
            let mut changed = record.clone();
            for _ in 0..=numbers.below(4) {
                let at = 12 + numbers.below(changed.len() - 12);
                match numbers.below(4) {
                    0 => changed[at] = numbers.below(256) as u8,
                    1 => changed[at] = [0, 0x20, 0x7f, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xff][numbers.below(9)],
                    2 => changed.insert(at, [0, 1, 2, 3, 5, 0x80, 0xe0, 0xe1, 0x20, 0x22, 0xe6][numbers.below(11)]),
                    _ if changed.len() > 20 => drop(changed.remove(at)),
                    _ => changed.push(0),
                }
            }
            all.push(if numbers.below(8) > 0 { with_size(changed) } else { changed });
        }
    }
    all
}

fn with_size(mut record: Vec<u8>) -> Vec<u8> {
    if record.len() >= 16 {
        let size = (record.len() - 16) as u16;
        record[14..16].copy_from_slice(&size.to_be_bytes());
    }
    record
}

/// What a program prints about these records, which are preceded by their lengths.
fn outputs(command: &mut Command, records: &[Vec<u8>]) -> Vec<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            for record in records {
                stdin.write_all(&(record.len() as u32).to_be_bytes()).unwrap();
                stdin.write_all(record).unwrap();
            }
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().split_inclusive('\n').map(in_one_spelling).collect()
}

/// An IPv6 address as Rust writes it: libraries do not agree on whether `::1.0.0.1` ends like an IPv4 address.
fn in_one_spelling(line: &str) -> String {
    let spell = |word: &str| match word.split_once('=') {
        Some((name @ ("client" | "local"), address)) if !address.is_empty() => {
            format!("{name}={}", address.parse::<SocketAddr>().unwrap())
        }
        _ => word.to_owned(),
    };
    line.split(' ').map(spell).collect::<Vec<_>>().join(" ")
}

#[test]
#[ignore = "needs python3"]
fn all_parsers_accept_the_same_records() {
    let folder = Folder::new();
    let records = variations();
    let by_rust: Vec<String> =
        records.iter().map(|record| parse_hello(record).map_or(REFUSED.to_owned(), |who| line(&who))).collect();
    let by_python = outputs(foreign::command("python3").arg(project().join("tests/hello/parse.py")), &records);
    // The C parser reads from memory that ends with the record, under a sanitizer.
    let flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-static-libasan"];
    let by_c = outputs(&mut Command::new(compile(&folder, "tests/hello/parse.c", &flags)), &records);
    assert_eq!((by_rust.len(), by_python.len(), by_c.len()), (records.len(), records.len(), records.len()));
    for (at, record) in records.iter().enumerate() {
        let shown = record.escape_ascii();
        assert!(by_rust[at] == by_python[at], "{shown}: {} by Rust, {} by Python", by_rust[at], by_python[at]);
        assert!(by_rust[at] == by_c[at], "{shown}: {} by Rust, {} by C", by_rust[at], by_c[at]);
    }
    let taken = by_rust.iter().filter(|told| *told != REFUSED).count();
    assert!(taken > records.len() / 10 && taken < records.len() * 9 / 10, "{taken} of {} are taken", records.len());
    let first = "client=192.0.2.7:65535 local=192.0.2.8:80 host=gate.example:8080 id=c12 \
         path=/Gr%c3%bc%c3%9fe%0a%20%f0%9f%90%92 query=x=1&y=%2520 origin=https://page.example subprotocol=chat \
         user=ann%20%f0%9f%90%92 groups=staff,caf%c3%a9\n";
    assert_eq!(by_rust[0], first);
    let ends = [
        "tls_version=TLSv1.3 tls_cipher=TLS_AES_128_GCM_SHA256 sni=gate.example alpn=http/1.1\n",
        &format!(
            "tls_version=TLSv1.3 tls_cipher=TLS_AES_128_GCM_SHA256 sni=gate.example alpn=http/1.1 \
             common_name=J%c3%bcrgen,%20admin subject=CN=J%c3%bcrgen\\,%20admin,O=Ex serial=01ff \
             fingerprint={} is_verified\n",
            "ab".repeat(32)
        ),
        "tls_version=TLSv1.3 tls_cipher=TLS_AES_256_GCM_SHA384 alpn=http/1.1\n",
        "tls_version=TLSv1.3 tls_cipher=TLS_AES_256_GCM_SHA384 alpn=http/1.1 common_name=ann is_verified\n",
    ];
    for (end, told) in ends.iter().zip([&by_rust[3], &by_rust[4], &by_rust[7], &by_rust[8]]) {
        assert!(told.ends_with(&format!(" subprotocol= {end}")), "{told}");
    }
}

#[test]
fn the_field_of_tls() {
    for (record, is_good) in fields_of_tls() {
        assert_eq!(parse_hello(&record).is_ok(), is_good, "{}", record.escape_ascii());
    }
    for (flags, verify, is_verified) in
        [(7, 0, true), (5, 0, true), (3, 0, true), (1, 0, false), (0, 0, false), (7, 1, false), (7, 0x80, false)]
    {
        let who = parse_hello(&with_field_of_tls(&[flags, verify, 0, 0, 0], b"")).unwrap();
        assert_eq!(who.is_verified, is_verified, "{flags} {verify}");
    }
}

#[test]
#[ignore = "needs python3"]
fn each_parser_tests_itself() {
    let folder = Folder::new();
    let c = compile(&folder, "utils/hello/hello.h", &["-DHELLO_MAIN"]);
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    foreign::need("python3");
    let mut runs = vec![vec!["python3".to_owned(), project().join("utils/hello/hello.py").display().to_string()]];
    if valgrind {
        runs.push(vec!["valgrind".to_owned(), "-q".to_owned(), "--error-exitcode=9".to_owned(), c.clone()]);
    } else {
        eprintln!("valgrind is not here; the C parser was not run under it");
    }
    runs.push(vec![c]);
    for words in runs {
        let finished = run(Command::new(&words[0]).args(&words[1..]).arg("--test"), SCRIPT_TIME);
        assert!(finished.status.success() && finished.out.ends_with(": ok"), "{words:?}: {finished:?}");
    }
}
