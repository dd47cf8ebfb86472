//! What strangers, bugs and web pages may send to the real server.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::Daemon;
use serde_json::Value;
use tempfile::tempdir;

/// A valid hello of protocol version 1, bincode, without a name.
const HELLO: &[u8] =
    b"ALOH\x12\x00\x00\x01\x00\x01\x00\x01\x00\x00\x10\x00\x00\x10\x00\x00\x00\x00\x00\x00";

/// Sends bytes, ends the sending half, and gives everything that comes back.
fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes);
    read_all(stream)
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset ends the answer like a close.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// One HTTP request; the status and the JSON of the answer.
fn http(server: &Daemon, line: &str, headers: &str, body: &str) -> (u16, Value) {
    let address = server.rest().strip_prefix("http://").expect("an HTTP URL");
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = String::from_utf8(exchange(address, request.as_bytes())).expect("UTF-8");
    let status = answer
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status line");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).expect("JSON"))
}

fn create(server: &Daemon, body: &str) -> (u16, Value) {
    http(server, "POST /v1/submissions/create", "", body)
}

const GOOD: &str = r#"{"action":"CreateSubmissionRequest","name":"n","entryPoint":"SimpleProcess","libs":[],"args":"true","cores":1,"memory":64}"#;

#[test]
fn malformed_submissions_are_refused_with_the_name_of_the_fault() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let cases = [
        ("", "JSON"),
        ("{", "JSON"),
        (r#""text""#, ""),
        (
            &GOOD.replace("CreateSubmissionRequest", "KillSubmissionRequest"),
            "action",
        ),
        (
            &GOOD.replace(r#""action":"CreateSubmissionRequest","#, ""),
            "action",
        ),
        (&GOOD.replace(r#""name":"n","#, ""), "name"),
        (
            &GOOD.replace(r#""entryPoint":"SimpleProcess","#, ""),
            "entryPoint",
        ),
        (&GOOD.replace(r#""cores":1"#, r#""cores":-1"#), "cores"),
        (&GOOD.replace(r#""cores":1"#, r#""cores":0"#), "cores"),
        (&GOOD.replace(r#""cores":1"#, r#""cores":1.5"#), "cores"),
        (&GOOD.replace(r#""cores":1"#, r#""cores":"many""#), "cores"),
        (
            &GOOD.replace(r#""cores":1"#, r#""cores":99999999999999999999"#),
            "cores",
        ),
        (&GOOD.replace(r#""memory":64"#, r#""memory":-64"#), "memory"),
        (
            &GOOD.replace(r#""memory":64"#, r#""memory":1e300"#),
            "memory",
        ),
    ];
    for (body, fault) in cases {
        let (status, answer) = create(&cluster, body);
        assert_eq!(
            (status, &answer["action"]),
            (400, &"ErrorResponse".into()),
            "{body}"
        );
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|message| message.contains(fault)),
            "{body}: {answer}"
        );
    }
    assert_eq!(
        cluster.ask(&["apps", "--json"]).stdout,
        "[]\n",
        "none of them got in"
    );
    assert_eq!(create(&cluster, GOOD).0, 200);
}

#[test]
fn paths_versions_and_ids_that_are_unknown_are_told_apart() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let (status, answer) = http(&cluster, "POST /v2/submissions/create", "", GOOD);
    assert_eq!(
        (status, &answer["highestProtocolVersion"]),
        (468, &"v1".into())
    );
    let (status, answer) = http(&cluster, "GET /v1/submissions/bad", "", "");
    assert_eq!(
        (status, &answer["highestProtocolVersion"]),
        (400, &Value::Null)
    );
    for (line, id) in [
        ("GET /v1/submissions/status/app-0", "app-0"),
        ("POST /v1/submissions/kill/app-0", "app-0"),
        ("GET /v1/submissions/status/..%2f..%2fetc", "..%2f..%2fetc"),
    ] {
        let (status, answer) = http(&cluster, line, "", "");
        assert_eq!(
            (status, &answer["success"], &answer["submissionId"]),
            (200, &false.into(), &id.into()),
            "{line}"
        );
    }
}

#[test]
fn web_pages_and_rebound_names_are_refused() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    for header in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Host: evil.example\r\n",
        "Host: evil.example:6066\r\n",
    ] {
        let (status, answer) = http(&cluster, "POST /v1/submissions/create", header, GOOD);
        assert_eq!(
            (status, &answer["action"]),
            (403, &"ErrorResponse".into()),
            "{header}"
        );
    }
    assert_eq!(
        cluster.ask(&["apps", "--json"]).stdout,
        "[]\n",
        "none of them got in"
    );
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local_with(
        directory.path(),
        &["-D", "aloha.master.rest.bodyBytesMax=1K"],
    );
    let (status, answer) = create(&cluster, &GOOD.replace("true", &"x".repeat(2000)));
    assert_eq!((status, &answer["action"]), (413, &"ErrorResponse".into()));
}

#[test]
fn rest_beyond_loopback_wants_a_token_or_a_word() {
    let refused = common::command()
        .args(["master", "-h", "0.0.0.0", "-p", "0", "--rest-port", "0"])
        .output();
    let refused = refused.expect("the binary is built");
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(stderr.contains("aloha.master.rest.token.file"), "{stderr}");
    assert_eq!(
        String::from_utf8(refused.stdout).expect("UTF-8"),
        "",
        "it never said ready"
    );
}

#[test]
fn strangers_on_the_rpc_port_are_refused_with_a_log_line_and_cost_no_memory() {
    let master = Daemon::master(&["-D", "aloha.rpc.handshakeTimeout=200ms"]);
    let address = master.rpc.strip_prefix("aloha://").expect("an RPC URL");
    let resident = || {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", master.pid().as_raw_pid()))
            .expect("it runs");
        statm
            .split_whitespace()
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok())
            .expect("a number")
            * 4096
    };

    let answer =
        String::from_utf8(exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).expect("UTF-8");
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(answer.contains("REST has a port of its own"), "{answer}");
    assert!(
        master
            .wait_for_line("connection refused")
            .contains("it speaks HTTP")
    );

    assert!(
        exchange(address, &[0x16, 3, 1, 2, 0, 1, 0]).starts_with(b"ALOH"),
        "a refusal in our own form"
    );
    master.wait_for_line("connection refused");

    assert!(read_all(TcpStream::connect(address).expect("the port is open")).is_empty());
    assert!(
        master
            .wait_for_line("connection refused")
            .contains("no handshake within")
    );

    let before = resident();
    let claim = [HELLO, &[0xff, 0xff, 0xff, 0xff, 1]].concat();
    let held: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("the port is open");
            stream.write_all(&claim).expect("it listens");
            stream
        })
        .collect();
    for stream in held {
        assert!(
            read_all(stream).starts_with(b"ALOH"),
            "a welcome, then the end"
        );
    }
    for byte in 0..100_u8 {
        exchange(address, &[byte; 3000]);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 200 strangers");
    assert_eq!(
        master.ask(&["workers", "--json"]).stdout,
        "[]\n",
        "it serves on"
    );
}
