"""The probe that runs by itself: briefly at the start, and again when many sessions fail alike.

It has a thread of its own, so that replay does not wait for it; all else is done by the loop's
thread, once a second: what it is to do, and what is logged of what it found. A mapped address and
port is taken for it as for a session, so that no session has it meanwhile.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from tcpcopy.doctor.alarm import tell
from tcpcopy.doctor.finding import Finding, Level, serious
from tcpcopy.doctor.probe import START_NS, ProbeConfig, probe
from tcpcopy.doctor.watch import Silence
from tcpcopy.engine.ports import Identities
from tcpcopy.errors import UsageError
from tcpcopy.relay.probing import Flow
from tcpcopy.report.context import SOCKET
from tcpcopy.threads import start_beside

_log = logging.getLogger("tcpcopy.doctor")
_SECOND_NS: Final = 1_000_000_000
_PAUSE_NS: Final = 60 * _SECOND_NS  # between probes after failures
_MANY: Final = 20  # sessions that failed, to be worth a probe
_CLIENT_PORT: Final = 40_000  # wanted; another is given when it is taken


@dataclass(frozen=True, slots=True)
class Sessions:
    """What the probe wants to know of the replay."""

    live: Callable[[], Iterator[tuple[bytes, int, bytes, int]]]  # mapped, port, target, port
    failed: Callable[[], int]  # sessions whose connection failed, until now
    established: Callable[[], int]
    can_connect: Callable[[], bool] = lambda: True  # the relay is up: else that is said already
    # For `watch.Silence`: sessions begun, those live, and what shows that the target answers.
    progress: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)


class StartProbe:
    """One probe at a time, of the first target. Its methods are for the loop's thread."""

    def __init__(
        self,
        config: ProbeConfig,
        identities: Identities | None,
        sessions: Sessions,
        *,
        client: bytes = b"",
        run: Callable[[ProbeConfig], list[Finding]] = probe,
    ) -> None:
        """`config.flow` names the target, and in socket mode the address to send from.

        `client`: an address that the mapped one may be made from; b"": the first session's, which
        is then waited for. `identities` is None in socket mode.
        """
        self._config = replace(config, limit_ns=START_NS, may_connect=False)
        self._identities = identities
        self._sessions = sessions
        self._client = client
        self._probe = run
        self._wanted = True
        self._why = ""  # of a probe after failures
        self._thread: threading.Thread | None = None
        self._found: list[Finding] | None = None
        self._flow: Flow | None = None  # its address and port is taken
        self._next_ns = 0
        self._failed = self._established = 0
        self._silence = Silence()

    def look(self, now_ns: int) -> None:
        """Start what is due, tell what was found; call about once a second."""
        if self._thread is not None:
            if not self._thread.is_alive():
                self._thread = None
                self._give_back(now_ns)
                self._tell()
            return
        self._look_for_failures(now_ns)
        if self._wanted and self._sessions.can_connect():
            flow = self._choose(now_ns)
            if flow is not None:
                self._wanted = False
                self._next_ns = now_ns + _PAUSE_NS
                self._begin(flow)

    def close(self, now_ns: int) -> None:
        """The run ends: tell what was found already."""
        if self._thread is not None and not self._thread.is_alive():
            self.look(now_ns)

    def _look_for_failures(self, now_ns: int) -> None:
        failed, established = self._sessions.failed(), self._sessions.established()
        more, better = failed - self._failed, established - self._established
        waiting = self._silence.look(*self._sessions.progress(), now_ns)
        if now_ns < self._next_ns:
            return
        if more >= _MANY and more > better:
            self._why = f"{more} sessions could not be connected"
            self._wanted = True
        elif waiting:
            self._why = f"{waiting} sessions wait for an answer of the target"
            self._wanted = True
        self._failed, self._established = failed, established
        self._next_ns = now_ns + _SECOND_NS

    def _choose(self, now_ns: int) -> Flow | None:
        """Whom to be for the target; None while there is nobody."""
        flow = self._config.flow
        if self._config.context.mode == SOCKET:
            return flow
        client, port = self._client, _CLIENT_PORT
        if not client:
            for mapped, mapped_port, target, _ in self._sessions.live():
                if len(mapped) == len(flow.target) and target == flow.target:
                    client, port = mapped, mapped_port
                    break
            else:
                return None
        if self._identities is None:
            return replace(flow, mapped=client)
        found = self._identities.acquire(
            client_address=client,
            client_port=port,
            target_address=flow.target,
            target_port=flow.target_port,
            copy=0,
            now_ns=now_ns,
        )
        if found is None:
            self._wanted = False  # no address of the target's family, or all are taken
            return None
        self._flow = Flow(flow.target, flow.target_port, *found)
        return self._flow

    def _give_back(self, now_ns: int) -> None:
        flow = self._flow
        if flow is not None and self._identities is not None:
            self._flow = None
            self._identities.release(
                flow.mapped, flow.mapped_port, flow.target, flow.target_port, now_ns=now_ns
            )

    def _begin(self, flow: Flow) -> None:
        config = replace(self._config, flow=flow)
        self._found = None
        self._thread = start_beside("probe", self._work, config)

    def _work(self, config: ProbeConfig) -> None:
        try:
            self._found = self._probe(config)
        except UsageError as error:
            self._found = [Finding("probe", Level.NOTE, f"not tried: {error}")]
        except Exception:
            problem = traceback.format_exc().splitlines()[-1]
            text = f"the probe failed by an error of its own: {problem}"
            self._found = [Finding("probe", Level.WARNING, text)]

    def _tell(self) -> None:
        """Log what was found: a line, and one for each step that mends it."""
        found, why = self._found or [], self._why
        self._why = ""
        if not serious(found):
            for finding in found:
                if finding.check == "probe" and finding.level is Level.OK:
                    _log.info("%sprobe: %s", f"{why}, but now " if why else "", finding.text)
            return
        if why:
            _log.warning("%s", why)
        tell(found)
