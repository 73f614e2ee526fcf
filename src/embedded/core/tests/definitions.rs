//! Definitions and their versions.

use super::*;
use crate::embedded::quirks::Quirk;

#[test]
fn a_version_is_used_for_five_seconds_as_a_quirk() {
    for (quirks, old_for) in [(Quirks::none(), 0), (Quirks::none().with(Quirk::StaleVersions), 5)] {
        let mut bench = Bench::new(quirks);
        bench.put(task());
        let first = bench.trigger();
        bench.pass(seconds(1));
        bench.put(TaskDefinition { retries: 1, ..task() });
        let old = bench.run(first).version.id;
        let mut is_old = |at: u64| {
            let id = bench.trigger();
            assert_eq!(bench.run(id).version.id == old, at < old_for, "{at} s after the first");
            bench.pass(seconds(1));
        };
        (1..8).for_each(&mut is_old);
    }
}
