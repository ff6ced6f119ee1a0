"""Pass every cell of this kernel on to a second kernel, which has another Python.

How: the first kernel's answers to "execute", "complete" and "inspect" are replaced by asking the
second. What the second one says meanwhile (text, errors, tables, plots, progress bars, widgets)
is sent on as it is, so magics, interrupts and `input()` work as they do without the bridge.

Runs on Python 3.8 and later with what a Jupyter kernel brings.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Iterator  # noqa: UP035 - Python 3.8

from second_kernel import KernelDiedError, SecondKernel

if TYPE_CHECKING:
    from ipykernel.ipkernel import IPythonKernel

# The first kernel says these itself.
NOT_RELAYED = ("status", "execute_input", "iopub_welcome")
COMMS = ("comm_open", "comm_msg", "comm_close")
SECONDS_BETWEEN = 0.2  # two looks at what is said while no cell runs
REMEMBERED = 1000  # requests, for what is said after they have ended


class Bridge:
    """What stands between the two kernels.

    Args:
        kernel: the first kernel, as ipykernel runs it.
        second: the second one.
    """

    def __init__(self, kernel: IPythonKernel, second: SecondKernel) -> None:
        self.kernel = kernel
        self.second = second
        self.asking = False  # the reader, for input()
        self.counting = False  # in step with the first kernel
        self.lock = threading.RLock()  # newer kernels handle comms in threads of their own
        self.parents: OrderedDict[str, dict[str, Any]] = OrderedDict()  # requests by number

    def take_over(self) -> None:
        """Let the second kernel answer for the first from now on."""
        version = "__import__('platform').python_version()"
        self._run(f"print('From the next cell on this notebook runs on Python', {version})")
        self.kernel.do_execute = self.execute
        self.kernel.do_complete = self.complete
        self.kernel.do_inspect = self.inspect
        for kind in COMMS:
            self.kernel.shell_handlers[kind] = self.comm
        # Colab's own does not wait for the answer.
        from ipykernel.kernelbase import Kernel

        self.kernel.shell_handlers["complete_request"] = partial(
            Kernel.complete_request, self.kernel
        )
        # Newer kernels look for a comm before they pass it on, and miss those of the second kernel.
        logging.getLogger("Comm").setLevel(logging.ERROR)
        self._listen()

    def _listen(self) -> None:
        """Send on what is said between cells, such as the last words of a child process."""
        asyncio.get_event_loop().call_later(SECONDS_BETWEEN, self._listen)
        if not self.lock.acquire(blocking=False):
            return
        try:
            while self.second.has_said("iopub"):
                self._relay_one(self.second.next("iopub")[1])
        finally:
            self.lock.release()

    def _run(self, code: str) -> None:
        """Run code of our own on the second kernel."""
        self._answer(self.second.send("execute_request", {"code": code, "silent": True}))

    async def execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """Execute a cell; takes and returns what ipykernel's `do_execute` does."""
        self.kernel._allow_stdin = allow_stdin
        cell = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": user_expressions or {},
            "allow_stdin": allow_stdin,
            "stop_on_error": False,  # the first kernel holds back the cells that follow
        }
        try:
            with self.lock, self._interrupts():
                if not self.counting:
                    # Cell numbers go on where the first kernel has stopped.
                    self._run(f"get_ipython().execution_count = {self.kernel.execution_count}")
                    self.counting = True
                number = self._remember(self.kernel.get_parent("shell"))
                reply = self._answer(self.second.send("execute_request", cell, number=number))
        except KernelDiedError as error:
            return self._died(error)
        if not silent and store_history:
            self.kernel.shell.execution_count = reply["execution_count"] + 1
        return reply

    async def complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Complete what is being typed."""
        place = {"code": code, "cursor_pos": cursor_pos}
        with self.lock:
            return self._answer(self.second.send("complete_request", place))

    async def inspect(
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: object = ()
    ) -> dict[str, Any]:
        """Return the help on what the cursor stands on."""
        place = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        with self.lock:
            return self._answer(self.second.send("inspect_request", place))

    def comm(self, stream: object, ident: object, message: dict[str, Any]) -> None:
        """Pass on what a widget on the page says to its other half."""
        kind, content = message["header"]["msg_type"], message["content"]
        with self.lock, self._interrupts():
            number = self._remember(message)
            self._relay(self.second.send(kind, content, number=number, **attached(message)))

    def _answer(self, request: str) -> dict[str, Any]:
        """Relay until a request is done with; return the reply to it."""
        self._relay(request)
        while True:
            _, message = self.second.next("shell")
            if message["parent_header"].get("msg_id") == request:
                return message["content"]

    def _relay(self, request: str) -> None:
        """Send on what the second kernel says until it has done with a request."""
        while True:
            # What was printed comes before what is asked.
            channel, message = self.second.next("iopub", "stdin")
            if channel == "stdin":
                self._ask(message["content"])
            elif self._relay_one(message) == request:
                return

    def _relay_one(self, message: dict[str, Any]) -> str | None:
        """Send a message on to the cell it belongs to; return the request that it ends, if any."""
        kind, content = message["header"]["msg_type"], message["content"]
        request = message["parent_header"].get("msg_id")
        if kind not in NOT_RELAYED:
            self._say(kind, content, self.parents.get(request), **attached(message))
        elif content.get("execution_state") == "idle":
            return request
        return None

    def _remember(self, request: dict[str, Any]) -> str:
        """Keep a request of the page's, so that what belongs to it is told so; return its number.

        The second kernel knows it by the same number: widgets name it to the page.
        """
        number = request["header"]["msg_id"]
        self.parents[number] = {"header": request["header"]}
        while len(self.parents) > REMEMBERED:
            self.parents.popitem(last=False)
        return number

    def _say(
        self, kind: str, content: dict[str, Any], parent: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Say something to the notebook, in the first kernel's name."""
        parent = parent or self.kernel.get_parent("shell")
        self.kernel.session.send(self.kernel.iopub_socket, kind, content, parent, **more)

    def _ask(self, content: dict[str, Any]) -> None:
        """Ask the reader what the second kernel wants to know."""
        ask = self.kernel.getpass if content["password"] else self.kernel.raw_input
        self.asking = True
        try:
            value = ask(content["prompt"])
        except EOFError:
            value = "\x04"
        except KeyboardInterrupt:
            return  # the second kernel was interrupted, too, and no longer waits
        finally:
            self.asking = False
        self.second.send("input_reply", {"value": value}, "stdin")

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Send interrupts to the second kernel; the first only waits."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets only the main thread handle signals
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: Any) -> None:
        self.second.signal(signal.SIGINT)
        if self.asking:
            raise KeyboardInterrupt

    def _died(self, error: KernelDiedError) -> dict[str, Any]:
        """Say that the second kernel is gone, as the error of a cell."""
        words = f"The Python 3.11 kernel is gone: {error}\nRestart the kernel, begin at the top."
        content = {"ename": "KernelDiedError", "evalue": words, "traceback": [words]}
        self._say("error", content)
        return {"status": "error", "execution_count": self.kernel.execution_count, **content}


def attached(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message carries beside its content, above all a widget's bytes."""
    return {part: message[part] for part in ("metadata", "buffers")}
