//! Calls that the server has read, but to which it has not responded.

use std::sync::atomic::Ordering::SeqCst;

use h2::Reason;
use hatchet::ErrorKind;

use crate::servers::{Action, grpc_server, setup};

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

/// A trigger that the server has read and interrupted is not retried, and may have been processed, except after `REFUSED_STREAM`.
#[tokio::test]
async fn triggers_are_not_retried_after_a_reset() {
    let setup = setup().await;
    let resets = REASONS.into_iter().filter(|reason| *reason != Reason::REFUSED_STREAM).map(Action::Reset);
    let late = REASONS.into_iter().map(Action::ResetAfterHeaders);
    let ends = [Action::Close, Action::EndWithoutStatus];
    for action in resets.chain(late).chain(REASONS.map(Action::GoAway)).chain(ends) {
        let (address, requests) = grpc_server(action.clone()).await;
        let error = setup.trigger(address).await;
        assert_eq!(requests.load(SeqCst), 1, "{action:?}: {error:?}");
        assert!(!error.has_no_side_effects(), "{action:?}: {error:?}");
        let properties = (error.kind(), error.is_transient(), error.grpc_code());
        assert_eq!(properties, (ErrorKind::Unavailable, true, None), "{action:?}: {error:?}");
    }
}

/// `REFUSED_STREAM` means that the call was not processed, so the trigger is retried.
#[tokio::test]
async fn triggers_are_retried_after_refused_stream() {
    let setup = setup().await;
    let rejected = Action::Status { code: 3, in_trailers: false, details: None };
    let (address, requests) = grpc_server(Action::RefuseBefore(2, Box::new(rejected))).await;
    let error = setup.trigger(address).await;
    assert_eq!((error.kind(), requests.load(SeqCst)), (ErrorKind::Rejected, 3), "{error:?}");
}

/// A status over the wire is a response, in headers or in trailers.
#[tokio::test]
async fn received_statuses_are_responses() {
    let setup = setup().await;
    for in_trailers in [false, true] {
        for (code, kind, unsent) in [
            (3, ErrorKind::Rejected, true),
            (7, ErrorKind::Unauthenticated, true),
            (13, ErrorKind::Server, false),
            (16, ErrorKind::Unauthenticated, true),
        ] {
            let (address, requests) = grpc_server(Action::Status { code, in_trailers, details: None }).await;
            let error = setup.trigger(address).await;
            assert_eq!((error.kind(), error.has_no_side_effects()), (kind, unsent), "{error:?}");
            assert_eq!(error.grpc_code(), Some(code.into()));
            assert!(error.to_string().ends_with("failed: scripted"), "{error}");
            assert_eq!(requests.load(SeqCst), 1, "{error:?}");
        }
    }
}

/// tonic panics if the details are not base64.
#[tokio::test]
async fn invalid_status_details_are_dropped() {
    let setup = setup().await;
    for in_trailers in [false, true] {
        let action = Action::Status { code: 13, in_trailers, details: Some("%%%") };
        let error = setup.trigger(grpc_server(action).await.0).await;
        assert_eq!(error.grpc_code(), Some(13), "{error:?}");
    }
}

#[tokio::test]
async fn undecodable_responses_count_as_processed() {
    let setup = setup().await;
    let (address, requests) = grpc_server(Action::Garbage).await;
    let error = setup.trigger(address).await;
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Decode, false), "{error:?}");
    assert_eq!(requests.load(SeqCst), 1);
}
