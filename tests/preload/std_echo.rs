//! An echo server with Rust's standard library and a thread for each client: std_echo PATH

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

fn serve(mut client: UnixStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        let size = client.read(&mut buffer)?;
        if size == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..size])?;
    }
}

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("usage: std_echo PATH");
    let listener = UnixListener::bind(path)?;
    loop {
        let (client, address) = listener.accept()?;
        println!("peer {address:?}");
        std::thread::spawn(|| serve(client));
    }
}
