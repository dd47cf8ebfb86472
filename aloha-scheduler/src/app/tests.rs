use super::*;
use crate::limits::LimitError;

fn good() -> AppDescription {
    AppDescription {
        name: "n".into(),
        entry_point: "e".into(),
        cores: 1,
        ..AppDescription::default()
    }
}

#[test]
fn a_description_that_could_not_work_is_refused_by_the_name_of_its_field() {
    type Spoil = fn(&mut AppDescription);
    let cases: [(Spoil, DescriptionError); 16] = [
        (|d| d.name = " ".into(), DescriptionError::NameEmpty),
        (
            |d| d.name = "x".repeat(257),
            DescriptionError::NameTooLong { chars: 257 },
        ),
        (
            |d| d.name = "a\nb".into(),
            DescriptionError::NameHasControlCharacter { found: '\n' },
        ),
        (|d| d.entry_point.clear(), DescriptionError::EntryPointEmpty),
        (
            |d| d.entry_point = "x".repeat(1025),
            DescriptionError::EntryPointTooLong { chars: 1025 },
        ),
        (
            |d| d.entry_point = "a\u{1b}[2J".into(),
            DescriptionError::EntryPointHasControlCharacter { found: '\u{1b}' },
        ),
        (
            |d| d.cores = 0,
            DescriptionError::CoresOutOfRange { cores: 0 },
        ),
        (
            |d| d.cores = u32::MAX,
            DescriptionError::CoresOutOfRange { cores: u32::MAX },
        ),
        (
            |d| d.cores = 1_000_001,
            DescriptionError::CoresOutOfRange { cores: 1_000_001 },
        ),
        (
            |d| d.memory_mib = u64::MAX,
            DescriptionError::MemoryOutOfRange {
                memory_mib: u64::MAX,
            },
        ),
        (
            |d| d.args = vec!["a".into(), "b\0".into()],
            DescriptionError::TextHasNul { field: "args" },
        ),
        (
            |d| d.libs = vec!["\0".into()],
            DescriptionError::TextHasNul { field: "libs" },
        ),
        (
            |d| d.environment = [("A".into(), "\0".into())].into(),
            DescriptionError::TextHasNul {
                field: "environment",
            },
        ),
        (
            |d| d.environment = [("A=B".into(), String::new())].into(),
            DescriptionError::VariableNameInvalid { name: "A=B".into() },
        ),
        (
            |d| d.stop.grace_millis = Some(86_400_001),
            DescriptionError::StopGraceOutOfRange {
                grace_millis: 86_400_001,
            },
        ),
        (
            |d| d.limits.processes = Some(0),
            DescriptionError::Limit(LimitError::BadValue {
                name: "processes",
                value: "0".into(),
                expected: "a whole number from 1 to 4194304".into(),
            }),
        ),
    ];
    for (spoil, error) in cases {
        let mut description = good();
        spoil(&mut description);
        assert_eq!(description.validate(), Err(error));
    }
    assert_eq!(good().validate(), Ok(()));
}

#[test]
fn nothing_follows_a_final_phase() {
    for (from, to) in AppPhase::ALL
        .iter()
        .flat_map(|from| AppPhase::ALL.map(|to| (*from, to)))
    {
        if from.is_final() {
            assert!(!from.may_become(to), "{from} became {to}");
        }
    }
}

#[test]
fn nothing_runs_before_it_was_launched() {
    assert!(!AppPhase::Submitted.may_become(AppPhase::Running));
    assert!(!AppPhase::Submitted.may_become(AppPhase::Finished));
    assert!(!AppPhase::Relaunching.may_become(AppPhase::Running));
    assert!(!AppPhase::Running.may_become(AppPhase::Launching));
}

#[test]
fn a_phase_reads_the_same_in_json_and_in_print() {
    for phase in AppPhase::ALL {
        assert_eq!(
            serde_json::to_string(&phase).unwrap(),
            format!("\"{phase}\"")
        );
    }
}
