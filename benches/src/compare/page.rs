//! The page: one file that needs nothing else, with the whole report in it.

/// Has a place for the report, and the program that draws it.
const PAGE: &str = include_str!("page.html");

/// Where the report goes.
const PLACE: &str = "{{DATA}}";

/// A page that shows a report, which is JSON.
pub(super) fn page(json: &str) -> String {
    // Within a script only "</" and "<!--" mean something, and in JSON a "<" is only ever within a string.
    PAGE.replacen(PLACE, &json.replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_report_ends_its_script() {
        let hostile = serde_json::json!({ "command": "</script><script>alert(1)</script><!--" });
        let page = page(&hostile.to_string());
        assert_eq!(page.matches("</script").count(), PAGE.matches("</script").count());
        assert!(!page.contains("<!--") && !page.contains(PLACE));
        let from = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let data = &page[from..from + page[from..].find("</script>").unwrap()];
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), hostile);
    }

    #[test]
    fn a_page_loads_nothing() {
        for what in ["http:", "https:", "src=", "@import", "url(", "<link", "fetch("] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(what);
            assert!(!found, "{what}");
        }
    }
}
