//! The one part of an inbox without a lock, through every interleaving: how far an endpoint has come with its batch, as a
//! sender sees it who finds the inbox full.
//!
//! The file under test is the crate's own, with the model checker's atomics in place of the standard ones.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "../src/progress.rs"]
mod progress;

use loom::sync::{Arc, Mutex};
use loom::thread;
use progress::Progress;

/// As many messages as may wait or be at work.
const LIMIT: usize = 2;

/// An inbox as far as its bound goes: what waits is under the lock, what is at work is not.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<usize>,
    progress: Progress,
}

impl Inbox {
    /// Whether a message was taken; if so, no more than the limit is there.
    fn post(&self, handled: &loom::sync::atomic::AtomicUsize, posted: &mut usize) -> bool {
        let mut waiting = self.waiting.lock().expect("no panic");
        if *waiting + self.progress.messages() >= LIMIT {
            return false;
        }
        *waiting += 1;
        *posted += 1;
        // What the sender believes is left is never less than what is: the bound holds.
        let handled = handled.load(loom::sync::atomic::Ordering::SeqCst);
        assert!(
            *posted - handled <= LIMIT,
            "{posted} posted, {handled} handled"
        );
        true
    }

    fn take(&self) -> usize {
        let mut waiting = self.waiting.lock().expect("no panic");
        let taken = std::mem::take(&mut *waiting);
        self.progress.begin(taken, 8 * taken);
        taken
    }
}

#[test]
fn a_sender_never_sees_less_at_work_than_there_is() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::default());
        let handled = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let (there, done) = (Arc::clone(&inbox), Arc::clone(&handled));
        let endpoint = thread::spawn(move || {
            for _ in 0..2 {
                for _ in 0..there.take() {
                    // Taken up: from here on it does not count.
                    done.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
                    there.progress.advance(8);
                }
            }
        });
        let mut posted = 0;
        for _ in 0..3 {
            inbox.post(&handled, &mut posted);
        }
        endpoint.join().expect("no panic");
        assert!(inbox.progress.messages() <= LIMIT && inbox.progress.bytes() <= 8 * LIMIT);
    });
}
