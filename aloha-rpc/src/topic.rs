//! Publish and subscribe: messages of one type to all who want them, in this and other environments.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::address::{EndpointAddress, RpcAddress};
use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::context::EndpointContext;
use crate::dead_letter::DeadLetterReason;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::{AskError, EndpointError, LookupError, SendError, SetupError};
use crate::schema::schema_of;
use crate::supervision::{Directive, Terminated};

/// What can be published: every subscriber gets a clone.
pub trait Publication: Clone + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + 'static> Publication for T {}

/// Messages of one type to all who want them; from [`RpcEnv::setup_topic`] where it lives, or from
/// [`RpcEnv::retrieve_topic`] elsewhere. Cheap to clone.
///
/// Publications of one environment reach each subscriber in order. One who takes no more misses what comes then:
/// it is a dead letter of the environment where the topic lives, and neither the topic nor the others wait. A
/// subscriber that ends or is out of reach is forgotten.
pub struct Topic<T: Publication> {
    env: RpcEnv,
    hub: RpcEndpointRef<TopicMessage<T>>,
}

/// What is said to the endpoint behind a topic. Later versions append variants.
#[derive(Serialize, Deserialize)]
#[serde(bound = "T: Publication")]
pub(crate) enum TopicMessage<T: Publication> {
    Publish(T),
    Subscribe(RpcEndpointRef<T>, RpcCallContext<()>),
    Unsubscribe(RpcEndpointRef<T>, RpcCallContext<()>),
    /// What type is published?
    Schema(RpcCallContext<String>),
}

impl<T: Publication> Topic<T> {
    pub(crate) fn set_up(env: &RpcEnv, name: &str) -> Result<Self, SetupError> {
        let hub = env.setup_endpoint(
            name,
            Hub {
                subscribers: Vec::new(),
            },
        )?;
        Ok(Self {
            env: env.clone(),
            hub,
        })
    }

    pub(crate) async fn look_up(
        env: &RpcEnv,
        address: &RpcAddress,
        name: &str,
    ) -> Result<Self, LookupError> {
        let hub = env.retrieve_endpoint_ref::<TopicMessage<T>>(address, name);
        let given = schema_of::<T>();
        let hub = hub.await.map_err(|error| match error {
            // In one environment the very types are compared, whose outsides look the same.
            LookupError::WrongType {
                uri,
                expected,
                given: same,
            } if expected == same => LookupError::WrongType {
                uri,
                expected: "another type of publication".to_owned(),
                given: given.text.clone(),
            },
            other => other,
        })?;
        let uri = EndpointAddress {
            address: Some(address.clone()),
            name: name.into(),
        }
        .to_string();
        let published =
            hub.ask(TopicMessage::Schema)
                .await
                .map_err(|reason| LookupError::Failed {
                    uri: uri.clone(),
                    reason,
                })?;
        if !given.speaks(&published) {
            return Err(LookupError::WrongType {
                uri,
                expected: published,
                given: given.text,
            });
        }
        Ok(Self {
            env: env.clone(),
            hub,
        })
    }

    /// Gives all subscribers of this moment a clone.
    ///
    /// # Errors
    ///
    /// The topic is gone, or takes no more for now.
    pub fn publish(&self, publication: T) -> Result<(), SendError> {
        self.hub.send(TopicMessage::Publish(publication))
    }

    /// Subscribes an endpoint whose messages are the publications. What is published after the future
    /// has ended reaches it.
    pub fn subscribe(&self, subscriber: &RpcEndpointRef<T>) -> Ask<()> {
        let subscriber = subscriber.clone();
        self.hub
            .ask(|call| TopicMessage::Subscribe(subscriber, call))
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscriber: &RpcEndpointRef<T>) -> Ask<()> {
        let subscriber = subscriber.clone();
        self.hub
            .ask(|call| TopicMessage::Unsubscribe(subscriber, call))
    }

    /// Subscribes an endpoint with messages of its own, into which `wrap` makes the publications. The
    /// subscription ends with the endpoint, or when it is [ended](Subscription::end).
    ///
    /// # Errors
    ///
    /// The topic is gone.
    pub async fn subscribe_as<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        subscriber: &RpcEndpointRef<M>,
        wrap: impl Fn(T) -> M + Send + 'static,
    ) -> Result<Subscription, AskError> {
        let runtime = self.env.runtime();
        let name = format!("{}-{:016x}", subscriber.name(), runtime.random_u64());
        let adapter = Adapter {
            to: subscriber.clone(),
            wrap,
            published: PhantomData,
        };
        let adapter =
            self.env
                .setup_endpoint(&name, adapter)
                .map_err(|error| SendError::NotSetUp {
                    endpoint: subscriber.uri(),
                    reason: error,
                })?;
        let subscribed = self.subscribe(&adapter).await;
        if subscribed.is_err() {
            self.env.stop(&adapter);
        }
        subscribed.map(|()| Subscription {
            end: Box::new({
                let env = self.env.clone();
                move || env.stop(&adapter)
            }),
        })
    }
}

impl<T: Publication> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            hub: self.hub.clone(),
        }
    }
}

impl<T: Publication> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("hub", &self.hub).finish()
    }
}

/// A subscription of an endpoint with messages of its own. Dropping this does not end it.
pub struct Subscription {
    end: Box<dyn FnOnce() + Send>,
}

impl Subscription {
    /// Ends it, once what was published before has been delivered.
    pub fn end(self) {
        (self.end)();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// The endpoint behind a topic.
struct Hub<T> {
    subscribers: Vec<RpcEndpointRef<T>>,
}

impl<T: Publication> Hub<T> {
    fn publish(&mut self, publication: &T, ctx: &EndpointContext<TopicMessage<T>>) {
        // One that has gone is forgotten when its watch says so.
        for subscriber in &self.subscribers {
            if let Err(error) = subscriber.send(publication.clone()) {
                debug!(subscriber = %subscriber.uri(), %error, "a subscriber missed a publication");
                let receiver = subscriber.uri().into();
                ctx.env()
                    .inner()
                    .dead_letter(&receiver, DeadLetterReason::NotTaken, 1);
            }
        }
    }
}

impl<T: Publication> RpcEndpoint for Hub<T> {
    type Message = TopicMessage<T>;

    async fn receive(
        &mut self,
        message: TopicMessage<T>,
        ctx: &EndpointContext<TopicMessage<T>>,
    ) -> Result<(), EndpointError> {
        match message {
            TopicMessage::Publish(publication) => self.publish(&publication, ctx),
            TopicMessage::Subscribe(subscriber, call) => {
                if !self.subscribers.contains(&subscriber) {
                    ctx.watch(&subscriber);
                    self.subscribers.push(subscriber);
                }
                call.reply(());
            }
            TopicMessage::Unsubscribe(subscriber, call) => {
                self.subscribers.retain(|known| *known != subscriber);
                ctx.unwatch(&subscriber);
                call.reply(());
            }
            TopicMessage::Schema(call) => call.reply(schema_of::<T>().text),
        }
        Ok(())
    }

    /// Nothing that others do ends it, also not the end of who linked itself to it.
    async fn on_error(
        &mut self,
        error: EndpointError,
        ctx: &EndpointContext<TopicMessage<T>>,
    ) -> Directive {
        debug!(topic = ctx.self_ref().name(), %error, "a message went nowhere");
        Directive::Resume
    }

    async fn on_terminated(
        &mut self,
        ended: &Terminated,
        _: &EndpointContext<TopicMessage<T>>,
    ) -> Result<(), EndpointError> {
        self.subscribers
            .retain(|known| known.uri() != ended.endpoint);
        Ok(())
    }
}

/// Makes publications into messages of one subscriber.
struct Adapter<T, M, F> {
    to: RpcEndpointRef<M>,
    wrap: F,
    published: PhantomData<fn(T)>,
}

impl<T, M, F> RpcEndpoint for Adapter<T, M, F>
where
    T: Publication,
    M: Serialize + DeserializeOwned + Send + 'static,
    F: Fn(T) -> M + Send + 'static,
{
    type Message = T;

    async fn on_start(&mut self, ctx: &EndpointContext<T>) -> Result<(), EndpointError> {
        ctx.watch(&self.to);
        Ok(())
    }

    async fn receive(&mut self, message: T, ctx: &EndpointContext<T>) -> Result<(), EndpointError> {
        let message = (self.wrap)(message);
        let place = ctx.env().inner().unless_stopped(self.to.reserve()).await;
        match place {
            Some(Ok(place)) => place.send(message)?,
            // It is gone, or this environment is about to.
            Some(Err(_)) | None => ctx.stop(),
        }
        Ok(())
    }

    async fn on_terminated(
        &mut self,
        _: &Terminated,
        ctx: &EndpointContext<T>,
    ) -> Result<(), EndpointError> {
        ctx.stop();
        Ok(())
    }
}
