//! The terminal of a person: taken, drawn on, and given back however this ends.

use std::io;
use std::time::Duration;

use aloha_rpc::RpcEnv;
use aloha_scheduler::{AppId, KillAnswer, MasterClient};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::draw::draw;
use super::keys::Order;
use super::model::{Model, News};
use super::snapshot::{Detail, Snapshot};
use crate::Failure;
use crate::connection::INTERRUPTED;

/// How long a look at the cluster may fail before that is shown.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the thread that reads keys looks whether it is still wanted.
const KEY_PATIENCE: Duration = Duration::from_millis(100);
/// What a shell says of a command that SIGTERM ended, and SIGHUP.
const TERMINATED: u8 = 143;
const HUNG_UP: u8 = 129;

/// The terminal, which gets its own look back when this is dropped. After a panic the hook of ratatui does it.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> Result<Self, Failure> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                ratatui::restore();
                Err(unusable(error))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn unusable(error: io::Error) -> Failure {
    Failure::new(format_args!(
        "cannot use the terminal: {error}; `aloha top --once` prints the same"
    ))
}

/// What the watching task is told: whom to look at, and how often it was nudged.
type Target = (Option<AppId>, u64);

/// Shows the cluster until somebody has seen enough.
pub(super) async fn show(
    master: &MasterClient,
    env: &RpcEnv,
    interval: Duration,
) -> Result<u8, Failure> {
    let no_signal = |error| Failure::new(format_args!("cannot listen to signals: {error}"));
    let mut terminated = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(no_signal)?;
    // What is typed comes as a key; this is of somebody else.
    let mut interrupted = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let (news, mut heard) = mpsc::channel(16);
    let (target, targets) = watch::channel(Target::default());
    let master = master.clone().with_patience(PATIENCE);
    let mut watching = tokio::spawn(look(
        master.clone(),
        env.clone(),
        interval,
        targets,
        news.clone(),
    ));
    let mut screen = Screen::take()?;
    let mut typed = keys();
    let mut model = Model::default();
    let code = loop {
        screen
            .0
            .draw(|frame| draw(frame, &model))
            .map_err(unusable)?;
        tokio::select! {
            biased;
            _ = terminated.recv() => break TERMINATED,
            _ = hung_up.recv() => break HUNG_UP,
            _ = interrupted.recv() => break INTERRUPTED,
            event = typed.recv() => match event {
                Some(Event::Key(key)) => match model.on_key(key) {
                    Some(Order::Quit) => break 0,
                    Some(Order::Kill(app)) => {
                        tokio::spawn(kill(master.clone(), app, news.clone()));
                    }
                    Some(Order::Look) | None => {}
                },
                // A new size is drawn for at once.
                Some(_) => {}
                None => break 0,
            },
            Some(news) = heard.recv() => model.on_news(news),
            ended = &mut watching => {
                drop(screen);
                let reason = ended.err().map_or_else(String::new, |error| format!(": {error}"));
                return Err(Failure::new(format_args!("aloha top failed{reason}")));
            }
        }
        let wanted = model.looked_at().cloned();
        target.send_if_modified(|(current, nudges)| {
            let changed = *current != wanted;
            if changed {
                *current = wanted;
                *nudges += 1;
            }
            changed
        });
    };
    watching.abort();
    Ok(code)
}

/// Looks at the cluster again and again.
async fn look(
    master: MasterClient,
    env: RpcEnv,
    interval: Duration,
    mut targets: watch::Receiver<Target>,
    news: mpsc::Sender<News>,
) {
    loop {
        let (app, _) = targets.borrow_and_update().clone();
        let mut all = Vec::new();
        if let Some(app) = app {
            match Detail::take(&master, &app).await {
                Ok(detail) => all.push(News::Detail(app, detail.map(Box::new))),
                Err(error) => all.push(News::Trouble(error.to_string())),
            }
        }
        all.push(match Snapshot::take(&master).await {
            Ok(snapshot) => News::Snapshot(Box::new(snapshot), wall_millis(&env)),
            Err(error) => News::Trouble(error.to_string()),
        });
        for one in all {
            if news.send(one).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn wall_millis(env: &RpcEnv) -> u64 {
    let since = env
        .runtime()
        .wall()
        .duration_since(std::time::SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

async fn kill(master: MasterClient, app: AppId, news: mpsc::Sender<News>) {
    let text = match master.kill(app).await {
        Ok(KillAnswer { message, .. }) => message,
        Err(error) => error.to_string(),
    };
    // Whoever wanted it may be gone.
    drop(news.send(News::Message(text)).await);
}

/// What is typed, and new sizes.
fn keys() -> mpsc::Receiver<Event> {
    let (typed, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = match event::poll(KEY_PATIENCE) {
                Ok(true) => event::read(),
                Ok(false) if typed.is_closed() => return,
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            // A terminal that is gone says no more.
            let Ok(event) = event else { return };
            if typed.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
