use aloha_rpc::{RpcConfig, TransportConfig};

use super::*;
use crate::master::Master;

async fn env(name: &str, address: Option<&str>, frame_bytes_max: usize) -> RpcEnv {
    let config = RpcConfig {
        transport: TransportConfig {
            frame_bytes_max,
            ..TransportConfig::default()
        },
        ..RpcConfig::default()
    };
    let builder = RpcEnv::builder(name).config(config);
    let builder = match address {
        Some(address) => builder.bind(address),
        None => builder,
    };
    builder.start().await.unwrap()
}

#[tokio::test]
async fn more_applications_than_a_message_holds_are_listed_in_the_order_of_submission() {
    const COUNT: usize = 2_500;
    let frame_bytes_max = 512 << 10;
    let master_env = env("master", Some("127.0.0.1:0"), frame_bytes_max).await;
    let master = Master::start(&master_env, Master::default_settings(&master_env)).unwrap();
    let mut ids = Vec::new();
    for number in 0..COUNT {
        let description = AppDescription {
            name: format!("{number:0>250}"),
            entry_point: "Process".into(),
            cores: 1,
            ..AppDescription::default()
        };
        let answer = master.client().submit(description).await.unwrap();
        ids.push(answer.accepted().unwrap());
    }
    let client_env = env("client", None, frame_bytes_max).await;
    let address = master_env.address().unwrap().clone();
    let client = MasterClient::connect(&client_env, &[address])
        .await
        .unwrap();
    let apps = client.apps().await.unwrap();
    let bytes: usize = apps.iter().map(|app| app.name.len()).sum();
    assert!(bytes > frame_bytes_max, "one message would do");
    let listed: Vec<_> = apps.into_iter().map(|app| app.id).collect();
    assert_eq!(listed, ids);
    let query = AppsQuery {
        after: Some("1999".parse().unwrap()),
        ..AppsQuery::default()
    };
    let page = client.apps_page(query).await.unwrap();
    assert_eq!((page.apps.len(), page.next), (500, None));
    let status = client.status(ids[0].clone()).await.unwrap().unwrap();
    assert_eq!(status.history.len(), 1, "{status:?}");
    client_env.shutdown().await;
    master_env.shutdown().await;
}
