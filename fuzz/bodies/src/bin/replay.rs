//! Shows what an input means, and runs it: `replay TARGET FILE...`

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = towline_fuzz_bodies::TARGETS.into_iter().find(|target| target.name == name) else {
        let names = towline_fuzz_bodies::TARGETS.map(|target| target.name).join(", ");
        eprintln!("usage: replay TARGET FILE...\ntargets: {names}");
        return ExitCode::FAILURE;
    };
    for file in arguments {
        let input = match std::fs::read(&file) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        };
        println!("{file}: {}", (target.explain)(&input));
        (target.run)(&input);
        println!("{file}: fine");
    }
    ExitCode::SUCCESS
}
