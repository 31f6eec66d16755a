//! What the lines of hosts are like: as a `[link.NAME]` of the scenario says, the same each way, or as a profile of that
//! name, each way as it is.

use super::Scenario;
use crate::link::LinkSpec;
use crate::profile;

/// What a line is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// What the host sends, and what it is sent if that is no other.
    pub(super) up: LinkSpec,
    /// What it is sent.
    pub(super) down: Option<LinkSpec>,
    /// No UDP passes.
    pub(super) blocks_udp: bool,
}

impl Line {
    /// Each way that is like no other.
    pub(super) fn ways(&self) -> impl Iterator<Item = &LinkSpec> {
        std::iter::once(&self.up).chain(&self.down)
    }
}

impl Scenario {
    /// The line of this name. The scenario's own come before profiles.
    pub(super) fn line(&self, name: &str) -> Option<Line> {
        if let Some(link) = self.links.get(name) {
            return Some(Line { up: link.clone(), ..Line::default() });
        }
        let profile = profile::named(name)?;
        let down = (profile.down != profile.up).then_some(profile.down);
        Some(Line { up: profile.up, down, blocks_udp: profile.blocks_udp })
    }

    /// The name of each host's or group's line, with the host's list and its place there.
    pub(super) fn line_names(&self) -> impl Iterator<Item = (&'static str, usize, &str)> {
        let hubs = self.hubs.iter().enumerate().map(|(index, it)| ("hub", index, &it.link));
        let proxies = self.proxies.iter().enumerate().map(|(index, it)| ("proxy", index, &it.link));
        let endpoints = self.endpoints().map(|(list, index, it)| (list, index, &it.link));
        let all = hubs.chain(proxies).chain(endpoints);
        all.filter_map(|(list, index, link)| Some((list, index, link.as_deref()?)))
    }

    /// All lines: those that the scenario describes, and those that its hosts are on.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let own = self.links.keys().map(String::as_str);
        own.chain(self.line_names().map(|(.., name)| name)).filter_map(|name| self.line(name))
    }
}

#[cfg(test)]
mod tests {
    use crate::run::{Sink, run};
    use crate::scenario::{Backend, FaultKind, Plan, parse};

    fn plan(link: &str, transport: &str, backend: Backend) -> Result<Plan, String> {
        let text = format!(
            r#"
name = "small"
story = "Two meet."
backend = "{backend}"
hub = [{{ name = "hub" }}]
service = [{{ name = "service", transport = "tls" }}]

[[device]]
name = "device"
link = "{link}"
transport = "{transport}"

[[work]]
name = "bulk"
service = "service"
device = "device"
up = "100 KiB"
"#
        );
        let scenario = parse("small.toml", &text).map_err(|malformed| malformed.to_string())?;
        scenario.expand(0, None).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_profile_is_a_line_each_way_as_it_is() {
        let plan = plan("3g", "tls", Backend::Des).unwrap();
        let rates = plan.host("device").unwrap().ways().map(|way| way.rate.unwrap().0);
        assert_eq!(rates, [768_000, 1_600_000]);
        let outcome = run(&plan, Sink::new()).unwrap();
        assert!(outcome.properties.held(), "{:?}", outcome.properties);
    }

    #[test]
    fn where_a_profile_lets_no_udp_through_none_passes_from_the_beginning() {
        let plan = plan("office", "auto", Backend::Turmoil).unwrap();
        let faults: Vec<_> = plan.faults.iter().map(|it| (it.at.0, it.kind, it.host.as_str())).collect();
        assert_eq!(faults, [(0, FaultKind::BlockUdp, "device")]);
        let outcome = run(&plan, Sink::new()).unwrap();
        assert!(outcome.properties.held(), "{:?}", outcome.properties);
    }

    #[test]
    fn a_profile_that_loses_is_refused_where_tcp_is() {
        let error = plan("factory-wifi", "tls", Backend::Des).unwrap_err();
        assert!(error.contains(":10:8: device.0.link: ") && error.contains("link laboratory"), "{error}");
        plan("factory-wifi", "quic", Backend::Des).unwrap();
        let error = plan("office", "tls", Backend::Des).unwrap_err();
        assert!(error.contains(":10:8: device.0.link: ") && error.contains("nobody falls back"), "{error}");
    }
}
