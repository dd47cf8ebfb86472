//! The bytes of a message as they travel, without what goes before them.
//!
//! An endpoint that takes a body as it is stands where another is expected: its reference is handed over inside a
//! message, where nobody asks for its type. The same way back, bytes are sent to an endpoint that reads messages.

use std::cell::Cell;
use std::fmt::{self, Debug};
use std::sync::Arc;

use aloha_rpc::testing::MemoryNetwork;
use aloha_rpc::{
    Directive, EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::mpsc;

/// What the message type of an endpoint must be.
pub(crate) trait Message: Serialize + DeserializeOwned + Send + Debug + 'static {}

impl<M: Serialize + DeserializeOwned + Send + Debug + 'static> Message for M {}

/// A whole body.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rest;
        impl<'de> Visitor<'de> for Rest {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a body")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Raw, A::Error> {
                let mut body = Vec::new();
                // It ends where there are no more.
                while let Ok(Some(byte)) = bytes.next_element() {
                    body.push(byte);
                }
                Ok(Raw(body))
            }
        }
        deserializer.deserialize_tuple(1 << 20, Rest)
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

/// A body that ends with the call of its own ask.
#[derive(Debug, Serialize, Deserialize)]
struct RawAsk(Raw, RpcCallContext<()>);

/// Takes a reference to an endpoint of another type than it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "M: Message")]
enum Hand<M> {
    Over(RpcEndpointRef<M>),
}

struct Taker<M>(mpsc::Sender<RpcEndpointRef<M>>);

impl<M: Message> RpcEndpoint for Taker<M> {
    type Message = Hand<M>;
    async fn receive(
        &mut self,
        Hand::Over(found): Hand<M>,
        _: &EndpointContext<Hand<M>>,
    ) -> Result<(), EndpointError> {
        self.0.send(found).await.expect("the test waits for it");
        Ok(())
    }
}

/// Tells what it gets.
struct Teller<M>(mpsc::Sender<M>);

impl<M: Message> RpcEndpoint for Teller<M> {
    type Message = M;
    async fn receive(&mut self, message: M, _: &EndpointContext<M>) -> Result<(), EndpointError> {
        self.0.send(message).await.expect("the test waits for it");
        Ok(())
    }
}

/// Two environments, of which one reads and writes messages, and the other bytes.
pub(crate) struct Wire {
    /// The first.
    pub(crate) env: RpcEnv,
    bytes: RpcEnv,
    names: Cell<u32>,
}

/// What became of a message.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Whether the same was read from them.
    pub(crate) is_read_back: bool,
}

impl Wire {
    pub(crate) async fn new() -> Self {
        // In memory, where addresses are the same each time.
        let network = Arc::new(MemoryNetwork::default());
        let start = async |name: &str, address: &str| {
            let builder = RpcEnv::builder(name).network(Arc::clone(&network) as _);
            builder.bind(address).start().await.unwrap()
        };
        Self {
            env: start("messages", "127.0.0.1:7001").await,
            bytes: start("bytes", "127.0.0.1:7002").await,
            names: Cell::new(0),
        }
    }

    fn name(&self) -> String {
        self.names.set(self.names.get() + 1);
        format!("endpoint-{}", self.names.get())
    }

    /// A reference of one environment in the other, as if it were to an endpoint of another type.
    async fn retyped<A: Message, B: Message>(
        &self,
        (from, to): (&RpcEnv, &RpcEnv),
        reference: RpcEndpointRef<A>,
    ) -> RpcEndpointRef<B> {
        let (taker, mut taken) = mpsc::channel(1);
        let name = self.name();
        to.setup_endpoint(&name, Taker(taker)).unwrap();
        let hand = from.retrieve_endpoint_ref(to.address().unwrap(), &name);
        hand.await.unwrap().send(Hand::Over(reference)).unwrap();
        taken.recv().await.unwrap()
    }

    /// A reference to an endpoint that takes bytes, as if they were messages; and what it gets.
    async fn writer<M: Message>(&self) -> (RpcEndpointRef<M>, mpsc::Receiver<Raw>) {
        let (raw, bodies) = mpsc::channel(1);
        let endpoint = self
            .bytes
            .setup_endpoint(&self.name(), Teller(raw))
            .unwrap();
        let ends = (&self.bytes, &self.env);
        (self.retyped(ends, endpoint).await, bodies)
    }

    /// A message without a call.
    pub(crate) async fn sent<M: Message>(&self, name: &'static str, message: M) -> Sample {
        let text = format!("{message:?}");
        let (reference, mut bodies) = self.writer::<M>().await;
        reference.send(message).unwrap();
        let Raw(bytes) = bodies.recv().await.unwrap();
        let (reference, mut read) = self.reader::<M, Raw>().await;
        reference.send(Raw(bytes.clone())).unwrap();
        let found = read.recv().await;
        sample(name, bytes, found, &text)
    }

    /// A message whose last field is its call.
    pub(crate) async fn asked<M: Message, R: Message>(
        &self,
        name: &'static str,
        question: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Sample {
        let mut text = String::new();
        let (reference, mut bodies) = self.writer::<M>().await;
        let ask = reference.ask(|call| {
            let message = question(call);
            text = format!("{message:?}");
            message
        });
        let Raw(bytes) = bodies.recv().await.unwrap();
        // Who takes only bytes answers nothing.
        drop(ask);
        let (place, before) = bytes.split_last().expect("a call");
        assert_eq!(*place, 0, "the call of its ask comes last");
        let before = Raw(before.to_vec());
        let (reference, mut read) = self.reader::<M, RawAsk>().await;
        let ask = reference.ask(|call| RawAsk(before, call));
        let found = read.recv().await;
        drop(ask);
        sample(name, bytes, found, &text)
    }

    /// A reference to an endpoint that takes messages, as if they were bytes; and what it gets. That is nothing, and the
    /// channel ends, where they cannot be read.
    async fn reader<M: Message, B: Message>(&self) -> (RpcEndpointRef<B>, mpsc::Receiver<M>) {
        let (reader, read) = mpsc::channel(1);
        let endpoint = self
            .env
            .setup_endpoint(&self.name(), Reader(reader))
            .unwrap();
        let ends = (&self.env, &self.bytes);
        (self.retyped(ends, endpoint).await, read)
    }
}

/// As [`Teller`], and ends with the first message that cannot be read.
struct Reader<M>(mpsc::Sender<M>);

impl<M: Message> RpcEndpoint for Reader<M> {
    type Message = M;
    async fn receive(&mut self, message: M, _: &EndpointContext<M>) -> Result<(), EndpointError> {
        self.0.send(message).await.expect("the test waits for it");
        Ok(())
    }
    async fn on_error(&mut self, _: EndpointError, _: &EndpointContext<M>) -> Directive {
        Directive::Stop
    }
}

fn sample<M: Message>(name: &'static str, bytes: Vec<u8>, found: Option<M>, text: &str) -> Sample {
    let found = found.map(|message| format!("{message:?}"));
    Sample {
        name,
        bytes,
        is_read_back: found.is_some_and(|found| plain(&found) == plain(text)),
    }
}

/// Without what a call says of how it arrived.
fn plain(text: &str) -> String {
    ["asking", "remote", "answered"]
        .iter()
        .fold(text.to_owned(), |text, state| {
            text.replace(&format!("RpcCallContext({state})"), "a call")
        })
}
