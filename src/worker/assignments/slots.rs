//! The slots of a worker, by type. The engine counts them, too, but frees those of an attempt that it has ended before the function ends.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of slots of tasks that request no other.
pub(in super::super) const DEFAULT_SLOT_TYPE: &str = "default";

/// The slots that an attempt occupies: the place of each type, and the number.
#[derive(Debug, Clone)]
pub(in super::super) struct SlotRequest(Arc<[(usize, u32)]>);

/// The free slots of each type.
#[derive(Debug)]
pub(in super::super) struct Slots {
    free: Vec<u32>,
    /// What an attempt occupies whose task requests nothing, and what a batch occupies.
    one: SlotRequest,
}

impl SlotRequest {
    /// The request of a task of a worker with these slots. Types that the worker does not have are left out: the engine assigns no such task.
    pub(in super::super) fn new(requested: &BTreeMap<String, u32>, slots: &BTreeMap<String, u32>) -> Self {
        let place = |name: &str| slots.keys().position(|known| known == name);
        if requested.is_empty() {
            return Self(place(DEFAULT_SLOT_TYPE).map(|place| (place, 1)).into_iter().collect());
        }
        Self(requested.iter().filter_map(|(name, count)| Some((place(name)?, *count))).collect())
    }
}

impl Slots {
    pub(in super::super) fn new(slots: &BTreeMap<String, u32>) -> Self {
        Self { free: slots.values().copied().collect(), one: SlotRequest::new(&BTreeMap::new(), slots) }
    }

    pub(super) fn one(&self) -> SlotRequest {
        self.one.clone()
    }

    /// Whether an attempt that requests nothing has to wait.
    pub(super) fn is_full(&self) -> bool {
        !self.has(&self.one)
    }

    pub(super) fn has(&self, request: &SlotRequest) -> bool {
        request.0.iter().all(|(place, count)| self.free.get(*place).is_some_and(|free| free >= count))
    }

    pub(super) fn take(&mut self, request: &SlotRequest) {
        self.change(request, u32::saturating_sub);
    }

    pub(super) fn release(&mut self, request: &SlotRequest) {
        self.change(request, u32::saturating_add);
    }

    fn change(&mut self, request: &SlotRequest, change: impl Fn(u32, u32) -> u32) {
        for (place, count) in &*request.0 {
            if let Some(free) = self.free.get_mut(*place) {
                *free = change(*free, *count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(types: &[(&str, u32)]) -> BTreeMap<String, u32> {
        types.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn each_type_is_counted_alone() {
        let all = types(&[(DEFAULT_SLOT_TYPE, 2), ("gpu", 3)]);
        let mut slots = Slots::new(&all);
        let [plain, gpus, both] = [types(&[]), types(&[("gpu", 2)]), types(&[(DEFAULT_SLOT_TYPE, 2), ("gpu", 1)])]
            .map(|requested| SlotRequest::new(&requested, &all));
        slots.take(&gpus);
        assert!(slots.has(&plain) && slots.has(&both) && !slots.has(&gpus));
        slots.take(&plain);
        assert!(!slots.has(&both) && !slots.is_full());
        slots.take(&plain);
        assert!(slots.is_full());
        slots.release(&plain);
        slots.release(&plain);
        slots.take(&both);
        assert!(slots.is_full() && !slots.has(&gpus));
    }

    #[test]
    fn an_unknown_type_is_left_out() {
        let all = types(&[(DEFAULT_SLOT_TYPE, 1)]);
        assert!(Slots::new(&all).has(&SlotRequest::new(&types(&[("tpu", 9)]), &all)));
    }
}
