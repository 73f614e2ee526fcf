//! The memory of a future is part of the interface: a program that waits for a hundred thousand runs has as many of them.
//!
//! The bounds are the current sizes in bytes, on 64-bit targets. Lower them when a future becomes smaller. A future that becomes larger
//! needs a reason.

#![cfg(target_pointer_width = "64")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::mem::size_of_val;

use hatchet::embedded::Engine;
use hatchet::model::Window;
use hatchet::{Context, Task};

/// The futures, and the maximum of their sizes.
const MAX_SIZES: &[(&str, usize)] = &[
    ("run.start()", 16),
    ("run.outcome()", 272),
    ("run.result()", 280),
    ("start, then outcome", 280),
    ("start, then result", 288),
    ("run_many.start()", 1912),
    ("run_many.results()", 2128),
    ("outcome()", 192),
    ("result()", 200),
    ("details()", 16),
    ("watch().next()", 24),
    ("cancel().send()", 944),
    ("replay().send()", 2272),
    ("runs().page()", 32),
    ("worker.start()", 592),
    ("worker.shutdown()", 80),
    ("close()", 120),
];

#[tokio::test(start_paused = true)]
async fn futures_are_no_larger_than_their_bounds() {
    let engine = Engine::start().await.unwrap();
    let hatchet = engine.client();
    let task: Task<(), u32> = Task::new("task", async |(): (), _: Context| Ok(7));
    let build = || hatchet.worker("worker").register(&task).build().unwrap();
    let worker = build().start().await.unwrap();
    let run = hatchet.run(&task, &()).start().await.unwrap();
    let (mut watch, all) = (run.watch(), hatchet.runs(Window::all()));
    let then_outcome = async {
        let run = hatchet.run(&task, &()).start().await?;
        run.outcome().await
    };
    let then_result = async {
        let run = hatchet.run(&task, &()).start().await?;
        run.result().await
    };
    let sizes = [
        ("run.start()", size_of_val(&hatchet.run(&task, &()).start())),
        ("run.outcome()", size_of_val(&hatchet.run(&task, &()).outcome())),
        ("run.result()", size_of_val(&hatchet.run(&task, &()).result())),
        ("start, then outcome", size_of_val(&then_outcome)),
        ("start, then result", size_of_val(&then_result)),
        ("run_many.start()", size_of_val(&hatchet.run_many(&task, [()]).start())),
        ("run_many.results()", size_of_val(&hatchet.run_many(&task, [()]).results())),
        ("outcome()", size_of_val(&run.outcome())),
        ("result()", size_of_val(&run.result())),
        ("details()", size_of_val(&run.details().into_future())),
        ("watch().next()", size_of_val(&watch.next())),
        ("cancel().send()", size_of_val(&run.cancel().send())),
        ("replay().send()", size_of_val(&run.replay().send())),
        ("runs().page()", size_of_val(&all.page(1))),
        ("worker.start()", size_of_val(&build().start())),
        ("worker.shutdown()", size_of_val(&worker.shutdown())),
        ("close()", size_of_val(&hatchet.close())),
    ];
    assert_eq!(sizes.map(|(name, _)| name).as_slice(), MAX_SIZES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let larger: Vec<_> = sizes.iter().zip(MAX_SIZES).filter(|((_, size), (_, max))| size > max).collect();
    assert!(larger.is_empty(), "larger than their bounds:\n{larger:#?}");
    drop((then_outcome, then_result));
}
