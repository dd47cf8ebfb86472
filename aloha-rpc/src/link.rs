//! One connection as this layer sees it: the transport's client, and the numbers of the endpoint names sent on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aloha_transport::{Body, Charge, RequestId, SendError, TransportClient};

use crate::address::EndpointAddress;
use crate::codec::Codec;
use crate::env::EnvInner;
use crate::envelope::{Envelope, Receiver, SHORT_BYTES_MAX};

/// A body of this size is shared with the write queue instead of copied into it.
const SHARED_BYTES_MIN: usize = 32 << 10;

/// Ids tell links apart in the caches of endpoint references; 0 is none.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

pub(crate) struct Link {
    pub(crate) client: TransportClient,
    /// Fixed per environment, and the same at both ends.
    pub(crate) codec: Codec,
    names: Arc<Names>,
    env: Weak<EnvInner>,
}

/// The names introduced on a connection, by either of its users; shared by all links over it.
struct Names {
    id: u32,
    numbers: Mutex<HashMap<Arc<str>, u32>>,
}

/// A message on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) verb: Verb,
    /// The receiver.
    pub(crate) name: &'a Arc<str>,
    /// Whether its credit was taken beforehand.
    pub(crate) reserved: bool,
}

/// What to do with a frame.
#[derive(Clone, Copy)]
pub(crate) enum Verb {
    OneWay,
    Request(Option<std::time::Duration>),
}

impl Link {
    pub(crate) fn new(env: Weak<EnvInner>, codec: Codec, client: TransportClient) -> Arc<Self> {
        let names = client.attachment(|| Names {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            numbers: Mutex::default(),
        });
        Arc::new(Self {
            client,
            codec,
            names,
            env,
        })
    }

    pub(crate) fn env(&self) -> Option<Arc<EnvInner>> {
        self.env.upgrade()
    }

    pub(crate) fn id(&self) -> u32 {
        self.names.id
    }

    /// The number of a name that was used on this connection.
    pub(crate) fn number_of(&self, name: &str) -> Option<u32> {
        let numbers = self.names.numbers.lock();
        let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
        numbers.get(name).copied()
    }

    /// The URI of the receiver with a number.
    pub(crate) fn uri(&self, number: u32) -> String {
        let numbers = self.names.numbers.lock();
        let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
        let named = numbers.iter().find(|(_, known)| **known == number);
        let name = named.map_or_else(|| "?".into(), |(name, _)| Arc::clone(name));
        drop(numbers);
        let address = crate::remote::address_of(&self.client);
        EndpointAddress { address, name }.to_string()
    }

    /// Queues a message. `known` caches its receiver's number and is brought up to date. A large body is taken
    /// out of `body`.
    pub(crate) fn post<'a>(
        &self,
        outgoing: Outgoing<'a>,
        known: &mut Option<u32>,
        mut envelope: Envelope<'a>,
        body: &mut Vec<u8>,
    ) -> Result<Option<RequestId>, SendError> {
        if let Some(number) = *known {
            envelope.receiver = Some(Receiver { number, name: None });
            return self.queue(outgoing, number, &envelope, body);
        }
        let name = outgoing.name;
        let mut numbers = self
            .names
            .numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(numbers.len()).expect("fewer names than memory");
        let number = numbers.get(name).copied();
        *known = Some(number.unwrap_or(next));
        if let Some(number) = number {
            drop(numbers);
            envelope.receiver = Some(Receiver { number, name: None });
            return self.queue(outgoing, number, &envelope, body);
        }
        // Whoever introduces a name holds the lock until the introduction is queued, so that no
        // use of the number can overtake it.
        envelope.receiver = Some(Receiver {
            number: next,
            name: Some(name),
        });
        let queued = self.queue(outgoing, next, &envelope, body);
        match &queued {
            Ok(_) => drop(numbers.insert(Arc::clone(name), next)),
            Err(_) => *known = None,
        }
        queued
    }

    fn queue(
        &self,
        outgoing: Outgoing<'_>,
        number: u32,
        envelope: &Envelope<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Option<RequestId>, SendError> {
        let mut short = [0; SHORT_BYTES_MAX];
        let mut long = Vec::new();
        let head = if envelope.is_short() {
            let mut rest = &mut short[..];
            envelope.encode(&mut rest);
            let length = SHORT_BYTES_MAX - rest.len();
            &short[..length]
        } else {
            envelope.encode(&mut long);
            &long[..]
        };
        let body = body_of(body);
        let charge = if outgoing.reserved {
            Charge::Reserved(number)
        } else {
            Charge::Flow(number)
        };
        match outgoing.verb {
            Verb::OneWay => self.client.one_way(charge, head, &body).map(|()| None),
            Verb::Request(timeout) => {
                let request = self.client.request_id(charge, head, &body, timeout);
                request.map(Some)
            }
        }
    }
}

/// The bytes of a body: large ones leave the scratch buffer and are never copied.
pub(crate) fn body_of(bytes: &mut Vec<u8>) -> Body<'_> {
    if bytes.len() >= SHARED_BYTES_MIN {
        Body::Shared(std::mem::take(bytes).into())
    } else {
        Body::Copied(bytes)
    }
}
