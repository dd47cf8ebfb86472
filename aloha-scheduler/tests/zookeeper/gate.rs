//! A way to a server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Passes connections on while it is open. Dropped, it cuts them.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    /// How often it has been cut, and whether it is open.
    state: Arc<watch::Sender<(u64, bool)>>,
    swallows: Arc<AtomicBool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Gate {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(watch::Sender::new((0, true)));
        let shared = Arc::clone(&state);
        let swallows = Arc::new(AtomicBool::new(false));
        let swallowing = Arc::clone(&swallows);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, state) = (server.clone(), shared.subscribe());
                let swallows = Arc::clone(&swallowing);
                tokio::spawn(async move {
                    // Either end closed it, or it was cut.
                    let _over = carry(client, &server, state, &swallows).await;
                });
            }
        });
        Self {
            address,
            state,
            swallows,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// Closes what is open; new connections pass.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|(cuts, _)| *cuts += 1);
    }

    /// Closes what is open, and lets nobody pass.
    pub(crate) fn shut(&self) {
        self.state
            .send_modify(|(cuts, open)| (*cuts, *open) = (*cuts + 1, false));
    }

    /// Passes questions on and no answers, until it is opened again.
    pub(crate) fn swallow(&self) {
        self.swallows.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.swallows.store(false, Ordering::SeqCst);
        self.state.send_modify(|(_, open)| *open = true);
    }
}

async fn carry(
    mut client: TcpStream,
    server: &str,
    mut state: watch::Receiver<(u64, bool)>,
    swallows: &AtomicBool,
) -> std::io::Result<()> {
    let (before, open) = *state.borrow_and_update();
    if !open {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut from_server) = (vec![0; 4096], vec![0; 4096]);
    loop {
        tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() || state.borrow_and_update().0 != before {
                    return Ok(());
                }
            }
            read = client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                read => server.write_all(&from_client[..read]).await?,
            },
            read = server.read(&mut from_server) => match read? {
                0 => return Ok(()),
                _ if swallows.load(Ordering::SeqCst) => {}
                read => client.write_all(&from_server[..read]).await?,
            },
        }
    }
}
