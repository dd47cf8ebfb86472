//! How fast a master takes submissions over REST, and how soon an end is seen there.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::submissions::Master;
use crate::{millis, now, quantile};

/// Connections that are kept alive, each with one request at a time.
const CONNECTIONS: u32 = 16;
const SUBMISSION: &str = r#"{"action":"CreateSubmissionRequest","name":"waits","entryPoint":"SimpleProcess","libs":[],"args":"echo this one never runs","cores":4,"memory":64}"#;

pub(crate) fn run(aloha: &Path, work: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    // One thread, as lean as can be: the master has the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let plain = Master::start(aloha, None)?;
    let cases = [
        ("readyz", get("/v1/submissions/readyz")),
        ("submissions, nothing stored", submission()),
    ];
    for (what, request) in cases {
        runtime.block_on(measure(&plain, what, &request, count))?;
    }
    drop(plain);
    let durable = Master::start(aloha, Some(&work.join("rest")))?;
    let what = "submissions, durable (to reach: 20,000)";
    runtime.block_on(measure(&durable, what, &submission(), count))
}

fn submission() -> String {
    post("/v1/submissions/create", SUBMISSION)
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn measure(
    master: &Master,
    what: &str,
    request: &str,
    count: u32,
) -> Result<(), Box<dyn Error>> {
    let address = master.rest.ok_or("no REST server")?;
    let cpu_before = master.cpu_micros()?;
    let started = now();
    let each = count / CONNECTIONS;
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let request = request.to_owned();
        connections.spawn(async move {
            let exchange = exchange_often(address, &request, each).await;
            exchange.map_err(|error| error.to_string())
        });
    }
    let mut times = Vec::new();
    while let Some(done) = connections.join_next().await {
        times.extend(done??);
    }
    let took = started.elapsed();
    println!(
        "REST, {CONNECTIONS} connections kept alive, {what}: {:.0} a second; p50 {:.2} ms, p99 {:.2}; processor time of \
         the master {:.1} µs each",
        times.len() as f64 / took.as_secs_f64(),
        millis(quantile(&mut times, 0.5)),
        millis(quantile(&mut times, 0.99)),
        (master.cpu_micros()? - cpu_before) / times.len() as f64
    );
    Ok(())
}

async fn exchange_often(
    address: SocketAddr,
    request: &str,
    count: u32,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = now();
        let body = connection.exchange(request).await?;
        times.push(asked.elapsed());
        let body = std::str::from_utf8(body)?;
        if !body.contains(r#""success":true"#) {
            return Err(body.into());
        }
    }
    Ok(times)
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let answer = Vec::with_capacity(4096);
        Ok(Self { stream, answer })
    }

    /// Sends a request, and gives the body of its answer.
    pub(crate) async fn exchange(&mut self, request: &str) -> Result<&[u8], Box<dyn Error>> {
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some((head, length)) = head(&self.answer)?
                && self.answer.len() >= head + length
            {
                return Ok(&self.answer[head..]);
            }
        }
    }
}

/// How long the head of an answer is, once it is there, and the body behind it.
fn head(answer: &[u8]) -> Result<Option<(usize, usize)>, Box<dyn Error>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    if !head.starts_with("HTTP/1.1 20") {
        return Err(String::from_utf8_lossy(answer).into());
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    Ok(Some((end + 4, length.ok_or("no length")?)))
}
