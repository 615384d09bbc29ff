"""The trainer: Hugging Face's, with one packed forward for both losses and our decoder as its test.

It runs in one process or several. In several, each makes its part of a step's batches, and all
divide by the counts of the whole step; the first one alone decodes and writes.

Shapes: B = sequences, S = tokens of the longest, V = vocabulary.
"""

import copy
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer
from transformers.trainer_utils import TrainOutput

from jacobi_forcing.errors import DataError
from jacobi_forcing.models import MaskBuilder
from jacobi_forcing.models.attention import FLEX, GROUPED, TILED, attention, can_flex, is_flex
from jacobi_forcing.models.masks import layer_windows
from jacobi_forcing.models.saving import finish
from jacobi_forcing.training.adapters import bare
from jacobi_forcing.training.batch import LengthSampler, PackedDataset, clean_part, layout_of
from jacobi_forcing.training.head import Head, Outputs, find_head
from jacobi_forcing.training.layout import NOISY
from jacobi_forcing.training.loss import consistency_weights, losses, token_counts
from jacobi_forcing.training.mask import dense_mask, flex_masks
from jacobi_forcing.training.online import OnlineDrafts

logger = logging.getLogger(__name__)

Metrics = dict[str, float]


class JacobiTrainer(Trainer):
    """Trains on packed sequences; `evaluate` decodes with the shipped decoder.

    Args:
        mask: `noise-conditioned`, `clean-context` or `windowed`.
        window: Blocks per window of the windowed mask.
        ar_weight: Factor of the AR loss at the first step.
        ar_weight_end: Its factor at the last step, with a straight line between; None for the same.
        consistency_weight: Factor of the consistency loss.
        consistency_per: `token` or `pair` (see `loss.consistency_weights`).
        consistency_decay: As there.
        teacher: Of the noisy stream: `self` or `frozen`, the clean stream's distributions by the
            model itself or by `frozen`; or `fixed-point`, the clean stream's tokens.
        ar_teacher: Of the clean stream: `fixed-point`, or `frozen`.
        frozen: The model as it was, where a teacher is `frozen`.
        online: Makes drafts while training; None trains on the noisy blocks of the packed data.
        nan_gradients: `stop` or `skip`.
        bf16_autocast: Train in bfloat16 autocast. It is ours and not Trainer's, because that one
            would stay on in the decoder tests, which are to see the weights as they will serve.
        chunk_tokens: Tokens whose logits exist at once; 0 for a whole batch's.
        decoder_test: Measures the model as it is; its `score` chooses the best checkpoint.
        **options: As for Trainer.
    """

    def __init__(
        self,
        *,
        mask: str,
        window: int,
        ar_weight: float,
        ar_weight_end: float | None = None,
        consistency_weight: float = 1.0,
        consistency_per: str = "token",
        consistency_decay: float = 1.0,
        teacher: str,
        ar_teacher: str = "fixed-point",
        frozen: nn.Module | None = None,
        online: OnlineDrafts | None = None,
        nan_gradients: str,
        bf16_autocast: bool = False,
        chunk_tokens: int = 512,
        decoder_test: Callable[[PreTrainedModel], Metrics],
        **options: Any,
    ):
        super().__init__(**options)
        self.remove_callback(PrinterCallback)  # its lines are raw dicts
        self.test_seconds = self.total_test_seconds = 0.0  # of the last decoder test, of all
        self.is_testing = False
        self.mask = mask
        self.window = window
        self.ar_weight = ar_weight
        self.ar_weight_end = ar_weight if ar_weight_end is None else ar_weight_end
        self.consistency_weight = consistency_weight
        self.consistency_per = consistency_per
        self.consistency_decay = consistency_decay
        self.teacher = teacher
        self.ar_teacher = ar_teacher
        self.frozen = frozen
        self.online = online
        self.nan_gradients = nan_gradients
        self.bf16_autocast = bf16_autocast
        self.chunk_tokens = chunk_tokens
        self.decoder_test = decoder_test
        # Our losses are divided by the token counts of the whole effective batch already.
        self.model_accepts_loss_kwargs = True
        self._sums: dict[str, float | Tensor] = {}
        self._prompts: list[int] = []  # of the step that is being made
        self._head = self._find_head(self.model)
        self._frozen_head = frozen and self._find_head(frozen)
        # Shards cannot decode in one process alone, so that one keeps a whole network for it.
        self._whole = copy_on_cpu(self.model) if self._decodes_a_copy else None

    @property
    def _decodes_a_copy(self) -> bool:
        return self.is_fsdp_enabled and self.accelerator.is_main_process

    def _find_head(self, network: nn.Module) -> Head | None:
        return find_head(bare(network), bf16=self.bf16_autocast) if self.chunk_tokens else None

    def _get_train_sampler(self, train_dataset: PackedDataset | None = None) -> Sampler:
        """Put sequences of similar lengths together, so that little is padding."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        # Of all processes together, so that their number changes no step's sequences.
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        batch *= self.args.world_size
        return LengthSampler(
            dataset.lengths, batch, self.args.seed, epoch=lambda: int(self.state.epoch or 0)
        )

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """Count what the means are taken over, in all micro-batches of a step.

        Returns:
            [3] float: AR tokens, consistency tokens by their weights, consistency tokens.
        """
        if not batch_samples:
            return None
        counts = sum(self._counts(batch) for batch in batch_samples).to(device)
        if self.args.world_size > 1:
            # Gradients are averaged over processes, so each divides by the average count.
            counts = self.accelerator.reduce(counts, "sum") / self.args.world_size
        return counts

    def _counts(self, batch: dict[str, Tensor]) -> Tensor:
        num_ar, num_consistency = token_counts(batch["ar_targets"], batch["teacher_index"])
        return torch.stack([num_ar.float(), self._weights(batch).sum(), num_consistency.float()])

    def _weights(self, batch: dict[str, Tensor]) -> Tensor:
        return consistency_weights(batch, per=self.consistency_per, decay=self.consistency_decay)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, with attention that leaves out what nobody sees."""
        with self.attending():
            return super().train(*args, **kwargs)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Let the networks attend as training does for a while."""
        networks = [bare(self.model)] + ([] if self.frozen is None else [self.frozen])
        with ExitStack() as stack:
            for network in networks:
                name = self._attention_of(network)
                if name is not None:
                    stack.enter_context(attention(network, name))
            yield

    def _attention_of(self, network: PreTrainedModel) -> str | None:
        """Choose by device; None for the attention that the network was loaded with."""
        if self.args.device.type == "cuda" and can_flex(network):
            return FLEX
        is_eager_cpu = self.args.device.type == "cpu" and not self.args.torch_compile
        return TILED if is_eager_cpu else None

    def get_batch_samples(self, *arguments: Any) -> tuple[list, Tensor | None]:
        """Take a step's batches; none behind the last step.

        Trainer counts its steps only after each one: a run that continues from its last checkpoint
        would make one step too many.
        """
        if self.state.global_step >= self.state.max_steps:
            return [], None
        samples, counts = super().get_batch_samples(*arguments)
        if self.online is None:
            return samples, counts
        step, size = self.state.global_step, self.args.train_batch_size
        # Micro-batches are dealt to the processes in turn.
        numbers = (k * self.args.world_size + self.args.process_index for k in range(len(samples)))
        self.model.eval()  # as in decoding, without dropout; training_step turns it on again
        with torch.no_grad():
            samples = [
                self.online.fill(self._prepare_inputs(batch), self._choices, step, number * size)
                for number, batch in zip(numbers, samples, strict=True)
            ]
        # Which tokens learn depends on the drafts, so they are counted again.
        return samples, self._get_num_items_in_batch(samples, self.args.device)

    def _choices(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the [B, S] ids that the model chooses behind each noisy token; 0 elsewhere."""
        outputs = self.outputs(self.model, inputs)
        noisy = inputs["stream"] == NOISY
        hidden = outputs.hidden[noisy].split(self.chunk_tokens or noisy.numel())
        choices = torch.cat([outputs.head(piece).argmax(-1) for piece in hidden])
        return torch.zeros_like(inputs["input_ids"]).masked_scatter_(noisy, choices)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Run one packed forward and combine both losses' token means."""
        counts = num_items_in_batch if num_items_in_batch is not None else self._counts(inputs)
        teachers: dict[str, Outputs | None] = {"fixed-point": None}
        if self.frozen is not None:
            with torch.no_grad():
                teachers["frozen"] = self.outputs(self.frozen, clean_part(inputs))
        student = teachers["self"] = self.outputs(model, inputs)
        found = losses(
            student,
            inputs["ar_targets"],
            inputs["teacher_index"],
            teachers[self.teacher],
            teachers[self.ar_teacher],
            weights=self._weights(inputs),
            chunk_tokens=self.chunk_tokens,
        )
        counts = counts.masked_fill(counts == 0, 1)  # no tokens: a mean of 0
        ar, consistency = found.ar / counts[0], found.consistency / counts[1]
        self._note(ar_loss=ar, consistency_loss=consistency, agreement=found.agreement / counts[2])
        done = self.state.global_step / max(1, self.state.max_steps)
        ar_weight = self.ar_weight + done * (self.ar_weight_end - self.ar_weight)
        loss = ar_weight * ar + self.consistency_weight * consistency
        return (loss, student) if return_outputs else loss

    def outputs(self, model: nn.Module, inputs: dict[str, Tensor]) -> Outputs:
        """Run a batch through the model, up to its head where that can be applied in chunks."""
        head = self._frozen_head if model is self.frozen else self._head
        if head is None:
            return Outputs.of_logits(self.packed_logits(model, inputs))
        with head.held_back() as caught:
            self.packed_logits(model, inputs)
        return Outputs(caught[0], head, head.parameters)

    def packed_logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Run a batch through the model under the training mask; [B, S, V] logits."""
        layout = layout_of(inputs)
        network = bare(self.accelerator.unwrap_model(model))
        if is_flex(network):
            mask = flex_masks(layout, self.mask, self.window, layer_windows(network.config))
        else:
            seen = dense_mask(layout, self.mask, self.window)
            # A padding row that sees nothing would be NaN in some kernels; let it see itself.
            seen = seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)
            mask = MaskBuilder(network)(seen, layout.position, layout.position)
        device = inputs["input_ids"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.bf16_autocast):
            return model(
                input_ids=inputs["input_ids"],
                position_ids=inputs["position_ids"],
                attention_mask=mask,
                use_cache=False,
            ).logits

    def _note(self, **values: Tensor) -> None:
        """Add to the sums that the next log line averages, without waiting for the device."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        self._sums["steps"] = (
            self._sums.get("steps", 0) + 1 / self.current_gradient_accumulation_steps
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log both losses and the agreement apart, averaged over the steps since the last line."""
        if "loss" in logs and self._sums:
            steps = self._sums.pop("steps")
            totals = torch.stack([torch.as_tensor(total) for total in self._sums.values()]) / steps
            if self.args.world_size > 1:
                totals = self.accelerator.reduce(totals, "mean")
            logs |= {n: round(x, 5) for n, x in zip(self._sums, totals.tolist(), strict=True)}
            self._sums = {}
        super().log(logs, *args, **kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Run one forward and backward; look at the gradients, not only at the loss.

        A finite loss can come with NaN gradients (the paper's authors saw it in their math run).
        The whole step is then dropped or the run stopped, before the optimizer's state is spoiled.
        """
        self._prompts += inputs.pop("prompt_index").tolist()
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Once per step is enough: what is added to a NaN stays NaN.
        if self.accelerator.sync_gradients:
            self._check_gradients(model, loss)
            self._prompts = []
        return loss

    def _check_gradients(self, model: nn.Module, loss: Tensor) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not gradients:
            return  # DeepSpeed has stepped already
        own = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
        is_bad = ~torch.isfinite(torch.stack(torch._foreach_norm(own))).all()
        prompts = self._prompts
        if self.args.world_size > 1:  # of shards, one process alone may see it
            is_bad = self.accelerator.reduce(is_bad.float(), "sum") > 0
        if not is_bad:
            return
        if self.args.world_size > 1:
            prompts = gather_object(prompts)
        found = (
            f"step {self.state.global_step + 1}: a gradient is not finite where the loss is "
            f"{float(loss):.4g}; the batch holds the prompts {prompts}"
        )
        if self.nan_gradients == "stop":
            raise DataError(
                f"{found}. Look at these prompts. With --nan-gradients skip the same command goes "
                "on from the last checkpoint; with a lower --learning-rate, start in another --out."
            )
        logger.warning("%s; this step is skipped.", found)
        model.zero_grad(set_to_none=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as Trainer does, then what the result's folder has too (`models.saving`)."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            network = bare(self.accelerator.unwrap_model(self.model))
            finish(network, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, *arguments: Any) -> None:
        """Load as Trainer does, which reads config.json without asking what family it is of."""
        with warnings.catch_warnings():
            # Only a family's own class knows what both spellings of a rotary setting are for.
            warnings.filterwarnings("ignore", message=".*rope_scaling.*")
            super()._load_from_checkpoint(*arguments)

    def _save_checkpoint(self, *arguments: Any) -> None:
        """Save a checkpoint whole or not at all, as on a full disk."""
        folder = Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(*arguments)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise DataError(
                f"{folder}: cannot write this checkpoint: {error}. The one before is kept; make "
                "room and run the same command again to continue."
            ) from error

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> Metrics:
        """Decode with the shipped decoder and log what it measures."""
        self.is_testing = True
        metrics = {f"{metric_key_prefix}_{name}": x for name, x in self.measure().items()}
        self.is_testing = False
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def measure(self) -> Metrics:
        """Run the decoder test, in the main process; all processes learn what it found."""
        start = time.monotonic()
        network = self.whole_network()
        found: list[Metrics] = [{}]
        if self.accelerator.is_main_process:
            was_training = network.training
            with attention(bare(network), GROUPED):  # as it will serve
                found = [self.decoder_test(bare(network.eval()))]
            network.train(was_training)
            if self._whole is not None:
                self._whole.cpu()  # a copy of all weights would not fit beside a training step
        metrics = broadcast_object_list(found)[0] if self.args.world_size > 1 else found[0]
        self.test_seconds = time.monotonic() - start
        self.total_test_seconds += self.test_seconds
        return metrics

    def whole_network(self) -> nn.Module:
        """Give the trained network with all its weights; all processes have to ask for it.

        Where it is sharded it is gathered into a copy, which the main process alone has; the others
        get their shards.
        """
        network = self.accelerator.unwrap_model(self.model)
        if not any(isinstance(p, DTensor) for p in network.parameters()):
            return network
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(self.model, options=options)
        if self._whole is None:
            return network
        self._whole.load_state_dict(weights)
        return self._whole.to(self.args.device)


def copy_on_cpu(network: nn.Module) -> nn.Module:
    """Copy a network; its device, which may have no room for two, holds no part of the copy."""
    known: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        found = tensor.detach().to("cpu", copy=True)
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(found, tensor.requires_grad) if is_parameter else found
    return copy.deepcopy(network, known)
