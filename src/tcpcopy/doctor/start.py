"""The probe that runs by itself: briefly at the start, and again when many sessions fail alike.

It has a thread of its own, so that replay does not wait for it; all else is done by the loop's
thread, once a second: what it is to do, and what is logged of what it found. A mapped address and
port is taken for it as for a session, so that no session has it meanwhile.

When it finds that real clients get the target's answers, sessions are stopped until the intercepts
say that this is mended; they are asked without a packet to the target, whose answer would go there.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tcpcopy.doctor.alarm import tell
from tcpcopy.doctor.finding import Finding, Level, serious
from tcpcopy.doctor.forwarding import still_forwards
from tcpcopy.doctor.probe import START_NS, ProbeConfig, probe
from tcpcopy.doctor.watch import Silence
from tcpcopy.engine.ports import Identities
from tcpcopy.errors import UsageError
from tcpcopy.relay.probing import Flow
from tcpcopy.threads import start_beside

_log = logging.getLogger("tcpcopy.doctor")
_SECOND_NS: Final = 1_000_000_000
_PAUSE_NS: Final = 60 * _SECOND_NS  # between probes after failures
_ASK_AGAIN_NS: Final = 10 * _SECOND_NS  # between questions whether sessions may be opened again
_MANY: Final = 20  # sessions that failed, to be worth a probe
_CLIENT_PORT: Final = 40_000  # wanted; another is given when it is taken


@dataclass(frozen=True, slots=True)
class Sessions:
    """What the probe wants to know of the replay."""

    clients: Callable[[], Mapping[bytes, bytes]]  # by target: whom its last session shows it
    failed: Callable[[], int]  # sessions whose connection failed, until now
    established: Callable[[], int]
    can_connect: Callable[[], bool] = lambda: True  # the relay is up: else that is said already
    # For `watch.Silence`: sessions begun, those live, and what shows that the target answers.
    progress: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target to probe."""

    config: ProbeConfig  # its flow names the target, and in socket mode the address to send from
    client: bytes = b""  # the mapped one is made from it; b"": from that of a session, waited for


class StartProbe:
    """Probes the targets, one after the other. Its methods are for the loop's thread."""

    def __init__(
        self,
        targets: Sequence[Candidate],
        identities: Identities | None,
        sessions: Sessions,
        *,
        run: Callable[[ProbeConfig], list[Finding]] = probe,
        ask: Callable[[ProbeConfig], bool | None] = still_forwards,
        stop: Callable[[bool], object] = lambda _: None,
    ) -> None:
        """`identities` is None in socket mode.

        `stop`: end all sessions and open none, or open some again; `ask`: whether that is still
        called for, None: not known.
        """
        self._targets = [
            replace(one, config=replace(one.config, limit_ns=START_NS, may_connect=False))
            for one in targets
        ]
        self._identities = identities
        self._sessions = sessions
        self._probe = run
        self._ask = ask
        self._stop = stop
        self._probed: ProbeConfig | None = None  # last
        self._is_stopped = False
        self._forwards: bool | None = None  # what asking has come to
        self._waiting = list(self._targets)  # to be probed yet, in this round
        self._why = ""  # of a round after failures, until it is said
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
                if self._is_stopped:
                    self._go_on()
                else:
                    self._tell()
                    self._stop_if_called_for(now_ns)
            return
        if self._is_stopped:
            self._ask_again(now_ns)
            return
        self._look_for_failures(now_ns)
        if self._waiting and self._sessions.can_connect():
            self._begin_next(now_ns)

    def close(self, now_ns: int) -> None:
        """The run ends: tell what was found already."""
        if self._thread is not None and not self._thread.is_alive():
            self.look(now_ns)

    def _stop_if_called_for(self, now_ns: int) -> None:
        if not any(finding.harms_clients for finding in self._found or ()):
            return
        self._is_stopped = True
        self._waiting = []
        self._next_ns = now_ns + _ASK_AGAIN_NS
        self._stop(True)
        _log.error(
            "no session is opened any more, and all are ended: real clients get what the target"
            " answers; tcpcopy looks every %d s whether that is mended, and goes on then",
            _ASK_AGAIN_NS // _SECOND_NS,
        )

    def _ask_again(self, now_ns: int) -> None:
        if now_ns >= self._next_ns and self._probed is not None:
            self._next_ns = now_ns + _ASK_AGAIN_NS
            self._thread = start_beside("probe", self._work_asking, self._probed)

    def _work_asking(self, config: ProbeConfig) -> None:
        try:
            self._forwards = self._ask(config)
        except (OSError, UsageError):
            self._forwards = None

    def _go_on(self) -> None:
        if self._forwards is not False:
            return
        self._is_stopped = False
        self._waiting = list(self._targets)
        self._stop(False)
        _log.warning("the assistant passes answers on no more: sessions are opened again")

    def _look_for_failures(self, now_ns: int) -> None:
        failed, established = self._sessions.failed(), self._sessions.established()
        more, better = failed - self._failed, established - self._established
        waiting = self._silence.look(*self._sessions.progress(), now_ns)
        if now_ns < self._next_ns:
            return
        # Established and reset at once is no better than refused: both are counted.
        if more >= _MANY and 2 * more > better:
            self._why = f"{more} sessions could not be connected"
            self._waiting = list(self._targets)
        elif waiting:
            self._why = f"{waiting} sessions wait for an answer of the target"
            self._waiting = list(self._targets)
        self._failed, self._established = failed, established
        self._next_ns = now_ns + _SECOND_NS

    def _begin_next(self, now_ns: int) -> None:
        """Probe the first that can be, of those that wait."""
        clients = self._sessions.clients()
        for candidate in list(self._waiting):
            flow: Flow | None = candidate.config.flow
            if self._identities is not None:
                client = candidate.client or clients.get(candidate.config.flow.target)
                if not client:
                    continue  # until it has a session
                flow = self._acquire(self._identities, candidate.config.flow, client, now_ns)
            self._waiting.remove(candidate)
            if flow is None:
                continue
            self._next_ns = now_ns + _PAUSE_NS
            self._found = None
            config = self._probed = replace(candidate.config, flow=flow)
            self._thread = start_beside("probe", self._work, config)
            return

    def _acquire(
        self, identities: Identities, flow: Flow, client: bytes, now_ns: int
    ) -> Flow | None:
        """Whom to be for the target; None: no address of its family, or all are taken."""
        found = identities.acquire(
            client_address=client,
            client_port=_CLIENT_PORT,
            target_address=flow.target,
            target_port=flow.target_port,
            copy=0,
            now_ns=now_ns,
        )
        if found is None:
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
        if not serious(found):
            if self._waiting:
                why = ""  # another target may yet be the cause
            for finding in found:
                if finding.check == "probe" and finding.level is Level.OK:
                    _log.info("%sprobe: %s", f"{why}, but now " if why else "", finding.text)
            if why:
                self._why = ""
            return
        self._why = ""
        if why:
            _log.warning("%s", why)
        tell(found)
