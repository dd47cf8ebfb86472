//! The rules of an inbox.

use super::*;
use crate::mail::Sent;
use crate::trace::TraceContext;

fn limits(messages_max: usize, overflow: Overflow) -> Limits {
    Limits {
        messages_max,
        bytes_max: 1 << 20,
        overflow,
    }
}

fn inbox() -> Inbox<u32> {
    Inbox::new("counter".into(), limits(2, Overflow::Refuse), None)
}

fn post(inbox: &Inbox<u32>, sent: Sent, message: u32) -> Result<Option<u32>, (Refused, u32)> {
    let displaced = inbox.post(mail(sent, message), None)?;
    Ok(displaced.into_iter().map(|mail| mail.message).next())
}

fn take<M>(inbox: &Inbox<M>) -> Option<Batch<M>> {
    let mut batch = Batch::default();
    let taken = inbox.poll_next(&mut batch, &Context::from_waker(Waker::noop()));
    taken.is_ready().then_some(batch)
}

fn mail<M>(sent: Sent, message: M) -> LocalMail<M> {
    LocalMail::new(sent, message, None)
}

fn messages<M>(batch: Batch<M>) -> Vec<(Sent, M)> {
    let local = batch.local.into_iter();
    local.map(|mail| (mail.sent, mail.message)).collect()
}

#[test]
fn mail_is_taken_in_order_and_whole() {
    let inbox = inbox();
    post(&inbox, Sent::OneWay, 1).unwrap();
    post(&inbox, Sent::Asked, 2).unwrap();
    let batch = take(&inbox).unwrap();
    assert_eq!(messages(batch), [(Sent::OneWay, 1), (Sent::Asked, 2)]);
    assert!(take(&inbox).is_none());
}

#[test]
fn a_full_inbox_gives_the_message_back_until_one_is_taken_up() {
    let inbox = inbox();
    post(&inbox, Sent::OneWay, 1).unwrap();
    post(&inbox, Sent::OneWay, 2).unwrap();
    assert_eq!(post(&inbox, Sent::OneWay, 3), Err((Refused::Full, 3)));
    let mut batch = take(&inbox).unwrap();
    assert_eq!(
        post(&inbox, Sent::OneWay, 3),
        Err((Refused::Full, 3)),
        "what is taken and not handled still counts"
    );
    inbox.on_local(batch.local.pop_front().unwrap().bytes);
    assert_eq!(post(&inbox, Sent::OneWay, 3), Ok(None));
    assert_eq!(post(&inbox, Sent::OneWay, 4), Err((Refused::Full, 4)));
}

#[test]
fn the_oldest_makes_room_where_that_is_the_policy() {
    let inbox = Inbox::new("news".into(), limits(2, Overflow::DropOldest), None);
    assert_eq!(post(&inbox, Sent::OneWay, 1), Ok(None));
    assert_eq!(post(&inbox, Sent::OneWay, 2), Ok(None));
    assert_eq!(post(&inbox, Sent::OneWay, 3), Ok(Some(1)));
    assert_eq!(
        messages(take(&inbox).unwrap()),
        [(Sent::OneWay, 2), (Sent::OneWay, 3)]
    );
}

#[test]
fn bytes_are_counted_as_the_user_weighs_them() {
    let limits = Limits {
        messages_max: 10,
        bytes_max: 8,
        overflow: Overflow::Refuse,
    };
    let weigh: Weigh<String> = Box::new(String::len);
    let inbox = Inbox::new("texts".into(), limits, Some(weigh));
    let post = |text: &str| {
        inbox
            .post(mail(Sent::OneWay, text.to_owned()), None)
            .is_ok()
    };
    assert!(
        post("twelve bytes"),
        "one of any size may enter an empty inbox"
    );
    assert!(!post("x"));
    let mut batch = take(&inbox).unwrap();
    inbox.on_local(batch.local.pop_front().unwrap().bytes);
    assert!(post("1234") && post("5678") && !post("9"));
}

#[test]
fn without_a_weigher_a_message_weighs_its_size() {
    let limits = Limits {
        messages_max: 10,
        bytes_max: 12,
        overflow: Overflow::Refuse,
    };
    let inbox: Inbox<u32> = Inbox::new("numbers".into(), limits, None);
    assert_eq!(inbox.messages_max(), 3);
}

#[test]
fn a_trace_stays_with_its_message() {
    let inbox = Inbox::new("traced".into(), limits(2, Overflow::DropOldest), None);
    let trace = |byte| TraceContext {
        trace_id: [byte; 16],
        span_id: [byte; 8],
        flags: 1,
    };
    for n in 1..=3_u8 {
        let mail = LocalMail {
            trace: (n != 2).then(|| Box::new(trace(n))),
            ..mail(Sent::OneWay, u32::from(n))
        };
        inbox.post(mail, None).unwrap();
    }
    let mut batch = take(&inbox).unwrap();
    let mut next = || {
        batch
            .local
            .pop_front()
            .map(|mail| (mail.message, mail.trace))
    };
    assert_eq!(next(), Some((2, None)));
    assert_eq!(next(), Some((3, Some(Box::new(trace(3))))));
}

#[test]
fn what_came_before_stop_is_handled_and_what_comes_after_is_refused() {
    let inbox = inbox();
    post(&inbox, Sent::OneWay, 1).unwrap();
    inbox.stop();
    inbox.stop();
    assert_eq!(post(&inbox, Sent::OneWay, 2), Err((Refused::Stopped, 2)));
    let batch = take(&inbox).unwrap();
    assert!(batch.stop);
    assert_eq!(messages(batch), [(Sent::OneWay, 1)]);
}

#[test]
fn a_place_goes_to_who_waited_first() {
    let inbox = inbox();
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = |reserving: &mut Reserving<'_, u32>| Pin::new(reserving).poll(&mut cx);
    assert!(poll(&mut inbox.reserve()).is_ready());
    assert!(poll(&mut inbox.reserve()).is_ready());
    assert_eq!(post(&inbox, Sent::OneWay, 1), Err((Refused::Full, 1)));
    let (mut gives_up, mut waits) = (inbox.reserve(), inbox.reserve());
    assert!(poll(&mut gives_up).is_pending());
    assert!(poll(&mut waits).is_pending());
    inbox.release();
    assert!(poll(&mut inbox.reserve()).is_pending(), "it comes last");
    drop(gives_up);
    assert!(poll(&mut waits).is_ready());
}

#[test]
fn ten_threads_racing_with_stop_lose_nothing_unsaid() {
    let inbox = Inbox::new("counter".into(), limits(10_000, Overflow::Refuse), None);
    let taken: usize = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    (0..100)
                        .filter(|n| post(&inbox, Sent::OneWay, *n).is_ok())
                        .count()
                })
            })
            .collect();
        inbox.stop();
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum()
    });
    assert_eq!(messages(inbox.close()).len(), taken);
}

#[test]
fn whoever_watches_hears_of_the_end_also_afterwards() {
    let inbox = inbox();
    let mut early = inbox.watch();
    inbox.end(&Termination::Stopped);
    assert_eq!(early.try_recv(), Ok(Termination::Stopped));
    assert_eq!(inbox.watch().try_recv(), Ok(Termination::Stopped));
}
