"""Many small trainings side by side, one in each thread."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from bla.errors import BlaError

Result = TypeVar("Result")


def run_jobs(name: str, jobs: Sequence[Callable[[], Result]], workers: int | None) -> list[Result]:
    """What the jobs return, in their order; `name` is the stage's section of params.yaml, which a BlaError names."""
    results = []
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(jobs), desc=name, disable=None) as bar:
        try:
            for result in pool.map(lambda job: job(), jobs):
                results.append(result)
                bar.update()
        except BaseException as error:
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BlaError):
                raise BlaError(f"params.yaml: {name}: {error}") from error
            raise
    return results
