//! What the fuzz targets do, on any compiler.
//!
//! `fuzz/fuzz_targets/` hands the fuzzer's bytes to the functions here. So do the tests, on stable Rust: each seed and
//! each finding of the past runs again in `cargo test`. `fuzz/README.md` says how to hunt.
//!
//! An input is read from its front by `arbitrary`, so that it can be written as well: [`seeds`] are real exchanges.

mod arrival;
pub mod harness;
pub mod memory;
pub mod peer;
pub mod seeds;
pub mod setup;
pub mod step;
pub mod targets;
pub mod wire;

/// Arms the known bug that the variable `TOWLINE_SABOTAGE` names, to see that a target finds it. Without
/// `--cfg towline_sabotage` there are no known bugs, and this does nothing.
///
/// # Panics
///
/// If there is no such bug.
pub fn prepare() {
    #[cfg(towline_sabotage)]
    if let Ok(name) = std::env::var("TOWLINE_SABOTAGE") {
        use towline_engine::sabotage::{Bug, arm};
        arm(Bug::named(&name).unwrap_or_else(|| panic!("no bug {name}; there are {:?}", Bug::ALL)));
    }
}

/// A target: its name, what runs an input, and what shows how an input was meant.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As in `cargo fuzz run`.
    pub name: &'static str,
    /// Runs an input; panics if a promise is broken.
    pub run: fn(&[u8]),
    /// What the input means.
    pub explain: fn(&[u8]) -> String,
}

/// All targets.
pub const TARGETS: [Target; 6] = {
    use targets::{messages, pair_ops, parameters, record_frame, resume, session_bytes};
    [
        Target {
            name: "record_frame",
            run: record_frame::run,
            explain: |data| format!("{:#?}", record_frame::Input::new(data)),
        },
        Target {
            name: "session_bytes",
            run: session_bytes::run,
            explain: |data| format!("{:#?}", session_bytes::Input::new(data)),
        },
        Target {
            name: "pair_ops",
            run: pair_ops::run,
            explain: |data| format!("{:#?}", pair_ops::Input::new(data)),
        },
        Target {
            name: "parameters",
            run: parameters::run,
            explain: |data| format!("{:#?}", parameters::Input::new(data)),
        },
        Target {
            name: "messages",
            run: messages::run,
            explain: |data| format!("{:#?}", messages::Input::new(data)),
        },
        Target { name: "resume", run: resume::run, explain: |data| format!("{:#?}", resume::input(data)) },
    ]
};
