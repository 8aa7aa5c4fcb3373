"""Why work was interrupted, and who pays for it: one word for each line of DESIGN section 7, and the budget that it draws on."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Budget(Enum):
    """Whose patience a failure uses up."""

    NONE = "none"
    """Nobody's: it may happen any number of times."""
    ROWS = "rows"
    """The job's count or share of bad rows (`core.budgets.BadRowBudget`)."""
    PROCESS = "process"
    """Restarts of a worker's processes within a window of time, in the worker."""
    RANGE = "range"
    """The strikes of the range that was being worked on (`core.budgets.RangeBudget`)."""
    WORKER = "worker"
    """The worker's own: one that is lost again and again gets work only after pauses that grow (`core.budgets.WorkerBudget`)."""
    CODE = "code"
    """The user's code: the job fails at once, or as soon as it is plain that it fails everywhere (`core.budgets.StartBudget`)."""
    NODE = "node"
    """The node's: one with repeated faults gets no more workers for a while (`core.scaling.faults.NodeFaults`)."""
    TIME = "time"
    """Tried again after pauses that grow, as long as the job has patience (`core.budgets.StorageBudget`)."""


class Cause(Enum):
    """Why a range, a process or a worker was interrupted. The value is its name in logs, metrics, status and reports."""

    BAD_ROW = "bad_row"
    """User code raised on a row, or returned what the policy forbids."""
    GPU_OOM = "gpu_oom"
    """The memory of the accelerator, or of the process, did not hold the batch."""
    PROCESS_CRASH = "process_crash"
    """A process with user code ended by itself: segmentation fault, abort, exit."""
    PROCESS_HANG = "process_hang"
    """A batch took so much longer than others that its process was ended."""
    PROCESS_LEAK = "process_leak"
    """A process grew without end and was replaced at the border of a batch."""
    PROCESS_AGED = "process_aged"
    """A process reached its `max_lifetime` and was replaced at the border of a batch."""
    GPU_FAULT = "gpu_fault"
    """The accelerator refused everything after an earlier error: assertion in a kernel, illegal address, lost device."""
    OUT_OF_MEMORY = "out_of_memory"
    """The system killed a process because memory had run out."""
    HOST_DIED = "host_died"
    """The stage host ended although nobody had asked it to."""
    WORKER_LOST = "worker_lost"
    """The connection to a worker broke, and it did not come back."""
    NODE_LOST = "node_lost"
    """A worker fell silent though its connection stood: its node is gone, frozen or cut off."""
    PREEMPTED = "preempted"
    """The node was taken away, or is about to be; whether with notice or without."""
    DRAINED = "drained"
    """Somebody asked the worker to stop: scale-in, an operator, a signal."""
    WOKE_LATE = "woke_late"
    """A worker that had been given up came back; what it asked to commit was refused."""
    START_ERROR = "start_error"
    """A worker could not set its pipeline up: bad import, wrong image, missing file."""
    USER_ERROR = "user_error"
    """What no other worker can do better: changed input, another output schema."""
    HOPELESS = "hopeless"
    """User code failed on every row that a worker had seen; a mistake in the code, unless the job has results."""
    STORAGE = "storage"
    """Input or output could not be reached."""
    DISK_FULL = "disk_full"
    """No space, or no quota, was left for output."""
    OUTPUT_REFUSED = "output_refused"
    """The output place is read-only, or forbids us to write."""
    MASTER_LOST = "master_lost"
    """The master died or could not be reached; workers went on without it."""
    STORE_LOST = "store_lost"
    """The store was away, died, or had lost what it held."""
    STUCK = "stuck"
    """A range on a live worker took so much longer than it should that it was taken away."""
    YIELDED = "yielded"
    """A worker gave rows back so that an idle one could do them."""
    OVERTAKEN = "overtaken"
    """Another copy of the same range was committed first."""
    NOT_HELD = "not_held"
    """The worker did not hold a range it had been granted: an answer was lost, or the worker had started again."""
    WORKER_CRASHED = "worker_crashed"
    """The worker's own process ended with an error."""
    WORKER_KILLED = "worker_killed"
    """The worker's own process was killed, and nobody said why."""
    LEFT_EARLY = "left_early"
    """A worker ended as if all were done, though there was work and nobody had asked it to leave."""
    TIME_LIMIT = "time_limit"
    """A worker was ended because it had run for as long as its template allows."""
    SCRATCH_FULL = "scratch_full"
    """A worker used more of its node's disk than it may."""
    NODE_REFUSED = "node_refused"
    """A node would not run a worker that had been placed on it."""
    IMAGE_ERROR = "image_error"
    """The image of a worker could not be had."""
    CONFIG_ERROR = "config_error"
    """What a worker is made from is wrong: its secrets, volumes, command, or the rights to start it."""
    NO_CAPACITY = "no_capacity"
    """There was no place for a worker: no node fits, or a quota is used up."""
    UNKNOWN = "unknown"
    """Nobody said."""

    @property
    def budget(self) -> Budget:
        """Who pays."""
        return _RULES[self].budget

    @property
    def is_blameless(self) -> bool:
        """True when it may happen any number of times."""
        return self.budget is Budget.NONE

    @property
    def strikes_range(self) -> bool:
        """True when the rows at work may be what brought it about, so that they are cornered when it goes on."""
        return _RULES[self].strikes_range

    @property
    def hinders_everybody(self) -> bool:
        """True when no other worker can do better, and nobody can until somebody acts (`core.hindrance`)."""
        return self in (Cause.DISK_FULL, Cause.OUTPUT_REFUSED)

    @property
    def text(self) -> str:
        """Half a sentence for people."""
        return _RULES[self].text


class _Rule(NamedTuple):
    budget: Budget
    strikes_range: bool
    text: str


_RULES: Final = {
    Cause.BAD_ROW: _Rule(Budget.ROWS, False, "user code failed on a row"),
    Cause.GPU_OOM: _Rule(Budget.NONE, False, "the batch did not fit into memory"),
    Cause.PROCESS_CRASH: _Rule(Budget.PROCESS, True, "a process crashed"),
    Cause.PROCESS_HANG: _Rule(Budget.PROCESS, True, "a process hung"),
    Cause.PROCESS_LEAK: _Rule(Budget.NONE, False, "a process grew without end"),
    Cause.PROCESS_AGED: _Rule(Budget.NONE, False, "a process reached its max_lifetime"),
    Cause.GPU_FAULT: _Rule(Budget.PROCESS, True, "the GPU refused to go on"),
    Cause.OUT_OF_MEMORY: _Rule(Budget.PROCESS, True, "the system ran out of memory"),
    Cause.HOST_DIED: _Rule(Budget.PROCESS, True, "the stage host died"),
    Cause.WORKER_LOST: _Rule(Budget.WORKER, True, "the connection to the worker broke"),
    Cause.NODE_LOST: _Rule(Budget.WORKER, True, "the worker fell silent"),
    Cause.PREEMPTED: _Rule(Budget.NONE, False, "the node was taken away"),
    Cause.DRAINED: _Rule(Budget.NONE, False, "the worker was asked to stop"),
    Cause.WOKE_LATE: _Rule(Budget.NONE, False, "the worker had been given up before"),
    Cause.START_ERROR: _Rule(Budget.CODE, False, "the pipeline could not be set up"),
    Cause.USER_ERROR: _Rule(Budget.CODE, False, "the job cannot go on like this"),
    Cause.HOPELESS: _Rule(Budget.CODE, False, "user code failed on every row that the worker had seen"),
    Cause.STORAGE: _Rule(Budget.TIME, False, "input or output could not be reached"),
    Cause.DISK_FULL: _Rule(Budget.TIME, False, "no space was left for output"),
    Cause.OUTPUT_REFUSED: _Rule(Budget.TIME, False, "the output place refused to be written"),
    Cause.MASTER_LOST: _Rule(Budget.NONE, False, "the master was away"),
    Cause.STORE_LOST: _Rule(Budget.NONE, False, "the store was away"),
    Cause.STUCK: _Rule(Budget.RANGE, True, "the range took far too long"),
    Cause.YIELDED: _Rule(Budget.NONE, False, "given back for an idle worker"),
    Cause.OVERTAKEN: _Rule(Budget.NONE, False, "another copy was faster"),
    Cause.NOT_HELD: _Rule(Budget.NONE, False, "the worker did not hold it"),
    Cause.WORKER_CRASHED: _Rule(Budget.WORKER, True, "the worker crashed"),
    Cause.WORKER_KILLED: _Rule(Budget.WORKER, True, "the worker was killed"),
    Cause.LEFT_EARLY: _Rule(Budget.WORKER, False, "the worker left though there was work"),
    Cause.TIME_LIMIT: _Rule(Budget.WORKER, False, "the worker had run as long as it may"),
    Cause.SCRATCH_FULL: _Rule(Budget.WORKER, False, "the worker used too much of its node's disk"),
    Cause.NODE_REFUSED: _Rule(Budget.NODE, False, "the node refused the worker"),
    Cause.IMAGE_ERROR: _Rule(Budget.CODE, False, "the image could not be had"),
    Cause.CONFIG_ERROR: _Rule(Budget.CODE, False, "the worker could not be made"),
    Cause.NO_CAPACITY: _Rule(Budget.NONE, False, "there was no place for the worker"),
    Cause.UNKNOWN: _Rule(Budget.NONE, False, "for no reason given"),
}
