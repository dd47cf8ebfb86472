//! A client that sends what it is told, as HTTP or not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::soon;

pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    /// The server may have closed before it has read everything.
    pub(crate) async fn send(&mut self, text: &str) {
        drop(self.0.write_all(text.as_bytes()).await);
    }

    /// One answer, whose length is known or which ends with the connection.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut received = Vec::new();
        soon(async {
            loop {
                if let Some(answer) = whole(&received) {
                    return answer;
                }
                let read = self.0.read_buf(&mut received).await;
                if !matches!(read, Ok(count) if count > 0) {
                    let text = String::from_utf8_lossy(&received);
                    panic!("the connection ended, and this came: {text:?} {read:?}");
                }
            }
        })
        .await
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        drop(soon(self.0.read_to_end(&mut rest)).await);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Everything up to the end of an answer in chunks.
    pub(crate) async fn rest_of_answer(&mut self) -> String {
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n0\r\n\r\n") {
            let read = soon(self.0.read_buf(&mut received)).await;
            assert!(read.expect("connected") > 0, "it ended before its end");
        }
        String::from_utf8_lossy(&received).into_owned()
    }

    pub(crate) async fn assert_closed_silently(&mut self) {
        assert_eq!(self.rest().await, "");
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// What a client is told that should try again.
    #[track_caller]
    pub(crate) fn assert_busy(&self, key: &str) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.header("retry-after"), Some("1"), "{self:?}");
        self.assert_error(key);
    }

    #[track_caller]
    pub(crate) fn assert_error(&self, text: &str) {
        let json: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(json["action"], "ErrorResponse");
        let message = json["message"].as_str().expect("a text");
        assert!(message.contains(text), "{message}");
    }
}

fn whole(received: &[u8]) -> Option<Answer> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let head = text(&received[..end]);
    let mut answer = Answer {
        status: head[9..12].parse().expect("a status"),
        head,
        body: String::new(),
    };
    let length = answer.header("content-length")?.parse().ok()?;
    answer.body = text(received[end + 4..].get(..length)?);
    Some(answer)
}

pub(crate) fn quick() -> String {
    "GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()
}

pub(crate) fn kept(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

pub(crate) fn create(length: usize, body: &str) -> String {
    format!(
        "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
