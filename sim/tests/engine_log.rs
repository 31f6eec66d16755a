//! The event log of a session: it holds enough to run the session again with other payload, and no payload, no secret and no
//! name.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../transports/tests/common/mod.rs"]
mod common;
mod logs;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Authority, environment};
use logs::Logs;
use tokio::io::{AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use towline_engine::{
    Acceptor, Arrival, Code, Config, Dir, Epoch, Instant, PipeClosed, Resumption, Secret, SessionId, Side,
};
use towline_sim::engine_log::{BadLog, End, EngineLog, Replayed};
use towline_transports::qlog::Recorded;
use towline_transports::tls::{self, ALPN_LINK, TlsPipe};
use towline_transports::{Accepted, Link, Sessions};

/// What must not be in a log.
const MARKER: &str = "attack at dawn";

fn replay(text: &str) -> Replayed {
    EngineLog::read(text).unwrap().replay().unwrap()
}

/// Checks that a log tells nothing that it must not, and that the session can be run again.
fn check(text: &str) -> Replayed {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for secret in [MARKER.to_owned(), hex(MARKER), "07".repeat(16), "09".repeat(32), "[7, 7, 7".into()] {
        assert!(!text.contains(&secret), "{secret} is in the log");
    }
    let replayed = replay(text);
    assert_eq!(replayed.end, End::Same, "{replayed:?}");
    replayed
}

/// Two links over a pipe in memory: streams both ways, of all sizes, with all ends.
async fn converse() {
    let (ours, theirs) = duplex(3_000);
    let mut config = Config::default();
    config.stream_window = 20_000;
    let service = Link::start(ours, Side::Client, config.clone());
    let device = Link::start(theirs, Side::Server, config);
    let answering = tokio::spawn({
        let device = device.clone();
        async move {
            while let Ok((mut answer, mut question)) = device.accept_bi().await {
                while let Ok(Some(mut chunk)) = question.read_chunk(1_000).await {
                    answer.write_chunk(&mut chunk).await.unwrap();
                }
                answer.finish().unwrap();
            }
        }
    });
    for length in [1, 14, 5_000, 100_000] {
        let (mut question, mut answer) = service.open_bi().await.unwrap();
        let payload: Vec<u8> = MARKER.bytes().cycle().take(length).collect();
        let sent = payload.clone();
        let asking = tokio::spawn(async move {
            question.write_all(&sent).await.unwrap();
            question.finish().unwrap();
        });
        assert_eq!(answer.read_to_end(200_000).await.unwrap(), payload);
        asking.await.unwrap();
    }
    // One that is abandoned, at both ends.
    let (mut question, mut answer) = service.open_bi().await.unwrap();
    question.write_all(MARKER.as_bytes()).await.unwrap();
    question.reset(Code::from(7));
    answer.stop(Code::from(8));
    drop((question, answer));
    service.close(Code::from(3), "enough");
    device.closed().await;
    service.closed().await;
    drop((service, device));
    answering.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_run_again_from_the_log_of_each_end() {
    let logs = Logs::start();
    converse().await;
    let texts = logs.finish();
    assert_eq!(texts.len(), 2);
    for text in &texts {
        let replayed = check(text);
        assert!(replayed.events > 100 && replayed.shape.is_some(), "{replayed:?}");
        let log = EngineLog::read(text).unwrap();
        assert_eq!(log.lines.len(), replayed.events);
        assert!(log.lines.is_sorted_by_key(|(stamp, _)| stamp.time), "qvis wants times in order");
    }
    assert!(texts[0].contains(r#""frame_type":"stream""#) && texts[0].contains("transport:packet_sent"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_logged_if_nobody_listens() {
    let logs = Logs::start();
    let deaf = logs.deafened();
    converse().await;
    drop(deaf);
    assert!(logs.finish().is_empty());
}

const NOW: Instant = Instant::from_nanos(5_000_000);
const NAME: SessionId = SessionId([7; SessionId::LEN]);

fn secret() -> Secret {
    Secret::new([9; Secret::LEN])
}

fn willing(resumption: Resumption) -> Config {
    let mut config = Config::default();
    config.resumption = resumption;
    config
}

/// Two sessions that can resume, and the bytes between them.
struct Pair {
    client: Recorded,
    server: Recorded,
    epoch: Epoch,
}

impl Pair {
    fn new() -> Self {
        let start = tokio::time::Instant::now();
        let mut pair = Self {
            client: Recorded::new(Side::Client, willing(Resumption::Offer(NAME, secret())), start, "session"),
            server: Recorded::new(Side::Server, willing(Resumption::Accept), start, "session"),
            epoch: Epoch(0),
        };
        pair.client.attach(NOW, pair.epoch).unwrap();
        let mut acceptor = Acceptor::new(&willing(Resumption::Accept));
        let hello = said(&mut pair.client);
        // In two pieces, so that the acceptor keeps some.
        acceptor.handle_input(hello.slice(..3));
        acceptor.poll_transmit(16 << 10, &mut Vec::new());
        assert_eq!(acceptor.handle_input(hello.slice(3..)), Some(Arrival::New(Some(NAME))));
        let mut ours = Vec::new();
        Acceptor::new(&willing(Resumption::Accept)).poll_transmit(16 << 10, &mut ours);
        pair.server.attach_accepted(NOW, pair.epoch, acceptor).unwrap();
        pair.client.handle_input(NOW, pair.epoch, ours.concat().into());
        pair.carry();
        pair
    }

    fn carry(&mut self) {
        loop {
            let (to_server, to_client) = (said(&mut self.client), said(&mut self.server));
            if to_server.is_empty() && to_client.is_empty() {
                break;
            }
            // Cut, so that frames arrive in part.
            for chunk in to_server.chunks(7) {
                self.server.handle_input(NOW, self.epoch, Bytes::copy_from_slice(chunk));
            }
            self.client.handle_input(NOW, self.epoch, to_client);
        }
        while self.client.poll_event().is_some() {}
        while self.server.poll_event().is_some() {}
    }

    /// The pipe is lost with all that is on its way, and there is another one.
    fn resume(&mut self, proof: &Secret) {
        said(&mut self.client);
        self.client.handle_pipe_closed(NOW, self.epoch, PipeClosed::Failed);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.client.attach(NOW, self.epoch).unwrap();
        let mut acceptor = Acceptor::new(&willing(Resumption::Accept));
        let arrival = acceptor.handle_input(said(&mut self.client));
        assert!(matches!(arrival, Some(Arrival::Resume { session: NAME, .. })), "{arrival:?}");
        let _ = self.server.resume(NOW, self.epoch, proof, &mut acceptor);
    }
}

fn said(session: &mut Recorded) -> Bytes {
    let mut out = Vec::new();
    while session.poll_transmit(NOW, 1_200, &mut out) > 0 {}
    out.concat().into()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_outlives_its_pipes_is_run_again_and_its_secrets_stay_secret() {
    let logs = Logs::start();
    let mut pair = Pair::new();
    let id = pair.client.open(Dir::Bi).unwrap();
    pair.client.stream(id).unwrap().write(MARKER.repeat(300).as_bytes()).unwrap();
    pair.resume(&secret());
    pair.carry();
    assert_eq!(pair.server.accept(Dir::Bi), Some(id));
    let read = pair.server.stream(id).unwrap().read(usize::MAX).unwrap().unwrap();
    assert!(read.starts_with(MARKER.as_bytes()));
    // Whoever does not know the secret changes nothing, also when the session is run again.
    pair.resume(&Secret::new([5; Secret::LEN]));
    drop(pair);
    let texts = logs.finish();
    assert_eq!(texts.len(), 2);
    for text in &texts {
        check(text);
    }
    assert!(texts.iter().any(|text| text.contains(r#""result":"Unknown""#)));
}

/// A drain is a call like any other: without it, a session that is run again would take what was refused.
#[tokio::test(start_paused = true)]
async fn a_session_that_drains_is_run_again() {
    let logs = Logs::start();
    let mut pair = Pair::new();
    let id = pair.client.open(Dir::Bi).unwrap();
    pair.client.stream(id).unwrap().write(b"too late").unwrap();
    pair.server.drain(NOW, Duration::from_secs(30), Duration::from_secs(1));
    pair.carry();
    assert_eq!(pair.server.accept(Dir::Bi), None, "it was refused");
    drop(pair);
    let texts = logs.finish();
    let drain = r#""deadline":30000000000,"retry_after":1000000000"#;
    assert!(texts.iter().any(|text| text.contains(drain)), "{texts:?}");
    for text in &texts {
        check(text);
    }
}

/// What carries the present pipe between the two ends, so that it can be cut.
type Carrier = Arc<Mutex<Option<JoinHandle<()>>>>;

/// The other end: accepts pipes, and sends back what comes on the streams of each session.
fn serve(
    config: Arc<rustls::ServerConfig>,
    mut pipes: mpsc::UnboundedReceiver<DuplexStream>,
) -> Sessions<DuplexStream> {
    let sessions = Sessions::new(Config::default());
    let accepting = sessions.clone();
    tokio::spawn(async move {
        while let Some(pipe) = pipes.recv().await {
            let (sessions, config) = (accepting.clone(), config.clone());
            tokio::spawn(async move {
                let Ok(pipe) = tls::accept(pipe, config).await else { return };
                if let Ok(Accepted::New(link)) = sessions.accept("service", pipe).await {
                    while let Ok((mut answer, mut question)) = link.accept_bi().await {
                        tokio::spawn(async move {
                            while let Ok(Some(mut chunk)) = question.read_chunk(5_000).await {
                                answer.write_chunk(&mut chunk).await.unwrap();
                            }
                            answer.finish().unwrap();
                        });
                    }
                }
            });
        }
    });
    sessions
}

/// The product's own driver, over TLS, through pipes that are cut in the middle of everything.
#[tokio::test]
async fn a_session_end_to_end_is_run_again_whatever_became_of_its_pipes() {
    let logs = Logs::start();
    let authority = Authority::new();
    let client = tls::client_config(authority.issue("service"), &[ALPN_LINK], &environment()).unwrap();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let (listener, pipes) = mpsc::unbounded_channel();
    let sessions = serve(server, pipes);
    let carrier = Carrier::default();
    let connect = {
        let carrier = carrier.clone();
        move || {
            let (client, listener, carrier) = (client.clone(), listener.clone(), carrier.clone());
            async move {
                let (ours, mut near) = duplex(4_000);
                let (mut far, theirs) = duplex(4_000);
                listener.send(theirs).unwrap();
                let carrying = tokio::spawn(async move { _ = copy_bidirectional(&mut near, &mut far).await });
                *carrier.lock().unwrap() = Some(carrying);
                let pipe: TlsPipe<DuplexStream> =
                    tls::connect(ours, "hub.test".try_into().unwrap(), client).await.unwrap();
                pipe
            }
        }
    };
    let offer = Resumption::Offer(NAME, secret());
    let link = Link::resumable(connect().await, willing(offer), connect);
    let (mut question, mut answer) = link.open_bi().await.unwrap();
    let payload: Vec<u8> = MARKER.bytes().cycle().take(400_000).collect();
    let sent = payload.clone();
    let asking = tokio::spawn(async move {
        question.write_all(&sent).await.unwrap();
        question.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    while let Some(chunk) = answer.read_chunk(10_000).await.unwrap() {
        let (before, after) = (heard.len() / 100_000, (heard.len() + chunk.len()) / 100_000);
        heard.extend_from_slice(&chunk);
        if before < after && after < 4 {
            // Whatever is under way is gone.
            carrier.lock().unwrap().take().unwrap().abort();
        }
    }
    assert_eq!(heard, payload);
    asking.await.unwrap();
    link.close(Code::from(3), "enough");
    link.closed().await;
    drop((link, answer));
    // Its driver and whoever brings pipes let go of the session one after the other.
    while !logs.has("towline:end") {
        tokio::task::yield_now().await;
    }
    drop(sessions);
    let texts = logs.finish();
    assert_eq!(texts.len(), 2);
    for text in &texts {
        let log = EngineLog::read(text).unwrap();
        assert!(text.matches(r#""frame_type":"session_state""#).count() > 3, "it was resumed");
        let replayed = log.replay().unwrap();
        assert!(!matches!(replayed.end, End::Differs { .. }) && replayed.shape.is_some(), "{replayed:?}");
        assert_eq!(replayed.events, log.lines.len());
    }
    check(&texts[0]);
}

#[test]
fn the_command_says_whether_the_session_was_the_same() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let text = runtime.block_on(a_log());
    let folder = tempfile::tempdir().unwrap();
    let replay = |text: &str, more: &[&str]| {
        let path = folder.path().join("log.sqlog");
        std::fs::write(&path, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_towline-sim"));
        let output = command.arg("replay").arg(path).args(more).output().unwrap();
        let (said, why) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), said, why)
    };
    let (status, said, why) = replay(&text, &[]);
    assert!(status == Some(0) && why.is_empty() && said.contains("events found again"), "{said}{why}");
    let (status, said, _) = replay(&text, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(status == Some(0) && said["end"] == "same" && said["events"] == said["found_again"], "{said}");
    let changed = text.replacen(r#""length":14,"copied""#, r#""length":13,"copied""#, 1);
    let (status, _, why) = replay(&changed, &[]);
    assert!(status == Some(3) && why.contains("not deterministic"), "{why}");
    let (status, _, why) = replay(&text[..text.len() / 2], &[]);
    assert!(status == Some(0) && why.contains("the rest cannot be run again"), "{why}");
    let (status, _, why) = replay(&text.replacen("towline:attach", "towline:attack", 1), &[]);
    assert!(status == Some(2) && why.contains("log.sqlog: line 2: "), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_ends_what_can_be_run_again() {
    let logs = Logs::start();
    let mut session = Recorded::new(Side::Server, Config::default(), tokio::time::Instant::now(), "link");
    session.attach(NOW, Epoch(0)).unwrap();
    session.handle_input(NOW, Epoch(0), Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    assert!(session.is_closed());
    drop(session);
    let [text] = &logs.finish()[..] else { panic!("there is one session") };
    assert!(text.contains("towline:undecodable"));
    let replayed = replay(text);
    assert!(matches!(replayed.end, End::Unknown(_)) && replayed.events == 1, "{replayed:?}");
}

/// The hub, its devices and services as they are, with whatever happens to them: also those that are killed.
#[test]
fn the_links_of_the_product_are_run_again() {
    for name in ["product-slow-reader", "product-power-loss"] {
        let logs = Logs::start();
        let plan = towline_sim::scenarios::named(name).unwrap().unwrap().expand(0, None).unwrap();
        let outcome = towline_sim::run::run(&plan, towline_sim::run::Sink::new()).unwrap();
        assert!(outcome.properties.held());
        let texts = logs.finish();
        assert!(texts.len() > 3, "{name}: {} logs", texts.len());
        for text in &texts {
            check(text);
        }
    }
}

async fn a_log() -> String {
    let logs = Logs::start();
    converse().await;
    logs.finish().swap_remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_changed_differs_at_that_line() {
    let text = a_log().await;
    let is_sent = |line: &&str| line.contains("towline:transmit") && line.contains(r#""length":1"#);
    let line = text.lines().position(|line| is_sent(&line)).unwrap();
    let changed: Vec<_> = text
        .lines()
        .enumerate()
        .map(
            |(n, text)| {
                if n == line { text.replacen(r#""length":1"#, r#""length":2"#, 1) } else { text.into() }
            },
        )
        .collect();
    let replayed = replay(&(changed.join("\n") + "\n"));
    assert!(
        matches!(&replayed.end, End::Differs { line: at, .. } if *at == line + 1),
        "{replayed:?}, and not line {line}"
    );
    // A stream of another length: the rest of the session goes another way.
    let changed = text.replacen(
        r#""max":1000,"copied":false,"result":1000"#,
        r#""max":999,"copied":false,"result":999"#,
        1,
    );
    let found = if changed == text {
        text.replacen(r#""length":14,"copied""#, r#""length":13,"copied""#, 1)
    } else {
        changed
    };
    assert_ne!(found, text);
    assert!(matches!(replay(&found).end, End::Differs { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ends_early_is_run_as_far_as_it_goes() {
    let text = a_log().await;
    for (cut, why) in
        [(text.len() - 20, "within a line"), (text.rfind('\u{1e}').unwrap(), "before the session")]
    {
        let replayed = replay(&text[..cut]);
        assert!(
            matches!(&replayed.end, End::Unknown(said) if said.contains(why)),
            "cut at {cut}: {replayed:?}"
        );
        assert!(replayed.events > 100, "{replayed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_log_is_refused() {
    let text = a_log().await;
    let read = |text: &str| EngineLog::read(text).and_then(|log| log.replay().map(|_| ())).unwrap_err();
    assert_eq!(read(""), BadLog::NoHead);
    assert_eq!(read("\u{1e}{}\n"), BadLog::NoHead);
    let other = text.replacen(r#""format":1"#, r#""format":99"#, 1);
    assert!(matches!(read(&other), BadLog::Version { found, .. } if found.starts_with("99")));
    let mut lines: Vec<_> = text.lines().collect();
    lines[3] = "\u{1e}{\"time\":1.5}";
    assert!(matches!(read(&(lines.join("\n") + "\n")), BadLog::Line { line: 4, .. }));
    let (before, after) = text.split_at(text.find("transport:packet_received").unwrap());
    let wild =
        before.to_owned() + &after.replacen(r#""raw":{"length":"#, r#""raw":{"length":9999999999999"#, 1);
    assert!(matches!(read(&wild), BadLog::Line { .. }), "no memory is taken for what a log claims");
    let wild = text.replacen(r#""length":14,"copied""#, r#""length":99999999999,"copied""#, 1);
    assert!(wild != text && matches!(read(&wild), BadLog::Line { .. }));
}
