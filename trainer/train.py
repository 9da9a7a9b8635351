"""The training run, to be read from top to bottom: join, determinism, data, model, shards, optimizer, checkpoint, loop.

Exit codes: 0 all steps are done; 143 stopped by SIGTERM with the last step saved, so start it again; 1 an error, which
stands typed in the message and in torchelastic's error file; 2 a wrong argument.
"""

import dataclasses
import gc
import math
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils import deterministic

from trainer import fingerprint, metrics
from trainer.beat import muster_beat
from trainer.checkpoint import Checkpoints, Facts, State
from trainer.config import Config, micro_batches
from trainer.data import MISSING, Loader, Order
from trainer.distributed import Votes, World, join, shorten
from trainer.errors import CheckpointMismatchError, DataChangedError, typed
from trainer.interval import Interval
from trainer.model import Block, Decoder
from trainer.numerics import Numerics
from trainer.progress import Figures, Reporter, Step
from trainer.rate import rate
from trainer.sources import open_source

STOPPED = 128 + signal.SIGTERM
_COLLECT_EVERY = 50  # steps between garbage collections, so that all ranks pause together


class Trainer:
    """One run of one rank. `step` counts finished steps over all attempts."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.step = 0
        self.tokens = 0
        self.signals: set[str] = set()
        self.pending: list[tuple[Step, Tensor, Tensor]] = []  # steps whose loss is still on the device
        self.loss: float | None = None
        self.stall = 0.0
        self.unreadable = 0  # files skipped while training that were said
        self.shown_at = (0, time.perf_counter())
        for number, word in ((signal.SIGTERM, "stop"), (signal.SIGUSR1, "save")):
            signal.signal(number, self._signalled(word))

        # Who we are
        if config.deterministic:
            # Read by cuBLAS when it starts, so before the first CUDA call.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.world = join(config.start_timeout)
        self.device = self.world.device
        self.reporter = Reporter(config.log if self.lead else None, config.steps)
        self.micro_size, self.micro_count = micro_batches(config, self.world.size)

        # The same numbers each time
        _determinism(config, self.world)

        # Data
        self.source = open_source(config, self.world, self.reporter.say)
        held_out = config.eval_batches * config.batch if config.eval_every else 0
        order = Order(self.source.sequences, config.seed, held_out)
        self.loader = Loader(self.source, order, config.batch, self.world.rank, self.world.size, config.workers)
        self.data_identity = f"{self.source.identity}:{held_out}:{config.seed}"

        # Model: built without memory, sharded, then given memory and numbers
        with torch.device("meta"):
            self.model = Decoder(config.model, config.sequence)
        self.flops_per_token = self.model.flops_per_token()
        _parallelise(self.model, config, self.world)
        self.model.to_empty(device=self.device)
        self.model.init_weights(config.seed)

        # Optimizer
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
        )
        self.numerics = Numerics(config.bad_steps, config.spike_factor)

        # Checkpoint
        self.checkpoints = self._checkpoints()
        self.interval = Interval(
            every=config.checkpoint_every,
            between_failures=86_400 / (config.failures_per_node_day * self.world.nodes),
        )
        self.last_save = time.monotonic()
        self._resume()
        self.reporter.begin(self.step)
        self.votes = Votes(self.world, ("stop", "save"))
        self._fingerprint()

    @property
    def lead(self) -> bool:
        return self.world.rank == 0

    def say(self, text: str) -> None:
        if self.lead:
            self.reporter.say(text)

    # The loop

    def run(self) -> int:
        """Train to the last step. Returns the exit code."""
        gc.disable()  # collected together below: ranks that pause one after the other hold each other up
        first = self.step
        while self.step < self.config.steps:
            muster_beat.beat(phase="compile" if self.config.compile and self.step == first else "train")
            self._one_step()
            if self.step == first + 1:
                shorten(self.world, self.config.step_timeout)
            if self.step % _COLLECT_EVERY == 0:
                gc.collect(1)
            evaluated = self._evaluate() if self._evaluation_due() else None
            if evaluated is not None or self.step % self._read_every == 0 or self.step == self.config.steps:
                self._read(evaluated)
            wanted = self.votes.count()
            if "stop" in wanted:
                return self._stopped()
            if "save" in wanted or self.interval.step_due(self.step):
                self._save()
            self.votes.cast(self._vote())
        self._finish()
        return 0

    def _one_step(self) -> None:
        begun = time.perf_counter()
        tokens = torch.from_numpy(self.loader.next())
        if self.device.type == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        loss = self._forward_backward(tokens)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # On the device, without waiting for it: a step with a gradient that is not finite changes nothing.
        cast(Any, self.optimizer).grad_scale = None
        cast(Any, self.optimizer).found_inf = (~torch.isfinite(norm)).float()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step + 1, self.config)
        if self.checkpoints is not None:
            self.checkpoints.staging_wait()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens += self.config.batch * self.config.sequence
        step = Step(
            step=self.step,
            loss=math.nan,
            grad_norm=math.nan,
            tokens=self.tokens,
            step_seconds=time.perf_counter() - begun,
            data_seconds=self.loader.waited,
        )
        self.pending.append((step, loss, norm))
        muster_beat.beat(
            step=self.step,
            tokens=self.tokens,
            loss=self.loss,
            step_seconds=step.step_seconds,
            data_seconds=step.data_seconds,
        )

    def _forward_backward(self, tokens: Tensor) -> Tensor:
        """This rank's share of the loss of the global batch, () fp32 on the device; gradients are left behind."""
        total = torch.zeros((), device=self.device)
        model = cast(FSDPModule, self.model)
        for number, micro in enumerate(torch.split(tokens, self.micro_size)):
            # Gradients of all but the last micro batch stay on the rank: one exchange a step.
            model.set_requires_gradient_sync(number == self.micro_count - 1)
            loss = self._loss(micro)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, tokens: Tensor) -> Tensor:
        """Cross-entropy of (batch, length + 1) tokens, summed and divided by all of a rank's tokens of a step."""
        inputs, targets = tokens[:, :-1].clamp_min(0), tokens[:, 1:]
        logits = self.model(inputs)
        total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=MISSING, reduction="sum")
        return total / (self.micro_size * self.micro_count * self.config.sequence)

    # What is said

    @property
    def _read_every(self) -> int:
        return self.config.log_every or (10 if self.device.type == "cuda" else 1)

    def _read(self, eval_loss: float | None) -> None:
        """Fetch the losses since the last time, in one go; write, show and judge them."""
        steps = [step for step, _, _ in self.pending]
        losses = torch.stack([loss for _, loss, _ in self.pending])
        dist.all_reduce(losses)
        losses /= self.world.size
        values = torch.stack((losses, torch.stack([norm for _, _, norm in self.pending]))).tolist()
        self.pending.clear()
        read = [
            dataclasses.replace(step, loss=loss, grad_norm=norm)
            for step, loss, norm in zip(steps, *values, strict=True)
        ]
        read[-1] = dataclasses.replace(read[-1], eval_loss=eval_loss)
        self.loss = read[-1].loss
        if self.lead:
            self.reporter.steps(read)
            self.reporter.show(read[-1], self._figures(read))
        if len(self.source.unreadable) > self.unreadable:
            self.unreadable = len(self.source.unreadable)
            *_, last = self.source.unreadable.values()
            # By any rank: each meets other files.
            self.reporter.say(
                f"rank {self.world.rank}: {self.unreadable} files skipped while training, the last: {last}"
            )
        for step in read:
            odd = self.numerics.follow(step.step, step.loss, step.grad_norm)
            if odd:
                self.say(odd)

    def _figures(self, read: list[Step]) -> Figures:
        before, since = self.shown_at
        now = time.perf_counter()
        self.shown_at = (self.step, now)
        seconds = max(now - since, 1e-9)
        speed = (self.step - before) * self.config.batch * self.config.sequence / seconds
        stall, self.stall = self.stall, 0.0
        return Figures(
            tokens_per_second=speed,
            mfu=metrics.mfu(speed, self.flops_per_token, metrics.device_name(self.device), self.world.size),
            data_share=sum(step.data_seconds for step in read) / sum(step.step_seconds for step in read),
            memory=metrics.memory_bytes(self.device),
            stall=stall,
        )

    def _fingerprint(self) -> None:
        path = self.config.fingerprint
        if path is None and self.config.checkpoint_dir is not None:
            path = self.config.checkpoint_dir / "fingerprint.jsonl"
        nodes: list[Any] = [None] * self.world.size
        dist.all_gather_object(nodes, fingerprint.node(self.device), group=self.world.control)
        if path is None or not self.lead:
            return
        config = dataclasses.asdict(self.config)
        try:
            fingerprint.append(
                path, fingerprint.record(self.config.digest(), config, self.data_identity, nodes, time.time())
            )
        except OSError as error:
            self.say(f"fingerprint {path} cannot be written, training goes on without it: {error}")

    # Evaluation

    def _evaluation_due(self) -> bool:
        return self.config.eval_every > 0 and self.step % self.config.eval_every == 0

    @torch.no_grad()
    def _evaluate(self) -> float:
        """The loss on sequences that are never trained on."""
        with muster_beat.phase("eval"):
            total = torch.zeros((), device=self.device)
            for number in range(self.config.eval_batches):
                tokens = torch.from_numpy(self.loader.held_out(number)).to(self.device)
                for micro in torch.split(tokens, self.micro_size):
                    total += self._loss(micro)
            dist.all_reduce(total)
            return float(total.item()) / self.world.size / self.config.eval_batches

    # Checkpoints

    def _checkpoints(self) -> Checkpoints | None:
        if self.config.checkpoint_dir is None:
            return None
        made = Checkpoints(
            self.config.checkpoint_dir,
            self.world,
            keep=self.config.checkpoint_keep,
            keep_every=self.config.checkpoint_keep_every,
            failures_allowed=self.config.checkpoint_failures,
            say=self.say,
            synchronous=self.config.checkpoint_sync,
        )
        made.open()
        return made

    def _state(self, ranks: bool) -> State:
        """Every tensor that the next step depends on, in place. `ranks`: the random state of each rank among them."""
        state: State = {f"model.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            slots = self.optimizer.state[parameter]
            if not slots:
                slots["step"] = torch.zeros((), device=self.device)
                slots["exp_avg"] = torch.zeros_like(parameter)
                slots["exp_avg_sq"] = torch.zeros_like(parameter)
            state.update({f"optimizer.{name}.{key}": value for key, value in slots.items()})
        if ranks:
            state[f"random.cpu.{self.world.rank}"] = torch.get_rng_state()
            if self.device.type == "cuda":
                state[f"random.cuda.{self.world.rank}"] = torch.cuda.get_rng_state(self.device)
        return state

    def _save(self, *, wait: bool = False) -> None:
        if self.checkpoints is None:
            return
        with muster_beat.phase("checkpoint"):
            begun = time.monotonic()
            facts: Facts = {
                "step": self.step,
                "samples": self.loader.taken,
                "tokens": self.tokens,
                "world_size": self.world.size,
                "device": self.device.type,
                "model": dataclasses.asdict(self.config.model),
                "data": self.data_identity,
                "batch": self.config.batch,
                "config_hash": self.config.digest(),
            }
            self.checkpoints.save(self.step, self._state(ranks=True), facts, wait=wait)
            self.last_save = time.monotonic()
            self.stall += self.last_save - begun

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = self.checkpoints.find() if self.checkpoints is not None else None
        if self.checkpoints is None or found is None:
            self.say(f"starting at step 0: {self.source.sequences} sequences, {self.world.size} ranks")
            return
        path, facts = found
        if facts["model"] != dataclasses.asdict(self.config.model):
            raise CheckpointMismatchError(f"{path}: of another model than --preset {self.config.preset}")
        if facts["data"] != self.data_identity:
            raise DataChangedError(
                f"{path}: trained on {facts['data']}, --data is {self.data_identity}; give the same data, sequence, "
                "seed and evaluation, or another --checkpoint-dir"
            )
        same = facts["world_size"] == self.world.size and facts["device"] == self.device.type
        state = self._state(ranks=same)
        self.checkpoints.load(path, state)
        if same:
            torch.set_rng_state(state[f"random.cpu.{self.world.rank}"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state[f"random.cuda.{self.world.rank}"], self.device)
        self.step, self.tokens, self.loader.taken = facts["step"], facts["tokens"], facts["samples"]
        muster_beat.beat(step=self.step, tokens=self.tokens)
        self.say(f"resuming at step {self.step} from {path} (saved by {facts['world_size']} ranks)")

    # Ends

    def _signalled(self, word: str) -> Callable[[int, FrameType | None], None]:
        def handler(number: int, frame: FrameType | None) -> None:
            self.signals.add(word)

        return handler

    def _vote(self) -> set[str]:
        votes, self.signals = self.signals, set()
        cost = self.checkpoints.cost if self.checkpoints is not None else None
        if self.lead and cost and self.interval.time_due(time.monotonic(), self.last_save, cost.stall, cost.total):
            votes = votes | {"save"}
        return votes

    def _stopped(self) -> int:
        self.say(f"SIGTERM: saving step {self.step} and leaving with exit code {STOPPED}")
        if self.pending:
            self._read(None)
        self._save_last()
        self._close()
        return STOPPED

    def _finish(self) -> None:
        self._save_last()
        self._close()
        self.say(f"done: {self.step} steps, {self.tokens:,} tokens")

    def _save_last(self) -> None:
        if self.checkpoints is None:
            return
        self.checkpoints.settle()
        if self.checkpoints.saved != self.step:
            self._save(wait=True)
        self.checkpoints.require(self.step)

    def _close(self) -> None:
        muster_beat.beat(phase="teardown")
        if self.checkpoints is not None:
            self.checkpoints.close()
        self.loader.close()
        dist.barrier(group=self.world.control)
        dist.destroy_process_group()


def _determinism(config: Config, world: World) -> None:
    torch.manual_seed(config.seed + world.rank)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        # Every value here is written before it is read: do not spend time on filling new memory with NaN.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_num_threads(1)  # sums over several threads depend on how many there are
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))


def _parallelise(model: Decoder, config: Config, world: World) -> None:
    """Recompute, compile and shard: block by block, then what is left."""
    if config.precision == "fp32" or (config.precision == "auto" and world.device.type == "cpu"):
        policy = MixedPrecisionPolicy()
    else:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        cast(Block, block).recompute = config.activation_checkpoint
        if config.compile:
            # The forward alone: FSDP's hooks stay outside the compiled part, and parameters keep their names.
            block.forward = torch.compile(block.forward, fullgraph=True)
        fully_shard(block, mesh=world.mesh, mp_policy=policy)
    fully_shard(model, mesh=world.mesh, mp_policy=policy)


@record
def main(config: Config) -> int:
    """Run to the end. Raises TrainerError where the cause is known, whatever torch raised where it is not."""
    torch.set_float32_matmul_precision("high")
    try:
        return Trainer(config).run()
    except (RuntimeError, OSError) as error:
        known = typed(error)
        if known is None:
            raise
        raise known from error
