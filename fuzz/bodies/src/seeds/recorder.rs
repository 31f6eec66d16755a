//! A session under test and a real peer, and a record of everything that happened to the former.

use bytes::Bytes;
use towline_engine::{
    Acceptor, Arrival, CloseReason, Config, Epoch, Event, Instant, PipeClosed, Resumption, Session, Side,
};
use towline_model::{ID, SECRET};

use crate::harness::Harness;
use crate::setup::Setup;
use crate::step::Step;

/// Tells a story and writes it down.
pub(crate) struct Recorder {
    harness: Harness,
    input: Vec<u8>,
    pub(crate) setup: Setup,
    /// The real peer.
    pub(crate) peer: Session,
    /// Reads the beginning of a later pipe at the peer's end.
    acceptor: Option<Acceptor>,
    epoch: Epoch,
    config: Config,
}

/// The peer's clock stands still; it has no part in the story.
pub(crate) const NOW: Instant = Instant::from_nanos(1 << 40);

/// What the other end of `side` wants.
pub(crate) fn peer_config(side: Side, resumable: bool) -> Config {
    let mut config = towline_model::config();
    config.resumption = match (resumable, side) {
        (false, _) => Resumption::Off,
        (true, Side::Client) => Resumption::Accept,
        (true, Side::Server) => Resumption::Offer(ID, SECRET),
    };
    config
}

impl Recorder {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut input = Vec::new();
        setup.put(&mut input);
        let config = peer_config(setup.side, setup.resumable);
        let mut peer = Session::new(setup.side.peer(), config.clone());
        peer.attach(NOW, Epoch(0)).expect("its first pipe");
        Self { harness: Harness::new(setup), input, setup, peer, acceptor: None, epoch: Epoch(0), config }
    }

    /// Does something, and writes it down.
    pub(crate) fn step(&mut self, step: Step<'_>) {
        step.put(&mut self.input);
        self.harness.apply(&step);
    }

    /// Carries what the session says to the peer. Returns whether it said something.
    pub(crate) fn speak(&mut self) -> bool {
        if !self.harness.wants_transmit() {
            return false;
        }
        self.step(Step::Transmit { max: 1 << 14 });
        let record = Bytes::copy_from_slice(self.harness.last_record());
        match &mut self.acceptor {
            Some(acceptor) => {
                if let Some(Arrival::Resume { epoch, proof, .. }) = acceptor.handle_input(record)
                    && self.peer.resume(NOW, epoch, &proof, acceptor).is_ok()
                {
                    self.acceptor = None;
                }
            }
            None => self.peer.handle_input(NOW, self.epoch, record),
        }
        true
    }

    /// Carries what the peer says to the session. Returns whether it said something.
    pub(crate) fn listen(&mut self) -> bool {
        let mut slices = Vec::new();
        match &mut self.acceptor {
            Some(acceptor) => acceptor.poll_transmit(1 << 14, &mut slices),
            None => self.peer.poll_transmit(NOW, 1 << 14, &mut slices),
        };
        let record = slices.concat();
        for chunk in record.chunks(255) {
            self.step(Step::Bytes(chunk));
        }
        !record.is_empty()
    }

    /// Carries everything both ways, until both are quiet.
    pub(crate) fn carry(&mut self) {
        while self.speak() | self.listen() {}
    }

    /// The pipe is lost, and both notice.
    pub(crate) fn cut(&mut self) {
        self.step(Step::PipeClosed { back: 0, failed: true });
        self.peer.handle_pipe_closed(NOW, self.epoch, PipeClosed::Failed);
    }

    /// Whose part it is opens another pipe.
    pub(crate) fn reconnect(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.step(Step::Attach { ahead: 1 });
        match self.setup.side {
            Side::Client => self.acceptor = Some(Acceptor::new(&self.config)),
            Side::Server => self.peer.attach(NOW, self.epoch).expect("a session that can resume"),
        }
    }

    /// The story, if it came to its end with nobody complaining.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.step(Step::Events);
        while let Some(event) = self.peer.poll_event() {
            let complaint =
                matches!(event, Event::Closed(CloseReason::Violation(_) | CloseReason::PeerTransport { .. }));
            assert!(!complaint, "both keep the rules: {event:?}");
        }
        self.harness.end();
        self.input
    }
}
