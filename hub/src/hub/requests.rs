//! What endpoints ask for on their streams: a tunnel, or the list of devices.
//!
//! In: a stream that an endpoint has opened. Out: an answer, and a tunnel for as long as it lives. Keeps: what is said
//! early; the core counts.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use towline_transports::{Link, RecvStream, SendStream};

use super::Inner;
use super::early::Early;
use super::record::{End, Record};
use super::waiting::News;
use crate::codes;
use crate::core::{LinkId, MAX_PARKING, Offered, Pace, TunnelId, Way};
use crate::message::{self, Accepted, Answer, MessageError, Offer, Open, Request, millis};
use crate::refusal::{Refusal, RefusalCode};
use crate::relay::{StreamLeg, relay_through};

/// How long the first message of a stream may take to come.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait before a device is asked again that was lost while it was asked, at first and at most.
const LOST_PAUSE: Duration = Duration::from_millis(50);
const MAX_LOST_PAUSE: Duration = Duration::from_secs(1);

/// Serves a stream that an endpoint has opened.
pub(super) async fn serve_request(
    inner: Arc<Inner>,
    link: LinkId,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    send.set_urgency(Pace::FIRST);
    let refusal = match timeout(REQUEST_DEADLINE, message::read(&mut recv)).await {
        Ok(Ok(Request::Open(open))) => match open_tunnel(&inner, link, &open, &mut send, &mut recv).await {
            Ok(joined) => {
                let record = Record::begin(joined.live.tunnel, link, joined.from.clone(), open);
                return splice(record, joined, send, recv).await;
            }
            Err(refusal) => {
                let from = inner.lock().core.identity(link).map(ToString::to_string).unwrap_or_default();
                let Open { device, service, profile, .. } = open;
                tracing::info!(link = link.0, from, device, service, ?profile, %refusal, "tunnel refused");
                return refuse(refusal, send, recv).await;
            }
        },
        Ok(Ok(Request::List(_))) => match list(&inner, link, &mut send).await {
            Ok(()) => return,
            Err(refusal) => refusal,
        },
        Ok(Ok(Request::Hello(_))) => Refusal::new(RefusalCode::BadRequest, "hello was said before"),
        Ok(Err(MessageError::Closed(_) | MessageError::Abandoned(_))) => return,
        Ok(Err(error)) => Refusal::new(RefusalCode::BadRequest, error.to_string()),
        Err(_) => Refusal::new(RefusalCode::BadRequest, "the request did not come in time"),
    };
    tracing::info!(link = link.0, %refusal, "refused");
    refuse(refusal, send, recv).await;
}

/// Says why there is nothing on this stream.
async fn refuse(refusal: Refusal, mut send: SendStream, mut recv: RecvStream) {
    if message::write(&mut send, &Answer::Refused(refusal)).await.is_ok() {
        let _ = send.finish();
    }
    recv.stop(codes::REFUSED);
}

async fn list(inner: &Inner, link: LinkId, send: &mut SendStream) -> Result<(), Refusal> {
    let devices = inner.lock().core.handle_list(inner.now(), link)?;
    // Whoever does not want the whole list need not have it.
    let _ = async {
        message::write(send, &Answer::Accepted(Accepted::default())).await?;
        for device in devices {
            message::write(send, &device).await?;
        }
        Ok::<_, MessageError>(send.finish()?)
    }
    .await;
    Ok(())
}

/// A tunnel whose device has accepted.
struct Joined {
    live: Live,
    /// Who has asked for it.
    from: String,
    send: SendStream,
    recv: RecvStream,
    /// What the service had said behind its request.
    early: Early,
    /// The device's link is not the one that counts any more.
    replaced: CancellationToken,
}

/// A tunnel that counts until this is dropped.
struct Live {
    inner: Arc<Inner>,
    tunnel: TunnelId,
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.waiting.leave(self.tunnel);
        state.core.handle_tunnel_closed(self.tunnel);
    }
}

/// The service's stream while its device is asked.
struct Asker<'a> {
    send: &'a mut SendStream,
    recv: &'a mut RecvStream,
    early: Early,
}

/// Asks the device, and gives the service its answer. A device that is lost while it is asked was away already, if the service
/// would wait: it is asked again when it is back.
async fn open_tunnel(
    inner: &Arc<Inner>,
    link: LinkId,
    open: &Open,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<Joined, Refusal> {
    let wait = Duration::from_millis(open.wait_ms.unwrap_or(0).into()).min(MAX_PARKING);
    let until = Instant::now() + wait;
    let (mut open, mut pause) = (open.clone(), LOST_PAUSE);
    let mut asker = Asker { send, recv, early: Early::new(open.profile) };
    loop {
        let refusal = match try_tunnel(inner, link, &open, &mut asker).await {
            Ok(joined) => return Ok(joined),
            Err(Missed::Refused(refusal)) => return Err(refusal),
            Err(Missed::Lost(refusal)) => refusal,
        };
        let left = until.saturating_duration_since(Instant::now() + pause);
        if left.is_zero() {
            return Err(refusal);
        }
        // The link of the device may be a moment longer on the list than in this world.
        sleep(pause).await;
        pause = (2 * pause).min(MAX_LOST_PAUSE);
        open.wait_ms = Some(u32::try_from(millis(left)).expect("it is less than the service has asked for"));
    }
}

/// Why there is no tunnel.
enum Missed {
    /// Somebody says no.
    Refused(Refusal),
    /// The hub itself has found that the device was lost while it was asked.
    Lost(Refusal),
}

impl From<Refusal> for Missed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// As [`open_tunnel`], once.
async fn try_tunnel(
    inner: &Arc<Inner>,
    link: LinkId,
    open: &Open,
    asker: &mut Asker<'_>,
) -> Result<Joined, Missed> {
    let (offered, live, refused) = await_device(inner, link, open, asker.send).await?;
    let (device, from) = {
        let state = inner.lock();
        let device = state.links.get(&offered.link).map(|peer| (peer.link.clone(), peer.replaced.clone()));
        (device, state.core.identity(link).map(ToString::to_string))
    };
    let gone = || Missed::Lost(Refusal::new(RefusalCode::DeviceOffline, "the device has just left"));
    let (device, replaced) = device.ok_or_else(gone)?;
    let from = from.ok_or_else(|| Refusal::new(RefusalCode::BadRequest, "the service left"))?;
    let (send, recv, answer) = tokio::select! {
        biased;
        refusal = refused => return Err(refusal.map_or_else(|_| gone(), Missed::Refused)),
        // It has another link, and this one may be long in ending.
        () = replaced.cancelled() => return Err(gone()),
        offer = offer(&device, &offered, from.clone(), asker.recv, &mut asker.early) => offer?,
        // The service is gone, or has thought better of it.
        _ = asker.send.stopped() => {
            return Err(Refusal::new(RefusalCode::BadRequest, "the service left").into());
        }
    };
    match inner.lock().core.handle_answer(offered.tunnel, answer) {
        Some(Answer::Accepted(_)) => {}
        Some(Answer::Refused(refusal)) => return Err(refusal.into()),
        None => return Err(Refusal::new(RefusalCode::DeadlinePassed, "the answer came too late").into()),
    }
    let accepted = Accepted { tunnel: Some(offered.tunnel.0) };
    let told = message::write(asker.send, &Answer::Accepted(accepted)).await;
    told.map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))?;
    // Nobody is asked again, so nothing is passed on any more.
    let early = mem::take(&mut asker.early);
    Ok(Joined { live, from, send, recv, early, replaced })
}

/// Asks the core for a tunnel. If the device is away and the service would wait, waits until it is here. What is returned
/// last hears of a refusal from the first moment on: the hub may drain, or the deadline pass, before the device is asked.
async fn await_device(
    inner: &Arc<Inner>,
    link: LinkId,
    open: &Open,
    answer_to: &mut SendStream,
) -> Result<(Offered, Live, oneshot::Receiver<Refusal>), Refusal> {
    let (live, News { offered, mut refused }) = {
        let mut state = inner.lock();
        let live = |tunnel| Live { inner: inner.clone(), tunnel };
        match state.core.handle_open(inner.now(), link, open) {
            Ok(offered) => {
                let News { refused, .. } = state.waiting.enter(offered.tunnel);
                inner.perform(&mut state);
                let live = live(offered.tunnel);
                return Ok((offered, live, refused));
            }
            Err(refusal) if open.wait_ms.is_none_or(|wait| wait == 0) || !is_away(&refusal) => {
                return Err(refusal);
            }
            Err(_) => {}
        }
        let tunnel = state.core.handle_wait(inner.now(), link, open)?;
        let news = state.waiting.enter(tunnel);
        inner.perform(&mut state);
        (live(tunnel), news)
    };
    tracing::info!(tunnel = %live.tunnel, device = open.device, service = open.service, "waiting for the device");
    let gone = |_| Refusal::new(RefusalCode::DeviceOffline, "the device does not come");
    tokio::select! {
        biased;
        refusal = &mut refused => Err(refusal.unwrap_or_else(gone)),
        offered = offered => Ok((offered.map_err(gone)?, live, refused)),
        _ = answer_to.stopped() => Err(Refusal::new(RefusalCode::BadRequest, "the service left")),
    }
}

fn is_away(refusal: &Refusal) -> bool {
    matches!(refusal.code, RefusalCode::DeviceOffline | RefusalCode::DeviceUnknown)
}

/// Offers a tunnel to a device, with what the service says early, and waits for its answer.
async fn offer(
    device: &Link,
    offered: &Offered,
    from: String,
    service: &mut RecvStream,
    early: &mut Early,
) -> Result<(SendStream, RecvStream, Answer), Missed> {
    let exchange = async {
        let (mut send, mut recv) = device.open_bi().await?;
        send.set_urgency(Pace::FIRST);
        let offer = Offer {
            tunnel: offered.tunnel.0,
            service: offered.service.to_string(),
            from,
            profile: offered.profile,
            deadline_ms: u32::try_from(millis(offered.deadline)).expect("deadlines are at most a minute"),
        };
        message::write(&mut send, &offer).await?;
        early.begin_anew();
        let mut reader = message::Reader::default();
        let answer = poll_fn(|context| {
            early.pass(context, service, &mut send);
            reader.poll_next(context, &mut recv)
        });
        let answer = answer.await?.ok_or(MessageError::Truncated)?;
        Ok((send, recv, answer))
    };
    exchange.await.map_err(|error| match error {
        MessageError::Closed(_) => {
            Missed::Lost(Refusal::new(RefusalCode::DeviceOffline, "the device left while it was asked"))
        }
        MessageError::Abandoned(_) | MessageError::Truncated => {
            Refusal::new(RefusalCode::Rejected, "the device dropped the offer without a word").into()
        }
        error => Refusal::new(RefusalCode::Rejected, format!("the device answered with {error}")).into(),
    })
}

/// Joins the two legs of a tunnel until it is over.
async fn splice(mut record: Record, joined: Joined, send: SendStream, recv: RecvStream) {
    let Joined { live: _live, send: to_device, recv: from_device, early, replaced, .. } = joined;
    early.hand_over(record.splice.flow(Way::Forth));
    let mut service_leg = StreamLeg::new(send, recv);
    let mut device_leg = StreamLeg::new(to_device, from_device);
    let relaying = relay_through(&mut record.splice, &mut service_leg, &mut device_leg);
    record.end = match replaced.run_until_cancelled(relaying).await {
        Some(relayed) => End::Ways(relayed.ended),
        None => {
            // The old link may have gone dark, and take long to find out.
            for leg in [&mut service_leg, &mut device_leg] {
                leg.send.reset(codes::LEG_LOST);
                leg.recv.stop(codes::LEG_LOST);
            }
            End::Replaced
        }
    };
}
