//! Which streams want the attention of the task that owns the connection, in which order, and which of their readers.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    task::Wake,
};

use futures_util::task::AtomicWaker;

/// The queue. Streams of higher priority come first, those of one priority in turn.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queues: Mutex<BTreeMap<Reverse<i32>, VecDeque<Arc<Place>>>>,
    /// Streams whose readers are to be woken.
    arrived: Mutex<Vec<u32>>,
    /// Wakes the task.
    pub(super) task: AtomicWaker,
}

/// A stream's place in the queue: it has one at most. To wake it is to queue it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) stream: u32,
    priority: AtomicI32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

/// Notes that something has arrived for the reader of a stream. yamux says so for each frame, in the task that owns the
/// connection. That wakes readers once it has taken all that there is, so that they pass many frames on at once and not,
/// on another processor meanwhile, each by itself.
#[derive(Debug)]
pub(super) struct Arrival {
    stream: u32,
    ready: Arc<Ready>,
}

impl Ready {
    pub(super) fn arrival(self: &Arc<Self>, stream: u32) -> Arc<Arrival> {
        Arc::new(Arrival {
            stream,
            ready: Arc::clone(self),
        })
    }

    /// The streams whose readers are to be woken.
    pub(super) fn take_arrived(&self) -> Vec<u32> {
        std::mem::take(&mut self.arrived())
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<u32>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(self: &Arc<Self>, stream: u32) -> Arc<Place> {
        Arc::new(Place {
            stream,
            priority: AtomicI32::new(0),
            queued: AtomicBool::new(false),
            ready: Arc::clone(self),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues().is_empty()
    }

    /// The next stream.
    pub(super) fn next(&self) -> Option<u32> {
        let mut queues = self.queues();
        let mut first = queues.first_entry()?;
        let place = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        let place = place?;
        // Before it is looked at: what happens from now on queues it again.
        place.queued.store(false, Ordering::SeqCst);
        Some(place.stream)
    }

    /// Nothing is called with this lock held: yamux wakes streams with its own locks held.
    fn queues(&self) -> MutexGuard<'_, BTreeMap<Reverse<i32>, VecDeque<Arc<Place>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) fn set_priority(&self, priority: i32) {
        self.priority.store(priority, Ordering::Relaxed);
    }

    pub(super) fn queue(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            let priority = Reverse(self.priority.load(Ordering::Relaxed));
            let mut queues = self.ready.queues();
            queues.entry(priority).or_default().push_back(Arc::clone(self));
            drop(queues);
            self.ready.task.wake();
        }
    }
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.arrived().push(self.stream);
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.queue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priorities_come_first_and_equal_ones_in_turn() {
        let ready = Arc::new(Ready::default());
        let [a, b, c] = [1, 2, 3].map(|stream| ready.place(stream));
        c.set_priority(7);
        for place in [&a, &b, &a, &c] {
            place.queue();
        }
        let mut order = Vec::new();
        while let Some(stream) = ready.next() {
            order.push(stream);
            if order.len() == 2 {
                a.queue();
            }
        }
        assert_eq!(order, [3, 1, 2, 1]);
        assert!(ready.is_empty());
    }
}
