//! Operations of streams and their execution.

use crate::access::{Access, Author};
use crate::clock::VectorClock;
use crate::code::Code;
use crate::config::Schedule;
use crate::driver::Driver;
use crate::event::Recorded;
use std::collections::VecDeque;

/// The end of an operation. `number` counts the operations of a stream from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub(crate) stream: u64,
    pub(crate) number: u64,
}

/// The effect of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Copy {
        from: u64,
        into: u64,
        bytes: u64,
    },
    Set {
        into: u64,
        value: u8,
        bytes: u64,
    },
    Record {
        event: u64,
    },
    /// A node of a graph that records an event.
    RecordNode {
        event: u64,
    },
    /// No effect except its order: an uploaded graph.
    Nothing,
}

impl Action {
    pub(crate) fn accesses(&self) -> Vec<Access> {
        match *self {
            Self::Copy { from, into, bytes } => {
                vec![Access::read(from, bytes), Access::write(into, bytes)]
            }
            Self::Set { into, bytes, .. } => vec![Access::write(into, bytes)],
            Self::Record { .. } | Self::RecordNode { .. } | Self::Nothing => Vec::new(),
        }
    }
}

/// An enqueued operation of a stream.
pub(crate) struct Operation {
    id: u64,
    action: Action,
    author: Author,
    waits: Vec<Ticket>,
    /// Operations that are ordered before it, and the operation itself.
    clock: VectorClock,
}

/// Operations of a stream, in order.
#[derive(Default)]
pub(crate) struct Queue {
    operations: VecDeque<Operation>,
    enqueued: u64,
    done: u64,
}

impl Queue {
    /// Number of operations that were enqueued.
    pub(crate) fn enqueued(&self) -> u64 {
        self.enqueued
    }
}

impl Driver {
    /// Enqueues an operation that is ordered after `clock`, and adds it to `clock`. `timeline` is the
    /// stream, or a branch of a graph.
    pub(crate) fn enqueue(
        &mut self,
        (stream, timeline): (u64, u64),
        action: Action,
        author: Author,
        waits: Vec<Ticket>,
        clock: &mut VectorClock,
    ) -> Ticket {
        self.operations += 1;
        let id = self.operations;
        let moment = crate::access::Moment { timeline, number: id };
        self.memory.enqueue(id, &action.accesses(), (moment, author, clock), &mut self.report);
        clock.advance(timeline, id);
        let queue = &mut self.streams.get_mut(&stream).expect("a stream that was found").queue;
        queue.enqueued += 1;
        queue.operations.push_back(Operation { id, action, author, waits, clock: clock.clone() });
        Ticket { stream, number: queue.enqueued }
    }

    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.streams.get(&ticket.stream).is_none_or(|stream| stream.queue.done >= ticket.number)
    }

    /// True if the next operation of a stream can run.
    fn can_run(&self, stream: u64) -> bool {
        let next = self.streams[&stream].queue.operations.front();
        next.is_some_and(|next| next.waits.iter().all(|&wait| self.is_done(wait)))
    }

    /// Runs work until an operation is done: only the work that it requires or, in the random schedule,
    /// work that the generator chooses.
    pub(crate) fn run_until(&mut self, ticket: Ticket) {
        while !self.is_done(ticket) {
            match self.config.schedule {
                Schedule::Late => self.run_towards(ticket),
                Schedule::Random(_) => self.run_any(),
            }
        }
    }

    /// Runs one operation that `ticket` requires.
    pub(crate) fn run_towards(&mut self, ticket: Ticket) {
        let mut stream = ticket.stream;
        // Terminates, because an operation only waits for operations that were enqueued before it.
        while let Some(next) = self.streams[&stream].queue.operations.front()
            && let Some(wait) = next.waits.iter().find(|&&wait| !self.is_done(wait))
        {
            stream = wait.stream;
        }
        self.run_next(stream);
    }

    fn run_any(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        let ready: Vec<u64> = streams.into_iter().filter(|&stream| self.can_run(stream)).collect();
        if !ready.is_empty() {
            let chosen = self.random.below(ready.len() as u64);
            self.run_next(ready[chosen as usize]);
        }
    }

    /// Lets the device execute work on its own: at each call in the random schedule.
    pub(crate) fn advance(&mut self) {
        if matches!(self.config.schedule, Schedule::Random(_)) {
            for _ in 0..self.random.below(4) {
                self.run_any();
            }
        }
    }

    /// Runs the next operation of a stream.
    fn run_next(&mut self, stream: u64) {
        let queue = &mut self.streams.get_mut(&stream).expect("a stream with work").queue;
        let Some(operation) = queue.operations.pop_front() else { return };
        queue.done += 1;
        let number = queue.done;
        if self.sticky.is_some() {
            // Assumed: pending work does not run after the context was corrupted.
            return;
        }
        let (accesses, author) = (operation.action.accesses(), operation.author);
        self.memory.before_run(operation.id, &accesses, author, &mut self.report);
        if !accesses.is_empty() {
            self.executed += 1;
            if let Some((at, code)) = self.config.fault
                && at == self.executed
            {
                self.fail_permanently(code);
                return;
            }
        }
        match operation.action {
            Action::Copy { from, into, bytes } => {
                let bytes = self.memory.read(from, bytes);
                self.memory.write(into, &bytes);
            }
            Action::Set { into, value, bytes } => {
                self.memory.write(into, &vec![value; bytes as usize]);
            }
            Action::Record { event } => self.reach(event, operation.id),
            Action::RecordNode { event } => {
                let ticket = Ticket { stream, number };
                let time_ns = Some(self.now_ns());
                let (operation, clock) = (operation.id, operation.clock);
                let recorded = Recorded { operation, ticket, clock, time_ns };
                self.record_from_graph(event, recorded, author);
            }
            Action::Nothing => {}
        }
    }

    /// Makes every later call return an error.
    ///
    /// Manual, `CUresult`, for codes such as `CUDA_ERROR_ILLEGAL_ADDRESS`: "This leaves the process in
    /// an inconsistent state and any further CUDA work will return the same error."
    pub(crate) fn fail_permanently(&mut self, code: Code) {
        self.sticky.get_or_insert(code);
    }
}
