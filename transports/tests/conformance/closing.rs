//! How links end, and what ends them.

use super::*;

pub(super) async fn a_close_is_heard_with_code_and_reason(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let ((mut send, mut recv), _theirs) = stream(service, device).await;
    device.close(Code::from(9), "enough");
    device.close(Code::from(10), "too late");
    let heard = |closed: &LinkClosed| matches!(closed, LinkClosed::Peer { code, reason } if *code == Code::from(9) && reason == "enough");
    assert!(heard(&service.closed().await));
    assert!(matches!(device.closed().await, LinkClosed::Local(code) if code == Code::from(9)));
    assert!(service.is_closed() && device.is_closed());
    assert!(matches!(send.write_all(b"x").await, Err(WriteError::Closed(closed)) if heard(&closed)));
    assert!(matches!(recv.read_chunk(1).await, Err(ReadError::Closed(closed)) if heard(&closed)));
    assert!(matches!(send.stopped().await, Err(closed) if heard(&closed)));
    assert!(matches!(service.open_bi().await, Err(closed) if heard(&closed)));
    assert!(matches!(service.open_uni().await, Err(closed) if heard(&closed)));
    assert!(matches!(service.accept_bi().await, Err(closed) if heard(&closed)));
    assert!(matches!(service.accept_uni().await, Err(closed) if heard(&closed)));
    service.close(Code::from(11), "later still");
    assert!(heard(&service.closed().await), "what was said stays");
}

pub(super) async fn the_one_that_connected_may_close_as_well(ends: Ends) {
    ends.service.close(Code::new((1 << 62) - 1).unwrap(), "a large number, and \u{e9}\n");
    let closed = ends.device.closed().await;
    let LinkClosed::Peer { code, reason } = closed else { panic!("{closed}") };
    assert_eq!(code.value(), (1 << 62) - 1);
    assert_eq!(reason, "a large number, and \\xc3\\xa9\\n");
}

pub(super) async fn a_closing_link_takes_nothing_new(ends: Ends) {
    let ((mut send, _recv), _theirs) = stream(&ends.service, &ends.device).await;
    ends.service.close(Code::from(3), "");
    assert!(matches!(send.write_all(b"more").await, Err(WriteError::Closed(LinkClosed::Local(_)))));
    assert!(matches!(ends.service.open_bi().await, Err(LinkClosed::Local(_))));
}

/// Of streams that were finished, and of those that were not, whatever becomes of their handles.
pub(super) async fn what_was_accepted_before_a_close_arrives(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let ((mut send, _recv), (_answer, mut question)) = stream(service, device).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(stream(service, device).await);
    }
    send.write_all(&pattern(60_000)).await.unwrap();
    send.finish().unwrap();
    for ((send, _), _) in &mut open {
        send.write_all(&pattern(50_000)).await.unwrap();
    }
    service.close(Code::from(3), "bye");
    let mut left = Vec::new();
    for (number, ((mut send, recv), theirs)) in open.into_iter().enumerate() {
        left.push(theirs);
        match number {
            0 => assert!(matches!(send.finish(), Err(WriteError::Closed(LinkClosed::Local(_))))),
            1 => send.reset(Code::from(5)),
            2 => send.reset_when_sent(Code::from(5)),
            _ => {}
        }
        drop((send, recv));
    }
    assert!(matches!(service.closed().await, LinkClosed::Local(_)));
    assert!(matches!(device.closed().await, LinkClosed::Peer { .. }));
    assert!(question.read_to_end(1 << 20).await.unwrap() == pattern(60_000));
    for (_answer, mut question) in left {
        let (all, error) = read_to_break(&mut question).await;
        assert!(all == pattern(50_000), "{} bytes", all.len());
        assert!(matches!(error, ReadError::Closed(LinkClosed::Peer { code, .. }) if code == Code::from(3)));
    }
}

pub(super) async fn the_last_handle_closes_the_link_and_what_was_written_arrives(ends: Ends) {
    let Ends { service, device, _rest } = ends;
    let ((mut send, recv), (_answer, mut question)) = stream(&service, &device).await;
    let mut other = service.open_uni().await.unwrap();
    other.write_all(b"never mind").await.unwrap();
    let mut reset = device.accept_uni().await.unwrap();
    send.write_all(&pattern(50_000)).await.unwrap();
    send.finish().unwrap();
    other.reset(Code::from(5));
    drop((service, recv, other));
    drop(send);
    assert!(question.read_to_end(1 << 20).await.unwrap() == pattern(50_000));
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::default()));
    let (_, error) = read_to_break(&mut reset).await;
    assert!(matches!(error, ReadError::Reset(code) if code == Code::from(5)), "{error}");
}

pub(super) async fn a_weak_handle_does_not_keep_the_link_open_and_streams_do(ends: Ends) {
    let Ends { service, device, _rest } = ends;
    let (mut ours, mut theirs) = stream(&service, &device).await;
    let weak = service.downgrade();
    drop(service);
    round_trips(5, &mut ours, &mut theirs).await;
    assert!(!device.is_closed());
    drop(ours);
    assert!(matches!(weak.closed().await, LinkClosed::Local(code) if code == Code::default()));
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::default()));
}

pub(super) async fn a_weak_handle_can_close(ends: Ends) {
    ends.service.downgrade().close(Code::from(3), "enough");
    assert!(matches!(ends.service.closed().await, LinkClosed::Local(code) if code == Code::from(3)));
    assert!(matches!(ends.device.closed().await, LinkClosed::Peer { code, .. } if code == Code::from(3)));
}
