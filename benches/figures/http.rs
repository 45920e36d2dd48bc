//! A client for HTTP/1.1 by hand: what measures must cost little beside what is measured, and both run on the same cores.
//! Keep-alive connections, one request at a time on each. The fake providers read requests with the same `message_of`.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One keep-alive connection of a client.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        }
    }

    /// Sends a request and reads its whole answer; returns the status.
    pub async fn ask(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        loop {
            assert_ne!(
                self.stream.read_buf(&mut self.buffer).await.unwrap(),
                0,
                "the connection was closed: {}",
                String::from_utf8_lossy(&self.buffer)
            );
            if message_of(&self.buffer).is_some() {
                return std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
            }
        }
    }
}

/// The length of a message's head and of its body, once all of it is there. 204 has no body.
pub fn message_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().unwrap())
    });
    let length = length.unwrap_or(0);
    (bytes.len() >= head + length).then_some((head, length))
}

pub fn post(path: &str, token: &str, kind: &str, extra: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
