//! What goes wrong.

use std::fmt;
use std::time::Duration;

use crate::cluster::{Cluster, MASTERS, SESSION_TIMEOUT, WORKERS};
use crate::common::gates::Party;
use crate::common::moments::Moments;

/// One thing that goes wrong, and is mended after a while.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// `kill -9`.
    KillMaster(usize),
    StopMaster(usize),
    /// SIGTERM: it hands over.
    EndMaster(usize),
    KillZooKeeper(usize),
    StopZooKeeper(usize),
    KillWorker(usize),
    StopWorker(usize),
    Cut(Party, Party),
    CutOneWay(Party, Party),
    Reset(Party, Party),
    Delay(Party, Party, Duration),
    /// A master from all of ZooKeeper.
    CutOff(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillMaster(place) => write!(f, "kill -9 master {place}"),
            Self::StopMaster(place) => write!(f, "SIGSTOP master {place}"),
            Self::EndMaster(place) => write!(f, "SIGTERM master {place}"),
            Self::KillZooKeeper(place) => write!(f, "kill -9 ZooKeeper {place}"),
            Self::StopZooKeeper(place) => write!(f, "SIGSTOP ZooKeeper {place}"),
            Self::KillWorker(place) => write!(f, "kill -9 worker {place}"),
            Self::StopWorker(place) => write!(f, "SIGSTOP worker {place}"),
            Self::Cut(a, b) => write!(f, "cut {a:?} from {b:?}"),
            Self::CutOneWay(a, b) => write!(f, "swallow from {a:?} to {b:?}"),
            Self::Reset(a, b) => write!(f, "reset {a:?} and {b:?}"),
            Self::Delay(a, b, by) => write!(f, "delay {a:?} and {b:?} by {by:?}"),
            Self::CutOff(place) => write!(f, "cut master {place} from all ZooKeepers"),
        }
    }
}

impl Fault {
    /// One of all kinds; those of leaders more often.
    pub(crate) fn any(moments: &mut Moments, leader: usize, zookeeper: usize) -> Self {
        let worker = moments.index(WORKERS);
        match moments.below(14) {
            0 | 1 => Self::KillMaster(leader),
            2 => Self::StopMaster(leader),
            3 => Self::EndMaster(leader),
            4 => Self::KillZooKeeper(zookeeper),
            5 => Self::StopZooKeeper(zookeeper),
            6 => Self::KillWorker(worker),
            7 => Self::StopWorker(worker),
            8 => Self::CutOff(leader),
            9 => Self::KillMaster((leader + 1) % MASTERS),
            kind => {
                let (a, b) = pair(moments, leader);
                match kind {
                    10 | 11 => Self::Cut(a, b),
                    12 => match moments.below(2) {
                        0 => Self::CutOneWay(a, b),
                        _ => Self::CutOneWay(b, a),
                    },
                    _ => match moments.below(2) {
                        0 => Self::Reset(a, b),
                        _ => {
                            let by = Duration::from_millis(20 + moments.below(200));
                            Self::Delay(a, b, by)
                        }
                    },
                }
            }
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(&self, moments: &mut Moments) -> Duration {
        let (least, most) = match self {
            // Longer than its session, most of the time.
            Self::StopMaster(_) | Self::CutOff(_) => (SESSION_TIMEOUT, SESSION_TIMEOUT * 2),
            Self::StopZooKeeper(_) | Self::StopWorker(_) => {
                (Duration::from_millis(500), Duration::from_secs(4))
            }
            Self::Cut(..) | Self::CutOneWay(..) | Self::Reset(..) | Self::Delay(..) => {
                (Duration::from_millis(200), Duration::from_secs(4))
            }
            Self::KillMaster(_)
            | Self::EndMaster(_)
            | Self::KillZooKeeper(_)
            | Self::KillWorker(_) => (Duration::ZERO, Duration::from_secs(3)),
        };
        moments.between(least, most)
    }

    pub(crate) fn begin(&self, cluster: &mut Cluster) {
        let network = &cluster.network;
        match *self {
            Self::KillMaster(place) => cluster.masters[place].kill(),
            Self::StopMaster(place) => cluster.masters[place].stop(),
            Self::EndMaster(place) => {
                let master = &mut cluster.masters[place];
                master.terminate();
                let status = master.reap().expect("it was running");
                assert!(status.success(), "{status}\n{}", master.end_of_log(30));
            }
            Self::KillZooKeeper(place) => cluster.zookeeper.kill(place),
            Self::StopZooKeeper(place) => cluster.zookeeper.stop(place),
            Self::KillWorker(place) => cluster.workers[place].kill(),
            Self::StopWorker(place) => cluster.workers[place].stop(),
            Self::Cut(a, b) => network.cut(a, b),
            Self::CutOneWay(from, to) => network.cut_one_way(from, to),
            Self::Reset(a, b) => network.reset(a, b),
            Self::Delay(a, b, by) => network.delay(a, b, by),
            Self::CutOff(place) => {
                for server in 0..cluster.zookeeper.size() {
                    network.cut(Party::Master(place), Party::ZooKeeper(server));
                }
            }
        }
    }
}

/// Two that speak with each other.
fn pair(moments: &mut Moments, leader: usize) -> (Party, Party) {
    let master = match moments.below(3) {
        0 => (leader + 1) % MASTERS,
        _ => leader,
    };
    let server = moments.index(3);
    match moments.below(5) {
        0 => (Party::Master(master), Party::Clients),
        1 | 2 => (Party::Master(master), Party::Worker(moments.index(WORKERS))),
        3 => (Party::Master(master), Party::ZooKeeper(server)),
        _ => (Party::ZooKeeper(server), Party::ZooKeeper((server + 1) % 3)),
    }
}
