//! QUIC on the fast backend: quinn's own connections on the queue of events.

use towline_sim::event::{Event, What};
use towline_sim::run::{Outcome, Sink, run};
use towline_sim::scenario::{Backend, Count, FaultKind, FaultSpec, Range, Scenario, Span, Transport, parse};

/// Two endpoints of a hub, each on a line of its own.
const WORLD: &str = r#"
name = "quic"
story = "A session whose links are QUIC."

[[hub]]
name = "hub"

[[device]]
name = "device"
transport = "quic"
link = "mobile"

[[service]]
name = "service"
transport = "quic"
link = "office"

[link.mobile]
delay = "30 ms"
jitter = "10 ms"
rate = "8 Mbit/s"

[link.office]
delay = "5 ms"
rate = "100 Mbit/s"

[[work]]
name = "bulk"
service = "service"
device = "device"
streams = "2"
up = "256 KiB"
down = "256 KiB"
both_ways = true

[expect]
no_failure = true
all_online = true
"#;

fn world() -> Scenario {
    parse("world.toml", WORLD).unwrap_or_else(|error| panic!("{error}"))
}

fn played(scenario: &Scenario, seed: u64) -> (Outcome, Vec<Event>) {
    let plan = scenario.expand(seed, None).unwrap_or_else(|problem| panic!("{problem}"));
    let outcome = run(&plan, Sink::keeping()).unwrap_or_else(|error| panic!("{error}"));
    let broken: Vec<_> = outcome.properties.broken().collect();
    assert!(broken.is_empty(), "{broken:?}");
    let read = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let events = outcome.lines.iter().map(read).collect();
    (outcome, events)
}

fn count(events: &[Event], is_it: impl Fn(&What) -> bool) -> usize {
    events.iter().filter(|event| is_it(&event.what)).count()
}

#[test]
fn a_session_goes_over_quic_from_end_to_end() {
    let (outcome, events) = played(&world(), 7);
    let is_up = |what: &What| matches!(what, What::LinkUp { transport, .. } if transport == "quic");
    assert_eq!(count(&events, is_up), 2);
    assert_eq!(count(&events, |what| matches!(what, What::LinkDown { .. })), 0);
    assert_eq!(outcome.figures["bytes_read"], 4 * 256 * 1024);
    // Everything was in datagrams: as many bytes as were read went out at three hosts.
    let sent = |who: &str| -> u64 {
        let lengths = events.iter().filter(|event| event.who == who).map(|event| match event.what {
            What::PacketSent { length, .. } => length,
            _ => 0,
        });
        lengths.sum()
    };
    for (who, least) in [("service", 2), ("device", 2), ("hub", 4)] {
        assert!(sent(who) > least * 256 * 1024, "{who} has sent {} bytes", sent(who));
    }
    // TLS 1.3 within QUIC takes a round trip, the hello and the welcome another.
    let service = events.iter().find(|event| event.who == "service" && is_up(&event.what));
    let up_at = service.expect("it is up").time;
    assert!((20_000_000..22_000_000).contains(&up_at), "two round trips of 10 ms: {up_at}");
}

#[test]
fn one_end_may_be_on_quic_and_the_other_on_tcp() {
    for is_device in [true, false] {
        let mut scenario = world();
        let list = if is_device { &mut scenario.devices } else { &mut scenario.services };
        list[0].transport = Transport::Tls;
        let (outcome, _) = played(&scenario, 3);
        assert_eq!(outcome.figures["bytes_read"], 4 * 256 * 1024);
    }
}

#[test]
fn what_quic_draws_is_drawn_from_the_seed() {
    let [one, again, other] = [1, 1, 2].map(|seed| played(&world(), seed).0.hash);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

/// The world with a fault.
fn with_fault(kind: FaultKind, host: &str, at: Span, lasts: Option<Span>) -> Scenario {
    let mut scenario = world();
    scenario.faults.push(FaultSpec {
        kind,
        host: host.into(),
        each: false,
        at: Range::exactly(at),
        lasts: lasts.map(Range::exactly),
        times: Range::exactly(Count(1)),
    });
    scenario
}

fn downs(events: &[Event]) -> Vec<(String, String)> {
    let why = |event: &Event| match &event.what {
        What::LinkDown { why, .. } => Some((event.who.clone(), why.clone())),
        _ => None,
    };
    events.iter().filter_map(why).collect()
}

fn notes(events: &[Event], part: &str) -> usize {
    count(events, |what| matches!(what, What::Note { text } if text.contains(part)))
}

#[test]
fn who_moves_keeps_the_link_over_quic_and_loses_it_over_tcp() {
    for host in ["device", "service"] {
        let mut scenario = with_fault(FaultKind::Move, host, Span::millis(600), None);
        let (outcome, events) = played(&scenario, 5);
        assert_eq!(downs(&events), []);
        assert_eq!(outcome.figures["resumes"], 0);
        assert_eq!(notes(&events, "is at 11.0.0."), 1, "the hub has noticed");
        let list = if host == "device" { &mut scenario.devices } else { &mut scenario.services };
        list[0].transport = Transport::Tls;
        assert_eq!(downs(&played(&scenario, 5).1), [(host.into(), "moved".into())]);
    }
}

#[test]
fn a_nat_that_forgets_gives_another_port_and_no_link_is_lost() {
    let mut scenario = world();
    scenario.links.get_mut("mobile").expect("it is there").nat_timeout = Some(Span::seconds(2));
    // The keep-alive comes every five seconds.
    scenario.work[0].start = Range::exactly(Span::seconds(20));
    let (_, events) = played(&scenario, 1);
    assert_eq!(downs(&events), []);
    let ports = notes(&events, "its port of UDP is another one");
    assert!((3..=4).contains(&ports), "{ports} times in 20 s");
    assert!(notes(&events, "device is at 10.0.0.1:") > 0);
}

#[test]
fn a_link_at_rest_lives_on_its_keep_alives() {
    let mut scenario = world();
    scenario.work[0].start = Range::exactly(Span::seconds(200));
    let (_, events) = played(&scenario, 1);
    assert_eq!(downs(&events), []);
    let by_rest = |event: &&Event| event.time < 200_000_000_000;
    let sent = events.iter().filter(by_rest).filter(|event| matches!(event.what, What::PacketSent { .. }));
    // Two links, each with a handshake and a look for the MTU, and then a ping and its answer every five seconds.
    let sent = sent.count();
    assert!((2 * 2 * 39..2 * 2 * 41 + 120).contains(&sent), "{sent} packets");
}

#[test]
fn blocked_udp_is_missed_in_seconds_by_who_uses_it_and_not_at_all_by_tcp() {
    let mut scenario = with_fault(FaultKind::BlockUdp, "device", Span::millis(600), Some(Span::seconds(25)));
    let (_, events) = played(&scenario, 2);
    let first = events.iter().find(|event| matches!(event.what, What::LinkDown { .. }));
    let first = first.expect("the link is given up");
    assert_eq!(first.who, "device");
    assert!((1_600_000_000..4_000_000_000).contains(&first.time), "at {}", first.time);
    let why: Vec<_> = downs(&events).into_iter().map(|(_, why)| why).collect();
    assert_eq!(why[..2], ["nothing comes back over UDP", "deadline passed"]);
    scenario.devices[0].transport = Transport::Tls;
    assert_eq!(downs(&played(&scenario, 2).1), []);
}

#[test]
fn what_is_blocked_for_a_moment_is_sent_again() {
    for kind in [FaultKind::BlockUdp, FaultKind::Cut, FaultKind::Hold] {
        let scenario = with_fault(kind, "hub", Span::millis(600), Some(Span::millis(400)));
        let (outcome, events) = played(&scenario, 2);
        assert_eq!(downs(&events), [], "{kind:?}");
        assert_eq!(outcome.figures["resumes"], 0);
    }
}

/// What one way loses the other does not, and who is not heard is not told.
#[test]
fn a_way_that_is_cut_loses_datagrams_and_the_other_way_none() {
    for (kind, sends) in [(FaultKind::CutUp, true), (FaultKind::CutDown, false)] {
        let scenario = with_fault(kind, "device", Span::millis(600), Some(Span::millis(400)));
        let (outcome, events) = played(&scenario, 2);
        assert_eq!(downs(&events), [], "{kind:?}");
        assert_eq!(outcome.figures["resumes"], 0);
        let lost = events.iter().filter(|event| match &event.what {
            What::PacketSent { fate, .. } => fate == "blocked",
            What::PacketDropped { why, .. } => why == "blocked",
            _ => false,
        });
        let is_that_way =
            |event: &Event| event.who == "device" && matches!(event.what, What::PacketSent { .. }) == sends;
        let lost: Vec<_> = lost.collect();
        assert!(lost.len() > 1 && lost.iter().all(|event| is_that_way(event)), "{kind:?}: {lost:?}");
    }
}

/// TCP sends again what is lost, so that a cut one way is a hold: the same happens at the same time.
#[test]
fn to_connections_of_tcp_a_way_that_is_cut_is_one_that_is_held() {
    for (cut, hold) in [(FaultKind::CutUp, FaultKind::HoldUp), (FaultKind::CutDown, FaultKind::HoldDown)] {
        for host in ["device", "hub"] {
            let [one, other] = [cut, hold].map(|kind| {
                let mut scenario = with_fault(kind, host, Span::millis(600), Some(Span::seconds(3)));
                scenario.devices[0].transport = Transport::Tls;
                scenario.services[0].transport = Transport::Tls;
                let (_, mut events) = played(&scenario, 2);
                let is_fault =
                    |event: &Event| matches!(event.what, What::FaultBegan { .. } | What::FaultEnded { .. });
                events.retain(|event| !is_fault(event));
                events
            });
            assert!(one == other, "{cut:?} {host}");
        }
    }
}

#[test]
fn a_hub_that_has_crashed_is_missed_and_found_again() {
    for kind in [FaultKind::Crash, FaultKind::PowerLoss] {
        let scenario = with_fault(kind, "hub", Span::millis(600), Some(Span::seconds(1)));
        let (outcome, events) = played(&scenario, 2);
        let mut downs = downs(&events);
        downs.sort();
        let dark = "nothing comes back over UDP".to_owned();
        assert_eq!(downs, [("device".into(), dark.clone()), ("service".into(), dark)]);
        assert_eq!(outcome.figures["resumes"], 1);
    }
}

/// Its first packet comes again, to a process that has never seen it.
#[test]
fn who_is_caught_in_a_handshake_by_a_crash_is_let_in_by_the_next_process() {
    let mut scenario = with_fault(FaultKind::Crash, "hub", Span::millis(50), Some(Span::millis(500)));
    scenario.hubs[0].handshake = Span::millis(100);
    let (outcome, events) = played(&scenario, 2);
    assert_eq!(downs(&events), []);
    assert_eq!(outcome.figures["links"], 2);
}

#[test]
fn a_drained_hub_says_goodbye_over_quic() {
    let scenario = with_fault(FaultKind::Drain, "hub", Span::millis(600), None);
    let (outcome, events) = played(&scenario, 2);
    let mut downs = downs(&events);
    downs.sort();
    let why = "hub draining".to_owned();
    assert_eq!(downs, [("device".into(), why.clone()), ("service".into(), why)]);
    assert_eq!(outcome.figures["resumes"], 1);
}

#[test]
fn who_was_asleep_finds_the_link_gone_by_its_own_clock() {
    let scenario = with_fault(FaultKind::Suspend, "device", Span::millis(600), Some(Span::seconds(60)));
    let (outcome, events) = played(&scenario, 2);
    let (who, why) = downs(&events).remove(0);
    assert_eq!((who.as_str(), why.as_str()), ("device", "silent"));
    assert_eq!(outcome.figures["resumes"], 1);
}

#[test]
fn a_clock_that_jumps_past_the_idle_timeout_ends_a_link_and_no_session() {
    let scenario = with_fault(FaultKind::ClockJump, "device", Span::millis(600), Some(Span::seconds(600)));
    let (outcome, events) = played(&scenario, 2);
    assert_eq!(downs(&events)[0], ("device".into(), "silent".into()));
    assert_eq!(outcome.figures["resumes"], 1);
}

#[test]
fn a_path_takes_no_packet_that_is_too_large_and_all_arrives() {
    let mut scenario = world();
    scenario.links.get_mut("mobile").expect("it is there").mtu = Some(1_250);
    let (_, events) = played(&scenario, 2);
    assert_eq!(downs(&events), []);
    let too_large = |what: &What| {
        matches!(what, What::PacketSent { fate, .. } if fate == "too large")
            || matches!(what, What::PacketDropped { why, .. } if why == "too large")
    };
    let probes = count(&events, too_large);
    assert!((1..40).contains(&probes), "{probes} looks for a larger one");
}

/// The acknowledgements that waited for it say that the way is as long as it slept.
#[test]
fn who_slept_through_the_end_of_a_hub_misses_it_soon_after() {
    let mut scenario = with_fault(FaultKind::Suspend, "device", Span::millis(900), Some(Span::seconds(30)));
    let power = with_fault(FaultKind::PowerLoss, "hub", Span::seconds(10), Some(Span::seconds(1)));
    scenario.faults.extend(power.faults);
    let (_, events) = played(&scenario, 2);
    let is_missed = |event: &&Event| event.who == "device" && matches!(event.what, What::LinkDown { .. });
    let at = events.iter().find(is_missed).expect("it is missed").time;
    assert!((30_900_000_000..50_000_000_000).contains(&at), "at {at}");
}

#[test]
fn a_hub_that_is_busy_asks_who_comes_for_a_proof_of_the_address() {
    let mut scenario = world();
    scenario.devices[0].count = Some(Count(150));
    scenario.hubs[0].handshake = Span::millis(20);
    scenario.work.clear();
    let (outcome, events) = played(&scenario, 2);
    assert_eq!(count(&events, |what| matches!(what, What::LinkUp { .. })), 151);
    assert!(outcome.properties.sometimes["address_was_asked_for"] > 0);
}

/// What only datagrams can suffer is refused where links are TCP.
#[test]
fn under_tcp_nothing_is_lost_nor_blocked() {
    let lossy = WORLD.replace("rate = \"8 Mbit/s\"", "loss = \"1 %\"");
    let narrow = WORLD.replace("rate = \"8 Mbit/s\"", "mtu = 1300");
    let blocked = format!("{WORLD}\n[[fault]]\nkind = \"block-udp\"\nhost = \"hub\"\nat = \"1 s\"\n");
    for (text, why) in
        [(lossy, "link laboratory"), (narrow, "have no packets here"), (blocked, "nobody falls back")]
    {
        let on_des = |text: &str| {
            let scenario = parse("world.toml", text).map_err(|error| error.to_string())?;
            scenario.expand(1, Some(Backend::Des)).map(|_| ()).map_err(|problem| problem.to_string())
        };
        assert_eq!(on_des(&text), Ok(()), "{why}");
        let error = on_des(&text.replace("transport = \"quic\"\n", "")).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

/// What holds where links are TCP holds where they are QUIC. But for those who expect that it costs something to lose a link,
/// which over QUIC is not lost, and for the largest.
#[test]
fn every_other_story_holds_over_quic() {
    let is_tcp = |name: &&str| !name.starts_with("product-") && !name.starts_with("quic-");
    let others = ["reconnect-storm", "without-resumption"];
    for name in towline_sim::scenarios::names().filter(is_tcp).filter(|name| !others.contains(name)) {
        let named = towline_sim::scenarios::named(name).expect("it was listed");
        let mut scenario = named.unwrap_or_else(|error| panic!("{error}"));
        for endpoint in scenario.devices.iter_mut().chain(&mut scenario.services) {
            endpoint.transport = Transport::Quic;
        }
        let (_, events) = played(&scenario, 1);
        assert!(count(&events, |what| matches!(what, What::PacketSent { .. })) > 100, "{name}");
    }
}

/// The devices do not know that the hub is another one, and the world does not end on their word.
#[test]
fn who_believes_in_a_hub_that_is_gone_is_not_online() {
    let mut scenario = with_fault(FaultKind::Crash, "hub", Span::seconds(2), Some(Span::millis(500)));
    scenario.work.clear();
    scenario.devices[0].count = Some(Count(3));
    let (outcome, events) = played(&scenario, 2);
    assert_eq!(count(&events, |what| matches!(what, What::LinkUp { .. })), 2 * 4);
    assert!(outcome.figures["online_after_ns"] > 4_000_000_000, "{:?}", outcome.figures);
}
