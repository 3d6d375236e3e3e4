//! `library`: an echo server with a WebSocket library by others (fastwebsockets), on one thread
//! of tokio, as a comparison for direct mode.
//!
//! The handshake is minimal, in favour of the library. Each message is read whole and sent back,
//! as in the library's own echo server.

use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uakari_bench::args::Args;
use uakari_bench::{Result, exit_code, handshake, listen};

const USAGE: &str = "library --listen HOST:PORT";
const HEAD_SIZE_MAX: usize = 4096;

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen"], &[])?;
    let listener = listen::bind(args.required("listen")?)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(accept(listener)))
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // An error of one connection ends only that connection.
        tokio::task::spawn_local(async { drop(serve(stream).await) });
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    upgrade(&mut stream).await?;
    let mut websocket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    loop {
        let frame = websocket.read_frame().await?;
        match frame.opcode {
            // The library has answered it.
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await?,
            _ => {}
        }
    }
}

/// Reads the request head and answers it. The clients send nothing after it before the answer.
async fn upgrade(stream: &mut TcpStream) -> Result<()> {
    let (mut bytes, mut have) = ([0; HEAD_SIZE_MAX], 0);
    while handshake::head_size(&bytes[..have]).is_none() {
        match stream.read(&mut bytes[have..]).await? {
            0 => return Err("no head".into()),
            size => have += size,
        }
    }
    let key = handshake::header(std::str::from_utf8(&bytes[..have])?, "sec-websocket-key").ok_or("no key")?;
    stream.write_all(handshake::answer(key).as_bytes()).await?;
    Ok(())
}
