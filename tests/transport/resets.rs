//! Calls that were read by the server and not answered.

use std::sync::atomic::Ordering::SeqCst;

use h2::Reason;
use hatchet::{Answer, ErrorKind};

use crate::servers::{Act, grpc_server, stage};

const REASONS: [Reason; 14] = [
    Reason::NO_ERROR,
    Reason::PROTOCOL_ERROR,
    Reason::INTERNAL_ERROR,
    Reason::FLOW_CONTROL_ERROR,
    Reason::SETTINGS_TIMEOUT,
    Reason::STREAM_CLOSED,
    Reason::FRAME_SIZE_ERROR,
    Reason::REFUSED_STREAM,
    Reason::CANCEL,
    Reason::COMPRESSION_ERROR,
    Reason::CONNECT_ERROR,
    Reason::ENHANCE_YOUR_CALM,
    Reason::INADEQUATE_SECURITY,
    Reason::HTTP_1_1_REQUIRED,
];

/// A trigger that the server has read, and then broken off in any way but one, is sent once and may have happened.
#[tokio::test]
async fn a_trigger_that_is_reset_is_sent_once_and_may_have_happened() {
    let stage = stage().await;
    let resets = REASONS.into_iter().filter(|reason| *reason != Reason::REFUSED_STREAM).map(Act::Reset);
    let late = REASONS.into_iter().map(Act::ResetAfterHeaders);
    let ends = [Act::Close, Act::EndWithoutStatus];
    for act in resets.chain(late).chain(REASONS.map(Act::GoAway)).chain(ends) {
        let (address, requests) = grpc_server(act.clone()).await;
        let error = stage.trigger(address).await;
        assert_eq!(requests.load(SeqCst), 1, "{act:?}: {error:?}");
        assert!(!error.never_reached_server(), "{act:?}: {error:?}");
        let seen = (error.kind(), error.is_transient(), error.answer());
        assert_eq!(seen, (ErrorKind::Unavailable, true, None), "{act:?}: {error:?}");
    }
}

/// `REFUSED_STREAM` says that nothing was done, so the trigger is sent again.
#[tokio::test]
async fn a_trigger_that_is_refused_unprocessed_is_sent_again() {
    let stage = stage().await;
    let rejected = Act::Status { code: 3, in_trailers: false, details: None };
    let (address, requests) = grpc_server(Act::RefuseBefore(2, Box::new(rejected))).await;
    let error = stage.trigger(address).await;
    assert_eq!((error.kind(), requests.load(SeqCst)), (ErrorKind::Rejected, 3), "{error:?}");
}

/// A status over the wire is an answer, wherever it is.
#[tokio::test]
async fn a_status_over_the_wire_is_the_servers_answer() {
    let stage = stage().await;
    for in_trailers in [false, true] {
        for (code, kind, unsent) in [
            (3, ErrorKind::Rejected, true),
            (7, ErrorKind::Unauthenticated, true),
            (13, ErrorKind::Server, false),
            (16, ErrorKind::Unauthenticated, true),
        ] {
            let (address, requests) = grpc_server(Act::Status { code, in_trailers, details: None }).await;
            let error = stage.trigger(address).await;
            assert_eq!((error.kind(), error.never_reached_server()), (kind, unsent), "{error:?}");
            assert_eq!(error.answer(), Some(Answer::Grpc(code.into())));
            assert!(error.to_string().ends_with("failed: as told"), "{error}");
            assert_eq!(requests.load(SeqCst), 1, "{error:?}");
        }
    }
}

/// Details that are no base64 would be a panic of tonic's.
#[tokio::test]
async fn details_that_cannot_be_read_are_left_out() {
    let stage = stage().await;
    for in_trailers in [false, true] {
        let act = Act::Status { code: 13, in_trailers, details: Some("%%%") };
        let error = stage.trigger(grpc_server(act).await.0).await;
        assert_eq!(error.answer(), Some(Answer::Grpc(13)), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_was_given() {
    let stage = stage().await;
    let (address, requests) = grpc_server(Act::Garbage).await;
    let error = stage.trigger(address).await;
    assert_eq!((error.kind(), error.never_reached_server()), (ErrorKind::Decode, false), "{error:?}");
    assert_eq!(requests.load(SeqCst), 1);
}
