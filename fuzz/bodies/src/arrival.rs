//! A pipe asks for a session that is there: what an owner does then, and what must hold.

use towline_engine::{Acceptor, Config, Epoch, Instant, Refused, Secret, Session, SessionId};
use towline_model::SECRET;

use crate::harness::MOST_OUTPUT;

/// Who asks for a session.
pub(crate) struct Asker {
    pub(crate) name: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) proof: Secret,
    /// The session has a pipe that is as new.
    pub(crate) is_stale: bool,
    /// The session's secret is the one that we know: a mutated hello may have brought another.
    pub(crate) is_ours: bool,
}

/// Somebody asks for the session, and is let in or not. Returns whether.
pub(crate) fn resume(
    session: &mut Session,
    acceptor: &mut Acceptor,
    config: &Config,
    now: Instant,
    asker: &Asker,
) -> bool {
    let Asker { name, epoch, ref proof, is_stale, is_ours } = *asker;
    let before = session.fingerprint(now);
    // Sessions are looked up by their names.
    let is_there = session.id() == Some(name);
    let holds = is_there && *proof == SECRET;
    let buried = session.tombstone().map(|tombstone| tombstone.refuse(proof, &mut acceptor.clone()));
    let mut unknown = Acceptor::new(config);
    if !acceptor.wants_transmit() {
        unknown.poll_transmit(MOST_OUTPUT, &mut Vec::new()); // it has declared itself, too
    }
    unknown.refuse();
    let answer = if is_there { session.resume(now, epoch, proof, acceptor) } else { Err(acceptor.refuse()) };
    if let (Some(buried), true) = (buried, is_there) {
        assert_eq!(answer, Err(buried), "a tombstone answers as the session would");
    }
    if answer.is_err() {
        assert_eq!(session.fingerprint(now), before, "proof_first: nothing has changed");
    }
    match answer {
        Ok(()) => assert!(!is_stale && session.id() == Some(name)),
        Err(Refused::Unknown) => {
            assert_eq!(all(unknown), all(acceptor.clone()), "proof_first: as if there were no such session");
        }
        Err(Refused::Stale(last)) => assert!(is_stale && last >= epoch),
        Err(Refused::Expired | Refused::Closed(_)) => assert!(session.is_closed()),
        Err(other) => panic!("an answer of a new kind: {other}"),
    }
    if is_ours {
        assert_eq!(answer != Err(Refused::Unknown), holds, "proof_first: {answer:?}");
    }
    answer.is_ok()
}

/// All that an acceptor has to say.
fn all(mut acceptor: Acceptor) -> Vec<u8> {
    let mut slices = Vec::new();
    while acceptor.poll_transmit(MOST_OUTPUT, &mut slices) > 0 {}
    slices.concat()
}
