"""A job's log as it is written, until the job ends or its reader has seen enough."""

import asyncio
import contextlib
import sys
import time

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

PAUSE = 1.0
"""Seconds before a log is taken up again that broke off."""
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
            info = self.client.get_job_info(self.job)
            if info.status.is_terminal():
                self._write(self.client.get_job_logs(self.job))
                return info
            time.sleep(PAUSE)

    async def _print(self) -> None:
        text = ""
        async for chunk in self.client.tail_job_logs(self.job):
            text += chunk  # every connection begins with the first line again
            self._write(text)

    def _write(self, text: str) -> None:
        sys.stdout.write(text[self.printed :])
        sys.stdout.flush()
        self.printed = max(self.printed, len(text))


def _told(info: JobDetails) -> int:
    if info.status == "SUCCEEDED":
        return 0
    print(f"job {info.submission_id} {info.status.lower()}: {info.message}", file=sys.stderr)
    return info.driver_exit_code or 1


def _wanted(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False
