//! The page that shows a run, in a real browser: Chromium, where there is one, or `TOWLINE_REQUIRE_CLIENTS=1` asks for it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_towline-sim");

/// What `timeout` ends with if the program is not there.
const NOT_FOUND: i32 = 127;

/// The page of a run.
fn report(directory: &Path, scenario: &str, seed: &str) -> PathBuf {
    let path = |extension: &str| directory.join(format!("{scenario}.{extension}"));
    let sim = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let trace = path("qlog");
    sim(&["run", scenario, "--seed", seed, "--trace"]
        .map(AsRef::as_ref)
        .into_iter()
        .chain([trace.as_os_str()])
        .collect::<Vec<_>>());
    sim(&["report".as_ref(), trace.as_os_str()]);
    path("html")
}

/// The page as the browser has it, once its script has run, and then this one.
fn shown(page: &Path, then: &str) -> Option<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let with = page.with_extension("then.html");
    std::fs::write(&with, text.replace("</body>", &format!("<script>{then}</script></body>"))).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["60", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        // No network, and so whatever the page has is its own.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,2000"])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", with.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.code() == Some(NOT_FOUND) {
        let is_required = std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_some();
        assert!(!is_required, "install `chromium`, or unset TOWLINE_REQUIRE_CLIENTS");
        eprintln!("there is no chromium: nothing was tested");
        return None;
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("CONSOLE"), "{}: {complaints}", page.display());
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How often this is in the element with this id.
fn count(page: &str, id: &str, what: &str) -> usize {
    let start = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("there is no {id}"));
    let rest = &page[start..];
    let end = ["</svg>", "</table>", "</span>"].iter().filter_map(|end| rest.find(end)).min().unwrap();
    rest[..end].matches(what).count()
}

#[test]
fn a_browser_shows_lanes_faults_plots_and_events() {
    let directory = tempfile::tempdir().unwrap();
    for (scenario, seed, faults, windows) in
        [("slow-reader", "3", 0, true), ("half-closes", "1", 3, true), ("product-twins", "0", 0, false)]
    {
        let Some(page) = shown(&report(directory.path(), scenario, seed), "") else { return };
        assert!(
            page.contains(&format!("<h1 id=\"title\">{scenario}, seed {seed}, on ")),
            "{scenario}: no title"
        );
        assert_eq!(count(&page, "lanes", "class=\"band\""), faults, "{scenario}");
        // A lane each for two links and a stream at least; two lines of throughput, one of bytes that are held.
        assert!(count(&page, "lanes", "rx=\"2\"") >= 3, "{scenario}: no lanes");
        assert_eq!(count(&page, "rate", "<polyline"), 2, "{scenario}");
        assert_eq!(count(&page, "held", "<polyline"), 1, "{scenario}");
        assert_eq!(count(&page, "window", "<polyline") > 0, windows, "{scenario}");
        assert!(count(&page, "events", "<tr") > 20, "{scenario}: no events");
    }
}

#[test]
fn events_are_filtered_and_the_view_is_narrowed() {
    let directory = tempfile::tempdir().unwrap();
    let page = report(directory.path(), "half-closes", "1");
    let type_in = |id: &str, text: &str, event: &str| {
        format!(
            "{{ const it = document.getElementById('{id}'); it.value = '{text}'; it.dispatchEvent(new Event('{event}')); }}"
        )
    };
    let Some(all) = shown(&page, "") else { return };
    let links = shown(&page, &type_in("text", "link_up", "input")).unwrap();
    let (all, found) = (count(&all, "events", "<tr"), count(&links, "events", "<tr"));
    assert_eq!(found, count(&links, "events", "link_up"), "nothing but what was asked for");
    assert!((2..all).contains(&found), "{found} of {all}");
    let early = shown(&page, &type_in("to", "1", "change")).unwrap();
    assert!(count(&early, "events", "<tr") < all / 2, "a second of nine");
    assert_eq!(count(&early, "lanes", "class=\"band\""), 0, "no fault begins in it");
}

/// What a trace holds is shown as it is, and never run: one may come from anybody.
#[test]
fn text_that_looks_like_a_script_is_text() {
    let directory = tempfile::tempdir().unwrap();
    let page = report(directory.path(), "nat-forgets", "0");
    let trace = page.with_extension("qlog");
    let odd = "</script><!--<script>document.title='run'//";
    let text = std::fs::read_to_string(&trace).unwrap();
    std::fs::write(
        &trace,
        text.replacen(r#""data":{"hub":"hub"}"#, &format!(r#""data":{{"hub":"{odd}"}}"#), 1),
    )
    .unwrap();
    let output = Command::new(PROGRAM).args(["report".as_ref(), trace.as_os_str()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let Some(page) = shown(&page, "") else { return };
    assert!(page.contains("<title>Towline: a run</title>"), "nothing was run");
    assert_eq!(count(&page, "events", "&lt;/script&gt;&lt;!--&lt;script&gt;"), 1, "it is there to read");
}
