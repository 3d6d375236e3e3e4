//! Wrong passwords, very many: what they cost others, and what they tell.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::process::measured;
use crate::supervision::helper;

/// Attempts in all, and the clients that make them. Each client has an address of its own.
const ATTEMPTS: usize = 10_000;
const GUESSERS: usize = 16;

/// bcrypt with the cost 4 of a password that ends with "rd x".
const CHEAP: (&str, &str) = ("pa55w\u{f6}rd x", "$2b$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy");

/// How often each status was seen.
#[derive(Default, Debug, PartialEq, Eq)]
struct Statuses {
    wrong: usize,
    limited: usize,
    unavailable: usize,
}

/// Sends wrong passwords for a user, or for a new user each time.
fn guess(visitor: Visitor<'_>, user: Option<&str>) -> Statuses {
    let mut statuses = Statuses::default();
    let mut wire = visitor.wire();
    for number in 0..ATTEMPTS / GUESSERS {
        let name = user.map_or(format!("user{number}"), str::to_owned);
        wire.send(request("GET", "/page", &[&basic(&name, &format!("guess{number}"))]));
        let response = wire.response();
        match response.status {
            401 => statuses.wrong += 1,
            429 => {
                assert!(response.field("Retry-After").parse::<u32>().is_ok_and(|wait| wait > 0), "{response:?}");
                statuses.limited += 1;
            }
            503 => statuses.unavailable += 1,
            _ => panic!("{response:?}"),
        }
        if response.field("Connection") == "close" {
            wire = visitor.wire();
        }
    }
    statuses
}

#[test]
fn ten_thousand_wrong_passwords() {
    let folder = new_folder();
    put(&folder, "users", &format!("ann:{}\n", CHEAP.1));
    let daemon = start_in(folder, "auth = { type = \"basic\"; file = \"@/users\"; cache-ms = 0; };");
    let server = daemon.listen("who");
    let ann = basic("ann", CHEAP.0);
    let visitor = Visitor::new(&daemon, 1);
    let (mut client, hello, mut backend) = visitor.join(&server, "/who", &[&ann]);
    assert_eq!(&*hello.user, "ann");
    let start = Instant::now();
    let (mut rounds, mut longest) = (0, [Duration::ZERO; 2]);
    let at_work = AtomicUsize::new(GUESSERS);
    let statuses: Vec<Statuses> = thread::scope(|scope| {
        let guessers: Vec<_> = (0..GUESSERS)
            .map(|number| {
                let (visitor, at_work) = (Visitor::new(&daemon, 100 + number as u8), &at_work);
                scope.spawn(move || {
                    let _is_over = Leaving(at_work);
                    guess(visitor, (number % 2 == 0).then_some("ann"))
                })
            })
            .collect();
        // Meanwhile the right password is accepted, and an open WebSocket echoes.
        while at_work.load(Ordering::Relaxed) > 0 || rounds < 3 {
            let begin = Instant::now();
            assert_eq!(visitor.get("/page", &[&ann]).status, 200);
            let verified = Instant::now();
            client.text("still here");
            backend.expect("still here");
            backend.send("heard");
            client.expect_text("heard");
            longest = [longest[0].max(verified - begin), longest[1].max(verified.elapsed())];
            rounds += 1;
        }
        guessers.into_iter().map(|guesser| guesser.join().unwrap()).collect()
    });
    let sum = |of: fn(&Statuses) -> usize| statuses.iter().map(of).sum::<usize>();
    let (wrong, limited) = (sum(|it| it.wrong), sum(|it| it.limited));
    measured(&format!(
        "{ATTEMPTS} wrong passwords in {:.1?}: {wrong} verified, {limited} refused with 429; beside them {rounds} \
         logins, the slowest {:.0?}, and echoes, the slowest {:.0?}",
        start.elapsed(),
        longest[0],
        longest[1]
    ));
    assert_eq!(wrong + limited + sum(|it| it.unavailable), ATTEMPTS);
    // 20 of each address, and some more for every window that passes meanwhile.
    assert!(wrong <= 60 * GUESSERS && limited > ATTEMPTS / 2, "{statuses:?}");
    assert!(statuses.iter().all(|it| it.wrong >= 5), "{statuses:?}");
    // The right password is refused from such an address, and accepted from others.
    let guesser = Visitor::new(&daemon, 101);
    assert_eq!(guesser.get("/page", &[&ann]).status, 429);
    assert_eq!(guesser.upgrade("/who", &[&ann]).status, 429);
    assert_eq!(visitor.get("/page", &[&ann]).status, 200);
    client.close(1000);
}

/// Counts a thread that ends, also when it panics.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// CPU time of the helper so far: /proc/PID/task/TID/schedstat begins with the nanoseconds of a thread.
fn helper_time(daemon: &Daemon) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", helper(daemon))).unwrap();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
    let texts = tasks.filter_map(|task| of_task(task.unwrap()));
    Duration::from_nanos(texts.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum())
}

/// The time of an answer does not tell which users there are, since each costs the same.
#[test]
fn unknown_users_cost_the_same() {
    const EACH: u8 = 4;
    let folder = new_folder();
    let dear = CHEAP.1.replace("$04$", "$09$");
    put(&folder, "users", &format!("dear:{dear}\ncheap:{}\nclear:secret:\n", CHEAP.1));
    let daemon = start_in(folder, "auth = { type = \"basic\"; file = \"@/users\"; };");
    // In turns, so that what else the machine does costs each of them the same.
    let mut costs = [Duration::ZERO; 4];
    for number in 1..=EACH {
        for (user, cost) in ["dear", "cheap", "clear", "nobody"].into_iter().zip(&mut costs) {
            let (before, begin) = (helper_time(&daemon), Instant::now());
            let response = Visitor::new(&daemon, number).get("/page", &[&basic(user, "wrong")]);
            assert_eq!(response.status, 401, "{user}");
            // The helper counts whole milliseconds.
            assert!(begin.elapsed() >= Duration::from_millis(249), "{user}: a failure is answered too early");
            *cost += helper_time(&daemon) - before;
        }
    }
    measured(&format!("{EACH} wrong passwords cost {costs:.1?} of CPU time"));
    let [least, most] = [costs.iter().min().unwrap(), costs.iter().max().unwrap()];
    // The hash of "dear" costs 32 times that of "cheap".
    assert!(*most < *least * 4, "{costs:?}");
    assert!(*least > Duration::from_millis(10), "nothing was computed: {costs:?}");
}
