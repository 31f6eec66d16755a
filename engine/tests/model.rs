//! Random operations on two sessions, against the reference model of `towline-model`: after each step both sessions
//! are consistent, what was read is a prefix of what was written, and in the end everything that was promised has
//! happened.
//!
//! A failure prints the shortest list of operations that shows it, and its seed is kept beside this file.
//! `PROPTEST_CASES=100000` hunts longer.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use towline_model::{Checked, Op, config};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any::<[u8; 5]>().prop_map(Op::decode), 1..300)
}

fn agree(ops: Vec<Op>, resumable: bool) {
    let mut checked = Checked::new(&config(), resumable);
    for op in ops {
        checked.apply(op);
    }
    checked.settle();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_sessions_agree_with_the_model(ops in ops()) {
        agree(ops, false);
    }

    /// `resume_safe`: the same over any number of pipes, cut anywhere, whoever notices.
    #[test]
    fn resume_safe(ops in ops()) {
        agree(ops, true);
    }
}
