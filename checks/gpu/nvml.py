"""NVML as checks see it: GPUs that answer questions, with a reason wherever there is no answer.

The agent itself never calls NVML. A live answer comes from a killable child, a group of questions of one GPU at a time
(questions.py), and is shared by every check that runs within FRESH_SECONDS. A GPU whose call does not return is left
alone for a growing while, so it takes one deadline from one check and nothing from the others; when two are silent the
driver as a whole is left alone. A recorded node answers from its nvml.json behind the same calls.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from checks.base import Finding, Status
from checks.clock import Clock
from checks.gpu.answers import GROUP_OF, GROUPS, Missing, NoAnswer, Reason, decode
from checks.prober import ProbeError, ProbeHung, Prober, ProbeTimeout

# Answers younger than this are used again: all checks of one tick share one reading.
FRESH_SECONDS = 5.0
# A group of one GPU takes some milliseconds; NVML itself gives up on a busy GSP after 45 s (XID 119), which nobody
# should wait for.
GPU_DEADLINE_SECONDS = 5.0
# nvmlInit brings up every GPU when persistence mode is off: about 1 to 2 s a GPU.
DRIVER_DEADLINE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 600.0

Answers = Mapping[str, Any]
_DRIVER = "driver"


class Source(Protocol):
    """Where answers come from. Values are plain, or Missing in its plain form."""

    def driver(self) -> Answers:
        """The answers to SYSTEM, or {"driver": Missing} when there is no talking to it."""

    def gpu(self, index: int, group: str) -> Answers:
        """The answers of one group about the GPU with this NVML index."""


class LiveSource:
    """NVML of this machine, asked in a child behind the doors nvml:driver and nvml:gpuINDEX."""

    def __init__(
        self,
        prober: Prober,
        *,
        gpu_deadline: float = GPU_DEADLINE_SECONDS,
        driver_deadline: float = DRIVER_DEADLINE_SECONDS,
    ) -> None:
        self._prober = prober
        self._gpu_deadline = gpu_deadline
        self._driver_deadline = driver_deadline

    def driver(self) -> Answers:
        """See Source. Raises ProbeError."""
        answer: Answers = self._prober.call(
            "nvml:driver", "checks.gpu.questions:open_driver", deadline=self._driver_deadline
        )
        return answer

    def gpu(self, index: int, group: str) -> Answers:
        """See Source. Raises ProbeError."""
        answer: Answers = self._prober.call(
            f"nvml:gpu{index}", "checks.gpu.questions:read_gpu", index, group, deadline=self._gpu_deadline
        )
        return answer


class RecordedSource:
    """A recording's nvml.json: {"system": {...}, "all": {answers that every GPU gives}, "gpus": [{its own}, ...]}.

    A GPU of {"missing": "lost", "text": ...} is one whose handle NVML refuses; "hung" is one that does not answer. The
    file is read again at every reading, because a replayed scenario changes it while time goes by.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def driver(self) -> Answers:
        """See Source."""
        tree = self._tree()
        return {"gpus": len(tree["gpus"]), **tree["system"]}

    def gpu(self, index: int, group: str) -> Answers:
        """See Source."""
        tree = self._tree()
        gpu = tree["gpus"][index] if index < len(tree["gpus"]) else {"missing": "not_found", "text": "no such GPU"}
        if gpu.get("missing") == "hung":
            raise ProbeTimeout(f"nvml:gpu{index} gave no answer within {GPU_DEADLINE_SECONDS:g} s")
        if "missing" in gpu:
            return dict.fromkeys(GROUPS[group], gpu)
        answers = tree["all"] | gpu
        return {question: answers.get(question, _UNRECORDED) for question in GROUPS[group]}

    def _tree(self) -> dict[str, Any]:
        if not self._path.exists():
            missing = {"missing": str(Reason.NO_LIBRARY), "text": "NVML Shared Library Not Found"}
            return {"system": {_DRIVER: missing}, "gpus": []}
        tree: dict[str, Any] = {"all": {}, "gpus": [], **msgspec.json.decode(self._path.read_bytes())}
        return tree


_UNRECORDED = {"missing": str(Reason.NOT_SUPPORTED), "text": "not in this recording"}


@dataclass(slots=True)
class _Silence:
    """A GPU, or the driver, whose call did not return: what was asked, for how long it is left alone."""

    what: str
    text: str
    until: float
    pause: float
    since: float


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU. index: as NVML counts today. number: as people count, which stays when another GPU vanishes.

    pci: its address, "" when NVML never gave it. missing: why it cannot be talked to at all.
    """

    nvml: "Nvml"
    index: int
    number: int
    pci: str
    identity: Answers
    missing: Missing | None = None

    @property
    def component(self) -> str:
        """`gpu/3`."""
        return f"gpu/{self.number}"

    @property
    def model(self) -> str:
        """The product's name, "" when NVML does not give it."""
        name = decode(self.identity.get("name", ""))
        return "" if isinstance(name, Missing) else str(name)

    def ask(self, question: str) -> Any:
        """The answer as a plain value, or Missing."""
        return decode(self.nvml.answers(self.index, GROUP_OF[question]).get(question, _UNRECORDED))

    def value(self, question: str) -> Any:
        """The answer. Raises NoAnswer."""
        answer = self.ask(question)
        if isinstance(answer, Missing):
            raise NoAnswer(question, answer)
        return answer

    def integer(self, question: str) -> int:
        """The answer as a number. Raises NoAnswer, also for a negative one where the question has none."""
        answer = self.value(question)
        if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
            raise NoAnswer(question, Missing(Reason.SENTINEL, f"{answer!r} is no such number"))
        return answer

    def integers(self, question: str) -> list[int]:
        """The answer as numbers. Raises NoAnswer."""
        answer = self.value(question)
        if not isinstance(answer, list) or not all(isinstance(part, int) for part in answer):
            raise NoAnswer(question, Missing(Reason.SENTINEL, f"{answer!r} is no list of numbers"))
        return answer

    def optional(self, question: str) -> int | None:
        """The number, or None when there is none for whatever reason."""
        answer = self.ask(question)
        return answer if isinstance(answer, int) and not isinstance(answer, bool) else None


@dataclass(slots=True)
class Nvml:
    """NVML of one node. Safe to use from several threads: readings go one after the other."""

    source: Source
    clock: Clock
    pci_addresses: Callable[[], list[str]]
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _cache: dict[str, tuple[float, Answers]] = field(default_factory=dict)
    _silent: dict[str, _Silence] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _by_index: dict[int, str] = field(default_factory=dict)
    _count: int = 0

    def state(self) -> Missing | None:
        """Why there is no talking to the driver, or None."""
        missing = decode(self._driver().get("driver"))
        return missing if isinstance(missing, Missing) else None

    def system(self, question: str) -> Any:
        """An answer of SYSTEM, or Missing."""
        return decode(self._driver().get(question, _UNRECORDED))

    def gpus(self) -> list[Gpu]:
        """The GPUs that NVML counts, in its order; `missing` on those that cannot be talked to."""
        count = self.system("gpus")
        if not isinstance(count, int):
            return []
        self._count = count
        return [self._gpu(index) for index in range(count)]

    def silent(self) -> dict[str, str]:
        """Components whose calls do not return, with what was asked and since when in words."""
        now = self.clock.monotonic()
        with self._lock:
            return {
                self._component(
                    name
                ): f"{silence.text} (asked for {silence.what}; silent for {now - silence.since:.0f} s)"
                for name, silence in self._silent.items()
            }

    def remember(self, numbers: Mapping[str, int]) -> None:
        """Numbers that GPUs had before, by PCI address: a GPU keeps its number when another has vanished."""
        with self._lock:
            self._numbers = {**self._numbers, **numbers}

    def numbers(self) -> dict[str, int]:
        """The number of every GPU ever seen, by PCI address."""
        with self._lock:
            return dict(self._numbers)

    def answers(self, index: int, group: str) -> Answers:
        """The group's answers, at most FRESH_SECONDS old."""
        return self._read(str(index), group, lambda: self.source.gpu(index, group), GROUPS[group])

    def _driver(self) -> Answers:
        return self._read(_DRIVER, _DRIVER, self.source.driver, (_DRIVER,))

    def _gpu(self, index: int) -> Gpu:
        identity = self.answers(index, "identity")
        missing = decode(identity["pci"])
        if not isinstance(missing, Missing):
            pci = self._by_index[index] = str(missing)
            return Gpu(self, index, self.number(pci), pci, identity)
        pci = self._by_index.get(index) or self._enumerated(index)
        talks = missing.missing not in (Reason.LOST, Reason.HUNG)
        return Gpu(self, index, self.number(pci) if pci else index, pci, identity, None if talks else missing)

    def _enumerated(self, index: int) -> str:
        """The address of a GPU that NVML gives no answer about: NVML counts in PCI order, if it counts them all."""
        addresses = self.pci_addresses()
        return addresses[index] if len(addresses) == self._count else ""

    def _component(self, name: str) -> str:
        if name == _DRIVER:
            return "gpu"
        return f"gpu/{self._numbers.get(self._by_index.get(int(name), ''), int(name))}"

    def number(self, pci: str) -> int:
        """The GPU's number: in the order of PCI addresses, which is NVML's own, and the same ever after.

        Asks no NVML.
        """
        with self._lock:
            if pci not in self._numbers:
                for address in sorted({*self.pci_addresses(), pci}):
                    if address not in self._numbers:
                        self._numbers[address] = next(n for n in range(1000) if n not in self._numbers.values())
            return self._numbers[pci]

    def _read(self, name: str, group: str, read: Callable[[], Answers], questions: tuple[str, ...]) -> Answers:
        with self._lock:
            now = self.clock.monotonic()
            at, answers = self._cache.get(f"{name} {group}", (float("-inf"), {}))
            if 0 <= now - at < FRESH_SECONDS:
                return answers
            silence = self._silent.get(name)
            if silence is not None and now < silence.until:
                return _all_missing(questions, silence.text)
            try:
                answers = read()
            except (ProbeTimeout, ProbeHung) as error:
                return _all_missing(questions, self._went_silent(name, group, str(error)))
            except ProbeError as error:
                answers = {question: {"missing": "error", "text": str(error)} for question in questions}
            if silence is not None and silence.what == group:
                del self._silent[name]
            self._cache[f"{name} {group}"] = (self.clock.monotonic(), answers)
            return answers

    def _went_silent(self, name: str, group: str, text: str) -> str:
        """Leave it alone for a while, longer each time; two silent GPUs mean that the driver is."""
        now = self.clock.monotonic()
        before = self._silent.get(name)
        pause = min(before.pause * 2, _LONGEST_PAUSE_SECONDS) if before else _FIRST_PAUSE_SECONDS
        self._silent[name] = _Silence(group, text, now + pause, pause, before.since if before else now)
        if name != _DRIVER and _DRIVER not in self._silent and len(self._silent) > 1:
            self._silent[_DRIVER] = _Silence(_DRIVER, f"several GPUs are silent: {text}", now + pause, pause, now)
            self._cache.pop(f"{_DRIVER} {_DRIVER}", None)
        return text


def _all_missing(questions: tuple[str, ...], text: str) -> Answers:
    return {question: {"missing": str(Reason.HUNG), "text": text} for question in questions}


def each_gpu(nvml: Nvml, judge: Callable[[Gpu], Iterator[Finding]]) -> Iterator[Finding]:
    """What `judge` says of every GPU; `skipped` where there is none to judge (gpu_count tells of that), `unknown` for
    one whose answer is missing for another reason than that it has no such thing."""
    missing = nvml.state()
    if missing is not None:
        yield _skipped("gpu", f"{missing.text}: see gpu_count")
        return
    gpus = nvml.gpus()
    if not gpus:
        yield _skipped("gpu", "NVML counts no GPU: see gpu_count")
    for gpu in gpus:
        if gpu.missing is not None:
            yield _skipped(gpu.component, f"{gpu.missing.text}: see gpu_count")
            continue
        try:
            yield from judge(gpu)
        except NoAnswer as error:
            yield unanswered(gpu.component, error.question, error.missing)


_TOLD_BY_GPU_COUNT = (Reason.LOST, Reason.HUNG, Reason.NO_DRIVER, Reason.NO_LIBRARY, Reason.MISMATCH)


def unanswered(component: str, question: str, missing: Missing) -> Finding:
    """What a check says when a question that it needs has no answer."""
    what = question.replace("_", " ")
    if missing.missing is Reason.NOT_SUPPORTED:
        return _skipped(component, f"{what}: {missing.text.lower() or 'not supported'} on this GPU or driver")
    if missing.missing in _TOLD_BY_GPU_COUNT:
        return _skipped(component, f"{what}: {missing.text}: see gpu_count")
    permission = missing.missing is Reason.NO_PERMISSION
    return Finding(
        component=component,
        status=Status.UNKNOWN,
        kind=f"no_{question}",
        summary=f"{what}: {missing.text or missing.missing}",
        advice="run the agent as root"
        if permission
        else "compare with `nvidia-smi -q`; update the driver if it agrees",
    )


def _skipped(component: str, summary: str) -> Finding:
    return Finding(component=component, status=Status.SKIPPED, summary=summary)
