//! Reads scenarios from TOML, and says where they are wrong.

use std::fmt;
use std::ops;

use toml::de::{DeTable, DeValue};

use super::{Backend, Problem, Scenario};

/// What is wrong with a file: the line, what is there, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    file: String,
    line: usize,
    column: usize,
    /// The line itself, and what of it is meant.
    text: String,
    width: usize,
    message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, text, width, message } = self;
        let gutter = " ".repeat(line.to_string().len());
        let marks = "^".repeat((*width).max(1));
        let indent = " ".repeat(column - 1);
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        writeln!(f, "{gutter} |\n{line} | {text}")?;
        write!(f, "{gutter} | {indent}{marks}")
    }
}

impl std::error::Error for Malformed {}

/// Reads a scenario. `file` is its name, for messages.
///
/// # Errors
///
/// If it is not TOML, has what no scenario has, or makes no sense.
pub fn parse(file: &str, text: &str) -> Result<Scenario, Malformed> {
    parse_for(file, text, None)
}

/// As [`parse`], for a backend that somebody has chosen.
///
/// # Errors
///
/// As those of [`parse`], or if that backend cannot run it.
pub fn parse_for(file: &str, text: &str, backend: Option<Backend>) -> Result<Scenario, Malformed> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let message = error.message().to_owned();
        Malformed::new(file, text, error.span().unwrap_or(0..0), message)
    })?;
    scenario.check(backend).map_err(|problem| Malformed::of(file, text, &problem))?;
    Ok(scenario)
}

impl Malformed {
    /// What a check has found, with its place in the file.
    pub fn of(file: &str, text: &str, problem: &Problem) -> Self {
        Self::new(file, text, locate(text, &problem.path), problem.to_string())
    }

    fn new(file: &str, text: &str, span: ops::Range<usize>, message: String) -> Self {
        let start = span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = span.end.clamp(start, line_end);
        Self {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].to_owned(),
            width: text[start..end].chars().count(),
            message: message.replace('\n', ", "),
        }
    }
}

/// Where the value is that these keys lead to, or as far as they lead.
fn locate(text: &str, path: &[String]) -> ops::Range<usize> {
    let Ok(root) = DeTable::parse(text) else { return 0..0 };
    let mut span = 0..0;
    let Some((first, rest)) = path.split_first() else { return span };
    let Some(mut value) = root.get_ref().get(first.as_str()) else { return span };
    span.clone_from(&value.span());
    for key in rest {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(key.as_str()),
            DeValue::Array(array) => key.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        span.clone_from(&next.span());
        value = next;
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = r#"
name = "small"
story = "Two meet."

[[hub]]
name = "hub"

[[device]]
name = "device"
link = "slow"

[[service]]
name = "service"

[link.slow]
delay = "20 ms"
rate = "1 Mbit/s"

[[work]]
name = "bulk"
service = "service"
device = "device"
up = "1 MiB"

[[fault]]
kind = "cut"
host = "device"
at = "1 s..2 s"
for = "1 s"

[expect]
resumes_at_least = 1
"#;

    #[test]
    fn a_scenario_is_read() {
        let scenario = parse("small.toml", WELL).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.faults.len()), ("small", 1));
    }

    /// What is wrong, the line and the column, and what the message must say.
    #[test]
    fn what_is_wrong_is_pointed_at() {
        let cases = [
            ("rate = \"1 Mbit/s\"", "rate = \"fast\"", "16:8", "write it like \"10 Mbit/s\""),
            ("rate = \"1 Mbit/s\"", "speed = 3", "16:1", "unknown field `speed`"),
            ("rate = \"1 Mbit/s\"", "queue = \"1 KiB\"", "16:9", "say a rate as well"),
            ("rate = \"1 Mbit/s\"", "rate = ", "16:8", "string values must be quoted"),
            ("link = \"slow\"", "link = \"fast\"", "9:8", "there is no [link.fast]"),
            ("link = \"slow\"", "link = \"slow\"\nhubs = [\"hut\"]", "10:8", "there is no hub `hut`"),
            ("device = \"device\"", "device = \"devise\"", "21:10", "there is no device `devise`"),
            ("host = \"device\"", "host = \"moon\"", "26:8", "there is no host `moon`"),
            ("kind = \"cut\"", "kind = \"drain\"", "25:8", "cannot happen to `device`"),
            ("kind = \"cut\"", "kind = \"earthquake\"", "25:8", "unknown variant `earthquake`"),
            ("at = \"1 s..2 s\"", "at = \"2 s..1 s\"", "27:6", "the smaller one first"),
            ("at = \"1 s..2 s\"", "at = \"2 h\"", "27:6", "the world ends before that"),
            ("resumes_at_least = 1", "resumes_at_least = 1\nresumes_at_most = 0", "31:20", "contradicts"),
            (
                "resumes_at_least = 1",
                "no_failure = true\nsome_failure = true",
                "32:16",
                "contradicts `no_failure`",
            ),
            ("[[service]]\nname = \"service\"", "[[service]]\nname = \"device\"", "12:8", "two hosts"),
            ("story = \"Two meet.\"", "story = \"\"", "2:9", "worth a look"),
            ("name = \"small\"", "", "1:1", "missing field `name`"),
        ];
        for (from, to, place, message) in cases {
            let text = WELL.trim_start().replacen(from, to, 1);
            let error = parse("small.toml", &text).expect_err(to).to_string();
            assert!(error.starts_with(&format!("small.toml:{place}: ")), "{to}: {error}");
            assert!(error.contains(message), "{to}: {error}");
        }
    }

    #[test]
    fn what_no_backend_has_is_refused_with_the_reason() {
        let text = WELL
            .replace("rate = \"1 Mbit/s\"", "loss = \"1 %\"")
            .replace("kind = \"cut\"", "kind = \"suspend\"");
        let error = parse("small.toml", &text).unwrap_err().to_string();
        assert!(error.contains("link laboratory") && error.contains("cannot stop one host"), "{error}");
        let text = text.replace("story =", "backend = \"des\"\nstory =");
        let error = parse("small.toml", &text).unwrap_err().to_string();
        assert!(error.contains(":18:8: link.slow.loss: not on the backend `des`"), "{error}");
    }

    #[test]
    fn what_is_wrong_late_in_a_long_list_is_pointed_at_as_well() {
        let fault = "[[fault]]\nkind = \"cut\"\nhost = \"device\"\nat = \"1 s\"\n";
        let (before, after) = WELL.split_once("[[fault]]").unwrap();
        let last = format!("[[fault]]{}", after.replace("cut", "suspend"));
        let text = format!("{before}{}{last}", fault.repeat(10)).replace("resumes_at_least = 1", "");
        let error = parse_for("small.toml", &text, Some(Backend::Turmoil)).unwrap_err().to_string();
        assert!(error.contains("fault.10.kind: not on the backend `turmoil`"), "{error}");
    }

    #[test]
    fn where_no_backend_will_do_the_key_that_the_likelier_one_lacks_is_marked() {
        let text = WELL.replace("rate = \"1 Mbit/s\"", "loss = \"1 %\"");
        let error = parse("small.toml", &text).unwrap_err().to_string();
        assert!(error.contains(":17:8: link.slow.loss: no backend has all"), "{error}");
        assert!(error.contains("des: ") && error.contains("turmoil: "), "{error}");
    }

    #[test]
    fn the_host_that_asks_for_what_is_missing_is_marked() {
        let text = WELL.replace("name = \"service\"\n", "name = \"service\"\ntransport = \"web-socket\"\n");
        let text =
            text.replacen("service = \"service\"\ntransport = \"web-socket\"", "service = \"service\"", 1);
        let error = parse_for("small.toml", &text, Some(Backend::Des)).unwrap_err().to_string();
        assert!(error.contains("service.0.transport: not on the backend `des`"), "{error}");
        let text = WELL.replace("[[device]]", "[[hub]]\nname = \"other\"\nhandshake = \"1 ms\"\n[[device]]");
        let error = parse_for("small.toml", &text, Some(Backend::Turmoil)).unwrap_err().to_string();
        assert!(error.contains("hub.1.handshake: not on the backend `turmoil`"), "{error}");
    }

    #[test]
    fn what_turmoil_does_not_measure_is_refused_there() {
        let text = WELL.replace("story =", "backend = \"turmoil\"\nstory =");
        let text = text.replace("up = \"1 MiB\"", "up = \"1 MiB\"\nsession = true");
        for expectation in ["resumes_at_least", "resumes_at_most", "links_at_most"] {
            let text = text.replace("resumes_at_least", expectation);
            let error = parse("small.toml", &text).expect_err(expectation).to_string();
            assert!(
                error.contains(&format!("expect.{expectation}: not on the backend `turmoil`")),
                "{error}"
            );
            assert!(!error.contains("session = true"), "{error}");
        }
    }

    #[test]
    fn what_can_never_be_meant_is_refused_at_its_line() {
        let cases = [
            (
                "resumes_at_least = 1",
                "sometimes = [\"session_resumd\"]",
                "nobody looks whether `session_resumd`",
            ),
            ("name = \"service\"", "name = \"device-0\"", "two hosts with the name"),
            (
                "rate = \"1 Mbit/s\"",
                "burst = { enter = \"101 %\", leave = \"1 %\", loss = \"1 %\" }",
                "more than all",
            ),
            (
                "rate = \"1 Mbit/s\"",
                "burst = { enter = \"1 %\", leave = \"1 %\", loss = \"200 %\" }",
                "more than all",
            ),
            ("rate = \"1 Mbit/s\"", "reorder = { share = \"101 %\", by = \"1 ms\" }", "more than all"),
            ("[expect]", "[limits]\nsimulated = \"0 s\"\n[expect]", "in no time nothing happens"),
            ("[expect]", "[limits]\nwall = \"0 s\"\n[expect]", "in no time nothing happens"),
            ("[expect]", "[session]\nstream_window = \"0 B\"\n[expect]", "nothing is ever said"),
            ("[expect]", "[session]\nsession_window = \"0 B\"\n[expect]", "nothing is ever said"),
            ("[expect]", "[session]\nsend_buffer = \"0 B\"\n[expect]", "nothing is ever said"),
            ("[expect]", "[session]\nmax_streams = 0\n[expect]", "nothing is ever said"),
            ("up = \"1 MiB\"", "up = \"1 MiB\"\ndevice_reads = \"0 bit/s\"", "never reads"),
            ("up = \"1 MiB\"", "up = \"1 MiB\"\nservice_reads = \"0 bit/s\"", "never reads"),
            ("up = \"1 MiB\"", "up = \"1 MiB\"\nstart = \"5 min\"", "the world ends before that"),
            ("link = \"slow\"", "link = \"slow\"\nstart = \"6 min\"", "the world ends before that"),
            ("up = \"1 MiB\"", "up = \"1 MiB\"\nstreams = 1000001", "there can be 1000000"),
            ("delay = \"20 ms\"", "delay = \"1001 h\"", "up to \"1000 h\""),
        ];
        for (from, to, message) in cases {
            let mut text = WELL.trim_start().replacen(from, to, 1);
            if to.contains("device-0") {
                text = WELL.trim_start().replacen("name = \"device\"", "name = \"device\"\ncount = 2", 1);
                text = text.replacen("name = \"service\"", "name = \"device-0\"", 1);
            }
            let error = parse("small.toml", &text).expect_err(to).to_string();
            let line = error.strip_prefix("small.toml:").and_then(|rest| rest.split(':').next());
            assert!(line.is_some_and(|line| line.parse::<u32>().unwrap() > 3), "{to}: {error}");
            assert!(error.contains(message), "{to}: {error}");
        }
    }
}
