"""Case after case with one loaded network, the next one's images being read while one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.inference.job import Job, Options
from emim.inference.reading import Ready, read_case
from emim.package.bundle import Package


class LoadedModel:
    """A network on its device; what is done with a case, :meth:`run`, comes with the task."""

    def __init__(self, package: Package, device: str, options: Options, events: Events) -> None:
        from emim.inference.predict import load_network
        from emim.machine.device import open_device
        from emim.machine.heap import keep_large_blocks

        keep_large_blocks()
        self.card, self.options, self.events = package.card, options, events
        self.device = open_device(device, events)
        events.status(f"Loading the model {self.card.name} on {self.device}")
        self.network = load_network(package, self.device)

    def run(self, job: Job, ready: Ready) -> dict[str, Any]:
        """The result of one case."""
        raise NotImplementedError


def run_cases(
    kind: Callable[..., LoadedModel],
    package: Package,
    jobs: Sequence[Job],
    device: str,
    options: Options,
    events: Events,
) -> Iterator[tuple[Job, dict[str, Any] | Exception]]:
    """Each job with its result, or why there is none; ``kind`` loads the model."""
    if not jobs:  # there are more ranks than cases
        return
    with ThreadPoolExecutor(1) as reader:

        def read(job: Job) -> Future[Ready]:
            return reader.submit(read_case, job, package.card, options, events)

        ahead = read(jobs[0])
        model = kind(package, device, options, events)  # torch is imported meanwhile
        for job, following in zip(jobs, [*jobs[1:], None], strict=True):
            ready, ahead = ahead, None
            try:
                case = ready.result()
                if following is not None and not options.align:  # aligning tells of its own progress
                    ahead = read(following)
                result = model.run(job, case)
            except Cancelled:
                raise
            except Exception as error:  # one bad case must not cost the night's other cases
                result = error
            yield job, result
            if following is not None and ahead is None:
                ahead = read(following)


def failure(
    case: str, inputs: Mapping[str, str], error: Exception, events: Events, what: str
) -> dict[str, Any]:
    """The result of a case that failed; it is told by a warning and the event ``case``.

    Args:
        inputs: modality to file, as far as they are known.
        what: it was not, such as "segmented".
    """
    result = {"case": case, "inputs": dict(inputs), "error": tell_failure(case, error, events, what)}
    events.case(**result)
    return result


def tell_failure(case: str, error: Exception, events: Events, what: str) -> dict[str, Any]:
    """Warn of a case that was not ``what``; the error's ``what``, ``where`` and ``hint``."""
    if isinstance(error, EmimError):
        told = {"what": error.what, "where": error.where, "hint": error.hint}
    else:
        told = {"what": f"{type(error).__name__}: {error}", "where": None, "hint": None}
    events.warning(f"Case {case} was not {what}: {told['what']}", told["where"], told["hint"])
    return told
