//! Slots of several types, and their release.

use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Failed, Queued, Running};

fn requesting(slots: &[(&str, i32)]) -> TaskDefinition {
    let slots = slots.iter().map(|(kind, units)| ((*kind).to_owned(), *units)).collect();
    TaskDefinition { slots, ..task() }
}

impl Bench {
    /// A worker with five default slots and two of the type `gpu`.
    fn gpu_worker(&mut self) -> Uuid {
        let slots = BTreeMap::from([("default".to_owned(), 5), ("gpu".to_owned(), 2)]);
        let worker = self.turn(|core, turn| core.register(turn, Registration { slots, ..registration(0) })).unwrap();
        let stream = self.stream();
        self.turn(|core, _| core.listen(worker, stream)).unwrap();
        self.heartbeat(worker);
        worker
    }

    fn free(&self, worker: Uuid) -> [i64; 2] {
        ["default", "gpu"].map(|kind| self.core.workers[&worker].free_slots(kind))
    }

    fn release(&mut self, task: Uuid) -> Result<(), StatusError> {
        self.turn(|core, turn| core.release_slot(turn, task))
    }
}

#[test]
fn a_task_takes_the_slots_that_it_requests() {
    for (quirks, slots, count, free) in [
        (Quirks::none(), requesting(&[("default", 2)]), 2, [1, 2]),
        (Quirks::none(), requesting(&[("gpu", 1)]), 2, [5, 0]),
        (Quirk::ExtraDefaultSlots.into(), requesting(&[("gpu", 1)]), 2, [3, 0]),
        (Quirks::none(), requesting(&[("gpu", 1), ("default", 3)]), 1, [2, 1]),
        (Quirks::none(), requesting(&[("gpu", 3)]), 0, [5, 2]),
        (Quirks::none(), requesting(&[("tpu", 1)]), 0, [5, 2]),
    ] {
        let mut bench = Bench::new(quirks);
        bench.put(slots.clone());
        let worker = bench.gpu_worker();
        let runs: Vec<_> = (0..4).map(|_| bench.trigger()).collect();
        let running: Vec<_> = runs.iter().filter(|run| bench.rest(**run) == Running).copied().collect();
        assert_eq!((running.len(), bench.free(worker)), (count, free), "{:?}", slots.slots);
        for run in running {
            bench.report(run, ReportKind::Completed, 0, "{}");
        }
        assert_eq!(bench.rest(runs[3]) == Running, count == 2);
    }
}

#[test]
fn a_task_that_requests_missing_slots_does_not_hold_up_others() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(requesting(&[("tpu", 1)]));
    bench.gpu_worker();
    let stuck = bench.trigger();
    bench.put(task());
    let other = bench.trigger();
    assert_eq!((bench.rest(stuck), bench.rest(other)), (Queued, Running));
}

#[test]
fn invalid_requests_are_rejected() {
    for (slots, problem) in [
        (requesting(&[("gpu", 0)]), "SlotRequests[gpu]': on condition 'gt' [ 0 ]: got invalid type\n"),
        (requesting(&[("default", -1)]), "SlotRequests[default]': on condition 'gt' [ 0 ]: got invalid type\n"),
        (requesting(&[("", 1)]), "SlotRequests[]': on condition 'required'\n"),
    ] {
        let error = Bench::new(Quirks::none()).put_all(vec![slots], None).unwrap_err().message;
        assert!(error.ends_with(&format!("Tasks[0].{problem}")), "{error}");
    }
}

#[test]
fn a_released_slot_is_free_or_as_a_quirk_not() {
    for quirks in [Quirks::none(), Quirk::UnreleasedSlots.into()] {
        let mut bench = Bench::new(quirks);
        let run = bench.started(task());
        bench.worker(1);
        let waiting = bench.trigger();
        bench.actions();
        bench.release(run).unwrap();
        let frees = quirks == Quirks::none();
        assert_eq!(bench.rest(waiting), if frees { Running } else { Queued });
        assert_eq!((bench.rest(run), bench.kinds(run).last().unwrap().0), (Running, "SLOT_RELEASED"));
        bench.release(run).unwrap();
        bench.actions();
        // Its worker is not notified of a cancellation.
        bench.turn(|core, turn| core.cancel(turn, &[run]));
        assert!(bench.actions().iter().all(|(_, action)| !action.cancel));
        assert_eq!((bench.rest(run), bench.rest(waiting)), (Cancelled, Running));
        let unknown = bench.release(run).unwrap_err();
        assert_eq!(unknown, StatusError::not_found(format!("task run not found: {run}")));
    }
}

#[test]
fn a_released_task_stays_with_a_lost_worker_until_its_timeout() {
    let mut bench = Bench::new(Quirks::none());
    let run = bench.started(task());
    bench.worker(1);
    bench.release(run).unwrap();
    bench.pass(seconds(40));
    assert_eq!((bench.rest(run), bench.task(run).retry_count), (Running, 0));
    let other = bench.trigger();
    bench.report(other, ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(other), Completed);
    bench.pass(seconds(21));
    assert_eq!(bench.rest(run), Failed);
}
