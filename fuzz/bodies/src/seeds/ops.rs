//! Operations on two sessions, as `towline_model::Op` reads them.

use towline_model::op::kind::{
    ACCEPT, CUT, DELIVER, FINISH, OPEN, PING, RARE, READ, RECONNECT, RELEASE, RESET, RESET_WHEN_SENT, STOP,
    TRANSMIT, URGENCY, WAIT, WRITE,
};

use super::Seeds;

/// One operation in five bytes. `place`: 1 the server does it, 2 on a unidirectional stream.
const fn op(kind: u8, place: u8, stream: u8, amount: u16) -> [u8; 5] {
    let [high, low] = amount.to_be_bytes();
    [kind, place, stream, high, low]
}

const SERVER: u8 = 1;
const UNI: u8 = 2;

const CARRY: [[u8; 5]; 4] = [
    op(TRANSMIT, 0, 0, 1999),
    op(DELIVER, 0, 0, 1999),
    op(TRANSMIT, SERVER, 0, 1999),
    op(DELIVER, SERVER, 0, 1999),
];

fn ask() -> Vec<[u8; 5]> {
    let mut ops = vec![op(OPEN, 0, 0, 0), op(WRITE, 0, 0, 500)];
    ops.extend(CARRY);
    ops.extend([op(ACCEPT, SERVER, 0, 0), op(READ, SERVER, 0, 599), op(WRITE, SERVER, 0, 400)]);
    ops.extend([op(FINISH, 0, 0, 0), op(FINISH, SERVER, 0, 0)]);
    ops.extend(CARRY);
    ops.extend([op(READ, 0, 0, 599), op(READ, 0, 0, 599), op(RELEASE, 0, 0, 0)]);
    ops
}

fn both_ways() -> Vec<[u8; 5]> {
    let mut ops = Vec::new();
    for place in [0, SERVER, UNI, UNI | SERVER] {
        ops.extend([op(OPEN, place, 0, 0), op(WRITE, place & 1, 0, 599), op(WRITE, place & 1, 1, 599)]);
    }
    for _ in 0..3 {
        ops.extend(CARRY);
        for place in [0, SERVER, UNI, UNI | SERVER] {
            ops.extend([op(ACCEPT, place, 0, 0), op(READ, place & 1, 2, 300), op(READ, place & 1, 3, 300)]);
        }
    }
    ops
}

fn resets() -> Vec<[u8; 5]> {
    let mut ops = vec![op(OPEN, 0, 0, 0), op(OPEN, UNI, 0, 0), op(OPEN, 0, 0, 0)];
    ops.extend((0..3).map(|stream| op(WRITE, 0, stream, 200)));
    ops.extend(CARRY);
    ops.extend([op(ACCEPT, SERVER, 0, 0), op(ACCEPT, SERVER, 0, 0), op(STOP, SERVER, 1, 7)]);
    ops.extend([op(RESET, 0, 0, 5), op(RESET_WHEN_SENT, 0, 1, 6), op(RESET, SERVER, 0, 8)]);
    ops.extend(CARRY);
    ops.extend([op(READ, SERVER, 0, 99), op(RELEASE, SERVER, 0, 0), op(RELEASE, 0, 0, 0)]);
    ops
}

fn hops() -> Vec<[u8; 5]> {
    let mut ops = both_ways();
    for place in [0, 4, 8, 12] {
        ops.extend([
            op(WRITE, 0, 0, 300),
            op(TRANSMIT, 0, 0, 300),
            op(DELIVER, 0, 0, 100),
            op(CUT, place, 0, 0),
        ]);
        ops.extend([op(WRITE, SERVER, 0, 300), op(RECONNECT, 0, 0, 0)]);
        ops.extend(CARRY);
        ops.extend([op(FINISH, 0, 1, 0), op(READ, SERVER, 1, 500)]);
    }
    ops
}

fn urgent() -> Vec<[u8; 5]> {
    let mut ops = vec![op(OPEN, 0, 0, 0), op(OPEN, 0, 0, 0), op(OPEN, UNI, 0, 0)];
    ops.extend([op(URGENCY, 0, 0, 2), op(URGENCY, 0, 1, 0), op(PING, 0, 0, 0), op(WAIT, 0, 0, 25)]);
    ops.extend((0..3).map(|stream| op(WRITE, 0, stream, 599)));
    ops.extend(CARRY);
    ops
}

fn drains() -> Vec<[u8; 5]> {
    let mut ops = ask();
    ops.extend([op(OPEN, 0, 0, 0), op(WRITE, 0, 0, 50), op(RARE, SERVER, 0, 1)]);
    ops.extend(CARRY);
    ops.extend([op(OPEN, 0, 0, 0), op(CUT, 0, 0, 0), op(RECONNECT, 0, 0, 0)]);
    ops.extend(CARRY);
    ops
}

type Story = fn() -> Vec<[u8; 5]>;

/// Each story bare and resumable, under limits that suit and under one that does not.
pub(crate) fn seeds() -> Seeds {
    let stories: [(&str, Story); 6] = [
        ("ask", ask),
        ("both-ways", both_ways),
        ("resets", resets),
        ("hops", hops),
        ("urgent", urgent),
        ("drains", drains),
    ];
    let mut seeds = Seeds::new();
    for (n, (name, ops)) in (0u8..).zip(stories) {
        for (kind, bit) in [("bare", 0), ("resumable", 1)] {
            for (limits, choice) in [("small", 0), ("odd", 0b0101_0110 ^ n)] {
                let mut input = vec![choice << 1 | bit];
                input.extend(ops().concat());
                seeds.insert(format!("{name}-{kind}-{limits}"), input);
            }
        }
    }
    seeds
}
