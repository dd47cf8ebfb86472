//! What goes from the oldest end of the log, a little after each write.

use tracing::{debug, warn};

use super::Log;
use super::ledger::Step;
use super::segment::{Assembler, Run, encode};
use super::writer::{Trim, Writer, Written, append};
use crate::persistence::PersistenceError;

/// How many steps follow a write, and for each segment that it had.
const STEPS: u32 = 1;
const STEPS_PER_SEGMENT: u32 = 4;

impl Writer {
    /// Compacts what is due. It is left for the next write where it fails.
    pub(super) async fn compact(&mut self, log: &Log, written: Written) {
        for _ in 0..STEPS + STEPS_PER_SEGMENT * written.parts {
            let step = self
                .ledger
                .as_ref()
                .and_then(|ledger| ledger.step(log.limits));
            let Some(step) = step else {
                return;
            };
            if let Err(error) = self.step(log, written, step).await {
                warn!(%error, "cannot compact, will try again");
                return;
            }
        }
    }

    async fn step(
        &mut self,
        log: &Log,
        Written { fence, .. }: Written,
        Step { oldest, end }: Step,
    ) -> Result<(), PersistenceError> {
        let runs = log.runs(oldest, end).await?;
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        let (first, valid) = (ledger.next(), ledger.valid(runs));
        let segments = encode(fence.epoch, &valid);
        self.is_behind = true;
        let trim = Some(Trim { oldest, end });
        let Ok(()) = append(log, fence, first, &segments, trim).await? else {
            return Ok(());
        };
        debug!(oldest, end, kept = valid.len(), "compacted");
        if !segments.is_empty() {
            self.learn(first, &segments, valid);
        }
        self.is_behind = false;
        if let Some(ledger) = &mut self.ledger {
            ledger.trim(end);
        }
        Ok(())
    }
}

impl Log {
    /// The runs between these segments.
    async fn runs(&self, from: u64, to: u64) -> Result<Vec<Run>, PersistenceError> {
        let mut assembler = Assembler::default();
        let mut runs = Vec::new();
        let mut number = from;
        while number < to {
            let segments = self.read(number..to).await?;
            if segments.is_empty() {
                return Err(self.unavailable(format!("segment {number} is gone")));
            }
            for segment in segments {
                let over = assembler.take(number, &segment);
                runs.extend(over.map_err(|bad| self.bad_segment(number, &bad))?);
                number += 1;
            }
        }
        Ok(runs)
    }
}
