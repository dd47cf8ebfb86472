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
fn a_stream_comes_back_while_it_goes() {
    let shouted = run("transport_stream", "");
    assert_eq!(
        text(&shouted.stdout),
        "IT'S ALL ABOUT FALLING IN LOVE\nand 104857600 bytes more\n",
        "{}",
        text(&shouted.stderr)
    );
}

#[test]
fn small_messages_pass_a_large_one() {
    let kept = run("large_messages", "");
    assert_eq!(
        text(&kept.stdout),
        "268435456 bytes kept, many ticks meanwhile\n",
        "{}",
        text(&kept.stderr)
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

#[test]
fn a_listener_of_ones_own_hears_each_end() {
    let listener = run("listener", "");
    assert_eq!(
        text(&listener.stdout),
        "1: {\"name\":\"good\",\"state\":\"FINISHED\",\"exit_code\":0,\"attempts\":1}\n\
         2: {\"name\":\"bad\",\"state\":\"FAILED\",\"exit_code\":3,\"attempts\":1}\n\
         ends heard all: true\n",
        "{}",
        text(&listener.stderr)
    );
}

#[test]
fn an_executable_with_applications_says_how_they_are_submitted() {
    let mut command = example("own_applications");
    let output = command.output().expect("the example is built");
    let path = command.get_program().to_string_lossy().into_owned();
    let expected = format!(
        "{path} holds applications of Aloha: com.example.Checksum, me.jrwang.app.SimpleContextThreadApp.\n\
         It is started by the cluster, so submit one of them:\n  \
         aloha submit --entry-point com.example.Checksum --lib {path} -- ARGUMENTS\n"
    );
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(2), expected)
    );
}

/// What an example without arguments prints.
fn lines(name: &str) -> Vec<String> {
    let output = example(name).output().expect("the example is built");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{err}");
    out.lines().map(str::to_owned).collect()
}

/// Each line begins as stated.
fn assert_lines(name: &str, expected: &[&str]) -> Vec<String> {
    let printed = lines(name);
    let as_expected = printed.iter().zip(expected);
    assert!(
        printed.len() == expected.len()
            && as_expected
                .clone()
                .all(|(line, start)| line.starts_with(start)),
        "{name}: {printed:#?}"
    );
    printed
}

#[test]
fn a_call_is_passed_on() {
    let expected = [
        "the desk passes 6 * 7 on",
        "the specialist has time left, no more than 5 s: true",
        "the answer is 42",
        "the asker gives up",
        "the specialist stops pondering",
    ];
    assert_lines("forward", &expected);
}

#[test]
fn references_travel() {
    let expected = [
        "ann listens at None",
        "ann is told: welcome, ann",
        "ann is told: bob was here",
        "ann answers bob: hello, bob",
    ];
    assert_lines("refs_in_messages", &expected);
}

#[test]
fn a_worker_is_made_anew_once() {
    let expected = [
        "worker 1 starts",
        "worker 1 has done 1 job",
        "worker 2 starts",
        "worker 2 has done 2 jobs, which waited meanwhile",
        "watched from afar: it failed: this job is poison",
        "asked in vain: endpoint aloha://worker@127.0.0.1:",
    ];
    assert_lines("supervision", &expected);
}

#[test]
fn a_slow_endpoint_holds_back_who_sends() {
    let expected = [
        "the press took 4 pages, then: the inbox of aloha://press@127.0.0.1:",
        "50 more pages with reserve: at most 4 waited",
        "the screen shows 98 to 100; 97 lines are dead letters: newer messages took its place",
        "over the wire the press took 128 pages, then: aloha://press@127.0.0.1:",
        "50 more pages with reserve: at most ",
    ];
    let printed = assert_lines("back_pressure", &expected);
    let most = printed[4].strip_prefix(expected[4]);
    let most = most.and_then(|most| most.strip_suffix(" waited"));
    // Four pages' worth of credit, and the page that overdraws it.
    let most = most.and_then(|most| most.parse::<u32>().ok());
    assert!(most.is_some_and(|most| most <= 5), "{printed:#?}");
}

#[test]
fn timers_come_and_are_taken_back() {
    let expected = [
        "beat 1",
        "beat 2",
        "beat 3",
        "the heart rests",
        "its end: it was stopped",
    ];
    assert_lines("timers", &expected);
}

#[test]
fn a_client_is_asked_back() {
    let expected = [
        "the client listens at None",
        "server: 127.0.0.1:",
        "server: the client is asked back",
        "client: the server has our name",
        "client: our order was taken for WALL-E",
        "server: 127.0.0.1:",
    ];
    assert_lines("client_only", &expected);
}

#[test]
fn a_group_takes_turns_and_a_topic_goes_to_all() {
    let mut printed = lines("groups");
    // Two environments print.
    printed[4..].sort();
    let expected = [
        r#"in turn: ["one", "two", "one", "two"]"#,
        r#"all of them: ["one", "two"]"#,
        "broadcast, refused by 0",
        "ticks: [1, 1]",
        "one reads: sunny",
        "two reads: sunny",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn four_pages_are_fetched_at_once() {
    let expected = [
        "8 pages one at a time: at most 1 under way, ",
        "8 pages four at once: at most 4 under way, ",
        "meanwhile the others answer: page 9",
        "the sum was made on thread \"ledger\"",
    ];
    assert_lines("concurrent", &expected);
}

#[test]
fn a_simulated_run_can_be_had_again() {
    let printed = lines("simulation");
    for expected in [
        "no reply, asked again",
        "the total is 3",
        "the same seed, the same run: true",
        "another seed, another run: true",
    ] {
        let found = printed.iter().any(|line| line.ends_with(expected));
        assert!(found, "{expected}: {printed:#?}");
    }
}

#[test]
fn a_simulated_day_loses_no_application_and_is_drawn() {
    let directory = tempfile::tempdir().expect("a directory");
    let drawing = directory.path().join("day.svg");
    let day = example("cluster_simulation")
        .args(["--short", "--seed", "7"])
        .arg(&drawing)
        .output()
        .expect("the example is built");
    let report = text(&day.stdout);
    assert!(day.status.success(), "{report}{}", text(&day.stderr));
    let first = "100 workers with 2400 cores, 10000 applications, a day\n";
    assert!(report.starts_with(first), "{report}");
    for priority in ["\n        10 ", "\n         0 ", "\n       -10 "] {
        assert!(report.contains(priority), "{report}");
    }
    assert!(report.contains(" decisions/s\n"), "{report}");
    let drawing = std::fs::read_to_string(drawing).expect("it was drawn");
    assert_eq!(drawing.matches("<polyline").count(), 4);
}
