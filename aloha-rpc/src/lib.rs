//! Actors addressed by name across processes.
//!
//! An [`RpcEndpoint`] handles one message at a time. Its messages are an ordinary serde enum, and a variant that
//! expects an answer carries an [`RpcCallContext`]: no interface language, no macro, and a reply of the
//! wrong type does not compile. Others reach it through an [`RpcEndpointRef`], in the same [`RpcEnv`],
//! where messages are moved, or over TCP, where they are encoded.
//!
//! ```text
//!   RpcEndpointRef ──local──► Inbox ──► endpoint task
//!         │                     ▲
//!         └─remote─► Outbox     │ Dispatcher: name → inbox
//!                      │        │
//!             TransportClient   TransportServer ◄── frames
//! ```
//!
//! # Examples
//!
//! ```
//! use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Hello {
//!     SayHi(String, RpcCallContext<String>),
//!     SayBye(String, RpcCallContext<String>),
//! }
//!
//! struct HelloEndpoint;
//!
//! impl RpcEndpoint for HelloEndpoint {
//!     type Message = Hello;
//!
//!     async fn receive_and_reply(&mut self, message: Hello, _: &EndpointContext<Hello>) -> Result<(), EndpointError> {
//!         match message {
//!             Hello::SayHi(name, call) => call.reply(format!("Aloha: {name}")),
//!             Hello::SayBye(name, call) => call.reply(format!("Bye :), {name}")),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = RpcEnv::builder("hello-server").bind("127.0.0.1:0").start().await?;
//! server.setup_endpoint("hello-service", HelloEndpoint)?;
//!
//! let client = RpcEnv::client("hello-client").await?;
//! let address = server.address().expect("it listens");
//! let hello: RpcEndpointRef<Hello> = client.retrieve_endpoint_ref(address, "hello-service").await?;
//! assert_eq!(hello.ask(|call| Hello::SayHi("WALL-E".into(), call)).await?, "Aloha: WALL-E");
//! # client.shutdown().await;
//! # server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Send, ask, forward
//!
//! [`send`](RpcEndpointRef::send) queues a message and says whether it was taken; nothing else comes back.
//! [`ask`](RpcEndpointRef::ask) queues one as well and is a future of the answer. It has a time limit
//! ([`RpcConfig::ask_timeout`], [`ask_for`](RpcEndpointRef::ask_for)), and dropping it cancels the call, which the handler
//! can see. [`forward`](RpcEndpointRef::forward) passes a message on with the call it carries: the answer goes to whoever
//! asked first, and the asker's deadline and cancel go along.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Bank {
//!     Deposit(u32),
//!     Balance(RpcCallContext<u32>),
//! }
//!
//! #[derive(Default)]
//! struct Vault(u32);
//!
//! impl RpcEndpoint for Vault {
//!     type Message = Bank;
//!
//!     // What was sent comes here; what was asked or forwarded too, unless `receive_and_reply` is written.
//!     async fn receive(&mut self, message: Bank, _: &EndpointContext<Bank>) -> Result<(), EndpointError> {
//!         match message {
//!             Bank::Deposit(amount) => self.0 += amount,
//!             Bank::Balance(call) => call.reply(self.0),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! struct Counter(RpcEndpointRef<Bank>);
//!
//! impl RpcEndpoint for Counter {
//!     type Message = Bank;
//!
//!     async fn receive(&mut self, message: Bank, _: &EndpointContext<Bank>) -> Result<(), EndpointError> {
//!         Ok(self.0.send(message)?)
//!     }
//!
//!     async fn receive_and_reply(&mut self, message: Bank, _: &EndpointContext<Bank>) -> Result<(), EndpointError> {
//!         Ok(self.0.forward(message)?)
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("bank").await?;
//!
//! let vault = env.setup_endpoint("vault", Vault::default())?;
//! let counter = env.setup_endpoint("counter", Counter(vault))?;
//! counter.send(Bank::Deposit(30))?;
//! counter.send(Bank::Deposit(12))?;
//! assert_eq!(counter.ask(Bank::Balance).await?, 42);
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! An endpoint handles nothing else while its handler waits. One that awaits the answer of another should leave that to a
//! task ([`EndpointContext::spawn`]), and one that awaits an answer of its own gets none.
//!
//! # References and calls travel
//!
//! An [`RpcCallContext`] may be kept and answered later, by any task, or put into another message. An [`RpcEndpointRef`]
//! may stand in any message or reply. Both work wherever they arrive; outside of messages neither can be serialised.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Debug, Serialize, Deserialize)]
//! enum ToRace {
//!     /// Who is to be told, and the call that is answered when all are there.
//!     Join(RpcEndpointRef<ToRunner>, RpcCallContext<usize>),
//! }
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! enum ToRunner {
//!     Go,
//! }
//!
//! #[derive(Default)]
//! struct Race {
//!     waiting: Vec<(RpcEndpointRef<ToRunner>, RpcCallContext<usize>)>,
//! }
//!
//! impl RpcEndpoint for Race {
//!     type Message = ToRace;
//!
//!     async fn receive(&mut self, message: ToRace, _: &EndpointContext<ToRace>) -> Result<(), EndpointError> {
//!         let ToRace::Join(runner, call) = message;
//!         self.waiting.push((runner, call));
//!         let runners = self.waiting.len();
//!         if runners == 2 {
//!             for (runner, call) in self.waiting.drain(..) {
//!                 runner.send(ToRunner::Go)?;
//!                 call.reply(runners);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//! # struct Runner;
//! # impl RpcEndpoint for Runner {
//! #     type Message = ToRunner;
//! #     async fn receive(&mut self, _: ToRunner, _: &EndpointContext<ToRunner>) -> Result<(), EndpointError> { Ok(()) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("race").await?;
//! # let race = env.setup_endpoint("race", Race::default())?;
//! # let (one, two) = (env.setup_endpoint("one", Runner)?, env.setup_endpoint("two", Runner)?);
//!
//! let first = race.ask(|call| ToRace::Join(one, call));
//! let second = race.ask(|call| ToRace::Join(two, call));
//! assert_eq!((first.await?, second.await?), (2, 2));
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A reference to an endpoint of an environment that listens is its address. An environment without a port
//! ([`RpcEnv::client`]) can be called all the same, over the connection that it made itself. Where a reference to one of
//! its endpoints is passed on further, the environment that passes it on relays messages and answers, for as long as both
//! connections live. A message may carry several calls, a reply none.
//!
//! # How asks end
//!
//! Each ask ends once: with the answer, or with an [`AskError`]. [`AskError::may_have_been_seen`] says whether asking again
//! may do it twice, [`AskError::is_overload`] whether waiting helps.
//!
//! | error | what happened | seen? | what to do |
//! |---|---|---|---|
//! | [`NotSent`](AskError::NotSent) | it was refused here: a bound, a stopped endpoint, a message too large | no | after an overload [`reserve`](RpcEndpointRef::reserve), else as the cause says |
//! | [`NotConnected`](AskError::NotConnected) | no connection came about | no | ask again later, or another |
//! | [`ContextMissing`](AskError::ContextMissing) | the message to another environment does not carry the call that `ask` handed out | no | put it in |
//! | [`EndpointNotFound`](AskError::EndpointNotFound) | there is no endpoint of that name | perhaps, by who passed it on | look it up again, or another |
//! | [`EndpointStopped`](AskError::EndpointStopped) | it stopped before it came to the message | perhaps, by who passed it on | as above |
//! | [`Overloaded`](AskError::Overloaded) | newer messages took its place, or a group has no members | perhaps, by who passed it on | ask again later |
//! | [`Undecodable`](AskError::Undecodable) | the other side cannot read the message | perhaps, by who passed it on | compare the two programs |
//! | [`Cancelled`](AskError::Cancelled) | somebody on the way gave the call up before it was handled | perhaps | |
//! | [`TimedOut`](AskError::TimedOut) | the time limit passed first | perhaps | ask again if twice does no harm |
//! | [`Disconnected`](AskError::Disconnected) | the connection ended first | perhaps | as above |
//! | [`RelayLost`](AskError::RelayLost) | who passed the call on lost the way to the one who was to answer | perhaps | as above |
//! | [`EnvironmentStopped`](AskError::EnvironmentStopped) | this environment was shut down first | perhaps | |
//! | [`Dropped`](AskError::Dropped) | the call was dropped without an answer, also by the end of the endpoint | yes | mend the endpoint |
//! | [`Panicked`](AskError::Panicked) | a panic dropped the call | yes | mend the endpoint |
//! | [`BadReply`](AskError::BadReply) | the answer cannot be encoded or decoded, is too large, or found too many bytes waiting for the asker | yes | compare the programs, or raise [`TransportConfig::frame_bytes_max`] |
//! | [`Failed`](AskError::Failed) | the endpoint answered with [`send_failure`](RpcCallContext::send_failure) | yes | as its `kind` says |
//!
//! After a `forward` the error comes from whoever had the call by then, under the name of the one who was asked; the latter
//! has seen the message whatever the error says. A handler that returns an error answers nothing by that: the calls that it
//! held are dropped.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)]
//! # enum Shop { Buy(u32, RpcCallContext<u32>) }
//! # struct Till;
//! # impl RpcEndpoint for Till {
//! #     type Message = Shop;
//! async fn receive(&mut self, Shop::Buy(coins, call): Shop, _: &EndpointContext<Shop>) -> Result<(), EndpointError> {
//!     match coins {
//!         0 => call.send_failure(EndpointError::new("poor", "it costs one")),
//!         coins => call.reply(coins - 1),
//!     }
//!     Ok(())
//! }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("shop").await?;
//! # let till = env.setup_endpoint("till", Till)?;
//!
//! match till.ask(|call| Shop::Buy(0, call)).await {
//!     Ok(change) => println!("bought, {change} back"),
//!     Err(AskError::Failed { kind, .. }) if kind == "poor" => println!("not today"),
//!     Err(error) if error.is_overload() => println!("later: {error}"),
//!     Err(error) if error.may_have_been_seen() => println!("bought or not: {error}"),
//!     Err(error) => println!("not bought: {error}"),
//! }
//! # let failed = till.ask(|call| Shop::Buy(0, call)).await;
//! # assert!(matches!(failed, Err(AskError::Failed { kind, .. }) if kind == "poor"));
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Bounds and back-pressure
//!
//! Every queue has a bound. An inbox has two, in messages and in bytes, once for local messages and once for remote ones
//! ([`RpcConfig`], or for one endpoint [`EndpointBuilder`]). At a bound `send` and `ask` refuse at once;
//! [`reserve`](RpcEndpointRef::reserve) waits for a place, and the [`Permit`] takes one message to it. With
//! [`Overflow::DropOldest`] the oldest message makes room instead.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)] enum Log { Line(String) }
//! # struct Logger;
//! # impl RpcEndpoint for Logger {
//! #     type Message = Log;
//! #     async fn receive(&mut self, _: Log, _: &EndpointContext<Log>) -> Result<(), EndpointError> { Ok(()) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("log").await?;
//! let log = env
//!     .endpoint("log")
//!     .messages_max(2)
//!     .weight(|Log::Line(line)| line.len())
//!     .setup(Logger)?;
//! log.send(Log::Line("one".into()))?;
//! log.send(Log::Line("two".into()))?;
//! let refused = log.send(Log::Line("three".into())).expect_err("two wait");
//! assert!(refused.is_overload());
//!
//! let place = log.reserve().await?;
//! place.send(Log::Line("three".into()))?;
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! Over the wire a sender spends credit, which each endpoint gives to each connection: 16,384 messages or 1 MiB, whichever
//! comes first, to begin with. Once half of either is taken up, that one goes over to the inbox's limit of its kind, divided by the connections
//! that send to the endpoint. So a slow endpoint holds back those who send to it and nobody else, but a small limit takes
//! hold only after the beginning. Bytes that wait for one peer have a bound of their own
//! ([`TransportConfig::outbound_bytes_max`]).
//!
//! What was taken and is not handled after all is a [`DeadLetter`]: counted ([`RpcEnv::dead_letters`]), shown
//! ([`RpcEnv::observe_dead_letters`]), and if it was asked, its asker is told. A stop, and news of connections and of
//! watched endpoints, need no place.
//!
//! # Failure: on_error, restarts, watch, link, drain
//!
//! Errors and panics of callbacks come to [`RpcEndpoint::on_error`], which decides: [`Directive::Resume`], `Restart` or
//! `Stop`. By default an endpoint goes on, or after a panic is restarted if it has a factory. A restart waits a little,
//! longer each time ([`RestartPolicy`]). It loses the message at hand, the state and the timers; what waits is kept, also
//! what was put aside.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # use std::time::Duration;
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Job {
//!     Poison,
//!     Done(RpcCallContext<u32>),
//! }
//! # struct Worker;
//! # impl RpcEndpoint for Worker {
//! #     type Message = Job;
//! #     async fn receive(&mut self, job: Job, _: &EndpointContext<Job>) -> Result<(), EndpointError> {
//! #         match job { Job::Poison => panic!("poison"), Job::Done(call) => call.reply(0) }
//! #         Ok(())
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("work").await?;
//!
//! let policy = RestartPolicy { restarts_max: 1, backoff_min: Duration::from_millis(1), ..RestartPolicy::default() };
//! let worker = env.endpoint("worker").setup_with(policy, || Worker)?;
//! let watch = env.watch(&worker);
//! worker.send(Job::Poison)?;
//! assert_eq!(worker.ask(Job::Done).await?, 0, "it was made anew");
//! worker.send(Job::Poison)?;
//! assert!(matches!(watch.await.reason, Termination::Failed { kind, .. } if kind == EndpointError::PANIC));
//!
//! let spare = env.setup_endpoint("spare", Worker)?;
//! assert_eq!(env.drain(&spare, Duration::from_secs(5)).await, Termination::Stopped);
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! [`RpcEnv::watch`] and [`EndpointContext::watch`] hear of the end of an endpoint, here or elsewhere, and of the end of
//! the connection to it ([`Termination::Disconnected`]: it may live). A peer that falls silent while its connection stands
//! is not noticed until the system ends the connection: asks end at their limits, watches wait. [`EndpointContext::link`]
//! ties two lives together. [`RpcEnv::stop`] ends a local endpoint once it has handled what waits, [`RpcEnv::drain`] no
//! later than a limit, apart from the handler that runs; [`RpcEnv::shutdown`] and [`RpcEnv::shutdown_within`] do so with
//! all of them.
//!
//! # Timers, stash, behaviours
//!
//! An endpoint sends itself messages, later ([`EndpointContext::send_after`]) or again and again
//! ([`send_every`](EndpointContext::send_every)); they end with it, and with a restart. What it cannot handle yet it puts
//! aside ([`stash`](EndpointContext::stash)). Where states are types of their own, each is a [`Behavior`], written with the
//! crate `async-trait`:
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # use std::time::Duration;
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Store {
//!     Loaded(String),
//!     Expired,
//!     Get(RpcCallContext<String>),
//! }
//!
//! struct Loading;
//! struct Ready(String);
//!
//! #[async_trait::async_trait]
//! impl Behavior<Store> for Loading {
//!     async fn receive(&mut self, message: Store, ctx: &EndpointContext<Store>) -> Result<Next<Store>, EndpointError> {
//!         match message {
//!             Store::Loaded(value) => {
//!                 ctx.unstash_all();
//!                 ctx.send_after(Duration::from_secs(60), Store::Expired);
//!                 return Ok(Next::become_now(Ready(value)));
//!             }
//!             // When the stash is full, the message comes back; dropped, its asker is told.
//!             early @ Store::Get(_) => drop(ctx.stash(early)),
//!             Store::Expired => {}
//!         }
//!         Ok(Next::Same)
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl Behavior<Store> for Ready {
//!     async fn receive(&mut self, message: Store, _: &EndpointContext<Store>) -> Result<Next<Store>, EndpointError> {
//!         match message {
//!             Store::Get(call) => call.reply(self.0.clone()),
//!             Store::Loaded(value) => self.0 = value,
//!             Store::Expired => return Ok(Next::become_now(Loading)),
//!         }
//!         Ok(Next::Same)
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("store").await?;
//!
//! let store = env.setup_endpoint("store", BehaviorEndpoint::new(Loading))?;
//! let early = store.ask(Store::Get);
//! store.send(Store::Loaded("value".into()))?;
//! assert_eq!(early.await?, "value");
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Concurrent endpoints and threads
//!
//! A [`ConcurrentEndpoint`] handles up to so many messages at once, each on a task of its own, and has `&self` alone.
//! Handlers that block a thread belong on one of their own.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)] enum Fetch { Page(u32, RpcCallContext<u32>) }
//! struct Fetcher;
//!
//! impl ConcurrentEndpoint for Fetcher {
//!     type Message = Fetch;
//!
//!     async fn receive(&self, Fetch::Page(page, call): Fetch, _: &EndpointContext<Fetch>) -> Result<(), EndpointError> {
//!         call.reply(page);
//!         Ok(())
//!     }
//! }
//! # struct Disk;
//! # impl RpcEndpoint for Disk { type Message = Fetch; }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("pages").await?;
//!
//! let fetcher = env.endpoint("fetcher").setup_concurrent(4, Fetcher)?;
//! let disk = env.endpoint("disk").own_thread().setup(Disk)?;
//! # assert_eq!(fetcher.ask(|call| Fetch::Page(3, call)).await?, 3);
//! # drop(disk);
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! It has no factory: after a panic it goes on, unless its [`on_error`](ConcurrentEndpoint::on_error) stops it. Code that
//! is not async asks with [`RpcEndpointRef::ask_blocking`].
//!
//! # Groups and topics
//!
//! A [`Group`] is one name for several endpoints, here or elsewhere. Its members get messages in turn, and one that takes
//! nothing now is passed over. A [`Topic`] gives each publication to all who subscribed; one who takes no more misses it.
//! Who ends, or is out of reach, leaves either.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)] enum Work { Who(RpcCallContext<u32>), News(String) }
//! # struct Member(u32);
//! # impl RpcEndpoint for Member {
//! #     type Message = Work;
//! #     async fn receive(&mut self, work: Work, _: &EndpointContext<Work>) -> Result<(), EndpointError> {
//! #         if let Work::Who(call) = work { call.reply(self.0) }
//! #         Ok(())
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = RpcEnv::client("group").await?;
//! # let (one, two) = (env.setup_endpoint("one", Member(1))?, env.setup_endpoint("two", Member(2))?);
//! let group = env.setup_group::<Work>("workers")?;
//! group.join(&one);
//! group.join(&two);
//! let workers = group.endpoint_ref();
//! assert_eq!((workers.ask(Work::Who).await?, workers.ask(Work::Who).await?), (1, 2));
//! for answer in group.ask_all(Work::Who) {
//!     answer.await?;
//! }
//!
//! let weather = env.setup_topic::<String>("weather")?;
//! weather.subscribe_as(&one, Work::News).await?;
//! weather.publish("sunny".into())?;
//! # env.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Order and loss
//!
//! - Messages of one environment to one endpoint are taken up in the order they were sent, also those that were sent while
//!   the connection was being made. A reference that leads through a relay is a way of its own.
//! - Senders in different environments have no order between them, nor has a local sender with a remote one. Timers,
//!   messages put aside and news by the control lane do not stand in line with messages.
//! - When a connection ends, the next message makes a new one. Around that, one stretch of messages may be lost: those that
//!   were written and not received, and those that were queued. What comes later comes in order, and nothing comes twice.
//! - Asks in that stretch end with [`AskError::Disconnected`], or with [`AskError::NotConnected`] where the connection
//!   never was. Sent messages that had not been written are counted, as [`DeadLetterReason::ConnectionLost`]; so is all of
//!   a write that failed, of which some may have arrived. What was written and not received is known to nobody.
//!
//! Who must know asks. A connection that is closed in good order loses nothing: one of an environment that is shut
//! down, or that nobody used for [`TransportConfig::idle_timeout`].
//!
//! # Connections
//!
//! A connection is made by the first message to an address, and again after it broke. Where that fails, further
//! attempts fail at once for a while: 50 ms, doubled each time up to 5 s. A peer that vanished or stands still is found by
//! ping, 40 s after its last byte at the latest, and all that waits for it ends with [`AskError::Disconnected`]. There
//! is one connection per peer, or [`TransportConfig::connections_per_peer`]; messages to one endpoint all take the same.
//!
//! An environment listens at a host and a port, also of IPv6 (`[::1]:7077`), or at a path of a Unix domain socket, which
//! its user alone can reach:
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Serialize, Deserialize)] enum Say { Hi(RpcCallContext<String>) }
//! # struct Greeter;
//! # impl RpcEndpoint for Greeter {
//! #     type Message = Say;
//! #     async fn receive(&mut self, Say::Hi(call): Say, _: &EndpointContext<Say>) -> Result<(), EndpointError> {
//! #         call.reply("hi".to_owned());
//! #         Ok(())
//! #     }
//! # }
//! # #[cfg(unix)]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = std::env::temp_dir().join(format!("greeter-{}.sock", std::process::id()));
//! let server = RpcEnv::builder("server").bind(format!("unix:{}", path.display())).start().await?;
//! server.setup_endpoint("greeter", Greeter)?;
//!
//! let client = RpcEnv::client("client").await?;
//! let uri = format!("aloha://greeter@unix:{}", path.display());
//! let greeter: RpcEndpointRef<Say> = client.retrieve_endpoint_ref_by_uri(&uri).await?;
//! assert_eq!(greeter.ask(Say::Hi).await?, "hi");
//! # client.shutdown().await;
//! # server.shutdown().await;
//! # Ok(()) }
//! # #[cfg(not(unix))]
//! # fn main() {}
//! ```
//!
//! # Seen from outside
//!
//! [`RpcEnv::snapshot`] has numbers of each endpoint and connection. A [`Metrics`] hears of each handled message, error,
//! restart, dead letter and connection; without one no time is measured. With [`RpcConfig::trace`], messages carry a
//! [`TraceContext`] on from handler to handler, and handlers run in a `tracing` span.
//!
//! ```
//! # use aloha_rpc::*;
//! # use serde::{Deserialize, Serialize};
//! # use std::sync::Arc;
//! # use std::sync::atomic::{AtomicU64, Ordering};
//! # use std::time::Duration;
//! # #[derive(Debug, Serialize, Deserialize)] enum Ping { Ping(RpcCallContext<()>) }
//! # struct Echo;
//! # impl RpcEndpoint for Echo {
//! #     type Message = Ping;
//! #     async fn receive(&mut self, Ping::Ping(call): Ping, _: &EndpointContext<Ping>) -> Result<(), EndpointError> {
//! #         assert!(TraceContext::current().is_some());
//! #         call.reply(());
//! #         Ok(())
//! #     }
//! # }
//! struct Handled(Arc<AtomicU64>);
//!
//! impl Metrics for Handled {
//!     fn on_handled(&self, _endpoint: &str, _took: Duration) {
//!         self.0.fetch_add(1, Ordering::Relaxed);
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!
//! let handled = Arc::new(AtomicU64::new(0));
//! let config = RpcConfig { trace: true, ..RpcConfig::default() };
//! let env = RpcEnv::builder("seen").config(config).metrics(Handled(Arc::clone(&handled))).start().await?;
//! let mut letters = env.observe_dead_letters();
//! let echo = env.setup_endpoint("echo", Echo)?;
//! echo.ask(Ping::Ping).await?;
//! # // The reply leaves before the handler has ended.
//! # tokio::task::yield_now().await;
//! assert_eq!(env.snapshot().endpoints[0].handled, 1);
//! assert_eq!(handled.load(Ordering::Relaxed), 1);
//! env.shutdown().await;
//! assert_eq!(letters.next().await, None);
//! # Ok(()) }
//! ```
//!
//! # Testing
//!
//! With the feature `testing`, a `testing::Probe` stands in for an endpoint, and a `testing::Simulation` joins environments
//! by a network of delays, partitions and crashes, under a clock that jumps. The same seed gives the same run.
//!
//! ```
//! # use aloha_rpc::*;
//! use aloha_rpc::testing::{Probe, Simulation};
//! # use serde::{Deserialize, Serialize};
//! # use std::time::Duration;
//! # #[derive(Debug, Serialize, Deserialize)] enum Ping { Ping(RpcCallContext<u32>) }
//!
//! Simulation::run(7, async |sim| {
//!     let (server, client) = (sim.env("server").await, sim.client("client").await);
//!     let mut probe = Probe::<Ping>::set_up(&server, "ping");
//!     let address = server.address().expect("it listens");
//!     let ping: RpcEndpointRef<Ping> = client.retrieve_endpoint_ref(address, "ping").await.expect("it is there");
//!
//!     sim.network().partition("server", "client");
//!     let asked = ping.ask(Ping::Ping);
//!     probe.expect_none(Duration::from_secs(30)).await;
//!     sim.network().heal("server", "client");
//!     let Ping::Ping(call) = probe.next().await;
//!     call.reply(7);
//!     assert_eq!(asked.await.expect("it healed in time"), 7);
//! });
//! ```

mod address;
mod ask;
mod behavior;
#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod call_context;
mod codec;
mod concurrent;
mod config;
mod context;
#[cfg(test)]
mod corners;
mod dead_letter;
mod deadlines;
mod dispatcher;
mod endpoint;
mod endpoint_ref;
mod env;
mod env_builder;
mod envelope;
mod error;
mod flow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod inbox;
mod link;
mod mail;
mod mailbox;
mod metrics;
mod outbox;
mod permit;
mod progress;
mod relay;
mod remote;
mod remote_call;
mod remote_lane;
mod running;
mod schema;
mod scope;
mod setup;
mod supervision;
mod target;
mod timers;
mod topic;
mod trace;
mod travel;
mod verifier;
mod waiters;
mod watch;

/// What a model checker exchanges for its own.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
}

pub use address::{AddressError, EndpointAddress, RpcAddress};
pub use aloha_transport::{
    BindError, ConfigError, ConnectError, LimitOf, Network, Runtime, TokioRuntime, TransportConfig,
};
pub use ask::Ask;
pub use behavior::{Behavior, BehaviorEndpoint, Next};
pub use call_context::RpcCallContext;
pub use codec::{Codec, CodecError};
pub use concurrent::ConcurrentEndpoint;
pub use config::RpcConfig;
pub use context::{EndpointContext, StashFull};
pub use dead_letter::{DeadLetter, DeadLetterReason, DeadLetters};
pub use endpoint::RpcEndpoint;
pub use endpoint_ref::RpcEndpointRef;
pub use env::RpcEnv;
pub use env_builder::RpcEnvBuilder;
pub use error::{AskError, EndpointError, LookupError, SendError, SetupError, StartError};
pub use group::Group;
pub use inbox::Overflow;
pub use metrics::{ConnectionSnapshot, EndpointSnapshot, EnvSnapshot, Metrics};
pub use permit::Permit;
pub use setup::EndpointBuilder;
pub use supervision::{Directive, RestartPolicy, Terminated, Termination};
pub use timers::TimerKey;
pub use topic::{Publication, Subscription, Topic};
pub use trace::TraceContext;
pub use watch::Watch;

#[cfg(feature = "testing")]
pub mod testing;
