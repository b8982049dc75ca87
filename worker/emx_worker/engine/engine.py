"""The engine: studies join and leave between steps, and all that are under way share each forward."""

import logging
from collections.abc import Sequence as Studies

import torch
from torch import Tensor

from emx_shared.contracts.report import Report
from emx_worker.engine.constraint import Constraint, GrammarFailure, smallest_budget
from emx_worker.engine.encoder import Encoder
from emx_worker.engine.head import Head
from emx_worker.engine.memory import available, ran_out
from emx_worker.engine.progress import Progress
from emx_worker.engine.prompt import question, room_for_prompt
from emx_worker.engine.runner import Runner
from emx_worker.engine.scheduler import Scheduler
from emx_worker.engine.sequence import Sequence
from emx_worker.engine.slots import Slots
from emx_worker.model.architectures import image_patches
from emx_worker.model.loading import LoadedModel, ModelError
from emx_worker.report_builder import ENGINE_FAULT, GRAMMAR_FAULT, Reading, Study, StudyFault, report_of

log = logging.getLogger("emx.engine")


class Engine:
    """Reads studies with one model, by greedy decoding under the report grammar.

    For one thread at a time (see ``EngineThread``); ``progress`` may be read from any.
    """

    def __init__(self, loaded: LoadedModel, max_batch: int = 32) -> None:
        """``max_batch``: studies that may run together, if memory allows.

        Raises ModelError if no report fits the token budget.
        """
        smallest = smallest_budget(loaded.dialect)
        if loaded.max_new_tokens < smallest:
            raise ModelError(
                f"max_new_tokens is {loaded.max_new_tokens}, and the shortest report has {smallest} tokens: "
                "raise it in emx.json."
            )
        self._loaded = loaded
        self._progress = Progress()
        self._runner = Runner(loaded, slots_that_fit(loaded, max_batch), self._progress)
        self._scheduler, self._head = Scheduler(self._runner.slots), Head(loaded.model)
        self._encoder = Encoder(loaded, self._progress)

    @property
    def slots(self) -> int:
        """Studies that run together."""
        return self._runner.slots.count

    @property
    def progress(self) -> int:
        """Steps and layers so far; it stands still when idle, and when a forward hangs."""
        return self._progress.steps

    @property
    def busy(self) -> bool:
        return self._scheduler.busy

    def read(self, studies: Studies[Study]) -> list[Report | StudyFault]:
        """A report for each study, in order, or the fault that it alone had."""
        return [self.answer(study, outcome) for study, outcome in zip(studies, self.write(studies), strict=True)]

    def answer(self, study: Study, outcome: Reading | StudyFault) -> Report | StudyFault:
        if isinstance(outcome, StudyFault):
            return outcome
        return report_of(study, outcome, self._loaded.provenance, self._loaded.takes_indication)

    def write(self, studies: Studies[Study]) -> list[Reading | StudyFault]:
        """What the model writes of each study, in order."""
        sequences = [self.sequence(study) for study in studies]
        for sequence in sequences:
            self.add(sequence)
        try:
            while self.busy:
                self.step()
        except BaseException:  # Ctrl-C: nothing of these may come up in the next call
            self.give_up(ENGINE_FAULT)
            raise
        return [self.outcome(sequence) for sequence in sequences]

    def sequence(self, study: Study, alone: bool = False) -> Sequence:
        """A study that hasn't begun. ``alone``: it is to run without batch-mates."""
        dialect, budget = self._loaded.dialect, self._loaded.max_new_tokens
        notation = dialect.notation(*study.image.size)
        return Sequence(
            study, question(self._loaded, study), notation, lambda: Constraint(dialect, budget, notation), alone
        )

    def add(self, sequence: Sequence) -> None:
        self._scheduler.add(sequence)

    def outcome(self, sequence: Sequence) -> Reading | StudyFault:
        """What the model wrote of a study that has ended, or its fault."""
        return sequence.outcome()

    def step(self) -> list[Sequence]:
        """One forward; returns the studies that have ended."""
        self._scheduler.drop_cancelled()
        ended = self._scheduler.retire()
        batch = self._scheduler.schedule()
        try:
            self._run(batch)
        except Exception as error:
            self._recover(batch, error)
        return ended + self._scheduler.retire()

    def give_up(self, fault: StudyFault) -> list[Sequence]:
        """End all studies with this fault; returns them."""
        return self._scheduler.give_up(fault)

    def _run(self, batch: list[Sequence]) -> None:
        if batch and batch[0].held:
            self._postprocess(batch, self._runner.go_on(batch))
            return
        self._encoder.encode(batch)
        if fresh := [sequence for sequence in batch if not sequence.ended]:
            slots = [self._scheduler.running.index(sequence) for sequence in fresh]
            self._postprocess(fresh, self._runner.begin(fresh, slots))

    def _postprocess(self, batch: list[Sequence], hidden: Tensor) -> None:
        """The best token that its constraint allows, for each row of ``hidden``."""
        finite = hidden.isfinite().all(dim=-1).tolist()
        allowed = torch.stack([sequence.constraint.allowed() for sequence in batch])
        chosen = zip(*self._head.choose(hidden, allowed), strict=True)
        for sequence, is_finite, (token, probability) in zip(batch, finite, chosen, strict=True):
            if not is_finite:
                sequence.fault = StudyFault("not_finite", "The model's numbers overflowed on this image.")
            else:
                self._append(sequence, token, probability)

    def _append(self, sequence: Sequence, token: int, probability: float) -> None:
        try:
            taken = sequence.constraint.take(token)
        except GrammarFailure:
            log.error("the grammar failed for %s", sequence.study.id)
            sequence.fault = GRAMMAR_FAULT
            return
        sequence.tokens += taken
        chosen = probability if taken[0] == token else 1.0  # else the budget ended it
        sequence.probabilities += [chosen, *[1.0] * (len(taken) - 1)]
        if sequence.ended:
            sequence.mark()

    def _recover(self, batch: list[Sequence], error: Exception) -> None:
        """A forward failed as a whole: it was too much together, or the fault of one of them."""
        log.error("a forward of %d studies failed", len(batch), exc_info=error)
        running = len(self._scheduler.running)
        if ran_out(error) and running > 1:
            self._scheduler.most = running - (len(batch) + 1) // 2
            log.warning("out of memory: from now on, %d studies run together", self._scheduler.most)
        elif len(batch) > 1:
            for sequence in batch:
                sequence.alone = True
        else:
            batch[0].fault = ENGINE_FAULT
            return
        self._scheduler.begin_again(batch)


def slots_that_fit(loaded: LoadedModel, most: int) -> int:
    """How many studies run together, up to ``most``; says so in the log."""
    config, vision = loaded.model.config.get_text_config(), loaded.model.config.vision_config
    patches = image_patches(loaded.model.config)
    capacity = room_for_prompt(loaded) + loaded.max_new_tokens
    cache = Slots.bytes_each(config, capacity, loaded.model.model.language_model.norm.weight.dtype)
    # While a study begins: the widest layers of the tower and of the decoder, with what they make of it.
    tower = patches * (vision.intermediate_size + 6 * vision.hidden_size) * 4
    decoder = capacity * (3 * config.intermediate_size + 6 * config.hidden_size) * 4
    each = cache + max(tower, decoder) + config.vocab_size * 8
    fitting = max(available(loaded.device) // each, 1)
    count = min(fitting, most)
    log.info("%d studies run together; memory has room for %d, at %.0f MB each", count, fitting, each / 1e6)
    return count
