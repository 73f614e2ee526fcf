//! Lists: far pages, all pages, a page with its total, and a query.

use std::hint::black_box;
use std::time::Duration;

use futures_util::future::join;
use hatchet::model::{Total, Window};
use hatchet::{RunFilter, RunStatus};
use stats_alloc::{Region, Stats};
use tokio::time::Instant;

use crate::interleaved::median;
use crate::pairs::{Pairs, count, micros, timed};
use crate::setup::Setup;
use crate::{ALLOCATOR, Sizes};

/// The page size of the SDK's streams.
const STEP: usize = 200;
const PAGE: usize = 50;
/// The maximum time of the first page.
const GOAL: Duration = Duration::from_millis(100);

/// The times of listing all runs: of the first page, of the last page, and in total.
struct Traversal {
    first: Duration,
    last: Duration,
    all: Duration,
}

/// Lists `rows` rows by key, as the SDK does.
async fn by_key(setup: &Setup, rows: usize) -> Traversal {
    let mut items = setup.client.runs(Window::all()).items();
    let (start, mut page) = (Instant::now(), Instant::now());
    let mut pages = Vec::new();
    for row in 1..=rows {
        black_box(items.next().await.unwrap().unwrap());
        if row % STEP == 0 {
            pages.push(page.elapsed());
            page = Instant::now();
        }
    }
    Traversal { first: pages[0], last: pages[pages.len() - 1], all: start.elapsed() }
}

/// Lists rows by offset, without decoding them.
async fn by_offset(setup: &Setup, rows: usize) -> Traversal {
    let start = Instant::now();
    let mut pages = Vec::new();
    for offset in (0..rows).step_by(STEP) {
        let page = Instant::now();
        black_box(setup.list(&format!("&limit={STEP}&offset={offset}")).await);
        pages.push(page.elapsed());
    }
    Traversal { first: pages[0], last: pages[pages.len() - 1], all: start.elapsed() }
}

/// Times both sides in turn, after one traversal of each as a warm-up.
async fn traversals(setup: &Setup, sizes: Sizes) -> (Vec<Traversal>, Vec<Traversal>) {
    let (mut keys, mut offsets) = (Vec::new(), Vec::new());
    for _ in 0..=sizes.rounds {
        keys.push(by_key(setup, sizes.listed).await);
        offsets.push(by_offset(setup, sizes.listed).await);
    }
    (keys.split_off(1), offsets.split_off(1))
}

/// Prints the header of the table of first and last pages.
pub(crate) fn far_head() {
    println!("\n{:<52} {:>10} {:>10} {:>7}", format!("µs for a page of {STEP}"), "first", "last", "ratio");
}

fn print_far(what: &str, listed: usize, traversals: &[Traversal]) {
    let of = |time: fn(&Traversal) -> Duration| median(traversals.iter().map(|traversal| micros(time(traversal))));
    let ratio = median(traversals.iter().map(|traversal| micros(traversal.last) / micros(traversal.first)));
    let what = format!("{what}, rows 0 and {}", listed - PAGE);
    println!(
        "{what:<52} {:>10.0} {:>10.0} {ratio:>7.2}",
        of(|traversal| traversal.first),
        of(|traversal| traversal.last)
    );
}

/// Compares the first with the last page, with `runs` runs in the engine.
pub(crate) async fn far(setup: &Setup, sizes: Sizes, runs: usize) -> Pairs {
    let (keys, offsets) = traversals(setup, sizes).await;
    print_far(&format!("SDK by key, of {runs}"), sizes.listed, &keys);
    print_far(&format!("raw by offset, of {runs}"), sizes.listed, &offsets);
    Pairs::of(offsets.iter().zip(&keys).map(|(raw, sdk)| (raw.all, sdk.all)))
}

/// The allocations of a traversal on both sides, including the engine, and the difference.
pub(crate) async fn allocations(setup: &Setup, sizes: Sizes) {
    let region = Region::new(ALLOCATOR);
    by_offset(setup, sizes.listed).await;
    let raw = region.change();
    let region = Region::new(ALLOCATOR);
    by_key(setup, sizes.listed).await;
    let sdk = region.change();
    let print = |what: &str, of: fn(&Stats) -> usize| {
        let (raw, sdk) = (count(of(&raw)) / count(sizes.listed), count(of(&sdk)) / count(sizes.listed));
        println!("{what:<52} {raw:>10.1} {sdk:>10.1} {:>7.2}   difference {:.1}", sdk / raw, sdk - raw);
    };
    print("allocations for each listed run", |stats| stats.allocations);
    print("reallocations for each listed run", |stats| stats.reallocations);
    print("bytes allocated for each listed run", |stats| stats.bytes_allocated);
}

/// The first page of 50 rows, with its total.
pub(crate) async fn page(setup: &Setup, sizes: Sizes) {
    let pairs = Pairs::measure(
        sizes.rounds,
        async || timed(10, async || raw_page(setup, "").await).await,
        async || {
            timed(10, async || {
                let page = setup.client.runs(Window::all()).page(PAGE).await.unwrap();
                assert_eq!(page.items.len(), PAGE);
                assert!(matches!(page.total, Total::AtLeast(20_000) | Total::Exactly(_)), "{}", page.total);
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("page of {PAGE} with its total, of {}", sizes.many), 10);
}

async fn raw_page(setup: &Setup, filter: &str) {
    let (rows, total) = (format!("{filter}&limit={PAGE}&offset=0"), format!("{filter}&limit=1&offset=0"));
    let (rows, total) = join(setup.list(&rows), setup.list(&total)).await;
    assert!(black_box(rows).len() > black_box(total).len());
}

/// A query by workflow, status and tag.
pub(crate) async fn query(setup: &Setup, sizes: Sizes) {
    let filter =
        RunFilter::new(Window::all()).workflow("noop").status(RunStatus::Completed).metadata("customer", "acme");
    let query = setup.client.runs(filter);
    let workflow = query.page(1).await.unwrap().items[0].workflow_id;
    let parameters = format!("&workflow_ids={workflow}&statuses=COMPLETED&additional_metadata=customer%3Aacme");
    let pairs = Pairs::measure(
        sizes.rounds,
        async || timed(1, async || raw_page(setup, &parameters).await).await,
        async || {
            timed(1, async || {
                let page = query.page(PAGE).await.unwrap();
                assert_eq!((page.items.len(), page.total), (PAGE, Total::Exactly(sizes.listed as u64 / 10)));
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("page of {PAGE} by workflow, status, tag, of {}", sizes.listed), 1);
    let max = pairs.max_sdk();
    println!("  maximum {max:.1?}: {}", if max < GOAL { "under 100 ms" } else { "NOT under 100 ms" });
}
