//! Two legs joined: what comes in on one goes out on the other, and ends as it ended.
//!
//! In: bytes and ends from each leg, and how much each takes. Out: bytes, ends and stops for the other. Keeps: one
//! chunk for each way, which is read only when the last one was taken; so a slow reader on one leg holds up the
//! writer on the other, and nobody else.

use bytes::Bytes;
use towline_engine::Code;

use crate::codes;
use crate::message::Profile;

/// The most bytes that a splice holds for each way.
pub const MAX_HELD: usize = 64 << 10;

/// A way through a splice, from one leg to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the first leg to the second.
    Forth,
    /// From the second leg to the first.
    Back,
}

impl Way {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Forth => Self::Back,
            Self::Back => Self::Forth,
        }
    }
}

/// How a way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the end of what the source had to say, which the sink has taken.
    Finished,
    /// The source abandoned it, or was lost.
    Reset(Code),
    /// The sink would take no more, or was lost.
    Stopped(Code),
}

/// What the sink of a way is to be given now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The bytes that are held.
    Data,
    /// The end.
    Finish,
    /// The source's reset.
    Reset(Code),
    /// Nothing, until more is read.
    Wait,
    /// Nothing any more.
    Over(Ended),
}

/// One way.
#[derive(Clone, Debug)]
pub struct Flow {
    held: Bytes,
    state: State,
    /// The source shall hear that nobody listens.
    stop_owed: Option<Code>,
    carried: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; the sink has not heard yet.
    Finishing,
    Resetting(Code),
    Over(Ended),
}

impl Default for Flow {
    fn default() -> Self {
        Self { held: Bytes::new(), state: State::Open, stop_owed: None, carried: 0 }
    }
}

impl Flow {
    /// Whether the source may be read: at most [`MAX_HELD`] bytes.
    pub fn wants_read(&self) -> bool {
        self.state == State::Open && self.held.is_empty()
    }

    /// What the sink is to be given.
    pub fn fate(&self) -> Fate {
        match self.state {
            State::Open | State::Finishing if !self.held.is_empty() => Fate::Data,
            State::Open => Fate::Wait,
            State::Finishing => Fate::Finish,
            State::Resetting(code) => Fate::Reset(code),
            State::Over(ended) => Fate::Over(ended),
        }
    }

    /// The bytes for the sink. Who takes some advances them.
    pub fn held(&mut self) -> &mut Bytes {
        &mut self.held
    }

    /// How many bytes were read from the source.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Takes the code to stop the source with, if it is to be stopped.
    pub fn take_stop(&mut self) -> Option<Code> {
        self.stop_owed.take()
    }

    /// So many bytes went from the source to the sink before the legs were joined.
    pub fn handle_carried(&mut self, count: u64) {
        self.carried += count;
    }

    /// Bytes came from the source, which [`wants_read`](Self::wants_read) allowed.
    pub fn handle_data(&mut self, data: Bytes) {
        assert!(self.wants_read() && data.len() <= MAX_HELD, "read only what is wanted");
        self.carried += data.len() as u64;
        self.held = data;
    }

    /// The source has ended.
    pub fn handle_end(&mut self) {
        if self.state == State::Open {
            self.state = State::Finishing;
        }
    }

    /// The source abandoned the way, or was lost. What is held is abandoned as well.
    pub fn handle_reset(&mut self, code: Code) {
        if matches!(self.state, State::Open | State::Finishing) {
            self.state = State::Resetting(code);
            self.held = Bytes::new();
        }
    }

    /// The sink takes no more, or was lost.
    pub fn handle_stop(&mut self, code: Code) {
        match self.state {
            State::Open => self.stop_owed = Some(code),
            State::Finishing | State::Resetting(_) => {}
            State::Over(_) => return,
        }
        self.state = State::Over(Ended::Stopped(code));
        self.held = Bytes::new();
    }

    /// The sink was given the end or the reset that [`fate`](Self::fate) asked for.
    pub fn handle_told(&mut self) {
        self.state = match self.state {
            State::Finishing => State::Over(Ended::Finished),
            State::Resetting(code) => State::Over(Ended::Reset(code)),
            state @ (State::Open | State::Over(_)) => state,
        };
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_)) && self.stop_owed.is_none()
    }
}

/// Both ways.
#[derive(Clone, Debug)]
pub struct Splice {
    profile: Profile,
    forth: Flow,
    back: Flow,
}

impl Splice {
    /// Two legs that have just been joined.
    pub fn new(profile: Profile) -> Self {
        Self { profile, forth: Flow::default(), back: Flow::default() }
    }

    /// A way.
    pub fn flow(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::Forth => &mut self.forth,
            Way::Back => &mut self.back,
        }
    }

    /// The leg that is the source of `way` is gone altogether: it sends no more, and takes no more.
    pub fn handle_lost(&mut self, source_of: Way, code: Code) {
        self.flow(source_of).handle_reset(code);
        self.flow(source_of.other()).handle_stop(code);
    }

    /// Applies what the profile says about one way when the other has ended. Call it after every change.
    ///
    /// A strict tunnel is gone when either side closes: whoever has not closed hears so, after what the other had
    /// to say. Where a sink takes no more because the tunnel is strict, its side has closed, and its last words and their
    /// end are on their way.
    pub fn apply_profile(&mut self) {
        if self.profile != Profile::Strict {
            return;
        }
        for way in [Way::Forth, Way::Back] {
            let fate = self.flow(way).fate();
            if matches!(fate, Fate::Over(ended) if ended != Ended::Stopped(codes::STRICT)) {
                let other = self.flow(way.other());
                other.handle_reset(codes::STRICT);
                if other.stop_owed.is_none() && matches!(other.state, State::Resetting(_)) {
                    other.stop_owed = Some(codes::STRICT);
                }
            }
        }
    }

    /// How both ways ended, forth and back, once both have.
    pub fn ended(&self) -> Option<[Ended; 2]> {
        match (self.forth.fate(), self.back.fate()) {
            (Fate::Over(forth), Fate::Over(back)) if self.forth.is_over() && self.back.is_over() => {
                Some([forth, back])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Code = Code::new(7).unwrap();

    fn data(count: usize) -> Bytes {
        Bytes::from(vec![1; count])
    }

    #[test]
    fn one_chunk_at_a_time() {
        let mut flow = Flow::default();
        assert!(flow.wants_read());
        flow.handle_data(data(10));
        assert!(!flow.wants_read(), "not before the sink has taken it");
        assert_eq!(flow.fate(), Fate::Data);
        let _ = flow.held().split_to(9);
        assert!(!flow.wants_read());
        let _ = flow.held().split_to(1);
        assert!(flow.wants_read());
        assert_eq!((flow.fate(), flow.carried()), (Fate::Wait, 10));
    }

    #[test]
    fn fin_stays_fin_after_the_last_byte() {
        let mut flow = Flow::default();
        flow.handle_data(data(10));
        flow.handle_end();
        assert_eq!(flow.fate(), Fate::Data);
        flow.held().clear();
        assert_eq!(flow.fate(), Fate::Finish);
        assert!(!flow.wants_read());
        flow.handle_told();
        assert_eq!(flow.fate(), Fate::Over(Ended::Finished));
        flow.handle_reset(CODE);
        flow.handle_stop(CODE);
        assert_eq!((flow.fate(), flow.take_stop()), (Fate::Over(Ended::Finished), None), "and stays so");
    }

    #[test]
    fn rst_stays_rst_and_overtakes_what_is_held() {
        let mut flow = Flow::default();
        flow.handle_data(data(10));
        flow.handle_reset(CODE);
        assert_eq!(flow.fate(), Fate::Reset(CODE));
        flow.handle_told();
        assert_eq!(flow.fate(), Fate::Over(Ended::Reset(CODE)));
    }

    #[test]
    fn a_stop_goes_back_to_the_source() {
        let mut flow = Flow::default();
        flow.handle_data(data(10));
        flow.handle_stop(CODE);
        assert_eq!(flow.fate(), Fate::Over(Ended::Stopped(CODE)));
        assert!(!flow.is_over(), "the source is still to hear");
        assert_eq!(flow.take_stop(), Some(CODE));
        assert!(flow.is_over());
    }

    #[test]
    fn a_source_that_has_ended_is_not_stopped() {
        let mut flow = Flow::default();
        flow.handle_data(data(10));
        flow.handle_end();
        flow.handle_stop(CODE);
        assert_eq!(flow.take_stop(), None);
        assert!(flow.is_over());
    }

    #[test]
    fn ways_end_by_themselves_in_the_native_profile() {
        let mut splice = Splice::new(Profile::Native);
        splice.flow(Way::Forth).handle_end();
        splice.flow(Way::Forth).handle_told();
        splice.apply_profile();
        assert_eq!(splice.ended(), None);
        assert!(splice.flow(Way::Back).wants_read());
        splice.flow(Way::Back).handle_data(data(1));
        splice.flow(Way::Back).held().clear();
        splice.flow(Way::Back).handle_end();
        splice.flow(Way::Back).handle_told();
        assert_eq!(splice.ended(), Some([Ended::Finished, Ended::Finished]));
    }

    #[test]
    fn a_strict_tunnel_is_gone_when_either_side_closes() {
        let mut splice = Splice::new(Profile::Strict);
        splice.flow(Way::Forth).handle_data(data(5));
        splice.flow(Way::Forth).handle_end();
        splice.apply_profile();
        assert!(splice.flow(Way::Back).wants_read(), "what it had to say comes first");
        splice.flow(Way::Forth).held().clear();
        splice.flow(Way::Forth).handle_told();
        splice.apply_profile();
        assert_eq!(splice.flow(Way::Back).fate(), Fate::Reset(codes::STRICT));
        assert_eq!(splice.flow(Way::Back).take_stop(), Some(codes::STRICT));
        splice.flow(Way::Back).handle_told();
        splice.apply_profile();
        assert_eq!(splice.ended(), Some([Ended::Finished, Ended::Reset(codes::STRICT)]));
    }

    #[test]
    fn last_words_are_not_overtaken_by_the_end_of_a_strict_tunnel() {
        let mut splice = Splice::new(Profile::Strict);
        splice.flow(Way::Forth).handle_stop(codes::STRICT);
        assert_eq!(splice.flow(Way::Forth).take_stop(), Some(codes::STRICT));
        splice.apply_profile();
        let back = splice.flow(Way::Back);
        assert!(back.wants_read(), "the other side has closed, after what it had to say");
        back.handle_data(data(5));
        back.handle_end();
        splice.apply_profile();
        assert_eq!(splice.flow(Way::Back).fate(), Fate::Data);
        splice.flow(Way::Back).held().clear();
        splice.flow(Way::Back).handle_told();
        assert_eq!(splice.ended(), Some([Ended::Stopped(codes::STRICT), Ended::Finished]));
    }

    #[test]
    fn a_lost_leg_ends_both_ways() {
        let mut splice = Splice::new(Profile::Native);
        splice.flow(Way::Back).handle_data(data(5));
        splice.handle_lost(Way::Forth, CODE);
        assert_eq!(splice.flow(Way::Forth).fate(), Fate::Reset(CODE), "never an end of file");
        assert_eq!(splice.flow(Way::Back).take_stop(), Some(CODE));
        splice.flow(Way::Forth).handle_told();
        assert_eq!(splice.ended(), Some([Ended::Reset(CODE), Ended::Stopped(CODE)]));
    }

    /// Any order of events: never a panic, at most one chunk held, and an end that has come stays.
    #[test]
    fn any_order_of_events_is_legal() {
        let mut random = 1u64;
        for _ in 0..2000 {
            let mut splice =
                Splice::new(if random.is_multiple_of(2) { Profile::Strict } else { Profile::Native });
            let mut ended = None;
            for _ in 0..40 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let way = if random >> 40 & 1 == 0 { Way::Forth } else { Way::Back };
                let flow = splice.flow(way);
                match random >> 33 & 7 {
                    0 if flow.wants_read() => flow.handle_data(data(100)),
                    1 => flow.handle_end(),
                    2 => flow.handle_reset(CODE),
                    3 => flow.handle_stop(CODE),
                    4 => flow.handle_told(),
                    5 => flow.held().clear(),
                    6 => _ = flow.take_stop(),
                    7 => splice.handle_lost(way, CODE),
                    _ => {}
                }
                splice.apply_profile();
                let now = splice.ended();
                assert!(ended.is_none() || ended == now);
                ended = now;
            }
        }
    }
}
