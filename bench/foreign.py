"""Peers in a process of another interpreter, because their packages cannot share ours."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from case import UnavailableError

END_SECONDS = 10.0


class Worker:
    """A process that answers every line of JSON with one; it ends with this object.

    An answer with "error" is a failure, whose text is the reason.
    """

    def __init__(self, python: str, script: Path, variables: Mapping[str, str]) -> None:
        """Start ``script`` in the interpreter ``python``, with more environment variables.

        Raises:
            UnavailableError: there is no such interpreter.
        """
        self._errors = tempfile.TemporaryFile()
        # Isolated: its own packages alone, none of this folder or of PYTHONPATH.
        command = [python, "-I", str(script)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **variables},
            )
        except OSError as error:
            raise UnavailableError(f"{python} does not start: {error.strerror}") from error
        self.end = weakref.finalize(self, _end, self._process)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to ``request``.

        Raises:
            UnavailableError: the process failed, or has ended.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except (BrokenPipeError, ValueError):
            line = b""
        try:
            answer = json.loads(line) if line else {"error": self._last_words()}
        except ValueError:
            answer = {"error": f"answered {line[:80]!r}, expected a line of JSON"}
        if "error" in answer:
            raise UnavailableError(f"{self._process.args[0]}: {answer['error']}")
        return answer

    @property
    def _requests(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _answers(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _last_words(self) -> str:
        """Return the status and the last line of the errors of the process, which has ended."""
        status = _end(self._process)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return f"ended with status {status}: {last}"


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let the process end by itself, as it does when nobody asks any more; return its status."""
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
