"""From events to trajectories: what each block looked like before every forward (paper 2.2)."""

from dataclasses import dataclass, field

from jacobi_forcing.decoding.events import Forward


@dataclass
class TrajectoryRecorder:
    """Collects one request's block states from the events of the `jacobi` strategy.

    State 0 of a block is its first guess as it was drawn, so fully random but for a first token
    that the forward before may already have settled. The reference overwrites its state 0 with the fixed
    point, because both are one tensor; here every state is a list of its own.
    """

    block_size: int
    answer: list[int] = field(default_factory=list)
    states: list[list[list[int]]] = field(default_factory=list)  # [blocks, states, block_size]

    def observe(self, event: Forward) -> None:
        """Take in one forward."""
        block = event.offset // self.block_size
        if block == len(self.states):
            self.states.append([])
        self.states[block].append(self.answer[block * self.block_size :] + event.guesses)
        self.answer += event.accepted

    def finish(self, pad_id: int, eos_ids: frozenset[int]) -> list[list[list[int]]]:
        """Return [blocks, states, block_size] ids, each block's fixed point last.

        A block cut off by the token budget has no fixed point and is left out; after an EOS the
        fixed point is filled up with `pad_id`.
        """
        finished = []
        for number, states in enumerate(self.states):
            fixed = self.answer[number * self.block_size : (number + 1) * self.block_size]
            if len(fixed) < self.block_size:
                if fixed[-1] not in eos_ids:
                    break
                fixed = fixed + [pad_id] * (self.block_size - len(fixed))
            # Near the end of the budget guesses fall short of the block; such states are not whole.
            whole = [state for state in states if len(state) == self.block_size]
            finished.append(whole if whole and whole[-1] == fixed else [*whole, fixed])
        return finished
