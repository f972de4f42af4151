//! The queue's bound; the rest is tested through the crate's door, in `tests/promises`.

use bytes::Bytes;
use futures::FutureExt;
use tandem_manifest::Intent;
use tandem_types::Seq;
use tokio::sync::oneshot;

use crate::queue::{Admission, Request, SectionBody};

fn request(bytes: usize) -> Request {
    let (reply, _) = oneshot::channel();
    let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: Seq(0), steps: Vec::new() };
    let bodies = vec![SectionBody { chunks: vec![Bytes::from(vec![0; bytes])], rows: None }];
    Request { intent, bodies, minted: true, handed: None, reply }
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_and_freed_when_it_is_done() {
    let (admission, mut requests) = Admission::new(40_000);
    for _ in 0..2 {
        admission.send(request(10_000)).await.unwrap();
    }
    let mut third = Box::pin(admission.send(request(20_000)));
    assert!((&mut third).now_or_never().is_none(), "28 of 40 kB are taken");
    let first = requests.recv().await.unwrap();
    assert!((&mut third).now_or_never().is_none(), "taken from the queue, not done");
    drop(first);
    third.await.unwrap();

    // Larger than the whole queue: it goes alone, rather than never.
    requests.try_recv().unwrap();
    requests.try_recv().unwrap();
    admission.send(request(1_000_000)).await.unwrap();
    assert!(admission.send(request(0)).now_or_never().is_none());
    drop(requests);
    assert!(!admission.is_open());
}

#[tokio::test]
async fn who_waits_for_room_hears_of_the_end() {
    let (admission, requests) = Admission::new(10_000);
    admission.send(request(6_000)).await.unwrap();
    let mut waiting = Box::pin(admission.send(request(6_000)));
    assert!((&mut waiting).now_or_never().is_none());
    drop(requests);
    assert!(waiting.await.is_err());
}
