//! Looking for the master that leads, among those that were named at the beginning and those that they name.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::candidate::{Candidate, NewestEpoch, News, address_of};
use super::error::{MasterOutcome, TriedMaster};

/// How many masters are remembered that only others named; a new one takes the place of the oldest.
const LEARNED_MAX: usize = 8;

/// Looks at all masters until one leads.
#[derive(Debug)]
pub(super) struct Search {
    env: RpcEnv,
    /// Those that were named at the beginning, then those that others named.
    candidates: Mutex<Vec<Arc<Candidate>>>,
    configured: usize,
    newest: NewestEpoch,
}

impl Search {
    pub(super) fn new(env: &RpcEnv, addresses: &[RpcAddress]) -> Self {
        let newest = NewestEpoch::default();
        let candidates = addresses
            .iter()
            .map(|address| Candidate::new(env, address.clone(), &newest));
        Self {
            env: env.clone(),
            candidates: Mutex::new(candidates.collect()),
            configured: addresses.len(),
            newest,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.candidates().len()
    }

    fn candidates(&self) -> MutexGuard<'_, Vec<Arc<Candidate>>> {
        // Nobody panics while holding it.
        let candidates = self.candidates.lock();
        candidates.unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of each when it was last looked at.
    pub(super) fn tried(&self) -> Vec<TriedMaster> {
        let candidates = self.candidates();
        let tried = candidates.iter().map(|candidate| TriedMaster {
            address: candidate.address().clone(),
            outcome: candidate.outcome(),
        });
        tried.collect()
    }

    /// Looks at each once, for so long at the most.
    pub(super) async fn look_at_all(&self, patience: Duration) {
        let mut looking = JoinSet::new();
        for candidate in self.candidates().iter() {
            let candidate = Arc::clone(candidate);
            looking.spawn(async move { candidate.look_once().await });
        }
        let looked = async { while looking.join_next().await.is_some() {} };
        // What is not heard by then stays as it was.
        drop(timeout(patience, looked).await);
    }

    /// What came of one that another was found to have followed.
    pub(super) fn outdated(&self) -> MasterOutcome {
        MasterOutcome::Outdated {
            epoch: self.newest.load(Ordering::Relaxed),
        }
    }

    /// Looks at all at once until one leads, at none `besides`. A standby says when it hears of a leader; one that cannot
    /// be asked is looked at again after a pause. Where no cluster is `expected`, it gives up once nobody there can be
    /// one that leads soon.
    ///
    /// Cancel safe: dropped, it stops looking.
    pub(super) async fn run(
        &self,
        expected: bool,
        besides: Option<&Arc<Candidate>>,
    ) -> Option<Arc<Candidate>> {
        let (heard, mut news) = mpsc::channel(1);
        // Dropped, it ends them.
        let mut looking = JoinSet::new();
        let name = besides.map(|candidate| candidate.name());
        let mut look_at = |candidate: &Arc<Candidate>| {
            let candidate = Arc::clone(candidate);
            looking.spawn(candidate.look_until_it_leads(name.clone(), heard.clone()));
        };
        let is_besides = |candidate: &Arc<Candidate>| {
            besides.is_some_and(|besides| {
                Arc::ptr_eq(besides, candidate) || candidate.is_called(&besides.name())
            })
        };
        let mut looked_at = self.candidates().clone();
        looked_at.retain(|candidate| !is_besides(candidate));
        if self.count() < 2 {
            // Nobody to compare with: one that begins anew may count its epochs anew.
            self.newest.store(0, Ordering::Relaxed);
        }
        looked_at.iter().for_each(&mut look_at);
        let mut unheard = looked_at.clone();
        while !looked_at.is_empty() {
            match news.recv().await.expect("one end is here") {
                News::Looked(candidate, true) if !is_besides(&candidate) => return Some(candidate),
                News::Looked(candidate, _) => {
                    unheard.retain(|one| !Arc::ptr_eq(one, &candidate));
                    let is_alive = |candidate: &Arc<Candidate>| candidate.outcome().is_alive();
                    if !expected && unheard.is_empty() && !looked_at.iter().any(is_alive) {
                        return None;
                    }
                }
                News::Named(name) => {
                    if besides.is_some_and(|besides| besides.is_called(&name)) {
                        continue;
                    }
                    match looked_at.iter().find(|one| one.is_called(&name)) {
                        Some(known) => known.was_named(),
                        None => {
                            if let Some(learned) = self.learn(&name) {
                                look_at(&learned);
                                unheard.push(Arc::clone(&learned));
                                looked_at.push(learned);
                            }
                        }
                    }
                }
            }
        }
        None
    }

    /// The master of this name, which is remembered from now on. Whoever may stand for election is believed: the
    /// masters are those of the cluster.
    fn learn(&self, name: &str) -> Option<Arc<Candidate>> {
        let address = address_of(name)?;
        let mut candidates = self.candidates();
        if let Some(known) = candidates.iter().find(|one| one.is_called(name)) {
            return Some(Arc::clone(known));
        }
        if candidates.len() >= self.configured + LEARNED_MAX {
            candidates.remove(self.configured);
        }
        let learned = Candidate::new(&self.env, address, &self.newest);
        candidates.push(Arc::clone(&learned));
        Some(learned)
    }
}
