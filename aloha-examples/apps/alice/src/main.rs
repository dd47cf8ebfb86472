//! Alice's applications. They need version 1 of `phrase`.

use std::process::ExitCode;
use std::time::Duration;

use aloha_scheduler::application::{Application, Applications, ExitState, ThreadApplication};

fn main() -> ExitCode {
    Applications::new()
        .with("alice.Greeter", greeter)
        .with("alice.Crasher", crasher)
        .run()
}

/// Greets whom its arguments name, again and again.
fn greeter() -> impl Application {
    ThreadApplication::new(|context, stop| {
        let greeting = phrase::greeting(&context.description().args.join(" "));
        for number in 1_u64.. {
            println!("{number}: {greeting}");
            if let Some(reason) = stop.wait_timeout(Duration::from_millis(20)) {
                println!("alice ends: {reason}");
                break;
            }
        }
        Ok(ExitState::SUCCESS)
    })
}

/// Takes its whole process along.
fn crasher() -> impl Application {
    ThreadApplication::new(|context, _| {
        println!("{} crashes", phrase::greeting(context.app_id()));
        std::process::abort()
    })
}
