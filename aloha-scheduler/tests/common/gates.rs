//! A network of loopback connections that can be cut, delayed and reset between any two parties: every port stands
//! behind a gate, which passes on what comes or swallows it, as a broken network does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, watch};

/// How often, and how soon again, it is tried to reach a server that is starting.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Whoever is none of the others.
    Clients,
    Master(usize),
    Worker(usize),
    ZooKeeper(usize),
}

/// What becomes of bytes from one party to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    #[default]
    Passed,
    Late(Duration),
    /// Held until this is over, as the network repeats what it lost.
    Swallowed,
    /// Their connection is closed.
    Reset,
}

type Fates = BTreeMap<(Party, Party), Fate>;

/// All gates. They close when this is dropped, or with the runtime of a test that has one.
pub struct Network {
    shared: Arc<Shared>,
    handle: Handle,
    _own: Option<Runtime>,
}

struct Shared {
    fates: watch::Sender<Fates>,
    /// Which processes are whose.
    pids: Mutex<BTreeMap<u32, Party>>,
    /// Where a party finds an address.
    seen: Mutex<BTreeMap<(Party, SocketAddr), SocketAddr>>,
    disconnects: Notify,
}

impl Network {
    pub fn new() -> Self {
        let build = || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build();
            runtime.expect("a runtime")
        };
        let own = Handle::try_current().is_err().then(build);
        let handle = own.as_ref().map(Runtime::handle).cloned();
        Self {
            shared: Arc::new(Shared {
                fates: watch::Sender::new(Fates::new()),
                pids: Mutex::default(),
                seen: Mutex::default(),
                disconnects: Notify::new(),
            }),
            handle: handle.unwrap_or_else(Handle::current),
            _own: own,
        }
    }

    /// Notes whose process this is, so that its connections are known.
    pub fn note(&self, pid: u32, party: Party) {
        let mut pids = lock(&self.shared.pids);
        pids.retain(|_, other| *other != party);
        pids.insert(pid, party);
    }

    /// Opens a gate for whoever comes to `listen`.
    pub fn open(&self, listen: SocketAddr, to: Party, address: SocketAddr) -> SocketAddr {
        self.open_for(None, listen, to, address)
    }

    /// Opens a gate that one party alone knows of, and that tells its own address as the other finds it.
    pub fn open_between(&self, from: Party, to: Party, address: SocketAddr) -> SocketAddr {
        let listen = (address.ip(), 0).into();
        let gate = self.open_for(Some(from), listen, to, address);
        lock(&self.shared.seen).insert((from, address), gate);
        gate
    }

    fn open_for(
        &self,
        from: Option<Party>,
        listen: SocketAddr,
        to: Party,
        address: SocketAddr,
    ) -> SocketAddr {
        let listener = std::net::TcpListener::bind(listen).expect("an address of its own");
        listener.set_nonblocking(true).expect("it is ours");
        let gate = listener.local_addr().expect("bound");
        let _within = self.handle.enter();
        let listener = TcpListener::from_std(listener).expect("it is ours");
        let shared = Arc::clone(&self.shared);
        self.handle.spawn(async move {
            while let Ok((connection, peer)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let from = from.unwrap_or_else(|| shared.owner(peer, gate));
                    // Whatever happened, both ends are closed by now.
                    let _ = shared.carry(connection, from, to, address).await;
                });
            }
        });
        gate
    }

    /// Swallows what these send each other, and their new connections.
    pub fn cut(&self, a: Party, b: Party) {
        self.set(a, b, Fate::Swallowed);
    }

    /// Swallows what one sends the other, but not the other way round.
    pub fn cut_one_way(&self, from: Party, to: Party) {
        self.shared.fates.send_modify(|fates| {
            fates.insert((from, to), Fate::Swallowed);
        });
    }

    /// Closes all connections that are there; new ones pass.
    pub fn disconnect(&self) {
        self.shared.disconnects.notify_waiters();
    }

    /// Closes their connections and takes no new ones.
    pub fn reset(&self, a: Party, b: Party) {
        self.set(a, b, Fate::Reset);
    }

    /// Has what these send each other arrive later.
    pub fn delay(&self, a: Party, b: Party, by: Duration) {
        self.set(a, b, Fate::Late(by));
    }

    fn set(&self, a: Party, b: Party, fate: Fate) {
        self.shared.fates.send_modify(|fates| {
            fates.insert((a, b), fate);
            fates.insert((b, a), fate);
        });
    }

    /// Ends whatever was done to any two; what was swallowed arrives.
    pub fn heal(&self) {
        self.shared.fates.send_modify(BTreeMap::clear);
    }
}

impl Shared {
    /// Whose connection this is. Its process is ours: a party, or a client.
    fn owner(&self, peer: SocketAddr, gate: SocketAddr) -> Party {
        let pids = lock(&self.pids).clone();
        let Some(inode) = inode(peer, gate) else {
            return Party::Clients;
        };
        let socket = format!("socket:[{inode}]");
        let has = |pid: &u32| {
            let handles = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten();
            let mut links = handles
                .flatten()
                .filter_map(|handle| fs::read_link(handle.path()).ok());
            links.any(|link| link.as_os_str() == socket.as_str())
        };
        let owner = pids.iter().find(|(pid, _)| has(pid));
        owner.map_or(Party::Clients, |(_, party)| *party)
    }

    /// Carries one connection to its end.
    async fn carry(
        &self,
        near: TcpStream,
        from: Party,
        to: Party,
        address: SocketAddr,
    ) -> io::Result<()> {
        self.pass(from, to).await?;
        let far = reach(from, to, address).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let there = self.pump(near_read, far_write, from, to);
        let back = self.pump(far_read, near_write, to, from);
        tokio::try_join!(there, back, self.reset_between(from, to))?;
        Ok(())
    }

    async fn pump(
        &self,
        mut read: OwnedReadHalf,
        mut write: OwnedWriteHalf,
        from: Party,
        to: Party,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut is_first = true;
        loop {
            let count = read.read(&mut buffer).await;
            // Also that it ended is not known before.
            self.pass(from, to).await?;
            let count = count?;
            if count == 0 {
                return write.shutdown().await;
            }
            if std::mem::take(&mut is_first) {
                self.rename(to, &mut buffer[..count]);
            }
            write.write_all(&buffer[..count]).await?;
        }
    }

    /// Waits until bytes of these pass.
    async fn pass(&self, from: Party, to: Party) -> io::Result<()> {
        let mut fates = self.fates.subscribe();
        let fate = |fates: &Fates| fates.get(&(from, to)).copied().unwrap_or_default();
        let passes = fates.wait_for(|fates| fate(fates) != Fate::Swallowed);
        let now = passes
            .await
            .map(|fates| fate(&fates))
            .unwrap_or(Fate::Reset);
        match now {
            Fate::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Fate::Late(by) => {
                tokio::time::sleep(by).await;
                Ok(())
            }
            Fate::Passed | Fate::Swallowed => Ok(()),
        }
    }

    /// Ends with an error when connections of these are to be closed.
    async fn reset_between(&self, a: Party, b: Party) -> io::Result<()> {
        let mut fates = self.fates.subscribe();
        let reset = fates.wait_for(|fates| fates.get(&(a, b)) == Some(&Fate::Reset));
        tokio::select! {
            _ = reset => {}
            () = self.disconnects.notified() => {}
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Servers that look for a leader say where they listen, and are called back there: by another gate.
    fn rename(&self, reader: Party, text: &mut [u8]) {
        for ((party, address), gate) in lock(&self.seen).iter() {
            let (address, gate) = (address.to_string(), gate.to_string());
            if *party != reader || address.len() != gate.len() {
                continue;
            }
            let found = text
                .windows(address.len())
                .position(|window| window == address.as_bytes());
            if let Some(place) = found {
                text[place..place + gate.len()].copy_from_slice(gate.as_bytes());
            }
        }
    }
}

/// Connects behind a gate. Servers of ZooKeeper look for a leader anew where one who is not there yet takes their connection
/// and closes it, but try again where it is refused, which a gate cannot do: so theirs wait.
async fn reach(from: Party, to: Party, address: SocketAddr) -> io::Result<TcpStream> {
    let are_peers = matches!((from, to), (Party::ZooKeeper(_), Party::ZooKeeper(_)));
    let mut tries = if are_peers { TRIES } else { 1 };
    loop {
        tries -= 1;
        match TcpStream::connect(address).await {
            Err(_) if tries > 0 => tokio::time::sleep(PAUSE).await,
            reached => return reached,
        }
    }
}

/// The kernel's number of the socket at the other end of a connection from `peer` to `gate`.
fn inode(peer: SocketAddr, gate: SocketAddr) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (in_table(peer)?, in_table(gate)?);
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next() == Some(local.as_str()) && words.next() == Some(remote.as_str());
        is_it.then(|| words.nth(6).map(str::to_owned)).flatten()
    })
}

fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
