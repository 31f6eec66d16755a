//! Transport parameters: what each end declares before anything else.
//!
//! Spec: draft-02 §5, RFC 9000 §18.

use bytes::BufMut;

use crate::error::Violation;
use crate::id::{Dir, MAX_STREAMS, Side, StreamId};
use crate::resume::{Secret, SessionId};
use crate::varint;

/// The record size that every QMux peer takes (draft-02 §5.2).
pub const MIN_MAX_RECORD_SIZE: u64 = 16382;

const MAX_IDLE_TIMEOUT: u64 = 0x01;
const INITIAL_MAX_DATA: u64 = 0x04;
const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
const MAX_RECORD_SIZE: u64 = 0x0571_c594_29cd_0845;
/// The resume extension (PROTOCOL §6.1), "TLR".
const RESUME: u64 = 0x0054_4c52;

/// What one end declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// In milliseconds; 0 means none.
    pub(crate) max_idle_timeout: u64,
    pub(crate) initial_max_data: u64,
    /// For streams that the declaring end opens.
    pub(crate) initial_max_stream_data_bidi_local: u64,
    /// For streams that its peer opens.
    pub(crate) initial_max_stream_data_bidi_remote: u64,
    pub(crate) initial_max_stream_data_uni: u64,
    pub(crate) initial_max_streams_bidi: u64,
    pub(crate) initial_max_streams_uni: u64,
    pub(crate) max_record_size: u64,
    /// The declaring end wants the session to outlive its pipe.
    pub(crate) resume: Option<ResumeParameter>,
}

/// The value of the resume parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResumeParameter {
    /// How long the declaring end would keep a session without a pipe, in milliseconds.
    pub(crate) grace: u64,
    /// On a session's first pipe, from its client: under what name it will resume, and with which proof.
    pub(crate) ticket: Option<(SessionId, Secret)>,
}

impl Default for Parameters {
    /// What an end means that declares nothing (RFC 9000 §18.2, draft-02 §5.2).
    fn default() -> Self {
        Self {
            max_idle_timeout: 0,
            initial_max_data: 0,
            initial_max_stream_data_bidi_local: 0,
            initial_max_stream_data_bidi_remote: 0,
            initial_max_stream_data_uni: 0,
            initial_max_streams_bidi: 0,
            initial_max_streams_uni: 0,
            max_record_size: MIN_MAX_RECORD_SIZE,
            resume: None,
        }
    }
}

impl Parameters {
    /// The most bytes that [`encode`](Self::encode) writes: eight parameters of id, length and value, of
    /// which one id takes eight bytes; and the resume parameter.
    pub(crate) const MAX_ENCODED: usize =
        7 * (1 + 1 + 8) + (8 + 1 + 8) + (4 + 1 + ResumeParameter::MAX_ENCODED);

    /// Writes every parameter that differs from its default.
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        let default = Self::default();
        for &(id, field) in FIELDS {
            let value = *field(&mut self.clone());
            if value != *field(&mut default.clone()) {
                varint::put(out, id);
                varint::put(out, varint::len(value) as u64);
                varint::put(out, value);
            }
        }
        if let Some(resume) = &self.resume {
            varint::put(out, RESUME);
            resume.encode(out);
        }
    }

    /// Reads the body of a QX_TRANSPORT_PARAMETERS frame.
    ///
    /// # Errors
    ///
    /// [`Violation::BadParameters`] for a parameter that is malformed, repeated, out of range, or one of RFC
    /// 9000's that QMux prohibits. Unknown parameters are extensions and ignored (draft-02 §5.1).
    pub(crate) fn decode(mut input: &[u8]) -> Result<Self, Violation> {
        let bad = Violation::BadParameters;
        let mut parameters = Self::default();
        let mut seen = [false; FIELDS.len()];
        while !input.is_empty() {
            let id = varint::get(&mut input).ok_or(bad)?;
            let length = varint::get(&mut input).ok_or(bad)?;
            let length = usize::try_from(length).map_err(|_| bad)?;
            let mut value = input.split_off(..length).ok_or(bad)?;
            if let Some(index) = FIELDS.iter().position(|&(known, _)| known == id) {
                let number = varint::get(&mut value).ok_or(bad)?;
                if seen[index] || !value.is_empty() {
                    return Err(bad);
                }
                seen[index] = true;
                *FIELDS[index].1(&mut parameters) = number;
            } else if id == RESUME {
                if parameters.resume.is_some() {
                    return Err(bad);
                }
                parameters.resume = Some(ResumeParameter::decode(value).ok_or(bad)?);
            } else if is_prohibited(id) {
                return Err(bad);
            }
        }
        if parameters.max_record_size < MIN_MAX_RECORD_SIZE
            || parameters.initial_max_streams_bidi > MAX_STREAMS
            || parameters.initial_max_streams_uni > MAX_STREAMS
        {
            return Err(bad);
        }
        Ok(parameters)
    }

    /// How many streams of direction `dir` the declaring end lets its peer open at first.
    pub(crate) fn initial_max_streams(&self, dir: Dir) -> u64 {
        match dir {
            Dir::Bi => self.initial_max_streams_bidi,
            Dir::Uni => self.initial_max_streams_uni,
        }
    }

    /// Whether nobody who has counted on `agreed` has sent too much.
    pub(crate) fn allow_all_of(&self, agreed: &Self) -> bool {
        let limits = |of: &Self| {
            [of.initial_max_data, of.initial_max_stream_data_bidi_remote, of.initial_max_streams_bidi]
        };
        limits(self).iter().zip(limits(agreed)).all(|(ours, agreed)| *ours >= agreed)
    }

    /// What of it holds for streams for as long as the session lives.
    pub(crate) fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            bidi_local: self.initial_max_stream_data_bidi_local,
            bidi_remote: self.initial_max_stream_data_bidi_remote,
            uni: self.initial_max_stream_data_uni,
        }
    }
}

/// How many bytes an end at first takes on a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    bidi_local: u64,
    bidi_remote: u64,
    uni: u64,
}

impl StreamLimits {
    /// How many bytes the declaring end, which is `declarer`, at first takes on stream `id`.
    pub(crate) fn of(&self, declarer: Side, id: StreamId) -> u64 {
        match id.dir() {
            Dir::Uni => self.uni,
            Dir::Bi if id.opener() == declarer => self.bidi_local,
            Dir::Bi => self.bidi_remote,
        }
    }
}

impl ResumeParameter {
    const MAX_ENCODED: usize = 8 + SessionId::LEN + Secret::LEN;

    fn encode(&self, out: &mut impl BufMut) {
        let ticket = self.ticket.as_ref().map_or(0, |_| SessionId::LEN + Secret::LEN);
        varint::put(out, (varint::len(self.grace) + ticket) as u64);
        varint::put(out, self.grace);
        if let Some((id, secret)) = &self.ticket {
            out.put_slice(&id.0);
            out.put_slice(secret.as_bytes());
        }
    }

    fn decode(mut value: &[u8]) -> Option<Self> {
        let grace = varint::get(&mut value)?;
        if value.is_empty() {
            return Some(Self { grace, ticket: None });
        }
        let (id, secret) = value.split_first_chunk()?;
        Some(Self { grace, ticket: Some((SessionId(*id), Secret::new(secret.try_into().ok()?))) })
    }
}

/// A parameter's id and its place in the struct.
type Field = (u64, fn(&mut Parameters) -> &mut u64);

const FIELDS: &[Field; 8] = &[
    (MAX_IDLE_TIMEOUT, |p| &mut p.max_idle_timeout),
    (INITIAL_MAX_DATA, |p| &mut p.initial_max_data),
    (INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, |p| &mut p.initial_max_stream_data_bidi_local),
    (INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, |p| &mut p.initial_max_stream_data_bidi_remote),
    (INITIAL_MAX_STREAM_DATA_UNI, |p| &mut p.initial_max_stream_data_uni),
    (INITIAL_MAX_STREAMS_BIDI, |p| &mut p.initial_max_streams_bidi),
    (INITIAL_MAX_STREAMS_UNI, |p| &mut p.initial_max_streams_uni),
    (MAX_RECORD_SIZE, |p| &mut p.max_record_size),
];

/// Whether RFC 9000 §18.2 defines `id` and draft-02 §5.1 does not permit it.
fn is_prohibited(id: u64) -> bool {
    matches!(id, 0x00 | 0x02 | 0x03 | 0x0a..=0x10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn encoded(parameters: &Parameters) -> Vec<u8> {
        let mut out = Vec::new();
        parameters.encode(&mut out);
        out
    }

    #[test]
    fn roundtrip_of_parameters() {
        let parameters = Parameters {
            max_idle_timeout: 15_000,
            initial_max_data: varint::MAX,
            initial_max_stream_data_bidi_local: 1,
            initial_max_stream_data_bidi_remote: 2,
            initial_max_stream_data_uni: 3,
            initial_max_streams_bidi: MAX_STREAMS,
            initial_max_streams_uni: 5,
            max_record_size: varint::MAX,
            resume: Some(ResumeParameter {
                grace: varint::MAX,
                ticket: Some((SessionId([7; 16]), Secret::new([9; 32]))),
            }),
        };
        assert!(encoded(&parameters).len() <= Parameters::MAX_ENCODED);
        assert_eq!(Parameters::decode(&encoded(&parameters)), Ok(parameters));
        let resumed = ResumeParameter { grace: 60_000, ticket: None };
        let resumed = Parameters { resume: Some(resumed), ..Parameters::default() };
        assert_eq!(Parameters::decode(&encoded(&resumed)), Ok(resumed));
        assert_eq!(Parameters::decode(&[]), Ok(Parameters::default()));
        assert_eq!(encoded(&Parameters::default()), []);
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (bytes, why) in [
            (&[0x04][..], "no length"),
            (&[0x04, 0x02, 0x01], "value cut short"),
            (&[0x04, 0x02, 0x01, 0x01], "value shorter than its length says"),
            (&[0x04, 0x00], "no value"),
            (&[0x04, 0x01, 0x07, 0x04, 0x01, 0x07], "twice"),
            (&[0x00, 0x00], "original_destination_connection_id"),
            (&[0x0a, 0x01, 0x03], "ack_delay_exponent"),
            (&[0x0e, 0x01, 0x02], "active_connection_id_limit"),
            (&[0x10, 0x00], "retry_source_connection_id"),
            (&[0x08, 0x08, 0xd0, 0, 0, 0, 0, 0, 0, 1], "2^60 + 1 streams"),
            (&[0xc5, 0x71, 0xc5, 0x94, 0x29, 0xcd, 0x08, 0x45, 2, 0x7f, 0xfd], "max_record_size 16381"),
            (&[0x80, 0x54, 0x4c, 0x52, 0x00], "resume without a grace period"),
            (&[0x80, 0x54, 0x4c, 0x52, 0x03, 0x05, 0x01, 0x02], "resume with a ticket that is cut short"),
            (&[0x80, 0x54, 0x4c, 0x52, 0x01, 0x05, 0x80, 0x54, 0x4c, 0x52, 0x01, 0x05], "resume twice"),
        ] {
            assert_eq!(Parameters::decode(bytes), Err(Violation::BadParameters), "{why}");
        }
    }

    #[test]
    fn extensions_are_ignored() {
        // max_datagram_frame_size (RFC 9221), and one that does not exist, twice.
        let bytes = [0x20, 0x02, 0x7f, 0xff, 0x7f, 0x00, 0x00, 0x7f, 0x00, 0x01, 0x55];
        assert_eq!(Parameters::decode(&bytes), Ok(Parameters::default()));
    }
}
