//! Lists: how far a page is, a walk to the end, a page with its total, a query.

use std::hint::black_box;
use std::time::Duration;

use futures_util::future::join;
use hatchet::model::{Total, Window};
use hatchet::{RunFilter, RunStatus};
use stats_alloc::{Region, Stats};
use tokio::time::Instant;

use crate::bed::Bed;
use crate::interleaved::median;
use crate::pairs::{Pairs, count, micros, timed};
use crate::{ALLOCATOR, Sizes};

/// Rows that a walk of the SDK's asks for at once.
const STEP: usize = 200;
const PAGE: usize = 50;
/// The page that is shown first must be here by then.
const GOAL: Duration = Duration::from_millis(100);

/// The times of a walk: of its first and of its last page, and of all of it.
struct Walk {
    first: Duration,
    last: Duration,
    all: Duration,
}

/// Walks through so many rows by key, as users do.
async fn by_key(bed: &Bed, rows: usize) -> Walk {
    let mut items = bed.client.runs(Window::all()).items();
    let (start, mut page) = (Instant::now(), Instant::now());
    let mut pages = Vec::new();
    for row in 1..=rows {
        black_box(items.next().await.unwrap().unwrap());
        if row % STEP == 0 {
            pages.push(page.elapsed());
            page = Instant::now();
        }
    }
    Walk { first: pages[0], last: pages[pages.len() - 1], all: start.elapsed() }
}

/// The same by REST's offset, and nothing decoded.
async fn by_offset(bed: &Bed, rows: usize) -> Walk {
    let start = Instant::now();
    let mut pages = Vec::new();
    for offset in (0..rows).step_by(STEP) {
        let page = Instant::now();
        black_box(bed.list(&format!("&limit={STEP}&offset={offset}")).await);
        pages.push(page.elapsed());
    }
    Walk { first: pages[0], last: pages[pages.len() - 1], all: start.elapsed() }
}

/// Walks of both sides, in turn, through as many runs as the list has; a first one of each does not count.
async fn walks(bed: &Bed, sizes: Sizes) -> (Vec<Walk>, Vec<Walk>) {
    let (mut keys, mut offsets) = (Vec::new(), Vec::new());
    for _ in 0..=sizes.rounds {
        keys.push(by_key(bed, sizes.listed).await);
        offsets.push(by_offset(bed, sizes.listed).await);
    }
    (keys.split_off(1), offsets.split_off(1))
}

/// What the first page costs and what the last one does, in a list with so many runs.
pub(crate) fn far_head() {
    println!("\n{:<52} {:>10} {:>10} {:>7}", format!("µs for a page of {STEP}"), "first", "last", "ratio");
}

fn print_far(what: &str, listed: usize, walks: &[Walk]) {
    let of = |time: fn(&Walk) -> Duration| median(walks.iter().map(|walk| micros(time(walk))));
    let ratio = median(walks.iter().map(|walk| micros(walk.last) / micros(walk.first)));
    let what = format!("{what}, rows 0 and {}", listed - PAGE);
    println!("{what:<52} {:>10.0} {:>10.0} {ratio:>7.2}", of(|walk| walk.first), of(|walk| walk.last));
}

/// How far a page is, and what it costs, where so many runs are in the engine.
pub(crate) async fn far(bed: &Bed, sizes: Sizes, runs: usize) -> Pairs {
    let (keys, offsets) = walks(bed, sizes).await;
    print_far(&format!("SDK by key, of {runs}"), sizes.listed, &keys);
    print_far(&format!("raw by offset, of {runs}"), sizes.listed, &offsets);
    Pairs::of(offsets.iter().zip(&keys).map(|(raw, sdk)| (raw.all, sdk.all)))
}

/// What a walk takes from the allocator: on both sides of the wire, and what is the SDK's of it.
pub(crate) async fn allocations(bed: &Bed, sizes: Sizes) {
    let region = Region::new(ALLOCATOR);
    by_offset(bed, sizes.listed).await;
    let raw = region.change();
    let region = Region::new(ALLOCATOR);
    by_key(bed, sizes.listed).await;
    let sdk = region.change();
    let print = |what: &str, of: fn(&Stats) -> usize| {
        let (raw, sdk) = (count(of(&raw)) / count(sizes.listed), count(of(&sdk)) / count(sizes.listed));
        println!("{what:<52} {raw:>10.1} {sdk:>10.1} {:>7.2}   SDK's own {:.1}", sdk / raw, sdk - raw);
    };
    print("allocations for each listed run", |stats| stats.allocations);
    print("reallocations for each listed run", |stats| stats.reallocations);
    print("bytes allocated for each listed run", |stats| stats.bytes_allocated);
}

/// The page of 50 that is shown first, with its total.
pub(crate) async fn page(bed: &Bed, sizes: Sizes) {
    let pairs = Pairs::measure(
        sizes.rounds,
        async || timed(10, async || raw_page(bed, "").await).await,
        async || {
            timed(10, async || {
                let page = bed.client.runs(Window::all()).page(PAGE).await.unwrap();
                assert_eq!(page.items.len(), PAGE);
                assert!(matches!(page.total, Total::AtLeast(20_000) | Total::Exactly(_)), "{}", page.total);
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("page of {PAGE} with its total, of {}", sizes.many), 10);
}

async fn raw_page(bed: &Bed, filter: &str) {
    let (rows, total) = (format!("{filter}&limit={PAGE}&offset=0"), format!("{filter}&limit=1&offset=0"));
    let (rows, total) = join(bed.list(&rows), bed.list(&total)).await;
    assert!(black_box(rows).len() > black_box(total).len());
}

/// A question by workflow, state and tag.
pub(crate) async fn query(bed: &Bed, sizes: Sizes) {
    let filter =
        RunFilter::new(Window::all()).workflow("noop").status(RunStatus::Completed).metadata("customer", "acme");
    let query = bed.client.runs(filter);
    let workflow = query.page(1).await.unwrap().items[0].workflow_id;
    let asked = format!("&workflow_ids={workflow}&statuses=COMPLETED&additional_metadata=customer%3Aacme");
    let pairs = Pairs::measure(
        sizes.rounds,
        async || timed(1, async || raw_page(bed, &asked).await).await,
        async || {
            timed(1, async || {
                let page = query.page(PAGE).await.unwrap();
                assert_eq!((page.items.len(), page.total), (PAGE, Total::Exactly(sizes.listed as u64 / 10)));
            })
            .await
        },
    )
    .await;
    pairs.print(&format!("page of {PAGE} by workflow, state, tag, of {}", sizes.listed), 1);
    let slowest = pairs.slowest();
    println!("  the slowest took {slowest:.1?}: {}", if slowest < GOAL { "under 100 ms" } else { "NOT under 100 ms" });
}
