//! Who may, where, and what is said otherwise.

use std::io::Write;

use aloha_scheduler::ZooKeeperSettings;
use aloha_scheduler::election::{LeaderElectionAgent, MasterAddress};
use aloha_scheduler::persistence::{PersistenceEngine, PersistenceError};
use aloha_scheduler::zookeeper::ZooKeeper;
use tempfile::NamedTempFile;
use zookeeper_client::{Acls, Client};

use crate::common::ports::free_port;
use crate::ground::{self, Server, create, put, read};

async fn refusal(settings: &ZooKeeperSettings) -> String {
    let zookeeper = ZooKeeper::new(settings).expect("good settings");
    let elected = zookeeper
        .election()
        .campaign(&MasterAddress::default())
        .await;
    elected.expect_err("refused").to_string()
}

fn secrets(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[tokio::test]
async fn a_chroot_is_made_and_belongs_to_who_made_it() {
    let server = Server::shared();
    let ours = secrets("digest:aloha:open sesame\n");
    let url = format!("{}/some/where", server.url());
    let mut settings = ground::settings(&url, "/aloha");
    settings.acl = vec!["creator".to_owned()];
    settings.auth_file = Some(ours.path().to_owned());
    let zookeeper = ZooKeeper::new(&settings).expect("good settings");
    let _leads = zookeeper
        .election()
        .campaign(&MasterAddress::default())
        .await
        .expect("alone");
    let store = zookeeper.store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    store
        .write(epoch, vec![put("a", b"1")])
        .await
        .expect("written");

    let stranger = server.client().await;
    for node in [
        "store/log",
        "store/log/0000000000000001",
        "store/epoch",
        "leader_election",
    ] {
        let node = format!("/some/where/aloha/{node}");
        let data = stranger.get_data(&node).await;
        assert_eq!(data.unwrap_err(), zookeeper_client::Error::NoAuth, "{node}");
    }
    let connector = Client::connector().with_auth("digest", b"aloha:open sesame");
    let owner = connector.connect(&server.url()).await.expect("there");
    let (acl, _) = owner
        .get_acl("/some/where/aloha/store")
        .await
        .expect("there");
    assert_eq!((acl.len(), acl[0].scheme()), (1, "digest"));
    assert_ne!(acl[..], *Acls::anyone_all());

    let theirs = secrets("digest:aloha:wrong\n");
    settings.auth_file = Some(theirs.path().to_owned());
    let said = refusal(&settings).await;
    assert!(
        said.contains("not authorized") && said.contains("aloha.deploy.zookeeper.auth.file"),
        "{said}"
    );
    settings.auth_file = Some(ours.path().to_owned());
    let other = ZooKeeper::new(&settings).expect("good settings");
    assert_eq!(
        read(&other.store()).await.len(),
        1,
        "who knows the secret may"
    );
}

#[tokio::test]
async fn a_scheme_that_no_server_knows_is_said_loudly() {
    let server = Server::shared();
    let secrets = secrets("kerberos-of-old:secret\n");
    let mut settings = server.settings("/unknown-scheme");
    settings.auth_file = Some(secrets.path().to_owned());
    let said = refusal(&settings).await;
    assert!(
        said.contains("authentication failed") && said.contains("auth.file"),
        "{said}"
    );
    assert!(!said.contains("secret\n"), "{said}");
}

#[tokio::test]
async fn servers_that_are_not_there_are_named() {
    let gone = format!("127.0.0.1:{}", free_port());
    let settings = ground::settings(&gone, "/aloha");
    let said = refusal(&settings).await;
    assert!(
        said.contains(&gone) && said.contains("aloha.deploy.zookeeper.url"),
        "{said}"
    );
    let store = ZooKeeper::new(&settings).expect("good settings").store();
    let error = store.begin_epoch(0).await.expect_err("nobody is there");
    assert!(
        matches!(error, PersistenceError::Unavailable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_directory_of_another_version_is_left_alone() {
    let server = Server::shared();
    let client = server.client().await;
    create(&client, "/newer/store", br#"{"format":2}"#).await;
    let store = server.zookeeper("/newer").store();
    for error in [
        store.begin_epoch(0).await.expect_err("it is not ours"),
        store.read_all().await.expect_err("it is not ours"),
    ] {
        assert!(
            matches!(error, PersistenceError::Unreadable { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("aloha.deploy.zookeeper.dir"),
            "{error}"
        );
    }
    assert_eq!(
        client.list_children("/newer/store").await.expect("there"),
        [""; 0]
    );
}
