//! Two ends whose message types differ by appended variants: what both know goes on, what one does not know fails alone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use aloha_rpc::{
    AskError, Codec, EndpointContext, EndpointError, LookupError, RpcEndpoint, RpcEndpointRef,
};
use common::{Join, Pair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// As it was.
mod before {
    use aloha_rpc::{RpcCallContext, RpcEndpointRef};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) enum Desk {
        Count(RpcCallContext<u32>),
        Add(u32),
        /// Asks that one, and tells what it says.
        Pass(RpcEndpointRef<Self>, RpcCallContext<u32>),
    }
}

/// As it has become.
mod after {
    use aloha_rpc::{RpcCallContext, RpcEndpointRef};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) enum Desk {
        Count(RpcCallContext<u32>),
        Add(u32),
        Pass(RpcEndpointRef<Self>, RpcCallContext<u32>),
        Twice(RpcCallContext<u32>),
        /// Holds what an end that does not know it must let go of.
        Both(
            RpcEndpointRef<Self>,
            RpcCallContext<u32>,
            RpcCallContext<u32>,
        ),
        Reset,
    }
}

/// Another type of the same name.
mod strange {
    use aloha_rpc::RpcCallContext;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) enum Desk {
        Count(RpcCallContext<u32>),
        Subtract(u32),
    }
}

struct Before(u32);

impl RpcEndpoint for Before {
    type Message = before::Desk;
    async fn receive(
        &mut self,
        message: before::Desk,
        ctx: &EndpointContext<before::Desk>,
    ) -> Result<(), EndpointError> {
        match message {
            before::Desk::Count(call) => call.reply(self.0),
            before::Desk::Add(more) => self.0 += more,
            before::Desk::Pass(next, call) => {
                ctx.spawn(async move {
                    match next.ask(before::Desk::Count).await {
                        Ok(count) => call.reply(count),
                        Err(error) => {
                            call.send_failure(EndpointError::new("next", error.to_string()));
                        }
                    }
                });
            }
        }
        Ok(())
    }
}

struct After(u32);

impl RpcEndpoint for After {
    type Message = after::Desk;
    async fn receive(
        &mut self,
        message: after::Desk,
        ctx: &EndpointContext<after::Desk>,
    ) -> Result<(), EndpointError> {
        match message {
            after::Desk::Count(call) => call.reply(self.0),
            after::Desk::Add(more) => self.0 += more,
            after::Desk::Pass(next, call) => {
                ctx.spawn(async move {
                    match next.ask(after::Desk::Twice).await {
                        Ok(count) => call.reply(count),
                        Err(error) => {
                            call.send_failure(EndpointError::new("next", error.to_string()));
                        }
                    }
                });
            }
            after::Desk::Twice(call) => call.reply(self.0 * 2),
            after::Desk::Both(_, one, two) => {
                one.reply(1);
                two.reply(2);
            }
            after::Desk::Reset => self.0 = 0,
        }
        Ok(())
    }
}

const CODECS: [Codec; 2] = [Codec::Bincode, Codec::Postcard];

async fn find<M: Serialize + DeserializeOwned + Send + 'static>(
    pair: &Pair,
    name: &str,
) -> Result<RpcEndpointRef<M>, LookupError> {
    let address = pair.server.address().expect("it listens");
    pair.caller.retrieve_endpoint_ref(address, name).await
}

fn assert_unknown(error: &AskError, variant: u32) {
    let expected = format!("variant {variant} of Desk is not known here");
    assert!(
        matches!(error, AskError::Undecodable { text, .. } if text.contains(&expected)),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_asker_speaks_with_an_older_end_but_for_what_that_does_not_know() {
    for codec in CODECS {
        let pair = Pair::new(Join::Tcp, codec).await;
        pair.server.setup_endpoint("desk", Before(3)).unwrap();
        let desk: RpcEndpointRef<after::Desk> = find(&pair, "desk").await.unwrap();
        let refused = desk.ask(after::Desk::Twice).await.unwrap_err();
        assert_unknown(&refused, 3);
        // Neither the connection nor the endpoint suffers, nor what was sent before and after.
        desk.send(after::Desk::Add(1)).unwrap();
        desk.send(after::Desk::Reset).unwrap();
        let early = desk.ask(after::Desk::Count);
        let refused = desk.ask(after::Desk::Twice);
        desk.send(after::Desk::Add(1)).unwrap();
        assert_eq!(early.await.unwrap(), 4);
        assert_unknown(&refused.await.unwrap_err(), 3);
        assert_eq!(desk.ask(after::Desk::Count).await.unwrap(), 5);
        assert_eq!(pair.caller.snapshot().connections.len(), 1);
        pair.shutdown().await;
    }
}

#[tokio::test]
async fn what_lies_in_an_unknown_message_is_let_go_of_at_once() {
    for codec in CODECS {
        let pair = Pair::new(Join::Tcp, codec).await;
        pair.server.setup_endpoint("desk", Before(3)).unwrap();
        let desk: RpcEndpointRef<after::Desk> = find(&pair, "desk").await.unwrap();
        // It hands the call of its asker on, together with one of its own and a reference.
        let own = pair.caller.setup_endpoint("own", After(7)).unwrap();
        let (failed, mut failures) = mpsc::channel(1);
        let hands_on = HandsOn {
            desk: desk.clone(),
            own,
            failed,
        };
        let hands_on = pair.caller.setup_endpoint("hands-on", hands_on).unwrap();
        let answer = hands_on.ask(|call| call).await;
        assert_unknown(&failures.recv().await.unwrap(), 4);
        let text = answer.unwrap_err().to_string();
        assert!(
            text.contains("variant 4 of Desk is not known here"),
            "{text}"
        );
        assert_eq!(desk.ask(after::Desk::Count).await.unwrap(), 3);
        pair.shutdown().await;
    }
}

/// Asks the desk with a reference, its asker's call and the call of its own question.
struct HandsOn {
    desk: RpcEndpointRef<after::Desk>,
    own: RpcEndpointRef<after::Desk>,
    failed: mpsc::Sender<AskError>,
}

impl RpcEndpoint for HandsOn {
    type Message = aloha_rpc::RpcCallContext<u32>;
    async fn receive(
        &mut self,
        asked: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> Result<(), EndpointError> {
        let (own, failed) = (self.own.clone(), self.failed.clone());
        let question = self.desk.ask(|call| after::Desk::Both(own, asked, call));
        ctx.spawn(async move {
            let error = question.await.expect_err("nobody knows it");
            failed.send(error).await.expect("the test waits for it");
        });
        Ok(())
    }
}

#[tokio::test]
async fn an_older_asker_speaks_with_a_newer_end() {
    for codec in CODECS {
        let pair = Pair::new(Join::Tcp, codec).await;
        pair.server.setup_endpoint("desk", After(3)).unwrap();
        let desk: RpcEndpointRef<before::Desk> = find(&pair, "desk").await.unwrap();
        desk.send(before::Desk::Add(1)).unwrap();
        assert_eq!(desk.ask(before::Desk::Count).await.unwrap(), 4);
        pair.shutdown().await;
    }
}

#[tokio::test]
async fn references_inside_messages_join_both_versions() {
    for codec in CODECS {
        let pair = Pair::new(Join::Tcp, codec).await;
        pair.server.setup_endpoint("old", Before(3)).unwrap();
        pair.server.setup_endpoint("new", After(5)).unwrap();
        // To an older end goes a reference to a newer one of the caller's, and it asks what both know.
        let own = pair.caller.setup_endpoint("own", After(7)).unwrap();
        let old: RpcEndpointRef<after::Desk> = find(&pair, "old").await.unwrap();
        let answer = old.ask(|call| after::Desk::Pass(own.clone(), call)).await;
        assert_eq!(answer.unwrap(), 7);
        // To a newer end goes a reference to an older one, and it asks what that does not know.
        let own = pair.caller.setup_endpoint("own-old", Before(9)).unwrap();
        let new: RpcEndpointRef<before::Desk> = find(&pair, "new").await.unwrap();
        let answer = new.ask(|call| before::Desk::Pass(own.clone(), call)).await;
        let text = answer.unwrap_err().to_string();
        assert!(
            text.contains("variant 3 of Desk is not known here"),
            "{text}"
        );
        assert_eq!(own.ask(before::Desk::Count).await.unwrap(), 9);
        assert_eq!(new.ask(before::Desk::Count).await.unwrap(), 5);
        pair.shutdown().await;
    }
}

#[tokio::test]
async fn other_types_are_refused_at_the_look_up() {
    let pair = Pair::new(Join::Tcp, Codec::Bincode).await;
    pair.server.setup_endpoint("desk", After(3)).unwrap();
    let refused = find::<strange::Desk>(&pair, "desk").await.unwrap_err();
    assert!(
        matches!(&refused, LookupError::WrongType { given, .. } if given == "Desk{Count,Subtract}"),
        "{refused}"
    );
    pair.shutdown().await;
}
