"""The HTTP interface: pictures, health, metrics and a web page."""

import asyncio
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from fxcache.server.config import ServerConfig
from fxcache.server.metrics import RequestMetrics, fxcache_lines
from fxcache.server.painter import Drawn, Wish

APP, REPLICAS = "fxcache", "Replica"  # names of the application and of its drawing deployment
LEFT = 499  # the status of a request whose client left, which nobody receives
PAUSE = 0.5  # seconds before an accepted request tries again to enter the queue
MOST_BYTES = 2**16  # of a request
MANY = 2**16  # requests that the ingress holds; the replicas' queues have their own bound
app = FastAPI(title="fxcache", docs_url=None, redoc_url=None)


class WishBody(BaseModel):
    """The body of ``POST /draw``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(min_length=1, max_length=2000)
    steps: int = Field(default=50, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    guidance_scale: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Answer:
    """The answer to a wish: a picture, or an error with its HTTP status.

    Attributes:
        status: The HTTP status.
        drawn: The picture; None after an error.
        error: The error; empty without one.
        tries: How many replicas tried it.
    """

    status: int
    drawn: Drawn | None = None
    error: str = ""
    tries: int = 1

    def response(self, seconds: float) -> Response:
        """Return the HTTP response."""
        if self.drawn is not None:
            headers = {
                "X-Fxcache-Seconds": f"{seconds:.3f}",
                "X-Fxcache-Process": str(self.drawn.process),
                "X-Fxcache-Tries": str(self.tries),
            }
            return Response(self.drawn.png, media_type="image/png", headers=headers)
        headers = {"Retry-After": "1"} if self.status == 503 else {}
        return JSONResponse({"error": self.error}, self.status, headers)


# Ray Serve copies the globals of the routes where it decorates the class: helpers come first.
@app.exception_handler(RequestValidationError)
async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Return what is wrong with a wish, without repeating its values."""
    del request
    causes = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
    return JSONResponse({"error": "; ".join(causes)}, 422)


@app.middleware("http")
async def bounded(request: Request, call_next: Any) -> Response:
    """Refuse requests with large bodies, and bodies of unknown length."""
    length = request.headers.get("content-length", "0" if request.method == "GET" else "")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return JSONResponse({"error": f"the body must have at most {MOST_BYTES} bytes"}, 413)
    answer: Response = await call_next(request)
    return answer


async def disconnected(request: Request) -> None:
    """Return when the client has closed the connection."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def running_replicas() -> int:
    """Return the number of replicas that can draw."""
    applications: Mapping[str, Any] = serve.status().applications
    if APP not in applications or REPLICAS not in applications[APP].deployments:
        return 0
    states = applications[APP].deployments[REPLICAS].replica_states
    return int(states.get("RUNNING", 0))


@serve.deployment(max_ongoing_requests=MANY, ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Ingress:
    """Passes wishes to replicas, within their deadlines.

    Args:
        config: The options of the server.
        replicas: The handle of the replicas.
    """

    def __init__(self, config: ServerConfig, replicas: Any) -> None:
        self._config, self._replicas = config, replicas
        self._metrics = RequestMetrics()
        self._ongoing, self._draining = 0, False

    @app.get("/", response_class=HTMLResponse)
    def page(self) -> str:
        """Return the web page."""
        return (files("fxcache.server") / "page.html").read_text(encoding="utf-8")

    @app.post("/draw")
    async def draw(self, body: WishBody, request: Request) -> Response:
        """Draw a picture. The answer is a PNG file, or JSON with the key ``error``."""
        began = time.monotonic()
        self._ongoing += 1
        self._metrics.set_ongoing(self._ongoing)
        status = 500
        try:
            answer = await self._answer(body, request)
            status = answer.status
            return answer.response(time.monotonic() - began)
        except asyncio.CancelledError:
            status = LEFT
            raise
        finally:
            self._ongoing -= 1
            self._metrics.set_ongoing(self._ongoing)
            self._metrics.add(status, time.monotonic() - began)

    @app.get("/health")
    def health(self) -> JSONResponse:
        """Return the status 200 if a replica can draw, else 503."""
        running = running_replicas()
        ready = running > 0 and not self._draining
        data = {"replicas": running, "draining": self._draining, "ongoing": self._ongoing}
        return JSONResponse(data, 200 if ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics(self) -> str:
        """Return fxcache's metrics on this machine in Prometheus' text format."""
        address = f"http://127.0.0.1:{self._config.metrics_port}/metrics"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address, timeout=5) as answer:
            return fxcache_lines(answer.read().decode())

    def drain(self) -> int:
        """Refuse new wishes. Return how many are still being served."""
        self._draining = True
        return self._ongoing

    async def _answer(self, body: WishBody, request: Request) -> Answer:
        """Return the answer to a wish, or stop when the client leaves or the deadline is over."""
        if self._draining:
            return Answer(503, error="the server is shutting down")
        if body.steps > self._config.max_steps:
            return Answer(422, error=f"steps={body.steps} is above {self._config.max_steps}")
        seconds = min(body.deadline or self._config.deadline, self._config.deadline)
        wish = Wish(body.prompt, body.steps, body.seed, body.guidance_scale)
        work = asyncio.ensure_future(self._drawn(wish))
        left = asyncio.ensure_future(disconnected(request))
        try:
            done, _ = await asyncio.wait(
                {work, left}, timeout=seconds, return_when="FIRST_COMPLETED"
            )
            if work in done:
                return work.result()
            if left in done:
                return Answer(LEFT, error="the client left")
            return Answer(504, error=f"the picture was not done after {seconds:g} seconds")
        finally:
            work.cancel()
            left.cancel()

    async def _drawn(self, wish: Wish) -> Answer:
        """Let a replica draw, and another one if the first ends meanwhile."""
        tries = 1
        while tries <= self._config.retries + 1:
            try:
                drawn = await self._drawn_once(wish)
            except BackPressureError:
                if tries == 1:
                    return Answer(503, error=f"the queue of {self._config.max_queued} is full")
                await asyncio.sleep(PAUSE)  # this request was accepted, so it waits for its turn
                continue
            except (RayActorError, DeploymentUnavailableError):
                tries += 1
                continue
            except RayError as error:
                return Answer(500, error=f"the picture failed: {str(error).splitlines()[-1][:500]}")
            if drawn.refusal:
                return Answer(400, error=drawn.refusal)
            return Answer(200, drawn, tries=tries)
        return Answer(503, error="the replica ended while it drew this picture")

    async def _drawn_once(self, wish: Wish) -> Drawn:
        """Let a replica draw. It stops if this call is cancelled."""
        response = self._replicas.draw.remote(wish)
        try:
            drawn: Drawn = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        return drawn
