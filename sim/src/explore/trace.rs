//! The way to a property that does not hold, as a test to be run.

use std::fmt::Write;

use towline_engine::{Dir, Side, Urgency};
use towline_model::Op;

use crate::explore::broken::{Broken, catch};
use crate::explore::scope::{Case, Setting};
use crate::explore::state::{Action, State};

/// The operations that `way` consists of, and what broke in the end.
pub(crate) fn replay(case: &Case, way: &[Action]) -> (Vec<Op>, Option<Broken>) {
    let mut log = Vec::new();
    let mut state = State::new(case);
    for action in way {
        let next = state.after(case, *action);
        // The operation that panics is written down before it does.
        let _ = catch(|| state.act(case, *action, Some(&mut log)));
        state = next;
    }
    (log, state.broken)
}

/// Leaves out of `way` whatever it does without, as long as the same property breaks in the end.
pub(crate) fn shorten(case: &Case, way: &[Action]) -> Vec<Action> {
    let broken_by = |way: &[Action]| {
        let mut state = State::new(case);
        for (count, action) in way.iter().enumerate() {
            if !state.actions(case).contains(action) {
                return None;
            }
            state = state.after(case, *action);
            if let Some(broken) = &state.broken {
                return Some((broken.property, count + 1));
            }
        }
        None
    };
    let Some((property, length)) = broken_by(way) else { return way.to_vec() };
    let mut way = way[..length].to_vec();
    let mut place = way.len();
    while place > 0 {
        place -= 1;
        let mut shorter = way.clone();
        shorter.remove(place);
        if let Some((same, length)) = broken_by(&shorter).filter(|(broken, _)| *broken == property) {
            debug_assert_eq!(same, property);
            shorter.truncate(length);
            way = shorter;
            place = place.min(way.len());
        }
    }
    way
}

/// A test in Rust that does the operations in order, and fails.
pub(crate) fn test(case: &Case, broken: &Broken, log: &[Op]) -> String {
    let mut text = String::new();
    let scope = format!("{:?}", case.scope).to_lowercase();
    let message = broken.message.replace('\n', "\n/// ");
    writeln!(text, "/// Scope {scope}, {}: {}\n///\n/// {message}", case.name, broken.property)
        .expect(STRING);
    writeln!(text, "#[test]\nfn {}_in_{scope}() {{", broken.property).expect(STRING);
    text.push_str("    use std::time::Duration;\n\n");
    text.push_str("    use towline_engine::{Config, Dir, Side};\n    use towline_model::{Checked, Op};\n\n");
    text.push_str("    let mut config = Config::default();\n    config.keep_alive = None;\n");
    text.push_str("    config.grace = Duration::from_secs(1 << 20);\n");
    for setting in case.settings {
        writeln!(text, "    config.{};", assignment(*setting)).expect(STRING);
    }
    let new = if case.is_thorough { "thorough" } else { "new" };
    writeln!(text, "    let mut checked = Checked::{new}(&config, {});", case.is_resumable).expect(STRING);
    text.push_str("    for op in [\n");
    for op in log {
        writeln!(text, "        {},", code(*op)).expect(STRING);
    }
    text.push_str("    ] {\n        checked.apply(op);\n    }\n    checked.settle();\n}\n");
    text
}

const STRING: &str = "a string takes everything";

fn assignment(setting: Setting) -> String {
    match setting {
        Setting::StreamWindow(bytes) => format!("stream_window = {bytes}"),
        Setting::SessionWindow(bytes) => format!("session_window = {bytes}"),
        Setting::SendBuffer(bytes) => format!("send_buffer = {bytes}"),
        Setting::MaxStreamsBidi(count) => format!("max_streams_bidi = {count}"),
        Setting::OptimisticResend(is_wanted) => format!("optimistic_resend = {is_wanted}"),
    }
}

/// The expression that makes the operation.
fn code(op: Op) -> String {
    match op {
        Op::Open(side, dir) => format!("Op::Open({}, {})", side_code(side), dir_code(dir)),
        Op::Accept(side, dir) => format!("Op::Accept({}, {})", side_code(side), dir_code(dir)),
        Op::Write(side, n, count) => format!("Op::Write({}, {n}, {count})", side_code(side)),
        Op::Read(side, n, count) => format!("Op::Read({}, {n}, {count})", side_code(side)),
        Op::Finish(side, n) => format!("Op::Finish({}, {n})", side_code(side)),
        Op::Reset(side, n, code) => format!("Op::Reset({}, {n}, {code})", side_code(side)),
        Op::ResetWhenSent(side, n, code) => format!("Op::ResetWhenSent({}, {n}, {code})", side_code(side)),
        Op::Stop(side, n, code) => format!("Op::Stop({}, {n}, {code})", side_code(side)),
        Op::Release(side, n) => format!("Op::Release({}, {n})", side_code(side)),
        Op::SetUrgency(side, n, urgency) => {
            let urgency = match urgency {
                Urgency::Interactive => "Interactive",
                Urgency::Normal => "Normal",
                Urgency::Bulk => "Bulk",
            };
            format!("Op::SetUrgency({}, {n}, Urgency::{urgency})", side_code(side))
        }
        Op::Ping(side) => format!("Op::Ping({})", side_code(side)),
        Op::CopyOut(side) => format!("Op::CopyOut({})", side_code(side)),
        Op::Transmit(side, max) => format!("Op::Transmit({}, {max})", side_code(side)),
        Op::Deliver(side, count) => format!("Op::Deliver({}, {count})", side_code(side)),
        Op::Wait(millis) => format!("Op::Wait({millis})"),
        Op::Cut { client_notices, server_notices } => {
            format!("Op::Cut {{ client_notices: {client_notices}, server_notices: {server_notices} }}")
        }
        Op::Reconnect => "Op::Reconnect".into(),
        Op::Drain(side) => format!("Op::Drain({})", side_code(side)),
        Op::Close(side) => format!("Op::Close({})", side_code(side)),
        Op::Fire(side) => format!("Op::Fire({})", side_code(side)),
        Op::Overtake => "Op::Overtake".into(),
        Op::TransmitOlder(max) => format!("Op::TransmitOlder({max})"),
        Op::DeliverOlder(older, count) => format!("Op::DeliverOlder({older}, {count})"),
    }
}

fn side_code(side: Side) -> &'static str {
    match side {
        Side::Client => "Side::Client",
        Side::Server => "Side::Server",
    }
}

fn dir_code(dir: Dir) -> &'static str {
    match dir {
        Dir::Bi => "Dir::Bi",
        Dir::Uni => "Dir::Uni",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::program::Deed;
    use crate::explore::scope::Scope;

    const EXPECTED: &str = r#"/// Scope resume, three pipes: eof_iff_fin
///
/// panicked at somewhere:
/// eof_iff_fin: it is not
#[test]
fn eof_iff_fin_in_resume() {
    use std::time::Duration;

    use towline_engine::{Config, Dir, Side};
    use towline_model::{Checked, Op};

    let mut config = Config::default();
    config.keep_alive = None;
    config.grace = Duration::from_secs(1 << 20);
    config.send_buffer = 3;
    let mut checked = Checked::new(&config, true);
    for op in [
        Op::Open(Side::Client, Dir::Bi),
        Op::Read(Side::Client, 0, 65535),
        Op::Write(Side::Client, 0, 1),
        Op::Transmit(Side::Client, 16384),
        Op::Deliver(Side::Client, 2),
        Op::Cut { client_notices: true, server_notices: false },
        Op::Reconnect,
    ] {
        checked.apply(op);
    }
    checked.settle();
}
"#;

    #[test]
    fn a_way_is_printed_as_a_test() {
        let case = &Scope::Resume.cases()[0];
        let way = [
            Action::Do(Deed::Step { program: 0, step: 0 }),
            Action::Do(Deed::Step { program: 1, step: 0 }),
            Action::Transmit(Side::Client),
            Action::Cut { to_server: 2, to_client: 0, client_notices: true, server_notices: false },
            Action::Reconnect,
        ];
        let (log, broken) = replay(case, &way);
        assert_eq!(broken, None);
        let message = "panicked at somewhere:\neof_iff_fin: it is not".to_owned();
        assert_eq!(test(case, &Broken { property: "eof_iff_fin", message }, &log), EXPECTED);
    }

    /// The bug that is armed here is one of the known ones: see sabotage.rs.
    #[cfg(towline_sabotage)]
    #[test]
    fn a_way_is_shortened_and_breaks_the_same() {
        use towline_engine::sabotage::{Bug, arm};
        use towline_model::Checked;

        arm(Bug::EofOnReset);
        let mut cases = Scope::Close.cases();
        cases.retain(|case| case.name == "one stream");
        let bounds = crate::explore::Bounds { threads: 1, max_states: None, timeout: None };
        let finding = crate::explore::walk(&cases[0], bounds, &mut |_| ()).finding.unwrap();
        assert_eq!((finding.property, finding.is_shortest), ("eof_iff_fin", true));
        // The same without the explorer.
        let mut checked = Checked::thorough(&cases[0].config(), true);
        let broken = catch(|| {
            finding.operations.iter().for_each(|op| checked.apply(*op));
            checked.settle();
        });
        assert_eq!(broken.unwrap_err().property, "eof_iff_fin");
    }
}
