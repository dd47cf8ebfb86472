//! One of each message, with something in every field.

use std::sync::Arc;

use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint};
use aloha_scheduler::master::{WorkerCommand, WorkerState, WorkerStatus};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::worker::LogStream;
use aloha_scheduler::*;

use crate::bytes::{Sample, Wire};

/// What a worker's reference stands for.
struct Idle;

impl RpcEndpoint for Idle {
    type Message = WorkerMessage;
    async fn receive(
        &mut self,
        _: WorkerMessage,
        _: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        Ok(())
    }
}

fn app() -> AppId {
    "app-20190311221731-0007".parse().unwrap()
}

fn id() -> WorkerId {
    "worker-20190311221731-h-7078".parse().unwrap()
}

fn resources() -> Resources {
    Resources {
        cores: 3,
        memory_mib: 70_000,
    }
}

fn attributes() -> Attributes {
    [("zone".to_owned(), "a".to_owned())].into()
}

fn description() -> AppDescription {
    AppDescription {
        name: "etl".into(),
        entry_point: "SimpleProcess".into(),
        libs: vec!["/lib/x.jar".into()],
        args: vec!["sleep 1".into()],
        cores: 2,
        memory_mib: 512,
        supervise: true,
        environment: [("A".to_owned(), "1".to_owned())].into(),
        stop: StopPolicy {
            signal: StopSignal::Int,
            grace_millis: Some(1_500),
        },
        limits: ProcessLimits {
            open_files: Some(64),
            cpu_seconds: Some(9),
            ..ProcessLimits::default()
        },
        priority: -4,
        restart: RestartPolicy {
            condition: Some(RestartCondition::Always),
            backoff_initial_millis: Some(10),
            backoff_max_millis: None,
            reset_after_millis: Some(30),
            in_a_row_max: Some(5),
        },
        run_millis_max: Some(60_000),
        constraints: [
            Constraint::Is("zone".into(), "a".into()),
            Constraint::IsNot("zone".into(), "b".into()),
            Constraint::Has("gpu".into()),
            Constraint::HasNot("old".into()),
        ]
        .into(),
        tags: ["nightly".to_owned()].into(),
    }
}

fn held() -> HeldAttempt {
    HeldAttempt {
        app: app(),
        attempt: 3,
        occupies: resources(),
        state: AttemptState::Running,
        epoch: 1_700_000_000_000,
        description: Some(Arc::new(description())),
    }
}

fn registration() -> WorkerRegistration {
    WorkerRegistration {
        id: id(),
        host: "h".into(),
        port: 7078,
        offers: resources(),
        attempts: vec![held()],
        enforces: CgroupSupport::default(),
        attributes: attributes(),
        epoch: 9,
    }
}

fn status() -> AppStatus {
    AppStatus {
        id: app(),
        name: "etl".into(),
        entry_point: "Process".into(),
        cores: 2,
        memory_mib: 512,
        supervise: true,
        phase: AppPhase::Relaunching,
        exit_code: Some(3),
        attempt: 2,
        worker: Some(Placement {
            worker: id(),
            address: "h:7078".into(),
        }),
        waiting_for: Some("room".into()),
        message: Some("lost".into()),
        submitted_at: Some(1),
        started_at: Some(2),
        ended_at: Some(3),
        priority: -1,
        not_before: Some(4),
        history: vec![Transition {
            at: 5,
            to: AppPhase::Running,
            attempt: 1,
            reason: Some("on a worker".into()),
        }],
    }
}

fn log_request() -> LogRequest {
    LogRequest {
        stream: LogStream::Stderr,
        attempt: Some(2),
        offset: 70_000,
        bytes_max: 1 << 18,
        patience_millis: 500,
    }
}

/// Every message as it is now.
pub(crate) async fn all(wire: &Wire) -> Vec<Sample> {
    let mut all = to_a_master(wire).await;
    all.extend(to_a_worker(wire).await);
    all.extend(answers(wire).await);
    all.extend(since(wire).await);
    all
}

async fn to_a_master(wire: &Wire) -> Vec<Sample> {
    use MasterMessage as M;
    let worker = wire.env.setup_endpoint(WORKER, Idle).unwrap();
    let other = worker.clone();
    let report = |report| {
        move |call| M::Report {
            id: id(),
            report,
            call,
        }
    };
    let ended = |outcome| {
        report(AttemptReport::Ended {
            app: app(),
            attempt: 3,
            outcome,
        })
    };
    let query = AppsQuery {
        states: [AppPhase::Running, AppPhase::Unknown].into(),
        name: Some("etl".into()),
        tag: Some("nightly".into()),
        worker: Some(id()),
        sort: AppsSort::Started,
        descending: true,
        after: None,
        limit: Some(10),
    };
    vec![
        wire.asked("RegisterWorker", |call| M::RegisterWorker {
            registration: registration(),
            worker,
            call,
        })
        .await,
        wire.asked("Heartbeat", |call| M::Heartbeat {
            id: id(),
            worker: other,
            call,
        })
        .await,
        wire.sent("WorkerLeaving", M::WorkerLeaving { id: id() })
            .await,
        wire.asked(
            "Report.Started",
            report(AttemptReport::Started {
                app: app(),
                attempt: 3,
            }),
        )
        .await,
        wire.asked("Report.Ended.Exited", ended(Outcome::Exited(-3)))
            .await,
        wire.asked("Report.Ended.Killed", ended(Outcome::Killed))
            .await,
        wire.asked("Report.Ended.Signaled", ended(Outcome::Signaled(9)))
            .await,
        wire.asked(
            "Report.Ended.CouldNotStart",
            ended(Outcome::CouldNotStart("a".into())),
        )
        .await,
        wire.asked("Report.Ended.Lost", ended(Outcome::Lost("b".into())))
            .await,
        wire.asked(
            "Report.Ended.Declined",
            ended(Outcome::Declined("c".into())),
        )
        .await,
        wire.asked(
            "Report.Ended.OutOfMemory",
            ended(Outcome::OutOfMemory { limit_mib: 512 }),
        )
        .await,
        wire.asked("Submit", |call| M::Submit {
            description: description(),
            key: Some("k".into()),
            call,
        })
        .await,
        wire.asked("Kill", |call| M::Kill { app: app(), call })
            .await,
        wire.asked("Status", |call| M::Status { app: app(), call })
            .await,
        wire.asked("Wait", |call| M::Wait {
            app: app(),
            patience_millis: 30_000,
            call,
        })
        .await,
        wire.asked("Apps", |call| M::Apps { query, call }).await,
        wire.asked("Workers", |call| M::Workers { call }).await,
        wire.asked("ReadLog", |call| M::ReadLog {
            app: app(),
            request: log_request(),
            call,
        })
        .await,
        wire.asked("Cluster", |call| M::Cluster { call }).await,
        wire.asked("KillAll", |call| M::KillAll { call }).await,
        wire.asked("Forget", |call| M::Forget { app: app(), call })
            .await,
        wire.asked("Clear", |call| M::Clear { call }).await,
    ]
}

async fn to_a_worker(wire: &Wire) -> Vec<Sample> {
    let told = |command| WorkerMessage::Command {
        master: "127.0.0.1:7077".into(),
        command,
    };
    let epoch = 1_700_000_000_001;
    vec![
        wire.sent(
            "Command.LaunchApp",
            told(WorkerCommand::LaunchApp {
                epoch,
                app: app(),
                attempt: 3,
                description: Arc::new(description()),
            }),
        )
        .await,
        wire.sent(
            "Command.KillApp",
            told(WorkerCommand::KillApp {
                epoch,
                app: app(),
                attempt: 3,
            }),
        )
        .await,
        wire.sent(
            "Command.Reregister",
            told(WorkerCommand::Reregister { epoch }),
        )
        .await,
        wire.asked("Worker.ReadLog", |call| WorkerMessage::ReadLog {
            app: app(),
            request: log_request(),
            call,
        })
        .await,
    ]
}

async fn answers(wire: &Wire) -> Vec<Sample> {
    let worker = |state| WorkerStatus {
        id: id(),
        host: "h".into(),
        port: 7078,
        state,
        cores: 8,
        cores_used: 2,
        memory_mib: 4096,
        memory_mib_used: 512,
        apps: vec![app()],
        heard_millis_ago: 300,
        enforces: CgroupSupport::default(),
        attributes: attributes(),
    };
    let cluster = ClusterStatus {
        version: "0.1.0".into(),
        master: "h:7077".into(),
        epoch: 7,
        leading_since: 8,
        is_recovering: true,
        apps: AppPhase::ALL.into_iter().map(|phase| (phase, 1)).collect(),
        workers: WorkerState::ALL
            .into_iter()
            .map(|state| (state, 2))
            .collect(),
        cores: 1,
        cores_used: 2,
        memory_mib: 3,
        memory_mib_used: 4,
        store_trouble: Some("full".into()),
    };
    vec![
        wire.sent(
            "RegisterAnswer.Registered",
            RegisterAnswer::Registered {
                epoch: 7,
                heartbeat_millis: 15_000,
            },
        )
        .await,
        wire.sent("RegisterAnswer.Standby", RegisterAnswer::Standby)
            .await,
        wire.sent(
            "RegisterAnswer.Refused",
            RegisterAnswer::Refused {
                reason: "no".into(),
            },
        )
        .await,
        wire.sent(
            "SubmitAnswer.Accepted",
            SubmitAnswer::Accepted { app: app() },
        )
        .await,
        wire.sent(
            "SubmitAnswer.Refused",
            SubmitAnswer::Refused {
                reason: "no".into(),
            },
        )
        .await,
        wire.sent(
            "SubmitAnswer.Busy",
            SubmitAnswer::Busy {
                reason: "no".into(),
                retry_after_millis: 1_000,
            },
        )
        .await,
        wire.sent(
            "SubmitAnswer.KeyReused",
            SubmitAnswer::KeyReused { app: app() },
        )
        .await,
        wire.sent(
            "KillAnswer",
            KillAnswer {
                success: true,
                message: "yes".into(),
            },
        )
        .await,
        wire.sent("ForgetAnswer.Forgotten", ForgetAnswer::Forgotten)
            .await,
        wire.sent("ForgetAnswer.NoSuchApp", ForgetAnswer::NoSuchApp)
            .await,
        wire.sent(
            "ForgetAnswer.NotEnded",
            ForgetAnswer::NotEnded {
                phase: AppPhase::Running,
            },
        )
        .await,
        wire.sent("AppStatus", Some(status())).await,
        wire.sent(
            "AppsPage",
            AppsPage {
                apps: vec![status()],
                next: None,
            },
        )
        .await,
        wire.sent("Workers.answer", WorkerState::ALL.map(worker).to_vec())
            .await,
        wire.sent(
            "LogAnswer.Chunk",
            LogAnswer::Chunk {
                bytes: b"text".to_vec(),
                next_offset: 70_004,
            },
        )
        .await,
        wire.sent(
            "LogAnswer.Unavailable",
            LogAnswer::Unavailable {
                reason: "no".into(),
            },
        )
        .await,
        wire.sent("ClusterStatus", cluster).await,
    ]
}

/// What was appended since.
async fn since(wire: &Wire) -> Vec<Sample> {
    let drain = |request| {
        move |call| MasterMessage::Drain {
            worker: "h:7078".into(),
            request,
            call,
        }
    };
    let begin = DrainRequest::Begin {
        mode: DrainMode::Wait,
        timeout_millis: Some(60_000),
    };
    let status = DrainStatus {
        worker: id(),
        address: "h:7078".into(),
        state: WorkerState::Leaving,
        phase: DrainPhase::Draining,
        mode: Some(DrainMode::Move),
        until: Some(7),
        left: [DrainFate::Moving, DrainFate::Ending, DrainFate::RunsOn]
            .map(|fate| LeftApp { id: app(), fate })
            .to_vec(),
        waiting: vec![app()],
        message: "1 application left".into(),
    };
    let leave = WorkerMessage::Command {
        master: "127.0.0.1:7077".into(),
        command: WorkerCommand::Leave { epoch: 7 },
    };
    vec![
        wire.asked("AwaitLeader", |call| MasterMessage::AwaitLeader {
            besides: Some("h:7077".into()),
            patience_millis: 60_000,
            call,
        })
        .await,
        wire.sent(
            "LeaderAnswer",
            LeaderAnswer {
                leader: Some(election::MasterAddress {
                    rpc: "h:7077".into(),
                    rest: Some("http://h:6066".into()),
                }),
                epoch: 7,
            },
        )
        .await,
        wire.asked("Drain.Begin", drain(begin)).await,
        wire.asked("Drain.Cancel", drain(DrainRequest::Cancel))
            .await,
        wire.asked("Drain.Look", drain(DrainRequest::Look)).await,
        wire.sent("DrainAnswer.Drain", DrainAnswer::Drain(status))
            .await,
        wire.sent(
            "DrainAnswer.NoSuchWorker",
            DrainAnswer::NoSuchWorker {
                reason: "no".into(),
            },
        )
        .await,
        wire.sent("Command.Leave", leave).await,
    ]
}
