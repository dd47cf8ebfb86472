//! Bob's application. It needs version 2 of `phrase`.

use std::process::ExitCode;
use std::time::Duration;

use aloha_scheduler::application::{
    Application, ApplicationError, Applications, ExitState, ThreadApplication,
};

fn main() -> ExitCode {
    Applications::new().with("bob.Greeter", greeter).run()
}

/// Greets somebody in a language, again and again. Arguments: the name, the language.
fn greeter() -> impl Application {
    ThreadApplication::new(|context, stop| {
        let [name, language] = &context.description().args[..] else {
            return Err(ApplicationError::new("arguments: NAME LANGUAGE"));
        };
        let Some(greeting) = phrase::greeting(name, language) else {
            return Ok(ExitState::Code(3));
        };
        for number in 1_u64.. {
            println!("{number}: {greeting}");
            if let Some(reason) = stop.wait_timeout(Duration::from_millis(20)) {
                println!("bob ends: {reason}");
                break;
            }
        }
        Ok(ExitState::SUCCESS)
    })
}
