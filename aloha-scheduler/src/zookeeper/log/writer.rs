//! The writing end of the log.

use std::time::Duration;

use tracing::debug;
use zookeeper_client::{CreateMode, Error};

use super::Log;
use super::epoch::Fence;
use super::ledger::Ledger;
use super::segment::{Assembler, Run, encode};
use crate::persistence::{Change, PersistenceError};
use crate::zookeeper::session::{Link, is_lost};
use crate::zookeeper::trouble::Trouble;

/// The pause before a session is asked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the next number may turn out to be taken.
const ATTEMPTS_MAX: u32 = 10;

/// What is known of the log by who writes it. One batch is written at a time.
#[derive(Debug, Default)]
pub(super) struct Writer {
    fence: Option<Fence>,
    pub(super) ledger: Option<Ledger>,
    /// Whether the log may go on behind what is known of it.
    pub(super) is_behind: bool,
}

/// A batch that is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) fence: Fence,
    pub(super) parts: u32,
}

/// What goes with the creation of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trim {
    pub(super) oldest: u64,
    pub(super) end: u64,
}

/// Why the next number was not ours.
#[derive(Debug)]
pub(super) struct Taken;

impl Writer {
    pub(super) fn begin(&mut self, fence: Fence) {
        self.fence = Some(fence);
        self.is_behind = true;
    }

    pub(super) async fn write(
        &mut self,
        log: &Log,
        epoch: u64,
        changes: Vec<Change>,
    ) -> Result<Written, PersistenceError> {
        let fence = match self.fence {
            Some(fence) if fence.epoch == epoch => fence,
            _ => log.fence(epoch).await?,
        };
        let segments = encode(epoch, &changes);
        for _ in 0..ATTEMPTS_MAX {
            let first = self.know(log).await?.next();
            // Until the last is there, or where this is never polled again.
            self.is_behind = true;
            let Ok(()) = append(log, fence, first, &segments, None).await? else {
                continue;
            };
            let parts = self.learn(first, &segments, changes);
            return Ok(Written { fence, parts });
        }
        Err(log.unavailable("somebody else writes to it".to_owned()))
    }

    /// What has been appended as these segments is known, and nothing is behind it. Gives how many they are.
    pub(super) fn learn(&mut self, first: u64, segments: &[Vec<u8>], changes: Vec<Change>) -> u32 {
        let parts = u32::try_from(segments.len()).expect("fewer than there are bytes");
        if let Some(ledger) = &mut self.ledger {
            ledger.append(&Run {
                first,
                parts,
                bytes: segments.iter().map(|segment| segment.len() as u64).sum(),
                changes,
            });
        }
        self.is_behind = false;
        parts
    }

    /// Reads what is not known of the log.
    async fn know(&mut self, log: &Log) -> Result<&mut Ledger, PersistenceError> {
        if self.is_behind || self.ledger.is_none() {
            let read = log.take_known();
            let own = self.ledger.take();
            let newest = [read, own].into_iter().flatten().max_by_key(Ledger::next);
            self.ledger = Some(log.read_on(newest).await?);
            self.is_behind = false;
        }
        Ok(self.ledger.get_or_insert_default())
    }
}

impl Log {
    async fn link(&self) -> Result<Link, PersistenceError> {
        let link = self.session.link().await;
        link.map_err(|trouble| self.trouble(&trouble))
    }

    async fn next_link(&self) -> Link {
        loop {
            match self.session.link().await {
                Ok(link) => return link,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What this session sees under this number, after all that it has asked for before.
    async fn look_for(&self, link: &Link, number: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let (path, segment) = (self.path(), self.segment(number));
        link.on(|| link.client.sync(&path)).await?;
        match link.on(|| link.client.get_data(&segment)).await {
            Ok((there, _)) => Ok(Some(there)),
            Err(Trouble::Refused(Error::NoNode)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Follows the log to its end from where this ledger ends.
    async fn read_on(&self, ledger: Option<Ledger>) -> Result<Ledger, PersistenceError> {
        self.ensure().await?;
        self.sync().await?;
        let ends = self.ends().await?;
        let known = ledger.filter(|ledger| (ends.oldest..=ends.next).contains(&ledger.next()));
        let mut ledger = known.unwrap_or_else(|| Ledger::new(ends.oldest));
        let mut assembler = Assembler::default();
        let mut number = ledger.next();
        while number < ends.next {
            let segments = self.read(number..ends.next).await?;
            if segments.is_empty() {
                return Err(self.unavailable("somebody else compacts it".to_owned()));
            }
            for segment in segments {
                let runs = assembler.take(number, &segment);
                for run in runs.map_err(|bad| self.bad_segment(number, &bad))? {
                    ledger.append(&run);
                }
                number += 1;
            }
        }
        if let Some(unfinished) = assembler.abandon() {
            ledger.append(&unfinished);
        }
        ledger.trim(ends.oldest);
        Ok(ledger)
    }
}

/// Appends segments one by one, the last together with a trim.
pub(super) async fn append(
    log: &Log,
    fence: Fence,
    first: u64,
    segments: &[Vec<u8>],
    trim: Option<Trim>,
) -> Result<Result<(), Taken>, PersistenceError> {
    let last = segments.len().saturating_sub(1);
    for (at, segment) in segments.iter().enumerate() {
        let trim = trim.filter(|_| at == last);
        let request = Request {
            fence,
            segment: Some((first + at as u64, segment)),
            trim,
        };
        if request.send(log).await?.is_err() {
            return Ok(Err(Taken));
        }
    }
    if segments.is_empty() {
        let request = Request {
            fence,
            segment: None,
            trim,
        };
        return request.send(log).await;
    }
    Ok(Ok(()))
}

/// What is done at once.
struct Request<'a> {
    fence: Fence,
    segment: Option<(u64, &'a [u8])>,
    trim: Option<Trim>,
}

impl Request<'_> {
    /// Has it done. An error says that it was not, and will not be: who is told so may promise that to others.
    async fn send(&self, log: &Log) -> Result<Result<(), Taken>, PersistenceError> {
        // The link itself would keep its session from ending.
        let first = log.link().await?.standing;
        loop {
            let error = match self.try_once(log).await {
                Err(error @ PersistenceError::Unavailable { .. }) => error,
                known => return known,
            };
            let Some((number, segment)) = self.segment else {
                return Err(error); // nobody counts on a trim
            };
            let link = log.next_link().await;
            match log.look_for(&link, number).await {
                Ok(Some(there)) if there == segment => return Ok(Ok(())),
                Ok(Some(_)) => return Ok(Err(Taken)),
                Ok(None) | Err(Trouble::Refused(_)) if !is_lost(&first) => return Err(error),
                // What was asked for under a session that is over may be done yet. It is asked for again: either it is
                // there then, or a newer epoch has begun.
                _ => {
                    debug!(%error, "asks for a write again whose session was lost");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_once(&self, log: &Log) -> Result<Result<(), Taken>, PersistenceError> {
        let options = CreateMode::Persistent.with_acls(log.session.settings().acls());
        let done = log.multi(|writer| {
            writer.add_check_version(&log.epoch_path(), self.fence.version)?;
            if let Some((number, segment)) = self.segment {
                writer.add_create(&log.segment(number), segment, &options)?;
            }
            if let Some(Trim { oldest, end }) = self.trim {
                writer.add_set_data(&log.path(), end.to_string().as_bytes(), None)?;
                for number in oldest..end {
                    writer.add_delete(&log.segment(number), None)?;
                }
            }
            Ok(())
        });
        match (done.await?, self.segment, self.trim) {
            (Ok(()), ..) => Ok(Ok(())),
            (Err((0, Error::BadVersion)), ..) => match log.fence(self.fence.epoch).await {
                // The same epoch, at another version: begun anew by somebody.
                Ok(again) => Err(PersistenceError::Fenced {
                    ours: self.fence.epoch,
                    newest: again.epoch,
                }),
                Err(error) => Err(error),
            },
            // Somebody's, or ours where an answer was lost.
            (Err((1, Error::NodeExists)), Some((number, segment)), _) => {
                log.sync().await?;
                let there = log.read(number..number + 1).await?;
                let is_ours = there.first().is_some_and(|there| there == segment);
                Ok(if is_ours { Ok(()) } else { Err(Taken) })
            }
            // The nodes that were to go are gone: so it was done, and we were not told.
            (Err((_, Error::NoNode)), None, Some(trim)) if log.ends().await?.oldest == trim.end => {
                Ok(Ok(()))
            }
            (Err((_, error)), ..) => Err(log.trouble(&Trouble::Refused(error))),
        }
    }
}
