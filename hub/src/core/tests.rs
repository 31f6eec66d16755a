//! The hub's core, told stories without a runtime.

use super::*;
use crate::message::{Accepted, VERSION};
use crate::policy::{AllowAll, Rules};

/// A hub's time begins when it starts.
const fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn core() -> Core {
    Core::new(Limits::default(), Box::new(AllowAll))
}

fn hello(instance: u64) -> Hello {
    Hello { version: VERSION, instance, agent: "test".into() }
}

fn come(core: &mut Core, now: Instant, link: u64, who: &str, instance: u64) -> Result<(), Refusal> {
    let identity = format!("spiffe://test/{who}").parse().unwrap();
    let outcome = core.handle_hello(now, LinkId(link), identity, "192.0.2.1:5".into(), hello(instance));
    core.check_invariants();
    outcome
}

fn open(core: &mut Core, now: Instant, link: u64, device: &str) -> Result<Offered, Refusal> {
    let outcome = core.handle_open(now, LinkId(link), &request(device, None));
    core.check_invariants();
    outcome
}

fn actions(core: &mut Core) -> Vec<Action> {
    std::iter::from_fn(|| core.poll_action()).collect()
}

fn code(outcome: Result<Offered, Refusal>) -> RefusalCode {
    outcome.unwrap_err().code
}

/// A device on link 1 and a service on link 2.
fn introduced() -> Core {
    let mut core = core();
    come(&mut core, at(0), 1, "device/press-7", 10).unwrap();
    come(&mut core, at(0), 2, "service/ops", 20).unwrap();
    core
}

/// Waits for a device that is away, so many milliseconds. Returns the tunnel's number.
fn wait(core: &mut Core, now: Instant, device: &str, wait: u32) -> TunnelId {
    let tunnel = core.handle_wait(now, LinkId(2), &request(device, Some(wait))).unwrap();
    core.check_invariants();
    tunnel
}

fn request(device: &str, wait_ms: Option<u32>) -> Open {
    Open {
        device: device.into(),
        service: "ssh".into(),
        profile: Profile::Native,
        deadline_ms: 5_000,
        wait_ms,
    }
}

#[test]
fn who_waits_for_a_device_is_offered_to_it_when_it_comes() {
    let mut core = introduced();
    let waiting = [0, 1].map(|_| wait(&mut core, at(0), "press-8", 30_000));
    let other = wait(&mut core, at(0), "press-9", 30_000);
    assert_eq!((core.parked(), core.tunnels(), core.poll_timeout()), (3, 0, Some(at(30_000))));
    come(&mut core, at(7_000), 3, "device/press-8", 30).unwrap();
    let offered: Vec<_> = actions(&mut core)
        .into_iter()
        .map(|action| match action {
            Action::Offer(offered) => (offered.tunnel, offered.link, offered.deadline),
            action => panic!("{action:?}"),
        })
        .collect();
    assert_eq!(offered, waiting.map(|tunnel| (tunnel, LinkId(3), Duration::from_secs(5))));
    assert_eq!((core.parked(), core.tunnels(), core.poll_timeout()), (1, 2, Some(at(12_000))));
    core.handle_tunnel_closed(other);
    core.check_invariants();
    assert_eq!(core.parked(), 0, "it was cancelled");
}

#[test]
fn a_device_that_does_not_come_is_not_waited_for_any_longer() {
    let mut core = introduced();
    let tunnel = wait(&mut core, at(0), "press-8", 1_000);
    let long = wait(&mut core, at(0), "press-8", u32::MAX);
    core.handle_timeout(at(999));
    assert_eq!(actions(&mut core), []);
    core.handle_timeout(at(1_000));
    let [Action::Refuse(refused, refusal)] = &actions(&mut core)[..] else { panic!("one refusal") };
    assert_eq!((*refused, refusal.code), (tunnel, RefusalCode::DeviceOffline));
    assert_eq!(core.poll_timeout(), Some(at(600_000)), "nobody waits for longer than that");
    core.handle_drain(Duration::from_secs(1));
    let refused = actions(&mut core).into_iter().find_map(|action| match action {
        Action::Refuse(tunnel, refusal) => Some((tunnel, refusal.code)),
        _ => None,
    });
    assert_eq!(refused, Some((long, RefusalCode::HubDraining)));
    core.check_invariants();
}

#[test]
fn no_more_than_so_many_wait() {
    let mut core = core();
    let open = request("press-8", Some(1_000));
    for number in 0..MAX_PARKED {
        let link = number / MAX_PARKED_OF_SERVICE;
        if number % MAX_PARKED_OF_SERVICE == 0 {
            come(&mut core, at(0), link as u64, &format!("service/ops-{link}"), 20).unwrap();
        }
        core.handle_wait(at(0), LinkId(link as u64), &open).unwrap();
    }
    come(&mut core, at(0), 1_000, "service/late", 20).unwrap();
    let refusal = core.handle_wait(at(0), LinkId(1_000), &open).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TooManyTunnels);
    assert!(refusal.text.contains("10000"), "{refusal}");
}

#[test]
fn a_service_that_waits_a_lot_leaves_room_for_others() {
    let mut core = introduced();
    come(&mut core, at(0), 3, "service/ops", 21).unwrap();
    come(&mut core, at(0), 4, "service/other", 22).unwrap();
    let open = request("press-8", Some(1_000));
    let waiting = [2, 3].map(|link| {
        let half = 0..MAX_PARKED_OF_SERVICE / 2;
        half.map(|_| core.handle_wait(at(0), LinkId(link), &open).unwrap()).last().unwrap()
    });
    for link in [2, 3] {
        let refusal = core.handle_wait(at(0), LinkId(link), &open).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::TooManyTunnels, "all its links count together");
        assert!(refusal.text.contains("256 tunnels of ops"), "{refusal}");
    }
    core.handle_wait(at(0), LinkId(4), &open).unwrap();
    core.check_invariants();
    core.handle_tunnel_closed(waiting[0]);
    core.handle_wait(at(0), LinkId(3), &open).unwrap();
    core.handle_timeout(at(1_000));
    core.check_invariants();
    for link in [2, 4] {
        core.handle_wait(at(1_000), LinkId(link), &open).unwrap();
    }
}

#[test]
fn only_a_service_that_said_hello_may_wait() {
    let mut core = introduced();
    let open = request("press-8", Some(1_000));
    let mut refused = |link| core.handle_wait(at(0), LinkId(link), &open).unwrap_err().code;
    assert_eq!([1, 9].map(&mut refused), [RefusalCode::Forbidden, RefusalCode::BadRequest]);
    core.handle_drain(Duration::ZERO);
    assert_eq!(core.handle_wait(at(0), LinkId(2), &open).unwrap_err().code, RefusalCode::HubDraining);
}

#[test]
fn a_tunnel_is_offered_answered_and_counted() {
    let mut core = introduced();
    let offered = open(&mut core, at(0), 2, "press-7").unwrap();
    assert_eq!((offered.link, offered.service.as_str()), (LinkId(1), "ssh"));
    assert_eq!(core.poll_timeout(), Some(at(5_000)));
    let answer = Answer::Accepted(Accepted::default());
    assert_eq!(core.handle_answer(offered.tunnel, answer.clone()), Some(answer.clone()));
    assert_eq!(core.poll_timeout(), None, "an answered offer has no deadline");
    assert_eq!(core.handle_list(at(0), LinkId(2)).unwrap()[0].tunnels, 1);
    assert_eq!(core.handle_answer(offered.tunnel, answer), None, "once");
    core.handle_tunnel_closed(offered.tunnel);
    core.handle_tunnel_closed(offered.tunnel);
    assert_eq!((core.handle_list(at(0), LinkId(2)).unwrap()[0].tunnels, core.tunnels()), (0, 0));
    core.check_invariants();
}

#[test]
fn a_refusal_is_passed_on_and_leaves_nothing() {
    let mut core = introduced();
    let offered = open(&mut core, at(0), 2, "press-7").unwrap();
    let refusal = Answer::Refused(Refusal::new(RefusalCode::TargetRefused, "127.0.0.1:22"));
    assert_eq!(core.handle_answer(offered.tunnel, refusal.clone()), Some(refusal));
    assert_eq!((core.tunnels(), core.poll_timeout()), (0, None));
}

#[test]
fn a_device_that_does_not_answer_in_time_is_refused_for() {
    let mut core = introduced();
    let offered = open(&mut core, at(0), 2, "press-7").unwrap();
    core.handle_timeout(at(4_999));
    assert_eq!(actions(&mut core), []);
    core.handle_timeout(at(5_000));
    let [Action::Refuse(tunnel, refusal)] = &actions(&mut core)[..] else { panic!("one refusal") };
    assert_eq!((*tunnel, refusal.code), (offered.tunnel, RefusalCode::DeadlinePassed));
    assert_eq!(core.handle_answer(offered.tunnel, Answer::Accepted(Accepted::default())), None, "too late");
    core.check_invariants();
}

#[test]
fn no_deadline_is_longer_than_a_minute() {
    let mut core = introduced();
    let open = Open {
        device: "press-7".into(),
        service: "ssh".into(),
        profile: Profile::Native,
        deadline_ms: u32::MAX,
        wait_ms: None,
    };
    let offered = core.handle_open(at(0), LinkId(2), &open).unwrap();
    assert_eq!(offered.deadline, MAX_DEADLINE);
}

#[test]
fn unknown_and_offline_are_told_apart() {
    let mut core = introduced();
    assert_eq!(code(open(&mut core, at(0), 2, "press-8")), RefusalCode::DeviceUnknown);
    core.handle_link_closed(at(1_000), LinkId(1));
    let refusal = open(&mut core, at(31_000), 2, "press-7").unwrap_err();
    assert_eq!((refusal.code, &refusal.text[..]), (RefusalCode::DeviceOffline, "press-7 left 30 s ago"));
    come(&mut core, at(32_000), 3, "device/press-7", 10).unwrap();
    assert_eq!(open(&mut core, at(32_000), 2, "press-7").unwrap().link, LinkId(3));
}

#[test]
fn devices_that_left_long_ago_are_forgotten() {
    let mut core = Core::new(Limits { remembered: 2, ..Limits::default() }, Box::new(AllowAll));
    come(&mut core, at(0), 100, "service/ops", 1).unwrap();
    for link in 0..4 {
        come(&mut core, at(link), link, &format!("device/d{link}"), 1).unwrap();
    }
    for link in 0..3 {
        core.handle_link_closed(at(10 + link), LinkId(link));
        core.check_invariants();
    }
    assert_eq!(code(open(&mut core, at(20), 100, "d0")), RefusalCode::DeviceUnknown);
    assert_eq!(code(open(&mut core, at(20), 100, "d1")), RefusalCode::DeviceOffline);
    assert!(open(&mut core, at(20), 100, "d3").is_ok());
    assert_eq!(core.online(), 1);
}

#[test]
fn the_newer_holder_of_an_identity_wins_and_the_older_learns_why() {
    let mut core = introduced();
    come(&mut core, at(1_000), 3, "device/press-7", 11).unwrap();
    let [Action::Dismiss(LinkId(1), refusal)] = &actions(&mut core)[..] else { panic!("one dismissal") };
    assert_eq!((refusal.code, refusal.retry_after_ms), (RefusalCode::Superseded, Some(30_000)));
    assert_eq!(open(&mut core, at(1_000), 2, "press-7").unwrap().link, LinkId(3));
    // The older link's end does not make the device offline.
    core.handle_link_closed(at(1_001), LinkId(1));
    let status = &core.handle_list(at(3_000), LinkId(2)).unwrap()[0];
    assert!(status.online);
    assert_eq!((status.takeovers, status.last_takeover_ms), (1, Some(2_000)));
}

#[test]
fn a_reconnect_of_the_same_process_is_no_takeover() {
    let mut core = introduced();
    come(&mut core, at(1_000), 3, "device/press-7", 10).unwrap();
    let [Action::Dismiss(LinkId(1), refusal)] = &actions(&mut core)[..] else { panic!("one dismissal") };
    assert_eq!(refusal.retry_after_ms, Some(0));
    assert_eq!(core.handle_list(at(1_000), LinkId(2)).unwrap()[0].takeovers, 0);
}

#[test]
fn tunnels_of_a_replaced_link_do_not_count_for_the_new_one() {
    let mut core = introduced();
    let old = open(&mut core, at(0), 2, "press-7").unwrap();
    come(&mut core, at(1), 3, "device/press-7", 10).unwrap();
    let new = open(&mut core, at(2), 2, "press-7").unwrap();
    core.handle_tunnel_closed(old.tunnel);
    assert_eq!(core.handle_list(at(3), LinkId(2)).unwrap()[0].tunnels, 1);
    core.handle_tunnel_closed(new.tunnel);
    assert_eq!(core.handle_list(at(3), LinkId(2)).unwrap()[0].tunnels, 0);
}

#[test]
fn only_services_open_and_list() {
    let mut core = introduced();
    assert_eq!(code(open(&mut core, at(0), 1, "press-7")), RefusalCode::Forbidden);
    assert_eq!(code(open(&mut core, at(0), 99, "press-7")), RefusalCode::BadRequest, "no hello");
    assert_eq!(core.handle_list(at(0), LinkId(1)).unwrap_err().code, RefusalCode::Forbidden);
    assert_eq!(come(&mut core, at(0), 5, "hub/h2", 1).unwrap_err().code, RefusalCode::Forbidden);
}

#[test]
fn policy_decides() {
    let rules = Rules(vec!["ops:press-*:ssh".parse().unwrap()]);
    let mut core = Core::new(Limits::default(), Box::new(rules));
    come(&mut core, at(0), 1, "device/press-7", 1).unwrap();
    come(&mut core, at(0), 2, "service/ops", 1).unwrap();
    come(&mut core, at(0), 3, "service/intern", 1).unwrap();
    assert!(open(&mut core, at(0), 2, "press-7").is_ok());
    assert_eq!(code(open(&mut core, at(0), 3, "press-7")), RefusalCode::Forbidden);
    // What is forbidden does not tell whether it exists.
    assert_eq!(code(open(&mut core, at(0), 3, "nowhere")), RefusalCode::Forbidden);
}

#[test]
fn opens_and_lists_are_rated_per_service() {
    let limits = Limits { opens_per_second: 10, open_burst: 3, ..Limits::default() };
    let mut core = Core::new(limits, Box::new(AllowAll));
    come(&mut core, at(0), 1, "device/press-7", 1).unwrap();
    come(&mut core, at(0), 2, "service/ops", 1).unwrap();
    come(&mut core, at(0), 3, "service/other", 1).unwrap();
    for _ in 0..3 {
        open(&mut core, at(0), 2, "press-7").unwrap();
    }
    let refusal = open(&mut core, at(0), 2, "press-7").unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after_ms), (RefusalCode::RateLimited, Some(100)));
    let refusal = core.handle_list(at(0), LinkId(2)).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.retry_after_ms),
        (RefusalCode::RateLimited, Some(100)),
        "lists count too"
    );
    assert!(open(&mut core, at(0), 3, "press-7").is_ok(), "others are not affected");
    assert!(open(&mut core, at(100), 2, "press-7").is_ok());
    assert!(core.handle_list(at(200), LinkId(2)).is_ok());
}

#[test]
fn tunnels_per_device_are_limited() {
    let limits = Limits { tunnels_per_device: 2, ..Limits::default() };
    let mut core = Core::new(limits, Box::new(AllowAll));
    come(&mut core, at(0), 1, "device/press-7", 1).unwrap();
    come(&mut core, at(0), 2, "service/ops", 1).unwrap();
    let first = open(&mut core, at(0), 2, "press-7").unwrap();
    open(&mut core, at(0), 2, "press-7").unwrap();
    assert_eq!(code(open(&mut core, at(0), 2, "press-7")), RefusalCode::TooManyTunnels);
    core.handle_tunnel_closed(first.tunnel);
    assert!(open(&mut core, at(0), 2, "press-7").is_ok());
}

#[test]
fn a_hub_that_drains_grants_nothing_and_says_goodbye() {
    let mut core = introduced();
    core.handle_drain(Duration::from_secs(2));
    let dismissed: Vec<_> = actions(&mut core)
        .into_iter()
        .map(|action| match action {
            Action::Dismiss(link, refusal) => (link, refusal.code, refusal.retry_after_ms),
            Action::Refuse(..) | Action::Offer(_) => panic!("nothing was open"),
        })
        .collect();
    let goodbye = |link| (LinkId(link), RefusalCode::HubDraining, Some(2_000));
    assert_eq!(dismissed, [goodbye(1), goodbye(2)]);
    assert_eq!(code(open(&mut core, at(0), 2, "press-7")), RefusalCode::HubDraining);
    assert_eq!(core.handle_list(at(0), LinkId(2)).unwrap_err().code, RefusalCode::HubDraining);
    assert_eq!(come(&mut core, at(0), 9, "device/x", 1).unwrap_err().code, RefusalCode::HubDraining);
}

#[test]
fn a_hub_that_drains_calls_off_what_was_not_answered_and_leaves_what_lives() {
    let mut core = introduced();
    let live = open(&mut core, at(0), 2, "press-7").unwrap();
    let accepted = Answer::Accepted(Accepted::default());
    assert!(core.handle_answer(live.tunnel, accepted.clone()).is_some());
    let waiting = open(&mut core, at(0), 2, "press-7").unwrap();
    core.handle_drain(Duration::from_secs(2));
    core.check_invariants();
    let refused: Vec<_> = actions(&mut core)
        .into_iter()
        .filter_map(|action| match action {
            Action::Refuse(tunnel, refusal) => Some((tunnel, refusal.code)),
            Action::Dismiss(..) | Action::Offer(_) => None,
        })
        .collect();
    assert_eq!(refused, [(waiting.tunnel, RefusalCode::HubDraining)]);
    assert_eq!(core.handle_answer(waiting.tunnel, accepted), None, "too late");
    assert_eq!((core.tunnels(), core.poll_timeout()), (1, None));
}

#[test]
fn names_that_are_none_are_refused() {
    let mut core = introduced();
    for device in ["", "a/b", "../etc", "x\n", &"x".repeat(1000)] {
        let refusal = open(&mut core, at(0), 2, device).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::BadRequest, "{device:?}");
        assert!(refusal.text.len() < 300);
    }
}

#[test]
fn an_endpoint_that_is_too_old_is_told_so() {
    let mut core = core();
    let identity = "spiffe://test/device/d".parse().unwrap();
    let old = Hello { version: 0, instance: 1, agent: String::new() };
    let refusal = core.handle_hello(at(0), LinkId(1), identity, String::new(), old).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::BadRequest);
}
