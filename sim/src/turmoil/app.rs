//! The applications: what a service and a device say to each other on a stream, and whether they hear it right.
//!
//! In: a stream's plan, and bytes. Out: properties. What is said depends on the stream, the direction and the offset, so
//! that each byte that is heard can be held against what was said, wherever it was cut.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;
use towline::{EndToEnd, OpenError, Service, SessionOptions, Tunnel, codes};

use super::stage::{DEVICE, SERVICE, SessionPlace, Stage};
use crate::event::What;
use crate::scenario::{End, Rate, StreamPlan};

/// The most that is read or written at once.
const PIECE: usize = 16 << 10;

/// How long a service waits before it asks again for a tunnel that it did not get.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a service that resets waits before it does, at most, in nanoseconds.
const BEFORE_RESET: u64 = 200_000_000;

/// How long it takes until a slow reader is looked at again.
const GLANCE: Duration = Duration::from_millis(10);

/// Plays the service's side of a stream, from its start.
pub(super) async fn serve(stage: &Stage, service: &Service, index: usize) {
    let plan = &stage.plan.streams[index];
    stage.resume(index);
    stage.moved(index, |progress| progress.wanted = true);
    let tunnel =
        if plan.session { connect(stage, service, plan).await } else { open(stage, service, plan).await };
    let Some(tunnel) = tunnel else { return };
    stage.moved(index, |progress| {
        progress.opened = true;
        progress.sides[SERVICE].begun = true;
    });
    let outcome = talk(stage, index, tunnel).await;
    stage.end(index, SERVICE, outcome.map_err(|error| error.to_string()));
}

/// Opens a tunnel, however often it takes.
async fn open(stage: &Stage, service: &Service, plan: &StreamPlan) -> Option<Tunnel> {
    let identity = &stage.plan.host(&plan.device)?.identity;
    loop {
        match service.open(identity, APP).await {
            Ok(tunnel) => {
                let hub = stage.plan.host(&plan.service)?.known_hubs();
                stage.emit(&plan.service, What::TunnelOpened { device: plan.device.clone(), hub });
                return Some(tunnel);
            }
            Err(error) => {
                let why = error.to_string();
                stage.emit(&plan.service, What::TunnelRefused { device: plan.device.clone(), why });
                sleep(AGAIN).await;
            }
        }
    }
}

/// Has a connection in the session between the two, which is begun with the first of them.
async fn connect(stage: &Stage, service: &Service, plan: &StreamPlan) -> Option<Tunnel> {
    let identity = &stage.plan.host(&plan.device)?.identity;
    let place = stage.session(&plan.service, &plan.device);
    loop {
        let why = match session(&place, service, identity).await {
            Ok(session) => match answered(&session).await {
                Ok(tunnel) => return Some(tunnel),
                Err(error) => {
                    // One that is over is followed by another.
                    place.lock().await.take();
                    error.to_string()
                }
            },
            Err(error) => error.to_string(),
        };
        stage.emit(&plan.service, What::TunnelRefused { device: plan.device.clone(), why });
        sleep(AGAIN).await;
    }
}

/// The session that is there, or a new one.
async fn session(place: &SessionPlace, service: &Service, device: &str) -> Result<EndToEnd, OpenError> {
    let mut place = place.lock().await;
    if let Some(session) = &*place {
        return Ok(session.clone());
    }
    let session = service.session(device, APP, SessionOptions::default()).await?;
    *place = Some(session.clone());
    Ok(session)
}

async fn answered(session: &EndToEnd) -> Result<Tunnel, OpenError> {
    session.begin().await?.answered().await
}

/// What services ask devices for.
pub(super) const APP: &str = "app";

/// The service's side: it says which stream it is, and then its words.
async fn talk(stage: &Stage, index: usize, tunnel: Tunnel) -> io::Result<()> {
    let plan = &stage.plan.streams[index];
    let (mut send, mut recv) = tunnel.into_split();
    if plan.interactive {
        send.set_urgency(towline_transports::Urgency::Interactive);
    }
    send.write_all(&(index as u64).to_be_bytes()).await?;
    let mut half = Half { stage, index, side: SERVICE, pace: plan.service_reads };
    match plan.end {
        End::Finish => {
            if plan.both_ways {
                let saying = async {
                    half.say_all(&mut send).await?;
                    if plan.half_closes { half.finish(&mut send).await } else { Ok(()) }
                };
                let hearing = async { half.hear(&mut recv, plan.rounds * plan.down.0).await };
                let (said, heard) = futures_util::future::join(saying, hearing).await;
                heard.and(said)?;
            } else {
                half.rounds(&mut send, &mut recv).await?;
            }
            if !plan.half_closes {
                half.finish(&mut send).await?;
            }
            half.hear_end(&mut recv).await
        }
        End::Reset(after) => {
            half.say(&mut send, after.0).await?;
            // Some resets overtake what was said, and some do not.
            let mut waiting = stage.random.stream(&format!("{}/end", plan.name));
            sleep(Duration::from_nanos(waiting.below(BEFORE_RESET))).await;
            send.reset(codes::RESET);
            recv.stop(codes::RESET);
            Ok(())
        }
        End::Late(_) => unreachable!("it was checked that turmoil can do it"),
        End::Stop(after) => {
            let saying = async {
                half.say_all(&mut send).await?;
                half.finish(&mut send).await
            };
            let hearing = async {
                half.hear(&mut recv, after.0).await?;
                recv.stop(codes::RESET);
                Ok(())
            };
            let (said, heard) = futures_util::future::join(saying, hearing).await;
            heard.and(said)
        }
    }
}

/// Plays the device's side, on the connection that the agent has made for a tunnel.
pub(super) async fn answer(stage: &Stage, host: &str, socket: Box<dyn towline_transports::Socket>) {
    let (mut recv, mut send) = tokio::io::split(socket);
    let mut number = [0; 8];
    // Whoever does not even say which stream it is has failed at the service.
    if recv.read_exact(&mut number).await.is_err() {
        return;
    }
    let index = usize::try_from(u64::from_be_bytes(number)).unwrap_or(usize::MAX);
    let known = stage.plan.streams.get(index).is_some();
    stage.air.always("exact_prefix", known, host, || format!("there is no stream {index}"));
    if !known {
        return;
    }
    stage.moved(index, |progress| progress.sides[DEVICE].begun = true);
    let outcome = listen(stage, index, &mut send, &mut recv).await;
    stage.end(index, DEVICE, outcome.map_err(|error| error.to_string()));
}

async fn listen(
    stage: &Stage,
    index: usize,
    send: &mut (impl AsyncWrite + Unpin),
    recv: &mut (impl AsyncRead + Unpin),
) -> io::Result<()> {
    let plan = &stage.plan.streams[index];
    let half = Half { stage, index, side: DEVICE, pace: plan.device_reads };
    let at_once = plan.both_ways || matches!(plan.end, End::Stop(_));
    if at_once {
        let saying = async {
            half.say_all(send).await?;
            half.finish(send).await
        };
        let hearing = async {
            half.hear(recv, plan.rounds * plan.up.0).await?;
            half.hear_end(recv).await
        };
        let (said, heard) = futures_util::future::join(saying, hearing).await;
        // A service that stops reading is no failure.
        return if matches!(plan.end, End::Stop(_)) { heard } else { heard.and(said) };
    }
    for _ in 0..plan.rounds {
        half.hear(recv, plan.up.0).await?;
        half.say(send, plan.down.0).await?;
    }
    half.finish(send).await?;
    half.hear_end(recv).await
}

/// One side of a stream.
#[derive(Clone, Copy)]
struct Half<'a> {
    stage: &'a Stage,
    index: usize,
    side: usize,
    pace: Option<Rate>,
}

impl Half<'_> {
    fn plan(&self) -> &StreamPlan {
        &self.stage.plan.streams[self.index]
    }

    fn who(&self) -> &str {
        if self.side == SERVICE { &self.plan().service } else { &self.plan().device }
    }

    /// The service's rounds: it thinks, says something, and hears the answer. With its last words it may end its half.
    async fn rounds(
        &mut self,
        send: &mut (impl AsyncWrite + Unpin),
        recv: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        let plan = &self.stage.plan.streams[self.index];
        let mut thinking = self.stage.random.stream(&format!("{}/think", plan.name));
        for round in 1..=plan.rounds {
            sleep(Duration::from_nanos(plan.think.draw(&mut thinking).0)).await;
            let start = self.stage.now();
            self.stage.resume(self.index);
            self.say(send, plan.up.0).await?;
            if round == plan.rounds && plan.half_closes {
                self.finish(send).await?;
            }
            self.hear(recv, plan.down.0).await?;
            if plan.interactive {
                self.stage.rounds.borrow_mut().push(self.stage.now() - start);
            }
        }
        Ok(())
    }

    /// Says all that there is to say. A service thinks before each round.
    async fn say_all(&self, send: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let plan = &self.stage.plan.streams[self.index];
        let mut thinking = self.stage.random.stream(&format!("{}/think", plan.name));
        for _ in 0..plan.rounds {
            if self.side == SERVICE {
                sleep(Duration::from_nanos(plan.think.draw(&mut thinking).0)).await;
                self.stage.resume(self.index);
            }
            self.say(send, if self.side == SERVICE { plan.up.0 } else { plan.down.0 }).await?;
        }
        Ok(())
    }

    /// Says the next `count` bytes.
    async fn say(&self, send: &mut (impl AsyncWrite + Unpin), count: u64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let offset = self.stage.streams.borrow()[self.index].sides[self.side].written;
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let words = self.words(self.side, offset, length);
            let written = send.write(&words).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left -= written as u64;
            self.stage.moved(self.index, |progress| progress.sides[self.side].written += written as u64);
            let (stream, length) = (self.plan().name.clone(), written as u64);
            self.stage.emit(self.who(), What::StreamWritten { stream, offset, length });
        }
        send.flush().await
    }

    async fn finish(&self, send: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.stage.moved(self.index, |progress| progress.sides[self.side].finished = true);
        send.shutdown().await
    }

    /// Hears the next `count` bytes, and holds them against what the other side has said.
    async fn hear(&self, recv: &mut (impl AsyncRead + Unpin), count: u64) -> io::Result<()> {
        let mut left = count;
        let mut buffer = vec![0; PIECE];
        while left > 0 {
            self.wait_while_slow().await;
            let piece =
                self.plan().sips.map_or(PIECE, |sip| usize::try_from(sip.0).unwrap_or(PIECE).min(PIECE));
            let length = usize::try_from(left).unwrap_or(piece).min(piece);
            let read = recv.read(&mut buffer[..length]).await?;
            if read == 0 {
                self.check_end();
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.check_words(&buffer[..read]);
            left -= read as u64;
            self.keep_pace(read).await;
        }
        Ok(())
    }

    /// Hears that there is no more.
    async fn hear_end(&self, recv: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        self.wait_while_slow().await;
        let mut one = [0];
        let read = recv.read(&mut one).await?;
        if read > 0 {
            self.check_words(&one);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is more than was planned"));
        }
        self.check_end();
        self.stage.moved(self.index, |progress| progress.sides[self.side].ended = true);
        Ok(())
    }

    fn check_words(&self, heard: &[u8]) {
        let other = 1 - self.side;
        let (offset, written) = {
            let streams = self.stage.streams.borrow();
            (streams[self.index].sides[self.side].read, streams[self.index].sides[other].written)
        };
        let length = heard.len() as u64;
        // What is written is counted once the write returns, which may be after it is heard.
        let holds = self.stage.pattern.is(self.index, other, offset, heard)
            && offset + length <= written + PIECE as u64;
        self.stage.air.always("exact_prefix", holds, self.who(), || {
            format!("{}: {length} bytes at {offset}, of {written} that were written", self.plan().name)
        });
        self.stage.moved(self.index, |progress| progress.sides[self.side].read += length);
        let stream = self.plan().name.clone();
        self.stage.emit(self.who(), What::StreamRead { stream, offset, length });
    }

    /// There is no more: the other side must have said so, and everything was heard.
    fn check_end(&self) {
        let streams = self.stage.streams.borrow();
        let [mine, other] = [self.side, 1 - self.side].map(|side| &streams[self.index].sides[side]);
        let (read, written, finished) = (mine.read, other.written, other.finished);
        drop(streams);
        self.stage.air.always("eof_iff_fin", finished && read == written, self.who(), || {
            format!("{}: an end of file after {read} of {written} bytes, FIN {finished}", self.plan().name)
        });
    }

    async fn wait_while_slow(&self) {
        while self.stage.slow.borrow().get(self.who()).is_some_and(|count| *count > 0) {
            sleep(GLANCE).await;
        }
    }

    async fn keep_pace(&self, count: usize) {
        if let Some(rate) = self.pace {
            let nanos = (count as u128 * 8_000_000_000) / u128::from(rate.0.max(1));
            sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
        }
    }

    /// What `side` says from `offset` on.
    fn words(&self, side: usize, offset: u64, length: usize) -> Bytes {
        self.stage.pattern.slice(self.index, side, offset, length as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::run::Sink;
    use crate::scenario::{Backend, parse};
    use crate::turmoil::air::Air;

    const TEXT: &str = r#"
name = "test"
story = "A device says eight bytes."
[[hub]]
name = "hub"
[[device]]
name = "device"
[[service]]
name = "service"
[[work]]
name = "work"
service = "service"
device = "device"
down = "8 B"
"#;

    /// What breaks when a service hears `heard`, in two pieces, of a device that has said `said` of its eight bytes.
    fn broken(heard: impl Fn(Vec<u8>) -> Vec<u8>, said: u64, finished: bool) -> Vec<String> {
        let plan = parse("test.toml", TEXT).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
        let air = Air::default();
        let stage = Stage::new(plan, air.clone());
        stage.moved(0, |progress| {
            progress.sides[DEVICE].written = said;
            progress.sides[DEVICE].finished = finished;
        });
        let half = Half { stage: &stage, index: 0, side: SERVICE, pace: None };
        let words = heard(half.words(DEVICE, 0, 8).to_vec());
        let (mut one, mut other) = words.split_at(words.len() / 2);
        let hearing = async {
            let mut both = (&mut one).chain(&mut other);
            half.hear(&mut both, 8).await?;
            half.hear_end(&mut both).await
        };
        let _ = hearing.now_or_never().unwrap();
        let sink = air.set_sink(Sink::default());
        sink.properties.broken().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn what_was_said_is_heard() {
        assert!(broken(|words| words, 8, true).is_empty());
    }

    #[test]
    fn a_byte_that_nobody_said_is_noticed() {
        let change = |mut words: Vec<u8>| {
            words[5] ^= 1;
            words
        };
        assert_eq!(broken(change, 8, true), ["exact_prefix"]);
    }

    #[test]
    fn bytes_that_change_places_are_noticed() {
        let swap = |mut words: Vec<u8>| {
            words.swap(1, 6);
            words
        };
        assert_eq!(broken(swap, 8, true), ["exact_prefix"]);
    }

    #[test]
    fn an_end_that_nobody_said_is_noticed() {
        assert_eq!(broken(|words| words, 8, false), ["eof_iff_fin"]);
        assert_eq!(broken(|words| words[..6].to_vec(), 8, true), ["eof_iff_fin"]);
    }
}
