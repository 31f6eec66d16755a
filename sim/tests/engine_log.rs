//! The event log of a session: it holds enough to run the session again with other payload, and no payload, no secret and no
//! name.
#![allow(clippy::unwrap_used, reason = "tests")]

mod logs;

use bytes::Bytes;
use logs::Logs;
use tokio::io::duplex;
use towline_engine::{
    Acceptor, Arrival, Code, Config, Dir, Epoch, Instant, PipeClosed, Resumption, Secret, SessionId, Side,
};
use towline_sim::engine_log::{BadLog, End, EngineLog, Replayed};
use towline_transports::Link;
use towline_transports::qlog::Recorded;

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
