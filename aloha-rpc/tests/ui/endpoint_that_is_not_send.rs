//! So do the endpoints themselves.

use std::rc::Rc;

use aloha_rpc::RpcEndpoint;

struct HelloEndpoint(Rc<String>);

impl RpcEndpoint for HelloEndpoint {
    type Message = String;
}

fn main() {}
