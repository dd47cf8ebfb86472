//! Messages cross processes.

use aloha_rpc::{RpcCallContext, RpcEndpoint};

enum Hello {
    SayHi(String, RpcCallContext<String>),
}

struct HelloEndpoint;

impl RpcEndpoint for HelloEndpoint {
    type Message = Hello;
}

fn main() {}
