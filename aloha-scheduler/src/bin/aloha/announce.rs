//! What a master's log says of who leads.

use std::time::Duration;

use aloha_scheduler::election::MasterAddress;
use aloha_scheduler::{MasterHandle, MasterRole};
use tracing::info;

/// How long an election may take before the log says that it is not over: a master that is alone leads at once.
const SETTLING: Duration = Duration::from_secs(1);

/// Says whenever it changes whether this master leads, and else who does. Ends with the master.
pub(crate) async fn announce(master: MasterHandle, own: Option<String>) {
    let (mut role, mut leader) = (master.role(), master.leader());
    let is_settled = |role: &MasterRole| *role != MasterRole::default();
    drop(tokio::time::timeout(SETTLING, role.wait_for(is_settled)).await);
    let mut said = None;
    loop {
        let sentence = sentence(
            &role.borrow_and_update(),
            leader.borrow_and_update().as_ref(),
            own.as_deref(),
        );
        if sentence != said
            && let Some(sentence) = &sentence
        {
            info!("{sentence}");
        }
        said = sentence;
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = leader.changed() => {}
        }
    }
}

/// How things stand, for a person; nothing where the process ends with a word about it.
fn sentence(
    role: &MasterRole,
    leader: Option<&MasterAddress>,
    own: Option<&str>,
) -> Option<String> {
    match role {
        MasterRole::Leading { epoch } => {
            Some(format!("this master leads the cluster (epoch {epoch})"))
        }
        MasterRole::Standby { .. } => Some(match leader {
            // Its node of the election may be one of an earlier session or process, or be given up just now.
            Some(leader) if own == Some(&leader.rpc) => return first_in_line(role),
            Some(leader) => format!("this master is a standby; {} leads the cluster", leader.rpc),
            None => "this master is a standby; no master is known to lead the cluster".to_owned(),
        }),
        _ => None,
    }
}

fn first_in_line(role: &MasterRole) -> Option<String> {
    match role {
        MasterRole::Standby { reason: None } => {
            Some("this master is first in line to lead the cluster".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_who_leads() {
        let address = |rpc: &str| MasterAddress {
            rpc: rpc.to_owned(),
            rest: None,
        };
        let standby = MasterRole::Standby { reason: None };
        let leads = MasterRole::Leading { epoch: 7 };
        let said = |role, leader: Option<&str>| {
            let leader = leader.map(address);
            sentence(role, leader.as_ref(), Some("m1:7077")).expect("something")
        };
        assert_eq!(
            said(&leads, None),
            "this master leads the cluster (epoch 7)"
        );
        let other = said(&standby, Some("m2:7077"));
        assert_eq!(other, "this master is a standby; m2:7077 leads the cluster");
        let own = said(&standby, Some("m1:7077"));
        assert_eq!(own, "this master is first in line to lead the cluster");
        let stops = MasterRole::Standby {
            reason: Some("it is about to stop".to_owned()),
        };
        assert_eq!(
            sentence(&stops, Some(&address("m1:7077")), Some("m1:7077")),
            None
        );
        let nobody = said(&standby, None);
        assert_eq!(
            nobody,
            "this master is a standby; no master is known to lead the cluster"
        );
    }
}
