//! When a session asks for another pipe, what becomes of it, and what whoever brings pipes is told.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/bridge.rs"]
mod bridge;
mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bridge::{Across, Passes, across, quiet, says};
use towline_transports::{LinkClosed, ReadError};

/// As when a hub goes while the sessions move away from it.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_is_lost_while_the_next_one_is_opened_is_not_replaced_twice() {
    let Across { network, gate, told, service, device } = across(0).await;
    says(&service, &device).await;
    service.renew();
    quiet().await;
    assert_eq!(told.counts(), [1, 1]);
    network.cut();
    quiet().await;
    // Whoever asks for another pipe gets it at once.
    gate.add_permits(10);
    says(&service, &device).await;
    quiet().await;
    assert_eq!(told.counts(), [1, 2]);
    assert_eq!(network.pipes(), 2);
    // And one that is lost after that is replaced as ever.
    network.cut();
    says(&service, &device).await;
    assert_eq!((told.counts(), network.pipes()), ([2, 3], 3));
}

#[tokio::test(start_paused = true)]
async fn a_session_for_which_there_is_no_way_ends_at_once_and_says_why() {
    let Across { network, gate, service, device, .. } = across(0).await;
    let (mut send, mut recv) = service.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let _there = device.accept_bi().await.unwrap();
    gate.close();
    network.cut();
    let why = service.closed().await;
    assert!(matches!(&why, LinkClosed::NoWay(_)), "{why}");
    assert_eq!(why.to_string(), "there is no way to go on: the bridge is gone");
    let read = recv.read_chunk(1).await;
    assert!(matches!(&read, Err(ReadError::Closed(LinkClosed::NoWay(_)))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_a_pipe_does_not_mind_that_there_is_no_other() {
    let Across { network, gate, told, service, device } = across(0).await;
    says(&service, &device).await;
    gate.close();
    service.renew();
    quiet().await;
    assert_eq!(told.counts(), [1, 1], "it was asked");
    says(&service, &device).await;
    // Until that one is lost as well.
    network.cut();
    assert!(matches!(service.closed().await, LinkClosed::NoWay(_)));
}

/// A pipe that nothing comes out of is given up after 15 s. Somebody who waits for an answer has it through another one
/// before two have passed.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_is_silent_is_left_long_before_it_is_given_up() {
    let Across { network, told, service, device, .. } = across(10).await;
    says(&service, &device).await;
    let _never = network.silence();
    let start = tokio::time::Instant::now();
    says(&service, &device).await;
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert_eq!((told.counts(), network.pipes()), ([1, 2], 2));
}

/// The pipe takes no more, something still comes out of it, and then nothing: this end has not spoken last, and never can.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_takes_nothing_and_gives_nothing_is_left_as_well() {
    let Across { network, told, service, device, .. } = across(10).await;
    says(&service, &device).await;
    let passes = network.passes();
    Passes::close(&passes.up);
    let (mut send, _recv) = service.open_bi().await.unwrap();
    send.write_all(&[1; 60 << 10]).await.unwrap();
    quiet().await;
    let (mut word, _answer) = device.open_bi().await.unwrap();
    word.write_all(b"fine").await.unwrap();
    let _heard = service.accept_bi().await.unwrap();
    Passes::close(&passes.down);
    let start = tokio::time::Instant::now();
    let (_answer, mut bulk) = device.accept_bi().await.unwrap();
    assert_eq!(bulk.read_chunk(1).await.unwrap().unwrap(), [1][..]);
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert_eq!((told.counts(), network.pipes()), ([1, 2], 2));
}

/// The question is acknowledged, and the answer lost with the pipe: this end has nothing more to say.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_does_not_wait_for_the_keep_alive() {
    let Across { network, told, service, device, .. } = across(10).await;
    let (mut send, mut recv) = service.open_bi().await.unwrap();
    send.write_all(b"question").await.unwrap();
    let (mut answer, _question) = device.accept_bi().await.unwrap();
    quiet().await;
    network.silence();
    let start = tokio::time::Instant::now();
    answer.write_all(b"answer").await.unwrap();
    assert_eq!(recv.read_chunk(10).await.unwrap().unwrap(), "answer");
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert_eq!((told.counts(), network.pipes()), ([1, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn a_session_at_rest_has_no_doubt() {
    let Across { network, told, service, device, .. } = across(10).await;
    let (mut send, _recv) = service.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let _there = device.accept_bi().await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((told.counts(), network.pipes()), ([0, 1], 1));
}

/// While another pipe is looked for, something comes out of the old one after all.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_is_dispelled_leads_to_no_other_pipe() {
    let Across { network, gate, told, service, device } = across(0).await;
    says(&service, &device).await;
    let passes = network.silence();
    let word = tokio::spawn({
        let (service, device) = (service.clone(), device.clone());
        async move { says(&service, &device).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(told.counts(), [1, 1], "it is asked for another one");
    passes.up.add_permits(1);
    passes.down.add_permits(1);
    word.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.add_permits(1);
    says(&service, &device).await;
    assert_eq!(network.pipes(), 1);
    assert_eq!(told.counts(), [1, 1]);
    assert_eq!(told.needless.load(Ordering::Relaxed), 1, "it is told that there is no need any more");
}
