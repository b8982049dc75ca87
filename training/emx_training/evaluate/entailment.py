"""Which sentences of one report another entails, as a language model at an OpenAI-compatible server judges.

After RadFact (Bannur et al., MAIRA-2, 2024): each sentence of the predicted report is judged given the true report
(precision), and each of the true report given the predicted one (recall). The figures are as good as the judge,
and comparable with those of the same judge and prompt only. The prompt is ``PROMPT``.
"""

import re
from dataclasses import dataclass

import httpx

from emx_shared.grammar import ReportText, as_prose, sentences
from emx_shared.root_error import ExplainMyXrayError
from emx_training.evaluate.true_reports import prose_of

PROMPT = """You compare reports of chest radiographs.

Report:
{report}

Sentence:
{sentence}

Does the report say, or does it follow from the report, that the sentence is true? Details that the report lacks, \
another side or another degree make it untrue. What the report doesn't mention isn't true, except that a finding \
is absent where the report says that nothing is abnormal.
Answer with one word: yes or no."""

_TIMEOUT = 120.0
_TRIES = 3
_FIRST_WORD = re.compile(r"[a-z]+")


class JudgeFailed(ExplainMyXrayError, RuntimeError):
    """The judge can't be reached, refuses, or answers neither yes nor no. The text says what to do."""


@dataclass(frozen=True)
class EntailedSentences:
    """What the judge said of two reports of one image.

    Attributes:
        right: sentences of the predicted report that the true one entails.
        written: sentences of the predicted report.
        covered: sentences of the true report that the predicted one entails.
        true: sentences of the true report.
    """

    right: int
    written: int
    covered: int
    true: int


class Judge:
    """A language model that judges sentences. A question that was asked before isn't asked again."""

    def __init__(self, url: str, model: str, key: str | None = None) -> None:
        """Name the judge; nothing is asked yet.

        Args:
            url: of the server, up to and including ``/v1``.
            model: its name there.
            key: sent as bearer token; None to send none.
        """
        self._url, self._model = url, model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.HTTPTransport(retries=_TRIES)
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT, transport=transport
        )
        self._answers: dict[str, bool] = {}

    def compare(self, true: ReportText, predicted: ReportText) -> EntailedSentences:
        """Judge the sentences of two reports of one image.

        Raises:
            JudgeFailed: if an answer can't be had or isn't yes or no.
        """
        reference, written = prose_of(true), prose_of(predicted)
        of_written, of_true = _sentences(written), _sentences(reference)
        return EntailedSentences(
            right=sum(self.entails(reference, one) for one in of_written),
            written=len(of_written),
            covered=sum(self.entails(written, one) for one in of_true),
            true=len(of_true),
        )

    def entails(self, report: str, sentence: str) -> bool:
        """Ask whether a sentence follows from a report; nothing follows from an empty one.

        Raises:
            JudgeFailed: as for ``compare``.
        """
        if not report:
            return False
        question = PROMPT.format(report=report, sentence=sentence)
        if question not in self._answers:
            self._answers[question] = self._ask(question)
        return self._answers[question]

    def _ask(self, question: str) -> bool:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 8,
            "temperature": 0,
        }
        try:
            answer = self._client.post("/chat/completions", json=body)
            answer.raise_for_status()
            text = str(answer.json()["choices"][0]["message"]["content"])
        except httpx.HTTPStatusError as error:
            raise JudgeFailed(
                f"The judge at {self._url} answered with status {error.response.status_code}: check EMX_SERVER, "
                f"EMX_SERVER_KEY, and that it has the model {self._model!r}."
            ) from None
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise JudgeFailed(
                f"The judge at {self._url} can't be asked ({type(error).__name__}): start an OpenAI-compatible "
                "server there, or correct EMX_SERVER."
            ) from None
        word = _FIRST_WORD.search(text.lower())
        if word is None or word.group() not in ("yes", "no"):
            raise JudgeFailed(
                f"{self._model} answers {text[:40]!r} where yes or no was asked for: name another judge."
            )
        return word.group() == "yes"


def _sentences(text: str) -> list[str]:
    line = as_prose(text)
    return [line[begin:end] for begin, end in sentences(line)]
