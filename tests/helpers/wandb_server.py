"""A loopback stand-in of W&B's API: enough for the real `wandb sweep`, `wandb agent` and online runs."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "me", "study"
OWNER = {"id": "1", "name": ENTITY}


class Server:
    """One sweep, its agents and runs, as W&B's server keeps them.

    A run that ends badly after it was marked preempting goes to the head of the queue, as W&B documents it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sweep: dict[str, Any] = {}
        self.queue: list[tuple[str, dict[str, Any]]] = []  # run id, args
        self.runs: dict[str, dict[str, Any]] = {}  # run id: args, agent, state, starts, rows, config
        self.agents: list[str] = []
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
        self.sweep = yaml.safe_load(given["config"])
        names = list(self.sweep["parameters"])
        axes = [p["values"] if "values" in p else [p["value"]] for p in self.sweep["parameters"].values()]
        for i, values in enumerate(itertools.product(*axes)):
            args = {name: {"value": value} for name, value in zip(names, values, strict=True)}
            self.queue.append((f"cell{i:04}", args))
        sweep = {"name": "sweep1", "project": {"id": "1", "name": PROJECT, "entity": OWNER}}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, _: Any) -> dict[str, Any]:  # noqa: N802
        facts = {"id": "1", "name": "sweep1", "state": "RUNNING", "config": yaml.safe_dump(self.sweep)}
        return {"project": {"sweep": {**facts, "runs": {"edges": []}}}}

    def on_CreateAgent(self, _: Any) -> dict[str, Any]:  # noqa: N802
        self.agents.append(f"agent{len(self.agents)}")
        return {"createAgent": {"agent": {"id": self.agents[-1]}}}

    def on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        agent, alive = given["id"], json.loads(given["runState"])
        for name, run in self.runs.items():
            if run["agent"] == agent and run["state"] == "running" and name not in alive:
                self._end(name, run)
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(self._commands(agent, alive))}}

    def _end(self, name: str, run: dict[str, Any]) -> None:
        bad = run["exitcode"] != 0
        run["state"] = "crashed" if bad else "finished"
        if bad and run["preempting"]:
            self.queue.insert(0, (name, run["args"]))

    def _commands(self, agent: str, alive: dict[str, Any]) -> list[dict[str, Any]]:
        if alive:
            return []
        if not self.queue:
            busy = any(run["state"] == "running" for run in self.runs.values())
            return [] if busy else [{"type": "exit"}]
        name, args = self.queue.pop(0)
        again = name in self.runs
        run = self.runs.setdefault(name, {"args": args, "starts": 0, "rows": [], "config": {}, "agents": []})
        run |= {"agent": agent, "state": "running", "exitcode": None, "preempting": False}
        run["starts"] += 1
        run["agents"].append(agent)
        kind = "resume" if again else "run"
        return [{"type": kind, "run_id": name, "program": self.sweep["program"], "args": args}]

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = given.get("name") or "unnamed"
        run = self.runs.setdefault(name, {"rows": [], "config": {}, "preempting": False, "exitcode": None})
        run["config"] |= json.loads(given.get("config") or "{}")
        run["name"] = given.get("displayName") or run.get("name")
        bucket = {"id": name, "name": name, "displayName": run["name"], "description": "", "config": "{}"}
        bucket |= {"sweepName": "sweep1" if self.sweep else None, "historyLineCount": len(run["rows"])}
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
