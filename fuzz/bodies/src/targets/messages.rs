//! The messages of hub links: arbitrary bytes as each of them, and what the hub makes of those that it understands.
//!
//! Oracles: no panic; written again, a message is the same, and no longer; whatever the hub answers to it, or passes
//! on of it, fits a message as well.

use std::cell::LazyCell;

use arbitrary::Unstructured;
use minicbor::{Decode, Encode};
use towline::core::{Core, Limits, LinkId};
use towline::identity::Identity;
use towline::message::{
    self, Accepted, Answer, DeviceStatus, Goodbye, MAX_MESSAGE, Offer, Open, Profile, Request,
};
use towline::policy::AllowAll;
use towline::refusal::Refusal;
use towline_engine::Instant;

/// An input as it was meant.
#[derive(Debug)]
pub struct Input<'a> {
    /// Which message it claims to be.
    pub kind: Kind,
    /// Its bytes, without the length.
    pub body: &'a [u8],
}

/// The messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the messages")]
pub enum Kind {
    Request,
    Answer,
    Offer,
    Goodbye,
    DeviceStatus,
}

impl Kind {
    /// All of them, in the order of the byte that an input begins with.
    pub const ALL: [Self; 5] = [Self::Request, Self::Answer, Self::Offer, Self::Goodbye, Self::DeviceStatus];
}

impl<'a> Input<'a> {
    /// Any bytes are an input.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn new(data: &'a [u8]) -> Self {
        let mut u = Unstructured::new(data);
        let kind: u8 = u.arbitrary().expect("missing bytes are zeros");
        let body = u.take_rest();
        // A reader refuses what claims to be longer.
        Self {
            kind: Kind::ALL[usize::from(kind) % Kind::ALL.len()],
            body: &body[..body.len().min(MAX_MESSAGE)],
        }
    }
}

/// Runs an input.
///
/// # Panics
///
/// If a message that was read cannot be written, or means something else then; or if the hub cannot say what it has
/// to say about it.
pub fn run(data: &[u8]) {
    let Input { kind, body } = Input::new(data);
    match kind {
        Kind::Request => {
            if let Some(request) = check::<Request>(body) {
                ask(request);
            }
        }
        Kind::Answer => {
            if let Some(answer) = check::<Answer>(body) {
                pass_on(answer);
            }
        }
        Kind::Offer => _ = check::<Offer>(body),
        Kind::Goodbye => {
            if let Some(goodbye) = check::<Goodbye>(body) {
                say(&goodbye.refusal);
            }
        }
        Kind::DeviceStatus => _ = check::<DeviceStatus>(body),
    }
}

/// Reads a message; if it is one, writes it again.
fn check<T>(body: &[u8]) -> Option<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
{
    let message: T = message::decode(body).ok()?;
    let again = message::encode(&message);
    assert!(again.len() - 2 <= body.len(), "the preferred serialization is the shortest");
    assert_eq!(usize::from(u16::from_be_bytes([again[0], again[1]])), again.len() - 2);
    assert_eq!(message::decode::<T>(&again[2..]).ok().as_ref(), Some(&message), "roundtrip");
    Some(message)
}

const DEVICE: LinkId = LinkId(1);
const SERVICE: LinkId = LinkId(2);
const NOW: Instant = Instant::from_nanos(1 << 40);

/// A hub with a device and a service, whose name and address are as long as they get.
fn hub(hello: message::Hello) -> Result<Core, Refusal> {
    thread_local! {
        static WHO: LazyCell<[Identity; 2]> = LazyCell::new(|| {
            ["device", "service"].map(|role| {
                let (domain, name) = ("d".repeat(255), "n".repeat(63));
                format!("spiffe://{domain}/{role}/{name}").parse().expect("an identity")
            })
        });
    }
    let address = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535";
    let mut core = Core::new(Limits::default(), Box::new(AllowAll));
    let [device, service] = WHO.with(|who| (**who).clone());
    let other = message::Hello { version: message::VERSION, instance: 0, agent: String::new() };
    core.handle_hello(NOW, SERVICE, service, address.into(), other)?;
    core.handle_hello(NOW, DEVICE, device, address.into(), hello)?;
    Ok(core)
}

/// What a hub does with a request.
fn ask(request: Request) {
    let refused = |refusal| _ = message::encode(&Answer::Refused(refusal));
    match request {
        Request::Hello(hello) => match hub(hello) {
            Ok(mut core) => {
                for status in core.handle_list(NOW, SERVICE).expect("a service may ask") {
                    message::encode(&status);
                }
            }
            Err(refusal) => refused(refusal),
        },
        Request::Open(open) => {
            let hello = message::Hello { version: message::VERSION, instance: 0, agent: String::new() };
            let mut core = hub(hello).expect("a hello as it should be");
            // As a service would ask for a device that is there.
            let here = Open { device: "n".repeat(63), ..open.clone() };
            for open in [open, here] {
                match core.handle_open(NOW, SERVICE, &open) {
                    Ok(offered) => {
                        let from = core.identity(SERVICE).expect("it is there").to_string();
                        message::encode(&Offer {
                            tunnel: u64::MAX,
                            service: offered.service.to_string(),
                            from,
                            profile: offered.profile,
                            deadline_ms: u32::MAX,
                        });
                    }
                    Err(refusal) => {
                        refused(refusal);
                        if core.handle_wait(NOW, SERVICE, &open).is_ok() {
                            core.check_invariants();
                            core.handle_timeout(core.poll_timeout().expect("somebody waits"));
                            assert_eq!(core.parked(), 0, "it has waited long enough");
                        }
                    }
                }
                core.check_invariants();
            }
        }
        Request::List(_) => {}
    }
}

/// What a hub does with a device's answer.
fn pass_on(answer: Answer) {
    let open = Open {
        device: "n".repeat(63),
        service: "ssh".into(),
        profile: Profile::Native,
        deadline_ms: 1000,
        wait_ms: None,
    };
    let hello = message::Hello { version: message::VERSION, instance: 0, agent: String::new() };
    let mut core = hub(hello).expect("a hello as it should be");
    let offered = core.handle_open(NOW, SERVICE, &open).expect("the device is there");
    match core.handle_answer(offered.tunnel, answer) {
        Some(Answer::Accepted(_)) => {
            message::encode(&Answer::Accepted(Accepted { tunnel: Some(offered.tunnel.0) }));
        }
        Some(Answer::Refused(refusal)) => {
            message::encode(&Answer::Refused(refusal.clone()));
            say(&refusal);
        }
        None => unreachable!("the deadline has not passed"),
    }
    core.check_invariants();
}

/// A refusal's words, as a terminal shows them: one line, whatever the peer has said.
fn say(refusal: &Refusal) {
    let line = refusal.to_string();
    assert!(!line.contains(|c: char| c.is_control()), "a peer's words cannot play tricks on a terminal");
}
