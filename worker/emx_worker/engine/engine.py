"""The engine: images join and leave between steps, and all that are being read share each forward pass."""

import logging
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from emx_shared.contracts.report import Report
from emx_worker.engine.constraint import GrammarFailure, ReportConstraint, smallest_budget
from emx_worker.engine.decoder_runner import DecoderRunner
from emx_worker.engine.encoder import ImageEncoder
from emx_worker.engine.head import GreedyHead
from emx_worker.engine.memory import available, ran_out
from emx_worker.engine.progress import EngineProgress
from emx_worker.engine.prompt import question, room_for_prompt
from emx_worker.engine.scheduler import Scheduler
from emx_worker.engine.sequence import ReportSequence
from emx_worker.engine.slot_cache import SlotCache
from emx_worker.image_task import ENGINE_FAULT, GRAMMAR_FAULT, Generation, ImageFault, ImageTask
from emx_worker.model.architectures import image_patches
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import build_report

log = logging.getLogger("emx.engine")


class Engine:
    """Reads images with one model, by greedy decoding under the report grammar.

    What it writes about an image doesn't depend on the images in the same batch. For one thread at a time (see
    ``EngineThread``); ``progress`` may be read from any thread.
    """

    def __init__(self, loaded: LoadedModel, max_batch: int = 32) -> None:
        """Allocate the slots for the images that run together.

        Args:
            loaded: the model.
            max_batch: how many images may run together, if memory allows.

        Raises:
            ModelError: if no report fits into the token budget.
        """
        smallest = smallest_budget(loaded.box_decoding)
        if loaded.max_new_tokens < smallest:
            raise ModelError(
                f"max_new_tokens is {loaded.max_new_tokens}, but the shortest report has {smallest} tokens: "
                "raise it in emx.json."
            )
        self._loaded = loaded
        self._progress = EngineProgress()
        self._runner = DecoderRunner(loaded, slots_that_fit(loaded, max_batch), self._progress)
        self._scheduler, self._head = Scheduler(self._runner.slots), GreedyHead(loaded.model)
        self._encoder = ImageEncoder(loaded, self._progress)

    @property
    def slots(self) -> int:
        """Return how many images may run together."""
        return self._runner.slots.count

    @property
    def progress(self) -> int:
        """Count steps and layers so far. It stands still while the engine is idle, and while a forward hangs."""
        return self._progress.steps

    @property
    def busy(self) -> bool:
        """Tell whether any image is waiting or being read."""
        return self._scheduler.busy

    def read(self, tasks: Sequence[ImageTask]) -> list[Report | ImageFault]:
        """Read images, and return for each its report or the fault that it alone had, in order."""
        return [self.build_answer(task, result) for task, result in zip(tasks, self.generate(tasks), strict=True)]

    def generate(self, tasks: Sequence[ImageTask]) -> list[Generation | ImageFault]:
        """Read images, and return for each what the model wrote or its fault, in order."""
        sequences = [self.new_sequence(task) for task in tasks]
        for sequence in sequences:
            self.add(sequence)
        try:
            while self.busy:
                self.step()
        except BaseException:  # Ctrl-C: none of these images may appear in the next call
            self.fail_all(ENGINE_FAULT)
            raise
        return [sequence.result() for sequence in sequences]

    def build_answer(self, task: ImageTask, result: Generation | ImageFault) -> Report | ImageFault:
        """Build the report of a generation; a fault stays as it is."""
        if isinstance(result, ImageFault):
            return result
        return build_report(task, result, self._loaded.provenance, self._loaded.takes_indication)

    def new_sequence(self, task: ImageTask) -> ReportSequence:
        """Make the sequence of an image."""
        decoding, budget = self._loaded.box_decoding, self._loaded.max_new_tokens
        notation = decoding.notation(*task.image.size)
        return ReportSequence(
            task,
            question(self._loaded, task),
            notation,
            lambda: ReportConstraint(decoding, budget, notation),
        )

    def add(self, sequence: ReportSequence) -> None:
        """Queue a sequence. It begins in one of the next steps."""
        self._scheduler.add(sequence)

    def step(self) -> list[ReportSequence]:
        """Run one forward pass, and return the sequences that have ended."""
        self._scheduler.drop_cancelled()
        ended = self._scheduler.retire()
        batch = self._scheduler.schedule()
        try:
            self._run(batch)
        except Exception as error:
            self._recover(batch, error)
        return ended + self._scheduler.retire()

    def fail_all(self, fault: ImageFault) -> list[ReportSequence]:
        """End all sequences with a fault, and return them."""
        return self._scheduler.fail_all(fault)

    def _run(self, batch: list[ReportSequence]) -> None:
        if batch and batch[0].cached:
            self._choose_tokens(batch, self._runner.decode_step(batch))
            return
        self._encoder.encode(batch)
        if fresh := [sequence for sequence in batch if not sequence.ended]:
            slots = [self._scheduler.running.index(sequence) for sequence in fresh]
            self._choose_tokens(fresh, self._runner.prefill(fresh, slots))

    def _choose_tokens(self, batch: list[ReportSequence], hidden: Tensor) -> None:
        """Append to each sequence the best token that its constraint allows. ``hidden`` is (batch, width)."""
        # On a device that works by itself, the masks are computed while the forward pass is still running.
        allowed = np.stack([sequence.constraint.allowed().numpy() for sequence in batch])
        for sequence, choice in zip(batch, self._head.choose(hidden, allowed), strict=True):
            if choice.is_finite:
                self._append(sequence, choice.token, choice.probability)
            else:
                sequence.fault = ImageFault("not_finite", "The model's numbers overflowed on this image.")

    def _append(self, sequence: ReportSequence, token: int, probability: float) -> None:
        try:
            taken = sequence.constraint.take(token)
        except GrammarFailure:
            log.error("the grammar failed for %s", sequence.task.id)
            sequence.fault = GRAMMAR_FAULT
            return
        sequence.tokens += taken
        chosen = probability if taken[0] == token else 1.0  # else the budget ended the report
        sequence.probabilities += [chosen, *[1.0] * (len(taken) - 1)]
        if sequence.ended:
            sequence.mark()

    def _recover(self, batch: list[ReportSequence], error: Exception) -> None:
        """Run a failed batch again in a smaller form: it was too large, or one of its images broke it."""
        log.error("a forward pass of %d images failed", len(batch), exc_info=error)
        running = len(self._scheduler.running)
        if ran_out(error) and running > 1:
            self._scheduler.most = running - (len(batch) + 1) // 2
            log.warning("out of memory: from now on, %d images run together", self._scheduler.most)
        elif len(batch) > 1:
            for sequence in batch:
                sequence.alone = True
        else:
            batch[0].fault = ENGINE_FAULT
            return
        self._scheduler.requeue(batch)


def slots_that_fit(loaded: LoadedModel, most: int) -> int:
    """Return how many images memory allows to run together, 1 to ``most``, and log it."""
    config, vision = loaded.model.config.get_text_config(), loaded.model.config.vision_config
    patches = image_patches(loaded.model.config)
    capacity = room_for_prompt(loaded) + loaded.max_new_tokens
    cache = SlotCache.bytes_each(config, capacity, loaded.model.model.language_model.norm.weight.dtype)
    # During a prefill: the inputs and outputs of the widest layers of tower and decoder.
    tower = patches * (vision.intermediate_size + 6 * vision.hidden_size) * 4
    decoder = capacity * (3 * config.intermediate_size + 6 * config.hidden_size) * 4
    each: int = cache + max(tower, decoder) + config.vocab_size * 8
    fitting = max(available(loaded.device) // each, 1)
    count = min(fitting, most)
    log.info("%d images run together; memory has room for %d, at %.0f MB each", count, fitting, each / 1e6)
    return count
