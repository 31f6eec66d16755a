//! Connections that have not shown who they are.
//!
//! They cost a bounded number of descriptors. When one more comes than there is room for, it waits, two seconds at first; and
//! from then on as long as those who are in get through, a quarter of the room in each two. So when thousands come at once, as
//! after a hub's end, nobody is sent away in the middle of a handshake, to come again and to cost another one. If fewer get
//! through, those who are in are not worth waiting for: the oldest goes, if it has been here for a moment. An honest peer is
//! through the handshake long before it is the oldest of a thousand.

use std::collections::BTreeMap;
use std::time::Duration;

use towline_engine::Instant;

/// For so long it is counted how many get through; then it is said whether whoever comes next waits.
const LOOK: Duration = Duration::from_secs(2);

/// The room divided by this is how many have to get through in that time.
const PART: usize = 4;

/// How long everybody may stay: else all those who have waited would drive each other out once they need not wait any more.
const MOMENT: Duration = Duration::from_millis(250);

/// A connection's number, in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Visitor(u64);

/// Who is on the way through the handshake.
#[derive(Clone, Debug)]
pub struct Lobby {
    room: usize,
    /// Whether whoever comes may have to wait.
    is_patient: bool,
    next: u64,
    /// Since when each is here.
    visitors: BTreeMap<Visitor, Instant>,
    /// `None` while nobody has ever come in vain.
    crush: Option<Crush>,
}

/// How it goes while there is no room.
#[derive(Clone, Debug)]
struct Crush {
    /// Since when those who get through are counted.
    since: Instant,
    /// How many have.
    passed: usize,
    /// Whether whoever comes waits until they are counted anew.
    waits: bool,
    /// When somebody last found no room, or is to ask again.
    last: Instant,
}

impl Lobby {
    /// An empty lobby with room for `room` connections, at least one.
    pub fn new(room: usize) -> Self {
        Self { room: room.max(1), is_patient: true, next: 0, visitors: BTreeMap::new(), crush: None }
    }

    /// The same, in which nobody ever waits: the oldest goes at once. For a room so small that to wait would be to be locked out.
    pub fn for_the_newest(room: usize) -> Self {
        Self { is_patient: false, ..Self::new(room) }
    }

    /// A connection arrives. Returns its number, and that of the one that has to go for it.
    ///
    /// # Errors
    ///
    /// There is no room for now. It may ask again when somebody leaves, and at this time.
    pub fn arrive(&mut self, now: Instant) -> Result<(Visitor, Option<Visitor>), Instant> {
        let goes = if self.visitors.len() >= self.room { self.press(now)? } else { None };
        let visitor = Visitor(self.next);
        self.next += 1;
        self.visitors.insert(visitor, now);
        Ok((visitor, goes))
    }

    /// Somebody has found no room. Returns who goes, or when to ask again.
    fn press(&mut self, now: Instant) -> Result<Option<Visitor>, Instant> {
        let again = if self.is_patient { self.waits_until(now) } else { now };
        if now < again { Err(again) } else { Ok(self.evict()) }
    }

    /// Until when whoever has found no room waits.
    fn waits_until(&mut self, now: Instant) -> Instant {
        let oldest = self.visitors.first_key_value().map_or(now, |(_, &since)| since);
        let crush = self.crush.take().filter(|crush| now < crush.last + LOOK);
        let mut crush = crush.unwrap_or(Crush { since: now, passed: 0, waits: true, last: now });
        if now >= crush.since + LOOK {
            let waits = crush.passed >= self.room.div_ceil(PART);
            crush = Crush { since: now, passed: 0, waits, last: now };
        }
        let until = if crush.waits { crush.since + LOOK } else { oldest + MOMENT };
        crush.last = now.max(until);
        self.crush = Some(crush);
        until
    }

    /// Lets the oldest go, to make room for something more important.
    pub fn evict(&mut self) -> Option<Visitor> {
        self.visitors.pop_first().map(|(visitor, _)| visitor)
    }

    /// The connection has shown who it is, and leaves. Without effect on one that had to go before.
    pub fn pass(&mut self, visitor: Visitor) {
        if self.visitors.remove(&visitor).is_some()
            && let Some(crush) = &mut self.crush
        {
            crush.passed += 1;
        }
    }

    /// The connection is gone. Without effect on one that has left before.
    pub fn leave(&mut self, visitor: Visitor) {
        self.visitors.remove(&visitor);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.visitors.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// A lobby that was filled at the very beginning, and who is in it.
    fn full(room: usize) -> (Lobby, Vec<Visitor>) {
        let mut lobby = Lobby::new(room);
        let visitors = (0..room).map(|_| lobby.arrive(at(0)).unwrap()).collect::<Vec<_>>();
        assert!(visitors.iter().all(|(_, goes)| goes.is_none()));
        (lobby, visitors.into_iter().map(|(visitor, _)| visitor).collect())
    }

    /// Somebody comes. Who goes, or when to ask again.
    fn comes(lobby: &mut Lobby, millis: u64) -> Result<Option<Visitor>, Instant> {
        lobby.arrive(at(millis)).map(|(_, goes)| goes)
    }

    #[test]
    fn after_a_while_in_vain_the_oldest_goes_first_and_who_left_does_not() {
        let (mut lobby, visitors) = full(3);
        assert_eq!(comes(&mut lobby, 100), Err(at(2100)));
        lobby.leave(visitors[0]);
        assert_eq!(comes(&mut lobby, 200), Ok(None), "there was room");
        assert_eq!(comes(&mut lobby, 2099), Err(at(2100)));
        assert_eq!(comes(&mut lobby, 2100), Ok(Some(visitors[1])));
        assert_eq!(comes(&mut lobby, 2100), Ok(Some(visitors[2])));
        assert_eq!(lobby.len(), 3);
    }

    #[test]
    fn who_comes_waits_for_as_long_as_enough_get_through() {
        let (mut lobby, mut visitors) = full(8);
        let mut now = 0;
        // Two in each two seconds.
        for _ in 0..20 {
            assert!(comes(&mut lobby, now).is_err());
            lobby.pass(visitors.remove(0));
            let (visitor, goes) = lobby.arrive(at(now)).unwrap();
            assert_eq!(goes, None);
            visitors.push(visitor);
            now += 1000;
        }
        // Then one, though others leave.
        assert!(comes(&mut lobby, now).is_err());
        lobby.pass(visitors.remove(0));
        for _ in 0..3 {
            visitors.push(lobby.arrive(at(now)).unwrap().0);
            lobby.leave(visitors.remove(0));
        }
        visitors.push(lobby.arrive(at(now + 1900)).unwrap().0);
        assert!(comes(&mut lobby, now + 1900).is_err());
        assert_eq!(comes(&mut lobby, now + 2000), Ok(Some(visitors[0])));
        // Once they get through again, whoever comes waits again.
        lobby.pass(visitors[1]);
        lobby.pass(visitors[2]);
        for _ in 0..2 {
            assert_eq!(comes(&mut lobby, now + 3000), Ok(None));
        }
        assert_eq!(comes(&mut lobby, now + 3999), Ok(Some(visitors[3])));
        assert_eq!(comes(&mut lobby, now + 4000), Err(at(now + 6000)));
    }

    #[test]
    fn a_lobby_that_had_room_for_a_while_is_like_a_new_one() {
        let (mut lobby, visitors) = full(2);
        assert_eq!(comes(&mut lobby, 0), Err(at(2000)));
        // Whoever was to ask again then has not.
        assert_eq!(comes(&mut lobby, 4000), Err(at(6000)));
        assert_eq!(comes(&mut lobby, 6000), Ok(Some(visitors[0])));
        assert_eq!(comes(&mut lobby, 7999), Ok(Some(visitors[1])));
        assert_eq!(comes(&mut lobby, 9999), Err(at(11_999)), "nobody has come in vain for two seconds");
    }

    #[test]
    fn those_who_have_waited_do_not_drive_each_other_out() {
        let (mut lobby, _) = full(2);
        assert!(comes(&mut lobby, 0).is_err());
        for _ in 0..2 {
            assert!(comes(&mut lobby, 2000).is_ok_and(|goes| goes.is_some()));
        }
        assert_eq!(comes(&mut lobby, 2100), Err(at(2250)));
        assert!(comes(&mut lobby, 2250).is_ok_and(|goes| goes.is_some()));
    }

    #[test]
    fn for_the_newest_the_oldest_goes_at_once() {
        let mut lobby = Lobby::for_the_newest(2);
        let first = lobby.arrive(at(0)).unwrap().0;
        lobby.arrive(at(0)).unwrap();
        assert_eq!(comes(&mut lobby, 0), Ok(Some(first)));
    }

    #[test]
    fn strangers_who_say_nothing_lock_nobody_out_however_often_they_come() {
        // Of three hundred in a second, one is honest, and takes a second.
        let mut lobby = Lobby::new(1000);
        let (mut honest, mut is_through, mut longest, mut now) = (None, 0, 0, 0);
        for arrival in 0..60_000_u64 {
            let came = arrival * 10 / 3;
            now = came.max(now);
            let visitor = loop {
                match lobby.arrive(at(now)) {
                    Ok((visitor, goes)) => {
                        assert!(goes.is_none() || goes != honest.map(|(visitor, _)| visitor));
                        break visitor;
                    }
                    Err(until) => now = until.as_nanos() / 1_000_000,
                }
            };
            longest = longest.max(now - came);
            if honest.is_some_and(|(_, since)| now >= since + 1000) {
                lobby.pass(honest.take().unwrap().0);
                is_through += 1;
            }
            if honest.is_none() {
                honest = Some((visitor, now));
            }
            assert!(lobby.len() <= 1000);
        }
        assert!(is_through > 100 && longest <= 2000, "{is_through} were through, one waited {longest} ms");
    }
}
