//! Finding the master, for a command that asks it something.

use std::fmt::Display;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::config::Config;
use aloha_scheduler::{AppId, ClientError, MasterClient, MasterOutcome, TriedMaster};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::ClientArgs;
use crate::output::{all_written, note};
use crate::{Failure, environment, serve};

/// What a shell says of a command that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;
/// For how long a command that waits for something goes on while no master leads.
const WAITING_PATIENCE: Duration = Duration::from_secs(600);
/// How long no master leads before that is said.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// Finds the master and puts a question to it.
pub(crate) fn ask(
    args: &ClientArgs,
    question: impl AsyncFnOnce(MasterClient, &RpcEnv) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    // Limits and the codec must be those of the cluster.
    let config = Config::builder().environment(environment).load()?;
    let masters = args.masters(environment).map_err(Failure::new)?;
    let addresses: Result<Vec<RpcAddress>, _> = masters
        .host_ports()
        .iter()
        .map(|text| text.parse())
        .collect();
    let addresses = addresses.map_err(Failure::new)?;
    crate::runtime()?.block_on(async {
        let rpc = serve::rpc_config(&config.rpc());
        let env = RpcEnv::builder("aloha-cli").config(rpc).start().await;
        let env = env.map_err(Failure::new)?;
        let master = MasterClient::unconnected(&env, &addresses);
        let answer = async {
            master.reach().await?;
            question(master.clone(), &env).await
        };
        let say = |left: Duration| {
            let left = left.as_secs_f64();
            note(
                args.json,
                format_args!("no master leads, waiting up to {left:.0} s more"),
            );
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            never = master.tell_of_waits(SAY_AFTER, say) => match never {},
        };
        env.shutdown().await;
        let code = answer?;
        all_written()?;
        Ok(code)
    })
}

/// A client for a command that waits: it survives a master that is upgraded meanwhile.
pub(crate) fn patient(master: MasterClient) -> MasterClient {
    master.with_patience(WAITING_PATIENCE)
}

/// Ctrl-C, which from now on ends nothing by itself.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    pub(crate) fn take() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt());
        signal
            .map(Self)
            .map_err(|error| Failure::new(format_args!("cannot listen to signals: {error}")))
    }

    /// Does something that takes long for an application, until Ctrl-C: then it says what that does not end.
    pub(crate) async fn unless<T>(
        &mut self,
        app: &AppId,
        task: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let runs_on = format_args!("{app} runs on; `aloha kill {app}` ends it");
        self.or_say(runs_on, task).await
    }

    /// Does something until Ctrl-C, and then says how things stand.
    pub(crate) async fn or_say<T>(
        &mut self,
        how: impl Display,
        task: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = task => done,
            _ = self.0.recv() => Err(Failure {
                code: INTERRUPTED,
                ..Failure::new(how)
            }),
        }
    }
}

fn stands_by(one: &TriedMaster) -> bool {
    matches!(one.outcome, MasterOutcome::Standby { .. })
}

/// Whether it may lead soon, as far as it says.
fn may_lead(one: &TriedMaster) -> bool {
    stands_by(one) && one.outcome.why_not().is_none()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoMaster { tried } if tried.iter().any(may_lead) => {
                "; an election may be on, try again".to_owned()
            }
            // What it says is what to mend.
            ClientError::NoMaster { tried } if tried.iter().any(stands_by) => String::new(),
            ClientError::NoMaster { .. } => {
                "; start one with `aloha master` or `aloha local`, or name it with --master"
                    .to_owned()
            }
            ClientError::OutcomeUnknown { key: Some(key), .. } => {
                format!("; repeat the command with --key {key}")
            }
            _ => String::new(),
        };
        Self::new(format_args!("{error}{hint}"))
    }
}

pub(crate) fn parse(id: &str) -> Result<AppId, Failure> {
    AppId::of_user(id)
        .map_err(|error| Failure::new(format_args!("{id:?} is no id of an application: {error}")))
}

pub(crate) fn parse_all(ids: &[String]) -> Result<Vec<AppId>, Failure> {
    ids.iter().map(|id| parse(id)).collect()
}

pub(crate) fn unknown(app: &AppId) -> Failure {
    Failure::new(format_args!(
        "there is no application {app}; `aloha apps` lists them"
    ))
}
