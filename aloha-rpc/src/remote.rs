//! The transport's side of the environment: frames in, mail out, and news of connections.

use std::sync::{Arc, Weak};

use aloha_transport::{CloseReason, RequestHandler, RpcResponseCallback, TransportClient};
use bytes::{Buf, Bytes};
use tokio::time::Instant;
use tracing::debug;

use crate::address::RpcAddress;
use crate::env::EnvInner;
use crate::envelope::{Envelope, Receiver};
use crate::error::code;
use crate::inbox::{ConnectionEvent, Mailbox, RemoteMail, Sent};
use crate::link::Link;

/// How many names a peer may introduce on one connection.
const NAMES_MAX: usize = 65_536;

/// One connection's requests, gathered by endpoint until the read is complete.
pub(crate) struct RemoteHandler {
    env: Weak<EnvInner>,
    link: Arc<Link>,
    address: Option<RpcAddress>,
    /// The peer's numbers for names.
    names: Vec<Known>,
    gathered: Vec<(Arc<dyn Mailbox>, Vec<RemoteMail>)>,
    /// Of this read, once anything in it needs the time.
    now: Option<Instant>,
}

struct Known {
    name: Box<str>,
    mailbox: Option<Arc<dyn Mailbox>>,
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
        if let (Some(env), Some(address)) = (env.upgrade(), &address) {
            env.dispatcher
                .broadcast(&ConnectionEvent::Connected(address.clone()));
        }
        let link = Link::new(client.clone());
        Self {
            env,
            link,
            address,
            names: Vec::new(),
            gathered: Vec::new(),
            now: None,
        }
    }

    fn on_message(&mut self, mut message: Bytes, request: Option<RpcResponseCallback>) {
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
        let link = Arc::clone(&self.link);
        let mail = RemoteMail {
            link,
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
            Some(_) if number != self.names.len() || number >= NAMES_MAX => {
                Err(format!("endpoint {number} is introduced out of turn"))
            }
            Some(name) => {
                self.names.push(Known {
                    name: name.into(),
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
        }
        let Some(mailbox) = &known.mailbox else {
            debug!(endpoint = %known.name, "a message for an endpoint that is not there");
            env.count_dead_letters(1);
            return mail.bounce(code::ENDPOINT_NOT_FOUND, "no such endpoint");
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
        let mut dropped = 0;
        for (mailbox, mails) in &mut self.gathered {
            dropped += mailbox.deliver(mails);
        }
        if dropped > 0 {
            // A name may be set up anew after its endpoint stopped.
            for known in &mut self.names {
                known.mailbox.take_if(|mailbox| !mailbox.is_open());
            }
            self.gathered.retain(|(mailbox, _)| mailbox.is_open());
        }
        // Keeps the buffers of the few endpoints a connection usually talks to.
        if self.gathered.len() > 8 {
            self.gathered.clear();
        }
        if dropped > 0
            && let Some(env) = self.env.upgrade()
        {
            env.count_dead_letters(dropped);
        }
    }

    fn on_disconnected(&mut self, reason: &CloseReason) {
        let (Some(env), Some(address)) = (self.env.upgrade(), self.address.clone()) else {
            return;
        };
        if let CloseReason::Io(_) | CloseReason::Protocol(_) = reason {
            let cause: Arc<str> = reason.to_string().into();
            env.dispatcher
                .broadcast(&ConnectionEvent::NetworkError(cause, address.clone()));
        }
        env.dispatcher
            .broadcast(&ConnectionEvent::Disconnected(address));
    }
}
