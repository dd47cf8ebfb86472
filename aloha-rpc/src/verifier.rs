//! The built-in endpoint of every environment: do you host this name, for this type of message? Tell me when it ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::call_context::RpcCallContext;
use crate::context::EndpointContext;
use crate::endpoint::RpcEndpoint;
use crate::error::EndpointError;
use crate::mailbox::Mailbox;
use crate::schema::Schema;
use crate::supervision::{Directive, Termination};
use crate::watch::end_linked;

/// The name of the verifier in every environment.
pub(crate) const NAME: &str = "endpoint-verifier";

/// Questions to an environment. Later versions append variants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verify {
    CheckExistence {
        name: String,
        schema: String,
        call: RpcCallContext<Existence>,
    },
    /// Answered when the endpoint ends.
    Watch {
        name: String,
        call: RpcCallContext<Termination>,
    },
    /// As `Watch`; and when the call is cancelled, the endpoint `from` has ended.
    Link {
        name: String,
        from: String,
        call: RpcCallContext<Termination>,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Existence {
    Exists,
    Missing,
    WrongType { expected: String },
}

impl Existence {
    /// Whether what was looked for with this type is there. A verifier of an earlier version knows only of types that
    /// are the same, and leaves it to the asker whether the difference matters.
    pub(crate) fn is_found_by(&self, schema: &Schema) -> bool {
        match self {
            Self::Exists => true,
            Self::Missing => false,
            Self::WrongType { expected } => schema.speaks(expected),
        }
    }
}

pub(crate) struct RpcEndpointVerifier;

impl RpcEndpoint for RpcEndpointVerifier {
    type Message = Verify;

    async fn receive_and_reply(
        &mut self,
        message: Verify,
        ctx: &EndpointContext<Verify>,
    ) -> Result<(), EndpointError> {
        let env = ctx.env().inner();
        let find = |name: &str| env.dispatcher.find(name);
        match message {
            Verify::CheckExistence { name, schema, call } => call.reply(match find(&name) {
                None => Existence::Missing,
                Some(found) => {
                    let expected = (found.schema)();
                    if expected.speaks(&schema) {
                        Existence::Exists
                    } else {
                        let expected = expected.text;
                        Existence::WrongType { expected }
                    }
                }
            }),
            Verify::Watch { name, call } => match find(&name) {
                None => call.reply(Termination::NotFound),
                Some(found) => env.spawn(tell_the_end(found.mailbox, None, call)),
            },
            Verify::Link { name, from, call } => match find(&name) {
                None => call.reply(Termination::NotFound),
                Some(found) => env.spawn(tell_the_end(found.mailbox, Some(from), call)),
            },
        }
        Ok(())
    }

    /// Nothing that others do ends it: neither a message it cannot read nor a link to it.
    async fn on_error(&mut self, error: EndpointError, _: &EndpointContext<Verify>) -> Directive {
        debug!(%error, "a question that the verifier cannot answer");
        Directive::Resume
    }
}

async fn tell_the_end(
    mailbox: Arc<dyn Mailbox>,
    linked: Option<String>,
    call: RpcCallContext<Termination>,
) {
    let ended = mailbox.watch();
    tokio::select! {
        biased;
        ended = ended => call.reply(ended.unwrap_or(Termination::Stopped)),
        () = call.cancelled() => {
            if let Some(endpoint) = linked {
                let reason = "it ended, or the connection to it did".to_owned();
                end_linked(&*mailbox, endpoint, Termination::Disconnected { reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schema_of;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Hello {
        SayHi,
        SayBye,
    }

    #[test]
    fn an_earlier_verifier_that_knows_fewer_variants_is_overruled_and_another_type_is_not() {
        let schema = schema_of::<Hello>();
        let answered = |expected: &str| Existence::WrongType {
            expected: expected.to_owned(),
        };
        assert!(answered("Hello{SayHi}").is_found_by(&schema));
        assert!(!answered("Hello{SayBye}").is_found_by(&schema));
        assert!(!answered("Name{SayHi,SayBye}").is_found_by(&schema));
        assert!(Existence::Exists.is_found_by(&schema) && !Existence::Missing.is_found_by(&schema));
        assert_ne!(Hello::SayHi, Hello::SayBye);
    }
}
