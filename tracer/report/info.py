"""What was recorded: the manifest in the contract's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.agent import light_mode
from tracer.events.header import load as load_header
from tracer.report.summary import NO_LOOP, lost_total, with_loops

if TYPE_CHECKING:
    from tracer.correlate.trace import Trace

# what each CPU (or agent) had lost when last looked at
_LOSSES = """
    SELECT event, cpu, agent, max(seen) AS seen, max(lost) AS lost FROM loss
    GROUP BY event, cpu, agent HAVING max(lost) > 0 ORDER BY lost DESC
"""


def info_document(trace: Trace) -> dict[str, Any]:
    """Return the `info` document; times in ns and s as their names say."""
    m = trace.manifest
    return {
        "path": str(trace.folder.path),
        "state": m["state"],
        "stopped": m.get("stopped"),
        "command": m["command"],
        "exit_code": m.get("exit_code"),
        "level": m["level"],
        "also": m["also"],
        "awaitscope": m["awaitscope"],
        "host": m["host"],
        "duration_ns": m["end_ns"] - m["start_ns"],
        "armed_ns": m["armed_ns"],
        "events": m["events"],
        "lost_total": lost_total(trace),
        "losses": trace.rows(_LOSSES),
        "gaps": trace.rows("SELECT ts_ns, end_ns, cpu, lost_count FROM gap ORDER BY ts_ns"),
        "targets": targets(trace),
        "left_running": m.get("left_running", []),
        "probes": m["probes"],
        "stolen_untold": m.get("stolen_untold"),
        "devices": m.get("devices", []),
        "overhead": overhead(m),
    }


def overhead(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what the recording cost: the reader, and the programs in the kernel.

    `bpf` is None, with `bpf_reason`, where the kernel's statistics were not to be had. A share is
    one of a CPU: 0.5 of two CPUs is a quarter of the machine.
    """
    seconds = max((manifest["end_ns"] - manifest["start_ns"]) / 1e9, 1e-9)
    written = sum(e["written"] for e in manifest["events"].values())
    # a tracer that was killed did not come to say
    reader = manifest.get("reader_cpu_s", 0) - manifest.get("reader_cpu_at_start_s", 0)
    times = manifest.get("run_times", {"reason": "the tracer died before it could say"})
    sampled_s = times.get("sampled_ns", 0) / 1e9
    bpf, reason = None, times.get("reason")
    if sampled_s:
        bpf = _programs(times["hooks"], sampled_s)
    elif reason is None:
        reason = "the recording was too short for a sample"
    return {
        "events_per_s": round(written / seconds, 1),
        "reader_cpu_s": round(reader, 4),
        "reader_cpu_share": round(reader / seconds, 4),
        "reader_cpu_s_per_million_events": round(reader / max(written, 1) * 1e6, 4),
        "bpf": bpf,
        "bpf_reason": reason,
    }


def _programs(hooks: list[dict[str, Any]], sampled_s: float) -> dict[str, Any]:
    """Return what the programs took while the kernel timed them, the dearest first."""
    ran = sorted((hook for hook in hooks if hook["runs"]), key=lambda h: -h["run_ns"])
    return {
        "sampled_s": round(sampled_s, 4),
        "cpu_share": round(sum(hook["run_ns"] for hook in ran) / 1e9 / sampled_s, 4),
        "runs_per_s": round(sum(hook["runs"] for hook in ran) / sampled_s, 1),
        "hooks": [
            {
                "hook": hook["hook"],
                "runs_per_s": round(hook["runs"] / sampled_s, 1),
                "ns_per_run": round(hook["run_ns"] / hook["runs"], 1),
                "cpu_share": round(hook["run_ns"] / 1e9 / sampled_s, 5),
            }
            for hook in ran
        ],
    }


def targets(trace: Trace) -> list[dict[str, Any]]:
    """Return the traced processes, each with its agent's mode and the reason if it has none."""
    agents: dict[int, dict[str, Any]] = {}
    # of several images of a process the last; one without an agent only if none had one
    order = sorted(
        trace.manifest["agents"], key=lambda a: (a["mode"] != "none", a.get("start_ns", 0))
    )
    for agent in order:
        agents[agent.get("tgid", agent.get("ns_tgid", -1))] = agent
    images = trace.rows(
        "SELECT tgid, arg_max(comm, ts_ns) AS comm FROM thread WHERE what = ? GROUP BY tgid",
        load_header().constants["THREAD_EXEC"],
    )
    comms = {row["tgid"]: row["comm"] for row in images}
    latest: dict[int, dict[str, Any]] = {}
    for process in trace.manifest["processes"]:
        latest[process["tgid"]] = {**latest.get(process["tgid"], {}), **process}
    targets, looping = [], with_loops(trace)
    for tgid, process in sorted(latest.items()):
        agent = agents.get(tgid)
        mode = agent["mode"] if agent else "none"
        target = {
            "tgid": tgid,
            "exe": process.get("exe"),
            "argv": process.get("argv"),
            "agent": mode,
        }
        if agent and mode != "none":
            target |= {name: agent[name] for name in ("python", "records", "lost")}
        if agent is None:
            target["reason"] = _why_none(process, comms.get(tgid), trace.manifest.get("uid"))
        elif mode == "light":
            target["reason"] = light_mode(agent["reason"])
        elif mode == "none":
            target["reason"] = agent["reason"]
        elif trace.manifest["agents"].index(agent) not in looping:
            target["reason"] = NO_LOOP
        targets.append(target)
    return targets


def _why_none(process: dict[str, Any], comm: str | None, uid: int | None) -> str:
    """Return the reason.

    Args:
        process: what /proc said of it.
        comm: its name at its last exec, which /proc may have missed.
        uid: the user that the command was run as.

    """
    argv = process.get("argv") or []
    exe = str(process.get("exe") or "").rsplit("/", 1)[-1]
    if not exe.startswith(("python", "pypy")):
        if comm and comm.startswith(("python", "pypy")):
            return "it ended before its command line could be read"
        return "not a Python process" if exe or comm else "it ended before it could be looked at"
    for arg in argv[1:]:
        if not arg.startswith("-") or arg.startswith("--"):
            break
        for letter in "IES":
            if letter in arg[1:]:
                return f"python -{letter} ignores the agent's start-up hook"
        if arg[1:2] in ("c", "m"):
            break
    return _why_not_started(process, uid)


def _why_not_started(process: dict[str, Any], uid: int | None) -> str:
    """Return what keeps a Python without options from starting the agent."""
    if process.get("agent_asked") is False:
        return "its environment was cleared: the agent's start-up hook was not in it"
    if process.get("root", "/") != "/":
        return f"it runs in another root directory ({process['root']})"
    if process.get("uid", uid) not in (uid, 0):
        return "it runs as another user, who cannot reach the trace folder"
    return "the agent did not start"
