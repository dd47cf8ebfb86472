//! An election that the test decides.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::sync::Arc;

use aloha_scheduler::election::{
    ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing,
};
use aloha_scheduler::{MasterHandle, MasterRole};
use async_trait::async_trait;
use tokio::sync::watch;

/// Who leads, as all agents of an election know.
pub type Known = Arc<watch::Sender<Option<MasterAddress>>>;

/// The agent of one master.
#[derive(Debug)]
pub struct Decided {
    winner: watch::Sender<Option<watch::Receiver<Standing>>>,
    known: Known,
}

impl Decided {
    pub fn new(known: &Known) -> Arc<Self> {
        Arc::new(Self {
            winner: watch::Sender::default(),
            known: Arc::clone(known),
        })
    }

    /// Makes its master lead, for as long as the guard is there.
    pub async fn elect(&self, master: &MasterHandle) -> watch::Sender<Standing> {
        let (standing, seen) = watch::channel(Standing::Held);
        self.winner.send_replace(Some(seen));
        let mut role = master.role();
        let leads = role.wait_for(|role| matches!(role, MasterRole::Leading { .. }));
        leads.await.expect("it lives");
        standing
    }
}

#[async_trait]
impl LeaderElectionAgent for Decided {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        let mut winner = self.winner.subscribe();
        let seen = winner.wait_for(Option::is_some).await;
        seen.expect("its sender is here");
        let standing = self.winner.send_replace(None).expect("just seen");
        self.known.send_replace(Some(candidate.clone()));
        Ok(Leadership { epoch: 0, standing })
    }

    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.known.subscribe()
    }
}
