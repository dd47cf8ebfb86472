//! A client of the API, and a master without workers behind it.

use std::path::Path;
use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::rest::{RestGuard, RestLimits, RestLoad, RestServer};
use aloha_scheduler::{Master, MasterHandle, MasterSettings};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::common::{self, Daemon, command};

/// A client of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    client: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    /// Null where there is none.
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self::at(daemon.rest())
    }

    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            client: reqwest::Client::new(),
        }
    }

    /// The same, which goes nowhere else.
    pub(crate) fn staying(&self) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            url: self.url.clone(),
            client: client.build().expect("a client"),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Submits an application; gives its id.
    pub(crate) async fn submit(&self, application: &Value) -> String {
        self.post("/v1/applications", application).await.id()
    }

    /// Ends an application before it runs.
    pub(crate) async fn end(&self, id: &str) {
        let path = format!("/v1/applications/{id}/kill");
        let killed = self.post(&path, &Value::Null).await;
        assert_eq!(killed.status, 202, "{killed:?}");
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("text")
    }

    /// The id of what was created.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        assert_eq!(self.status, 201, "{self:?}");
        self.body["id"].as_str().expect("an id").to_owned()
    }

    /// It must be a problem with this status, in the form of all problems; gives the detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.body.as_object().expect("an object");
        let keys: Vec<_> = body.keys().map(String::as_str).collect();
        let keys: Vec<_> = keys.into_iter().filter(|key| *key != "leader").collect();
        assert_eq!(keys, ["detail", "status", "title", "type"]);
        assert_eq!(
            (&body["type"], &body["status"]),
            (&json!("about:blank"), &json!(status))
        );
        let detail = body["detail"].as_str().expect("a text");
        assert_ne!(detail, "");
        detail
    }
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a text");
    let body = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).expect("JSON"),
    };
    Answer {
        status,
        headers,
        body,
    }
}

/// A submission with this name that does nothing.
pub(crate) fn application(name: &str) -> Value {
    script(name, "true")
}

/// A submission of a line for bash.
pub(crate) fn script(name: &str, line: &str) -> Value {
    json!({"name": name, "entryPoint": "SimpleProcess", "args": line, "cores": 1, "memory": 16})
}

/// A master without workers, in this process, and its REST server.
pub(crate) struct Alone {
    pub(crate) api: Api,
    /// What the server is busy with.
    pub(crate) load: RestLoad,
    _master: MasterHandle,
    env: RpcEnv,
    stop: CancellationToken,
}

impl Alone {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(set: impl FnOnce(&mut MasterSettings)) -> Self {
        let env = RpcEnv::builder("master").bind("127.0.0.1:0");
        let env = env.start().await.expect("a free port");
        let mut settings = Master::default_settings(&env);
        set(&mut settings);
        let master = Master::start(&env, settings).expect("a master");
        let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
        let limits = RestLimits::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let stop = CancellationToken::new();
        let server = RestServer::new(Arc::new(master.client().clone()), guard, limits);
        let load = server.load();
        tokio::spawn(server.serve(listener, stop.clone()));
        Self {
            api: Api::at(&url),
            load,
            _master: master,
            env,
            stop,
        }
    }

    pub(crate) async fn shutdown(self) {
        self.stop.cancel();
        self.env.shutdown().await;
    }
}

/// A master that stores what it is told in a directory.
pub(crate) fn durable_master(directory: &Path) -> Daemon {
    Daemon::start_by(command(), &common::durable_master(0, directory))
}
