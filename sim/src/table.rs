//! Tables, and numbers for people.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with these heads.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    table
}

/// With a space for every three digits.
pub(crate) fn number(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

/// In seconds, or minutes and seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration")]
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 100.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds as u64;
    format!("{} min {:02} s", whole / 60, whole % 60)
}

/// In whole megabytes.
pub(crate) fn bytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            (number(0), number(999), number(1_234_567)),
            ("0".into(), "999".into(), "1 234 567".into())
        );
        assert_eq!((seconds(1.26), seconds(125.9)), ("1.3 s".into(), "2 min 05 s".into()));
        assert_eq!(bytes(3 << 20), "3 MB");
    }
}
