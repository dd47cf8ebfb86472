//! The coordinator's endpoint around what is on its disk.

use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEnv};
use serde::Serialize;
use tokio::time::Instant;

use super::disk::{Disk, StoreTrouble};
use super::messages::{Answer, COORDINATOR, CoordinatorMessage, News, Seats, Tick};
use crate::clock::Alarm;
use crate::messages::LocalOnly;

/// Sets a coordinator up in `env`, over what an earlier one left on the disk. It ends with the environment.
///
/// # Panics
///
/// The environment has one already, or is shut down.
pub fn start_coordinator(env: &RpcEnv, disk: &Disk) {
    let coordinator = Coordinator {
        disk: disk.clone(),
        alarm: None,
        waiting: Vec::new(),
    };
    let started = env.setup_endpoint(COORDINATOR, coordinator);
    started.expect("an environment that runs has one coordinator");
}

struct Coordinator {
    disk: Disk,
    alarm: Option<Alarm>,
    waiting: Vec<Waiting>,
}

/// Somebody who waits for a change.
struct Waiting {
    until: Instant,
    what: What,
}

enum What {
    Seats(u64, RpcCallContext<Answer<Seats>>),
    News(u64, RpcCallContext<Answer<News>>),
}

impl Coordinator {
    /// Answers those who waited for what is there now, or long enough.
    fn answer_waiting(&mut self, now: Instant) {
        let (seats, position) = self.disk.with(|state| (state.seats(), state.heard_of(now)));
        for waiting in std::mem::take(&mut self.waiting) {
            let Waiting { until, what } = waiting;
            let is_late = until <= now;
            match what {
                What::Seats(_, call) if call.is_cancelled() => {}
                What::News(_, call) if call.is_cancelled() => {}
                What::Seats(known, call) if is_late || known != seats.version => {
                    call.reply(Answer::Done(seats.clone()));
                }
                What::News(after, call) if is_late || after < position => {
                    let news = self.disk.with(|state| state.news_between(after, position));
                    call.reply(Answer::Done(news));
                }
                what => self.waiting.push(Waiting { until, what }),
            }
        }
    }

    fn wait(&mut self, patience_millis: u64, what: What, now: Instant) {
        self.waiting.push(Waiting {
            until: now + Duration::from_millis(patience_millis),
            what,
        });
    }

    fn hears<T: Serialize>(
        &self,
        session: u64,
        call: RpcCallContext<Answer<T>>,
        now: Instant,
    ) -> Heard<T> {
        if self.disk.with(|state| state.hear(session, now)) {
            return Some(call);
        }
        call.reply(Answer::Expired);
        None
    }

    fn on_append(
        &self,
        (epoch, number): (u64, u64),
        changes: Vec<super::messages::WireChange>,
        call: RpcCallContext<Answer<()>>,
        ctx: &EndpointContext<CoordinatorMessage>,
    ) {
        let (answer, trouble) = self.disk.with(|state| {
            let answer = state.append(epoch, number, changes, ctx.now());
            (answer, state.trouble)
        });
        match trouble {
            StoreTrouble::Slow(by) => ctx.spawn(async move {
                tokio::time::sleep(by).await;
                call.reply(answer);
            }),
            StoreTrouble::None | StoreTrouble::Refuses => call.reply(answer),
        }
    }
}

type Heard<T> = Option<RpcCallContext<Answer<T>>>;

impl RpcEndpoint for Coordinator {
    type Message = CoordinatorMessage;

    async fn on_start(
        &mut self,
        ctx: &EndpointContext<CoordinatorMessage>,
    ) -> Result<(), EndpointError> {
        self.disk.with(|state| state.begin(ctx.now()));
        let me = ctx.self_ref().clone();
        self.alarm = Some(Alarm::new(&**ctx.env().runtime(), move || {
            // One that has stopped needs no time.
            drop(me.send(CoordinatorMessage::Own(LocalOnly(Tick))));
        }));
        Ok(())
    }

    async fn receive(
        &mut self,
        message: CoordinatorMessage,
        ctx: &EndpointContext<CoordinatorMessage>,
    ) -> Result<(), EndpointError> {
        use CoordinatorMessage as Message;
        let now = ctx.now();
        match message {
            Message::Own(LocalOnly(Tick)) => self.disk.with(|state| state.expire(now)),
            Message::Open {
                timeout_millis,
                call,
            } => {
                let timeout = Duration::from_millis(timeout_millis);
                call.reply(self.disk.with(|state| state.open(timeout, now)));
            }
            Message::Close { session, call } => {
                self.disk.with(|state| state.close(session));
                call.reply(());
            }
            Message::Ping { session, call } => {
                if let Some(call) = self.hears(session, call, now) {
                    call.reply(Answer::Done(()));
                }
            }
            Message::Stand {
                session,
                token,
                candidate,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    let seat = self
                        .disk
                        .with(|state| state.stand(session, token, candidate));
                    call.reply(Answer::Done(seat));
                }
            }
            Message::Leave {
                session,
                token,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    self.disk.with(|state| state.leave(session, token));
                    call.reply(Answer::Done(()));
                }
            }
            Message::Seats {
                session,
                known,
                patience_millis,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    self.wait(patience_millis, What::Seats(known, call), now);
                }
            }
            Message::BeginEpoch {
                session,
                token,
                at_least,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    let begin =
                        |state: &mut super::disk::State| state.begin_epoch(token, at_least, now);
                    call.reply(Answer::Done(self.disk.with(begin)));
                }
            }
            Message::Append {
                session,
                epoch,
                number,
                changes,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    self.on_append((epoch, number), changes, call, ctx);
                }
            }
            Message::Read { session, call } => {
                if let Some(call) = self.hears(session, call, now) {
                    call.reply(Answer::Done(self.disk.with(|state| state.all())));
                }
            }
            Message::Follow {
                session,
                after,
                patience_millis,
                call,
            } => {
                if let Some(call) = self.hears(session, call, now) {
                    if patience_millis == 0 {
                        let news = self.disk.with(|state| state.all_news(after));
                        call.reply(Answer::Done(news));
                    } else {
                        self.wait(patience_millis, What::News(after, call), now);
                    }
                }
            }
        }
        self.answer_waiting(now);
        if let Some(alarm) = &self.alarm {
            let waits = self.waiting.iter().map(|waiting| waiting.until);
            let news = self
                .waiting
                .iter()
                .filter_map(|waiting| match waiting.what {
                    What::News(after, _) => self.disk.with(|state| state.next_news(after)),
                    What::Seats(..) => None,
                });
            let next = waits
                .chain(news)
                .chain(self.disk.with(|state| state.next_expiry()))
                .min();
            alarm.set(next.map(Instant::into_std));
        }
        Ok(())
    }
}
