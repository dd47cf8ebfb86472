//! Placement alone: the queue, the workers and what goes where, against a plain model of who waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::master::apps::AppSlot;
use crate::master::placement::{Assignment, Placer};
use crate::master::queue::{GroupSlot, Queue, Shape, Ticket};
use crate::master::resource_index::Preference;
use crate::master::table::Slot;
use crate::master::tag_limits::TagLimits;
use crate::master::workers::{Worker, Workers};

#[derive(Debug, Clone)]
enum Step {
    Submit {
        priority: i32,
        shape: usize,
    },
    /// The application that ran for longest but for so many ends.
    End(usize),
    /// The same of those that wait, which is killed.
    Kill(usize),
    Join {
        worker: u8,
        cores: u32,
        zone: u8,
    },
    Leave(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let submit =
        || (0..3, 0..SHAPES).prop_map(|(priority, shape)| Step::Submit { priority, shape });
    prop_oneof![
        submit(),
        submit(),
        (0usize..8).prop_map(Step::End),
        (0usize..8).prop_map(Step::End),
        (0usize..8).prop_map(Step::Kill),
        (0u8..4, 0u32..9, 0u8..2).prop_map(|(worker, cores, zone)| Step::Join {
            worker,
            cores,
            zone
        }),
        (0u8..4).prop_map(Step::Leave),
    ]
}

const SHAPES: usize = 12;

fn needs(shape: usize) -> Resources {
    let cores = [1, 2, 4, 8][shape % 4];
    let memory_mib = [1, 1, 3, 2][shape % 4];
    Resources { cores, memory_mib }
}

/// A queue, workers, and who waits and runs as a list of all would say it.
struct Model {
    queue: Queue,
    workers: Workers,
    limits: TagLimits,
    placer: Placer,
    now: Instant,
    next: u32,
    waiting: BTreeMap<Ticket, (Shape, GroupSlot)>,
    running: Vec<(Ticket, Shape, WorkerId)>,
}

impl Model {
    fn new(by: Preference) -> Self {
        Self {
            queue: Queue::default(),
            workers: Workers::new(TIMEOUT, TIMEOUT),
            limits: TagLimits::new(&[("*".to_owned(), 9), ("t".to_owned(), 2)].into()),
            placer: Placer::new(by),
            now: Harness::new().now.instant,
            next: 0,
            waiting: BTreeMap::new(),
            running: Vec::new(),
        }
    }

    fn shape(&self, shape: usize) -> Shape {
        let tags: BTreeSet<_> = (shape / 4 == 1)
            .then(|| "t".to_owned())
            .into_iter()
            .collect();
        let constraints = (shape / 4 == 2).then(|| "zone=0".parse().unwrap());
        Shape {
            needs: needs(shape),
            constraints: constraints.into_iter().collect(),
            limits: self.limits.applying_to(&tags),
        }
    }

    fn key(ticket: Ticket) -> (AppId, u32) {
        (format!("app-{}", ticket.number).parse().unwrap(), 1)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Submit { priority, shape } => {
                let ticket = Ticket {
                    priority: Reverse(priority),
                    number: u64::from(self.next),
                    app: Slot::at(self.next),
                };
                self.next += 1;
                let shape = self.shape(shape);
                let group = self.queue.insert(shape.clone(), ticket);
                self.waiting.insert(ticket, (shape, group));
            }
            Step::End(place) if place < self.running.len() => {
                let (ticket, shape, worker) = self.running.remove(place);
                self.workers.release(&worker, &Self::key(ticket));
                self.discount(&shape);
            }
            Step::Kill(place) => {
                let Some(ticket) = self.waiting.keys().nth(place).copied() else {
                    return;
                };
                let (_, group) = self.waiting.remove(&ticket).unwrap();
                self.queue.remove(group, ticket);
            }
            Step::Join {
                worker,
                cores,
                zone,
            } => {
                let worker = id(&format!("w{worker}"));
                let mine = self.running.iter().filter(|(_, _, on)| *on == worker);
                let attempts = mine.map(|(ticket, shape, _)| (Self::key(*ticket), shape.needs));
                let attempts = attempts.collect();
                let memory_mib = 6;
                let record = WorkerRecord {
                    id: worker,
                    host: "h".into(),
                    port: 1,
                    offers: Resources { cores, memory_mib },
                    enforces: CgroupSupport::default(),
                    attributes: [("zone".to_owned(), zone.to_string())].into(),
                    drain: None,
                };
                self.workers.register(record, attempts, self.now);
            }
            Step::Leave(worker) => {
                let worker = id(&format!("w{worker}"));
                if self.workers.state(&worker).is_some() {
                    self.workers.bury(&worker, self.now);
                    self.workers.forget(&worker);
                }
                let (lost, left) = std::mem::take(&mut self.running)
                    .into_iter()
                    .partition(|(_, _, on)| *on == worker);
                self.running = left;
                for (_, shape, _) in lost {
                    self.discount(&shape);
                }
            }
            Step::End(_) => {}
        }
    }

    fn discount(&mut self, shape: &Shape) {
        let opened = self.limits.discount(&shape.limits);
        self.queue.opened(&opened);
    }

    /// Whether one that waits may go to this worker now.
    fn may_go(&self, ticket: Ticket, shape: &Shape, slot: Slot<Worker>, worker: &Worker) -> bool {
        let kept = self.workers.reserved() == Some(slot)
            && self.placer.holder().is_some_and(|holder| holder < ticket);
        let kind = worker.kind().map(|kind| self.workers.capacity().kind(kind));
        !kept
            && kind.is_some_and(|kind| kind.meets(&shape.constraints))
            && shape.needs.fits_in(&worker.free())
            && self.limits.reached(&shape.limits).is_none()
            && !self.is_kept_for_another(ticket, shape)
    }

    /// Whether it would take the last place under a limit that the holder of the reservation is under, and comes later.
    fn is_kept_for_another(&self, ticket: Ticket, shape: &Shape) -> bool {
        let Some(holder) = self.placer.holder().filter(|holder| *holder < ticket) else {
            return false;
        };
        let Some((of_holder, _)) = self.waiting.get(&holder) else {
            return false;
        };
        let most = [9, 2];
        shape.limits.places().iter().any(|place| {
            of_holder.limits.places().contains(place)
                && self.limits.placed()[*place] + 1 == most[*place]
        })
    }

    fn waiting_as(&self, app: AppSlot) -> (Ticket, (Shape, GroupSlot)) {
        let mut waiting = self.waiting.iter();
        let found = waiting.find(|(ticket, _)| ticket.app == app);
        let (ticket, of) = found.expect("who is placed waits");
        (*ticket, of.clone())
    }

    fn carry_out(&mut self, Assignment { app, worker, .. }: Assignment) {
        let (ticket, (shape, group)) = self.waiting_as(app);
        let worker = self.workers.at(worker).record.id.clone();
        self.queue.remove(group, ticket);
        self.waiting.remove(&ticket);
        self.workers.occupy(&worker, Self::key(ticket), shape.needs);
        self.limits.count(&shape.limits);
        self.running.push((ticket, shape, worker));
    }

    /// Runs a round; each assignment is the best that can be made at that moment.
    fn round(&mut self) -> Result<(), TestCaseError> {
        loop {
            let next = self
                .placer
                .next(&mut self.queue, &self.limits, &mut self.workers);
            let Some(assignment) = next else { break };
            let (ticket, (shape, _)) = self.waiting_as(assignment.app);
            let worker = self.workers.at(assignment.worker);
            prop_assert_eq!(assignment.needs, shape.needs);
            prop_assert!(
                self.may_go(ticket, &shape, assignment.worker, worker),
                "{:?} may not go to {}",
                ticket,
                worker.record.id
            );
            for (earlier, (shape, _)) in self.waiting.range(..ticket) {
                let fits = |(slot, worker)| self.may_go(*earlier, shape, slot, worker);
                prop_assert!(
                    !self.workers.iter().any(fits),
                    "{:?} is passed by {:?}",
                    earlier,
                    ticket
                );
            }
            self.carry_out(assignment);
        }
        for (ticket, (shape, _)) in &self.waiting {
            let fits = |(slot, worker)| self.may_go(*ticket, shape, slot, worker);
            prop_assert!(
                !self.workers.iter().any(fits),
                "{:?} waits for nothing",
                ticket
            );
        }
        self.queue.check_invariants();
        self.workers.check_invariants();
        self.placer
            .check_invariants(&self.queue, &self.limits, &self.workers);
        Ok(())
    }
}

/// D15: a large application, and small ones that arrive as fast as others end. How many of those pass it, of a thousand.
fn passed_by(reserves: bool) -> usize {
    let mut model = Model::new(Preference::Roomiest);
    model.placer.reserves = reserves;
    let place_all = |model: &mut Model| {
        while let Some(assignment) =
            model
                .placer
                .next(&mut model.queue, &model.limits, &mut model.workers)
        {
            model.carry_out(assignment);
        }
    };
    let (worker, cores, zone) = (0, 8, 0);
    model.apply(Step::Join {
        worker,
        cores,
        zone,
    });
    let (priority, small, large) = (0, 0, 3);
    for shape in [small, small, small, small, large] {
        model.apply(Step::Submit { priority, shape });
    }
    place_all(&mut model);
    for turn in 0..1000 {
        model.apply(Step::Submit {
            priority,
            shape: small,
        });
        place_all(&mut model);
        model.apply(Step::End(0));
        place_all(&mut model);
        if model
            .running
            .iter()
            .any(|(_, shape, _)| shape.needs == needs(large))
        {
            return turn;
        }
    }
    1000
}

#[test]
fn d15_a_large_one_starves_without_a_reservation_and_runs_with_it() {
    assert_eq!(passed_by(false), 1000);
    assert!(passed_by(true) < 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing is promised twice, no limit passed, no constraint ignored and no reservation broken; whoever is placed
    /// passes nobody who could be placed before it; and who waits could not be placed.
    #[test]
    fn every_round_places_all_it_may_in_order_and_nothing_else(
        steps in prop::collection::vec(step(), 0..80),
        pack in any::<bool>(),
    ) {
        let by = if pack { Preference::Tightest } else { Preference::Roomiest };
        let mut model = Model::new(by);
        for step in steps {
            model.apply(step);
            model.round()?;
        }
    }

    /// However small ones come and go, the head of the queue is placed once each worker was empty for a moment, if
    /// some worker would hold it at all.
    #[test]
    fn the_head_is_placed_when_what_runs_has_ended(
        steps in prop::collection::vec(step(), 0..60),
        arrivals in prop::collection::vec((0..2, 0usize..4), 1..8),
    ) {
        let mut model = Model::new(Preference::Roomiest);
        for step in steps {
            model.apply(step);
            model.round()?;
        }
        let Some(head) = model.placer.holder() else { return Ok(()) };
        // One that a limit keeps back may come before it later.
        if model.waiting.keys().next() != Some(&head) {
            return Ok(());
        }
        // Everything that runs now ends, oldest first, and after each end something smaller arrives.
        for turn in 0..model.running.len() {
            let (_, shape) = arrivals[turn % arrivals.len()];
            model.apply(Step::End(0));
            model.round()?;
            model.apply(Step::Submit { priority: i32::MIN, shape });
            model.round()?;
        }
        prop_assert!(!model.waiting.contains_key(&head), "{:?} starves", head);
    }
}
