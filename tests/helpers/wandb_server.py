"""A loopback stand-in of W&B's API: enough for the real `wandb sweep`, `wandb agent` and online runs."""

import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "me", "study"
DAY = "2026-01-01T00:00:00"
OWNER = {"id": "1", "name": ENTITY}


class Sweep:
    """A grid, and what of it is still to be given out."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        self.name, self.config = name, config
        names = list(config["parameters"])
        axes = [p["values"] if "values" in p else [p["value"]] for p in config["parameters"].values()]
        combinations = itertools.product(*axes)
        cells = [{n: {"value": v} for n, v in zip(names, values, strict=True)} for values in combinations]
        self.queue = [(f"{name}cell{i:04}", args) for i, args in enumerate(cells)]  # run id, args


class Server:
    """Sweeps, their agents and runs, as W&B's server keeps them.

    A run that ends badly after it was marked preempting goes to the head of the queue, as W&B documents it. So does the
    run of an agent that has said nothing for `silence` seconds (W&B's: 5 minutes).
    """

    def __init__(self, silence: float = 1e9) -> None:
        self.lock = threading.RLock()
        self.silence = silence
        self.sweeps: dict[str, Sweep] = {}
        self.runs: dict[str, dict[str, Any]] = {}  # run id: args, sweep, agent, state, starts, rows, config, summary
        self.agents: dict[str, str] = {}  # their sweeps
        self.seen: dict[str, float] = {}  # when an agent last spoke
        self.broken: set[str] = set()  # operations that are answered with an error
        handler = type("Handler", (Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.http.shutdown()
        self.http.server_close()

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """GraphQL: the data for one operation."""
        with self.lock:
            method = getattr(self, f"on_{operation}", None)
            return method(variables) if method else {}

    def on_Viewer(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"viewer": {**OWNER, "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def on_UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sweep = Sweep(f"sweep{len(self.sweeps) + 1}", yaml.safe_load(given["config"]))
        self.sweeps[sweep.name] = sweep
        facts = {"name": sweep.name, "project": {"id": "1", "name": PROJECT, "entity": OWNER}}
        return {"upsertSweep": {"sweep": facts, "configValidationWarnings": []}}

    def _facts(self, sweep: Sweep) -> dict[str, Any]:
        self._bury_the_silent()
        state = "RUNNING" if sweep.queue or self._busy(sweep.name) else "FINISHED"
        facts = {"id": sweep.name, "name": sweep.name, "state": state, "config": yaml.safe_dump(sweep.config)}
        facts |= {"__typename": "Sweep", "displayName": None, "method": "grid", "description": None, "bestLoss": None}
        return facts | {"createdAt": DAY, "updatedAt": DAY, "runCount": 0, "runCountExpected": None}

    def on_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"sweep": {**self._facts(self.sweeps[given["sweep"]]), "runs": {"edges": []}}}}

    def on_GetSweep(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"sweep": self._facts(self.sweeps[given["name"]])}}

    def on_GetSweeps(self, _: Any) -> dict[str, Any]:  # noqa: N802
        edges = [{"node": self._facts(sweep)} for sweep in self.sweeps.values()]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"project": {"totalSweeps": len(edges), "sweeps": {"pageInfo": page, "edges": edges}}}

    def on_Runs(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self._bury_the_silent()
        sweep = json.loads(given["filters"]).get("sweep")
        edges = [
            {"node": self._run_facts(name, run), "cursor": name}
            for name, run in self.runs.items()
            if run.get("sweep") == sweep
        ]
        page = {"endCursor": None, "hasNextPage": False}
        return {"project": {"runCount": len(edges), "runs": {"edges": edges, "pageInfo": page}}}

    @staticmethod
    def _run_facts(name: str, run: dict[str, Any]) -> dict[str, Any]:
        facts = {"id": name, "name": name, "displayName": run.get("name"), "state": run["state"], "tags": []}
        facts |= {"config": "{}", "summaryMetrics": json.dumps(run["summary"]), "systemMetrics": "{}"}
        return facts | {"createdAt": DAY, "heartbeatAt": DAY, "historyLineCount": len(run["rows"]), "user": OWNER}

    def on_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = f"agent{len(self.agents)}"
        self.agents[name] = given["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        agent, alive = given["id"], json.loads(given["runState"])
        self.seen[agent] = time.monotonic()
        for name, run in self.runs.items():
            if run["agent"] == agent and run["state"] == "running" and name not in alive:
                self._end(name, run)
        self._bury_the_silent()
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(self._commands(agent, alive))}}

    def _bury_the_silent(self) -> None:
        for name, run in self.runs.items():
            agent = run.get("agent")
            if agent and run["state"] == "running" and time.monotonic() - self.seen[agent] > self.silence:
                self._end(name, run)

    def _end(self, name: str, run: dict[str, Any]) -> None:
        bad = run["exitcode"] != 0
        run["state"] = "crashed" if bad else "finished"
        if bad and run["preempting"]:
            self.sweeps[run["sweep"]].queue.insert(0, (name, run["args"]))

    def _busy(self, sweep: str) -> bool:
        return any(run["state"] == "running" for run in self.runs.values() if run.get("sweep") == sweep)

    def _commands(self, agent: str, alive: dict[str, Any]) -> list[dict[str, Any]]:
        sweep = self.sweeps[self.agents[agent]]
        if alive:
            return []
        if not sweep.queue:
            return [] if self._busy(sweep.name) else [{"type": "exit"}]
        name, args = sweep.queue.pop(0)
        again = name in self.runs
        new = {"args": args, "starts": 0, "rows": [], "config": {}, "summary": {}, "agents": []}
        run = self.runs.setdefault(name, new)
        run |= {"sweep": sweep.name, "agent": agent, "state": "running", "exitcode": None, "preempting": False}
        run["starts"] += 1
        run["agents"].append(agent)
        kind = "resume" if again else "run"
        return [{"type": kind, "run_id": name, "program": sweep.config["program"], "args": args}]

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = given.get("name") or "unnamed"
        new = {"rows": [], "config": {}, "summary": {}, "preempting": False, "exitcode": None}
        run = self.runs.setdefault(name, new)
        run["config"] |= json.loads(given.get("config") or "{}")
        run["name"] = given.get("displayName") or run.get("name")
        bucket = {"id": name, "name": name, "displayName": run["name"], "description": "", "config": "{}"}
        bucket |= {"sweepName": run.get("sweep"), "historyLineCount": len(run["rows"])}
        bucket["project"] = {"id": "1", "name": PROJECT, "entity": OWNER}
        return {"upsertBucket": {"bucket": bucket, "inserted": not run["rows"]}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(given["name"])
        if run is None or not run["rows"]:
            return {"model": {"id": "1", "name": PROJECT, "bucket": None}}
        tail = json.dumps([json.dumps(run["rows"][-1])])
        bucket = {"id": given["name"], "name": given["name"], "displayName": run["name"], "config": "{}", "tags": []}
        bucket |= {"summaryMetrics": "{}", "historyTail": tail, "eventsTail": "[]"}
        bucket["wandbConfig"] = '{"t": 1}'  # else the client takes the run for one that never began
        bucket |= {"logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(run["rows"])}
        return {"model": {"id": "1", "name": PROJECT, "entity": OWNER, "bucket": bucket}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given.get("files", [])]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """What a run's process sends as it goes: rows of history, preempting, completion."""
        with self.lock:
            run = self.runs[name]
            for line in sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
                run["rows"].append(json.loads(line))
            for line in sent.get("files", {}).get("wandb-summary.json", {}).get("content", []):
                run["summary"] = json.loads(line)
            if sent.get("preempting"):
                run["preempting"] = True
            if sent.get("complete"):
                run["exitcode"] = sent.get("exitcode")


class Handler(BaseHTTPRequestHandler):
    """HTTP around a Server."""

    server_state: Server

    def _reply(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/graphql":
            sent = json.loads(body)
            operation = sent.get("operationName") or sent["query"].split("{")[0].split("(")[0].split()[-1]
            if operation in self.server_state.broken:
                self.send_error(400)
                return
            self._reply({"data": self.server_state.answer(operation, sent.get("variables") or {})})
        elif self.path.endswith("/file_stream"):
            self.server_state.stream(self.path.split("/")[-2], json.loads(body))
            self._reply({})
        else:
            self._reply({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def log_message(self, *_: Any) -> None:
        pass
