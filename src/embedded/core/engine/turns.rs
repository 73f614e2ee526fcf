//! Turns: due timers, and what the turns cause outside.

use crate::embedded::core::runs::{
    announce, batches, cancels, flushes, late, lifecycle, pauses, progress, rates, replays, retention, retries, slots,
    wakes,
};
use crate::embedded::core::store::{At, Core, Effect, Timer, Turn};
use crate::embedded::core::streams::{chunks, events, results};
use crate::embedded::core::triggers::{crons, schedules};
use crate::embedded::core::workers::sessions;

/// The maximum number of timers that fire in one turn. A core with more due timers is behind, and must still answer.
pub(crate) const MAX_TIMERS_PER_TURN: usize = 256;

impl Core {
    /// The effects of the turns since the last call.
    pub(crate) fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<At> {
        self.timers.next()
    }

    /// Fires no timer before this time.
    pub(crate) fn stop_timers_until(&mut self, at: At) {
        self.timers.stop_until(at);
    }

    /// Fires due timers, but no more than fit into one turn. If more are due, [`next_timer`](Self::next_timer) is in the past.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_TIMERS_PER_TURN {
            let Some(timer) = self.timers.due(turn.now) else { return };
            fire(self, turn, timer);
            self.finish_turn(turn);
        }
    }

    /// Ends a turn, after its command: decides who gets the concurrency slots that have changed, and offers the queues that waited for
    /// rate limits which did not exist. Then it assigns the batches that are due. Each of these can end tasks, which gives slots back:
    /// the turn is over when none has changed.
    pub(crate) fn finish_turn(&mut self, turn: &mut Turn<'_>) {
        loop {
            slots::update(self, turn);
            for action in std::mem::take(&mut self.rate_limits.changed) {
                progress::assign(self, turn, &action);
            }
            flushes::update(self, turn);
            if !self.slots.have_changed() {
                return;
            }
        }
    }
}

fn fire(core: &mut Core, turn: &mut Turn<'_>, timer: Timer) {
    match timer {
        Timer::Execution(task) => lifecycle::execution_timeout(core, turn, task),
        Timer::Schedule(task) => lifecycle::schedule_timeout(core, turn, task),
        Timer::TimedOutCancel(task) => late::schedule_timeout(core, turn, task),
        Timer::Expire(task) => pauses::expire(core, turn, task),
        Timer::Requeue(task) => retries::requeue(core, turn, task),
        Timer::Silence(worker) => sessions::check_silence(core, turn, worker),
        Timer::Poll(stream) => results::poll(core, turn, stream),
        Timer::Attach(stream) => events::attach(core, stream),
        Timer::Replay(replay) => replays::replay_now(core, turn, replay),
        Timer::Offer(task) => progress::offer(core, turn, task),
        Timer::Cancel(id) => cancels::cancel_together(core, turn, &[id]),
        Timer::Wake(task, condition) => wakes::wake(core, turn, task, condition),
        Timer::EarlyEnd(run) => announce::early_end(core, turn, run),
        Timer::Scheduled(schedule) => schedules::fire_due(core, turn, schedule),
        Timer::Refill(limit) => {
            for action in rates::refill(core, limit) {
                progress::assign(core, turn, &action);
            }
        }
        Timer::Cron(cron) => crons::fire(core, turn, cron),
        Timer::Retention => retention::apply(core, turn),
        Timer::Flush(group) => batches::interval_over(core, group),
        Timer::Chunk(chunk) => chunks::send(core, chunk),
    }
}
