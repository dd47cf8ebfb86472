//! The built-in endpoint that answers: do you host this name, for this type of message?

use serde::{Deserialize, Serialize};

use crate::call_context::RpcCallContext;
use crate::endpoint::{EndpointContext, RpcEndpoint};
use crate::error::EndpointError;

/// The name of the verifier in every environment.
pub(crate) const NAME: &str = "endpoint-verifier";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verify {
    CheckExistence {
        name: String,
        schema: String,
        call: RpcCallContext<Existence>,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Existence {
    Exists,
    Missing,
    WrongType { expected: String },
}

pub(crate) struct RpcEndpointVerifier;

impl RpcEndpoint for RpcEndpointVerifier {
    type Message = Verify;

    async fn receive_and_reply(
        &mut self,
        message: Verify,
        ctx: &EndpointContext<Verify>,
    ) -> Result<(), EndpointError> {
        let Verify::CheckExistence { name, schema, call } = message;
        call.reply(match ctx.env().inner().dispatcher.find(&name) {
            None => Existence::Missing,
            Some(found) if *found.schema == *schema => Existence::Exists,
            Some(found) => Existence::WrongType {
                expected: found.schema.to_string(),
            },
        });
        Ok(())
    }
}
