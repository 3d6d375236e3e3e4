//! The exported table, called as the server does.

use super::*;

struct Greeter(String);

impl Methods for Greeter {
    fn start(config: &str) -> Result<(), Failure> {
        if config == "hello" { Ok(()) } else { Err(Failure::internal("-C has to be hello")) }
    }

    fn open(config: &str, peer: &Peer) -> Result<Greeter, Failure> {
        match &peer.address {
            Some(address) => Ok(Greeter(format!("{config} {address} {:?}", peer.id))),
            None => Err(Failure::new(0, "no\0address")),
        }
    }

    fn call(&mut self, method: &str, params: Option<&str>) -> Result<String, Failure> {
        match (method, params) {
            ("greet", None) => Ok(format!("{:?}", self.0)),
            ("greet", Some(_)) => Err(Failure::invalid_params("\"none\"")),
            _ => Err(Failure::method_not_found()),
        }
    }
}

export!(Greeter);

/// The answer of a function as a line.
#[derive(Default)]
struct Written(String);

unsafe extern "C" fn write(reply: *mut abi::Reply, text: *const c_char, size: usize) -> c_int {
    // SAFETY: `ask` has made it.
    let server = unsafe { (*reply).server };
    // SAFETY: `ask` has stored it there.
    let said = unsafe { &mut *server.cast::<Written>() };
    // SAFETY: as the interface requires.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size) };
    said.0.push_str(std::str::from_utf8(bytes).unwrap());
    0
}

unsafe extern "C" fn fail(reply: *mut abi::Reply, code: c_int, message: *const c_char, data: *const c_char) -> c_int {
    // SAFETY: `ask` has made it.
    let server = unsafe { (*reply).server };
    // SAFETY: `ask` has stored it there.
    let said = unsafe { &mut *server.cast::<Written>() };
    // SAFETY: as the interface requires.
    let message = unsafe { super::text(message) };
    // SAFETY: as the interface requires.
    let data = unsafe { super::text(data) };
    said.0 = format!("{code} {message:?} {data:?}");
    code
}

/// Calls a function of the table. Returns its code and the answer.
fn ask(function: impl FnOnce(*mut abi::Reply) -> c_int) -> (c_int, String) {
    let mut said = Written::default();
    let mut reply = abi::Reply { server: (&raw mut said).cast(), write, quote: write, fail };
    let code = function(&mut reply);
    (code, said.0)
}

#[test]
fn a_connection_is_opened_called_and_closed() {
    // SAFETY: the table is static.
    let library = unsafe { &*uakari_rpc() };
    assert_eq!(library.version, abi::VERSION);
    let (start, open) = (library.start.unwrap(), library.open.unwrap());
    let (call, close) = (library.call.unwrap(), library.close.unwrap());

    // SAFETY: all arguments outlive the call.
    let started = ask(|reply| unsafe { start(c"hello".as_ptr(), reply) });
    assert_eq!(started, (0, String::new()));
    // SAFETY: as above.
    let started = ask(|reply| unsafe { start(c"".as_ptr(), reply) });
    assert_eq!(started, (-32603, "-32603 Some(\"-C has to be hello\") None".to_owned()));

    let mut context = std::ptr::null_mut();
    let unknown = abi::Peer { address: std::ptr::null(), id: std::ptr::null() };
    // SAFETY: as above.
    let opened = ask(|reply| unsafe { open(&mut context, c"hi".as_ptr(), &unknown, reply) });
    assert_eq!(opened, (-32603, "-32603 Some(\"noaddress\") None".to_owned()));
    let known = abi::Peer { address: c"192.0.2.7".as_ptr(), id: c"c12".as_ptr() };
    // SAFETY: as above.
    let opened = ask(|reply| unsafe { open(&mut context, c"hi".as_ptr(), &known, reply) });
    assert_eq!((opened.0, context.is_null()), (0, false));

    for (method, params, code, said) in [
        (c"greet", None, 0, "\"hi 192.0.2.7 Some(\\\"c12\\\")\""),
        (c"greet", Some(c"[1]"), -32602, "-32602 None Some(\"\\\"none\\\"\")"),
        (c"other", None, -32601, "-32601 None None"),
    ] {
        let (params, size) = params.map_or((std::ptr::null(), 0), |text| (text.as_ptr(), text.count_bytes()));
        // SAFETY: as above.
        let called = ask(|reply| unsafe { call(context, method.as_ptr(), params, size, reply) });
        assert_eq!(called, (code, said.to_owned()), "{method:?}");
    }
    // SAFETY: it was opened, and is not used after this.
    unsafe { close(context) };
}
