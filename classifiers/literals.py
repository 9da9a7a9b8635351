"""What every match of a pattern must contain: the literals that are looked for in all of a log.

A thousand plain strings are found in one pass at memory speed; the patterns themselves then read only the few lines
that hold one of their strings.
"""

from dataclasses import dataclass

# A pattern without a string of this length would make too many lines candidates.
SHORTEST = 4
_MOST = 100  # strings that one pattern may need
# Words of every line of a healthy log: long, and yet no help.
_EVERYDAY = frozenset(
    [
        "loss",
        "norm",
        "grad_norm",
        "grad norm",
        "gradnorm",
        "gnorm",
        "step",
        "error",
        "errors",
        "failed",
        "fail",
        "lost",
        "health",
        "checkpoint",
        "nccl",
        "iteration",
        "device",
        "memory",
        "timeout",
        "warning",
        "dataset",
        "worker",
        "rank",
        "rdma",
        "fatal",
    ]
)
_LONGEST = 48  # of a string: more makes it no rarer


@dataclass(frozen=True, slots=True)
class Part:
    """Of a piece of a pattern: all strings it can match if they are few, and a set of which every match holds one."""

    exact: frozenset[str] | None
    needs: frozenset[str] | None

    def best(self) -> frozenset[str] | None:
        """The rarer of the two."""
        found = [strings for strings in (self.exact, self.needs) if strings]
        return max(found, key=_rarity, default=None)


_ANYTHING = Part(None, None)
_NOTHING = Part(frozenset({""}), None)


def literals(pattern: str, ignore_case: bool = False) -> tuple[frozenset[str], bool]:
    """Strings of which every match holds at least one, and whether they are to be found in either case.

    Raises ValueError when there are none that are long enough.
    """
    if pattern.startswith("(?i)"):
        pattern, ignore_case = pattern[4:], True
    found = _Parser(pattern).whole().best()
    strings = frozenset(one.lower() if ignore_case else one for one in found or ())
    if not strings or min(map(len, strings)) < SHORTEST:
        short = sorted(strings, key=len)[:3]
        raise ValueError(f"every way to match must hold a fixed text of {SHORTEST} characters; this has {short}")
    return _without_longer(strings), ignore_case


def _without_longer(strings: frozenset[str]) -> frozenset[str]:
    """Those that hold no other one of the set: finding the other is enough."""
    return frozenset(one for one in strings if not any(other != one and other in one for other in strings))


def _rarity(strings: frozenset[str]) -> tuple[int, int]:
    """Length as a measure of rarity, in half characters: an everyday word counts for three and a half."""
    return min(7 if one.lower().strip() in _EVERYDAY else 2 * len(one) for one in strings), -len(strings)


class _Parser:
    """Reads the syntax that rules may use: groups, alternatives, classes, escapes, repeats."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def whole(self) -> Part:
        part = self._alternatives()
        if self._at < len(self._pattern):
            raise ValueError(f"unbalanced ) at {self._at}")
        return part

    def _alternatives(self) -> Part:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        exact = _union([branch.exact for branch in branches])
        return Part(exact, _union([branch.best() for branch in branches], most=10 * _MOST))

    def _sequence(self) -> Part:
        run: frozenset[str] = frozenset({""})
        candidates: list[frozenset[str]] = []
        whole = True
        while self._peek() not in ("", "|", ")"):
            part = self._repeated()
            longer = _product(run, part.exact) if part.exact is not None else None
            if longer is not None:
                run = longer
                continue
            whole = False
            candidates.append(run)
            if part.needs is not None:
                candidates.append(part.needs)
            run = part.exact if part.exact is not None else frozenset({""})
        candidates.append(run)
        best = max((one for one in candidates if min(map(len, one)) > 0), key=_rarity, default=None)
        return Part(run if whole else None, best)

    def _repeated(self) -> Part:
        part = self._atom()
        while (sign := self._peek()) and sign in "?*+{":
            least = self._count(sign)
            if self._peek() == "?":
                self._at += 1
            part = self._times(part, sign, least)
        return part

    def _times(self, part: Part, sign: str, least: int) -> Part:
        if sign == "?" and part.exact is not None:
            return Part(part.exact | {""}, None)
        return Part(None, part.best()) if least else _ANYTHING

    def _count(self, sign: str) -> int:
        self._at += 1
        if sign != "{":
            return 1 if sign == "+" else 0
        end = self._pattern.index("}", self._at)
        least = self._pattern[self._at : end].split(",")[0]
        self._at = end + 1
        return int(least or 0)

    def _atom(self) -> Part:
        sign = self._pattern[self._at]
        self._at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == "\\":
            return self._escape()
        return _ANYTHING if sign == "." else Part(frozenset({sign}), None)

    def _group(self) -> Part:
        if self._pattern.startswith("?:", self._at):
            self._at += 2
        elif self._pattern.startswith("?P<", self._at):
            self._at = self._pattern.index(">", self._at) + 1
        elif self._peek() == "?":
            raise ValueError("only (?:...) and (?P<name>...) groups are allowed in a rule's pattern")
        part = self._alternatives()
        if self._peek() != ")":
            raise ValueError("missing )")
        self._at += 1
        return part

    def _class(self) -> Part:
        end = self._at + (1 if self._peek() != "^" else 2)
        while self._pattern[end] != "]" or self._pattern[end - 1] == "\\":
            end += 1
        inside, self._at = self._pattern[self._at : end], end + 1
        simple = len(inside) <= 6 and not any(sign in inside for sign in "^-\\")
        return Part(frozenset(inside), None) if simple else _ANYTHING

    def _escape(self) -> Part:
        sign = self._pattern[self._at]
        self._at += 1
        if sign == "b":
            return _NOTHING
        if sign.isalnum():
            return Part(frozenset({"\t"}), None) if sign == "t" else _ANYTHING
        return Part(frozenset({sign}), None)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]


def _union(sets: list[frozenset[str] | None], most: int = _MOST) -> frozenset[str] | None:
    if any(one is None for one in sets):
        return None
    joined = frozenset().union(*(one for one in sets if one is not None))
    return joined if len(joined) <= most else None


def _product(left: frozenset[str], right: frozenset[str]) -> frozenset[str] | None:
    if len(left) * len(right) > _MOST or max(map(len, left)) + max(map(len, right)) > _LONGEST:
        return None
    return frozenset(a + b for a in left for b in right)
