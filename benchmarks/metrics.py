"""Names of what is measured: column heading, and how a value is written."""

from __future__ import annotations

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """One measured quantity."""

    heading: str
    decimals: int
    meaning: str


METRICS: Final[dict[str, Metric]] = {
    "online_per_s": Metric("online req/s", 0, "requests a second that the online server read"),
    "target_per_s": Metric("target req/s", 0, "the same at the target, until it had caught up"),
    "packets_per_s": Metric("packets/s", 0, "packets a second from client to online"),
    "exact": Metric("target / online", 4, "requests at the target for each one at online"),
    "tcpcopy_us": Metric("tcpcopy us/req", 2, "CPU of all tcpcopy processes for each request"),
    "tcpcopy_user_us": Metric("of it user", 2, "its part in user mode (sampled by ticks)"),
    "tcpcopy_user_packet_us": Metric(
        "user us/packet", 2, "user mode for each packet captured (C: for each sent by the client)"
    ),
    "intercept_us": Metric(
        "intercept us/req", 2, "CPU of all intercept processes for each request"
    ),
    "intercept_user_us": Metric("of it user ", 2, "its part in user mode (sampled by ticks)"),
    "together_us": Metric("together us/req", 2, "tcpcopy and intercept"),
    "own_us": Metric("without soft irq", 2, "together, less what perf found in soft interrupts"),
    "tcpcopy_sleeps": Metric("tcpcopy sleeps/req", 3, "times it waited, for each request"),
    "intercept_sleeps": Metric("intercept sleeps/req", 3, "times it waited, for each request"),
    "to_target": Metric("packets to target", 2, "packets the target received for each request"),
    "from_target": Metric("packets from target", 2, "packets the target sent for each request"),
    "tcpcopy_mb": Metric("tcpcopy MB", 1, "resident memory, capture ring included"),
    "intercept_mb": Metric("intercept MB", 1, "resident memory, capture ring included"),
    "tcpcopy_own_mb": Metric("own MB", 1, "of it what the program itself has filled"),
    "intercept_own_mb": Metric("own MB ", 1, "of it what the program itself has filled"),
    "tcpcopy_peak_mb": Metric("tcpcopy peak MB", 1, "the most resident memory there was"),
    "intercept_peak_mb": Metric("intercept peak MB", 1, "the most resident memory there was"),
    "drops": Metric("drops", 0, "packets that the kernel could not hand to tcpcopy"),
    "intercept_drops": Metric(
        "intercept drops", 0, "answers that the kernel could not hand to intercept"
    ),
    "slowdown": Metric("online speed", 3, "online requests a second, by those without a copy"),
    "delay_p50_ms": Metric("delay p50 ms", 3, "arrival at online to arrival at the target"),
    "delay_p99_ms": Metric("delay p99 ms", 3, "arrival at online to arrival at the target"),
    "delay_count": Metric("delays", 0, "requests whose delay was measured"),
    "tcpcopy_idle_us": Metric("tcpcopy us/s", 0, "CPU in a second without traffic"),
    "intercept_idle_us": Metric("intercept us/s", 0, "CPU in a second without traffic"),
    "sessions": Metric("sessions", 0, "connections that were open at the target"),
    "tcpcopy_session_bytes": Metric("tcpcopy B/session", 0, "growth of resident memory for each"),
    "intercept_session_bytes": Metric("intercept B/session", 0, "growth of resident memory"),
    "scale_session_bytes": Metric("B/session", 0, "growth of resident memory for each open one"),
    "scale_wave_growth": Metric(
        "last wave", 3, "resident memory with the last, to that with the second"
    ),
    "scale_open_ns": Metric("open ns", 0, "CPU of a SYN: a session made, and its own SYN sent"),
    "scale_close_ns": Metric("close ns", 0, "CPU of a client's RST, replayed"),
    "scale_pause_ms": Metric("longest ms", 2, "longest single SYN while all were opened"),
    "scale_idle_timers_ns": Metric("idle timers ns", 0, "a call of run_timers, nothing due"),
    "scale_request_ns": Metric("request ns", 0, "CPU of a captured request, over all at random"),
    "scale_answer_ns": Metric("answer ns", 0, "CPU of an answer of the target, the same"),
    "scale_timer_ns": Metric("timer ns", 0, "CPU of a delayed acknowledgement, the same"),
    "scale_hot_request_ns": Metric("hot request ns", 0, "the same on a fixed set of 100"),
    "scale_hot_answer_ns": Metric("hot answer ns", 0, "the same on a fixed set of 100"),
    "scale_hot_timer_ns": Metric("hot timer ns", 0, "the same on a fixed set of 100"),
    "packet_us": Metric("us/packet", 2, "CPU for each packet copied"),
    "packet_user_us": Metric("of it user", 2, "its part in user mode (sampled by ticks)"),
    "packet_sleeps": Metric("sleeps/packet", 3, "times it waited, for each packet"),
    "send_errors": Metric("send errors", 0, "packets that the kernel did not take"),
    "seconds": Metric("s", 1, "seconds measured"),
}
