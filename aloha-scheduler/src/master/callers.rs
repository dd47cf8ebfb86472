use std::collections::BTreeMap;

use aloha_rpc::{RpcCallContext, RpcEndpointRef};
use tracing::{debug, warn};

use super::effect::Reply;
use super::event::ReplyTo;
use crate::app::AppStatus;
use crate::drain::DrainAnswer;
use crate::ids::WorkerId;
use crate::messages::{ForgetAnswer, KillAnswer, RegisterAnswer, SubmitAnswer, WorkerMessage};

/// Who waits for an answer of the core.
#[derive(Debug)]
pub(super) enum Caller {
    Register {
        call: RpcCallContext<RegisterAnswer>,
        id: WorkerId,
        /// How the worker was reached before, if it was.
        before: Option<RpcEndpointRef<WorkerMessage>>,
    },
    Heartbeat(RpcCallContext<()>),
    Report(RpcCallContext<()>),
    Submit {
        call: RpcCallContext<SubmitAnswer>,
        /// How large the description is.
        bytes: usize,
    },
    Kill(RpcCallContext<KillAnswer>),
    /// Who asked for all to be killed, or all that ended to be forgotten.
    Count(RpcCallContext<u64>),
    Forget(RpcCallContext<ForgetAnswer>),
    Drain(RpcCallContext<DrainAnswer>),
    Wait(RpcCallContext<Option<AppStatus>>),
}

impl Caller {
    fn is_gone(&self) -> bool {
        match self {
            Self::Register { call, .. } => call.is_cancelled(),
            Self::Heartbeat(call) | Self::Report(call) => call.is_cancelled(),
            Self::Submit { call, .. } => call.is_cancelled(),
            Self::Kill(call) => call.is_cancelled(),
            Self::Count(call) => call.is_cancelled(),
            Self::Forget(call) => call.is_cancelled(),
            Self::Drain(call) => call.is_cancelled(),
            Self::Wait(call) => call.is_cancelled(),
        }
    }
}

/// The callers who wait, each under the token by which the core knows it.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Where all are given up, they are told in the order in which they asked.
    callers: BTreeMap<ReplyTo, Caller>,
    newest: u64,
    submissions: usize,
    submission_bytes: usize,
}

/// A worker that was refused, and how it was reached before.
pub(super) struct RefusedWorker {
    pub(super) id: WorkerId,
    pub(super) before: Option<RpcEndpointRef<WorkerMessage>>,
}

impl Callers {
    pub(super) fn keep(&mut self, caller: Caller) -> ReplyTo {
        if let Caller::Submit { bytes, .. } = &caller {
            self.submissions += 1;
            self.submission_bytes += bytes;
        }
        self.newest += 1;
        let token = ReplyTo(self.newest);
        self.callers.insert(token, caller);
        token
    }

    pub(super) fn remove(&mut self, to: ReplyTo) -> Option<Caller> {
        let caller = self.callers.remove(&to)?;
        if let Caller::Submit { bytes, .. } = &caller {
            self.submissions -= 1;
            self.submission_bytes -= bytes;
        }
        Some(caller)
    }

    /// How many submissions wait for their answer, and how large they are together.
    pub(super) fn submissions(&self) -> (usize, usize) {
        (self.submissions, self.submission_bytes)
    }

    /// Whether somebody still waits for this.
    pub(super) fn is_waiting(&self, to: ReplyTo) -> bool {
        self.callers
            .get(&to)
            .is_some_and(|caller| !caller.is_gone())
    }

    /// Tells somebody who submits that nothing will come of it.
    pub(super) fn refuse_submission(&mut self, to: ReplyTo, answer: SubmitAnswer) {
        match self.remove(to) {
            Some(Caller::Submit { call, .. }) => call.reply(answer),
            other => debug!(?other, "nobody submits under this token"),
        }
    }

    /// Gives an answer; a worker that was refused is handed back.
    pub(super) fn answer(&mut self, to: ReplyTo, reply: Reply) -> Option<RefusedWorker> {
        let Some(caller) = self.remove(to) else {
            debug!(?to, "an answer that nobody waits for");
            return None;
        };
        match (caller, reply) {
            (
                Caller::Register { call, .. },
                Reply::Registered {
                    epoch,
                    heartbeat_interval,
                },
            ) => {
                let heartbeat_millis =
                    u64::try_from(heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
                call.reply(RegisterAnswer::Registered {
                    epoch,
                    heartbeat_millis,
                });
            }
            (Caller::Register { call, id, before }, Reply::Refused { reason }) => {
                call.reply(RegisterAnswer::Refused { reason });
                return Some(RefusedWorker { id, before });
            }
            (Caller::Report(call), Reply::Acknowledged)
            | (Caller::Heartbeat(call), Reply::HeartbeatNoted) => call.reply(()),
            (Caller::Report(call), Reply::Refused { reason }) => {
                debug!(reason, "a report was refused");
                call.reply(());
            }
            (Caller::Submit { call, .. }, Reply::Submitted { app, .. }) => {
                call.reply(SubmitAnswer::Accepted { app });
            }
            (Caller::Submit { call, .. }, Reply::SubmissionRefused(error)) => {
                call.reply(SubmitAnswer::Refused {
                    reason: error.to_string(),
                });
            }
            (Caller::Submit { call, .. }, Reply::KeyReused(app)) => {
                call.reply(SubmitAnswer::KeyReused { app });
            }
            (Caller::Count(call), Reply::KilledAll { count } | Reply::Cleared { count }) => {
                call.reply(count)
            }
            (Caller::Forget(call), Reply::Forget(answer)) => call.reply(answer),
            (Caller::Drain(call), Reply::Drain(answer)) => call.reply(answer),
            (
                Caller::Kill(call),
                Reply::Kill {
                    success, message, ..
                },
            ) => call.reply(KillAnswer { success, message }),
            (Caller::Wait(call), Reply::Status(status)) => call.reply(Some(*status)),
            (Caller::Wait(call), Reply::NoSuchApp(_)) => call.reply(None),
            (caller, reply) => warn!(?caller, ?reply, "an answer of the wrong kind"),
        }
        None
    }
}
