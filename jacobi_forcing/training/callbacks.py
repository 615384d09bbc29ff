"""What a training says while it runs, and how it stops when it is told to."""

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jacobi_forcing.progress import Bar, duration
from jacobi_forcing.stop import StopRequest
from jacobi_forcing.training.trainer import JacobiTrainer, Metrics


def described(metrics: Metrics) -> str:
    """Put what a decoder test measured into words."""
    words = [f"{metrics['tokens_per_forward']:.2f} tokens per forward"]
    if "accuracy" in metrics:
        words.append(f"accuracy {metrics['accuracy']:.1%}")
    if "nll" in metrics:
        words.append(f"NLL under the original {metrics['nll']:.3f}")
    return ", ".join(words)


class StepReport(TrainerCallback):
    """Prints a line for every step that is logged and every decoder test, and moves a bar.

    The time left counts the decoder tests that are to come.

    Args:
        bar: Moved and printed to.
        trainer: Whose steps these are.
    """

    def __init__(self, bar: Bar, trainer: JacobiTrainer):
        self.bar, self.trainer = bar, trainer
        self._first_step = 0
        self._start = self._test_seconds = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any):
        """Begin to count, from a checkpoint's step."""
        self._first_step, self._start = state.global_step, time.monotonic()
        self._test_seconds = self.trainer.total_test_seconds
        self.bar.begin(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any):
        """Move the bar."""
        left = self._seconds_left(args, state)
        self.bar.show(state.global_step, left=left, note=self.bar.note)

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, logs: dict, **__: Any):
        """Print a line."""
        if "ar_loss" in logs:
            loss = f"loss {logs['loss']:.4g}"
            self.bar.note = loss
            words = [
                f"{loss} (AR {logs['ar_loss']:.4g}, consistency {logs['consistency_loss']:.4g})",
                f"agreement {logs['agreement']:.0%}",
                f"learning rate {logs['learning_rate']:.2g}",
            ]
            if state.global_step < state.max_steps:
                words.append(f"{duration(self._seconds_left(args, state))} left")
        elif "eval_score" in logs:
            found = {n.removeprefix("eval_"): x for n, x in logs.items()}
            words = [f"test: {described(found)}"]
        else:
            return  # Trainer's own last line, of the whole run
        self.bar.line(f"step {state.global_step} of {state.max_steps}: {', '.join(words)}")

    def _seconds_left(self, args: TrainingArguments, state: TrainerState) -> float:
        num_done = max(1, state.global_step - self._first_step)
        in_tests = self.trainer.total_test_seconds - self._test_seconds
        step_seconds = (time.monotonic() - self._start - in_tests) / num_done
        num_tests = 1  # of what is saved
        if args.eval_strategy == "steps":
            num_tests += state.max_steps // args.eval_steps - state.global_step // args.eval_steps
        num_steps = state.max_steps - state.global_step
        return num_steps * step_seconds + num_tests * self.trainer.test_seconds


class StopAfterStep(TrainerCallback):
    """Ends a training with a checkpoint, behind the step during which one was asked to stop.

    Args:
        request: Asked after every step and every decoder test.
        trainer: If it runs in several processes, all of them stop when one is asked to.
    """

    def __init__(self, request: StopRequest, trainer: JacobiTrainer):
        self.request, self.trainer = request, trainer

    def on_step_end(self, *arguments: Any, **_: Any):
        """Stop behind a step."""
        self._stop(arguments[2])

    def on_evaluate(self, *arguments: Any, **_: Any):
        """Stop behind a test, whose result the checkpoint then holds."""
        self._stop(arguments[2])

    def _stop(self, control: TrainerControl) -> None:
        if self._is_asked():
            control.should_training_stop = control.should_save = control.should_log = True

    def _is_asked(self) -> bool:
        args, is_asked = self.trainer.args, bool(self.request.number)
        if args.world_size > 1:
            number = torch.tensor(float(self.request.number), device=args.device)
            most = self.trainer.accelerator.gather(number[None]).max()
            self.request.number = self.request.number or int(most)
            is_asked = self.request.number > 0
        return is_asked
