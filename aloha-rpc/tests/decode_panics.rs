//! A message whose decoding panics, with something that panics again when it is dropped.

mod common;

use std::panic::panic_any;
use std::time::Duration;

use aloha_rpc::{AskError, Codec, EndpointContext, EndpointError, RpcCallContext, RpcEndpoint};
use common::{Join, Pair};
use serde::{Deserialize, Deserializer, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Bad(Bad, RpcCallContext<u32>),
    Good(RpcCallContext<u32>),
}

#[derive(Debug, Serialize)]
struct Bad(u8);

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic_any(Twice)
    }
}

struct Twice;

impl Drop for Twice {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("on purpose");
        }
    }
}

struct Answerer;

impl RpcEndpoint for Answerer {
    type Message = Ask;

    async fn receive(
        &mut self,
        message: Ask,
        _: &EndpointContext<Ask>,
    ) -> Result<(), EndpointError> {
        let (Ask::Good(call) | Ask::Bad(_, call)) = message;
        call.reply(7);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_panics_again_is_answered_and_leaves_the_next_message_alone() {
    let pair = Pair::new(Join::Memory, Codec::Bincode).await;
    let answerer = pair.set_up("answerer", Answerer).await;
    let bad = answerer.ask(|call| Ask::Bad(Bad(0), call));
    let good = answerer.ask(Ask::Good);
    let bad = tokio::time::timeout(Duration::from_secs(5), bad).await;
    let bad = bad.expect("it is answered").expect_err("undecodable");
    assert!(matches!(bad, AskError::Undecodable { .. }), "{bad:?}");
    assert_eq!(good.await.expect("a reply"), 7);
}
