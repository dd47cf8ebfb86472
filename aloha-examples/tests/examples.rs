//! The examples as a reader runs them: as processes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// An example, which cargo builds beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let target: PathBuf = test
        .ancestors()
        .nth(2)
        .expect("it lies in target/<profile>/deps")
        .into();
    Command::new(target.join("examples").join(name))
}

fn run(name: &str, argument: &str) -> Output {
    example(name)
        .arg(argument)
        .output()
        .expect("the example is built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The server, ended with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut server = example("hello_world_server");
        let mut process = server
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built");
        let mut line = String::new();
        let out = process.stdout.take().expect("piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says that it is ready");
        let address = line
            .trim()
            .strip_prefix("ready ")
            .expect("its first line")
            .to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_client_in_another_process_is_greeted() {
    let server = Server::start();
    let client = run("hello_world_client", &server.address);
    assert_eq!(
        (text(&client.stdout), text(&client.stderr)),
        ("Aloha: WALL-E\nBye :), WALL-E\n".into(), String::new())
    );
    let blocking = run("blocking_client", &server.address);
    assert_eq!(
        (text(&blocking.stdout), text(&blocking.stderr)),
        ("Aloha: EVE\n".into(), String::new())
    );
}

#[test]
fn without_a_server_the_error_names_the_address() {
    let client = run("hello_world_client", "127.0.0.1:1");
    assert_eq!(client.status.code(), Some(1));
    assert!(
        text(&client.stderr).contains("127.0.0.1:1"),
        "{}",
        text(&client.stderr)
    );
}

#[test]
fn bytes_come_back_without_rpc() {
    let echo = run("transport_echo", "");
    assert!(
        text(&echo.stdout).ends_with("says \"no answer needed\"\nhello\n"),
        "{}",
        text(&echo.stdout)
    );
}

#[test]
fn a_cluster_runs_inside_a_program() {
    let cluster = run("embedded_cluster", "");
    let out = text(&cluster.stdout);
    assert!(
        out.contains(" is FINISHED\nAloha from app-"),
        "{out}{}",
        text(&cluster.stderr)
    );
}
