"""A trainer of toys, the slow obvious version of its losses, and small runs of the stage."""

import numpy as np
import torch
from packs import flat, random_packed
from torch.nn.functional import one_hot
from toys import PAD, VOCAB
from transformers import TrainerCallback, TrainingArguments

from jacobi_forcing.config import TrainConfig
from jacobi_forcing.data.packed import num_tokens
from jacobi_forcing.stages import train
from jacobi_forcing.training.batch import Collator, PackedDataset
from jacobi_forcing.training.head import Outputs
from jacobi_forcing.training.layout import IGNORED, deinterleave
from jacobi_forcing.training.loss import losses, token_counts
from jacobi_forcing.training.online import DraftCollator, OnlineDrafts
from jacobi_forcing.training.trainer import JacobiTrainer

BLOCK = 4


class Snapshots(TrainerCallback):
    """Keeps the parameters before the first step and after every one."""

    def __init__(self):
        self.parameters = []

    def on_train_begin(self, args, state, control, model, **_):
        self.parameters.append(parameters(model))

    def on_step_end(self, args, state, control, model, **_):
        self.parameters.append(parameters(model))


def parameters(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def make_trainer(
    tmp_path,
    network,
    sequences,
    *,
    callbacks=(),
    pad_id=PAD,
    states="recorded",
    noise="text",
    **options,
):
    """A trainer with plain gradient descent and no clipping, so that steps show gradients."""
    is_online = states == "online"
    own = {
        "mask": "noise-conditioned",
        "window": 3,
        "ar_weight": 2.0,
        "consistency_weight": 1.0,
        "teacher": "self",
        "ar_teacher": "fixed-point",
        "frozen": None,
        "nan_gradients": "stop",
        "bf16_autocast": False,
        "chunk_tokens": 8,
        "ar_weight_end": None,
        "consistency_per": "token",
        "consistency_decay": 1.0,
        "decoder_test": lambda network: {"score": 0.0},
        "online": online_drafts(noise) if is_online else None,
    }
    if is_online:
        own["mask"] = "clean-context"
    settings = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    own |= {name: options.pop(name) for name in list(options) if name in own}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **settings | options,
    )
    return JacobiTrainer(
        model=network,
        args=arguments,
        train_dataset=PackedDataset(sequences),
        data_collator=draft_collator() if is_online else collator(pad_id),
        callbacks=list(callbacks),
        **own,
    )


def collator(pad_id=PAD, **options):
    settings = {"ar_on_prompt": False, "consistency_from": "first-difference"} | options
    return Collator(BLOCK, pad_id, **settings)


def draft_collator():
    return DraftCollator(
        BLOCK,
        PAD,
        ar_on_prompt=False,
        consistency_from="first-difference",
        draft_tokens=BLOCK,
        drafts_per_block=2,
    )


def online_drafts(noise="text"):
    return OnlineDrafts(
        BLOCK, 2, noise=noise, vocab_tokens=VOCAB, pad_id=PAD, from_start=False, seed=0
    )


def uneven_sequences():
    """Four sequences of different lengths and token counts; one has no noisy token at all."""
    found = random_packed(3, 40, BLOCK)
    chosen = [max(found, key=num_tokens), *found[:2]]
    [document] = found[2]
    prompt, _, clean = deinterleave(document.input_ids, document.prompt_length, BLOCK)
    converged = flat([prompt, *(block for block in clean for _ in range(2))])
    chosen.append((document._replace(input_ids=np.array(converged), prompt_index=99),))
    counts = [token_counts(b["ar_targets"], b["teacher_index"]).tolist() for b in alone(chosen)]
    assert len(set(map(num_tokens, chosen))) == 4
    assert counts[3][1] == 0
    assert len({c[0] for c in counts}) == len({c[1] for c in counts}) == 4
    return chosen


def alone(sequences):
    """Each sequence as a batch of its own."""
    return [collator()([s]) for s in sequences]


def slow_sums(network, batch, teacher=None, ar_teacher=None):
    """Both losses of a batch of one, from plain causal forwards and a loop over tokens.

    The noisy stream's context is all earlier noisy blocks: `noise-conditioned`.
    """
    ids, index = batch["input_ids"][0], batch["teacher_index"][0]
    prompt, clean, noisy = (batch["stream"][0] == s for s in (0, 2, 1))
    rows = {}
    models = (network, network, teacher or network, ar_teacher or network)
    for stream, model in zip((clean, noisy, clean, clean), models, strict=True):
        text = torch.cat([ids[prompt], ids[stream]])
        logits = model(input_ids=text[None], use_cache=False).logits[0]
        where = torch.cat([prompt.nonzero()[:, 0], stream.nonzero()[:, 0]]).tolist()
        rows[len(rows)] = dict(zip(where, logits, strict=True))
    ar = consistency = torch.zeros(())
    for place, target in enumerate(batch["ar_targets"][0].tolist()):
        if target != IGNORED:
            probs = one_hot(torch.tensor(target), len(rows[0][place])).float()
            if ar_teacher is not None:
                probs = rows[3][place].detach().softmax(-1)
            ar = ar - (probs * rows[0][place].log_softmax(-1)).sum()
    for place, taught_by in enumerate(index.tolist()):
        if taught_by >= 0:
            probs = rows[2][taught_by].detach().softmax(-1)
            consistency = consistency - (probs * rows[1][place].log_softmax(-1)).sum()
    return ar, consistency


def losses_of_logits(logits, targets, index, teacher, ar_teacher=None, **options):
    """Both losses of logits, which need no head."""
    outputs = (None if x is None else Outputs.of_logits(x) for x in (logits, teacher, ar_teacher))
    student, teacher, ar_teacher = outputs
    return losses(student, targets, index, teacher, ar_teacher, **options)


def slow_loss(network, sequences, ar_weight, teacher=None, ar_teacher=None):
    """Both losses as token means over all sequences."""
    batches = alone(sequences)
    counts = sum(token_counts(b["ar_targets"], b["teacher_index"]) for b in batches)
    sums = [slow_sums(network, b, teacher, ar_teacher) for b in batches]
    ar, consistency = (sum(parts) for parts in zip(*sums, strict=True))
    return ar_weight * ar / counts[0] + consistency / counts[1]


def gradient(loss, network):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*network.parameters()])])


def train_config(model, packed, out="-", **settings):
    return TrainConfig(model=str(model), packed=str(packed), out=str(out), **settings)


def small_run(toy, packed, out, **settings):
    defaults = {
        "max_steps": 12,
        "batch_size": 5,
        "learning_rate": 1e-3,
        "eval_prompts": "packed:2",
        "save_steps": 4,
        "threads": 1,
    }
    return train.run(train_config(toy, packed, out, **defaults | settings))
