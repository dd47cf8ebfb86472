//! A call is answered once.

use aloha_rpc::RpcCallContext;

fn twice(call: RpcCallContext<u64>) {
    call.reply(1);
    call.reply(2);
}

fn main() {}
