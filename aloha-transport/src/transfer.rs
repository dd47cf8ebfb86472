//! Large frames on their way out: they leave in parts, so that small ones need not wait for them.
//!
//! ```text
//!                 lane of flow 3   [large, 40 of 90 parts written] ◄ small, small ◄ large
//!   round robin ◄ lane of flow 7   [large, 1 of 2 parts written]
//!                 no order         [a large response, 3 of 9 parts written]
//!                 ...              at most TRANSFERS_MAX of them; further lanes wait, in order
//! ```
//!
//! A *lane* is what has an order: the messages of one flow, or those without a flow. While a large message of a lane
//! is under way, what follows in the lane is held behind it, small or large; everything else passes. A cancel is held
//! behind the request that it cancels. Pure: the writer asks for parts up to a budget.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::client::Body;
use crate::credit::Charge;
use crate::message::{BEGIN, CANCEL, MORE, ONE_WAY, RPC_REQUEST, RequestId, STREAM_REQUEST};
use crate::rare::Empty;
use crate::write_queue::{WriteQueue, frame_length};

/// A frame with a longer body leaves in parts, of so many bytes at most: at 1 GB/s one part holds others up for a
/// quarter of a millisecond.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// How many frames may be on their way in parts, in one direction of a connection.
pub(crate) const TRANSFERS_MAX: usize = 8;

/// How many bytes of parts may be on their way before the receiver has read them. What lies in the buffers of the
/// network, which may hold tens of megabytes, is what small frames wait for; and a link of 80 MB/s with a round trip of
/// 50 ms is still full.
pub(crate) const PARTS_WINDOW_BYTES: u32 = 4 << 20;

/// What a frame may not overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Nothing: responses.
    None,
    /// Other messages without a flow.
    Free,
    /// Other messages of the flow.
    Flow(u32),
}

impl From<Charge> for Order {
    fn from(charge: Charge) -> Self {
        match charge {
            Charge::Free => Self::Free,
            Charge::Flow(number) | Charge::Reserved(number) => Self::Flow(number),
        }
    }
}

/// The large frames of one connection that are not written yet, and what is held behind them.
#[derive(Debug)]
pub(crate) struct Transfers {
    /// Bodies from this size on are its business: all, while any lane exists.
    takes_from: usize,
    lanes: BTreeMap<u64, Lane>,
    /// The lanes that have an order, by it.
    orders: BTreeMap<Order, u64>,
    next_lane: u64,
    /// Lanes whose parts are written in turn.
    running: VecDeque<u64>,
    /// Lanes that wait for their turn.
    waiting: VecDeque<u64>,
    /// Bytes that the receiver lets through; the last part may go below zero.
    window: i64,
    bytes: usize,
    held_bytes: usize,
    one_way: u64,
    /// Requests in lanes, and which.
    requests: BTreeMap<RequestId, u64>,
    /// Counts what enters lanes.
    entered: u64,
    /// Cancels of calls inside messages, each behind what had entered before it.
    cancels: VecDeque<(u64, RequestId)>,
}

#[derive(Debug)]
struct Lane {
    order: Order,
    first: Transfer,
    behind: VecDeque<Behind>,
}

#[derive(Debug)]
enum Behind {
    Small(Held),
    Large(Transfer),
}

/// Small frames, in order, and the requests among them.
#[derive(Debug, Default)]
struct Held {
    frames: WriteQueue,
    requests: Vec<RequestId>,
}

/// One large frame.
#[derive(Debug)]
struct Transfer {
    /// Its number on the wire, once it has begun.
    number: Option<u32>,
    /// When it entered its lane.
    entered: u64,
    kind: u8,
    id: Option<RequestId>,
    total: u32,
    /// What is left of its type, id and head.
    head: Bytes,
    /// What is left of its body.
    body: Bytes,
}

impl Default for Transfers {
    fn default() -> Self {
        Self::new()
    }
}

impl Empty for Transfers {
    const EMPTY: &'static Self = &Self::new();
}

impl Transfers {
    const fn new() -> Self {
        Self {
            takes_from: CHUNK_BYTES + 1,
            lanes: BTreeMap::new(),
            orders: BTreeMap::new(),
            next_lane: 0,
            running: VecDeque::new(),
            waiting: VecDeque::new(),
            window: PARTS_WINDOW_BYTES as i64,
            bytes: 0,
            held_bytes: 0,
            one_way: 0,
            requests: BTreeMap::new(),
            entered: 0,
            cancels: VecDeque::new(),
        }
    }

    /// Frames with smaller bodies may go to the write queue without asking.
    pub(crate) fn takes_from(&self) -> usize {
        self.takes_from
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether the writer may take a part.
    pub(crate) fn is_ready(&self) -> bool {
        !self.lanes.is_empty() && self.window > 0
    }

    /// The receiver has read so many bytes of parts.
    pub(crate) fn grant(&mut self, bytes: u32) {
        self.window = self.window.saturating_add(i64::from(bytes));
    }

    /// Bytes of large frames that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of small frames that are held behind large ones.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many of the frames want no answer, and are not yet the writer's.
    pub(crate) fn one_way(&self) -> u64 {
        self.one_way
    }

    /// Queues a frame: in `queue`, unless it is large or must not overtake one that is.
    pub(crate) fn push(
        &mut self,
        queue: &mut WriteQueue,
        order: Order,
        kind: u8,
        id: Option<RequestId>,
        head: &[u8],
        body: &Body<'_>,
    ) {
        let lane = self.orders.get(&order).copied();
        if body.len() > CHUNK_BYTES {
            return self.push_large(lane, order, kind, id, head, body);
        }
        let Some(lane) = lane else {
            return queue.push(kind, id, head, body);
        };
        self.entered += 1;
        self.one_way += u64::from(kind == ONE_WAY);
        let request = request_of(kind, id);
        self.hold(lane, request, |frames| frames.push(kind, id, head, body));
    }

    fn push_large(
        &mut self,
        lane: Option<u64>,
        order: Order,
        kind: u8,
        id: Option<RequestId>,
        head: &[u8],
        body: &Body<'_>,
    ) {
        let total = u32::try_from(frame_length(id, head, body))
            .expect("checked against the frame limit, which is a u32");
        let mut start = Vec::with_capacity(5 + head.len());
        start.push(kind);
        start.extend(id.iter().flat_map(|id| id.to_bits().to_le_bytes()));
        start.extend_from_slice(head);
        self.entered += 1;
        self.one_way += u64::from(kind == ONE_WAY);
        self.bytes += total as usize;
        let transfer = Transfer {
            number: None,
            entered: self.entered,
            kind,
            id,
            total,
            head: start.into(),
            body: match body {
                Body::Copied(bytes) => Bytes::copy_from_slice(bytes),
                Body::Shared(bytes) => bytes.clone(),
            },
        };
        let lane = match lane {
            Some(lane) => {
                let behind = &mut self.lane(lane).behind;
                behind.push_back(Behind::Large(transfer));
                lane
            }
            None => self.open_lane(order, transfer),
        };
        if let Some(id) = request_of(kind, id) {
            self.requests.insert(id, lane);
        }
    }

    fn open_lane(&mut self, order: Order, first: Transfer) -> u64 {
        let number = self.next_lane;
        self.next_lane += 1;
        if order != Order::None {
            self.orders.insert(order, number);
        }
        let behind = VecDeque::new();
        let lane = Lane {
            order,
            first,
            behind,
        };
        self.lanes.insert(number, lane);
        self.waiting.push_back(number);
        self.takes_from = 0;
        number
    }

    fn lane(&mut self, number: u64) -> &mut Lane {
        let lane = self.lanes.get_mut(&number);
        lane.expect("what names a lane goes before it does")
    }

    /// Appends a small frame to a lane.
    fn hold(
        &mut self,
        number: u64,
        request: Option<RequestId>,
        push: impl FnOnce(&mut WriteQueue),
    ) {
        let behind = &mut self.lane(number).behind;
        if !matches!(behind.back(), Some(Behind::Small(_))) {
            behind.push_back(Behind::Small(Held::default()));
        }
        let Some(Behind::Small(held)) = behind.back_mut() else {
            unreachable!("pushed above")
        };
        let before = held.frames.len();
        push(&mut held.frames);
        held.requests.extend(request);
        self.held_bytes += held.frames.len() - before;
        if let Some(id) = request {
            self.requests.insert(id, number);
        }
    }

    /// Queues a cancel: behind its request, if that has not left. `inside` says that the id went inside some message,
    /// and it is not known which: such a cancel is held behind all that are under way.
    pub(crate) fn push_cancel(&mut self, queue: &mut WriteQueue, id: RequestId, inside: bool) {
        let cancel = |queue: &mut WriteQueue| {
            queue.push(CANCEL, Some(id), &[], &Body::Copied(&[]));
        };
        match self.requests.get(&id) {
            Some(lane) => self.hold(*lane, None, cancel),
            None if inside && !self.orders.is_empty() => {
                self.cancels.push_back((self.entered, id));
            }
            None => cancel(queue),
        }
    }

    /// Appends parts to what the writer is about to write, until they are `budget` bytes or more: less than a part
    /// more. What was held behind the last part of a frame follows it.
    pub(crate) fn take(&mut self, batch: &mut WriteQueue, budget: usize) {
        let enough = batch.len() + budget;
        while batch.len() < enough && self.window > 0 {
            while self.running.len() < TRANSFERS_MAX
                && let Some(next) = self.waiting.pop_front()
            {
                self.running.push_back(next);
            }
            let Some(number) = self.running.pop_front() else {
                break;
            };
            let unused = self.unused_number();
            let first = &mut self.lane(number).first;
            let bytes = first.write_part(unused, batch);
            let unfinished = !first.is_written();
            self.bytes -= bytes;
            self.window -= i64::try_from(bytes).expect("a part is small");
            if unfinished {
                self.running.push_back(number);
            } else {
                self.finish(number, batch);
            }
        }
    }

    /// The first number from zero on that no transfer under way has.
    fn unused_number(&self) -> u32 {
        let begun = self.running.iter().filter_map(|lane| self.lanes.get(lane));
        let used: Vec<u32> = begun.filter_map(|lane| lane.first.number).collect();
        let mut numbers = 0..;
        let unused = numbers.find(|number| !used.contains(number));
        unused.expect("there are more numbers than transfers")
    }

    /// The first frame of a lane is written: lets those behind it go, up to the next large one.
    fn finish(&mut self, number: u64, batch: &mut WriteQueue) {
        let lane = self.lane(number);
        let order = lane.order;
        let (kind, id) = (lane.first.kind, lane.first.id);
        let mut released = Vec::new();
        let next = loop {
            match lane.behind.pop_front() {
                Some(Behind::Small(held)) => released.push(held),
                Some(Behind::Large(next)) => break Some(next),
                None => break None,
            }
        };
        match next {
            Some(next) => {
                lane.first = next;
                self.waiting.push_back(number);
            }
            None => {
                self.lanes.remove(&number);
                self.orders.remove(&order);
            }
        }
        if kind == ONE_WAY {
            batch.add_one_way();
            self.one_way -= 1;
        }
        if let Some(id) = request_of(kind, id) {
            self.requests.remove(&id);
        }
        for held in released {
            self.held_bytes -= held.frames.len();
            self.one_way -= held.frames.one_way();
            batch.append(held.frames);
            for id in held.requests {
                self.requests.remove(&id);
            }
        }
        self.release_cancels(batch);
        if self.lanes.is_empty() {
            self.takes_from = CHUNK_BYTES + 1;
        }
    }

    /// Lets cancels go that have nothing before them any more.
    fn release_cancels(&mut self, batch: &mut WriteQueue) {
        if self.cancels.is_empty() {
            return;
        }
        let lanes = self.orders.values().filter_map(|lane| self.lanes.get(lane));
        let earliest = lanes.map(|lane| lane.first.entered).min();
        while let Some((entered, id)) = self.cancels.front()
            && earliest.is_none_or(|earliest| *entered < earliest)
        {
            batch.push(CANCEL, Some(*id), &[], &Body::Copied(&[]));
            self.cancels.pop_front();
        }
    }
}

/// The id of a request, if the frame is one.
fn request_of(kind: u8, id: Option<RequestId>) -> Option<RequestId> {
    id.filter(|_| matches!(kind, RPC_REQUEST | STREAM_REQUEST))
}

impl Transfer {
    /// Appends the next part; gives how much of the frame was in it.
    fn write_part(&mut self, unused: u32, batch: &mut WriteQueue) -> usize {
        let (kind, mut fields) = match self.number {
            None => {
                self.number = Some(unused);
                let mut fields = Vec::with_capacity(8 + self.head.len());
                fields.extend_from_slice(&unused.to_le_bytes());
                fields.extend_from_slice(&self.total.to_le_bytes());
                (BEGIN, fields)
            }
            Some(number) => (MORE, number.to_le_bytes().to_vec()),
        };
        let room = CHUNK_BYTES - 1 - fields.len();
        let head = self.head.split_to(room.min(self.head.len()));
        let room = room - head.len();
        let body = self.body.split_to(room.min(self.body.len()));
        fields.extend_from_slice(&head);
        let bytes = head.len() + body.len();
        batch.push(kind, None, &fields, &Body::Shared(body));
        bytes
    }

    fn is_written(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    use crate::connection::assembly::Assembly;
    use crate::message::{Message, RPC_RESPONSE};

    const LARGE: usize = 3 * CHUNK_BYTES;

    /// A queue, and its transfers, and who receives what the writer takes.
    #[derive(Default)]
    struct Both {
        queue: WriteQueue,
        transfers: Transfers,
        assembly: Assembly,
    }

    impl Both {
        fn push(&mut self, order: Order, kind: u8, id: Option<u32>, body: &[u8]) {
            let id = id.map(RequestId::from_bits);
            let body = Body::Copied(body);
            let queue = &mut self.queue;
            self.transfers.push(queue, order, kind, id, b"", &body);
        }

        fn cancel(&mut self, id: u32, inside: bool) {
            let id = RequestId::from_bits(id);
            self.transfers.push_cancel(&mut self.queue, id, inside);
        }

        /// What arrives of the next write, each message by its kind, id and first byte.
        async fn write(&mut self) -> Vec<String> {
            let mut batch = std::mem::take(&mut self.queue);
            self.transfers.grant(1 << 20);
            self.transfers.take(&mut batch, CHUNK_BYTES);
            let mut wire = Vec::new();
            batch.write_to(&mut wire).await.unwrap();
            let mut wire = BytesMut::from(&wire[..]);
            let mut arrived = Vec::new();
            while let Some(frame) = self.assembly.next_frame(&mut wire, usize::MAX).unwrap() {
                arrived.push(match Message::decode(frame).unwrap() {
                    Message::OneWay { body } => format!("tell {}", char::from(body[0])),
                    Message::RpcRequest { id, .. } => format!("ask {}", id.to_bits()),
                    Message::RpcResponse { id, .. } => format!("answer {}", id.to_bits()),
                    Message::Cancel { id } => format!("cancel {}", id.to_bits()),
                    other => panic!("{other:?}"),
                });
            }
            assert!(wire.is_empty());
            arrived
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn small_frames_pass_a_large_one_except_those_of_its_flow() {
        let mut t = Both::default();
        t.push(Order::Flow(1), ONE_WAY, None, &[b'A'; LARGE]);
        t.push(Order::Flow(1), ONE_WAY, None, b"b");
        t.push(Order::Flow(2), ONE_WAY, None, b"c");
        t.push(Order::Free, ONE_WAY, None, b"d");
        t.push(Order::None, RPC_RESPONSE, Some(4), b"e");
        assert_eq!(t.write().await, ["tell c", "tell d", "answer 4"]);
        assert_eq!(t.transfers.one_way(), 2);
        t.push(Order::Flow(2), ONE_WAY, None, b"f");
        assert_eq!(t.write().await, ["tell f"]);
        assert_eq!(t.write().await, [""; 0]);
        t.push(Order::Flow(1), ONE_WAY, None, b"g");
        // The few bytes that did not fit beside the fields of three parts.
        assert_eq!(t.write().await, ["tell A", "tell b", "tell g"]);
        assert!(t.transfers.is_empty() && t.transfers.takes_from() > CHUNK_BYTES);
        assert_eq!((t.transfers.bytes(), t.transfers.held_bytes()), (0, 0));
        assert_eq!(t.transfers.one_way(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_cancel_follows_its_request_and_passes_those_of_others() {
        let mut t = Both::default();
        t.push(Order::Flow(1), RPC_REQUEST, Some(1), &[b'A'; LARGE]);
        t.push(Order::Flow(1), RPC_REQUEST, Some(2), b"b");
        t.push(Order::Flow(2), RPC_REQUEST, Some(3), b"c");
        for id in [1, 2, 3] {
            t.cancel(id, false);
        }
        // Inside one of the messages, perhaps the one under way.
        t.cancel(9, true);
        assert_eq!(t.write().await, ["ask 3", "cancel 3"]);
        // Later ones keep nobody waiting.
        t.push(Order::Flow(3), ONE_WAY, None, &[b'D'; 10 * LARGE]);
        let mut arrived = Vec::new();
        while arrived.is_empty() {
            arrived = t.write().await;
        }
        let expected = ["ask 1", "ask 2", "cancel 1", "cancel 2", "cancel 9"];
        assert_eq!(arrived, expected);
        assert!(t.transfers.requests.is_empty());
    }

    #[test]
    fn no_more_parts_are_taken_than_the_receiver_lets_through() {
        let mut t = Both::default();
        let window = PARTS_WINDOW_BYTES as usize;
        t.push(Order::Free, ONE_WAY, None, &vec![b'A'; 4 * window]);
        let mut batch = WriteQueue::default();
        t.transfers.take(&mut batch, usize::MAX / 2);
        assert!((window..window + 2 * CHUNK_BYTES).contains(&batch.len()));
        assert!(!t.transfers.is_ready() && !t.transfers.is_empty());
        t.transfers.grant(1 << 20);
        assert!(t.transfers.is_ready());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_so_many_are_under_way_and_the_others_follow_in_turn() {
        let mut t = Both::default();
        for id in 0..20 {
            t.push(Order::None, RPC_RESPONSE, Some(id), &[b'A'; LARGE]);
        }
        let mut arrived = Vec::new();
        while !t.transfers.is_empty() {
            arrived.append(&mut t.write().await);
            assert!(t.transfers.running.len() <= TRANSFERS_MAX);
        }
        let expected: Vec<_> = (0..20).map(|id| format!("answer {id}")).collect();
        assert_eq!(arrived, expected);
    }
}
