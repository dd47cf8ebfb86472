//! The transport's side of the environment: frames in, mail out, and news of connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use aloha_transport::{
    CloseReason, FLOWS_MAX, Failure, RequestHandler, RpcResponseCallback, TransportClient,
};
use bytes::{Buf, Bytes};
use tokio::time::Instant;
use tracing::debug;

use crate::address::RpcAddress;
use crate::dead_letter::DeadLetterReason;
use crate::env::EnvInner;
use crate::envelope::{Envelope, Receiver};
use crate::error::code;
use crate::flow::{InboundFlow, Received};
use crate::link::Link;
use crate::mail::{Control, Discard, RemoteMail, Sent};
use crate::mailbox::Mailbox;

/// One connection's requests, gathered by endpoint until the read is complete.
pub(crate) struct RemoteHandler {
    env: Weak<EnvInner>,
    link: Arc<Link>,
    address: Option<RpcAddress>,
    /// The peer's numbers for names.
    names: Vec<Known>,
    known: BTreeSet<Box<str>>,
    gathered: Vec<(Arc<dyn Mailbox>, Vec<RemoteMail>)>,
    /// Of this read, once anything in it needs the time.
    now: Option<Instant>,
}

struct Known {
    name: Box<str>,
    flow: Arc<InboundFlow>,
    received: Received,
    mailbox: Option<Arc<dyn Mailbox>>,
}

impl Known {
    /// Lets go of an inbox.
    fn leave(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.leave();
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
    pub(crate) fn new(env: Weak<EnvInner>, client: &TransportClient) -> Self {
        let address = address_of(client);
        let link = Link::new(env.clone(), client.clone());
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
            now: None,
        }
    }

    fn on_message(&mut self, mut message: Bytes, request: Option<RpcResponseCallback>) {
        if !self.link.client.is_active() {
            // Behind an abort in the same read; or a close, which has told the askers.
            return;
        }
        let mut rest = &message[..];
        let envelope = Envelope::decode(&mut rest).map_err(|error| error.to_string());
        let (envelope, receiver) = match envelope {
            Ok(
                envelope @ Envelope {
                    receiver: Some(receiver),
                    ..
                },
            ) => (envelope, receiver),
            Ok(_) => return self.link.client.abort("a message without a receiver"),
            Err(reason) => return self.link.client.abort(reason),
        };
        let number = match self.introduce(receiver) {
            Ok(number) => number,
            Err(reason) => return self.link.client.abort(reason),
        };
        let Some(env) = self.env.upgrade() else {
            return;
        };
        let mut calls = Vec::with_capacity(envelope.calls.len());
        for id in &envelope.calls {
            match self.link.client.accept_id(*id) {
                Some(call) => calls.push(Some(call)),
                None => {
                    return self
                        .link
                        .client
                        .abort(format!("request id {id:?} is in use or over the limit"));
                }
            }
        }
        let deadline = envelope.time_left.and_then(|left| {
            let now = *self.now.get_or_insert_with(|| env.runtime.now());
            now.checked_add(left)
        });
        let sent = if request.is_some() || envelope.asked {
            Sent::Asked
        } else {
            Sent::OneWay
        };
        let trace = envelope.trace.map(Box::new);
        let head = message.len() - rest.len();
        message.advance(head);
        let known = &mut self.names[number];
        if !known.flow.receive(&mut known.received, message.len()) {
            let reason = format!(
                "more was sent to endpoint {} than it gave credit for",
                known.name
            );
            return self.link.client.abort(reason);
        }
        let mail = RemoteMail {
            flow: Arc::clone(&known.flow),
            sent,
            body: message,
            request,
            calls,
            deadline,
            trace,
        };
        self.gather(&env, number, mail);
    }

    /// The place of a receiver in `names`.
    fn introduce(&mut self, receiver: Receiver<'_>) -> Result<usize, String> {
        let number = receiver.number as usize;
        match receiver.name {
            None if number < self.names.len() => Ok(number),
            None => Err(format!("endpoint {number} was never introduced")),
            Some(name) if self.known.contains(name) => {
                Err(format!("endpoint {name} is introduced twice"))
            }
            Some(_) if number != self.names.len() || number >= FLOWS_MAX as usize => {
                Err(format!("endpoint {number} is introduced out of turn"))
            }
            Some(name) => {
                self.known.insert(name.into());
                self.names.push(Known {
                    name: name.into(),
                    flow: InboundFlow::new(Arc::clone(&self.link), receiver.number),
                    received: Received::default(),
                    mailbox: None,
                });
                Ok(number)
            }
        }
    }

    fn gather(&mut self, env: &EnvInner, number: usize, mail: RemoteMail) {
        let known = &mut self.names[number];
        if known.mailbox.is_none() {
            known.mailbox = env.dispatcher.find(&known.name).map(|found| found.mailbox);
            if let Some(mailbox) = &known.mailbox {
                mailbox.join();
            }
        }
        let Some(mailbox) = &known.mailbox else {
            debug!(endpoint = %known.name, "a message for an endpoint that is not there");
            env.dead_letter(&Arc::from(&*known.name), DeadLetterReason::NoEndpoint, 1);
            let failure = Failure::new(code::ENDPOINT_NOT_FOUND, "no such endpoint");
            return env.give_back_and_bounce(mail, &failure);
        };
        match self
            .gathered
            .iter_mut()
            .find(|(gathered, _)| Arc::ptr_eq(gathered, mailbox))
        {
            Some((_, mails)) => mails.push(mail),
            None => self.gathered.push((Arc::clone(mailbox), vec![mail])),
        }
    }
}

impl RequestHandler for RemoteHandler {
    fn on_request(&mut self, message: Bytes, callback: RpcResponseCallback) {
        self.on_message(message, Some(callback));
    }

    fn on_one_way(&mut self, message: Bytes) {
        self.on_message(message, None);
    }

    fn on_read_complete(&mut self) {
        self.now = None;
        let Some(env) = self.env.upgrade() else {
            return;
        };
        let now = env.observed_now();
        let mut any_stopped = false;
        for (mailbox, mails) in &mut self.gathered {
            if mails.is_empty() {
                continue;
            }
            let mut why = mailbox.deliver(mails, now);
            if why == Some(Discard::Stopped) {
                any_stopped = true;
                // A name may be set up anew after its endpoint stopped.
                if let Some(anew) = env.dispatcher.find(mailbox.name()) {
                    why = anew.mailbox.deliver(mails, now);
                }
            }
            let Some(why) = why else {
                continue;
            };
            let reason = match why {
                Discard::Displaced => DeadLetterReason::Displaced,
                _ => DeadLetterReason::Stopped,
            };
            env.dead_letter(mailbox.name(), reason, mails.len() as u64);
            let failure = why.failure();
            for mail in mails.drain(..) {
                env.give_back_and_bounce(mail, &failure);
            }
        }
        if any_stopped {
            for known in &mut self.names {
                if known
                    .mailbox
                    .as_ref()
                    .is_some_and(|mailbox| !mailbox.is_open())
                {
                    known.leave();
                }
            }
            self.gathered.retain(|(mailbox, _)| mailbox.is_open());
        }
        // Keeps the buffers of the few endpoints a connection usually talks to.
        if self.gathered.len() > 8 {
            self.gathered.clear();
        }
    }

    fn on_disconnected(&mut self, reason: &CloseReason) {
        let Some(env) = self.env.upgrade() else {
            return;
        };
        env.connections().remove(&self.link.id());
        let Some(address) = self.address.clone() else {
            return;
        };
        if let CloseReason::Io(_) | CloseReason::Protocol(_) = reason {
            let cause: Arc<str> = reason.to_string().into();
            env.dispatcher
                .broadcast(|| Control::NetworkError(Arc::clone(&cause), address.clone()));
        }
        env.dispatcher
            .broadcast(|| Control::Disconnected(address.clone()));
        env.tell(|metrics| metrics.on_disconnected(&address));
    }
}
