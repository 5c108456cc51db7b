"""What is looked at before a release, one sentence each; plain Python.

A check judges facts that somebody else has read. What the action would refuse anyway ``blocks``;
everything else warns, because the one who releases may know better.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from apps.core.errors import Invalid
from apps.registry import metrics
from apps.registry.signature import Signature, TensorSpec
from apps.registry.snapshot import Arm, ArmRole
from apps.registry.states import RELEASABLE, VersionState

MEGABYTE = 1024**2
MOST_SHOWN = 3
# Numbers closer than this, relative to their size, are equal.
SAME = 1e-9
# Version, role, share (0 to 1) and variant of an arm.
Share = tuple[int, ArmRole, float, str | None]


class CheckState(StrEnum):
    """How a check ended; the words of the validation report."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        title: What was looked at.
        sentence: What was found, and what helps.
        blocks: Whether the release would be refused.
    """

    title: str
    state: CheckState
    sentence: str
    blocks: bool = False


def passed(title: str, sentence: str) -> Check:
    """Nothing stands in the way."""
    return Check(title, CheckState.PASSED, sentence)


def warned(title: str, sentence: str) -> Check:
    """Worth a thought; the release is possible."""
    return Check(title, CheckState.WARNING, sentence)


def refused(title: str, sentence: str) -> Check:
    """The release would be refused."""
    return Check(title, CheckState.FAILED, sentence, blocks=True)


# --- is it good? --------------------------------------------------------------------------------


def validation_check(versions: Mapping[int, str]) -> Check:
    """Judge the states of the versions that shall serve, by their numbers."""
    title = "Validated"
    bad = [f"version {number} is {state}" for number, state in versions.items() if _unfit(state)]
    if bad:
        return refused(title, f"{_listed(bad)}. Only a ready or deprecated version can serve.")
    old = [number for number, state in versions.items() if state == VersionState.DEPRECATED]
    if old:
        return warned(title, f"{_versions(old)} {_is(old)} deprecated; a newer one may be meant.")
    return passed(title, f"{_versions(sorted(versions))} passed validation.")


def _unfit(state: str) -> bool:
    return VersionState(state) not in RELEASABLE


def runtime_check(natives: Mapping[int, str], allowed: Iterable[str]) -> Check:
    """Judge the versions that are served natively, number to runtime, by the operator's switch."""
    title = "Runtime"
    if not natives:
        return passed(title, "Runs as ONNX inside the serving processes.")
    lacking = {number: one for number, one in natives.items() if one not in set(allowed)}
    if lacking:
        return refused(
            title,
            f"{_versions(sorted(lacking))} {_is(lacking)} served natively by "
            f"{_listed(sorted(set(lacking.values())))}, which this installation does not allow. "
            "Ask the operator to name it in MLP_NATIVE_FORMATS.",
        )
    return passed(
        title,
        f"{_versions(sorted(natives))} {_is(natives)} served natively in a runner of its own, "
        "which this installation allows.",
    )


def memory_check(needed: int, budget: int, *, required: bool) -> Check:
    """Judge bytes of memory against those of one serving process.

    Args:
        needed: By all models that must stay loaded with this release, or by this one alone where
            the endpoint is not required.
        budget: Of one serving process.
        required: Whether a serving process is ready only with this endpoint's model in memory.
    """
    title = "Memory"
    fits = needed <= budget
    room = f"{_megabytes(needed)} of the {_megabytes(budget)} that a serving process has"
    if required and not fits:
        return refused(
            title,
            f"The models that must stay loaded would need {room}. Archive a model, or ask the "
            "operator for more (MLP_POOL_MB).",
        )
    if not fits:
        return warned(
            title,
            f"It needs {room}, so it can never be loaded. Ask the operator for more (MLP_POOL_MB).",
        )
    if required:
        return passed(title, f"The models that must stay loaded need {room}.")
    return passed(title, f"It needs {room}; it is loaded when it is called.")


# --- does it fit those who call? ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Differences:
    """How a signature differs from the one that clients know.

    Attributes:
        breaking: What makes a client fail that works now.
        added: What is new and breaks nobody.
    """

    breaking: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def compare_signatures(known: Signature, new: Signature) -> Differences:
    """Compare a signature with the one that clients were written for."""
    breaking: list[str] = []
    added: list[str] = []
    for spec in known.inputs:
        found = new.input(spec.name)
        if found is None:
            breaking.append(f"the input `{spec.name}` is gone")
        else:
            _compare_input(spec, found, breaking, added)
    breaking += [
        f"the input `{spec.name}` is new, and clients do not send it"
        for spec in new.inputs
        if known.input(spec.name) is None
    ]
    for spec in known.outputs:
        found = new.output(spec.name)
        if found is None:
            breaking.append(f"the output `{spec.name}` is gone")
        else:
            _compare_output(spec, found, breaking)
    added += [
        f"the output `{spec.name}` is new"
        for spec in new.outputs
        if known.output(spec.name) is None
    ]
    if len(known.outputs) == 1 < len(new.outputs):
        breaking.append("rows of the answer become objects, because there are several outputs")
    if known.batchable and not new.batchable:
        breaking.append("only one row can be sent at a time")
    return Differences(tuple(breaking), tuple(added))


def _compare_input(
    known: TensorSpec, new: TensorSpec, breaking: list[str], added: list[str]
) -> None:
    name = f"the input `{known.name}`"
    if known.dtype != new.dtype:
        breaking.append(f"{name} becomes {new.dtype.value}, it was {known.dtype.value}")
    if not _takes(known.shape, new.shape):
        breaking.append(f"{name} becomes {_shape(new.shape)}, it was {_shape(known.shape)}")
    if not known.columns and new.columns:
        added.append(f"the columns of {name} have names")
    elif known.columns != new.columns:
        breaking.append(f"the columns of {name} {_columns(known.columns, new.columns)}")
    if (known.image is None) != (new.image is None):
        breaking.append(f"{name} {'takes' if new.image else 'no longer takes'} images")
    _compare_bounds(name, known, new, breaking, added)


def _compare_bounds(
    name: str, known: TensorSpec, new: TensorSpec, breaking: list[str], added: list[str]
) -> None:
    low = _tighter(known.minimum, new.minimum, upwards=True)
    high = _tighter(known.maximum, new.maximum, upwards=False)
    if low or high:
        breaking.append(f"{name} is bounded more narrowly")
    if new.categories and (not known.categories or set(known.categories) - set(new.categories)):
        breaking.append(f"{name} takes fewer categories")
    elif known.categories and set(new.categories) != set(known.categories):
        added.append(f"{name} takes more categories")


def _tighter(known: float | None, new: float | None, *, upwards: bool) -> bool:
    if new is None:
        return False
    return known is None or (new > known if upwards else new < known)


def _compare_output(known: TensorSpec, new: TensorSpec, breaking: list[str]) -> None:
    name = f"the output `{known.name}`"
    if known.dtype != new.dtype:
        breaking.append(f"{name} becomes {new.dtype.value}, it was {known.dtype.value}")
    if known.shape != new.shape:
        breaking.append(f"{name} becomes {_shape(new.shape)}, it was {_shape(known.shape)}")
    if known.classes != new.classes:
        breaking.append(f"the class names of {name} change")


def _takes(known: Sequence[int], new: Sequence[int]) -> bool:
    """Whether whatever fits the known shape fits the new one; -1 is any size."""
    return len(known) == len(new) and all(
        there in (-1, here) for here, there in zip(known, new, strict=True)
    )


def _shape(shape: Sequence[int]) -> str:
    return " x ".join("any" if size == -1 else str(size) for size in shape) or "a single value"


def _columns(known: Sequence[str], new: Sequence[str]) -> str:
    gone, come = set(known) - set(new), set(new) - set(known)
    if not gone and not come:
        return "stand in another order"
    said = [f"lose {_listed(sorted(gone)[:3])}"] if gone else []
    said += [f"gain {_listed(sorted(come)[:3])}"] if come else []
    return " and ".join(said)


def signature_check(known: Signature | None, new: Signature, *, live: int | None) -> Check:
    """Judge a signature against the live version's, ``live`` being that version's number."""
    title = "Signature"
    if known is None or live is None:
        return passed(title, "Nothing serves here yet, so no client depends on another signature.")
    found = compare_signatures(known, new)
    if found.breaking:
        said = _listed(found.breaking)
        return Check(
            title,
            CheckState.FAILED,
            f"Clients written for version {live} can break: {said}. Tell them first, or release "
            "it under another model's name.",
        )
    if found.added:
        return warned(
            title, f"Compatible with version {live}, with additions: {_listed(found.added)}."
        )
    return passed(title, f"The same inputs and outputs as version {live}.")


# --- is it better? ------------------------------------------------------------------------------


def metrics_check(
    production: Mapping[str, object], new: Mapping[str, object], *, live: int | None
) -> Check:
    """Judge metrics against those of production's version, ``live`` being its number."""
    title = "Metrics"
    if live is None:
        return passed(title, "Nothing is in production yet, so there is nothing to compare with.")
    pairs = [one for one in metrics.compared(new, production) if one.verdict]
    if not pairs:
        return warned(
            title,
            f"No metric of this version can be compared with those of version {live} in "
            "production. Upload versions with the same metric names.",
        )
    worse = [one for one in pairs if one.verdict == "worse"]
    if worse:
        return warned(title, f"Worse than version {live} in production: {_numbers(worse)}.")
    better = [one for one in pairs if one.verdict == "better"]
    if better:
        return passed(title, f"Better than version {live} in production: {_numbers(better)}.")
    return passed(title, f"As good as version {live} in production: {_numbers(pairs)}.")


def _numbers(pairs: Sequence[metrics.Compared]) -> str:
    shown = [f"{one.name} {one.mine:.4g} against {one.theirs:.4g}" for one in pairs[:MOST_SHOWN]]
    more = len(pairs) - len(shown)
    return _listed([*shown, f"{more} more"] if more else shown)


# --- who decides? -------------------------------------------------------------------------------


def approval_check(
    environment: str, *, waits: bool, may_release: bool, deciders: Sequence[str]
) -> Check:
    """Say whether a second person is needed, and who that can be.

    Args:
        environment: Where it is released to.
        waits: Whether releases there wait for approval.
        may_release: Whether the one who asks may release there.
        deciders: Names of the others of the team who may approve, or release there.
    """
    title = "Who decides"
    names = _listed(deciders[:5], last="or") + (" or others" if len(deciders) > 5 else "")
    if waits:
        return (
            warned(title, f"A second person must approve it: {names}, or a platform admin.")
            if deciders
            else warned(
                title,
                "A second person must approve it, and nobody else in the team may: a platform "
                "admin must, or the team needs another maintainer.",
            )
        )
    if not may_release:
        return refused(
            title,
            f"Your role does not suffice to release to {environment}. "
            f"Ask {names or 'a platform admin'} to do it.",
        )
    return passed(title, f"You release to {environment}; no second person is needed.")


def newest_check(number: int | None, waiting: Sequence[int], live: int | None) -> Check | None:
    """Judge the order of releases: what waits, and what went live after it was asked for.

    Args:
        number: Of the release that waits for a decision; None for one that is to be made.
        waiting: Numbers of all that wait at this endpoint.
        live: Number of the live release.
    """
    title = "Order"
    if number is not None and live is not None and live > number:
        return refused(
            title,
            f"Release {live} went live after release {number} was asked for. Reject it and ask "
            "for a new release.",
        )
    others = [one for one in waiting if one != number]
    if others:
        word = "release" if len(others) == 1 else "releases"
        verb = "waits" if len(others) == 1 else "wait"
        return warned(
            title,
            f"At this endpoint {word} {_listed([str(one) for one in others])} {verb} for approval "
            "too; an older one can no longer be approved when a newer one is live.",
        )
    return None


# --- what moves ---------------------------------------------------------------------------------


def shares_of(arms: Iterable[Arm]) -> dict[int, float]:
    """Return each answering version's part of the traffic, the largest first."""
    shares: dict[int, float] = {}
    for arm in arms:
        if arm.role is not ArmRole.SHADOW:
            shares[arm.version] = shares.get(arm.version, 0.0) + arm.share
    return dict(sorted(shares.items(), key=lambda one: (-one[1], one[0])))


@dataclass(frozen=True, slots=True)
class Move:
    """How much traffic goes from which versions to which; ``share`` is 0 to 1."""

    share: float
    losing: tuple[int, ...]
    gaining: tuple[int, ...]


def move_between(before: Iterable[Arm], after: Iterable[Arm]) -> Move:
    """Say how traffic moves from one release to another."""
    old, new = shares_of(before), shares_of(after)
    change = {one: new.get(one, 0.0) - old.get(one, 0.0) for one in sorted({*old, *new})}
    gaining = tuple(one for one, by in change.items() if by > SAME)
    losing = tuple(one for one, by in change.items() if by < -SAME)
    return Move(sum(change[one] for one in gaining), losing, gaining)


def with_share(live: Sequence[Arm], version: int, share: float) -> list[Share]:
    """Return shares in which a version has its own and the others keep their proportions.

    Args:
        live: Arms that serve now.
        version: Gets ``share``; it keeps its place and role where it has an arm that answers.
        share: Above 0 and below 1.

    Returns:
        Version, role, share and variant of each arm, as ``releases.arms_by_share`` takes them. A
        new arm stands last, so that units in it stay in it while its share grows.

    Raises:
        Invalid: Nothing else serves that could have the rest.
    """
    others = sum(arm.share for arm in live if _answers(arm) and arm.version != version)
    if others <= 0:
        raise Invalid("Nothing else serves here that could take the rest: choose 100 %.")
    shares: list[Share] = []
    placed = False
    for arm in live:
        if arm.version != version:
            part = arm.share * (1 - share) / others if _answers(arm) else arm.share
            shares.append((arm.version, arm.role, part, arm.variant))
        elif _answers(arm) and not placed:
            shares.append((version, arm.role, share, arm.variant))
            placed = True
    if not placed:
        shares.append((version, ArmRole.CANDIDATE, share, None))
    return shares


def _answers(arm: Arm) -> bool:
    return arm.role is not ArmRole.SHADOW


# --- words --------------------------------------------------------------------------------------


def _listed(said: Sequence[str], *, last: str = "and") -> str:
    """Join words as in a sentence."""
    if len(said) < 2:
        return "".join(said)
    return f"{', '.join(said[:-1])} {last} {said[-1]}"


def versions_words(numbers: Iterable[int]) -> str:
    """Say versions: *version 3*, *versions 3 and 4*, *nothing*."""
    said = [str(one) for one in numbers]
    if not said:
        return "nothing"
    return f"version {said[0]}" if len(said) == 1 else f"versions {_listed(said)}"


def _versions(numbers: Sequence[int]) -> str:
    words = versions_words(numbers)
    return words[:1].upper() + words[1:]


def _is(things: Mapping[int, str] | Sequence[int]) -> str:
    return "is" if len(things) == 1 else "are"


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.0f} MB"
