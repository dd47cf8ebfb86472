//! What every [`LeaderElectionAgent`] of an election among several masters must do, as one suite.

use std::sync::Arc;

use super::{LeaderElectionAgent, Leadership, MasterAddress, Standing};

/// Checks an election. `stand` makes the agent of one more master that takes part in the same election.
///
/// # Panics
///
/// The election breaks the contract.
pub async fn check<A: LeaderElectionAgent>(stand: impl AsyncFn() -> A) {
    let [first_address, second_address, third_address] = [1, 2, 3].map(address);
    let first = Arc::new(stand().await);
    let leads = won(first.campaign(&first_address).await);
    assert_eq!(*leads.standing.borrow(), Standing::Held);

    // Somebody leads: the others wait, and one that waits no longer takes nothing.
    let second = Arc::new(stand().await);
    let campaign = {
        let second = Arc::clone(&second);
        tokio::spawn(async move { second.campaign(&second_address).await })
    };
    let third = stand().await;
    tokio::select! {
        biased;
        _ = third.campaign(&third_address) => panic!("two lead at once"),
        () = some_turns() => {}
    }
    assert!(!campaign.is_finished(), "two lead at once");
    assert_eq!(
        *leads.standing.borrow(),
        Standing::Held,
        "who leads goes on leading"
    );

    // The first gives its leadership up.
    let before = leads.epoch;
    drop(leads);
    let leads = won(campaign.await.expect("it does not panic"));
    assert_eq!(*leads.standing.borrow(), Standing::Held);
    assert_rises(before, leads.epoch);

    // And may win again.
    let before = leads.epoch;
    drop(leads);
    let leads = won(first.campaign(&first_address).await);
    assert_rises(before, leads.epoch);
    drop(leads);

    // The end of a master is the end of its leadership.
    drop((first, second));
    let leads = won(third.campaign(&third_address).await);
    assert_eq!(*leads.standing.borrow(), Standing::Held);
}

fn address(number: u16) -> MasterAddress {
    MasterAddress {
        rpc: format!("127.0.0.1:{number}"),
        rest: None,
    }
}

fn won(campaign: Result<Leadership, super::ElectionError>) -> Leadership {
    campaign.expect("the election is held")
}

fn assert_rises(before: u64, after: u64) {
    assert!(
        after > before || (before == 0 && after == 0),
        "epochs rise, or are all 0: {after} follows {before}"
    );
}

/// Lets others do something.
async fn some_turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
