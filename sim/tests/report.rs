//! The page that shows a run, in a real browser: Chromium, where there is one, or `TOWLINE_REQUIRE_CLIENTS=1` asks for it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_towline-sim");

/// The page of a run, as the browser has it once its script has run; and what the script complained of.
fn shown(directory: &Path, scenario: &str) -> Option<(String, String)> {
    let path = |extension: &str| directory.join(format!("{scenario}.{extension}"));
    let sim = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    sim(&["run".as_ref(), scenario.as_ref(), "--trace".as_ref(), path("qlog").as_os_str()]);
    sim(&["report".as_ref(), path("qlog").as_os_str()]);
    let profile = directory.join("profile");
    let browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-extensions",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        // No network, and so whatever the page has is its own.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,2000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", path("html").display()))
        .stdin(Stdio::null())
        .output();
    match browser {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(output.status.success(), "{}", text(&output.stderr));
            Some((text(&output.stdout), text(&output.stderr)))
        }
        Err(error) => {
            let is_required = std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_some();
            assert!(!is_required, "install `chromium`, or unset TOWLINE_REQUIRE_CLIENTS: {error}");
            eprintln!("chromium: {error}; nothing was tested");
            None
        }
    }
}

/// How many elements of a kind are in the element with this id.
fn count(page: &str, id: &str, tag: &str) -> usize {
    let start = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("there is no {id}"));
    let rest = &page[start..];
    let end = ["</svg>", "</table>"].iter().filter_map(|end| rest.find(end)).min().unwrap();
    rest[..end].matches(&format!("<{tag}")).count()
}

#[test]
fn a_browser_shows_lanes_plots_and_events() {
    let directory = tempfile::tempdir().unwrap();
    for (scenario, has_windows) in [("slow-reader", true), ("product-twins", false)] {
        let Some((page, complaints)) = shown(directory.path(), scenario) else { return };
        assert!(!complaints.contains("CONSOLE"), "{scenario}: {complaints}");
        assert!(page.contains(&format!("<h1 id=\"title\">{scenario}, seed 0, on ")), "{scenario}: no title");
        // A lane each for two links and a stream at least; two lines of throughput, one of bytes that are held.
        assert!(count(&page, "lanes", "rect") >= 3, "{scenario}: no lanes");
        assert_eq!(count(&page, "rate", "polyline"), 2, "{scenario}");
        assert_eq!(count(&page, "held", "polyline"), 1, "{scenario}");
        assert_eq!(count(&page, "window", "polyline") > 0, has_windows, "{scenario}");
        assert!(count(&page, "events", "tr") > 20, "{scenario}: no events");
    }
}
