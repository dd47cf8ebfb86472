//! Why there is no session: each server is asked how it is.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(1);
/// Enough for what stands at the end of an answer to `srvr`.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Says how each of these servers is.
pub(super) async fn of(servers: &str) -> String {
    let mut findings = Vec::new();
    for server in servers.split(',') {
        let finding = match tokio::time::timeout(PATIENCE, ask(server)).await {
            Ok(Ok(answer)) => meaning(&answer).to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "does not answer".to_owned(),
        };
        findings.push(format!("{server}: {finding}"));
    }
    format!(
        "no ZooKeeper server of aloha.deploy.zookeeper.url gives a session ({})",
        findings.join("; ")
    )
}

async fn ask(server: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn meaning(answer: &str) -> &'static str {
    if answer.contains("not currently serving requests") {
        "runs, but sees no majority of its servers"
    } else if answer.contains("Mode: read-only") {
        "is read-only, for it sees no majority of its servers"
    } else if answer.contains("Mode: ") {
        "runs, but gave no session in time; is its clientPort this one, and its session timeout within its limits?"
    } else if answer.contains("not executed because it is not in the whitelist") {
        "runs, but gave no session"
    } else {
        "is no ZooKeeper, or one that says nothing of itself"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_understood() {
        let cases = [
            (
                "This ZooKeeper instance is not currently serving requests\n",
                "no majority",
            ),
            (
                "Zookeeper version: 3.8.0\nMode: read-only\nNode count: 5\n",
                "read-only",
            ),
            (
                "Zookeeper version: 3.8.0\nMode: leader\nNode count: 5\n",
                "no session in time",
            ),
            (
                "srvr is not executed because it is not in the whitelist.\n",
                "no session",
            ),
            ("", "no ZooKeeper"),
        ];
        for (answer, expected) in cases {
            assert!(meaning(answer).contains(expected), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let server = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let text = of(&server).await;
        assert!(text.contains(&server) && text.contains("refused"), "{text}");
    }
}
