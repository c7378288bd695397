"""The chain, shard by shard: who makes which cases, in this process or in several, and one case again."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

import torch

from .batch import Batch
from .context import choose_device
from .durable import read_json
from .errors import ConfigError, PluginFailure
from .execution import fit_stages, process, set_up
from .hookspecs import Observers
from .recipe import Recipe, Synthesis
from .registry import Registry, default_registry
from .run import Case, Regenerated, Run
from .store import RunStore, ShardDraft, pixel_columns, png_bytes, read_ledger

if TYPE_CHECKING:
    from .roles import Stage

ENCODERS = 4
BATCHES_IN_FLIGHT = 4


def synthesis_of(recipe: Recipe) -> Synthesis:
    """Return the recipe's chain and settings; raises ConfigError where it has none."""
    if recipe.synthesis is None:
        raise ConfigError(f"recipe {recipe.name!r} has no [[stage]], so there are no cases")
    return recipe.synthesis


def open_recipe_stages(recipe: Recipe, store: RunStore, device: torch.device, registry: Registry) -> dict[str, Stage]:
    """Return the recipe's stages set up with the checkpoints of this run folder, not yet fitted."""
    synthesis = synthesis_of(recipe)
    return set_up(
        synthesis.chain,
        device=device,
        precision=synthesis.precision,
        seed=recipe.seed,
        jobs=store.jobs,
        registry=registry,
    )


class HoldsFacts(Protocol):
    """A folder that says in its manifest, or in its trainings' facts, how many threads it was begun with."""

    manifest: Path
    jobs: Path


@contextmanager
def same_threads(store: HoldsFacts) -> Iterator[None]:
    """Compute the block with as many threads as the run began with, since their number can change last bits."""
    threads = torch.get_num_threads()
    for facts in (store.manifest, *sorted(store.jobs.glob("*/job.json"))):
        if facts.is_file():
            torch.set_num_threads(read_json(facts)["machine"]["threads"])
            break
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def missing_shards(store: RunStore, synthesis: Synthesis) -> list[range]:
    """Return the index ranges of the shards that are not committed yet."""
    starts = range(0, synthesis.count, synthesis.shard_size)
    shards = [range(start, min(start + synthesis.shard_size, synthesis.count)) for start in starts]
    return [shard for shard in shards if not store.shard(shard.start).exists()]


def make_shards(output: str | Path, *, worker: int, workers: int, device: str = "auto") -> int:
    """Make those missing shards of a prepared run folder that fall to ``worker`` of ``workers``; return their number.

    The unit of distribution: a process pool, Ray or a job array differ only in how they call this, after
    :func:`lesionforge.core.runner.prepare_run`.
    """
    registry = default_registry()
    run = Run(output)
    run.store.manifest_hash()
    target = choose_device(device)
    size = synthesis_of(run.recipe).shard_size
    with run.store.joined(), same_threads(run.store):
        shards = missing_shards(run.store, synthesis_of(run.recipe))
        mine = [shard for shard in shards if shard.start // size % workers == worker]
        stages = open_recipe_stages(run.recipe, run.store, target, registry)
        fit_stages(stages, None, run.store.fitted)
        ShardMaker(run.recipe, run.store, stages, registry.observers).make(mine)
    return len(mine)


def _die_with_parent() -> None:
    """Leave this worker at once when the process that started it is gone; what is not committed is made again."""
    parent = parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _start_worker() -> None:
    Thread(target=_die_with_parent, daemon=True).start()


def share_shards(output: Path, device: torch.device, workers: int, registry: Registry) -> None:
    """Let several processes make the missing shards, reporting each as it is committed.

    Raises:
        PluginFailure: a worker was killed. What a worker raises stops the others.
    """
    store, known = RunStore(output), {shard.name for shard in RunStore(output).committed()}
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    numbers = range(workers)
    pending = {pool.submit(make_shards, output, worker=i, workers=workers, device=str(device)) for i in numbers}
    try:
        while pending:
            done, pending = wait(pending, timeout=0.5)
            for shard in store.committed():
                if shard.name not in known:
                    known.add(shard.name)
                    registry.observers.shard_done(first=int(shard.name), cases=len(read_ledger(shard)))
            for future in done:
                future.result()
    except BrokenProcessPool as error:
        raise PluginFailure(f"a worker was killed, perhaps for lack of memory; go on with --resume: {error}") from error
    finally:
        for process in active_children():  # after an error nobody waits for what they are at
            if pending:
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards one after another; encoding and disk writes overlap with the stages' work."""

    recipe: Recipe
    store: RunStore
    stages: Mapping[str, Stage]
    hooks: Observers

    def make(self, shards: Sequence[range]) -> None:
        """Make and commit ``shards``; when something fails, those before it stay committed."""
        manifest_hash = self.store.manifest_hash()
        drafts: list[ShardDraft] = []
        with ThreadPoolExecutor(ENCODERS) as encoders, ThreadPoolExecutor(1) as committer:
            commits: deque[Future[None]] = deque()
            try:
                for shard in shards:
                    draft = ShardDraft(self.store, shard.start, manifest_hash)
                    drafts.append(draft)
                    written = self._encode(shard, draft, encoders)
                    commits.append(committer.submit(self._commit, draft, written, shard))
                    while len(commits) > 1:
                        commits.popleft().result()
                        drafts.pop(0)
                for commit in commits:
                    commit.result()
            finally:
                encoders.shutdown(wait=True, cancel_futures=True)
                committer.shutdown(wait=True)
                for draft in drafts:
                    draft.discard()

    def _encode(
        self, shard: range, draft: ShardDraft, encoders: ThreadPoolExecutor
    ) -> list[Future[list[dict[str, Any]]]]:
        written: list[Future[list[dict[str, Any]]]] = []
        for batch, indices in self.batches(shard):
            written.append(encoders.submit(draft.write, indices, batch.to("cpu"), pixel_columns(batch)))
            if len(written) >= BATCHES_IN_FLIGHT:
                written[-BATCHES_IN_FLIGHT].result()
            for case, rejection in zip(batch.ids, batch.rejections, strict=True):
                if rejection is not None:
                    self.hooks.case_rejected(case_id=case, rejection=rejection)
            self.hooks.batch_done(cases=len(batch), kept=sum(batch.kept))
        return written

    def _commit(self, draft: ShardDraft, written: list[Future[list[dict[str, Any]]]], shard: range) -> None:
        draft.commit(written)
        self.hooks.shard_done(first=shard.start, cases=len(shard))

    def batches(self, shard: range) -> Iterator[tuple[Batch, list[int]]]:
        """Yield processed cases of ``shard`` with their indices.

        Batch k always holds cases k*B to k*B+B-1 whatever the shards, beyond the run's count too; so a case meets the
        same neighbours in the same rows in every run, and its bits cannot depend on shards, workers or resuming.
        """
        size = synthesis_of(self.recipe).batch_size
        for first in range(shard.start // size * size, shard.stop, size):
            batch = process(self.stages, Batch.blank(size, seed=self.recipe.seed, first=first), self.hooks)
            indices = [index for index in range(first, first + size) if index in shard]
            yield batch.select([index - first for index in indices]), indices


def regenerate_case(run: Run, case: Case, *, registry: Registry | None) -> Regenerated:
    """Make ``case`` of ``run`` again and compare its PNG bytes with the stored ones, see :meth:`Run.regenerate`."""
    registry = registry or default_registry()
    device = choose_device(run.manifest["machine"]["device"])
    with same_threads(run.store):
        stages = open_recipe_stages(run.recipe, run.store, device, registry)
        fit_stages(stages, None, run.store.fitted)
        maker = ShardMaker(run.recipe, run.store, stages, registry.observers)
        batch, _ = next(maker.batches(range(case.index, case.index + 1)))
    pixels = {column: stack[0] for column, stack in pixel_columns(batch).items()}
    hashes = {column: hashlib.sha256(png_bytes(array)).hexdigest() for column, array in pixels.items()}
    return Regenerated(case, pixels, hashes == dict(case.sha256))
