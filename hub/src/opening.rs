//! A connection that was asked for, and the answer that decides whether there is one.
//!
//! In: a stream on which the request was written. Out: a tunnel, or one side of a relay that carries what is written before the
//! answer comes. Keeps: the answer, or the part of it that has come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Sleep, sleep, timeout};
use towline_transports::{Code, LinkClosed, RecvStream, SendStream};

use crate::codes;
use crate::end_to_end::EndToEnd;
use crate::message::{self, Accepted, Answer, MessageError, Profile};
use crate::refusal::{Refusal, RefusalCode};
use crate::relay::{Gone, Leg, Read, StreamLeg};
use crate::service::OpenOptions;
use crate::tunnel::Tunnel;
use crate::unopened::OpenError;

/// How long the hub may be late with its refusal when a deadline has passed, before the service gives up on it.
const DEADLINE_SLACK: Duration = Duration::from_secs(2);

/// A tunnel that was asked for and not answered yet.
#[derive(Debug)]
pub struct Opening {
    profile: Profile,
    deadline: Duration,
    /// What is written here follows the request; if that is refused, it is dropped. In a tunnel
    /// [end to end](Profile::EndToEnd) the device may have had the first 4 KiB of it by then.
    pub send: SendStream,
    recv: RecvStream,
    /// The session that it is in, if any, and how many bytes the request took.
    session: Option<(EndToEnd, u64)>,
    /// The answer, if it was waited for.
    answer: Option<Accepted>,
}

impl Opening {
    pub(crate) fn new(options: OpenOptions, send: SendStream, recv: RecvStream) -> Self {
        let OpenOptions { profile, deadline, wait } = options;
        Self { profile, deadline: wait + deadline, send, recv, session: None, answer: None }
    }

    /// One in `session`, whose request took `asked` bytes and was written.
    pub(crate) fn of_session(session: EndToEnd, send: SendStream, recv: RecvStream, asked: u64) -> Self {
        let deadline = session.deadline();
        Self { profile: Profile::Native, deadline, send, recv, session: Some((session, asked)), answer: None }
    }

    /// It once its answer is there.
    pub(crate) async fn with_answer(mut self) -> Result<Self, OpenError> {
        let by = Answerer::of(self.session.as_ref());
        self.answer = Some(read_answer(&mut self.recv, self.deadline, by).await?);
        Ok(self)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// Why there is no tunnel.
    pub async fn answered(mut self) -> Result<Tunnel, OpenError> {
        let by = Answerer::of(self.session.as_ref());
        let Accepted { tunnel } = match self.answer {
            Some(accepted) => accepted,
            None => read_answer(&mut self.recv, self.deadline, by).await?,
        };
        Ok(Tunnel::new(tunnel, self.profile, self.send, self.recv))
    }

    /// It as one side of a relay, which carries what is written before the answer comes.
    pub fn into_leg(self) -> OpeningLeg {
        let Self { deadline, send, recv, session, answer, .. } = self;
        let answer = match answer {
            Some(_) => None,
            None => {
                Some((message::Reader::default(), Box::pin(sleep(deadline.saturating_add(DEADLINE_SLACK)))))
            }
        };
        OpeningLeg { leg: StreamLeg::new(send, recv), answer, refused: None, session }
    }
}

async fn read_answer(recv: &mut RecvStream, deadline: Duration, by: Answerer) -> Result<Accepted, OpenError> {
    match timeout(deadline.saturating_add(DEADLINE_SLACK), message::read(recv)).await {
        Ok(Ok(Answer::Accepted(accepted))) => Ok(accepted),
        Ok(Ok(Answer::Refused(refusal))) => Err(refusal.into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(too_late(by).into()),
    }
}

/// Who was to answer.
#[derive(Clone, Copy, Debug)]
enum Answerer {
    Hub,
    Device,
}

impl Answerer {
    /// On a stream of a session it is the device: the hub sees none.
    fn of(session: Option<&(EndToEnd, u64)>) -> Self {
        if session.is_some() { Self::Device } else { Self::Hub }
    }
}

fn too_late(by: Answerer) -> Refusal {
    let text = match by {
        Answerer::Hub => "the hub has not answered in time",
        Answerer::Device => "the device has not answered in time",
    };
    Refusal::new(RefusalCode::DeadlinePassed, text)
}

/// A tunnel that may still be refused, as a leg: what the answer is, the first read learns.
#[derive(Debug)]
pub struct OpeningLeg {
    leg: StreamLeg,
    /// The answer as far as it has come, and when to give up on it. `None` once it is here.
    answer: Option<(message::Reader, Pin<Box<Sleep>>)>,
    refused: Option<OpenError>,
    session: Option<(EndToEnd, u64)>,
}

impl OpeningLeg {
    /// How many of the bytes that were written the device's end has for certain. `None` outside of sessions, where nobody
    /// says.
    pub fn delivered(&self) -> Option<u64> {
        let (_, asked) = self.session.as_ref()?;
        Some(self.leg.send.acknowledged()?.saturating_sub(*asked))
    }

    /// Why the session that it is in is over, if it is.
    pub(crate) async fn session_over(&self) -> Option<LinkClosed> {
        let (session, _) = self.session.as_ref().filter(|(session, _)| session.is_closed())?;
        Some(session.closed().await)
    }

    /// Why there was no tunnel, if that is how the relay ended.
    pub fn take_refusal(&mut self) -> Option<OpenError> {
        self.refused.take()
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), OpenError>> {
        let Some((reader, patience)) = &mut self.answer else { return Poll::Ready(Ok(())) };
        let answer = match reader.poll_next(context, &mut self.leg.recv) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                ready!(patience.as_mut().poll(context));
                let by = Answerer::of(self.session.as_ref());
                return Poll::Ready(Err(too_late(by).into()));
            }
        };
        self.answer = None;
        Poll::Ready(match answer {
            Ok(Some(Answer::Accepted(_))) => Ok(()),
            Ok(Some(Answer::Refused(refusal))) => Err(refusal.into()),
            Ok(None) => Err(MessageError::Truncated.into()),
            Err(error) => Err(error.into()),
        })
    }
}

impl Leg for OpeningLeg {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        match ready!(self.poll_answer(context)) {
            Ok(()) => self.leg.poll_read(context, max),
            Err(error) => {
                self.refused = Some(error);
                Poll::Ready(Read::Lost(codes::REFUSED))
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.leg.poll_write(context, data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.leg.poll_finish(context)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.leg.poll_gone(context)
    }

    fn reset(&mut self, code: Code) {
        self.leg.reset(code);
    }

    fn stop(&mut self, code: Code) {
        self.leg.stop(code);
    }

    fn reset_ends_whole(&self) -> bool {
        self.leg.reset_ends_whole()
    }
}
