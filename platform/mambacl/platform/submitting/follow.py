"""A job's log as it is written, until the job ends or its reader has seen enough."""

import asyncio
import contextlib
import sys
import time

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

PAUSE = 1.0
"""Seconds before a log is taken up again that broke off."""
AWAY = 120.0
"""Seconds that the cluster may be out of reach, as for a laptop that wakes up."""
LEFT = 130
"""Exit code of who leaves with Ctrl-C."""


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print a job's log until it ends; returns its exit code, or 130 where its reader left with Ctrl-C.

    Ctrl-C asks whether the job is to be stopped, too; where there is no terminal to ask at, it goes on.
    """
    log = Log(client, job)
    while True:
        try:
            return _told(log.to_the_end())
        except KeyboardInterrupt:
            if not _wanted("\nstop the job, too? [y/N] "):
                print(f"job {job} goes on; ray job logs --follow {job} shows it again")
                return LEFT
            print("stopping: runs write a checkpoint first")
            client.stop_job(job)


class Log:
    """What a job prints, each character once."""

    def __init__(self, client: JobSubmissionClient, job: str) -> None:
        self.client, self.job = client, job
        self.printed = 0

    def to_the_end(self) -> JobDetails:
        """Print what has not been printed yet until the job is over; returns how it ended."""
        while True:
            with contextlib.suppress(RuntimeError, aiohttp.ClientError):  # where it breaks off, the job may well go on
                asyncio.run(self._print())
            if info := self._end():
                return info
            time.sleep(PAUSE)

    @retry(retry=retry_if_exception_type(OSError), stop=stop_after_delay(AWAY), wait=wait_fixed(PAUSE), reraise=True)
    def _end(self) -> JobDetails | None:
        """How the job ended, with the rest of its log; None while it goes on."""
        info = self.client.get_job_info(self.job)
        if not info.status.is_terminal():
            return None
        self._write(self.client.get_job_logs(self.job))
        return info

    async def _print(self) -> None:
        begin = 0  # every connection begins with the first line again
        async for chunk in self.client.tail_job_logs(self.job):
            self._write(chunk, begin)
            begin += len(chunk)

    def _write(self, text: str, begin: int = 0) -> None:
        """Print what is new in a part of the log that begins at a character."""
        sys.stdout.write(text[max(0, self.printed - begin) :])
        sys.stdout.flush()
        self.printed = max(self.printed, begin + len(text))


def _told(info: JobDetails) -> int:
    if info.status == "SUCCEEDED":
        return 0
    reason = (info.message or "").partition(", last available logs")[0]  # which are on the screen already
    print(f"job {info.submission_id} {info.status.lower()}: {reason}", file=sys.stderr)
    return info.driver_exit_code or 1


def _wanted(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False
