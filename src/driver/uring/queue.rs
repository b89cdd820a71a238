//! The two queues that are shared with the kernel, and the memory that operations name.
//!
//! What is asked is written to the submission queue and handed over with the next [`Queue::enter`]: one system call for
//! all of a turn, which also waits. If the queue is full in between, it is handed over early.

#![allow(unsafe_code)]

use super::super::SocketId;
use super::buf_ring::{BufRing, GROUP};
use super::faults::Faults;
use super::messages::Messages;
use crate::buffer::SendBatch;
use io_uring::{
    EnterFlags, IoUring, cqueue, opcode,
    squeue::{self, Flags},
    types::{CancelBuilder, Fd, SubmitArgs, Timespec},
};
use rustix::io::Errno;
use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
    thread,
    time::Duration,
};

/// Completions taken out of the kernel's queue at once.
const CHUNK: usize = 64;
/// How long nothing is asked again when the kernel had no memory for it.
const NO_MEMORY: Duration = Duration::from_millis(1);
/// Waits until everything has ended, when the driver ends: so many, of so long at most.
const LAST_WAITS: u32 = 100;
const LAST_WAIT: Duration = Duration::from_millis(20);

/// What an operation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Receives into provided buffers, again and again.
    Receive,
    /// Waits for a socket to connect, break, or end.
    Watch,
    /// Sends a batch.
    Send,
    /// Accepts, again and again; the slot is that of the listener.
    Accept,
    /// Waits for a connection while no descriptor is left; the slot is that of the listener.
    AcceptWatch,
    /// Reads the waker's counter.
    Wake,
}

const OPS: [Op; 6] = [Op::Receive, Op::Watch, Op::Send, Op::Accept, Op::AcceptWatch, Op::Wake];
const OP_SHIFT: u32 = 60;
/// In the operation's code: the cancellation of such an operation.
const CANCEL: u64 = 1 << 63;
/// As much of the generation as has room. A slot is not used again before all its operations have ended, so even one
/// bit would tell; the rest is for a kernel that breaks that.
pub(super) const GENERATION_BITS: u32 = 28;

/// A completion.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) op: Op,
    /// It is of the operation that was to cancel `op`, and failed.
    pub(super) of_cancel: bool,
    pub(super) slot: u32,
    /// The lowest [`GENERATION_BITS`] of it.
    pub(super) generation: u32,
    pub(super) result: Result<u32, Errno>,
    /// The operation goes on.
    pub(super) more: bool,
    /// The provided buffer that was used.
    pub(super) buffer: Option<u16>,
    /// Other pieces of the buffer follow.
    pub(super) buffer_more: bool,
    /// The connection that was accepted.
    pub(super) accepted: Option<OwnedFd>,
}

/// The ring, with the memory that its operations name.
pub(super) struct Queue {
    ring: IoUring,
    /// What found no room, because the kernel did not take what was before it.
    pending: VecDeque<squeue::Entry>,
    /// Completions that were taken out early, to make room.
    backlog: VecDeque<cqueue::Entry>,
    messages: Messages,
    /// Where the waker's counter is read to.
    count: NonNull<u64>,
    /// Operations, without cancellations, whose last completion was not taken yet.
    outstanding: usize,
    /// Entries that the kernel has not taken.
    unsubmitted: usize,
    /// An operation ended for want of memory, and will be asked for again: not at once.
    lacks_memory: bool,
    /// What goes wrong on purpose.
    pub(super) faults: Faults,
}

impl Queue {
    /// A queue with room for `entries` operations per system call and `completions` completions.
    ///
    /// # Errors
    /// What the kernel says; see [`super::probe`].
    pub(super) fn new(entries: u32, completions: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions)
            .dontfork()
            .build(entries)?;
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() || !params.is_feature_submit_stable() {
            return Err(Errno::INVAL.into());
        }
        Ok(Queue {
            ring,
            pending: VecDeque::new(),
            backlog: VecDeque::new(),
            messages: Messages::new(),
            count: NonNull::from(Box::leak(Box::new(0))),
            outstanding: 0,
            unsubmitted: 0,
            lacks_memory: false,
            faults: Faults::default(),
        })
    }

    /// Registers buffers for receives.
    pub(super) fn register_buffers(&self, size: usize, total: usize, incremental: bool) -> io::Result<BufRing> {
        BufRing::register(&self.ring.submitter(), size, total, incremental)
    }

    // ---- what is asked ----------------------------------------------------------------------------------------

    /// Receives from a socket until told otherwise.
    pub(super) fn receive(&mut self, id: SocketId, fd: RawFd) {
        let entry = opcode::RecvMulti::new(Fd(fd), GROUP).build();
        // SAFETY: it names no memory of its own; provided buffers are `BufRing`'s to keep alive.
        unsafe { self.ask(entry, Op::Receive, id) }
    }

    /// Waits for one of `events` (of `poll(2)`) on a socket; errors and the end of both directions always count.
    pub(super) fn watch(&mut self, id: SocketId, fd: RawFd, events: i16) {
        // SAFETY: it names no memory.
        unsafe { self.ask(opcode::PollAdd::new(Fd(fd), events as u32).build(), Op::Watch, id) }
    }

    /// Tells of bytes on a socket, of its end and of errors, again and again until told otherwise.
    pub(super) fn watch_bytes(&mut self, id: SocketId, fd: RawFd) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        // SAFETY: it names no memory.
        unsafe { self.ask(opcode::PollAdd::new(Fd(fd), events).multi(true).build(), Op::Watch, id) }
    }

    /// Sends what is left of a batch, or some of it.
    ///
    /// # Safety
    /// Until the last completion of this operation was taken, `batch` is neither dropped nor changed nor leaves this
    /// thread. It may move: the bytes are in frames, which the parts of the batch keep alive and unchanged.
    pub(super) unsafe fn send(&mut self, id: SocketId, fd: RawFd, batch: &SendBatch) {
        if self.ring.submission().is_full() && self.pending.is_empty() {
            self.hand_over(); // so that message headers can be used again
        }
        let entry = match self.faults.shorten(batch).or(batch.contiguous()) {
            Some(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                opcode::Send::new(Fd(fd), bytes.as_ptr(), length).flags(libc::MSG_NOSIGNAL).build()
            }
            None => {
                let message = self.messages.of(batch);
                opcode::SendMsg::new(Fd(fd), message).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        // SAFETY: the bytes stay, as the caller promises. The message header needs to stay until the kernel has taken
        // the entry (`SUBMIT_STABLE`, checked in `new`): `Messages` keeps it until `handed_over`.
        unsafe { self.ask(entry, Op::Send, id) }
    }

    /// Accepts connections until told otherwise.
    pub(super) fn accept(&mut self, listener: u32, fd: RawFd) {
        let entry = opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).build();
        // SAFETY: it names no memory.
        unsafe { self.ask(entry, Op::Accept, SocketId { slot: listener, generation: 0 }) }
    }

    /// Waits for a connection without accepting it.
    pub(super) fn watch_listener(&mut self, listener: u32, fd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build();
        // SAFETY: it names no memory.
        unsafe { self.ask(entry, Op::AcceptWatch, SocketId { slot: listener, generation: 0 }) }
    }

    /// Reads the waker's counter when it is not 0. Asked again only after the last was answered.
    pub(super) fn wake(&mut self, fd: RawFd) {
        let entry = opcode::Read::new(Fd(fd), self.count.as_ptr().cast(), size_of::<u64>() as u32).build();
        // SAFETY: `count` is ours alone, reached by nobody else, and lives until `drop`, which the driver puts off
        // until no operation is left (see `Uring::drop`).
        unsafe { self.ask(entry, Op::Wake, SocketId { slot: 0, generation: 0 }) }
    }

    /// Tells an operation to end. It is answered only if there is no such operation.
    pub(super) fn cancel(&mut self, op: Op, id: SocketId) {
        let entry = opcode::AsyncCancel::new(user_data(op, id)).build();
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(user_data(op, id) | CANCEL);
        // SAFETY: it names no memory.
        unsafe { self.push(entry) }
    }

    /// # Safety
    /// As for [`Queue::push`].
    unsafe fn ask(&mut self, entry: squeue::Entry, op: Op, id: SocketId) {
        self.outstanding += 1;
        if self.faults.answer(op, id) {
            return;
        }
        // SAFETY: as the caller promises.
        unsafe { self.push(entry.user_data(user_data(op, id))) }
    }

    /// # Safety
    /// The memory that the entry names is valid until the last completion of its operation was taken.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        self.unsubmitted += 1;
        let behind_others = !self.pending.is_empty();
        // SAFETY: as the caller promises.
        if !behind_others && unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return;
        }
        // In the list before the others are handed over: its message header is still in use.
        self.pending.push_back(entry);
        if !behind_others {
            self.hand_over();
            self.refill();
        }
    }

    /// Hands over what is asked, without waiting for anything.
    fn hand_over(&mut self) {
        if self.faults.refuse().is_none() {
            // What it says, the next `enter` finds too.
            let _ = self.ring.submit();
        }
        self.handed_over();
        let answers = self.ring.completion();
        if answers.len() > answers.capacity() / 2 {
            self.backlog.extend(answers);
        }
    }

    fn handed_over(&mut self) {
        self.unsubmitted = self.pending.len() + self.ring.submission().len();
        if self.unsubmitted == 0 {
            self.messages.were_read();
        }
    }

    fn refill(&mut self) {
        while let Some(entry) = self.pending.pop_front() {
            // SAFETY: whoever pushed it promised that its memory stays until its last completion.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                return self.pending.push_front(entry);
            }
        }
    }

    // ---- what is answered -------------------------------------------------------------------------------------

    /// Whether something is asked that the kernel does not know of yet.
    pub(super) fn has_unsubmitted(&self) -> bool {
        self.unsubmitted > 0
    }

    /// Whether completions were taken out early.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || self.faults.has_answers()
    }

    /// The kernel had no memory for an operation that will be asked for again: the next [`Queue::enter`] pauses first.
    pub(super) fn pause_for_memory(&mut self) {
        self.lacks_memory = true;
    }

    /// Whether a completion is there to take.
    pub(super) fn has_answers(&mut self) -> bool {
        self.has_backlog() || !self.ring.completion().is_empty()
    }

    /// Hands over what is asked, and waits until something is answered, `wait` at most (none: without end). Makes no
    /// system call if there is nothing to ask and nothing to wait for.
    ///
    /// # Errors
    /// What the kernel says, unless it passes.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if std::mem::take(&mut self.lacks_memory) {
            thread::sleep(NO_MEMORY);
        }
        self.refill();
        while let Some((op, id)) = self.faults.end_one() {
            let of = CancelBuilder::user_data(user_data(op, id));
            let _ = self.ring.submitter().register_sync_cancel(None, of);
        }
        let queue = self.ring.submission();
        let (asked, kernel_has_work) = (queue.len(), queue.taskrun() || queue.cq_overflow());
        drop(queue);
        let answered = self.has_answers();
        let want = u32::from(wait != Some(Duration::ZERO) && !answered);
        if asked == 0 && want == 0 && !kernel_has_work {
            return Ok(());
        }
        let timeout = Timespec::from(wait.unwrap_or_default());
        let mut arguments = SubmitArgs::new();
        if wait.is_some() {
            arguments = arguments.timespec(&timeout);
        }
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        let entered = match self.faults.refuse() {
            Some(error) => Err(error.into()),
            // SAFETY: the flags say that the argument is what `SubmitArgs` is, and it outlives the call.
            None => unsafe { self.ring.submitter().enter(asked as u32, want, flags, Some(&arguments)) },
        };
        self.handed_over();
        match entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
            // Too many completions wait: they are taken now.
            Ok(_) | Err(Errno::TIME | Errno::INTR | Errno::BUSY) => Ok(()),
            Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => {
                thread::sleep(NO_MEMORY);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes completions, up to a number; those that came first come first.
    pub(super) fn take(&mut self, into: &mut VecDeque<Event>) {
        while let Some(entry) = self.backlog.pop_front() {
            into.push_back(event(&entry));
            if into.len() == CHUNK {
                break;
            }
        }
        if into.is_empty() {
            let mut chunk = [const { MaybeUninit::<cqueue::Entry>::uninit() }; CHUNK];
            into.extend(self.ring.completion().fill(&mut chunk).iter().map(event));
        }
        self.faults.settle(into);
        self.outstanding -= into.iter().filter(|event| !event.of_cancel && !event.more).count();
    }

    /// A descriptor that is readable when something is answered.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    /// Tells all operations to end and waits for that. False if the kernel has some left, and may use their memory.
    pub(super) fn end(&mut self) -> bool {
        let mut events = VecDeque::new();
        for _ in 0..LAST_WAITS {
            if self.outstanding == 0 {
                return true;
            }
            let all = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            // SAFETY: it names no memory.
            unsafe { self.push(all.user_data(user_data(Op::Wake, SocketId { slot: 0, generation: 0 }) | CANCEL)) }
            if self.enter(Some(LAST_WAIT)).is_err() {
                return false;
            }
            loop {
                events.clear();
                self.take(&mut events);
                if events.is_empty() {
                    break;
                }
            }
        }
        self.outstanding == 0
    }

    /// Asks the kernel, behind the driver's back, to end every operation: what a kernel may do by itself.
    #[cfg(test)]
    pub(super) fn sabotage(&self) {
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any().all());
    }

    /// Whether completions wait for which the kernel's queue had no room.
    #[cfg(test)]
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Operations that have not ended.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.outstanding == 0 {
            // SAFETY: it came from a `Box`, and no operation is left that names it.
            drop(unsafe { Box::from_raw(self.count.as_ptr()) });
        } else {
            self.messages.forget(); // the kernel may still read
        }
    }
}

fn user_data(op: Op, id: SocketId) -> u64 {
    let generation = id.generation & ((1 << GENERATION_BITS) - 1);
    (op as u64) << OP_SHIFT | u64::from(generation) << 32 | u64::from(id.slot)
}

#[inline]
fn event(entry: &cqueue::Entry) -> Event {
    let (data, flags) = (entry.user_data(), entry.flags());
    let (op, of_cancel) = (OPS[((data & !CANCEL) >> OP_SHIFT) as usize], data & CANCEL != 0);
    let result = u32::try_from(entry.result()).map_err(|_| Errno::from_raw_os_error(-entry.result()));
    let mut accepted = None;
    if let (Op::Accept, false, Ok(fd)) = (op, of_cancel, result) {
        // SAFETY: the kernel has made this descriptor for us, and tells of it once: this completion is taken here only.
        accepted = Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    }
    Event {
        op,
        of_cancel,
        slot: data as u32,
        generation: (data >> 32) as u32 & ((1 << GENERATION_BITS) - 1),
        result,
        more: cqueue::more(flags),
        buffer: cqueue::buffer_select(flags),
        buffer_more: cqueue::buffer_more(flags),
        accepted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_keeps_its_parts_apart() {
        for op in OPS {
            let id = SocketId { slot: u32::MAX - 1, generation: u32::MAX };
            let data = user_data(op, id);
            assert_eq!(data & CANCEL, 0);
            assert_eq!(OPS[(data >> OP_SHIFT) as usize], op);
            assert_eq!((data as u32, (data >> 32) as u32 & 0x0FFF_FFFF), (id.slot, 0x0FFF_FFFF));
        }
    }
}
