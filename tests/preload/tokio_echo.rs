//! An echo server with tokio: tokio_echo PATH

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

async fn serve(mut client: UnixStream) -> std::io::Result<()> {
    // Shorter than a message, so that a read leaves some of it behind.
    let mut buffer = vec![0; 4096];
    loop {
        let size = client.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..size]).await?;
    }
}

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("usage: tokio_echo PATH");
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = UnixListener::bind(path)?;
        loop {
            let (client, address) = listener.accept().await?;
            println!("peer {address:?}");
            tokio::spawn(serve(client));
        }
    })
}
