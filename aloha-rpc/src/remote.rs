//! The transport's side of the environment: frames in, mail out, and news of connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use aloha_transport::{CloseReason, FLOWS_MAX, Failure, Incoming, RequestHandler, TransportClient};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;

use crate::address::RpcAddress;
use crate::codec::Codec;
use crate::dead_letter::DeadLetterReason;
use crate::env::EnvInner;
use crate::envelope::{Envelope, Receiver};
use crate::error::code;
use crate::flow::{InboundFlow, Received};
use crate::link::Link;
use crate::mail::{Control, Discard, Sent};
use crate::mailbox::{Delivered, Mailbox};
use crate::remote_call::RemoteCall;
use crate::remote_lane::{Extras, RemoteMail};

/// One connection's requests, gathered by endpoint until the whole read is seen.
pub(crate) struct RemoteHandler {
    env: Weak<EnvInner>,
    link: Arc<Link>,
    address: Option<RpcAddress>,
    /// The peer's numbers for names. A large message lets those of other endpoints pass, so a number may come before a
    /// lower one.
    names: Vec<Option<Box<Known>>>,
    known: BTreeSet<Box<str>>,
    /// Those of them that this read brought something for.
    gathered: Vec<usize>,
}

struct Known {
    name: Box<str>,
    flow: Arc<InboundFlow>,
    received: Received,
    mailbox: Option<Arc<dyn Mailbox>>,
    /// Of this read.
    mails: Vec<RemoteMail>,
}

impl Known {
    /// Lets go of an inbox.
    fn leave(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.leave();
        }
    }

    /// Answers what nobody takes.
    fn bounce(&mut self, env: &EnvInner, failure: &Failure) {
        for mail in self.mails.drain(..) {
            env.give_back_and_bounce(&self.flow, mail, failure);
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Where the peer was called, where it says it can be called, or else where it called from.
pub(crate) fn address_of(client: &TransportClient) -> Option<RpcAddress> {
    if client.is_outbound() {
        return client.peer().parse().ok();
    }
    let hello = client.hello();
    let advertised = hello.as_ref().and_then(|hello| hello.address.as_deref());
    advertised.unwrap_or(client.peer()).parse().ok()
}

impl RemoteHandler {
    pub(crate) fn new(env: Weak<EnvInner>, codec: Codec, client: &TransportClient) -> Self {
        let address = address_of(client);
        let link = Link::new(env.clone(), codec, client.clone());
        if let Some(env) = env.upgrade() {
            env.connections().insert(link.id(), Arc::clone(&link));
            if let Some(address) = &address {
                env.dispatcher
                    .broadcast(|| Control::Connected(address.clone()));
                env.tell(|metrics| metrics.on_connected(address));
            }
        }
        Self {
            env,
            link,
            address,
            names: Vec::new(),
            known: BTreeSet::new(),
            gathered: Vec::new(),
        }
    }

    /// Takes one message apart, up to its body.
    fn on_message(
        &mut self,
        env: &EnvInner,
        bytes: &Bytes,
        message: Incoming,
        now: &mut Option<Instant>,
    ) -> Result<(), String> {
        let Incoming { body, request } = message;
        let end = body.end;
        let mut rest = &bytes[body];
        let envelope = Envelope::decode(&mut rest).map_err(|error| error.to_string())?;
        let receiver = envelope.receiver.ok_or("a message without a receiver")?;
        let number = self.introduce(receiver)?;
        let asked = request.is_some() || envelope.asked;
        let deadline = envelope.time_left.and_then(|left| {
            let now = *now.get_or_insert_with(|| env.runtime.now());
            now.checked_add(left)
        });
        let mut mail = RemoteMail {
            body: end - rest.len()..end,
            sent: if asked { Sent::Asked } else { Sent::OneWay },
            request,
            deadline,
            extras: None,
        };
        if envelope.trace.is_some() || !envelope.calls.is_empty() {
            mail.extras = Some(Box::new(self.extras(&envelope)?));
        }
        let Some(known) = &mut self.names[number] else {
            unreachable!("introduced above");
        };
        if !known.flow.receive(&mut known.received, mail.body.len()) {
            return Err(format!(
                "more was sent to endpoint {} than it gave credit for",
                known.name
            ));
        }
        if known.mails.is_empty() {
            self.gathered.push(number);
            // Many connections never bring two at once.
            known.mails.reserve_exact(1);
        }
        known.mails.push(mail);
        Ok(())
    }

    fn extras(&self, envelope: &Envelope<'_>) -> Result<Extras, String> {
        let mut calls = Vec::with_capacity(envelope.calls.len());
        for id in &envelope.calls {
            let accepted = self.link.client.accept_id(*id);
            let request =
                accepted.ok_or_else(|| format!("request id {id:?} is in use or over the limit"))?;
            calls.push(Some(RemoteCall::new(Arc::clone(&self.link), request)));
        }
        let trace = envelope.trace;
        Ok(Extras { calls, trace })
    }

    /// The place of a receiver in `names`.
    fn introduce(&mut self, receiver: Receiver<'_>) -> Result<usize, String> {
        let number = receiver.number as usize;
        match receiver.name {
            None if matches!(self.names.get(number), Some(Some(_))) => Ok(number),
            None => Err(format!("endpoint {number} was never introduced")),
            Some(name) if self.known.contains(name) => {
                Err(format!("endpoint {name} is introduced twice"))
            }
            Some(_) if number >= FLOWS_MAX as usize => {
                Err(format!("endpoint {number} is over the limit"))
            }
            Some(_) if matches!(self.names.get(number), Some(Some(_))) => {
                Err(format!("number {number} is introduced twice"))
            }
            Some(name) => {
                self.known.insert(name.into());
                if self.names.len() <= number {
                    self.names.resize_with(number + 1, || None);
                }
                self.names[number] = Some(Box::new(Known {
                    name: name.into(),
                    flow: InboundFlow::new(Arc::clone(&self.link), receiver.number),
                    received: Received::default(),
                    mailbox: None,
                    mails: Vec::new(),
                }));
                Ok(number)
            }
        }
    }

    /// Hands an endpoint what this read brought for it.
    fn deliver(&mut self, env: &EnvInner, bytes: &Bytes, number: usize, now: Option<Instant>) {
        let Some(known) = &mut self.names[number] else {
            unreachable!("introduced before");
        };
        // A name may be set up anew after its endpoint stopped: looked up twice at most.
        for _ in 0..2 {
            if known.mailbox.is_none() {
                known.mailbox = env.dispatcher.find(&known.name).map(|found| found.mailbox);
                if let Some(mailbox) = &known.mailbox {
                    mailbox.join();
                }
            }
            let Some(mailbox) = &known.mailbox else {
                break;
            };
            match mailbox.deliver(&known.flow, bytes, &mut known.mails, now) {
                Delivered::Taken => return,
                Delivered::Displaced(mut displaced) => {
                    let count = displaced.len() as u64;
                    env.dead_letter(mailbox.name(), DeadLetterReason::Displaced, count);
                    let failure = Discard::Displaced.failure();
                    while let Some((flow, mail)) = displaced.pop_unhandled() {
                        env.give_back_and_bounce(&flow, mail, &failure);
                    }
                    return;
                }
                Delivered::Stopped => {}
            }
            let stopped = Arc::clone(mailbox);
            known.leave();
            let anew = env.dispatcher.find(&known.name);
            if anew.is_none_or(|anew| !anew.mailbox.is_open()) {
                let count = known.mails.len() as u64;
                env.dead_letter(stopped.name(), DeadLetterReason::Stopped, count);
                return known.bounce(env, &Discard::Stopped.failure());
            }
        }
        debug!(endpoint = %known.name, "messages for an endpoint that is not there");
        let name = Arc::from(&*known.name);
        env.dead_letter(
            &name,
            DeadLetterReason::NoEndpoint,
            known.mails.len() as u64,
        );
        let failure = Failure::new(code::ENDPOINT_NOT_FOUND, "no such endpoint");
        known.bounce(env, &failure);
    }
}

impl RequestHandler for RemoteHandler {
    fn on_messages(&mut self, bytes: &Bytes, messages: &mut Vec<Incoming>) {
        let Some(env) = self.env.upgrade() else {
            return;
        };
        let mut now = env.observed_now();
        for message in messages.drain(..) {
            if let Err(reason) = self.on_message(&env, bytes, message, &mut now) {
                self.link.client.abort(reason);
                break;
            }
        }
        let now = env.observed_now().and(now);
        let mut gathered = std::mem::take(&mut self.gathered);
        for number in gathered.drain(..) {
            self.deliver(&env, bytes, number, now);
        }
        self.gathered = gathered;
    }

    fn on_disconnected(&mut self, reason: &CloseReason) {
        let Some(env) = self.env.upgrade() else {
            return;
        };
        env.connections().remove(&self.link.id());
        let Some(address) = self.address.clone() else {
            return;
        };
        if let CloseReason::Io(_) | CloseReason::Protocol(_) | CloseReason::Silent { .. } = reason {
            let cause: Arc<str> = reason.to_string().into();
            env.dispatcher
                .broadcast(|| Control::NetworkError(Arc::clone(&cause), address.clone()));
        }
        env.dispatcher
            .broadcast(|| Control::Disconnected(address.clone()));
        env.tell(|metrics| metrics.on_disconnected(&address));
    }
}
