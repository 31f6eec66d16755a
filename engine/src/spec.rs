//! Tests that docs/PROTOCOL.md and the code say the same.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::error::Violation;
use crate::id::Code;
use crate::stream::{RecvInput, RecvState, SendInput, SendState};

const TEXT: &str = include_str!("../../docs/PROTOCOL.md");

/// The cells of the first table after `heading`, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let section = &TEXT[TEXT.find(heading).unwrap_or_else(|| panic!("no section {heading}"))..];
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The name of a state, without what is in it.
fn name(state: Option<impl core::fmt::Debug>) -> String {
    let name = state.map_or("-".to_string(), |state| format!("{state:?}"));
    name.split('(').next().unwrap_or_default().to_string()
}

#[test]
fn sending_halves_move_as_the_table_says() {
    use SendInput::{Acknowledged, Finish, Reset};
    use SendState::{DataRecvd, DataSent, ResetRecvd, ResetSent, Send};
    let code = [Send, DataSent, ResetSent, DataRecvd, ResetRecvd].map(|state| {
        [name(Some(state)), name(state.on(Finish)), name(state.on(Reset)), name(state.on(Acknowledged))]
    });
    assert_eq!(table("### 4.1 "), code);
}

#[test]
fn receiving_halves_move_as_the_table_says() {
    use RecvInput::{Fin, Read, Reset};
    use RecvState::{DataRead, DataRecvd, Recv, ResetRead, ResetRecvd};
    let one = Code::from(1);
    let code = [Recv, DataRecvd, ResetRecvd(one), DataRead, ResetRead(one)].map(|state| {
        [name(Some(state)), name(state.on(Fin)), name(state.on(Reset(one))), name(state.on(Read))]
    });
    assert_eq!(table("### 4.2 "), code);
}

#[test]
fn every_violation_is_in_the_table_with_its_code_and_phrase() {
    let rows = table("### 3.8 ");
    assert_eq!(rows.len(), Violation::ALL.len());
    for violation in Violation::ALL {
        let row = rows.iter().find(|row| row[0] == format!("{violation:?}"));
        let row = row.unwrap_or_else(|| panic!("{violation:?} is not in the table"));
        let code = row[1]
            .split(' ')
            .next()
            .and_then(|code| u64::from_str_radix(code.trim_start_matches("0x"), 16).ok());
        assert_eq!(code, Some(violation.code()), "{violation:?}");
        assert_eq!(row[2].trim_matches('`'), violation.reason(), "{violation:?}");
    }
}
