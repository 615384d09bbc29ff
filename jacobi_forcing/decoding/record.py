"""From events to trajectories: what each block looked like before every forward (paper 4.1)."""

from dataclasses import dataclass, field

from jacobi_forcing.decoding.events import Forward


@dataclass
class TrajectoryRecorder:
    """Collects one request's answer and, of the `jacobi` strategy, its block states.

    State 0 of a block is its first guess as it was drawn: fully random, but for a first token that
    the forward before may have settled. The reference overwrites its state 0 with the fixed
    point, because both are one tensor; here every state is a list of its own.
    """

    block_size: int
    keep_states: bool = True  # False: fixed points only, whatever the strategy
    answer: list[int] = field(default_factory=list)
    states: list[list[list[int]]] = field(default_factory=list)  # [blocks, states, block_size]
    offsets: list[int] = field(default_factory=list)  # of every forward: tokens settled before it

    def observe(self, event: Forward) -> None:
        """Take in one forward."""
        if self.keep_states:
            self._note_state(event)
        self.answer += event.accepted
        self.offsets.append(event.offset)

    def num_forwards(self, most: int) -> int:
        """Count the forwards that settled the first `most` tokens."""
        return sum(offset < most for offset in self.offsets)

    def _note_state(self, event: Forward) -> None:
        block = event.offset // self.block_size
        if block == len(self.states):
            self.states.append([])
        self.states[block].append(self.answer[block * self.block_size :] + event.guesses)

    def finish(
        self, pad_id: int, eos_ids: frozenset[int], most: int | None = None
    ) -> list[list[list[int]]]:
        """Return [blocks, states, block_size] ids, each block's fixed point last.

        Tokens after the first `most` are left out.

        A block cut off by the token budget has no fixed point and is left out; after an EOS the
        fixed point is filled up with `pad_id`.
        """
        size = self.block_size
        blocks, answer = [], self.answer[:most]
        for start in range(0, len(answer), size):
            fixed = answer[start : start + size]
            if len(fixed) < size:
                if fixed[-1] not in eos_ids:
                    break
                fixed = fixed + [pad_id] * (size - len(fixed))
            # An EOS that opens a block came with the block before: no forward ever guessed at it.
            number = start // size
            states = self.states[number] if number < len(self.states) else []
            # Where the budget cuts guesses short, states are not whole.
            states = [state for state in states if len(state) == size]
            blocks.append(states if states and states[-1] == fixed else [*states, fixed])
        return blocks
